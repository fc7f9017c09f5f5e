"""How long a plan takes, by steps that were timed."""

from __future__ import annotations

import pytest

from orchestrator import plan
from orchestrator.plan.estimating import (
    Trained,
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
