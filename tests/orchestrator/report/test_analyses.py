"""Analyses of a report: read from a store, the same each time, and told by what is compared."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator import plan
from orchestrator.report import analyses, cells, forms
from orchestrator.report.analyses import Analyses, Looked, Measured, drawn, grouped, shown
from orchestrator.report.analysis_forms import (
    analyses_csv,
    analyses_json,
    analyses_tables,
    spread_of,
)
from orchestrator.store.address import Store
from orchestrator.store.content import all_labels, keys_of
from orchestrator.store.files import folder_of
from orchestrator.store.tracker import Tracker
from orchestrator.work.worker import Worker, run_job
from tests.orchestrator.helpers import TINY, Finished, job_config, tiny


def looked(k: int, method: str = "imp", seed: int = 0, *, rate: float = 0.2, **axes: Any) -> Looked:
    """A trained network of a made-up line."""
    kept = round(1000 * (1 - rate) ** k)
    return Looked(method=method, round=k, seed=seed, nonzeros=kept, prunable=1000, **axes)


def made(measure: str, of: list[Looked], result: dict[str, Any], **settings: Any) -> Measured:
    """An analysis that was never done."""
    return Measured(
        measure=measure,
        network="resnet20",
        dataset="cifar10",
        settings=settings,
        looks_at="",
        of=tuple(of),
        result=result,
    )


def barrier(of: list[Looked], top: float, **settings: Any) -> Measured:
    """A path from error 4 to error 8."""
    points = [{"at": a, "test_error": e} for a, e in ((0.0, 4.0), (0.5, top), (1.0, 8.0))]
    kinds = {"mean": top - 6, "worse": top - 8, "chord": top - 6}
    return made("barrier", of, {"points": points, "barriers": {"test_error": kinds}}, **settings)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A tiny grid with analyses of pairs and of lines."""
    experiment = tiny(
        "measured",
        seeds=[0, 1],
        grid=[{"method": ["dense", "imp"], "network": TINY}],
        analyses=[
            {"measure": "barrier", "between": "rounds", "points": 3, "data": "test"},
            {"measure": "overlap", "between": "seeds", "of": {"round": 2}},
            {"measure": "distances"},
            {"measure": "thresholds"},
        ],
    )
    built = plan.build(experiment)
    store = Store.of(tmp_path_factory.mktemp("measured"))
    done = Finished(store=store, tracker=Tracker(store), experiment=experiment, plan=built)
    done.tracker.grids.open("measured", experiment.resolved(), built.stages, "")
    worker = Worker()
    for stage in built.stages.values():
        for report in run_job(job_config(store, experiment, [stage], grid="measured"), worker):
            assert not report.failed, report.failed
            assert not report.note, report.note
    done.tracker.forget()
    return done


def test_analyses_of_a_store(measured: Finished) -> None:
    found = analyses.collect(measured.tracker, "measured")
    assert [one.measure for one in found.found] == [
        *["barrier"] * 4,
        "overlap",
        *["distances"] * 2,
        *["thresholds"] * 2,
    ]
    first = found.found[0]
    assert (first.between, first.line, first.looks_at) == ("rounds", "IMP", "rounds 0 and 1")
    assert [one.round for one in first.of] == [0, 1]
    assert [one.remaining for one in first.of] == [1, 0.5]
    assert [one.method for one in first.of] == ["imp", "imp"]
    assert found.found[4].between == "seeds"
    assert len(found.found[5].by_round) == 3


def test_files_are_equal_byte_for_byte(measured: Finished, tmp_path: Path) -> None:
    report = cells.collect(measured.tracker, "measured")
    assert report.missing == 0
    written = []
    for name in ("one", "two"):
        found = analyses.collect(Tracker(measured.store), "measured")
        paths = forms.write(report, tmp_path / name, found)
        written.append({path.name: path.read_bytes() for path in paths})
    assert written[0] == written[1]
    assert {"analyses.json", "analyses.csv", "analysis_distances_angular.png"} <= set(written[0])
    plain = forms.write(report, tmp_path / "three")
    assert (tmp_path / "three" / "cells.json").read_bytes() == written[0]["cells.json"]
    assert not [path for path in plain if path.name.startswith("analys")]
    listed = json.loads(written[0]["analyses.json"])
    runs = [one.run_id for one in measured.tracker.stages()]
    assert not [run for run in runs if run.encode() in written[0]["analyses.json"]]
    assert listed[0]["settings"]["points"] == 3
    assert listed[0]["of"][1]["nonzeros"] == 5506
    assert listed[0]["numbers"]["test_error_barrier_worse"] >= 0


def test_a_picture_and_numbers_by_round_are_on_the_run(measured: Finished) -> None:
    key = next(k for k in measured.plan.analyses if _measure(measured, k) == "thresholds")
    run = measured.tracker.run_of(key)
    assert run is not None
    run_id = run.info.run_id
    picture = measured.tracker.files.read(run_id, "thresholds.png")
    assert picture.startswith(b"\x89PNG")
    history = measured.tracker.client.get_metric_history(run_id, "threshold")
    result = measured.tracker.load(key)[1].measured or {}
    assert {one.step: one.value for one in history} == pytest.approx(
        {k: one["value"] for k, one in enumerate(result["rounds"])}
    )
    overlap = next(k for k in measured.plan.analyses if _measure(measured, k) == "overlap")
    other = measured.tracker.run_of(overlap)
    assert other is not None
    assert set(measured.tracker.files.tree(other.info.run_id)) == {
        "experiment.yaml",
        "result/analysis.json",
    }


def _measure(measured: Finished, key: str) -> str:
    return str(measured.plan.stages[key].params["measure"])


def test_an_analysis_that_cannot_be_read_is_told(measured: Finished) -> None:
    key = next(k for k in measured.plan.analyses if _measure(measured, k) == "overlap")
    run = measured.tracker.run_of(key)
    assert run is not None
    assert measured.store.folder is not None
    path = folder_of(measured.store.folder, run.info.run_id) / "result" / "analysis.json"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole.replace(b"iou", b"oui"))
        damaged = analyses.collect(measured.tracker, "measured")
        path.unlink()
        gone = analyses.collect(measured.tracker, "measured")
    finally:
        path.write_bytes(whole)
    assert len(damaged.found) == len(gone.found) == 8
    assert "its checksum is not that of its content" in damaged.lacking[0]
    assert "its file is not there" in gone.lacking[0]
    assert "1 analyses cannot be read" in _text(gone)


def _text(found: Analyses) -> str:
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(analyses_tables(found))
    return console.export_text()


def test_a_line_that_prunes_at_another_rate_says_what_remains_of_it() -> None:
    lines = [
        barrier([looked(0), looked(1)], 9),
        barrier([looked(1), looked(2)], 10),
        *(
            barrier([looked(k, rate=0.5, variant="fast") for k in (n, n + 1)], 12 + n)
            for n in (0, 1)
        ),
    ]
    (group,) = grouped(lines)
    spread = spread_of(group, "test_error_barrier_worse")
    assert spread.columns == ("100", "80")
    by_line = {
        line: [(one.point.mean, one.elsewhere) for one in entries if one is not None]
        for line, entries in spread.rows
    }
    assert by_line == {"IMP": [(1, ""), (2, "")], "IMP, fast": [(4, ""), (5, "50")]}
    assert "at 50 %" in _text(Analyses(found=tuple(lines), lacking=()))


def test_what_two_networks_are_compared_by() -> None:
    assert barrier([looked(0), looked(1)], 9).between == "rounds"
    twins = barrier([looked(1), looked(1, noise=1)], 9)
    assert (twins.between, twins.line) == ("twins", "IMP")
    assert barrier([looked(1), looked(1, seed=1)], 9).between == "seeds"
    cells_ = barrier([looked(1), looked(1, "reinit")], 9)
    assert (cells_.between, cells_.line) == ("cells", "IMP and Reinit")
    assert made("distances", [looked(0), looked(1)], {}).between == ""


def test_a_pair_that_several_variants_share_is_in_the_line_of_each() -> None:
    """Repelled from all earlier rounds or from the last, round 1 is the same training."""
    both = {"pruning.repel": 2.0}
    experiment = tiny(
        "shared",
        variants={"all": both, "previous": both | {"pruning.repel_from": "previous"}},
        grid=[{"method": "imp", "network": TINY, "variant": ["none", "all", "previous"]}],
        analyses=[
            {"measure": "overlap", "between": [{"variant": "none"}, {"variant": name}]}
            for name in ("all", "previous")
        ],
    )
    built = plan.build(experiment)
    content = json.loads(json.dumps(keys_of(built.stages, built.also)))
    result = {"pooled": {"iou": 0.5, "expected": 0.2, "excess": 0.3}}
    found = [
        analyses.measured_of(replace(built.stages[key], labels=labels), result, {}, content)
        for key in built.analyses
        for labels in all_labels(content[key])
    ]
    (group,) = grouped(found)
    assert {line: [one.levels for one in some] for line, some in group.lines.items()} == {
        f"IMP and IMP, {name}": [((k, ""), (k, "")) for k in (1, 2)] for name in ("all", "previous")
    }
    assert len(built.analyses) == 3


def test_barriers_of_rounds_are_over_the_worse_end_and_of_twins_over_the_mean() -> None:
    groups = grouped(
        [barrier([looked(0), looked(1)], 9), barrier([looked(1), looked(1, noise=1)], 9)]
    )
    assert [shown(group) for group in groups] == [
        ["test_error_barrier_worse"],
        ["test_error_barrier_mean", "test_error_barrier_worse"],
    ]
    assert [drawn(group) for group in groups] == [
        ["test_error_barrier_worse"],
        ["test_error_barrier_mean"],
    ]


def _unmeasured(of: list[Looked]) -> Measured:
    """A path of which a point could not be measured, so that nothing is known of its barrier."""
    none = dict.fromkeys(("mean", "worse", "chord"))
    points = [{"at": 0.0, "test_error": 4.0}, {"at": 1.0, "unmeasured": "not finite"}]
    return made("barrier", of, {"points": points, "barriers": {"test_error": none}})


def test_seeds_that_could_not_be_measured_are_told() -> None:
    found = [
        *(barrier([looked(k), looked(k + 1)], 10) for k in (0, 2)),
        *(barrier([looked(k, seed=1), looked(k + 1, seed=1)], 30) for k in (0, 2)),
        *(_unmeasured([looked(0, seed=2), looked(1, seed=2)]) for _ in (0,)),
        *(_unmeasured([looked(1, seed=s), looked(2, seed=s)]) for s in (0, 1)),
    ]
    (group,) = grouped(found)
    curve = group.curve("IMP", "test_error_barrier_worse")
    assert [(point.values, point.of) for point in curve] == [((2, 22), 3), ((), 2), ((2, 22), 2)]
    text = _text(Analyses(found=tuple(found), lacking=()))
    assert "2 of 3 seeds" in text
    (line,) = (one for one in text.splitlines() if "│ IMP" in one)
    assert [cell.strip() for cell in line.split("│")[2:-1]] == ["12", "-", "12"]


def test_numbers_over_seeds_are_a_mean_with_lowest_and_highest() -> None:
    found = [barrier([looked(0, seed=s), looked(1, seed=s)], 10 + s) for s in range(3)]
    (group,) = grouped(found)
    (point,) = group.curve("IMP", "test_error_barrier_worse")
    assert (point.mean, point.values, point.remaining) == (3, (2, 3, 4), 1)
    text = _text(Analyses(found=tuple(found)))
    assert "barrier between rounds, resnet20 on cifar10: barrier in test error" in text
    assert "2 to 4" in text


def test_other_settings_are_not_mixed() -> None:
    pair = [looked(0), looked(1)]
    groups = grouped([barrier(pair, 9), barrier(pair, 20, points=71)])
    assert [group.settings for group in groups] == ["points=20", "points=71"]


def test_a_line_of_csv_for_each_number() -> None:
    line = made("thresholds", [looked(0), looked(1)], {"rounds": [{"value": 0.5}, {"value": 1.0}]})
    text = analyses_csv(Analyses(found=(line,)))
    assert text.splitlines()[1:] == [
        "thresholds,resnet20,cifar10,imp,,,,,0,0,,,0,,1.000000,threshold,0.5",
        "thresholds,resnet20,cifar10,imp,,,,,0,0,,,1,,0.800000,threshold,1",
    ]
    theirs = (replace(looked(0), ticket="theirs"), replace(looked(1), ticket="theirs"))
    of_theirs = analyses_csv(Analyses(found=(replace(line, of=theirs, rate="0.2"),)))
    assert of_theirs.splitlines()[1].startswith(
        "thresholds,resnet20,cifar10,imp,,,theirs,,0,0,rate=0.2,,0,"
    )
    assert json.loads(analyses_json(Analyses(found=(line,))))[0]["by_round"][1] == {
        "threshold": 1.0
    }


def test_pairs_of_other_rounds_are_a_line_of_their_own() -> None:
    found = [
        barrier([looked(k, seed=s), looked(k + step, seed=s)], top)
        for s in range(2)
        for k, step, top in ((0, 1, 48), (1, 1, 12), (0, 10, 10))
    ]
    (group,) = grouped(found)
    curves = {n: group.curve(n, "test_error_barrier_worse") for n in group.lines}
    assert {n: [(at.level, at.values) for at in curve] for n, curve in curves.items()} == {
        "IMP, 1 round apart": [((0, ""), (40, 40)), ((1, ""), (4, 4))],
        "IMP, rounds 0 and 10": [((0, ""), (2, 2))],
    }
    back = barrier([looked(10), looked(0)], 20)
    (both,) = grouped([found[2], back])
    assert list(both.lines) == ["IMP, rounds 0 and 10", "IMP, rounds 10 and 0"]
    (gaps,) = grouped([barrier([looked(a), looked(b)], 9) for a, b in ((0, 5), (5, 12))])
    assert list(gaps.lines) == ["IMP"]


def test_a_pair_is_placed_by_the_network_that_keeps_most() -> None:
    few, many = looked(1, rate=0.9), looked(2, variant="slow")
    assert made("overlap", [few, many], {}).place is many
    unknown = replace(many, nonzeros=None)
    assert made("overlap", [few, unknown], {}).place is few, "by rounds, where it is not known"


def test_pairs_with_one_round_in_common_are_placed_by_the_other() -> None:
    """As the dense network with every round: one line, over the rounds."""
    found = [barrier([looked(0), looked(k)], 10.0 + k) for k in (1, 2, 3)]
    (group,) = grouped(found)
    assert list(group.lines) == ["IMP, with round 0"]
    curve = group.curve("IMP, with round 0", "test_error_barrier_worse")
    assert [(at.level, at.values) for at in curve] == [((k, ""), (2.0 + k,)) for k in (1, 2, 3)]
    (back,) = grouped([barrier([looked(k), looked(3)], 10.0) for k in (0, 1, 2)])
    assert list(back.lines) == ["IMP"], "the denser one tells them apart"


def test_a_seed_of_the_short_line_alone_is_not_set_into_the_long_one() -> None:
    def thresholds(rounds: list[int], seed: int) -> Measured:
        of = [looked(k, seed=seed) for k in rounds]
        return made("thresholds", of, {"rounds": [{"value": float(k)} for k in rounds]})

    (group,) = grouped([thresholds([0, 1, 2], 0), *(thresholds([0], s) for s in range(3))])
    assert {line: len(some) for line, some in group.lines.items()} == {
        "IMP, rounds 0 to 2": 1,
        "IMP, round 0": 3,
    }


def test_what_is_of_two_versions_is_not_averaged() -> None:
    old = barrier([looked(0), looked(1)], 9)
    first, second = grouped([old, replace(old, version=2)])
    assert (first.settings, second.settings) == ("version=1", "version=2")
    assert "version" not in old.plain()
    assert replace(old, version=2).plain()["version"] == 2


def test_no_line_of_a_table_is_without_a_number() -> None:
    steps = [barrier([looked(k), looked(k + 1)], 9) for k in range(14)]
    (group,) = grouped([*steps, barrier([looked(7), looked(13)], 30)])
    for row, entries in spread_of(group, "test_error_barrier_worse").rows:
        assert any(entries), row


def test_lines_of_other_rounds_are_not_mixed() -> None:
    def thresholds(rounds: list[int], seed: int = 0) -> Measured:
        of = [looked(k, seed=seed) for k in rounds]
        return made("thresholds", of, {"rounds": [{"value": float(k)} for k in rounds]})

    (group,) = grouped([thresholds([0, 1, 2]), thresholds([10]), thresholds([0, 5, 10])])
    assert list(group.lines) == ["IMP, rounds 0 to 2", "IMP, round 10", "IMP, rounds 0, 5, 10"]
    (ended,) = grouped([thresholds([0, 1]), thresholds([0, 1, 2], seed=1)])
    assert {line: len(some) for line, some in ended.lines.items()} == {"IMP": 2}
