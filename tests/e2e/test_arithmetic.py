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


def _refused(project: Project, fault: str, told: str) -> dict[str, str]:
    """Have a run refused on a machine with a fault; the variables that make it one."""
    project.write("small.yaml", CONFIG)
    (project.path / "broken").mkdir()
    project.write("broken/sitecustomize.py", BROKEN.format(shape=(8, 4, 1, 1), fault=fault))
    broken = {
        "PYTHONPATH": str(project.path / "broken"),
        "XDG_CACHE_HOME": str(project.path / "cache"),
    }
    done = project.elth("run", "small.yaml", **broken)
    assert done.returncode == 3, done.stdout + done.stderr
    assert told in done.stderr
    assert "Nothing was trained" in done.stderr
    assert project.done() == {}
    return broken


def test_a_kernel_that_is_wrong_is_caught_and_a_sound_machine_goes_on(tmp_path: Path) -> None:
    project = Project(tmp_path)
    told = "'layer2.0.downsample.0' is off by 1 % of its size"
    _refused(project, "results[1] = results[1] * 1.01", told)
    assert project.elth("run", "small.yaml").returncode == 0


def test_a_kernel_that_crashes_is_caught_and_the_doctor_says_so(tmp_path: Path) -> None:
    project = Project(tmp_path)
    told = "this network ends its process by SIGSEGV"
    broken = _refused(project, "os.kill(os.getpid(), signal.SIGSEGV)", told)
    doctor = project.elth("doctor", "small.yaml", **broken)
    assert doctor.returncode == 3
    assert "WRONG  arithmetic: resnet14(width=4) on digits in float32: " in doctor.stdout
    assert told in doctor.stdout
