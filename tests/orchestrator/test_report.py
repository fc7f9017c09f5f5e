"""Cells, means and differences computed by hand, and every form in which they are shown."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from elth.errors import ElthError
from orchestrator import plan
from orchestrator import report as reports
from orchestrator.plan import Stage
from orchestrator.report import Cell, Report
from orchestrator.tracking import Tracked
from tests.orchestrator.helpers import TINY, TINY_DEEPER, Finished, chain, of_kind, tiny


def _tracked(
    method: str,
    accuracy: float | None,
    *,
    seed: int = 0,
    network: str = "resnet20",
    source: str = "",
    transform: str = "",
    k: int = 2,
    nonzeros: int = 250,
    numerics: str = "cpu",
) -> Tracked:
    """A finished stage as the store tells of it; its network has 1,000 prunable weights."""
    kind = {"rewind": "rewind_point", "imp": "round", "dense": "round"}.get(method, "retraining")
    labels = {"network": network, "method": method, "source": source, "transform": transform}
    stage = Stage(
        kind=kind, params={}, labels={**labels, "round": k, "seed": seed, "dataset": "digits"}
    )
    return Tracked(
        run_id=f"{network}-{method}{source}{transform}-{k}-{seed}",
        key="",
        stage=stage,
        grids=frozenset(),
        status="finished",
        reason="",
        is_final=False,
        nonzeros=nonzeros,
        prunable=1000,
        accuracy=accuracy,
        seconds=1.5,
        numerics=numerics,
        started=0,
    )


def _all() -> list[Tracked]:
    """ETT on seeds 0, 1 and 2, IMP on seeds 0, 2 and 3: two are common."""
    found = [_tracked("rewind", 10.0, k=0), _tracked("dense", 96.0, k=0, nonzeros=1000)]
    for seed, accuracy in ((2, 93.0), (0, 90.0), (3, 99.0)):
        found.append(_tracked("imp", accuracy, seed=seed))
    for seed, accuracy, nonzeros in ((1, 50.0, 240), (2, 92.0, 260), (0, 91.0, 280)):
        found.append(
            _tracked(
                "ett",
                accuracy,
                seed=seed,
                nonzeros=nonzeros,
                source="resnet14",
                transform="append",
            )
        )
    found.append(_tracked("random", 70.0))
    return found


def _report(found: Sequence[Tracked] | None = None, missing: int = 0) -> Report:
    cells = reports.cells_of(_all() if found is None else found)
    return Report(grid="hand", cells=cells, missing=missing)


def _cell(method: str, report: Report | None = None) -> Cell:
    return next(cell for cell in (report or _report()).cells if cell.method == method)


def _text(report: Report, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(reports.to_tables(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# Cells


def test_a_cell_gathers_its_seeds_in_their_order() -> None:
    cell = _cell("ett")
    assert cell.seeds == (0, 1, 2)
    assert cell.accuracy == (91.0, 50.0, 92.0)
    assert cell.nonzeros == (280, 240, 260)
    assert cell.sparsity == pytest.approx((0.72 + 0.76 + 0.74) / 3)
    assert (cell.source, cell.transform, cell.round) == ("resnet14", "append", 2)
    assert cell.runs[1] == "resnet20-ettresnet14append-2-1"
    assert cell.seconds == (1.5, 1.5, 1.5)


def test_mean_and_deviation_of_a_sample() -> None:
    cell = _cell("ett")
    mean = 233 / 3
    assert cell.mean == pytest.approx(mean)
    squares = (91 - mean) ** 2 + (50 - mean) ** 2 + (92 - mean) ** 2
    assert cell.deviation == pytest.approx(math.sqrt(squares / 2))
    assert _cell("random").deviation is None
    assert _cell("random").mean == 70.0


def test_the_difference_to_imp_is_over_common_seeds() -> None:
    report = _report()
    # Seed 0: 91 - 90, seed 2: 92 - 93; seeds 1 and 3 have no counterpart.
    assert reports.difference(_cell("ett"), report.cells) == pytest.approx(0.0)
    assert reports.difference(_cell("random"), report.cells) == pytest.approx(-20.0)
    assert reports.difference(_cell("imp"), report.cells) is None
    assert reports.difference(_cell("dense"), report.cells) is None  # there is no IMP of round 0


def test_there_is_no_difference_without_an_imp_of_the_same_network_round_and_seed() -> None:
    imp = _tracked("imp", 90.0)
    for other in (
        _tracked("random", 80.0, k=1),
        _tracked("random", 80.0, network="resnet32"),
        _tracked("random", 80.0, seed=1),
    ):
        report = _report([imp, other])
        assert reports.difference(_cell("random", report), report.cells) is None


def test_rewind_points_and_stages_without_accuracy_are_no_cells() -> None:
    found = [_tracked("rewind", 10.0), _tracked("imp", None)]
    assert reports.cells_of(found) == ()


def test_two_results_for_one_cell_and_seed_are_refused() -> None:
    with pytest.raises(ElthError, match="two results for imp on resnet20, round 2: the grid mixes"):
        reports.cells_of([_tracked("imp", 90.0), _tracked("imp", 91.0)])


def test_cells_are_sorted_whatever_the_order_they_come_in() -> None:
    found = [
        _tracked("imp", 1.0, network="resnet110"),
        _tracked("imp", 1.0, network="resnet14"),
        _tracked("imp", 1.0, network="resnet20(width=4)"),
        _tracked("imp", 1.0, network="mlp2"),
        *_all(),
        _tracked("imp", 1.0, k=1),
        _tracked("magnitude", 1.0),
        _tracked("ett", 1.0, source="resnet32", transform="drop"),
        _tracked("reinit", 1.0),
    ]
    axes = [(c.network, c.round, c.method, c.source) for c in reports.cells_of(found)]
    assert axes == [
        ("mlp2", 2, "imp", ""),
        ("resnet14", 2, "imp", ""),
        ("resnet20", 0, "dense", ""),
        ("resnet20", 1, "imp", ""),
        ("resnet20", 2, "imp", ""),
        ("resnet20", 2, "ett", "resnet14"),
        ("resnet20", 2, "ett", "resnet32"),
        ("resnet20", 2, "reinit", ""),
        ("resnet20", 2, "random", ""),
        ("resnet20", 2, "magnitude", ""),
        ("resnet110", 2, "imp", ""),
        ("resnet20(width=4)", 2, "imp", ""),
    ]
    assert reports.cells_of(found[::-1]) == reports.cells_of(found)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("dense", "dense"),
        ("imp", "IMP"),
        ("ett", "ETT <- resnet14 append"),
        ("random", "Random"),
    ],
)
def test_names(method: str, name: str) -> None:
    assert _cell(method).name == name


# Forms


def test_json_is_what_the_contract_says() -> None:
    cells = json.loads(reports.to_json(_report()))
    assert [cell["method"] for cell in cells] == ["dense", "imp", "ett", "random"]
    assert cells[2] == {
        "network": "resnet20",
        "method": "ett",
        "source": "resnet14",
        "transform": "append",
        "round": 2,
        "dataset": "digits",
        "sparsity": pytest.approx(0.74),
        "seeds": [0, 1, 2],
        "nonzeros": [280, 240, 260],
        "accuracy": [91.0, 50.0, 92.0],
        "accuracy_mean": pytest.approx(233 / 3),
        "accuracy_sd": pytest.approx(23.96525, abs=1e-4),
    }
    assert cells[3]["accuracy_sd"] is None


def test_json_is_equal_byte_for_byte_for_other_runs_times_and_hosts() -> None:
    other = [
        dataclasses.replace(one, run_id="x", seconds=99.0, numerics="gpu", started=5)
        for one in reversed(_all())
    ]
    assert reports.to_json(_report(other)) == reports.to_json(_report())
    provenance = [reports.to_json(_report(found), provenance=True) for found in (other, None)]
    assert provenance[0] != provenance[1]


def test_provenance_adds_runs_classes_and_times() -> None:
    cell = json.loads(reports.to_json(_report(), provenance=True))[1]
    assert cell["runs"] == [f"resnet20-imp-2-{seed}" for seed in (0, 2, 3)]
    assert cell["numerics"] == ["cpu"] * 3
    assert cell["seconds"] == [1.5] * 3


def test_csv() -> None:
    rows = list(csv.reader(io.StringIO(reports.to_csv(_report()))))
    axes = ["network", "method", "source", "transform", "round", "dataset"]
    assert rows[0] == [
        *axes,
        *("sparsity", "seeds", "nonzeros", "accuracy_mean", "accuracy_sd", "minus_imp"),
    ]
    assert rows[1:] == [
        ["resnet20", "dense", "", "", "0", "digits", "0.000000", "1", "1000.0", "96.0000", "", ""],
        [
            *("resnet20", "imp", "", "", "2", "digits"),
            *("0.750000", "3", "250.0", "94.0000", "4.5826", ""),
        ],
        [
            *("resnet20", "ett", "resnet14", "append", "2", "digits"),
            *("0.740000", "3", "260.0", "77.6667", "23.9653", "0.0000"),
        ],
        [
            *("resnet20", "random", "", "", "2", "digits"),
            *("0.750000", "1", "250.0", "70.0000", "", "-20.0000"),
        ],
    ]


def test_a_table_for_each_network() -> None:
    report = _report([*_all(), _tracked("imp", 88.0, network="resnet14", nonzeros=500)])
    text = _text(report)
    assert text.index("resnet14 on digits") < text.index("resnet20 on digits")
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if "│" in line}
    assert "94.00 ± 4.58" in lines["IMP"]
    assert "77.67 ± 23.97 (+0.00)" in lines["ETT <- resnet14 append"]
    assert "at 74.00 %" in text  # a ticket that is moved is not trimmed
    assert "70.00 (-20.00)" in lines["Random"]
    assert "96.00" in lines["dense"]
    header = next(line for line in text.splitlines() if "0.00" in line and "75.00" in line)
    assert header.index("0.00") < header.index("75.00")
    assert "mean ± standard deviation over 1 or 3 seeds" in text
    assert "not finished" not in text
    assert "numerics" not in text


def test_notes_tell_what_is_missing_and_what_is_mixed() -> None:
    mixed = _report([_tracked("imp", 90.0), _tracked("imp", 91.0, seed=1, numerics="gpu")], 3)
    assert mixed.numerics == ("cpu", "gpu")
    text = " ".join(_text(mixed).split())
    assert "3 stages of this grid are not finished." in text
    assert "come from several numerics classes" in text
    assert text.endswith("cpu; gpu.")


def test_one_seed_is_no_mean() -> None:
    text = _text(_report([_tracked("imp", 90.0)]))
    assert "accuracy over 1 seed; in brackets" in text
    assert "±" not in text


def test_of_many_rounds_those_are_shown_where_there_is_something_to_compare() -> None:
    found = [_tracked("dense", 96.0, k=0, nonzeros=1000)]
    found += [_tracked("imp", 90.0, k=k, nonzeros=1000 - 50 * k) for k in range(1, 9)]
    text = _text(_report(found))
    assert all(f"{5 * k}.00" in text for k in range(1, 9))
    text = _text(_report([*found, _tracked("random", 50.0, k=4, nonzeros=800)]))
    assert "20.00" in text
    assert "25.00" not in text


def test_an_empty_report_is_no_error(tmp_path: Path) -> None:
    empty = _report([], missing=7)
    assert reports.to_json(empty) == "[]\n"
    assert len(reports.to_csv(empty).splitlines()) == 1
    assert "7 stages of this grid are not finished." in _text(empty)
    assert len(reports.write(empty, tmp_path)) == 4


# Files


def test_all_files_are_written(tmp_path: Path) -> None:
    report = _report()
    paths = reports.write(report, tmp_path / "a" / "b")
    assert [path.name for path in paths] == [
        "table.txt",
        "cells.csv",
        "cells.json",
        "provenance.json",
        "accuracy.png",
        "accuracy.svg",
    ]
    assert all(path.stat().st_size for path in paths)
    assert paths[1].read_text() == reports.to_csv(report)
    assert paths[2].read_text() == reports.to_json(report)
    assert paths[3].read_text() == reports.to_json(report, provenance=True)
    assert "94.00 ± 4.58" in paths[0].read_text()
    assert "\x1b" not in paths[0].read_text()
    reports.write(report, tmp_path / "a" / "b")  # over what is there


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ElthError, match=f"cannot write the report to {tmp_path}/file: "):
        reports.write(_report(), tmp_path / "file")


# From a store


def test_a_report_of_a_store(finished: Finished) -> None:
    report = reports.collect(finished.tracker, "done")
    assert report.missing == 0
    assert len(report.numerics) == 1
    axes = [(c.network, c.method, c.source, c.transform, c.round) for c in report.cells]
    assert axes == [
        (TINY, "dense", "", "", 0),
        *((TINY, "imp", "", "", k) for k in (1, 2)),
        (TINY_DEEPER, "dense", "", "", 0),
        *((TINY_DEEPER, "imp", "", "", k) for k in (1, 2)),
        (TINY_DEEPER, "ett", TINY, "append", 2),
        *((TINY_DEEPER, method, "", "", 2) for method in ("reinit", "random", "magnitude")),
    ]
    assert all(cell.seeds == (0, 1) for cell in report.cells)
    tracked = {one.key: one for one in finished.tracker.stages("done")}
    stage = of_kind(finished.plan, "retraining")[0]
    cell = next(c for c in report.cells if c.method == "ett")
    assert cell.accuracy[0] == tracked[stage.key].accuracy
    random = next(c for c in report.cells if c.method == "random")
    imp = reports.imp_of(random, report.cells)
    assert imp is not None
    assert random.nonzeros == imp.nonzeros  # the count that is matched


def test_what_a_grid_lacks_is_counted(finished: Finished) -> None:
    keys = list(finished.plan.stages)
    stranger = chain("part", seeds=[99])[0]
    stages = {key: finished.plan.stages[key] for key in keys[:4]} | {stranger.key: stranger}
    finished.tracker.open_grid("part", "", stages, "")
    assert reports.collect(finished.tracker, "part").missing == 5
    run = finished.tracker.run_of(keys[1])
    assert run is not None
    finished.tracker.join_grid([run.info.run_id], "part")
    report = reports.collect(finished.tracker, "part")
    assert (report.missing, len(report.cells)) == (4, 1)


def test_what_a_grid_no_longer_asks_for_is_left_out(finished: Finished) -> None:
    run_ids = [one.run_id for one in finished.tracker.stages("done")]
    finished.tracker.join_grid(run_ids[:6], "fewer")
    stage = of_kind(finished.plan, "round")[0]
    finished.tracker.open_grid("fewer", "", {stage.key: stage}, "")
    report = reports.collect(finished.tracker, "fewer")
    assert [(c.method, c.seeds) for c in report.cells] == [("dense", (0,))]


def test_a_shared_stage_is_in_each_grid_what_it_is_there(finished: Finished) -> None:
    """Two prunings of a half keep what one of three quarters keeps: magnitude is trained once."""
    grid = [{"method": ["imp", "magnitude"], "network": TINY_DEEPER}]
    other = tiny("steeper", pruning={"rate": 0.75, "rounds": 1}, grid=grid)
    built = plan.build(other)
    finished.tracker.open_grid(other.name, "", built.stages, "")
    shared = [one for one in finished.tracker.stages("done") if one.key in built.stages]
    finished.tracker.join_grid([one.run_id for one in shared], other.name)
    report = reports.collect(finished.tracker, other.name)
    assert [(cell.method, cell.round) for cell in report.cells] == [("dense", 0), ("magnitude", 1)]
    before = reports.collect(finished.tracker, "done")
    assert {cell.round for cell in before.cells if cell.method == "magnitude"} == {2}


def test_a_report_of_an_unknown_grid_is_refused(finished: Finished) -> None:
    with pytest.raises(ElthError, match="has no grid 'nothing'"):
        reports.collect(finished.tracker, "nothing")
