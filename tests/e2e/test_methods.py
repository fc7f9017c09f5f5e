"""Every method of a grid through Ray and MLflow to its cell, on small networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.experiment.methods import METHODS, SOURCE
from tests.e2e.conftest import Project

pytestmark = pytest.mark.e2e

SMALL, DEEPER, WIDER = "resnet14(width=4)", "resnet20(width=4)", "resnet14(width=8)"
MOVED = [n for n, m in METHODS.items() if m.base == SOURCE and n != "ett_head"]
OTHERS = [name for name in METHODS if name not in (*MOVED, "ett_head", "dense", "imp")]
TOTAL = 11_012
"""ResNet-14 of width 4 on grey images: 36 + 576 + 2,048 + 8,192 + 160: stem, three stages, head."""

GRID = f"""\
name: methods
dataset: digits
seeds: [0]
recipe: {{base: digits_resnet, length: 2ep, milestones: []}}
pruning: {{rate: 0.5, rounds: 2}}
criteria:
  grasp: {{samples_per_class: 4}}
  synflow: {{iterations: 5, at: init}}
  rigl: {{every: 4it}}
  set: {{every: 4it}}
  snfs: {{every: 4it}}
  gmp: {{every: 4it}}
  dpf: {{every: 4it}}
grid:
  - {{method: imp, network: {SMALL}, round: all, sparsity: 0.6}}
  - {{method: {OTHERS}, network: {SMALL}}}
  - {{method: magnitude, network: {SMALL}, sparsity: 0.6}}
  - {{method: {MOVED}, source: {SMALL}, network: {DEEPER}, transform: append}}
  - {{method: ett, source: {SMALL}, network: {WIDER}, transform: "double:gaussian"}}
  - {{method: [ett, ett_head], source: {SMALL}, source_dataset: digits(size=16), network: {SMALL}}}
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The cells of a grid with every method."""
    project = Project(tmp_path_factory.mktemp("methods"))
    Path(project.path / "methods.yaml").write_text(GRID, encoding="utf-8")
    done = project.elth("run", "methods.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return project.cells("methods")


def _count(cells: list[dict[str, Any]], network: str, method: str, **axes: Any) -> int:
    found = [
        c
        for c in cells
        if (c["network"], c["method"], c["dataset"]) == (network, method, "digits")
        and all(c.get(axis, "") == value for axis, value in axes.items())
    ]
    assert len(found) == 1, (network, method, axes)
    assert len(found[0]["nonzeros"]) == 1
    return int(found[0]["nonzeros"][0])


def test_every_method_keeps_as_many_weights_as_imp(cells: list[dict[str, Any]]) -> None:
    assert _count(cells, SMALL, "imp", round=2, target="") == TOTAL // 4
    for method in OTHERS:
        assert _count(cells, SMALL, method, round=2, target="") == TOTAL // 4, method


def test_an_exact_sparsity_is_reached_by_a_last_smaller_round(cells: list[dict[str, Any]]) -> None:
    for method in ("imp", "magnitude"):
        assert _count(cells, SMALL, method, round=2, target="0.6") == TOTAL * 4 // 10


def test_controls_of_a_moved_ticket_keep_as_many_weights_as_it(cells: list[dict[str, Any]]) -> None:
    kept = {method: _count(cells, DEEPER, method, round=2) for method in MOVED}
    assert set(kept.values()) == {kept["ett"]}


def test_width_and_datasets_move_tickets_too(cells: list[dict[str, Any]]) -> None:
    doubled = _count(cells, WIDER, "ett", transform="double:gaussian")
    assert 2 * TOTAL // 4 < doubled <= TOTAL, "stem and head grow twofold, all else fourfold"
    moved = [c for c in cells if c["source"] == f"{SMALL}@digits(size=16)"]
    assert {c["method"]: c["transform"] for c in moved} == dict.fromkeys(
        ("ett", "ett_head"), "identity"
    )
    kept = {c["method"]: c["nonzeros"][0] for c in moved}
    assert kept["ett"] > kept["ett_head"] == TOTAL // 4
    assert all(0 <= accuracy <= 100 for c in cells for accuracy in c["accuracy"])
