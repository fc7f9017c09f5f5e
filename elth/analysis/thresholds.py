"""The magnitude up to which a round prunes (Maene et al. 2021, figures 6 and 7)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from elth.analysis._numbers import number
from elth.analysis._vectors import State, check, surviving
from elth.errors import ElthError, unknown


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What a pruning by magnitude removes up to."""

    value: float
    """The largest magnitude that is pruned; not a number where none is."""
    pruned: int
    """How many weights are pruned."""
    candidates: int
    """From how many."""
    tied: int
    """How many of those that stay have this very magnitude: the count decides, and then the
    position."""

    def plain(self) -> dict[str, float | int | None]:
        """The numbers by name; None for a threshold that is not defined."""
        return {**vars(self), "value": number(self.value)}


def pruning_threshold(
    state: State,
    mask: Mapping[str, Tensor],
    *,
    pruned: int,
    unpruned: Collection[str] = (),
) -> Threshold:
    """Find the threshold at which so many weights are pruned, over all layers.

    That is the ``pruned``-th smallest magnitude of the weights that the mask keeps. Of a control,
    as Reinit, it is the same number of its own weights, though nothing is pruned by it.

    Args:
        state: the weights at the end of a round's training.
        mask: that round's mask, before the pruning.
        pruned: how many weights the pruning after it takes.
        unpruned: names of weights that are left whole, as the anatomy's.

    Raises:
        ElthError: weights and mask do not fit, there are fewer weights than are to be pruned, or
            ``unpruned`` names no weight of the mask.
    """
    check([state], [mask])
    for name in unpruned:
        if name not in mask:
            raise unknown("unpruned weight", name, mask)
    layers = [surviving(state, mask, name).abs() for name in sorted(mask) if name not in unpruned]
    magnitudes = torch.cat([torch.empty(0, dtype=torch.float64), *layers])
    count = magnitudes.numel()
    if not 0 <= pruned <= count:
        raise ElthError(f"cannot prune {pruned:,} weights: {count:,} are there to be pruned")
    if pruned == 0 or bool(magnitudes.isnan().any()):
        return Threshold(value=math.nan, pruned=pruned, candidates=count, tied=0)
    value = torch.kthvalue(magnitudes, pruned).values
    up_to = int(torch.count_nonzero(magnitudes <= value))
    return Threshold(value=float(value), pruned=pruned, candidates=count, tied=up_to - pruned)
