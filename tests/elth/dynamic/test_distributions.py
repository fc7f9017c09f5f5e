"""How many weights each layer has: oracles that were computed by hand, and published figures."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elth.dynamic import DISTRIBUTIONS, layer_counts, layer_densities, published_counts
from elth.errors import ElthError
from elth.networks import DataShape, blueprint, prunable

SMALL = {"a": (8, 3, 3, 3), "b": (16, 8, 3, 3), "c": (10, 16)}
CIFAR = DataShape(channels=3, size=32, classes=10)
IMAGENET = DataShape(channels=3, size=224, classes=1000)


def shapes(spec: str, shape: DataShape) -> dict[str, tuple[int, ...]]:
    network = blueprint(spec, shape)
    return {name: tuple(network.get_parameter(name).shape) for name in prunable(network)}


def factor(shape: tuple[int, ...], density: Any) -> float:
    """What the share of this layer was multiplied with."""
    return float(density / sum(shape) * math.prod(shape))


def test_layers_are_capped_one_after_the_other() -> None:
    """First c, at 1.70; then a, which was .82 before, at 1.01."""
    assert published_counts(SMALL, 0.5, "erk") == {"a": 216, "b": 388, "c": 160}
    found = layer_densities(SMALL, 764, "erk")
    assert [found["a"], found["c"]] == [1, 1]
    assert factor(SMALL["b"], found["b"]) == pytest.approx(12.933333)
    assert layer_counts(SMALL, 764, "erk") == {"a": 216, "b": 388, "c": 160}


def test_without_a_cap() -> None:
    assert published_counts(SMALL, 0.8, "erk") == {"a": 72, "b": 127, "c": 110}
    found = layer_densities(SMALL, 307, "erk")
    assert [round(float(d), 6) for d in found.values()] == [0.330987, 0.109518, 0.683390]
    assert layer_counts(SMALL, 307, "erk") == {"a": 72, "b": 126, "c": 109}


def test_erdos_renyi_is_of_two_sides() -> None:
    found = layer_densities({"a": (4, 6), "b": (8, 2, 3, 3)}, 12, "er")
    assert found["a"] / found["b"] == pytest.approx((10 / 24) / (10 / 16))


@pytest.mark.parametrize(
    ("sparsity", "expected", "capped"),
    [(0.8, 99.562, 8), (0.9, 48.787, 1), (0.95, 24.372, 0), (0.965, 17.061, 0)],
)
def test_resnet50_by_erk(sparsity: float, expected: float, capped: int) -> None:
    own = shapes("resnet50", IMAGENET)
    zeros = sum(math.floor(sparsity * math.prod(s)) for s in own.values())
    kept = sum(math.prod(s) for s in own.values()) - zeros
    found = layer_densities(own, kept, "erk")
    assert sum(density == 1 for density in found.values()) == capped
    free = next(name for name, density in found.items() if density < 1)
    assert factor(own[free], found[free]) == pytest.approx(expected, abs=6e-4)
    if sparsity == 0.8:
        assert float(found["conv1.weight"]) == pytest.approx(0.8572, abs=5e-5)
        assert float(found["fc.weight"]) == pytest.approx(0.1482, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "epsilon", "kept", "others"),
    [
        ("resnet18", 329.079, 3_061_555, 0.738451),
        ("resnet26", 362.806, 4_994_291, 0.738221),
        ("resnet34", 341.412, 5_709_403, 0.738175),
    ],
)
def test_the_networks_of_elth_at_the_sixth_round(
    name: str, epsilon: float, kept: int, others: float
) -> None:
    """Their ERK, and uniform with a dense first layer and as many weights in all."""
    own = shapes(name, IMAGENET)
    found = layer_densities(own, kept, "erk")
    free = next(layer for layer, density in found.items() if density < 1)
    assert factor(own[free], found[free]) == pytest.approx(epsilon, abs=2e-3)
    assert found["conv1.weight"] == 1
    assert sum(layer_counts(own, kept, "erk").values()) == kept
    even = layer_densities(own, kept, "uniform", dense=["conv1.weight"])
    assert float(1 - even["fc.weight"]) == pytest.approx(others, abs=1e-6)
    assert sum(layer_counts(own, kept, "uniform", dense=["conv1.weight"]).values()) == kept


@pytest.mark.parametrize(
    ("name", "sparsity", "epsilon", "capped"),
    [
        ("resnet20", 0.9, 16.9935, 2),
        ("resnet20", 0.95, 8.2114, 0),
        ("resnet32", 0.9, 18.1688, None),
        ("resnet32", 0.95, 8.8806, None),
        ("resnet56", 0.9, 18.9734, None),
        ("resnet56", 0.95, 9.3660, None),
    ],
)
def test_the_networks_for_cifar(
    name: str, sparsity: float, epsilon: float, capped: int | None
) -> None:
    own = shapes(name, CIFAR)
    kept = sum(math.prod(s) - math.floor(sparsity * math.prod(s)) for s in own.values())
    found = layer_densities(own, kept, "erk")
    free = next(layer for layer, density in found.items() if density < 1)
    assert factor(own[free], found[free]) == pytest.approx(epsilon, abs=6e-4)
    if capped is not None:
        assert sum(density == 1 for density in found.values()) == capped


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.one_of(
            st.tuples(st.integers(1, 9), st.integers(1, 9)),
            st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5)),
        ),
        min_size=1,
    ),
    st.floats(0.001, 1),
    st.sampled_from(DISTRIBUTIONS),
)
def test_counts_are_exact_and_within_their_layers(
    own: dict[str, tuple[int, ...]], density: float, distribution: str
) -> None:
    total = sum(math.prod(shape) for shape in own.values())
    kept = max(1, int(density * total))
    counts = layer_counts(own, kept, distribution)
    assert list(counts) == list(own)
    assert sum(counts.values()) == kept
    assert all(0 <= counts[name] <= math.prod(shape) for name, shape in own.items())


@pytest.mark.parametrize(
    ("kept", "distribution", "dense", "message"),
    [
        (764, "even", (), "unknown distribution 'even'"),
        (764, "erk", ("d",), "unknown weight that is to be dense 'd'"),
        (1529, "erk", (), r"cannot have 1,529 weights: there are 1,528"),
        (0, "erk", (), "cannot have 0 weights: there are 1,528"),
        (216, "uniform", ("a",), "cannot have 216 weights: .* dense are 216 of them"),
    ],
)
def test_what_is_refused(kept: int, distribution: str, dense: tuple[str], message: str) -> None:
    with pytest.raises(ElthError, match=message):
        layer_counts(SMALL, kept, distribution, dense=dense)
