"""Updates of masks, as functions of tensors.

All are exact: ties are broken by position, the first in memory wins. A mask and what it is compared
with lie on one device; nothing here waits for it but where it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from elth.masks import Mask
from elth.streams import COMMON, Noise, stream


def drawn(
    shapes: Mapping[str, tuple[int, ...]],
    counts: Mapping[str, int],
    seed: int,
    noise: Noise = COMMON,
) -> Mask:
    """Draw a mask of exactly so many weights in each layer, on the CPU.

    From the stream "sparse mask N" of the seed, where N is how many there are in all.
    """
    generator = stream(seed, f"sparse mask {sum(counts.values())}", 0, noise)
    mask: Mask = {}
    for name, shape in shapes.items():
        kept = torch.zeros(torch.Size(shape).numel(), dtype=torch.bool)
        kept[torch.randperm(kept.numel(), generator=generator)[: counts[name]]] = True
        mask[name] = kept.reshape(shape)
    return mask


def highest(scores: Tensor, count: int) -> Tensor:
    """Which of the scores are the ``count`` highest, as a mask of their shape."""
    kept = torch.zeros_like(scores, dtype=torch.bool).flatten()
    order = torch.sort(scores.flatten(), descending=True, stable=True).indices
    kept[order[:count]] = True
    return kept.reshape(scores.shape)


def dropped(weight: Tensor, mask: Tensor, kept: int) -> Tensor:
    """The mask without its smallest weights: ``kept`` are left."""
    return highest(torch.where(mask, weight.abs(), -1), kept)


def dropped_by_sign(weight: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """The mask without so much of its smallest positive and of its smallest negative weights.

    Weights of exactly 0 stay (Mocanu et al. 2018). The device is waited for.
    """
    left = mask.clone()
    for side in (mask & (weight > 0), mask & (weight < 0)):
        count = int(torch.count_nonzero(side))
        gone = side & ~dropped(weight, side, count - int(fraction * count))
        left &= ~gone
    return left


def grown(mask: Tensor, scores: Tensor, count: int) -> Tensor:
    """The mask, and of the places that are not in it the ``count`` of the highest scores."""
    return mask | highest(torch.where(mask, -torch.inf, scores), count)


def spread(count: int, weights: Mapping[str, float], room: Mapping[str, int]) -> dict[str, int]:
    """Divide what is grown among layers in proportion to weights, at most their room for each.

    What a layer has no room for goes to the others in equal parts. Whole numbers by the largest
    remainders; of equal ones the first.

    Args:
        count: how many connections in all; at most what there is room for.
        weights: of each layer, as the mean magnitude of its momentum.
        room: of each layer the most that it can take.

    Example:
        >>> spread(4, {"a": 0.3, "b": 0.1}, {"a": 9, "b": 9})
        {'a': 3, 'b': 1}
        >>> spread(6, {"a": 0.8, "b": 0.1, "c": 0.1}, {"a": 2, "b": 9, "c": 9})
        {'a': 2, 'b': 2, 'c': 2}
    """
    exact = {name: Fraction(weight) for name, weight in weights.items()}
    total = sum(exact.values())
    shares = {
        name: count * (weight / total if total else Fraction(1, len(exact)))
        for name, weight in exact.items()
    }
    full: set[str] = set()
    while over := {name for name in shares if name not in full and shares[name] > room[name]}:
        surplus = sum((shares[name] - room[name] for name in over), Fraction(0))
        shares |= {name: Fraction(room[name]) for name in over}
        full |= over
        others = [name for name in shares if name not in full]
        for name in others:
            shares[name] += surplus / len(others)
    found = {name: int(share) for name, share in shares.items()}
    missing = count - sum(found.values())
    free = [name for name in shares if found[name] < room[name]]
    for name in sorted(free, key=lambda name: found[name] - shares[name])[:missing]:
        found[name] += 1
    return found
