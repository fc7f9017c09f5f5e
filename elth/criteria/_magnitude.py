"""Magnitude: the largest weights stay (Han et al. 2015; Frankle & Carbin 2019)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from elth.criteria._gradients import Samples
from elth.criteria._selection import keep_highest, on_cpu, spared
from elth.masks import Mask
from elth.specs import DataShape


def magnitude(weights: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Score ``|w|``: global magnitude pruning (Han et al. 2015; Frankle & Carbin 2019)."""
    return {name: weights[name].abs() for name in mask}


def prune(
    network: nn.Module,
    mask: Mapping[str, Tensor],
    keep: int,
    *,
    shape: DataShape | None = None,
    data: Samples | None = None,
    seed: int = 0,
    unpruned: Collection[str] | None = None,
) -> Mask:
    """Keep the ``keep`` weights of the largest ``|w|`` over all layers; nothing is drawn."""
    scores = magnitude(network.state_dict(), mask)
    return keep_highest(scores, on_cpu(mask), keep, unpruned=spared(network, unpruned))
