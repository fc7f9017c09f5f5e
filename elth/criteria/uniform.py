"""Random masks, over all layers or at one density: what a criterion must beat."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from elth.counts import densities as densities
from elth.criteria._gradients import Samples
from elth.criteria._selection import check_count, keep_highest, on_cpu, spared
from elth.masks import Mask, nonzeros
from elth.specs import DataShape
from elth.streams import stream


def scores(mask: Mapping[str, Tensor], seed: int, purpose: str) -> dict[str, Tensor]:
    """Draw a score uniform in [0, 1) for each weight from the stream ``purpose`` of the seed."""
    generator = stream(seed, purpose)
    # Of single precision's 2^24 values so many would be equal that the first weights were favoured.
    return {
        name: torch.rand(m.shape, generator=generator, dtype=torch.float64)
        for name, m in mask.items()
    }


def prune_global(
    network: nn.Module,
    mask: Mapping[str, Tensor],
    keep: int,
    *,
    seed: int,
    shape: DataShape | None = None,
    data: Samples | None = None,
    unpruned: Collection[str] | None = None,
) -> Mask:
    """Keep ``keep`` weights drawn over all layers, from the stream "random_global"."""
    drawn = scores(mask, seed, "random_global")
    return keep_highest(drawn, on_cpu(mask), keep, unpruned=spared(network, unpruned))


def prune_layerwise(
    network: nn.Module,
    mask: Mapping[str, Tensor],
    keep: int,
    *,
    seed: int,
    shape: DataShape | None = None,
    data: Samples | None = None,
    unpruned: Collection[str] | None = None,
) -> Mask:
    """Keep the same fraction of every layer, ``keep`` weights in all (see ``densities``).

    Which ones is drawn from the stream "random_layerwise". Unpruned layers stay whole, and count.
    """
    mask = on_cpu(mask)
    whole = spared(network, unpruned)
    must_stay = check_count(mask, keep, whole)
    drawn = scores(mask, seed, "random_layerwise")
    counts = densities(
        {name: nonzeros({name: m}) for name, m in mask.items() if name not in whole},
        keep - must_stay,
    )
    return {
        name: m.clone()
        if name in whole
        else keep_highest({name: drawn[name]}, {name: m}, counts[name])[name]
        for name, m in mask.items()
    }
