"""Reports of a store: what is finished, missing, ended, shared, and to be done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from elth import masks
from elth.data import info, make_manifest
from elth.errors import ElthError
from elth.networks import build
from elth.specs import Spec
from elth.streams import stream
from elth.tickets import Ticket
from orchestrator import plan
from orchestrator.report import sheets as sheets_module
from orchestrator.report.cells import Imps, collect
from orchestrator.report.forms import sheets, to_csv, to_json
from orchestrator.report.judgement import judge
from orchestrator.report.sheets import texts_of
from orchestrator.report.status import states
from orchestrator.report.verdicts import claim_lines
from orchestrator.store.address import Store
from orchestrator.store.leases import Lease, claim
from orchestrator.store.marks import STALE
from orchestrator.store.result import Result
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import (
    RECIPE,
    TINY,
    TINY_DEEPER,
    Finished,
    begin,
    chain,
    epoch,
    of_kind,
    round_of,
    tiny,
    track,
)
from tests.orchestrator.helpers import stopped as make_stopped
from tests.orchestrator.report.helpers import PAPER, printed


def test_a_report_of_a_store(finished: Finished) -> None:
    report = collect(finished.tracker, "done")
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
    imp = Imps(report.cells).of(random)
    assert imp is not None
    assert random.nonzeros == imp.nonzeros  # the count that is matched


def test_what_a_grid_lacks_is_counted(finished: Finished) -> None:
    keys = list(finished.plan.stages)
    stranger = chain("part", seeds=[99])[0]
    stages = {key: finished.plan.stages[key] for key in keys[:4]} | {stranger.key: stranger}
    finished.tracker.grids.open("part", "", stages, "")
    report = collect(finished.tracker, "part")  # another grid has done the first four
    assert report.missing == 1
    trained = [key for key in keys[:4] if stages[key].kind != "rewind_point"]
    assert sum(len(cell.seeds) for cell in report.cells) == len(trained) > 0


def test_what_is_ended_is_no_part_of_a_report(stopped: Finished) -> None:
    report = collect(stopped.tracker, "stopped")
    why = f"{TINY} round 2, seed 0 has 11.2 % < 12 %"
    assert (report.missing, report.ended, report.endings) == (0, 5, (why,))
    seeds = {(cell.method, cell.round): cell.seeds for cell in report.cells if cell.network == TINY}
    assert seeds["imp", 2] == seeds["reinit", 2] == seeds["magnitude", 4] == (0, 1)
    assert seeds["imp", 3] == seeds["reinit", 4] == (1,)


def test_the_bars_of_a_plan_end_no_cell_of_markdown() -> None:
    assert sheets_module._line(["0 1 | append", "90.00"]) == r"| 0 1 \| append | 90.00 |"


def test_a_claim_of_what_is_ended_does_not_hold(tmp_path: Path) -> None:
    """It is said of each of its cells, and some of them never were: the others do not decide it."""
    claim = {"magnitude": "above", "of": "imp", "round": [3, 4]}
    found = make_stopped(tmp_path, seeds=[0], claims=[claim])
    report = collect(found.tracker, "stopped")
    assert {cell.round for cell in report.cells if cell.method == "imp"} == {1, 2}
    (one,) = judge(report).claims
    assert (one.parts, one.missing, one.verdict) == ((), 2, "undecided")
    assert [line.text for line in claim_lines(one)][1:] == ["2 without a result"]


def test_what_is_neither_finished_nor_ended_is_missing(tmp_path: Path) -> None:
    found = make_stopped(tmp_path)
    stage = next(s for s in found.plan.stages.values() if s.labels["method"] == "magnitude")
    run = found.tracker.run_of(stage.key)
    assert run is not None
    found.tracker.client.delete_run(run.info.run_id)
    report = collect(found.tracker, "stopped")
    assert (report.missing, report.ended) == (1, 5)
    # The last round is set aside: that it was the last is not known any more.
    run = found.tracker.run_of(round_of(found.plan, TINY, 2).key)
    assert run is not None
    found.tracker.set_aside(run, "damaged")
    report = collect(found.tracker, "stopped")
    assert (report.missing, report.ended, report.endings) == (7, 0, ())


def test_a_chain_that_collapses_ends(tmp_path: Path) -> None:
    found = tiny("collapses", pruning={"rate": 0.5, "rounds": 2, "stop": "collapsed"})
    built, tracker = plan.build(found), Tracker(Store.of(tmp_path))
    start, dense, first, _ = built.stages.values()
    for stage, kept in ((start, 0), (dense, 11_012), (first, 12)):
        track(tracker, stage, 9.0, kept=kept, grid=found.name)
    tracker.grids.open(found.name, found.resolved(), built.stages, "")
    report = collect(tracker, found.name)
    assert (report.missing, report.ended) == (0, 1)
    (why,) = report.endings
    assert why.startswith(f"{TINY} round 1, seed 0 has lost every weight of ")


def test_a_store_whose_rounds_leave_nothing_is_read(tmp_path: Path) -> None:
    """Of before such rounds were refused: of six prunings of 90 % the fifth leaves none."""
    found = tiny("nothing")
    built, tracker = plan.build(found), Tracker(Store.of(tmp_path))
    for stage, kept in zip(built.stages.values(), (0, 11_012, 5, 0), strict=True):
        track(tracker, stage, 9.0, kept=kept, grid=found.name)
    resolved = found.resolved().replace("rate: 0.5", "rate: 0.9").replace("rounds: 2", "rounds: 6")
    tracker.grids.open(found.name, resolved, built.stages, "")
    report = collect(tracker, found.name)
    assert [cell.nonzeros for cell in report.cells] == [(11_012,), (5,), (0,)]
    assert "has lost every weight of conv1.weight" in " ".join(printed(report).split())
    assert {one.state for one in states(tracker, found.name)} == {"finished"}


def test_what_a_grid_no_longer_asks_for_is_left_out(finished: Finished) -> None:
    run_ids = [one.run_id for one in finished.tracker.stages("done")]
    finished.tracker.grids.join(run_ids[:6], "fewer")
    stage = of_kind(finished.plan, "round")[0]
    finished.tracker.grids.open("fewer", "", {stage.key: stage}, "")
    report = collect(finished.tracker, "fewer")
    assert [(c.method, c.seeds) for c in report.cells] == [("dense", (0,))]


def test_a_shared_stage_is_in_each_grid_what_it_is_there(finished: Finished) -> None:
    """Two prunings of a half keep what one of three quarters keeps: magnitude is trained once."""
    grid = [{"method": ["imp", "magnitude"], "network": TINY_DEEPER}]
    other = tiny("steeper", pruning={"rate": 0.75, "rounds": 1}, grid=grid)
    built = plan.build(other)
    finished.tracker.grids.open(other.name, "", built.stages, "")
    shared = [one for one in finished.tracker.stages("done") if one.key in built.stages]
    finished.tracker.grids.join([one.run_id for one in shared], other.name)
    report = collect(finished.tracker, other.name)
    assert [(cell.method, cell.round) for cell in report.cells] == [("dense", 0), ("magnitude", 1)]
    before = collect(finished.tracker, "done")
    assert {cell.round for cell in before.cells if cell.method == "magnitude"} == {2}


def test_a_report_knows_the_paper_of_its_grid(finished: Finished) -> None:
    text = tiny("of-a-paper", paper=PAPER.model_dump(mode="json")).resolved()
    stage = of_kind(finished.plan, "round")[0]
    finished.tracker.grids.open("of-a-paper", text, {stage.key: stage}, "")
    report = collect(finished.tracker, "of-a-paper")
    assert (report.paper, report.dataset, report.rounds) == (PAPER, "digits", 2)
    assert len(sheets(report)) == 1
    assert collect(finished.tracker, "done").paper is None


def test_the_last_round_is_the_one_that_is_asked_for_and_not_the_last_that_is_there(
    finished: Finished,
) -> None:
    found = tiny("longer", pruning={"rate": 0.5, "rounds": 5}, paper={"title": "T"})
    finished.tracker.grids.open(found.name, found.resolved(), plan.build(found).stages, "")
    assert collect(finished.tracker, "longer").rounds == 5


def test_an_image_folder_is_called_by_its_name(tracker: Tracker, tmp_path: Path) -> None:
    """In labels, and so in cells; the experiment has the path of its manifest."""
    for part in ("train", "val"):
        for name in ("daisy", "rose"):
            (tmp_path / "flowers" / part / name).mkdir(parents=True)
            for number in range(9):
                (tmp_path / "flowers" / part / name / f"{number}.png").write_bytes(b"an image")
    manifest = tmp_path / "flowers.json"
    make_manifest(tmp_path / "flowers", "flowers", manifest, decode=False, allow_shared=True)
    place, title = f"folder(manifest={manifest},size=16)", "flowers(size=16)"
    grid = [
        {"method": "imp", "network": TINY},
        {"method": "imp", "network": TINY_DEEPER, "dataset": [place, "digits"]},
        {"method": "ett", "source": TINY, "source_dataset": place, "network": TINY_DEEPER},
    ]
    paper = {"title": "T", "layout": "by_network", "round": 1}
    recipe = {**RECIPE, "rewind": "1it", "batch_size": 4}
    found = tiny("flowers", dataset=place, grid=grid, paper=paper, recipe=recipe)
    assert found.dataset != title
    built = plan.build(found)
    first = of_kind(built, "round")[1]
    assert (first.labels["dataset"], first.labels["place"]) == (title, found.dataset)
    tracker.grids.open(found.name, found.resolved(), built.stages, "")
    network = build(TINY, info(place).shape, generator=stream(0, "init"))
    state, mask = network.state_dict(), masks.ones(network)
    spec = Spec.parse(TINY)
    ticket = Ticket(network=spec, shape=info(place).shape, rewind=state, mask=mask)
    log = begin(tracker, first, ticket, grid=found.name)
    log.epoch(epoch(1, 80.0))
    log.finish(Result(mask=mask, trained=state), keep_weights=False)
    report = collect(tracker, found.name)
    assert report.dataset == title
    assert report.asked == {(title, TINY), (title, TINY_DEEPER), ("digits", TINY_DEEPER)}
    (cell,) = report.shown
    assert (cell.dataset, cell.network, cell.round) == (title, TINY, 1)
    (sheet,) = sheets(report)
    assert sheet.title == f"T, round 1 (0.00 % sparsity): {title}"
    assert texts_of(sheet) == (["method", TINY], [["IMP", "80.00"]])
    assert str(tmp_path) not in printed(report) + to_json(report) + to_csv(report)


def test_a_report_of_an_unknown_grid_is_refused(finished: Finished) -> None:
    with pytest.raises(ElthError, match="has no grid 'nothing'"):
        collect(finished.tracker, "nothing")


def test_what_was_made_of_a_result_that_is_another_now_is_told(tracker: Tracker) -> None:
    found = tiny("stale", seeds=[8761])
    built = plan.build(found)
    runs = {one.key: track(tracker, one, 50.0, grid="stale") for one in built.stages.values()}
    tracker.grids.open("stale", found.resolved(), built.stages, "")
    last = list(built.stages.values())[-1]
    clean = collect(tracker, "stale")
    assert "came out different" not in printed(clean, 400)
    tracker.client.set_tag(runs[last.key], STALE, "request")
    report = collect(tracker, "stale")
    assert report.stale == (last.title,)
    assert report.cells == clean.cells, "the last results that are known"
    assert f"was done again: {last.title}. The next elth run does them again." in printed(
        report, 400
    )
    lease = claim(tracker, last, grid="stale", driver="x:1:1", since=0.0)
    assert isinstance(lease, Lease)
    track(tracker, last, 70.0, lease=lease)
    lease.end()
    report = collect(tracker, "stale")
    assert report.stale == ()
    assert report.cells[-1].accuracy == (70.0,), "though the other run is still there"
