"""Stages that are done again though they are finished: marks, what is compared, what follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from mlflow.entities import Run

from elth.data import info
from elth.specs import Spec
from elth.tickets import Ticket
from orchestrator.plan.stage import Stage
from orchestrator.store import redo
from orchestrator.store.leases import Lease, claim
from orchestrator.store.marks import ASKED, REDONE, STALE, mark_of
from orchestrator.store.result import Result
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import (
    TINY,
    artifact,
    begin,
    chain,
    epoch,
    rewind_result,
    round_result,
)


def _done(tracker: Tracker, stage: Stage, result: Result, *, grid: str, **words: str) -> str:
    ticket = None
    if result.mask is not None:
        rewind = rewind_result().rewind
        assert rewind is not None
        ticket = Ticket(
            network=Spec.parse(TINY), shape=info("digits").shape, rewind=rewind, mask=result.mask
        )
    # As after a lease: what was there before stays.
    lease = claim(tracker, stage, grid=grid, driver="x:1:1", since=0.0)
    assert isinstance(lease, Lease)
    log = begin(tracker, stage, ticket, grid=grid, lease=lease, **words)
    log.epoch(epoch(1))
    log.finish(result, keep_weights=stage.kind == "round")
    lease.end()
    return log.run_id


def _open(tracker: Tracker, name: str, seed: int) -> list[Stage]:
    """A grid of a rewind point, a dense round and two rounds, all finished."""
    stages = chain(name, seeds=[seed])
    tracker.grids.open(name, "text: 1\n", {one.key: one for one in stages}, "")
    for number, stage in enumerate(stages):
        result = round_result(900 - number) if number else rewind_result(seed=seed)
        _done(tracker, stage, result, grid=name)
    return stages


def _ask(tracker: Tracker, name: str, stages: list[Stage]) -> redo.Request:
    asked = redo.request(tracker, name, stages)
    redo.begin(tracker, asked)
    return asked


def _waiting(tracker: Tracker, stages: list[Stage], *named: Stage) -> set[str]:
    found = redo.waiting(tracker, tracker.stages(), [one.key for one in named])
    return {one.title for one in stages if one.key in found}


def test_a_marked_run_stays_and_only_who_names_it_does_it_again(tracker: Tracker) -> None:
    stages = _open(tracker, "marked", 300)
    before = tracker.run_of(stages[1].key)
    assert before is not None
    asked = _ask(tracker, "marked", [stages[1]])
    assert asked.again == {stages[1].key}
    marked = tracker.run_of(stages[1].key)
    assert marked is not None
    assert (marked.info.run_id, mark_of(marked)) == (before.info.run_id, asked.name)
    assert tracker.load(stages[1].key)[1].trained is not None, "it is read until another is there"
    assert _waiting(tracker, stages, stages[1]) == {stages[1].title}
    assert _waiting(tracker, stages) == set(), "who asks no more has changed their mind"
    assert isinstance(_claim(tracker, stages[1]), Lease)


def _claim(tracker: Tracker, stage: Stage) -> object:
    claimed = claim(tracker, stage, grid="one", driver="x:1:1", since=0.0)
    if isinstance(claimed, Lease):
        claimed.give_up()
    return claimed


def test_what_comes_out_the_same_takes_the_place_and_leaves_the_rest(tracker: Tracker) -> None:
    stages = _open(tracker, "same", 301)
    old = tracker.run_of(stages[1].key)
    assert old is not None
    tracker.grids.join([old.info.run_id], "other")
    asked = _ask(tracker, "same", [stages[1]])
    new = _done(tracker, stages[1], round_result(899), grid="same")
    found = tracker.run_of(stages[1].key)
    assert found is not None
    assert found.info.run_id == new, "of two the one that is not to be done again"
    assert _waiting(tracker, stages) == {stages[1].title}, "it is not settled yet"
    outcome = redo.settle(tracker, stages[1], "same")
    told = f"{stages[1].title} came out the same, bit for bit (numerics class cpu/1)"
    assert outcome.note == told
    assert outcome.again == ()
    assert [run.info.run_id for run in tracker.runs_of(stages[1].key)] == [new]
    tags = tracker.client.get_run(new).data.tags
    assert (tags["grid.other"], tags[REDONE]) == ("true", asked.name)
    assert _waiting(tracker, stages, stages[1]) == set()
    assert redo.settle(tracker, stages[1], "same") == redo.Outcome(), "twice does no harm"
    # The old one is where MLflow keeps what is deleted.
    tracker.client.restore_run(old.info.run_id)
    assert _waiting(tracker, stages) == {stages[1].title}
    redo.settle(tracker, stages[1], "same")
    assert [run.info.run_id for run in tracker.runs_of(stages[1].key)] == [new]


@pytest.mark.parametrize(
    ("numerics", "told"),
    [
        ("cpu/1", "in the same numerics class cpu/1, where it should be the same"),
        ("cpu/2", "numerics class cpu/1 -> cpu/2"),
    ],
)
def test_what_comes_out_different_marks_what_was_made_of_it(
    tracker: Tracker, numerics: str, told: str
) -> None:
    name = f"different-{numerics[-1]}"
    stages = _open(tracker, name, 302 + int(numerics[-1]))
    generation = redo.generation(tracker)
    _ask(tracker, name, [stages[1]])
    _done(tracker, stages[1], round_result(899, seed=5), grid=name, numerics=numerics)
    outcome = redo.settle(tracker, stages[1], name)
    assert outcome.note == (
        f"{stages[1].title} came out different ({told}; test accuracy 50.00 -> 50.00 %); done "
        f"again, as made of it: {stages[2].title}"
    )
    assert outcome.again == (stages[2].key,), "the last is told once the round between is there"
    assert redo.settle(tracker, stages[1], name) == redo.Outcome(again=outcome.again), "of others"
    assert redo.generation(tracker) != generation
    assert _waiting(tracker, stages) == {stages[2].title}, "for everybody"
    (kept,) = tracker.runs_of(stages[2].key)
    assert STALE in kept.data.tags
    assert kept.info.status == "FINISHED"
    # Now the round between: it comes out the same, and the last one stays.
    _done(tracker, stages[2], round_result(898), grid=name)
    assert "came out the same, bit for bit" in redo.settle(tracker, stages[2], name).note
    assert _waiting(tracker, stages) == set()


def test_what_is_being_made_of_a_result_that_is_replaced_is_done_again(tracker: Tracker) -> None:
    stages = _open(tracker, "underway", 306)
    tracker.client.delete_run(tracker.runs_of(stages[2].key)[0].info.run_id)
    log = begin(tracker, stages[2], grid="underway")  # by a driver that knows of nothing
    _ask(tracker, "underway", [stages[1]])
    _done(tracker, stages[1], round_result(899, seed=5), grid="underway")
    redo.settle(tracker, stages[1], "underway")
    log.finish(round_result(898), keep_weights=True)
    assert _waiting(tracker, stages) == {stages[2].title}
    assert isinstance(_claim(tracker, stages[2]), Lease)


def test_a_run_of_before_is_compared_by_its_files(tracker: Tracker) -> None:
    stages = _open(tracker, "of-before", 307)
    for number, stage in enumerate(stages[:3]):
        (run,) = tracker.runs_of(stage.key)
        for part in ("rewind", "trained"):
            if f"elth.{part}_sha256" in run.data.tags:
                tracker.client.delete_tag(run.info.run_id, f"elth.{part}_sha256")
        if number == 2:
            artifact(tracker, run.info.run_id, "result/trained.safetensors").unlink()
    _ask(tracker, "of-before", stages[:3])
    _done(tracker, stages[0], rewind_result(seed=307), grid="of-before")
    assert "came out the same" in redo.settle(tracker, stages[0], "of-before").note
    _done(tracker, stages[1], round_result(899), grid="of-before")
    assert "came out the same" in redo.settle(tracker, stages[1], "of-before").note
    _done(tracker, stages[2], round_result(898), grid="of-before")
    note = redo.settle(tracker, stages[2], "of-before").note
    assert "as nothing of what it left before can be compared, it is taken for different" in note
    assert note.endswith(f"done again, as made of it: {stages[3].title}")


def test_a_request_goes_on_and_ends(tracker: Tracker) -> None:
    stages = _open(tracker, "request", 308)
    first = _ask(tracker, "request", stages[1:3])
    _done(tracker, stages[1], round_result(899), grid="request")
    redo.settle(tracker, stages[1], "request")
    # The process is killed here, and the same command given.
    on = redo.request(tracker, "request", stages[1:3])
    assert (on.name, on.again, on.runs) == (first.name, frozenset([stages[2].key]), ())
    assert on.notes == (
        f"{stages[1].title} was done again already, by this command before it was interrupted",
    )
    # Other stages: another request.
    assert redo.request(tracker, "request", stages[1:2]).again == {stages[1].key}
    _done(tracker, stages[2], round_result(898), grid="request")
    redo.settle(tracker, stages[2], "request")
    assert redo.request(tracker, "request", stages[1:3]).again == frozenset(), "until it is ended"
    redo.end(tracker, on)
    redo.end(tracker, on)  # by another driver
    anew = redo.request(tracker, "request", stages[1:3])
    assert anew.name != first.name
    assert anew.again == {stages[1].key, stages[2].key}


def test_a_request_that_was_cut_off_before_its_marks_is_the_same(tracker: Tracker) -> None:
    stages = _open(tracker, "cut", 309)
    asked = redo.request(tracker, "cut", stages[1:3])
    redo.begin(tracker, dataclasses.replace(asked, runs=asked.runs[:1]))
    on = redo.request(tracker, "cut", stages[1:3])
    assert (on.name, on.again, on.runs) == (asked.name, asked.again, asked.runs[1:])


def test_a_new_run_that_is_not_settled_is_not_marked(tracker: Tracker) -> None:
    stages = _open(tracker, "unsettled", 310)
    _ask(tracker, "unsettled", stages[1:2])
    _done(tracker, stages[1], round_result(899), grid="unsettled")
    on = redo.request(tracker, "unsettled", stages[1:2])
    assert (on.again, on.runs) == (frozenset([stages[1].key]), ())


def test_what_is_not_finished_is_done_as_usual(tracker: Tracker) -> None:
    stages = chain("unfinished", seeds=[311])
    asked = redo.request(tracker, "unfinished", stages[:1])
    assert (asked.again, asked.runs) == (frozenset(), ())
    assert asked.notes == (f"{stages[0].title} is not finished, and is done as usual",)
    with pytest.raises(ValueError, match="the grid unfinished is no more in the store"):
        redo.begin(tracker, asked)


def test_what_takes_the_place_of_damaged_files_is_compared_with_what_they_were(
    tracker: Tracker,
) -> None:
    stages = _open(tracker, "harmed", 312)
    old = tracker.run_of(stages[1].key)
    assert old is not None
    tracker.set_aside(old, "for a test")
    assert _waiting(tracker, stages) == set(), "it is not finished, and so to do anyway"
    assert redo.settle(tracker, stages[1], "harmed") == redo.Outcome()
    lease = claim(tracker, stages[1], grid="harmed", driver="x:1:1", since=0.0)
    assert isinstance(lease, Lease)
    assert lease.is_again
    lease.give_up()
    _done(tracker, stages[1], round_result(899, seed=5), grid="harmed", numerics="cpu/2")
    assert _waiting(tracker, stages) == {stages[1].title}, "it is not compared yet"
    outcome = redo.settle(tracker, stages[1], "harmed")
    assert outcome.again == (stages[2].key,)
    assert outcome.note.startswith(
        f"{stages[1].title}, which was damaged, came out different (numerics class cpu/1 -> cpu/2"
    )
    assert outcome.note.endswith(f"done again, as made of it: {stages[2].title}")
    assert _waiting(tracker, stages) == {stages[2].title}
    assert redo.settle(tracker, stages[1], "harmed").note == "", "once"
    tags = tracker.client.get_run(old.info.run_id).data.tags
    assert redo.COMPARED in tags, "it stays, for elth gc"


def test_what_was_made_of_the_new_one_already_stays(tracker: Tracker) -> None:
    """As in stores of before, in which nothing was compared."""
    stages = _open(tracker, "sound", 315)
    for stage in stages[1:3]:
        old = tracker.run_of(stage.key)
        assert old is not None
        tracker.set_aside(old, "for a test")
    for stage in stages[1:3]:
        _done(tracker, stage, round_result(899, seed=5), grid="sound", numerics="cpu/2")
    assert redo.settle(tracker, stages[1], "sound").again == ()
    assert redo.settle(tracker, stages[2], "sound").again == (stages[3].key,)
    assert _waiting(tracker, stages) == {stages[3].title}


def test_what_comes_out_as_damaged_files_were_leaves_the_rest(tracker: Tracker) -> None:
    stages = _open(tracker, "unharmed", 313)
    old = tracker.run_of(stages[1].key)
    assert old is not None
    tracker.set_aside(old, "for a test")
    _done(tracker, stages[1], round_result(899), grid="unharmed")
    assert redo.settle(tracker, stages[1], "unharmed") == redo.Outcome()
    assert _waiting(tracker, stages) == set()


def test_to_settle_reads_no_marks_but_those_that_tell(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = _open(tracker, "many", 314)
    for stage in stages[1:]:
        redo.mark_lacking(tracker, stage.key, weights=False)
    _ask(tracker, "many", stages[2:])
    found: list[Run] = []
    search = tracker.search

    def watched(*words: str) -> Iterator[Run]:
        some = list(search(*words))
        found.extend(some)
        return iter(some)

    monkeypatch.setattr(tracker, "search", watched)
    redo.settle(tracker, stages[1], "many")
    assert {run.data.tags["elth.key"] for run in found} <= {stages[1].key}


def test_what_comes_of_a_stage(tracker: Tracker) -> None:
    stages = _open(tracker, "below", 312)
    found = redo.below([stages[1].key], tracker.stages())
    assert [one.key for one in found] == [stages[2].key, stages[3].key]


def test_marks_of_running_and_deleted_runs_do_not_count(tracker: Tracker) -> None:
    stages = chain("uncounted", seeds=[313])
    log = begin(tracker, stages[0], grid="uncounted")
    tracker.client.set_tag(log.run_id, ASKED, "x")
    assert log.run_id not in redo.marked(tracker)
    log.finish(rewind_result(), keep_weights=False)
    assert log.run_id in redo.marked(tracker)
    tracker.client.delete_run(log.run_id)
    assert log.run_id not in redo.marked(tracker)


def test_a_request_may_name_any_number_of_stages(tracker: Tracker) -> None:
    """A tag holds 8,000 letters, and MLflow cuts off the rest."""
    tracker.grids.open("many", "text: 1\n", {}, "")
    named = tuple(f"{number:064x}" for number in range(500))
    words = {"grid": "many", "again": frozenset[str](), "runs": (), "notes": ()}
    asked = redo.Request(name="first", named=named, **words)  # type: ignore[arg-type]
    redo.begin(tracker, asked)
    assert redo._open(tracker, "many")["name"] == "first"
    fewer = redo.Request(name="second", named=named[1:], **words)  # type: ignore[arg-type]
    redo.end(tracker, fewer)
    assert redo._open(tracker, "many")["name"] == "first", "another request is not ended"
    redo.end(tracker, asked)
    assert redo._open(tracker, "many") == {}
