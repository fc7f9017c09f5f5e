"""Which job comes next, on plans made by hand, and counts that add up whatever happens."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan import graph, schedule
from orchestrator.plan.graph import Job, Plan
from orchestrator.plan.schedule import Schedule, Snapshot
from orchestrator.plan.stage import Stage
from tests.orchestrator.helpers import QUICK


@pytest.fixture(autouse=True)
def unit_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage's work is the number that its parameters give."""

    def work(stage: Stage) -> float:
        return float(stage.params["work"])

    monkeypatch.setattr(graph, "work", work)
    monkeypatch.setattr(schedule, "work", work)
    monkeypatch.setattr(schedule, "_PAUSES", ())  # a process that dies is a failure at once


def _stage(kind: str, name: str, parents: Iterable[Stage] = (), work: float = 1.0) -> Stage:
    labels = {"network": name, "method": "imp", "source": "", "round": 0, "seed": 0}
    return Stage(
        kind=kind,
        params={"name": name, "work": work},
        parents=tuple(parent.key for parent in parents),
        labels=labels,
    )


def _chain(name: str, rounds: int, work: float = 1.0) -> list[Stage]:
    stages = [_stage("rewind_point", f"{name}r", work=work)]
    for k in range(rounds):
        parents = [stages[0], stages[-1]] if k else stages[:1]
        stages.append(_stage("round", f"{name}{k}", parents, work))
    return stages


def _plan(*stages: Stage) -> Plan:
    return Plan({stage.key: stage for stage in stages})


def _names(job: Job | None) -> str:
    return " ".join(stage.params["name"] for stage in job.stages) if job else "-"


def _counts(now: Snapshot) -> tuple[int, ...]:
    """Found, done, running, waiting, failed, blocked."""
    running, failed = len(now.running), len(now.failed)
    return (now.found, now.done, running, now.waiting, failed, now.blocked)


def test_the_longest_remaining_path_comes_first() -> None:
    short, long = _chain("s", 1), _chain("l", 3)
    heavy = [_stage("rewind_point", "h", work=3.5)]
    found = Schedule(_plan(*short, *heavy, *long), (), {}, slots=9)
    assert [_names(found.take(str(i))) for i in range(4)] == ["lr l0 l1 l2", "h", "sr s0", "-"]


def test_what_waits_for_a_job_counts_towards_its_path() -> None:
    one, two = _stage("rewind_point", "a"), _stage("rewind_point", "b")
    child = _stage("retraining", "c", [two], work=5.0)
    found = Schedule(_plan(one, two, child), (), {}, slots=1)
    assert _names(found.take("0")) == "b"


def test_of_equal_paths_the_earlier_one_of_the_plan_comes_first() -> None:
    stages = [_stage("rewind_point", name) for name in "abc"]
    found = Schedule(_plan(*stages), (), {}, slots=3)
    assert [_names(found.take(str(i))) for i in range(3)] == ["a", "b", "c"]


def test_never_more_jobs_than_slots() -> None:
    stages = [_stage("rewind_point", name) for name in "abc"]
    found = Schedule(_plan(*stages), (), {}, slots=2)
    assert [_names(found.take(str(i))) for i in range(3)] == ["a", "b", "-"]
    found.advance("0", 1, 0.0, None)
    assert found.take("2") is None  # finished, but its trial still holds the slot
    found.end("0")
    assert _names(found.take("2")) == "c"


def test_a_finished_stage_unlocks_its_children_while_its_job_goes_on() -> None:
    chain = _chain("c", 3)
    start, first = chain[0], chain[1]
    magnitude = _stage("retraining", "m", [start])
    ett = _stage("retraining", "e", [first])
    found = Schedule(_plan(*chain, magnitude, ett), (), {}, slots=9)
    assert _names(found.take("0")) == "cr c0 c1 c2"
    assert found.take("1") is None
    found.advance("0", 0, 0.9, 12.5)
    assert found.take("1") is None
    found.advance("0", 1, 0.0, None)
    assert _names(found.take("1")) == "m"
    assert found.take("2") is None
    found.advance("0", 2, 0.5, None)
    assert _names(found.take("2")) == "e"
    assert _counts(found.snapshot()) == (0, 2, 3, 1, 0, 0)


def test_what_the_store_holds_is_not_done_again() -> None:
    chain = _chain("c", 3)
    ett = _stage("retraining", "e", [chain[1]])
    finished = [stage.key for stage in chain[:2]]
    found = Schedule(_plan(*chain, ett), [*finished, "of another plan"], {}, slots=2)
    assert _counts(found.snapshot()) == (2, 0, 0, 3, 0, 0)
    assert [_names(found.take(trial)) for trial in "01"] == ["c1 c2", "e"]


def test_nothing_to_do_is_over_at_once() -> None:
    chain = _chain("c", 2)
    found = Schedule(_plan(*chain), [stage.key for stage in chain], {}, slots=1)
    assert found.is_over
    assert found.take("0") is None
    assert Schedule(Plan({}), (), {}, slots=1).is_over


def test_it_is_over_when_the_last_trial_has_ended() -> None:
    chain = _chain("c", 1)
    found = Schedule(_plan(*chain), (), {}, slots=1)
    assert not found.is_over
    found.take("0")
    assert not found.is_over
    found.advance("0", 2, 0.0, None)
    assert _counts(found.snapshot()) == (0, 2, 0, 0, 0, 0)
    assert not found.is_over
    found.end("0")
    assert found.is_over
    assert found.snapshot().failed == {}


def _tree() -> tuple[list[Stage], Plan]:
    """Two chains; of the first a retraining of each round, of the second one of its last."""
    a, b = _chain("a", 3), _chain("b", 2)
    leaves = [_stage("retraining", f"x{i}", [stage]) for i, stage in enumerate(a)]
    leaves.append(_stage("retraining", "y", [b[-1]]))
    return [*a, *b, *leaves], _plan(*a, *b, *leaves)


def test_a_failure_blocks_exactly_its_descendants() -> None:
    stages, built = _tree()
    found = Schedule(built, (), {}, slots=2)
    assert [_names(found.take(trial)) for trial in "01"] == ["ar a0 a1 a2", "br b0 b1"]
    found.advance("0", 2, 0.25, None)  # rewind point and dense round are done
    found.fail("0", "the loss was not finite")
    now = found.snapshot()
    assert now.failed == {stages[2].key: "a1 round 0, seed 0: the loss was not finite"}
    # Done ar, a0; failed a1; blocked a2 and the retrainings of a1 and a2; the rest goes on.
    assert _counts(now) == (0, 2, 1, 5, 1, 3)
    found.end("0")
    assert found.snapshot().failed == now.failed
    found.advance("1", 3, 0.0, None)
    found.end("1")
    done = []
    for trial in itertools.count(2):
        job = found.take(str(trial))
        if job is None:
            break
        done.append(_names(job))
        found.advance(str(trial), 1, 0.0, None)
        found.end(str(trial))
    assert sorted(done) == ["x0", "x1", "y"]
    assert found.is_over
    assert _counts(found.snapshot()) == (0, 8, 0, 0, 1, 3)


def test_what_a_process_that_died_was_at_is_begun_again_after_a_pause(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "_PAUSES", (1.0, 10.0, 30.0))
    stages = _chain("a", 3)
    found = Schedule(_plan(*stages), (), {}, slots=1)
    for trial, pause in enumerate((1.0, 10.0, 30.0, None)):
        job = found.take(str(trial))
        assert job is not None
        assert job.stages[trial and 0] == stages[1 if trial else 0]
        if not trial:
            found.advance("0", 1, 0.5, None)
        ended = found.end(str(trial), f"reason {trial // 2}")
        now = found.snapshot()
        assert now.notes == tuple(
            f"a0 round 0, seed 0 is begun again: reason {number}"
            for number in range(min(trial, 2) // 2 + 1)
        )
        if pause is not None:
            assert ended is None
            assert now.failed == {}
            assert not found.is_over
            clock.now += pause - 0.1
            assert found.take("too soon") is None
            clock.now += 0.2
    assert ended == (stages[1], "4 times: reason 1")
    assert now.failed == {stages[1].key: "a0 round 0, seed 0: 4 times: reason 1"}
    assert _counts(now) == (0, 1, 0, 0, 1, 2)
    assert found.is_over


def test_a_stage_that_gets_on_between_deaths_does_not_fail(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On machines that are taken away again and again each attempt goes on from a checkpoint."""
    monkeypatch.setattr(schedule, "_PAUSES", (1.0, 10.0, 30.0))
    stages = _chain("a", 2)
    found = Schedule(_plan(*stages), (), {}, slots=1)
    for trial in range(12):
        assert found.take(str(trial)) is not None
        found.advance(str(trial), 0, (trial + 1) / 20, None)
        assert found.end(str(trial)) is None
        clock.now += 100
    for trial in range(12, 14):  # the first of four at one place was the last of these
        assert found.take(str(trial)) is not None
        found.advance(str(trial), 0, 0.5, None)
        assert found.end(str(trial)) is None
        clock.now += 100
    assert found.take("14") is not None
    assert found.end("14") == (stages[0], "4 times: its process died")


def test_the_time_of_waiting_for_room_is_none_of_a_training(clock: Clock) -> None:
    chain = _chain("c", 4)
    found = Schedule(_plan(*chain), (), {}, slots=1)
    found.take("0")
    clock.now += 3600  # its machine is busy with others
    found.begin("0")
    found.begin("ghost")
    found.advance("0", 0, 0.5, None)
    found.begin("0")  # it has begun, and this changes nothing
    for number in range(1, 4):
        clock.now += 10
        found.advance("0", number, 0.5, 50.0)
    assert found.snapshot().running[0].expected == pytest.approx(10, rel=0.01)
    left = found.snapshot().seconds_left
    assert left is not None
    assert left < 60


def test_a_stage_that_failed_before_is_not_done_again() -> None:
    stages, built = _tree()
    found = Schedule(built, [stages[0].key], {stages[1].key: "infinite", "other": ""}, slots=9)
    now = found.snapshot()
    assert now.failed == {stages[1].key: "a0 round 0, seed 0: infinite"}
    assert _counts(now) == (1, 0, 0, 5, 1, 5)
    assert [_names(found.take(str(i))) for i in range(3)] == ["br b0 b1", "x0", "-"]


def test_a_job_ends_before_a_stage_that_failed_before() -> None:
    stages, built = _tree()
    found = Schedule(built, (), {stages[2].key: "infinite"}, slots=9)
    assert [_names(found.take(str(i))) for i in range(3)] == ["ar a0", "br b0 b1", "-"]
    assert _counts(found.snapshot()) == (0, 0, 2, 6, 1, 3)


def test_a_finished_child_of_a_failed_stage_stays_finished() -> None:
    stages, built = _tree()
    finished = [stages[0].key, stages[1].key, stages[3].key]
    found = Schedule(built, finished, {stages[2].key: "", stages[3].key: "before"}, slots=9)
    assert found.snapshot().failed.keys() == {stages[2].key}
    assert _counts(found.snapshot()) == (3, 0, 0, 7, 1, 1)


def test_what_comes_late_or_from_nowhere_is_passed_over() -> None:
    chain = _chain("c", 1)
    found = Schedule(_plan(*chain), (), {}, slots=1)
    found.advance("ghost", 1, 0.0, None)
    found.fail("ghost", "x")
    found.end("ghost")
    assert _counts(found.snapshot()) == (0, 0, 0, 2, 0, 0)
    found.take("0")
    found.advance("0", 2, 0.0, None)
    found.end("0")
    found.advance("0", 0, 0.5, None)
    found.end("0")
    assert _counts(found.snapshot()) == (0, 2, 0, 0, 0, 0)


def test_running_stages_tell_how_far_they_are() -> None:
    chain = _chain("c", 2)
    found = Schedule(_plan(*chain), (), {}, slots=1)
    found.take("0")
    found.advance("0", 0, 0.5, 71.0)
    (running,) = found.snapshot().running
    assert (running.stage, running.fraction, running.accuracy) == (chain[0], 0.5, 71.0)
    found.advance("0", 1, 0.0, None)
    (after,) = found.snapshot().running
    assert (after.stage, after.fraction, after.accuracy) == (chain[1], 0.0, None)
    assert after.since >= running.since
    found.advance("0", 1, 0.75, 80.0)
    assert found.snapshot().running[0].since == after.since


def test_a_job_that_was_given_back_goes_on_where_it_was() -> None:
    chain = _chain("a", 3)
    schedule = Schedule(_plan(*chain), (), {}, slots=1)
    assert schedule.take("1") is not None
    schedule.advance("1", 1, 0.0, None)
    schedule.advance("1", 1, 0.5, 60.0)
    schedule.give_back("1")
    schedule.give_back("1")
    assert not schedule.is_over
    job = schedule.take("2")
    assert job is not None
    assert job.stages == tuple(chain[1:])
    schedule.advance("2", 3, 0.0, None)
    schedule.give_back_all()
    assert schedule.is_over, "it was at its end"
    now = schedule.snapshot()
    assert (now.done, now.waiting, now.failed) == (len(chain), 0, {})


def test_time_left_is_known_from_the_store_or_from_what_is_done() -> None:
    chain = _chain("c", 2, work=10.0)
    assert Schedule(_plan(*chain), (), {}, slots=1).snapshot().seconds_left is None
    found = Schedule(_plan(*chain), (), {}, slots=1, seconds_per_work=2.0)
    assert found.snapshot().seconds_left == pytest.approx(60.0)
    found.take("0")
    found.advance("0", 0, 0.5, None)
    assert found.snapshot().seconds_left == pytest.approx(50.0)
    found.advance("0", 3, 0.0, None)
    found.end("0")
    assert found.snapshot().seconds_left == 0.0


def test_time_left_of_one_chain_falls_by_what_is_done_of_it_whatever_the_slots() -> None:
    found = Schedule(_plan(*_chain("c", 2, work=10.0)), (), {}, slots=8, seconds_per_work=1.0)
    found.take("0")
    found.advance("0", 0, 0.5, None)
    assert found.snapshot().seconds_left == pytest.approx(25.0)


def test_time_left_of_what_waits_for_a_running_job_begins_after_it() -> None:
    """A parent of 100 units, and two children of 50 that are jobs of their own."""
    parent = _stage("rewind_point", "p", work=100.0)
    children = [_stage("round", name, [parent], 50.0) for name in "ab"]
    found = Schedule(_plan(parent, *children), (), {}, slots=8, seconds_per_work=1.0)
    assert found.snapshot().seconds_left == pytest.approx(150.0)
    found.take("0")
    assert found.snapshot().seconds_left == pytest.approx(150.0)
    found.advance("0", 0, 0.5, None)
    assert found.snapshot().seconds_left == pytest.approx(100.0)
    found.advance("0", 0, 0.0, None)  # a note
    assert found.snapshot().seconds_left == pytest.approx(100.0)


def test_time_left_does_not_grow_while_nothing_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first epochs of a run tell how long one takes, and silence after them nothing."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stages = _chain("c", 2, work=10.0)
    found = Schedule(_plan(*stages), {stages[0].key}, {}, slots=1)
    found.take("0")
    assert found.snapshot().seconds_left is None
    now += 30
    found.advance("0", 0, 0.5, None)
    assert found.snapshot().seconds_left == pytest.approx(90.0)
    now += 29
    assert found.snapshot().seconds_left == pytest.approx(90.0)


# Chains that end before their last round


def test_after_the_last_round_of_a_chain_its_rest_is_ended_and_all_else_is_done() -> None:
    stages, built = _tree()
    found = Schedule(built, (), {}, slots=1)
    assert _names(found.take("0")) == "ar a0 a1 a2"
    found.advance("0", 3, 0.0, None)
    found.end_chain(stages[2].key, "a1 has 9 % < 12 %")
    found.end("0")
    now = found.snapshot()
    x3 = next(stage for stage in stages if stage.params["name"] == "x3")
    assert now.ended == dict.fromkeys([stages[3].key, x3.key], "a1 has 9 % < 12 %")
    assert (now.failed, now.blocked, now.done, now.waiting) == ({}, 0, 3, 7)
    done = []
    for trial in itertools.count(1):
        job = found.take(str(trial))
        if job is None:
            break
        done.append(_names(job))
        found.advance(str(trial), len(job.stages), 0.0, None)
        found.end(str(trial))
    assert sorted(done) == ["br b0 b1", "x0", "x1", "x2", "y"]  # x2 is made of the last round
    assert found.is_over
    now = found.snapshot()
    assert (now.done, now.waiting, len(now.ended)) == (10, 0, 2)


def test_the_store_tells_at_once_what_is_ended_whatever_was_done_or_failed_beyond() -> None:
    stages, built = _tree()
    beyond = [stage.key for stage in stages if stage.params["name"] in ("a2", "x3")]
    finished, failed = [stage.key for stage in stages[:3]] + beyond[:1], {beyond[1]: "infinite"}
    found = Schedule(built, finished, failed, slots=9, last={stages[2].key: "9 % < 12 %"})
    now = found.snapshot()
    assert now.ended.keys() == set(beyond)
    assert (now.found, now.failed, now.blocked) == (3, {}, 0)
    assert [_names(found.take(trial)) for trial in "0123"] == ["br b0 b1", "x0", "x1", "x2"]


def test_a_round_done_again_may_end_what_was_found_beyond_it() -> None:
    """Damaged, it says nothing. What is at work beyond it ends unheard."""
    stages, built = _tree()
    a2 = stages[3]
    x3 = next(stage for stage in stages if stage.params["name"] == "x3")
    found = Schedule(built, [s.key for s in (*stages[:2], a2)], {}, slots=9)
    jobs = {_names(found.take(trial)): trial for trial in "01234"}
    assert set(jobs) == {"a1", "br b0 b1", "x0", "x1", "x3"}
    found.advance(jobs["a1"], 1, 0.0, None)
    found.end_chain(stages[2].key, "9 % < 12 %")
    assert found.snapshot().ended.keys() == {a2.key, x3.key}
    assert found.snapshot().found == 2
    found.fail(jobs["x3"], "no room")
    found.end(jobs["x3"])
    assert (found.snapshot().failed, found.snapshot().blocked) == ({}, 0)


def test_what_another_driver_is_at_may_be_ended(clock: Clock) -> None:
    chain = _chain("c", 3)
    found = Schedule(_plan(*chain), [chain[0].key, chain[1].key], {}, slots=1)
    found.take("0")
    found.hold("0", "alive")
    found.end("0")
    found.end_chain(chain[1].key, "9 % < 12 %")
    assert (found.is_over, found.snapshot().elsewhere) == (True, 0)


# Other drivers, and results that turn out to be damaged


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(schedule, "time", made)
    return made


def test_a_stage_that_another_driver_is_at_comes_back_and_others_go_first(clock: Clock) -> None:
    chain, other = _chain("c", 2), _stage("rewind_point", "o")
    found = Schedule(_plan(*chain, other), (), {}, slots=1)
    assert _names(found.take("0")) == "cr c0 c1"
    assert found.watched("0") is None
    found.advance("0", 1, 0.0, None)  # the rewind point is finished, the first round is held
    found.hold("0", "alive 1")
    found.end("0")  # as Tune tells that the trial is over
    now = found.snapshot()
    assert (now.elsewhere, now.failed, found.is_over) == (1, {}, False)
    assert _counts(now) == (0, 1, 0, 2, 0, 0)
    assert _names(found.take("1")) == "o"
    found.advance("1", 1, 0.0, None)
    found.end("1")
    assert found.take("2") is None
    clock.now += 1.0
    assert _names(found.take("2")) == "c0 c1"
    assert found.watched("2") == ("alive 1", 1.0)
    assert _counts(found.snapshot())[2] == 0, "to look again is not to run"
    found.hold("2", "alive 1")
    clock.now += 9.0
    found.take("3")
    assert found.watched("3") == ("alive 1", 10.0)
    found.hold("3", "alive 2")
    clock.now += 2.4
    assert found.take("4") is None, "the longer it lasts the more rarely it is looked at"
    clock.now += 0.2
    assert _names(found.take("4")) == "c0 c1"
    watched = found.watched("4")
    assert watched is not None
    assert watched[0] == "alive 2"
    found.advance("4", 0, 0.5, None)  # it was taken over
    assert (found.snapshot().elsewhere, len(found.snapshot().running)) == (0, 1)
    found.advance("4", 2, 0.0, None)
    found.end("4")
    assert found.is_over
    assert _counts(found.snapshot()) == (0, 4, 0, 0, 0, 0)


def test_what_another_driver_has_finished_unlocks_what_needs_it(clock: Clock) -> None:
    chain = _chain("c", 1)
    child = _stage("retraining", "x", [chain[1]])
    found = Schedule(_plan(*chain, child), [chain[0].key], {}, slots=2)
    found.take("0")
    found.hold("0", "alive")
    clock.now += 5.0
    assert _names(found.take("1")) == "c0"
    found.advance("1", 1, 0.0, None)
    assert found.snapshot().elsewhere == 0
    assert _names(found.take("2")) == "x"


def test_a_damaged_parent_is_done_again_before_its_child() -> None:
    chain = _chain("c", 2)
    one, two = (_stage("retraining", name, [chain[2]]) for name in "xy")
    keys = [stage.key for stage in chain]
    found = Schedule(_plan(*chain, one, two), keys, {}, slots=9)
    assert [_names(found.take(trial)) for trial in "01"] == ["x", "y"]
    found.redo("0", keys[2], "cut off")
    found.redo("1", keys[2], "cut off")
    assert _counts(found.snapshot()) == (2, 0, 0, 3, 0, 0)
    assert found.snapshot().notes == ("c1 round 0, seed 0 is done again: cut off",)
    assert [_names(found.take(trial)) for trial in "23"] == ["c1", "-"]
    found.advance("2", 1, 0.0, None)
    found.end("2")
    assert [_names(found.take(trial)) for trial in "45"] == ["x", "y"]
    for trial in "45":
        found.advance(trial, 1, 0.0, None)
        found.end(trial)
    assert found.is_over
    assert _counts(found.snapshot()) == (2, 3, 0, 0, 0, 0)


def test_a_damaged_stage_farther_up_is_waited_for_too() -> None:
    chain = _chain("c", 1)
    child = _stage("retraining", "x", [chain[1]])
    found = Schedule(_plan(*chain, child), [stage.key for stage in chain], {}, slots=9)
    found.take("0")
    found.redo("0", chain[0].key, "gone")
    assert [_names(found.take(trial)) for trial in "12"] == ["cr", "-"]
    found.fail("1", "no disk")
    found.end("1")
    assert found.is_over, "what needs it is blocked and not waited for"
    assert _counts(found.snapshot()) == (1, 0, 0, 0, 1, 1)


@pytest.mark.parametrize("rounds", [1, 3])
def test_what_needs_a_stage_that_has_failed_by_now_is_not_waited_for(rounds: int) -> None:
    """Two children of the last round find an earlier stage damaged, one before it fails again."""
    chain = _chain("c", rounds)
    one, two = (_stage("retraining", name, [chain[-1]]) for name in "xy")
    built = _plan(*chain, one, two)
    found = Schedule(built, [stage.key for stage in chain], {}, slots=1)
    damaged = chain[0] if rounds == 1 else chain[2]
    numbers = map(str, itertools.count())
    found.take(number := next(numbers))
    found.redo(number, damaged.key, "gone")
    found.end(number)
    found.take(number := next(numbers))
    if rounds == 3:  # and finds another one damaged in its turn
        found.redo(number, chain[1].key, "gone")
        found.end(number)
        found.take(number := next(numbers))
    found.fail(number, "no disk")
    found.end(number)
    number = next(numbers)
    assert _names(found.take(number)) == "y"
    found.redo(number, damaged.key, "gone")
    found.end(number)
    assert found.is_over
    _check(found.snapshot(), built)


def test_what_was_at_work_when_its_parent_failed_anew_is_finished() -> None:
    chain = _chain("c", 1)
    one, two = (_stage("retraining", name, [chain[-1]]) for name in "xy")
    built = _plan(*chain, one, two)
    found = Schedule(built, [stage.key for stage in chain], {}, slots=2)
    assert [_names(found.take(trial)) for trial in "01"] == ["x", "y"]
    found.redo("0", chain[-1].key, "gone")
    found.end("0")
    found.take("2")
    found.fail("2", "no disk")
    found.end("2")
    found.advance("1", 1, 0.0, None)
    found.end("1")
    assert found.is_over
    _check(found.snapshot(), built)
    assert found.snapshot().blocked == 1


def test_a_job_that_is_held_is_looked_at_in_time_however_often_it_was_offered(
    clock: Clock,
) -> None:
    chain = _chain("c", 0)
    child = _stage("retraining", "x", [chain[-1]])
    found = Schedule(_plan(*chain, child), [stage.key for stage in chain], {}, slots=1)
    found._offer(child.key)
    assert _names(found.take("0")) == "x"
    found.hold("0", "alive")
    found.end("0")
    assert found.take("1") is None
    clock.now += 60.0
    assert _names(found.take("1")) == "x"


def test_what_is_damaged_each_time_is_a_failure_in_the_end() -> None:
    start, child = _chain("c", 1)
    found = Schedule(_plan(start, child), [start.key], {}, slots=1)
    trials = map(str, itertools.count())
    for _ in range(2):
        found.take(trial := next(trials))
        found.redo(trial, start.key, "bad disk")
        found.take(trial := next(trials))
        found.advance(trial, 1, 0.0, None)
        found.end(trial)
    found.take(trial := next(trials))
    found.redo(trial, start.key, "bad disk")
    found.end(trial)
    assert found.snapshot().failed == {child.key: "c0 round 0, seed 0: bad disk"}
    assert found.is_over


def test_what_is_finished_is_done_again_once_its_parent_is_another() -> None:
    chain = _chain("c", 3)
    finished = [stage.key for stage in chain if stage is not chain[1]]
    found = Schedule(_plan(*chain), finished, {}, again=[chain[1].key], slots=9)
    assert _names(found.take("0")) == "c0"
    found.again([chain[2].key, "of another plan"])
    assert found.take("1") is None, "its parent is not there yet"
    assert _counts(found.snapshot()) == (2, 0, 1, 1, 0, 0)
    found.advance("0", 1, 0.0, None)
    assert _names(found.take("1")) == "c1"
    found.advance("1", 1, 0.0, None)
    found.end("0")
    found.end("1")
    assert found.is_over, "the last one stays"
    assert _counts(found.snapshot()) == (2, 2, 0, 0, 0, 0)


def test_what_is_not_begun_waits_for_all_that_may_be_done_again_above_it() -> None:
    chain = _chain("c", 4)
    finished = [stage.key for stage in (chain[0], chain[2], chain[3])]
    found = Schedule(_plan(*chain), finished, {}, again=[chain[1].key], slots=9)
    assert [_names(found.take(trial)) for trial in "01"] == ["c0", "-"], "c3 has its parents"
    found.again([chain[2].key])
    found.advance("0", 1, 0.0, None)
    assert [_names(found.take(trial)) for trial in "23"] == ["c1", "-"], "c2 may be next"
    found.advance("2", 1, 0.0, None)
    assert _names(found.take("4")) == "c3"


def test_what_waits_for_a_stage_that_fails_is_blocked() -> None:
    chain = _chain("c", 3)
    finished = [stage.key for stage in (chain[0], chain[2])]
    found = Schedule(_plan(*chain), finished, {}, again=[chain[1].key], slots=9)
    found.take("0")
    found.fail("0", "not finite")
    found.end("0")
    assert found.is_over
    assert _counts(found.snapshot()) == (2, 0, 0, 0, 1, 1)


def test_a_job_does_not_wait_for_itself() -> None:
    chain = _chain("c", 2)
    found = Schedule(_plan(*chain), (), {}, again=[chain[0].key, chain[1].key], slots=9)
    assert _names(found.take("0")) == "cr c0 c1"


@QUICK
@given(st.data())
def test_counts_add_up_with_other_drivers_and_damage(data: st.DataObject) -> None:
    """Whatever comes, every stage is finished in the end, and no job is lost."""
    built = data.draw(_plans(), "plan")
    keys = sorted(built.stages)
    found = Schedule(built, data.draw(st.sets(st.sampled_from(keys)), "finished"), {}, slots=3)
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(schedule, "time", clock)
        running: dict[str, tuple[Job, int]] = {}
        steps = itertools.count()
        for number in map(str, steps):
            clock.now += 1.0
            job = found.take(number)
            if job is not None:
                running[number] = (job, 0)
            for trial, (job, index) in list(running.items()):
                calm = int(number) > 40
                what = (
                    "advance" if calm else data.draw(st.sampled_from(["advance", "hold", "redo"]))
                )
                parents = _ancestors(built, job.stages[index])
                if what == "advance" or (what == "redo" and not parents):
                    running[trial] = (job, index + 1)
                    found.advance(trial, index + 1, 0.0, None)
                elif what == "hold":
                    found.hold(trial, "alive")
                else:
                    found._redone.clear()
                    found.redo(trial, data.draw(st.sampled_from(parents)), "damaged")
                if (what in ("hold", "redo") and running[trial][1] == index) or running[trial][
                    1
                ] == len(job.stages):
                    del running[trial]
                    found.end(trial)
                _check(found.snapshot(), built)
            if found.is_over:
                break
            assert int(number) < 400, "something is waited for that never comes"
    now = found.snapshot()
    assert now.found + now.done == now.total


def _ancestors(built: Plan, stage: Stage) -> list[str]:
    """What a stage is made of, near and far."""
    found = list(stage.parents)
    for key in found:
        found += [one for one in built.stages[key].parents if one not in found]
    return found


def _check(now: Snapshot, built: Plan) -> None:
    assert now.total == len(built.stages) == sum(_counts(now)) + now.elsewhere + len(now.ended)
    assert min(_counts(now)) >= 0
    assert len({running.stage.key for running in now.running}) == len(now.running)


@st.composite
def _plans(draw: st.DrawFn) -> Plan:
    stages: list[Stage] = []
    for chain in range(draw(st.integers(1, 3))):
        stages += _chain(f"{'abc'[chain]}", draw(st.integers(0, 4)), draw(st.integers(1, 3)))
    roots = list(stages)
    for leaf in range(draw(st.integers(0, 5))):
        stages.append(_stage("retraining", f"x{leaf}", [draw(st.sampled_from(roots))]))
    return _plan(*stages)


@QUICK
@given(_plans(), st.data())
def test_counts_add_up_at_every_moment(built: Plan, data: st.DataObject) -> None:
    keys = sorted(built.stages)
    finished = data.draw(st.sets(st.sampled_from(keys)), "finished")
    before = dict.fromkeys(data.draw(st.sets(st.sampled_from(keys)), "failed"), "before")
    slots = data.draw(st.integers(1, 4), "slots")
    rounds = [key for key in keys if built.stages[key].kind == "round"]
    last = data.draw(st.sets(st.sampled_from(rounds)) if rounds else st.just(set()), "last")
    known = dict.fromkeys(last & finished, "last")
    found = Schedule(built, finished, before, slots=slots, last=known)
    _check(found.snapshot(), built)
    numbers = itertools.count()
    running: dict[str, tuple[Job, int]] = {}
    taken: list[str] = []

    def take() -> None:
        trial = str(next(numbers))
        job = found.take(trial)
        if job is not None:
            running[trial] = (job, 0)
            taken.extend(stage.key for stage in job.stages)

    def step(trial: str, what: str) -> None:
        job, index = running[trial]
        if what == "advance" and index < len(job.stages):
            running[trial] = (job, index + 1)
            found.advance(trial, index + 1, 0.0, None)
            if job.stages[index].key in last:
                found.end_chain(job.stages[index].key, "last")
                del running[trial]
                found.end(trial)
        elif what == "progress" and index < len(job.stages):
            found.advance(trial, index, data.draw(st.floats(0, 1)), 50.0)
        elif what == "fail" and index < len(job.stages):
            found.fail(trial, "no")
            _check(found.snapshot(), built)
            del running[trial]
            found.end(trial)
        elif what == "end":
            del running[trial]
            found.end(trial)

    for _ in range(60):
        if found.is_over:
            break
        actions = ["take", "take", *(f"{w} {t}" for t in running for w in ("advance", "advance"))]
        actions += [f"{w} {t}" for t in running for w in ("progress", "fail", "end")]
        what, _, trial = data.draw(st.sampled_from(actions)).partition(" ")
        if what == "take":
            take()
        else:
            step(trial, what)
        assert len(running) <= slots
        _check(found.snapshot(), built)
    while not found.is_over:  # nothing may be left that waits for nothing
        take()
        for trial in list(running):
            while trial in running and running[trial][1] < len(running[trial][0].stages):
                step(trial, "advance")
            if trial in running:
                step(trial, "end")
    now = found.snapshot()
    _check(now, built)
    assert (len(now.running), now.waiting) == (0, 0)
    assert len(taken) == len(set(taken))
    assert not set(taken) & finished
    assert not set(taken) & (set(before) - finished)
    # Ended is what goes on from a last one, and what needs that; lost is what failed and what needs
    # it: no more.
    over: set[str] = set()
    lost: set[str] = set()
    for key, stage in built.stages.items():
        before_it = stage.parents[-1] if len(stage.parents) > 1 else ""
        goes_on = stage.kind == "round" and before_it in last - lost - over
        if goes_on or set(stage.parents) & over:
            over.add(key)
        elif key in now.failed or (key not in finished and set(stage.parents) & lost):
            lost.add(key)
    assert now.ended.keys() == over
    assert len(lost) == len(now.failed) + now.blocked


def test_the_latest_results_are_told_the_last_one_first() -> None:
    stages = _chain("a", 5)
    made = Schedule(_plan(*stages), (), {}, slots=1)
    made.take("0")
    assert made.snapshot().latest == ()
    made.advance("0", 0, 0.5, 12.0)  # of a rewind point nobody asks
    for number in range(1, 6):
        made.advance("0", number, 0.0, None)
        made.advance("0", number, 0.5, 12.0)  # between is no result
        made.advance("0", number + 1, 0.0, None, 90.0 + number)
    latest = [(stages[number].title, 90.0 + number) for number in (5, 4, 3)]
    assert list(made.snapshot().latest) == latest


def test_the_slowest_is_that_which_has_run_longest_by_what_it_should_take(clock: Clock) -> None:
    quick = _stage("retraining", "quick", work=1.0)
    slow = _stage("retraining", "slow", work=10.0)
    made = Schedule(_plan(quick, slow), (), {}, slots=2)
    made.take("0")
    made.take("1")
    assert made.snapshot().slowest is None  # as long as nothing is known of the speed here
    known = Schedule(_plan(quick, slow), (), {}, slots=2, seconds_per_work=2.0)
    known.take("0")
    known.take("1")
    clock.now += 6
    slowest = known.snapshot().slowest
    assert slowest is not None
    assert (slowest.stage.params["name"], slowest.expected) == ("quick", 2.0)
    assert slowest.times == pytest.approx(3.0)


def test_a_rewind_point_is_never_the_slowest(clock: Clock) -> None:
    made = Schedule(_plan(*_chain("a", 1)), (), {}, slots=1, seconds_per_work=1.0)
    made.take("0")
    clock.now += 100
    assert made.snapshot().slowest is None


@pytest.mark.parametrize("count", [20, 400])
def test_the_end_of_a_trial_costs_the_same_in_a_plan_of_any_size(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    looked = [0]
    is_lost = Schedule._is_lost

    def counted(self: Schedule, key: str) -> bool:
        looked[0] += 1
        return is_lost(self, key)

    stages = [stage for number in range(count) for stage in _chain(f"c{number}-", 1)]
    found = Schedule(_plan(*stages), (), {}, slots=9)
    assert found.take("broken") is not None
    found.fail("broken", "a loss that is not finite")
    monkeypatch.setattr(Schedule, "_is_lost", counted)
    found.end("broken")
    for number in range(9):
        assert found.take(str(number)) is not None
        found.advance(str(number), 2, 0.0, None)
        found.end(str(number))
    assert found.take("stopped") is not None
    found.give_back("stopped")
    assert looked[0] <= 2 * 10


def test_the_work_of_a_stage_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    worked: list[str] = []

    def work(stage: Stage) -> float:
        worked.append(stage.key)
        return 1.0

    stages = _chain("c", 20)
    found = Schedule(_plan(*stages), (), {}, slots=2, seconds_per_work=1.0)
    monkeypatch.setattr(schedule, "work", work)
    monkeypatch.setattr(graph, "work", work)
    found.take("0")
    for index in range(10):
        found.advance("0", index, 0.5, None)
        assert found.snapshot().seconds_left == pytest.approx(21 - index - 0.5)
    assert len(worked) == len(set(worked))
