"""What a grid's tickets cost: their own training, and a chain that several of them need."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from elth.errors import ElthError
from elth.networks import facts
from orchestrator import plan
from orchestrator.plan.flops import cost_of, operations
from orchestrator.plan.stage import Stage, info_of, shape_of
from orchestrator.report import forms
from orchestrator.report.cells import Report, collect
from orchestrator.report.flops import (
    Costs,
    Spent,
    _Layers,
    costs,
    kept_of,
    known,
    to_json,
)
from orchestrator.report.flops_figure import draw
from orchestrator.report.flops_forms import COLUMNS, told
from orchestrator.report.forms import to_csv, to_tables, write
from orchestrator.store.address import Store
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import TINY, TINY_DEEPER, Finished, do, tiny


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A chain of two prunings, a ticket moved from it, another one's control, and RigL."""
    found = tiny(
        "costs",
        seeds=[0],
        criteria={"rigl": {"every": "5it"}},
        grid=[
            {"method": "imp", "network": TINY, "round": 2},
            {"method": "reinit", "network": TINY, "round": 1},
            {"method": "ett", "source": TINY, "network": TINY_DEEPER, "round": 2},
            {"method": "rigl", "network": TINY_DEEPER, "round": 2},
        ],
    )
    built = plan.build(found)
    store = Store.of(tmp_path_factory.mktemp("costs"))
    tracker = Tracker(store)
    do(found, built, tracker)
    return Finished(store=store, tracker=tracker, experiment=found, plan=built)


def _own(grid: Finished, stage: Stage) -> float:
    """Operations of a stage's training, by the mask that it left."""
    (run,) = grid.tracker.runs_of(stage.key)
    mask = grid.tracker.load(stage.key)[1].mask
    kept = None if mask is None else {name: int(one.sum()) for name, one in mask.items()}
    if kept is not None:
        cost = cost_of(stage.params["network"], shape_of(stage))
        assert kept == kept_of(grid.tracker, run.info.run_id, stage, cost)
    return operations(stage, kept).training


def _spent(found: Costs, method: str, k: int) -> Spent:
    (one,) = (s for s in found.spent if (s.cell.method, s.cell.round) == (method, k))
    return one


def test_a_chain_is_counted_whole_and_shared(grid: Finished) -> None:
    found = costs(grid.tracker, "costs")
    assert found.reference == TINY_DEEPER
    info = info_of("digits")
    inference = float(facts(TINY_DEEPER, info.shape).cost.inference())
    assert found.unit == {"digits": 3 * inference * 2 * info.train_size}
    unit = found.unit["digits"]
    by_title = {stage.title.removeprefix(f"{TINY} "): stage for stage in grid.plan.stages.values()}
    own = {title: _own(grid, stage) / unit for title, stage in by_title.items()}
    start, dense, first, second = (
        own[f"{name}, seed 0"] for name in ("rewind point", "dense round 0", "round 1", "round 2")
    )
    last = _spent(found, "imp", 2)
    assert last.training == pytest.approx(second)
    assert last.search == pytest.approx(start + dense + first)
    # A mask is known before its round is trained: that of round 2 after round 1. So the moved
    # ticket needs what IMP's own needs, and the control of round 1 the dense network alone.
    moved, control = _spent(found, "ett", 2), _spent(found, "reinit", 1)
    assert control.search == pytest.approx(start + dense)
    assert control.shared == pytest.approx((start + dense) / 3)
    assert moved.search == last.search
    assert moved.shared == last.shared == pytest.approx((start + dense) / 3 + first / 2)
    assert moved.total == moved.training + moved.shared
    rigl = _spent(found, "rigl", 2)
    assert (rigl.search, rigl.shared) == (0, 0)
    assert 0 < rigl.inference < 1
    assert rigl.training > rigl.inference
    assert found.lacking == ()


def test_the_unit_may_be_another_network(grid: Finished) -> None:
    one, other = (costs(grid.tracker, "costs", of=name) for name in ("", TINY))
    ratio = one.unit["digits"] / other.unit["digits"]
    assert other.reference == TINY
    for a, b in zip(one.spent, other.spent, strict=True):
        assert b.total == pytest.approx(a.total * ratio)
        assert b.inference == a.inference
    with pytest.raises(ElthError, match="unknown network 'resnet21'"):
        costs(grid.tracker, "costs", of="resnet21")


def test_as_json_and_as_a_figure(grid: Finished, tmp_path: Path) -> None:
    found = costs(grid.tracker, "costs")
    told: dict[str, Any] = json.loads(to_json(found))
    assert told["reference"] == TINY_DEEPER
    assert len(told["spent"]) == len(found.spent)
    assert {"network", "accuracy_mean", "flops_training", "flops_total"} <= told["spent"][0].keys()
    drawn = draw(found, tmp_path)
    assert [path.name for path in drawn] == ["flops.png", "flops.svg"]
    text = drawn[1].read_text(encoding="utf-8")
    assert "RigL" in text
    assert f"in dense runs of {TINY_DEEPER}" in text


def test_a_report_with_sparse_training_has_them(grid: Finished, tmp_path: Path) -> None:
    report = collect(grid.tracker, "costs")
    counted = known(grid.tracker, report)
    assert counted == costs(grid.tracker, "costs")
    names = [path.name for path in write(report, tmp_path, counted=counted)]
    assert {"flops.json", "flops.png", "flops.svg"} <= {*names}
    without = replace(report, cells=tuple(c for c in report.cells if c.method != "rigl"))
    assert told(without, counted) is None
    assert told(without, counted, flops=True) == counted
    names = [path.name for path in write(without, tmp_path / "none", counted=counted)]
    assert not any("flops" in name for name in names)


def test_csv_and_json_tell_of_every_cell(grid: Finished) -> None:
    """Those on the way to others as well, of which no table tells."""
    asked = frozenset({("digits", TINY_DEEPER)})
    report = replace(collect(grid.tracker, "costs"), asked=asked)
    counted = known(grid.tracker, report)
    assert counted is not None
    plain = json.loads(forms.to_json(report))
    cells: list[dict[str, Any]] = json.loads(forms.to_json(report, counted))
    assert [{k: v for k, v in one.items() if k not in COLUMNS} for one in cells] == plain
    assert len(cells) > len(counted.spent)
    assert all({*COLUMNS} <= one.keys() for one in cells)
    by_cell = {(one["network"], one["method"], one["round"]): one for one in cells}
    rigl = _spent(counted, "rigl", 2)
    assert by_cell[TINY_DEEPER, "rigl", 2]["flops_training"] == rigl.training
    dense = by_cell[TINY, "dense", 0]
    assert dense["flops_inference"] == 1
    assert {one["flops_reference"] for one in cells} == {TINY_DEEPER}
    rows = list(csv.DictReader(io.StringIO(to_csv(report, counted))))
    for row, cell in zip(rows, cells, strict=True):
        assert float(row["flops_total"]) == pytest.approx(cell["flops_total"], rel=1e-5)
        assert row["flops_reference"] == TINY_DEEPER
        assert float(row["flops_search"]) == pytest.approx(cell["flops_search"], rel=1e-5)
    without = to_csv(report).splitlines()
    assert without == [
        ",".join(line.split(",")[: -len(COLUMNS)]) for line in _lines(report, counted)
    ]


def _lines(report: Report, counted: Costs) -> list[str]:
    return to_csv(report, counted).splitlines()


def test_a_table_tells_of_costs_below_accuracies(grid: Finished) -> None:
    report = collect(grid.tracker, "costs")
    counted = known(grid.tracker, report)
    assert counted is not None
    text = _text(report, counted)
    for one in counted.spent:
        assert f"FLOPs {one.inference:.2g}, {one.total:.3g}" in text
    assert f"in dense runs of {TINY_DEEPER}" in text
    assert "FLOPs" not in _text(report)


def _text(report: Report, counted: Costs | None = None) -> str:
    console = Console(record=True, width=140, file=io.StringIO())
    console.print(to_tables(report, counted))
    return " ".join(console.export_text().split())


def test_a_file_that_cannot_be_read_is_told_of(
    grid: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = collect(grid.tracker, "costs")

    read = type(grid.tracker.files).read

    def lost(files: Any, run_id: str, name: str) -> bytes:
        if name == "layers.json":
            raise OSError("no such file")
        return read(files, run_id, name)

    monkeypatch.setattr(type(grid.tracker.files), "read", lost)
    lines: list[str] = []
    assert known(grid.tracker, report, tell=lines.append) is None
    (line,) = lines
    assert line.startswith("what training costs is left out: layers.json of")


def test_of_a_grid_of_which_nothing_is_finished(tmp_path: Path) -> None:
    found = tiny("empty")
    tracker = Tracker(Store.of(tmp_path))
    built = plan.build(found)
    tracker.grids.open(found.name, found.resolved(), built.stages, "", built.also)
    with pytest.raises(ElthError, match="nothing of empty is finished, so nothing can be counted"):
        costs(tracker, "empty")


def test_a_network_from_outside_is_counted_without_its_code(grid: Finished) -> None:
    """As its runs tell: nobody has lab.networks here."""
    one = next(o for o in grid.tracker.stages() if o.stage.kind == "round")
    params = {**one.stage.params, "network": "lab.networks:mine", "network_version": "3"}
    theirs = replace(one, stage=replace(one.stage, params=params))
    told = cost_of(TINY, shape_of(one.stage))

    class Files:
        def read(self, run_id: str, name: str) -> bytes:
            assert (run_id, name) == (one.run_id, "cost.json")
            return json.dumps(told.plain()).encode()

    tracker: Any = SimpleNamespace(files=Files())
    assert _Layers(tracker).of(theirs) == told
