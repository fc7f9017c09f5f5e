"""The commands of README.md as a stranger gives them, in a checkout and from the wheel alone.

What would take minutes is given with a smaller grid, and nothing else changed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.e2e.conftest import WAIT, Project

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SMALL = (
    "seeds=[0]",
    "pruning={rate: 0.5, rounds: 1}",
    "recipe={base: digits_resnet, length: 2ep, milestones: []}",
)
CHAIN = (*SMALL, "grid=[{method: imp, network: resnet14(width=4)}]", "claims=[]")
SHORTER = {
    "elth run mine/mine.yaml": SMALL,
    "elth run fig6_cifar_resnets scale=smoke": CHAIN,
    "elth run quickstart": CHAIN,
}


def _commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line for language, block in found if not language for line in block.splitlines()]
    return [line.partition("#")[0].strip() for line in lines]


def _give(project: Project, line: str) -> str:
    """Give a command; what it prints."""
    done = project.elth(*shlex.split(line)[1:], *SHORTER.get(line, ()))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    """Those of ``make`` are looked at: the first is a run, and the second runs these tests."""
    first, second, *rest = _commands()
    assert (first, second) == ("make quickstart", "make test")
    words = ["make", "--dry-run", "--always-make", "quickstart", "test"]
    made = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ".venv/bin/elth run tune_configs/quickstart.yaml\n" in made
    assert "pytest tests/e2e" in made
    assert all(line.startswith("elth ") for line in rest)
    assert {line for line in rest if line.startswith("elth run")} < SHORTER.keys()
    project = Project(tmp_path)
    said = {line: _give(project, line) for line in rest}
    assert "my_nets:small(units=4) on my_data:shapes, seed 0" in said["elth report mine"]
    assert "fig6_cifar_resnets" in said["elth configs"]
    assert (tmp_path / "fig6_cifar_resnets.yaml").is_file()
    done = project.elth("run", str(ROOT / "tune_configs/quickstart.yaml"), *CHAIN)
    assert done.returncode == 0, done.stdout + done.stderr


class Installed(Project):
    """A project whose commands are those of a wheel, in an environment without a checkout."""

    def __init__(self, path: Path, python: Path) -> None:
        super().__init__(path)
        self._python = python

    def python(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run its Python to its end."""
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run(
            [self._python, *words],
            cwd=self.path,
            env={**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **variables},
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    """An empty folder, and an environment with the wheel and the packages that it needs."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "environment"
    venv.create(home, symlinks=True)
    python = home / "bin/python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    packages = Path(told.stdout.strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # A .pth file of a folder that is named by one is not read: so no checkout is found.
    others = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    (packages / "others.pth").write_text("\n".join(others), encoding="utf-8")
    (tmp_path / "empty").mkdir()
    return Installed(tmp_path / "empty", python)


def test_the_wheel_alone(installed: Installed) -> None:
    where = installed.python("-c", "import elth, orchestrator; print(elth, orchestrator)")
    assert where.stdout.count("environment/lib") == 2, where
    assert _give(installed, "elth configs") == Project(installed.path).elth("configs").stdout
    _give(installed, "elth plan maene_fig1_stability")
    assert "IMP" in _give(installed, "elth run quickstart")
    assert _give(installed, "elth init mine").splitlines()[-1] == "elth run mine/mine.yaml"
    _give(installed, "elth run mine/mine.yaml")
    grids = _give(installed, "elth grids")
    assert all(name in grids for name in ("quickstart", "mine"))
    refused = installed.elth("run", "tune_configs/quickstart.yaml")
    assert "the one that comes with elth is called quickstart" in refused.stderr
