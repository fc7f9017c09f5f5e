"""Agreement of signs by hand."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elth.analysis import sign_agreement
from tests.elth.analysis.helpers import drawn, drawn_mask, flat, keeps, one

ALL = keeps(1, 1, 1, 1)


def test_by_hand() -> None:
    found = sign_agreement(one(1, -2, 3, 0), ALL, one(2, 2, -3, 1), ALL).pooled
    assert found.agreement == 1 / 3
    assert (found.compared, found.equal, found.flips) == (3, 1, 2)


def test_what_either_prunes_is_not_compared() -> None:
    given = one(1, 1, 1, 1), keeps(1, 1, 0, 1), one(1, -1, -1, -1), keeps(1, 1, 1, 0)
    found = sign_agreement(*given).pooled
    assert found.plain() == {"agreement": 0.5, "compared": 2, "flips": 1}


def test_what_has_no_sign_is_not_compared() -> None:
    found = sign_agreement(one(math.nan, -0.0, math.inf, 5), ALL, one(1, 1, 2, math.nan), ALL)
    assert found.pooled.plain() == {"agreement": 1.0, "compared": 1, "flips": 0}
    nothing = sign_agreement(one(0), keeps(1), one(1), keeps(1)).pooled
    assert math.isnan(nothing.agreement)
    assert nothing.plain()["agreement"] is None


@given(st.integers(0, 10**6))
def test_properties(seed: int) -> None:
    a, b, masks = drawn(seed), drawn(seed + 1), (drawn_mask(seed, 0.7), drawn_mask(seed + 1, 0.7))
    found = sign_agreement(a, masks[0], b, masks[1])
    assert sign_agreement(b, masks[1], a, masks[0]).pooled == found.pooled
    (x, on_x), (y, on_y) = flat(a, masks[0]), flat(b, masks[1])
    both = on_x & on_y
    assert found.pooled.compared == int(both.sum())
    assert found.pooled.equal == int(((x > 0) == (y > 0))[both].sum())
    layers = found.layers.values()
    assert list(found.layers) == list(masks[0])
    assert found.pooled.flips == sum(layer.flips for layer in layers)
    assert sign_agreement(a, masks[0], a, masks[1]).pooled.agreement == 1
    turned = {name: -weight for name, weight in a.items()}
    assert sign_agreement(a, masks[0], turned, masks[1]).pooled.agreement == 0


def test_of_independent_weights_half_agree() -> None:
    mask = drawn_mask(0, 2.0, sides=100)
    found = sign_agreement(drawn(0, sides=100), mask, drawn(1, sides=100), mask)
    assert found.pooled.agreement == pytest.approx(0.5, abs=0.01)
    plain = found.plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
