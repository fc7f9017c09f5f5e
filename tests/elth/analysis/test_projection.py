"""What a pruning takes away, by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch

from elth.analysis import norm_removed
from elth.errors import ElthError
from elth.masks import apply
from tests.elth.analysis.helpers import drawn, flat, keeps, nested, one


def test_by_hand() -> None:
    """Of (3, 4, 12) the 3 goes, of norm 13; what was pruned before counts in neither."""
    found = norm_removed(one(3, 4, 12, 100), keeps(1, 1, 1, 0), keeps(0, 1, 1, 0))
    assert (found.norm, found.whole) == (3, 13)
    assert found.relative == 3 / 13
    assert found.layers == {"w": 3 / 13}


def test_it_is_the_distance_to_the_projection() -> None:
    state, (mask, sparser) = drawn(0), nested(0, 2)
    (before, _), (after, _) = (flat(apply(m, state), m) for m in (mask, sparser))
    expected = math.sqrt(((before - after) ** 2).sum() / (before**2).sum())
    assert norm_removed(state, mask, sparser).relative == pytest.approx(expected, rel=1e-12)


def test_what_the_next_mask_keeps_beyond_is_not_looked_at() -> None:
    found = norm_removed(one(3, 4), keeps(1, 0), keeps(1, 1))
    assert (found.norm, found.whole) == (0, 3)


def test_of_zeros_nothing_is_a_part() -> None:
    state = {"a": torch.zeros(2), **one(1, 2)}
    masks = {"a": torch.ones(2) == 1, **keeps(1, 1)}
    found = norm_removed(state, masks, {**masks, **keeps(0, 0)}).plain()
    assert found["layers"] == {"a": None, "w": 1.0}
    assert found["relative"] == 1
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    nothing = norm_removed(one(0, 0), keeps(1, 1), keeps(1, 0))
    assert math.isnan(nothing.relative)


def test_masks_of_two_networks_are_refused() -> None:
    with pytest.raises(ElthError, match="mask 0 names 'w', which mask 1 lacks"):
        norm_removed(one(1), keeps(1), {})
