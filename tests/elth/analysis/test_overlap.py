"""Overlap of masks by hand, and of independent ones."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elth.analysis import mask_overlap
from elth.controls import shuffle_layerwise
from elth.errors import ElthError
from tests.elth.analysis.helpers import drawn_mask, keeps, nested


def test_by_hand() -> None:
    found = mask_overlap(keeps(1, 1, 0, 0), keeps(1, 0, 1, 0)).pooled
    assert (found.both, found.either) == (1, 3)
    assert found.iou == 1 / 3
    assert found.expected == 1 / 3  # .25 / .75
    assert found.excess == 0


def test_chance_goes_by_layer() -> None:
    """A layer that both keep whole is no agreement: I = 4 + .25 * 4, E = 5 / (6 + 6 - 5)."""
    a = {"a": torch.ones(4) == 1, **keeps(1, 1, 0, 0)}
    b = {"a": torch.ones(4) == 1, **keeps(1, 1, 0, 0)}
    found = mask_overlap(a, b)
    assert found.pooled.iou == 1
    assert found.pooled.expected == 5 / 7
    assert found.pooled.excess == pytest.approx(1)
    assert found.layers["a"].plain() == {
        "iou": 1.0,
        "expected": 1.0,
        "excess": None,
        "both": 4,
        "either": 4,
    }
    assert found.layers["w"].expected == 1 / 3


def test_of_nothing_there_is_no_overlap() -> None:
    found = mask_overlap(keeps(0, 0), keeps(0, 0)).pooled
    assert math.isnan(found.iou)
    assert math.isnan(found.expected)
    assert math.isnan(found.excess)
    apart = mask_overlap(keeps(1, 0), keeps(0, 0)).pooled
    assert (apart.iou, apart.expected, apart.excess) == (0, 0, 0)


@given(st.integers(0, 10**6))
def test_properties(seed: int) -> None:
    a, b = drawn_mask(seed, 0.5), drawn_mask(seed + 1, 0.3)
    found = mask_overlap(a, b)
    assert mask_overlap(b, a) == found
    assert found.pooled.both == sum(layer.both for layer in found.layers.values())
    assert found.pooled.either == sum(layer.either for layer in found.layers.values())
    assert mask_overlap(a, a).pooled.excess == pytest.approx(1)
    dense, sparse = nested(seed, 2)
    kept = [sum(int(m.sum()) for m in mask.values()) for mask in (dense, sparse)]
    assert mask_overlap(dense, sparse).pooled.iou == kept[1] / kept[0]


def test_independent_masks_have_no_excess() -> None:
    mask = drawn_mask(0, 0.3, sides=100)
    found = mask_overlap(mask, shuffle_layerwise(mask, 1)).pooled
    assert found.excess == pytest.approx(0, abs=0.01)
    assert found.iou > 0.1


def test_plain_is_json() -> None:
    found = mask_overlap(drawn_mask(0, 0.5), drawn_mask(1, 0.0)).plain()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found["layers"]) == ["stem.weight", "fc.weight"]


def test_masks_of_two_networks_are_refused() -> None:
    with pytest.raises(ElthError, match=r"mask 1 of 'w' has shape \(3,\), mask 0 \(2,\)"):
        mask_overlap(keeps(1, 1), keeps(1, 1, 1))
