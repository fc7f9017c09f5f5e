"""Random masks, over all layers or at one density: what a criterion must beat."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

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


def densities(have: Mapping[str, int], keep: int) -> dict[str, int]:
    """Share ``keep`` weights out so that every layer keeps the same fraction of what it has.

    The shares are rounded down, and the weights that are missing go to the layers of the largest
    remainders; ties go by position.

    Example:
        >>> densities({"a": 10, "b": 4, "c": 1}, 7)
        {'a': 5, 'b': 2, 'c': 0}
    """
    total = max(sum(have.values()), 1)
    result = {name: keep * count // total for name, count in have.items()}
    ranked = sorted(have, key=lambda name: -(keep * have[name] % total))
    for name in ranked[: keep - sum(result.values())]:
        result[name] += 1
    return result


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
