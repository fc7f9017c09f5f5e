"""Histograms of the weights that survive (Maene et al. 2021, figures 5, 19 and 22)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elth.analysis._numbers import number
from elth.analysis._vectors import State, check, surviving
from elth.errors import ElthError

_MOST_BINS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of weights in bins of one width, whose edges are multiples of it.

    So those of several networks have edges in common, and can be drawn over each other.
    """

    width: float
    """Of a bin."""
    first: int
    """The first bin begins at ``first * width``; a bin holds its lower edge and not its upper."""
    counts: tuple[int, ...]
    """Weights of each bin; none where there is no weight."""
    bimodality: float
    """As the function ``bimodality``."""

    @property
    def edges(self) -> tuple[float, ...]:
        """The edges of the bins, one more than there are bins."""
        return tuple((self.first + k) * self.width for k in range(len(self.counts) + 1))

    @property
    def total(self) -> int:
        """Number of weights."""
        return sum(self.counts)

    def plain(self) -> dict[str, Any]:
        """As JSON values, with the edges."""
        return {
            "width": self.width,
            "edges": list(self.edges),
            "counts": list(self.counts),
            "bimodality": number(self.bimodality),
        }


def histogram(state: State, mask: Mapping[str, Tensor], *, width: float = 0.02) -> Histogram:
    """Count the signed surviving weights of all layers together.

    A weight that is kept and happens to be 0 counts; one that is pruned does not.

    Args:
        state: the weights, as after a round's training.
        mask: which survive; Maene et al. show those of the round's own mask.
        width: of the bins; theirs are of about .02.

    Raises:
        ElthError: weights and mask do not fit, a weight is not finite, or the width is not above 0
            or far too small for the weights.
    """
    check([state], [mask])
    return _counted((surviving(state, mask, name) for name in sorted(mask)), width)


def layer_histograms(
    state: State, mask: Mapping[str, Tensor], *, width: float = 0.02
) -> dict[str, Histogram]:
    """Count as ``histogram``, each layer by itself: name of its weight to histogram."""
    check([state], [mask])
    return {name: _counted([surviving(state, mask, name)], width) for name in mask}


def bimodality(weights: Tensor) -> float:
    """Share of weights whose magnitude is below half of the median magnitude.

    It is .25 of a uniform law about 0, .26 of a normal one, and 0 of two peaks with nothing between
    them; not a number of no weights. The median of an even number is the mean of the middle two.
    """
    magnitudes = weights.detach().double().abs().flatten()
    count = magnitudes.numel()
    if not count:
        return math.nan
    middle = ((count + 1) // 2, count // 2 + 1)
    median = sum(float(torch.kthvalue(magnitudes, k).values) for k in middle) / 2
    return int(torch.count_nonzero(magnitudes < median / 2)) / count


def _counted(layers: Iterable[Tensor], width: float) -> Histogram:
    if not width > 0:
        raise ElthError(f"the width of a bin must be above 0, found {width}")
    weights = torch.cat([torch.empty(0, dtype=torch.float64), *layers])
    if not bool(torch.isfinite(weights).all()):
        raise ElthError(
            "a weight is not finite, so that there is no histogram: the training has diverged"
        )
    if not weights.numel():
        return Histogram(width=width, first=0, counts=(), bimodality=bimodality(weights))
    largest = float(weights.abs().max())
    if largest / width > _MOST_BINS / 2:
        raise ElthError(
            f"weights up to {largest:g} make over {_MOST_BINS:,} bins of {width:g}: take a larger "
            "width"
        )
    bins = torch.floor(weights / width)
    bins += (weights >= (bins + 1) * width).double()  # the edges are exact, and not the quotient
    bins -= (weights < bins * width).double()
    first = int(bins.min())
    counts = torch.bincount((bins - first).long())
    return Histogram(
        width=width, first=first, counts=tuple(counts.tolist()), bimodality=bimodality(weights)
    )
