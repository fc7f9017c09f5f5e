"""How much of a trained network its pruning takes away (Paul et al. 2023, section 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elth.analysis._numbers import number, ratio
from elth.analysis._vectors import State, check, check_masks, surviving


@dataclass(frozen=True, kw_only=True)
class Removed:
    """The part of a network's weights that a pruning takes away, by Euclidean norms."""

    norm: float
    """Of the weights that are pruned."""
    whole: float
    """Of all weights before it."""
    layers: Mapping[str, float]
    """The ratio of the two in each layer, by the name of its weight."""

    @property
    def relative(self) -> float:
        """abs(theta - m' * theta) / abs(theta), in [0, 1]; not a number where all weights are 0."""
        return ratio(self.norm, self.whole)

    def plain(self) -> dict[str, Any]:
        """As JSON values; None for what is not defined."""
        return {
            "relative": number(self.relative),
            "norm": number(self.norm),
            "whole": number(self.whole),
            "layers": {name: number(value) for name, value in self.layers.items()},
        }


def norm_removed(
    state: State, mask: Mapping[str, Tensor], next_mask: Mapping[str, Tensor]
) -> Removed:
    """Measure what the projection of trained weights to the next mask takes away.

    What it does to the error is measured with data; this is its length.

    Args:
        state: the weights at the end of a round's training.
        mask: that round's mask.
        next_mask: the mask that the pruning leaves. What it keeps beyond the round's is 0, and so
            not looked at.

    Raises:
        ElthError: weights and masks do not fit each other.
    """
    check([state], [mask])
    check_masks([mask, next_mask])
    gone = {name: m.cpu() & ~next_mask[name].cpu() for name, m in mask.items()}
    pruned = {name: _square(state, gone, name) for name in mask}
    whole = {name: _square(state, mask, name) for name in mask}
    return Removed(
        norm=math.sqrt(math.fsum(pruned.values())),
        whole=math.sqrt(math.fsum(whole.values())),
        layers={name: ratio(math.sqrt(pruned[name]), math.sqrt(whole[name])) for name in mask},
    )


def _square(state: State, mask: Mapping[str, Tensor], name: str) -> float:
    weights = surviving(state, mask, name)
    return float(torch.dot(weights, weights))
