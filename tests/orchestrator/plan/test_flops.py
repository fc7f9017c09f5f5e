"""Operations of stages, against sums that are done here by hand."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from elth.dynamic import ramp
from elth.networks import facts
from elth.recipes import Recipe
from orchestrator import plan
from orchestrator.plan.flops import dense_run, images_of, operations
from orchestrator.plan.stage import SPARSE, Stage, info_of, shape_of
from tests.orchestrator.helpers import TINY, of_kind, tiny

IMAGES = 1297
"""Of digits, in 21 iterations of 64."""


def _stage(method: str, **settings: Any) -> Stage:
    found = tiny(
        "flops",
        grid=[{"method": method, "network": TINY, "round": 2}],
        criteria={method: settings} if settings else {},
    )
    return of_kind(plan.build(found), SPARSE)[0]


def _kept(stage: Stage) -> dict[str, int]:
    """A quarter of each layer."""
    return {n: s // 4 for n, s in facts(TINY, shape_of(stage)).sizes.items()}


def test_images_are_those_that_are_shown() -> None:
    built = plan.build(tiny("flops", recipe={"length": "50it", "rewind": "25it", "batch_size": 64}))
    (start,), (first, *_) = of_kind(built, "rewind_point"), of_kind(built, "round")
    assert images_of(start) == IMAGES + 4 * 64
    assert images_of(first) == 2 * IMAGES + 8 * 64 - images_of(start)


def test_a_dense_run_is_the_rewind_point_and_round_0() -> None:
    built = plan.build(tiny("flops"))
    (start,), (first, *_) = of_kind(built, "rewind_point"), of_kind(built, "round")
    info = info_of("digits")
    cost = facts(TINY, info.shape).cost
    run = dense_run(cost, first.recipe, info.train_size)
    parts = [operations(stage, None).training for stage in (start, first)]
    assert sum(parts) == pytest.approx(run)
    assert run == 3 * float(cost.inference()) * 2 * IMAGES
    long = Recipe.of({**first.recipe.plain(), "length": "20ep"})
    assert dense_run(cost, long, info.train_size) == pytest.approx(10 * run)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("static", {}),
        ("set", {"every": "5it"}),
        ("snfs", {"every": "5it"}),
        ("rigl", {"every": "5it"}),
        ("gmp", {"every": "3it", "begin": 0.25, "end": 0.5}),
        ("dpf", {"every": "4it", "end": 0.5}),
        ("dpf", {"every": "4it", "end": 1.0}),
    ],
)
def test_a_sparse_training(method: str, settings: dict[str, Any]) -> None:
    stage = _stage(method, **settings)
    kept = _kept(stage)
    cost = facts(TINY, shape_of(stage)).cost
    sparse, dense = cost.inference(kept), cost.inference()
    found = operations(stage, kept)
    assert (found.inference, found.dense) == (float(sparse), float(dense))
    each = {
        "static": 3 * sparse,
        "set": 3 * sparse,
        "snfs": 2 * sparse + dense,
        "rigl": (17 * sparse + dense) / 6,
    }
    if method in each:
        assert found.training == pytest.approx(float(each[method]) * 2 * IMAGES)
        return
    begin, end = (10 if method == "gmp" else 0), min(int(settings["end"] * 42), 41)
    every, done, total = int(settings["every"][0]), Fraction(0), Fraction(0)
    for t in range(42):
        if t == end or (begin <= t < end and t % every == 0):
            done = ramp(t, begin, end)
        total += done
    mean = dense - total / 42 * (dense - sparse)
    by_hand = 3 * mean if method == "gmp" else 2 * mean + dense
    assert found.training == pytest.approx(float(by_hand) * 2 * IMAGES)
    if method == "dpf":
        other = operations(stage, kept, dpf="elth")
        assert other.training == pytest.approx(float(mean + 2 * dense) * 2 * IMAGES)
