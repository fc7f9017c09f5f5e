"""How far a ticket's weights travel in training, and which way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elth.analysis._numbers import number
from elth.analysis._vectors import State, parts
from elth.analysis.distances import distance, distance_matrices


@dataclass(frozen=True, kw_only=True)
class Travel:
    """From where a ticket starts to where its training ends, by the weights of its mask."""

    angular: float
    """Angular distance, as of ``Distance``."""
    cosine: float
    """Cosine similarity."""
    l2: float
    """Euclidean distance."""
    start_norm: float
    """Euclidean norm of the weights at the start."""
    end_norm: float
    """And at the end."""
    start_sum: float
    """Sum of the magnitudes at the start."""
    end_sum: float
    """And at the end."""

    def plain(self) -> dict[str, float | None]:
        """The numbers by name; None for what is not defined."""
        return {name: number(value) for name, value in vars(self).items()}


def distance_travelled(start: State, end: State, mask: Mapping[str, Tensor]) -> Travel:
    """Measure how far the weights that a mask keeps have gone, as from the initialisation.

    Raises:
        ElthError: weights and mask do not fit.
    """
    apart = distance(start, mask, end, mask)
    squares, magnitudes = torch.zeros(2, 2, dtype=torch.float64)
    for weights, _ in parts([start, end], [mask, mask]):
        squares += weights.square().sum(1)
        magnitudes += weights.abs().sum(1)
    norms = squares.sqrt().tolist()
    sums = magnitudes.tolist()
    return Travel(
        angular=apart.angular,
        cosine=apart.cosine,
        l2=apart.l2_shared,
        start_norm=norms[0],
        end_norm=norms[1],
        start_sum=sums[0],
        end_sum=sums[1],
    )


def similarity_to_end(states: Sequence[State], mask: Mapping[str, Tensor]) -> tuple[float, ...]:
    """Cosine of the weights at each point of a training with those of the last, which is 1.

    Raises:
        ElthError: weights and mask do not fit.
    """
    return tuple(distance_matrices(states, [mask] * len(states)).cosine[-1].tolist())
