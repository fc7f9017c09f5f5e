"""How long a plan takes, by steps that were timed."""

from __future__ import annotations

import pytest

from orchestrator import plan
from orchestrator.plan.estimating import (
    Trained,
    costs_by_finished,
    costs_by_steps,
    epochs,
    known_steps,
    pace,
    seconds_of,
    step_of,
    trained,
)
from tests.orchestrator.helpers import TINY, TINY_DEEPER, of_kind, tiny


def test_a_stage_takes_its_iterations_and_a_look_after_each_epoch() -> None:
    built = plan.build(tiny("timed"))
    (start,) = of_kind(built, "rewind_point")
    dense = of_kind(built, "round")[0]
    # 1,297 images in batches of 64: 21 iterations an epoch; 500 test images are 2.604 batches.
    assert seconds_of(start, 0.1) == pytest.approx(0.2 + 0.1 * (21 + 500 / 64 / 3))
    assert seconds_of(dense, 0.1) == pytest.approx(0.2 + 0.1 * (21 + 500 / 64 / 3))
    longer = plan.build(tiny("longer", recipe={"length": "4ep", "rewind": "5it", "batch_size": 64}))
    dense = of_kind(longer, "round")[0]
    assert seconds_of(dense, 0.1) == pytest.approx(0.2 + 0.1 * (79 + 4 * 500 / 64 / 3))


def test_pace_is_of_what_was_timed() -> None:
    grid = [{"method": "imp", "network": [TINY, TINY_DEEPER]}]
    stages = list(plan.build(tiny("two", grid=grid)).stages.values())
    first, second = trained(stages)
    assert (first.network, second.network) == (TINY, TINY_DEEPER)
    assert pace(stages, {}) is None
    own = [stage for stage in stages if stage.params["network"] == TINY]
    known = pace(stages, {first: 0.1})
    assert known is not None
    assert not known[1]
    whole = sum(seconds_of(stage, 0.1) for stage in own)
    assert known[0] == pytest.approx(whole / sum(plan.work(stage) for stage in own))
    both = pace(stages, {first: 0.1, second: 0.2})
    assert both is not None
    assert both[1]


def test_a_step_is_found_by_what_it_depends_on() -> None:
    stages = list(plan.build(tiny("kept")).stages.values())
    (what,) = trained(stages)
    step_of(stages[0], threads=2).keep(0.25)

    def known(threads: int, device: str = "cpu", *, compiled: bool = False) -> dict[Trained, float]:
        fast = {what: compiled}
        return known_steps(stages, threads=threads, device=device, compiled=fast)

    assert known(2) == {what: 0.25}
    assert known(2, compiled=True) == {what: 0.25}  # until it was timed so
    assert known(1) == {}
    assert known(2, "cuda") == {}
    step_of(stages[0], threads=2, compiled=True).keep(0.125)
    assert known(2, compiled=True) == {what: 0.125}
    assert known(2) == {what: 0.25}


def test_epochs_of_stages() -> None:
    built = plan.build(tiny("ep", recipe={"length": "4ep", "rewind": "25it", "batch_size": 64}))
    (start,) = of_kind(built, "rewind_point")
    assert epochs(start) == 2  # 21 iterations, and 4
    assert epochs(of_kind(built, "round")[0]) == 3  # the rest of the second, and two


def test_stages_cost_what_their_steps_take() -> None:
    grid = [{"method": "imp", "network": [TINY, TINY_DEEPER]}]
    stages = list(plan.build(tiny("costs", grid=grid)).stages.values())
    first, second = trained(stages)
    assert costs_by_steps(stages, {}) is None
    found = costs_by_steps(stages, {first: 0.1, second: 0.5})
    assert found is not None
    assert found.is_whole
    for stage in stages:
        step = 0.1 if stage.params["network"] == TINY else 0.5
        assert found.seconds[stage.key] == pytest.approx(seconds_of(stage, step))
    part = costs_by_steps(stages, {first: 0.1})
    known = pace(stages, {first: 0.1})
    assert part is not None
    assert known is not None
    assert not part.is_whole
    deeper = next(stage for stage in stages if stage.params["network"] == TINY_DEEPER)
    assert part.seconds[deeper.key] == pytest.approx(known[0] * plan.work(deeper))


def test_stages_cost_what_finished_ones_took() -> None:
    grid = [{"method": "imp", "network": [TINY, TINY_DEEPER]}]
    built = plan.build(tiny("took", grid=grid))
    stages = list(built.stages.values())
    mine = [stage for stage in of_kind(built, "round") if stage.params["network"] == TINY]
    start = of_kind(built, "rewind_point")[0]
    assert costs_by_finished(stages, []) is None
    assert costs_by_finished(stages, [(start, 99.0)]) is None  # it tells nothing
    own = plan.work(mine[0])
    part = costs_by_finished(stages, [(start, 99.0), (mine[0], 3 * own), (mine[0], 5 * own)])
    assert part is not None
    assert not part.is_whole
    assert all(part.seconds[s.key] == pytest.approx(4 * plan.work(s)) for s in stages)
    other = next(s for s in of_kind(built, "round") if s.params["network"] == TINY_DEEPER)
    whole = costs_by_finished(stages, [(mine[0], 3 * own), (other, 7 * plan.work(other))])
    assert whole is not None
    assert whole.is_whole
    for stage in stages:
        ratio = 3 if stage.params["network"] == TINY else 7
        assert whole.seconds[stage.key] == pytest.approx(ratio * plan.work(stage))
