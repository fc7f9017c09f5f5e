"""Pruning criteria: scores of the weights, and the exact count that survives.

A criterion is a function that gives every prunable weight a score; ``keep_highest`` turns scores
into a mask of exactly as many weights as asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from elth.errors import ElthError, unknown
from elth.masks import Mask, nonzeros


def keep_highest(
    scores: Mapping[str, Tensor],
    mask: Mapping[str, Tensor],
    keep: int,
    *,
    unpruned: Collection[str] = (),
) -> Mask:
    """Keep exactly ``keep`` weights of ``mask``: those of the highest score over all layers.

    Ties are broken by position: of equal scores the one that comes first in the network stays.
    ``unpruned`` weights stay whatever their score, and count.

    Args:
        scores: one score per weight, higher is better, shaped as the mask.
        mask: what is left so far; a weight once pruned never returns.
        keep: the number of weights that are left afterwards, over all layers.
        unpruned: names of weights that are left whole, as the anatomy's.

    Raises:
        ElthError: ``keep`` is not between what must stay and what is there, ``unpruned`` names no
            weight of the mask, or a score is not a number.
    """
    for name in unpruned:
        if name not in mask:
            raise unknown("unpruned weight", name, mask)
    have = nonzeros(mask)
    spared = set(unpruned)
    must_stay = nonzeros({name: mask[name] for name in spared})
    if not must_stay <= keep <= have:
        raise ElthError(
            f"cannot keep {keep:,} weights: {have:,} are there"
            + (f", and {must_stay:,} in {', '.join(sorted(spared))} stay whole" if spared else "")
        )
    names = [name for name in mask if name not in spared]
    if not names:
        return {name: m.clone() for name, m in mask.items()}
    candidates = torch.cat([scores[name][mask[name]].flatten() for name in names])
    if bool(torch.isnan(candidates).any()):
        raise ElthError("a pruning score is not a number; the trained weights are not finite")
    order = torch.sort(candidates, descending=True, stable=True).indices
    survives = torch.zeros(candidates.numel(), dtype=torch.bool)
    survives[order[: keep - must_stay]] = True
    result: Mask = {}
    start = 0
    for name, m in mask.items():
        if name in spared:
            result[name] = m.clone()
            continue
        count = int(torch.count_nonzero(m))
        kept = torch.zeros_like(m)
        kept[m] = survives[start : start + count]
        result[name] = kept
        start += count
    return result


def magnitude(weights: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Score ``|w|``: global magnitude pruning (Han et al. 2015; Frankle & Carbin 2019)."""
    return {name: weights[name].abs() for name in mask}
