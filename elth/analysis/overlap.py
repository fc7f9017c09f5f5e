"""How much two masks have in common, beside what chance alone would give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elth.analysis._numbers import number, ratio
from elth.analysis._vectors import check_masks


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How much two masks have in common."""

    both: int
    """Weights that both keep."""
    either: int
    """Weights that at least one keeps."""
    expected: float
    """The IoU of masks that are drawn independently, with as many weights in each layer: with
    densities d1, d2 in a layer of n weights they share I = sum d1 d2 n, so it is
    I / (K1 + K2 - I)."""

    @property
    def iou(self) -> float:
        """Intersection over union, in [0, 1]; not a number where neither keeps any weight."""
        return ratio(self.both, self.either)

    @property
    def excess(self) -> float:
        """(IoU - expected) / (1 - expected): 0 by chance, 1 of equal masks.

        Not a number where chance allows nothing else, as of two dense masks.
        """
        return ratio(self.iou - self.expected, 1 - self.expected)

    def plain(self) -> dict[str, float | int | None]:
        """The numbers by name; None for what is not defined."""
        return {
            "iou": number(self.iou),
            "expected": number(self.expected),
            "excess": number(self.excess),
            "both": self.both,
            "either": self.either,
        }


@dataclass(frozen=True, kw_only=True)
class Overlaps:
    """How much two masks have in common, in all and in each layer."""

    pooled: Overlap
    layers: Mapping[str, Overlap]
    """By the name of the weight, in the order of the first mask."""

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        layers = {name: overlap.plain() for name, overlap in self.layers.items()}
        return {"pooled": self.pooled.plain(), "layers": layers}


def mask_overlap(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Overlaps:
    """Compare two masks of one network, as of two seeds, twins or methods.

    Of nested masks, as of rounds of a chain, it is the ratio of their counts and tells nothing.

    Raises:
        ElthError: the masks do not fit each other.
    """
    check_masks([a, b])
    counts = {name: _counts(m, b[name]) for name, m in a.items()}
    return Overlaps(
        pooled=_overlap(counts.values()),
        layers={name: _overlap([layer]) for name, layer in counts.items()},
    )


def _counts(a: Tensor, b: Tensor) -> tuple[int, int, int, int]:
    """Weights that the first keeps, the second, both, and how many there are."""
    a, b = a.detach().cpu(), b.detach().cpu()
    first, second, both = (int(torch.count_nonzero(m)) for m in (a, b, a & b))
    return first, second, both, a.numel()


def _overlap(layers: Iterable[tuple[int, int, int, int]]) -> Overlap:
    first = second = both = 0
    chance = 0.0
    for one, other, shared, size in layers:
        first, second, both = first + one, second + other, both + shared
        chance += one * other / size if size else 0.0
    expected = ratio(chance, first + second - chance)
    return Overlap(both=both, either=first + second - both, expected=expected)
