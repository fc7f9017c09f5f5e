"""A machine with a broken kernel: nothing is trained, and the run and the doctor say why."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Project
from tests.elth.test_arithmetic import BROKEN

pytestmark = pytest.mark.e2e

CONFIG = """\
name: small
dataset: digits
seeds: [0]
recipe: {base: digits_resnet, length: 2ep, rewind: 1it, milestones: []}
pruning: {rate: 0.2, rounds: 1}
grid: [{method: imp, network: resnet14(width=4)}]
"""


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("results[1] = results[1] * 1.01", "'layer2.0.downsample.0' is off by 1 % of its size"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "this network ends its process by SIGSEGV"),
    ],
)
def test_a_broken_kernel_is_caught(fault: str, told: str, tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("small.yaml", CONFIG)
    (tmp_path / "broken").mkdir()
    project.write("broken/sitecustomize.py", BROKEN.format(shape=(8, 4, 1, 1), fault=fault))
    broken = {"PYTHONPATH": str(tmp_path / "broken"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = project.elth("run", "small.yaml", **broken)
    assert done.returncode == 3, done.stdout + done.stderr
    assert told in done.stderr
    assert "Nothing was trained" in done.stderr
    assert project.done() == {}
    doctor = project.elth("doctor", "small.yaml", **broken)
    assert doctor.returncode == 3
    assert "WRONG  arithmetic: resnet14(width=4) on digits in float32: " in (doctor.stdout)
    assert told in doctor.stdout
    # On a sound machine the same command does it.
    assert project.elth("run", "small.yaml").returncode == 0
