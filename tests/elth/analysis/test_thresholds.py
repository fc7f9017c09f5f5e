"""Pruning thresholds by hand, and as the pruning itself has them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elth import masks
from elth.analysis import Subject, measure, pruning_threshold
from elth.criteria import keep_highest, magnitude
from elth.data import info
from elth.errors import ElthError
from elth.masks import nonzeros
from elth.networks import build
from elth.recipes import Recipe, Step
from elth.specs import Spec
from tests.elth.analysis.helpers import drawn, drawn_mask, flat, keeps, one


def test_by_hand() -> None:
    """Magnitudes 1 to 10, of which 8 are kept: 1 and 2 are pruned."""
    state, mask = one(3, -1, 4, 10, -5, 9, 2, 6, -8, 7), keeps(*[1] * 10)
    found = pruning_threshold(state, mask, pruned=2)
    assert found.plain() == {"value": 2.0, "pruned": 2, "candidates": 10, "tied": 0}
    left = keep_highest(magnitude(state, mask), mask, 8)
    assert state["w"][~left["w"]].abs().sort().values.tolist() == [1, 2]


def test_of_ties_the_count_decides() -> None:
    state, mask = one(2, -2, 1, 2, 5), keeps(1, 1, 1, 1, 1)
    found = pruning_threshold(state, mask, pruned=2)
    assert (found.value, found.tied) == (2, 2)
    assert pruning_threshold(state, mask, pruned=4).tied == 0
    assert nonzeros(keep_highest(magnitude(state, mask), mask, 3)) == 3


def test_what_is_pruned_already_does_not_count() -> None:
    found = pruning_threshold(one(0, 0, 3, 1, 2), keeps(0, 0, 1, 1, 1), pruned=1)
    assert (found.value, found.candidates) == (1, 3)


def test_unpruned_weights_do_not_count() -> None:
    state = {"a": torch.tensor([1.0, 4.0]), "b": torch.tensor([2.0, 3.0])}
    mask = {name: torch.ones(2) == 1 for name in state}
    found = pruning_threshold(state, mask, pruned=1, unpruned=("a",))
    assert (found.value, found.candidates) == (2, 2)


def test_no_pruning_has_no_threshold() -> None:
    found = pruning_threshold(one(1, 2), keeps(1, 1), pruned=0)
    assert math.isnan(found.value)
    assert found.plain()["value"] is None
    assert pruning_threshold(one(1, 2), keeps(1, 1), pruned=2).value == 2
    assert pruning_threshold(one(1, math.nan), keeps(1, 1), pruned=1).plain()["value"] is None


def test_where_no_further_pruning_is_possible_there_is_none() -> None:
    """A head of 1,000 weights that is left whole, and besides it 256 weights, or one."""
    network, shape = Spec.parse("mlp1(width=4)"), info("digits").shape
    made = build(network, shape, 0)
    state, few, many = made.state_dict(), masks.ones(made), masks.ones(made)
    for mask, left in ((few, 1), (many, 256)):
        first, *others = (name for name in mask if name not in made.anatomy.unpruned)
        mask[first].view(-1)[left:] = False
        for name in others:
            mask[name].fill_(False)
    recipe = Recipe(length=Step(1, "ep"), rewind=Step(0, "ep"), batch_size=32, lr=0.1)
    subjects = [
        Subject(network=network, shape=shape, mask=mask, trained=state, start=state, recipe=recipe)
        for mask in (many, few)
    ]
    steps = measure("thresholds", subjects, {})
    assert next(steps) == (0, {})
    with pytest.raises(StopIteration) as end:
        next(steps)
    found = [(one["kept"], one["pruned"], one["value"]) for one in end.value.value["rounds"]]
    assert found[0][:2] == (1256, 252)
    assert found[0][2] > 0
    assert found[1] == (1001, 0, None)


@given(st.integers(0, 10**6), st.integers(1, 30))
def test_it_is_the_largest_that_the_pruning_removes(seed: int, pruned: int) -> None:
    state, mask = drawn(seed), drawn_mask(seed, 0.7)
    found = pruning_threshold(state, mask, pruned=pruned)
    left = keep_highest(magnitude(state, mask), mask, nonzeros(mask) - pruned)
    weights, kept = flat(state, mask)
    _, still = flat(state, left)
    assert found.value == abs(weights[kept & ~still]).max() <= abs(weights[still]).min()
    assert found.candidates == int(kept.sum())


def test_it_is_exact_for_float32() -> None:
    state = {"w": torch.tensor([0.1, 0.2])}
    assert pruning_threshold(state, keeps(1, 1), pruned=1).value == float(state["w"][0])


def test_impossible_counts_are_refused() -> None:
    for pruned in (-1, 3):
        with pytest.raises(ElthError, match=f"cannot prune {pruned} weights: 2 are there to be"):
            pruning_threshold(one(1, 2), keeps(1, 1), pruned=pruned)
    with pytest.raises(ElthError, match="unknown unpruned weight 'v'"):
        pruning_threshold(one(1, 2), keeps(1, 1), pruned=1, unpruned=("v",))
