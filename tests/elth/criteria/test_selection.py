"""Pruning by an exact count, by hand and against a slow oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elth import masks
from elth.criteria import keep_highest, magnitude
from elth.errors import ElthError
from elth.masks import Mask


def _all(scores: dict[str, Tensor]) -> Mask:
    return {name: torch.ones(score.shape, dtype=torch.bool) for name, score in scores.items()}


def _places(mask: Mask) -> list[str]:
    return [f"{name}{i}" for name, m in mask.items() for i in m.flatten().nonzero()[:, 0].tolist()]


SCORES = {"a": torch.tensor([[3.0, 1.0], [2.0, 2.0]]), "b": torch.tensor([2.0, 5.0, 1.0])}


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (0, ""),
        (1, "b1"),
        (2, "a0 b1"),
        (3, "a0 a2 b1"),  # three weights score 2: the first in the network stays
        (4, "a0 a2 a3 b1"),
        (5, "a0 a2 a3 b0 b1"),
        (6, "a0 a1 a2 a3 b0 b1"),
        (7, "a0 a1 a2 a3 b0 b1 b2"),
    ],
)
def test_ranking_is_global_and_ties_go_by_position(keep: int, expected: str) -> None:
    result = keep_highest(SCORES, _all(SCORES), keep)
    assert _places(result) == expected.split()
    assert {name: m.shape for name, m in result.items()} == {n: s.shape for n, s in SCORES.items()}
    assert all(m.dtype is torch.bool for m in result.values())


def test_a_pruned_weight_never_returns() -> None:
    mask = _all(SCORES)
    mask["b"][1] = False
    assert _places(keep_highest(SCORES, mask, 2)) == ["a0", "a2"]
    assert _places(mask) == ["a0", "a1", "a2", "a3", "b0", "b2"]


def test_unpruned_weights_stay_and_count() -> None:
    mask = _all(SCORES)
    mask["b"][0] = False
    result = keep_highest(SCORES, mask, 3, unpruned=("b",))
    assert _places(result) == ["a0", "b1", "b2"]
    assert result["b"] is not mask["b"]


def test_all_weights_unpruned() -> None:
    assert _places(keep_highest(SCORES, _all(SCORES), 7, unpruned=("a", "b"))) == _places(
        _all(SCORES)
    )


@st.composite
def _cases(draw: st.DrawFn) -> tuple[list[list[int]], list[list[bool]], int]:
    sizes = draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    scores = [draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)) for n in sizes]
    mask = [draw(st.lists(st.booleans(), min_size=n, max_size=n)) for n in sizes]
    return scores, mask, draw(st.integers(0, sum(map(sum, mask))))


@given(_cases())
def test_against_a_sorted_list(case: tuple[list[list[int]], list[list[bool]], int]) -> None:
    scores, before, keep = case
    ranked = sorted(
        (-score, layer, place)
        for layer, row in enumerate(scores)
        for place, score in enumerate(row)
        if before[layer][place]
    )
    expected = {(layer, place) for _, layer, place in ranked[:keep]}
    result = keep_highest(
        {str(i): torch.tensor(row, dtype=torch.float32) for i, row in enumerate(scores)},
        {str(i): torch.tensor(row) for i, row in enumerate(before)},
        keep,
    )
    found = {(int(n), place) for n, m in result.items() for place in m.nonzero()[:, 0].tolist()}
    assert found == expected


def test_rounds_of_magnitude_pruning_keep_the_exact_count() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {n: torch.randn(s, generator=generator) for n, s in (("a", (7, 9)), ("b", (5, 8)))}
    mask = _all(weights)
    everything = torch.cat([w.abs().flatten() for w in weights.values()]).sort().values
    for k in range(1, 8):
        smaller = keep_highest(
            magnitude(weights, mask), mask, masks.kept_after(0.2, 1, masks.nonzeros(mask))
        )
        assert masks.nonzeros(smaller) == masks.kept_after(0.2, k, 103)
        assert all(bool((mask[n] | ~smaller[n]).all()) for n in mask)
        threshold = everything[-masks.nonzeros(smaller)]
        assert all(torch.equal(smaller[n], weights[n].abs() >= threshold) for n in mask)
        mask = smaller


def test_magnitude_is_the_absolute_value_of_masked_layers() -> None:
    weights = {"w": torch.tensor([-2.0, 1.0, -0.0]), "bias": torch.tensor([1.0])}
    scores = magnitude(weights, {"w": torch.tensor([True, False, True])})
    assert list(scores) == ["w"]
    assert scores["w"].tolist() == [2.0, 1.0, 0.0]


def test_an_impossible_count_is_refused() -> None:
    with pytest.raises(ElthError, match="cannot keep 8 weights: 7 are there$"):
        keep_highest(SCORES, _all(SCORES), 8)
    with pytest.raises(ElthError, match="cannot keep -1 weights"):
        keep_highest(SCORES, _all(SCORES), -1)
    with pytest.raises(
        ElthError, match="cannot keep 2 weights: 7 are there, and 3 in b stay whole"
    ):
        keep_highest(SCORES, _all(SCORES), 2, unpruned=("b",))


def test_an_unknown_unpruned_weight_is_refused() -> None:
    scores = {"head.weight": torch.ones(2), "stem.weight": torch.ones(2)}
    with pytest.raises(
        ElthError, match="unknown unpruned weight 'head'; did you mean 'head.weight'?"
    ):
        keep_highest(scores, _all(scores), 3, unpruned=("head",))


def test_scores_that_are_no_numbers_are_refused() -> None:
    scores = {"a": torch.tensor([1.0, float("nan")])}
    with pytest.raises(ElthError, match="score is not a number; the trained weights are not fin"):
        keep_highest(scores, _all(scores), 1)
    # Where the mask is already zero it does not matter.
    keep_highest(scores, {"a": torch.tensor([True, False])}, 1)


@pytest.mark.parametrize(
    ("mask", "keep", "told"),
    [
        # A mask of the first axes alone would choose whole rows.
        ({"a": torch.ones(2, dtype=torch.bool)}, 1, r"'a' is of shape \(2,\), and its scores of"),
        ({"a": torch.ones(2, 2)}, 1, r"the mask of 'a' is of torch.float32; expected booleans"),
        ({"c": torch.ones(2, dtype=torch.bool)}, 1, "names 'c', which has no score"),
        ({"a": torch.ones(2, 2, dtype=torch.bool)}, 2.0, r"keep is a number of weights.*found 2.0"),
    ],
    ids=str,
)
def test_a_mask_that_does_not_fit_its_scores_is_refused(mask: Mask, keep: Any, told: str) -> None:
    with pytest.raises(ElthError, match=told):
        keep_highest(SCORES, mask, keep)
