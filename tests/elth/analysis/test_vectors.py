"""The vector of all prunable weights: its order, its parts, and what does not fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from elth.analysis import _vectors, angular
from elth.analysis._vectors import parts, surviving
from elth.errors import ElthError
from tests.elth.analysis.helpers import drawn, drawn_mask, flat, keeps, one


@pytest.mark.parametrize("values", [2, 7, 2**22])
def test_the_parts_are_the_whole(monkeypatch: pytest.MonkeyPatch, values: int) -> None:
    monkeypatch.setattr(_vectors, "_VALUES", values)
    states, masks = [drawn(0), drawn(1)], [drawn_mask(0, 0.5), drawn_mask(1, 0.5)]
    found = list(parts(states, masks))
    assert max(weights.numel() for weights, _ in found) <= max(values, 2)
    whole, kept = (torch.cat(some, 1) for some in zip(*found, strict=True))
    assert whole.dtype is torch.float64
    for row, (state, mask) in enumerate(zip(states, masks, strict=True)):
        weights, keep = flat(state, mask)
        assert whole[row].tolist() == (weights * keep).tolist()
        assert kept[row].tolist() == keep.tolist()


def test_the_order_is_that_of_names_and_positions() -> None:
    state, mask = drawn(0), drawn_mask(0, 0.5)
    turned = dict(reversed(mask.items()))
    strange = {n: t.T.contiguous().T if t.dim() == 2 else t for n, t in state.items()}
    again = list(parts([strange, state], [mask, turned]))
    assert all(torch.equal(weights[0], weights[1]) for weights, _ in again)


def test_what_is_pruned_is_zero_whatever_it_was() -> None:
    ((weights, _),) = parts([one(1.0, float("nan"), float("inf"))], [keeps(1, 0, 0)])
    assert weights.tolist() == [[1.0, 0.0, 0.0]]


def test_surviving() -> None:
    found = surviving({"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, {"w": torch.eye(2) == 1}, "w")
    assert found.dtype is torch.float64
    assert found.tolist() == [1, 4]


@pytest.mark.parametrize(
    ("state", "mask", "message"),
    [
        ({}, keeps(1, 1), "the mask names 'w', which weights 1 lack"),
        (one(1, 2, 3), keeps(1, 1), r"'w' of weights 1 has shape \(3,\), its mask \(2,\)"),
        (
            one(1, 2, 3),
            keeps(1, 1, 1),
            r"mask 1 of 'w' has shape \(3,\), mask 0 \(2,\): they must be of one network",
        ),
        (one(1, 2), {}, "mask 0 names 'w', which mask 1 lacks: they must be of one network"),
        (
            {**one(1, 2), "v": torch.ones(1)},
            {**keeps(1, 1), "v": torch.ones(1) == 1},
            "mask 1 names 'v', which mask 0 lacks: they must be of one network",
        ),
        (one(1, 2), one(1, 0), "mask 1 of 'w' must be boolean, found torch.float64"),
    ],
)
def test_what_does_not_fit_is_named(
    state: dict[str, Tensor], mask: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(ElthError, match=f"^{message}$"):
        angular(one(1, 2), keeps(1, 1), state, mask)


def test_each_network_has_its_mask() -> None:
    for states in ([], [one(1), one(2)]):
        with pytest.raises(ElthError, match=rf"weights of {len(states)} networks and 1 masks"):
            list(parts(states, [keeps(1)]))
