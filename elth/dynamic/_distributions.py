"""How many weights each layer of a sparse network has; known without importing torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from fractions import Fraction

from elth.errors import ElthError, unknown

Shape = tuple[int, ...]
"""Of a weight: outputs, inputs, and the sides of a convolution's kernel."""


def _erdos_renyi(shape: Shape) -> Fraction:
    """Of two sides: density goes with (n_in + n_out) / (n_in n_out) (Mocanu et al. 2018)."""
    outputs, inputs = shape[:2]
    return Fraction(outputs + inputs, outputs * inputs)


def _with_kernel(shape: Shape) -> Fraction:
    """Of all sides: those of the kernel count as well (Evci et al. 2020, section 3)."""
    return Fraction(sum(shape), math.prod(shape))


_SHARES: Mapping[str, Callable[[Shape], Fraction]] = {
    "uniform": lambda _: Fraction(1),
    "er": _erdos_renyi,
    "erk": _with_kernel,
}
DISTRIBUTIONS = tuple(_SHARES)
"""``uniform``: every layer is as dense; ``er``: Erdős-Rényi; ``erk``: the same with kernels."""


def layer_densities(
    shapes: Mapping[str, Shape],
    kept: int,
    distribution: str,
    *,
    dense: Collection[str] = (),
) -> dict[str, Fraction]:
    """The density of each layer, of ``kept`` weights in all (Evci et al. 2020, section 3).

    A layer's density is its share times one factor ε. While that is above 1 for some layers, those
    with the largest share become dense, and ε is solved again for the rest.

    Args:
        shapes: of each prunable weight, in the network's order.
        kept: how many weights there are in all, those of ``dense`` among them.
        distribution: one of ``DISTRIBUTIONS``.
        dense: names of weights that are dense whatever the distribution.

    Example:
        >>> shapes = {"a": (8, 3, 3, 3), "b": (16, 8, 3, 3), "c": (10, 16)}
        >>> [round(float(d), 5) for d in layer_densities(shapes, 764, "erk").values()]
        [1.0, 0.33681, 1.0]

    Raises:
        ElthError: an unknown distribution, ``dense`` names no weight, or the count is impossible.
    """
    if distribution not in _SHARES:
        raise unknown("distribution", distribution, DISTRIBUTIONS)
    for name in dense:
        if name not in shapes:
            raise unknown("weight that is to be dense", name, shapes)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    least = sum(sizes[name] for name in dense)
    if not least <= kept <= sum(sizes.values()) or (kept == least and len(dense) < len(sizes)):
        raise ElthError(
            f"cannot have {kept:,} weights: there are {sum(sizes.values()):,}"
            + (f", and those that are dense are {least:,} of them" if dense else "")
        )
    shares = {n: _SHARES[distribution](shape) for n, shape in shapes.items() if n not in dense}
    found = {name: Fraction(1) for name in shapes}
    while shares:
        rest = kept - sum(size for name, size in sizes.items() if name not in shares)
        factor = Fraction(rest) / sum(share * sizes[name] for name, share in shares.items())
        largest = max(shares.values())
        if largest * factor <= 1:
            return found | {name: share * factor for name, share in shares.items()}
        shares = {name: share for name, share in shares.items() if share < largest}
    return found


def layer_counts(
    shapes: Mapping[str, Shape],
    kept: int,
    distribution: str,
    *,
    dense: Collection[str] = (),
) -> dict[str, int]:
    """How many weights each layer has: ``kept`` in all, exactly.

    The numbers that the densities give are rounded down, and what is missing goes to the largest
    remainders, of equal ones to the first layer.

    Raises:
        ElthError: as ``layer_densities``.
    """
    densities = layer_densities(shapes, kept, distribution, dense=dense)
    exact = {name: density * math.prod(shapes[name]) for name, density in densities.items()}
    counts = {name: math.floor(number) for name, number in exact.items()}
    missing = kept - sum(counts.values())
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    return counts | {name: counts[name] + 1 for name in by_remainder[:missing]}


def published_counts(
    shapes: Mapping[str, Shape],
    sparsity: float | str,
    distribution: str,
    *,
    dense: Collection[str] = (),
) -> dict[str, int]:
    """How many weights each layer has by the rule of the code released with RigL.

    Layers in ``dense`` do not pay for their density, and numbers of zeros are rounded down in each
    layer, so that the total is near what the sparsity says, and not exact.

    Args:
        shapes: of each prunable weight, in the network's order.
        sparsity: the fraction of zeros that is asked of the layers not in ``dense``.
        distribution: one of ``DISTRIBUTIONS``.
        dense: names of weights that are dense whatever the distribution.

    Raises:
        ElthError: as ``layer_densities``.
    """
    zeros = Fraction(str(sparsity))
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    others = {name: shape for name, shape in shapes.items() if name not in dense}
    kept = sum(sizes[name] - math.floor(zeros * sizes[name]) for name in others)
    densities = layer_densities(others, kept, distribution)
    if distribution == "uniform":
        densities = dict.fromkeys(others, 1 - zeros)
    return {
        name: size - math.floor((1 - densities.get(name, Fraction(1))) * size)
        for name, size in sizes.items()
    }
