"""What the tracker must take, by hand."""

from __future__ import annotations

import pytest

from orchestrator import plan
from orchestrator.plan.loading import load_of, untimed
from orchestrator.plan.walking import Course
from tests.orchestrator.helpers import of_kind, tiny

CALLS = 14

SECONDS = {"rewind_point": 10.0, "round": 30.0}


def _course() -> Course:
    """A rewind point of one epoch, and a chain of rounds of four."""
    recipe = {"length": "4ep", "rewind": "1ep", "batch_size": 64}
    built = plan.build(tiny("loads", recipe=recipe))
    costs = {key: SECONDS.get(stage.kind, 60.0) for key, stage in built.stages.items()}
    return Course(built, (), costs)


def test_the_load_of_a_chain() -> None:
    course = _course()
    (start,) = (stage for stage in course.stages if stage.kind == "rewind_point")
    rounds = [stage for stage in course.stages if stage.kind == "round"]
    assert len(course.stages) == 1 + len(rounds)
    wall = 10 + 30 * len(rounds)
    load = load_of(course.walk(1), (), between=10, beat=15, calls=CALLS)
    assert load.window == min(60, wall)
    told = load.rates
    assert told["stages"].total == 1 + len(rounds)
    assert told["stages"].mean == pytest.approx((1 + len(rounds)) / wall)
    # Three epochs are left after the rewind point: no more batches than these, or than fit.
    assert told["epochs"].total == 1 + 3 * len(rounds)
    assert told["batches"].total == 2 * (1 + len(rounds)) + 1 + 3 * len(rounds)
    assert told["beats"].total == pytest.approx(wall / 15)
    assert told["beats"].peak == pytest.approx(1 / 15)
    kept = sum(plan.stored_bytes(stage) for stage in (start, *rounds))
    assert told["bytes"].total == kept
    own = (CALLS - 2) * (1 + len(rounds))  # beside the first and the last batch
    assert told["calls"].total == told["batches"].total + own  # each sign of life goes along
    rare = load_of(course.walk(1), (), between=29, beat=2, calls=CALLS).rates
    assert rare["batches"].total == 2 * (1 + len(rounds)) + 1 + 2 * len(rounds)
    assert rare["calls"].total == CALLS * (1 + len(rounds)) + wall / 2


def test_a_peak_is_of_the_busiest_minute() -> None:
    built = plan.build(tiny("peaks", seeds=list(range(8))))
    (kind,) = {stage.kind for stage in of_kind(built, "rewind_point")}
    costs = {key: 1.0 if stage.kind == kind else 600.0 for key, stage in built.stages.items()}
    load = load_of(Course(built, (), costs).walk(100), (), between=5, beat=15, calls=CALLS)
    assert load.window == 60
    assert load.rates["stages"].peak == pytest.approx(8 / 60)  # all in the first minute
    assert load.rates["beats"].peak == pytest.approx(8 / 15)


def test_what_is_kept_takes_more() -> None:
    built = plan.build(tiny("kept", grid=[{"method": "random", "network": "resnet20(width=4)"}]))
    course = Course(built, (), dict.fromkeys(built.stages, 1.0))
    key = of_kind(built, "retraining")[0].key
    few = load_of(course.walk(1), (), between=5, beat=15, calls=CALLS).rates["bytes"].total
    many = load_of(course.walk(1), [key], between=5, beat=15, calls=CALLS).rates["bytes"].total
    assert many - few == plan.stored_bytes(built.stages[key], True) - plan.stored_bytes(
        built.stages[key]
    )


def test_without_times_there_are_totals_alone() -> None:
    course = _course()
    known, timed = untimed(course, ()), load_of(course.walk(1), (), between=5, beat=15, calls=CALLS)
    assert known.window is None
    assert list(known.rates) == ["stages", "epochs", "bytes"]
    for name, rate in known.rates.items():
        assert (rate.total, rate.mean, rate.peak) == (timed.rates[name].total, None, None)


def test_nothing_to_do_is_no_load() -> None:
    built = plan.build(tiny("nothing"))
    load = load_of(Course(built, built.stages, {}).walk(4), (), between=5, beat=15, calls=CALLS)
    assert load.window == 0
    assert {rate.total for rate in load.rates.values()} == {0}
    assert {rate.peak for rate in load.rates.values()} == {0}
