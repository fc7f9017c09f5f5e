"""A network of somebody else's, a vision transformer: whole runs, killed and read without it."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Project

PLUGINS = Path(__file__).parents[1] / "plugins"

GRID = """\
name: transformer
plugins: [./code/vit.py]
dataset: digits
seeds: [0]
recipe:
  {base: digits_resnet, optimiser: adam, lr: 0.003, weight_decay: 0, length: 8ep, milestones: [6ep]}
pruning: {rate: 0.5, rounds: 1}
grid:
  - {method: [dense, imp], network: "vit:vit(width=16)"}
  - {method: [imp, reinit, random], network: "vit:vit(depth=4,width=16)"}
  - method: ett
    source: vit:vit(width=16)
    network: vit:vit(depth=4,width=16)
    transform: [append, interpolate]
resources: {checkpoint_minutes: 0, concurrent: 1}
"""


def _project(path: Path) -> Project:
    project = Project(path)
    (path / "code").mkdir()
    shutil.copy(PLUGINS / "vit.py", path / "code")
    project.write("transformer.yaml", GRID)
    return project


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The grid, run to its end."""
    project = _project(tmp_path_factory.mktemp("transformer"))
    done = project.elth("run", "transformer.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def test_it_is_pruned_stretched_and_reported(whole: Project) -> None:
    cells = {(c["network"], c["method"], c["transform"]): c for c in whole.cells("transformer")}
    deeper = "vit:vit(depth=4, width=16)"
    for transform in ("append", "interpolate"):
        cell = cells[deeper, "ett", transform]
        assert cell["accuracy_mean"] > cells[deeper, "random", ""]["accuracy_mean"]
        assert cell["source"] == "vit:vit(width=16)"
    plan = whole.elth("plan", "transformer.yaml")
    assert "Nothing to do: every stage is finished" in plan.stdout
    assert "Code from outside: vit (vit.py), sha256:" in plan.stdout
    assert "never pruned: places (256), LayerNorm (160)" in plan.stdout


def test_killed_in_the_middle_of_a_training_it_goes_on_bit_for_bit(
    whole: Project, tmp_path: Path
) -> None:
    project = _project(tmp_path)
    driver = project.start("run", "transformer.yaml")
    inflight = tmp_path / "runs" / "inflight"

    def is_in_the_middle() -> bool:
        return len(project.done()) > 1 and any(inflight.glob("*/*"))

    project.wait_for(is_in_the_middle, driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=60)
    done = project.elth("run", "transformer.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "found finished" in done.stdout
    assert project.report("transformer") == whole.report("transformer")


def test_an_edit_that_could_change_it_asks_for_it_again(whole: Project) -> None:
    file = whole.path / "code" / "vit.py"
    text = file.read_text()
    file.write_text(f"{text}\n# another thought\n")
    edited = whole.elth("plan", "transformer.yaml").stdout
    file.write_text(text)
    assert re.search(r"│ all +│ +10 │ +0 │ +10 │", edited), edited


def test_its_results_are_read_where_it_is_not(whole: Project) -> None:
    before = whole.report("transformer")
    (whole.path / "code").rename(whole.path / "elsewhere")
    try:
        assert whole.report("transformer") == before
        status = whole.elth("status", "transformer")
        assert (status.returncode, status.stderr) == (0, "")
        refused = whole.elth("plan", "transformer.yaml")
        assert refused.returncode == 2
        assert "in plugins: there is no plugin" in refused.stderr
    finally:
        (whole.path / "elsewhere").rename(whole.path / "code")
