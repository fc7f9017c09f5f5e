"""Distances by hand, by their properties, and against slow code in numpy."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elth.analysis import (
    Distance,
    angular,
    cosine_similarity,
    distance,
    distance_matrices,
    l2_full,
    l2_shared,
)
from elth.masks import Mask
from tests.elth.analysis.helpers import Array, drawn, drawn_mask, flat, keeps, nested, one

seeds = st.integers(0, 10**6)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [((1, 0), (0, 1), 1.0), ((1, 0), (1, 1), 0.5), ((1, 0), (-2, 0), 2.0), ((1, 2), (1, 2), 0.0)],
)
def test_angles_by_hand(a: tuple[float, ...], b: tuple[float, ...], expected: float) -> None:
    found = angular(one(*a), keeps(1, 1), one(*b), keeps(1, 1))
    assert found == pytest.approx(expected, abs=1e-15)


def test_the_angle_is_that_of_the_weights_that_both_keep() -> None:
    found = angular(one(3, 4, 100), keeps(1, 1, 1), one(6, 8, 0), keeps(1, 1, 0))
    assert found == 0


def test_a_small_angle_of_float32() -> None:
    """arccos in float32 gives 0; 2e-6 / pi is what it is."""
    a, b = ({"w": torch.tensor(values)} for values in ([1.0, 0.0], [1.0, 1e-6]))
    assert a["w"].dtype is torch.float32
    assert math.acos(float(torch.cosine_similarity(a["w"], b["w"], dim=0))) == 0
    found = angular(a, keeps(1, 1), b, keeps(1, 1))
    assert found == pytest.approx(6.3662e-7, rel=1e-5)
    assert found == pytest.approx(2 / math.pi * float(np.float32(1e-6)), rel=1e-12)
    matrices = distance_matrices([a, b], [keeps(1, 1)] * 2)
    assert float(matrices.angular[0, 1]) == found


def test_cosine_and_euclidean_by_hand() -> None:
    given = one(3, 4, 12), keeps(1, 1, 1), one(3, 0, 0), keeps(1, 0, 0)
    assert cosine_similarity(*given) == 1
    assert l2_shared(*given) == 0
    assert l2_full(*given) == pytest.approx(math.sqrt(160), rel=1e-15)
    assert round(l2_full(*given), 3) == 12.649


def test_what_is_not_defined_is_not_a_number() -> None:
    apart = distance(one(1, 2), keeps(1, 0), one(3, 4), keeps(0, 1))
    assert math.isnan(apart.angular)
    assert math.isnan(apart.cosine)
    assert math.isnan(apart.l2_shared)
    assert apart.l2_full == pytest.approx(math.sqrt(17))
    zero = distance(one(0, 2), keeps(1, 1), one(3, 4), keeps(1, 0))
    assert math.isnan(zero.angular)
    assert math.isnan(zero.cosine)
    assert zero.l2_shared == 3
    assert zero.l2_full == pytest.approx(math.sqrt(13))
    assert zero.plain() == {
        "angular": None,
        "cosine": None,
        "l2_shared": 3.0,
        "l2_full": zero.l2_full,
    }


def test_weights_that_diverged_are_at_no_distance() -> None:
    for value in (math.nan, math.inf):
        apart = distance(one(value, 2), keeps(1, 1), one(3, 4), keeps(1, 1))
        assert all(not math.isfinite(number) for number in vars(apart).values())
        assert set(apart.plain().values()) == {None}


def test_a_chain_that_does_not_move() -> None:
    """Learning rate 0, three rounds: everything is 0, the initialisation's row too."""
    initial, masks = drawn(0, sides=20), nested(0, 3, sides=20)
    states = [{n: initial[n] * m for n, m in mask.items()} for mask in masks]
    found = distance_matrices(states, masks, initial=initial)
    assert found.angular.shape == (4, 4)
    assert not bool(found.angular.any())
    assert not bool(found.l2_shared.any())
    assert torch.allclose(found.cosine, torch.ones(4, 4, dtype=torch.float64), rtol=1e-15)
    kept = [sum(int(m.sum()) for m in mask.values()) for mask in masks]
    assert found.kept == (*kept, found.total)
    assert found.total == sum(m.numel() for m in masks[0].values())


def _slowly(
    a: Mapping[str, Tensor], mask_a: Mask, b: Mapping[str, Tensor], mask_b: Mask
) -> dict[str, float]:
    """From the definitions, by numpy."""
    (x, on_x), (y, on_y) = flat(a, mask_a), flat(b, mask_b)
    both = on_x & on_y
    u: Array = x[both]
    v: Array = y[both]
    cosine = float(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)))
    return {
        "angular": 2 / math.pi * math.acos(max(-1.0, min(1.0, cosine))),
        "cosine": cosine,
        "l2_shared": float(np.linalg.norm(u - v)),
        "l2_full": float(np.linalg.norm(x * on_x - y * on_y)),
    }


@given(seeds, st.floats(0.3, 1), st.floats(0.3, 1), st.sampled_from([1.0, 1e-3]))
def test_against_slow_code(seed: int, density_a: float, density_b: float, far: float) -> None:
    """Masks that are not nested, as of two seeds; weights far apart, and near."""
    a, noise = drawn(seed), drawn(seed + 1)
    b = {name: weight + far * noise[name] for name, weight in a.items()}
    masks = drawn_mask(seed, density_a), drawn_mask(seed + 1, density_b)
    found = distance(a, masks[0], b, masks[1])
    assert vars(found) == pytest.approx(_slowly(a, masks[0], b, masks[1]), rel=1e-9, abs=1e-10)


@given(seeds)
def test_symmetry_and_scale(seed: int) -> None:
    a, b, masks = drawn(seed), drawn(seed + 1), nested(seed, 2)
    forth = distance(a, masks[0], b, masks[1])
    assert vars(distance(b, masks[1], a, masks[0])) == pytest.approx(vars(forth), rel=1e-12)
    longer = {name: 3e4 * weight for name, weight in b.items()}
    scaled = distance(a, masks[0], longer, masks[1])
    assert scaled.angular == pytest.approx(forth.angular, rel=1e-7)
    opposite = {name: -weight for name, weight in b.items()}
    turned = distance(a, masks[0], opposite, masks[1])
    assert turned.angular == pytest.approx(2 - forth.angular, rel=1e-12)
    assert turned.cosine == pytest.approx(-forth.cosine, rel=1e-12)


@given(seeds)
def test_of_a_nested_mask_the_sparser_decides(seed: int) -> None:
    a, b, masks = drawn(seed), drawn(seed + 1), nested(seed, 3)
    sparse = masks[2]
    expected = distance(a, sparse, b, sparse)
    found = distance(a, masks[0], b, sparse)
    assert found.angular == expected.angular
    assert found.l2_shared == expected.l2_shared == expected.l2_full <= found.l2_full


@pytest.mark.parametrize("far", [1.0, 1e-2, 1e-5, 1e-9])
@pytest.mark.parametrize("is_chain", [True, False])
def test_the_matrix_is_what_pairs_are(far: float, is_chain: bool) -> None:
    initial = drawn(7)
    noise = [drawn(100 + k) for k in range(5)]
    states = [{n: (w + far * moved[n]).double() for n, w in initial.items()} for moved in noise]
    masks = nested(7, 5) if is_chain else [drawn_mask(k, 0.6) for k in range(5)]
    found = distance_matrices(states, masks, initial=initial)
    states.append(initial)
    masks.append(drawn_mask(0, 2.0))
    for i in range(6):
        for j in range(6):
            expected = distance(states[i], masks[i], states[j], masks[j])
            near = pytest.approx(vars(expected), rel=1e-9, abs=1e-15)
            assert vars(found.of(i, j)) == near, (i, j)
    for matrix in (found.angular, found.cosine, found.l2_shared, found.l2_full):
        assert torch.equal(matrix, matrix.T)
        assert matrix.dtype is torch.float64


def test_the_similarity_is_the_cosine_of_the_angle() -> None:
    states, masks = [drawn(k) for k in range(4)], nested(3, 4)
    found = distance_matrices(states, masks)
    assert torch.allclose(found.cosine, torch.cos(math.pi / 2 * found.angular), atol=1e-12)


def test_blank_only_where_it_is_not_defined() -> None:
    masks = [keeps(1, 1, 0, 0), keeps(0, 0, 1, 1), keeps(1, 1, 1, 1)]
    found = distance_matrices([one(1, 2, 3, 4)] * 3, masks)
    assert found.plain()["angular"] == [[0, None, 0], [None, 0, 0], [0, 0, 0]]
    assert found.plain()["l2_shared"] == [[0, None, 0], [None, 0, 0], [0, 0, 0]]
    assert found.plain()["kept"] == [2, 2, 4]
    assert found.plain()["total"] == 4
    assert json.loads(json.dumps(found.plain(), allow_nan=False)) == found.plain()


def test_a_collapsed_network_is_at_no_distance_to_itself() -> None:
    found = distance_matrices([one(0, 0)], [keeps(1, 1)])
    assert math.isnan(float(found.angular[0, 0]))
    assert found.of(0, 0).plain() == {
        "angular": None,
        "cosine": None,
        "l2_shared": 0,
        "l2_full": 0,
    }


def test_a_chain_of_resnet20_takes_no_time() -> None:
    """26 rows of 272,000 weights in float32."""
    generator = torch.Generator().manual_seed(0)
    names = [f"layer{k}" for k in range(17)]
    initial = {name: torch.randn(16_000, generator=generator) for name in names}
    states = [
        {n: w + torch.randn(w.shape, generator=generator) for n, w in initial.items()}
        for _ in range(25)
    ]
    masks = [{n: torch.ones(w.shape) == 1 for n, w in initial.items()} for _ in range(25)]
    start = time.process_time()
    found = distance_matrices(states, masks, initial=initial)
    assert time.process_time() - start < 5  # .2 s on a quiet machine
    assert found.angular.shape == (26, 26)


def test_a_distance_is_a_value() -> None:
    made = Distance(angular=0, cosine=1, l2_shared=0, l2_full=0)
    assert made == distance(one(1.0), keeps(1), one(1.0), keeps(1))
