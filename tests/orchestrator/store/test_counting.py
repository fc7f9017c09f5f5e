"""What a run tells of its cost: that of its own training, absolute and of a dense run."""

from __future__ import annotations

import pytest

from elth.networks import facts
from orchestrator import plan
from orchestrator.plan.flops import images_of
from orchestrator.plan.stage import SPARSE, Stage, shape_of, size_of
from orchestrator.store.counting import FLOPS, flops_of
from tests.orchestrator.helpers import RECIPE, TINY, chain, of_kind, round_result, tiny

INFERENCE, OF_DENSE, TRAINING, OF_RUN = FLOPS


def test_a_chain_of_which_nothing_is_pruned_is_one_dense_run() -> None:
    """The rewind point is its first half here, and round 0 the rest."""
    start, first, *_ = chain()
    numbers = [flops_of(stage, None) for stage in (start, first)]
    assert [one[OF_RUN] for one in numbers] == [0.5, 0.5]
    assert [one[OF_DENSE] for one in numbers] == [1, 1]
    dense = float(facts(TINY, shape_of(start)).cost.inference())
    assert [one[INFERENCE] for one in numbers] == [dense, dense]
    assert sum(one[TRAINING] for one in numbers) == 3 * dense * 2 * size_of(start)


def test_a_round_is_counted_by_its_mask() -> None:
    stage = chain()[2]
    mask = round_result(2_000).mask
    assert mask is not None
    cost = facts(TINY, shape_of(stage)).cost
    sparse = float(cost.inference({name: int(one.sum()) for name, one in mask.items()}))
    dense = float(cost.inference())
    numbers = flops_of(stage, mask)
    assert numbers[INFERENCE] == sparse
    assert numbers[OF_DENSE] == sparse / dense
    assert numbers[TRAINING] == 3 * sparse * images_of(stage)
    assert numbers[OF_RUN] == pytest.approx(sparse / dense / 2)


def _rigl(**changes: object) -> Stage:
    found = tiny(
        "counted",
        criteria={"rigl": {"every": "5it"}},
        grid=[{"method": "rigl", "network": TINY, "round": 2}],
        **changes,
    )
    return of_kind(plan.build(found), SPARSE)[0]


def test_a_longer_training_is_told_in_runs_of_its_own_length() -> None:
    mask = round_result(2_753).mask
    usual, long = flops_of(_rigl(), mask), flops_of(_rigl(recipe=RECIPE | {"stretch": 5}), mask)
    assert long[TRAINING] == pytest.approx(5 * usual[TRAINING])
    assert long[OF_RUN] == pytest.approx(usual[OF_RUN])
    assert usual[OF_DENSE] < usual[OF_RUN] < 1  # the dense gradient of each update
