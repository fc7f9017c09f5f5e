"""Plans walked in time: by hand, as the driver's schedule has it, and within the bounds."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan import graph, schedule
from orchestrator.plan.graph import Job, Plan
from orchestrator.plan.schedule import Schedule
from orchestrator.plan.stage import Stage
from orchestrator.plan.walking import Course, Walk, parts_of
from tests.orchestrator.helpers import QUICK


@pytest.fixture(autouse=True)
def unit_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage's work is the number that its parameters give."""
    for module in (graph, schedule):
        monkeypatch.setattr(module, "work", _cost)


def _cost(stage: Stage) -> float:
    return float(stage.params["work"])


def _stage(
    kind: str,
    name: str,
    parents: Iterable[Stage] = (),
    work: float = 1.0,
    number: int = 0,
    seed: int = 0,
) -> Stage:
    method = {"rewind_point": "rewind", "round": "imp" if number else "dense"}.get(kind, "reinit")
    labels = {"network": name[0], "method": method, "source": "", "transform": "", "seed": seed}
    return Stage(
        kind=kind,
        params={"name": name, "work": work},
        parents=tuple(parent.key for parent in parents),
        labels={**labels, "round": number, "dataset": "digits"},
    )


def _chain(name: str, *works: float, seed: int = 0) -> list[Stage]:
    """A rewind point and rounds, that take so long."""
    stages = [_stage("rewind_point", f"{name}r", work=works[0], seed=seed)]
    for k, work in enumerate(works[1:]):
        parents = [stages[0], stages[-1]] if k else stages[:1]
        stages.append(_stage("round", f"{name}{k}", parents, work, k, seed))
    return stages


def _plan(*stages: Stage) -> Plan:
    return Plan({stage.key: stage for stage in stages})


def _course(built: Plan, done: Collection[str] = (), launch: float = 0.0) -> Course:
    costs = {key: _cost(stage) for key, stage in built.stages.items()}
    return Course(built, done, costs, launch=launch)


def _times(walk: Walk) -> dict[str, tuple[float, float]]:
    spans = zip(walk.course.stages, walk.begins, walk.ends, strict=True)
    return {stage.params["name"]: (begin, end) for stage, begin, end in spans}


@pytest.fixture
def course() -> Course:
    """A chain of three rounds, and two retrainings: of its second round and its rewind point."""
    chain = _chain("a", 1, 2, 3, 4)
    late = _stage("retraining", "ax", [chain[0], chain[2]], work=5, number=1)
    early = _stage("retraining", "ay", chain[:1], work=2, number=2)
    return _course(_plan(*chain, late, early))


def test_one_slot_does_one_after_the_other(course: Course) -> None:
    walk = course.walk(1)
    chain = {"ar": (0, 1), "a0": (1, 3), "a1": (3, 6), "a2": (6, 10)}
    assert _times(walk) == {**chain, "ax": (10, 15), "ay": (15, 17)}
    assert (walk.wall, walk.idle, walk.speed_up) == (17, 0, 1)
    assert not walk.is_bound_by_path


@pytest.mark.parametrize("slots", [2, 3])
def test_with_two_slots_or_more_it_waits_for_its_longest_path(course: Course, slots: int) -> None:
    walk = course.walk(slots)
    chain = {"ar": (0, 1), "a0": (1, 3), "a1": (3, 6), "a2": (6, 10)}
    assert _times(walk) == {**chain, "ax": (6, 11), "ay": (1, 3)}
    assert (walk.wall, walk.most) == (11, 2)
    assert walk.idle == pytest.approx(1 - 17 / (11 * slots))
    assert walk.speed_up == pytest.approx(17 / 11)
    assert walk.is_bound_by_path
    assert walk.profile(11) == pytest.approx([1, 2, 2, 1, 1, 1, 2, 2, 2, 2, 1])
    assert walk.profile(1) == pytest.approx([17 / 11])


def test_what_more_slots_cannot_do_is_told(course: Course) -> None:
    assert (course.width, course.enough, course.total, course.length) == (2, 2, 17, 11)
    assert [course.stages[i].params["name"] for i in course.path] == ["ar", "a0", "a1", "ax"]
    first, second = parts_of(course)
    assert (first.told(), first.cost, first.stages) == (
        "a imp, rewind point and rounds 0 to 1, seed 0",
        6,
        3,
    )
    assert (second.told(), second.cost) == ("a reinit, round 1, seed 0", 5)
    assert second.told(dataset=True) == "a reinit on digits, round 1, seed 0"


def test_what_idle_slots_wait_for_is_told(course: Course) -> None:
    # Of two, one is idle from 0 to 1, 3 to 6 and 10 to 11; a third could not be used.
    for slots in (2, 3):
        parts = course.walk(slots).waits()
        assert [(part.told(), part.cost) for part in parts] == [
            ("a imp, rewind point and rounds 0 to 2, seed 0", 4),
            ("a reinit, rounds 1 to 2, seed 0", 1),
        ]
    assert course.walk(1).waits() == []


def test_idle_slots_wait_for_what_something_comes_after() -> None:
    chain = _chain("a", 1, 2, 3)
    first = _stage("retraining", "bx", chain[:1], work=4)
    late = [_stage("retraining", f"c{i}", [chain[0], chain[2]], work=2) for i in range(3)]
    walk = _course(_plan(*chain, first, *late)).walk(3)
    # The chain ends at 6, bx goes from 1 to 5, the others from 6 to 8: of three slots two are idle
    # until 1, one until 5, and two until 6. None waits for bx.
    (part,) = walk.waits()
    assert (part.axes["network"], part.cost) == ("a", 2 + 4 + 2)


def test_seeds_wait_together() -> None:
    chains = [_chain(f"a{seed}", 1, 2, seed=seed) for seed in (3, 4, 5, 6)]
    walk = _course(_plan(*itertools.chain(*chains))).walk(3)  # 3 of 3, then 1 of 3
    (part,) = walk.waits()
    assert (part.told(), part.cost) == ("a imp, rewind point and round 0, seeds 3 to 6", 6)


def test_what_is_finished_takes_no_time(course: Course) -> None:
    built = _plan(*course.stages)
    done = [stage.key for stage in course.stages if stage.params["name"] in ("ar", "a0", "a1")]
    walk = _course(built, done).walk(2)
    assert _times(walk) == {"ax": (0, 5), "a2": (0, 4), "ay": (4, 6)}
    nothing = _course(built, list(built.stages)).walk(2)
    assert (nothing.wall, nothing.idle, nothing.speed_up, nothing.most) == (0, 0, 1, 0)
    assert (nothing.course.width, nothing.course.enough, nothing.course.path) == (0, 0, ())
    assert (nothing.waits(), nothing.profile(2)) == ([], [0, 0])


def test_each_job_takes_its_launch_before_its_first_stage(course: Course) -> None:
    walk = _course(_plan(*course.stages), launch=10).walk(1)
    assert _times(walk)["a0"] == (11, 13)
    assert walk.wall == 17 + 3 * 10  # a chain is one job


def test_there_is_a_slot(course: Course) -> None:
    with pytest.raises(ValueError, match="with 0 slots"):
        course.walk(0)


# As the driver has it


def _by_driver(
    built: Plan, costs: Mapping[str, float], slots: int, done: Collection[str], again: set[str]
) -> dict[str, float]:
    """When each stage begins, of the schedule that the driver's search walks through."""
    found = Schedule(built, done, {}, again=again, slots=slots)
    begins: dict[str, float] = {}
    running: list[tuple[float, int, Job, int]] = []
    now, number = 0.0, itertools.count()

    def begin(trial: int, job: Job, at: int) -> None:
        stage = job.stages[at]
        begins[stage.key] = now
        heapq.heappush(running, (now + costs[stage.key], trial, job, at))

    while True:
        while (job := found.take(str(trial := next(number)))) is not None:
            begin(trial, job, 0)
        if not running:
            assert found.is_over
            return begins
        now = running[0][0]
        while running and running[0][0] <= now:
            _, trial, job, at = heapq.heappop(running)
            found.advance(str(trial), at + 1, 0.0, None)
            if at + 1 < len(job.stages):
                begin(trial, job, at + 1)
            else:
                assert found.end(str(trial)) is None


@st.composite
def _plans(draw: st.DrawFn) -> tuple[Plan, dict[str, float]]:
    works = st.integers(0, 4)
    stages: list[Stage] = []
    for name in "abc"[: draw(st.integers(1, 3))]:
        chain = _chain(name, *draw(st.lists(works, min_size=1, max_size=5)))
        stages += chain
        for i, parent in enumerate(draw(st.lists(st.sampled_from(chain), max_size=4))):
            stages.append(_stage("retraining", f"{name}x{i}", [parent], draw(works)))
    built = _plan(*stages)
    return built, {key: float(draw(works)) for key in built.stages}


@QUICK
@given(_plans(), st.integers(1, 5), st.data())
def test_any_plan_is_walked_as_the_driver_does_it(
    plan_and_costs: tuple[Plan, dict[str, float]], slots: int, data: st.DataObject
) -> None:
    built, costs = plan_and_costs
    keys = sorted(built.stages)
    done = data.draw(st.sets(st.sampled_from(keys)))
    again = data.draw(st.sets(st.sampled_from(keys))) - done
    walk = Course(built, done, costs, again=again).walk(slots)
    found = {stage.key: at for stage, at in zip(walk.course.stages, walk.begins, strict=True)}
    assert found == _by_driver(built, costs, slots, done, again)


@QUICK
@given(_plans(), st.integers(1, 5))
def test_any_walk_is_within_the_bounds(
    plan_and_costs: tuple[Plan, dict[str, float]], slots: int
) -> None:
    built, costs = plan_and_costs
    course = Course(built, (), costs)
    walk, shared = course.walk(slots), course.total / slots
    assert max(shared, course.length) - 1e-9 <= walk.wall <= shared + course.length + 1e-9
    assert walk.most <= min(slots, course.width)
    assert course.walk(1).wall == pytest.approx(course.total)
    assert course.walk(course.width).wall == pytest.approx(course.length)
    assert course.walk(course.enough).wall <= 1.01 * course.length + 1e-9
    ends = dict(zip((s.key for s in course.stages), walk.ends, strict=True))
    for stage, begin in zip(course.stages, walk.begins, strict=True):
        assert all(ends[parent] <= begin for parent in stage.parents)
    assert sum(walk.profile(7)) * walk.wall / 7 == pytest.approx(course.total)
    idle = min(slots, course.width) * walk.wall - course.total
    assert sum(part.cost for part in walk.waits()) == pytest.approx(idle, abs=1e-9)
