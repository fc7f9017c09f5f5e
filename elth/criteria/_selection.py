"""From scores to a mask of exactly as many weights as asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import SupportsIndex

import torch
from torch import Tensor, nn

from elth.errors import ElthError, nearest, unknown
from elth.masks import Mask, nonzeros
from elth.networks import Anatomy


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
            weight of the mask, scores and mask do not fit each other, or a score is not a number.
    """
    must_stay = check_count(mask, keep, unpruned)
    names = [name for name in mask if name not in unpruned]
    for name in names:
        _check_fits(name, mask[name], scores)
    if not names:
        return {name: m.clone() for name, m in mask.items()}
    candidates = torch.cat([scores[n][mask[n].to(scores[n].device)].flatten() for n in names])
    if bool(torch.isnan(candidates).any()):
        raise ElthError("a pruning score is not a number; the trained weights are not finite")
    survives = _highest(candidates, keep - must_stay)
    result: Mask = {}
    start = 0
    for name, m in mask.items():
        if name in unpruned:
            result[name] = m.clone()
            continue
        count = int(torch.count_nonzero(m))
        kept = torch.zeros_like(m)
        kept[m] = survives[start : start + count].to(m.device)
        result[name] = kept
        start += count
    return result


def _highest(scores: Tensor, count: int) -> Tensor:
    """Which of the scores (n,) are the ``count`` highest; of equal ones the first."""
    if count in (0, scores.numel()):
        return torch.full_like(scores, bool(count), dtype=torch.bool)
    # Selecting takes a time that grows as n, where sorting 20 million weights takes seconds.
    threshold = torch.kthvalue(scores, scores.numel() - count + 1).values
    survives = scores > threshold
    left = count - int(torch.count_nonzero(survives))
    survives[torch.nonzero(scores == threshold).flatten()[:left]] = True
    return survives


def _check_fits(name: str, kept: Tensor, scores: Mapping[str, Tensor]) -> None:
    """Refuse a mask and scores that would be matched otherwise than weight by weight."""
    if name not in scores:
        raise ElthError(f"the mask names '{name}', which has no score{nearest(name, scores)}")
    if kept.dtype is not torch.bool:
        raise ElthError(f"the mask of '{name}' is of {kept.dtype}; expected booleans")
    if kept.shape != scores[name].shape:
        raise ElthError(
            f"the mask of '{name}' is of shape {tuple(kept.shape)}, and its scores of "
            f"{tuple(scores[name].shape)}: expected one score for each weight"
        )


def check_count(mask: Mapping[str, Tensor], keep: int, unpruned: Collection[str]) -> int:
    """Return how many weights must stay, those of ``unpruned``.

    Raises:
        ElthError: as ``keep_highest``; called first by a criterion whose scores take long.
    """
    if isinstance(keep, bool) or not isinstance(keep, SupportsIndex):
        raise ElthError(f"keep is a number of weights, as 1000; found {keep!r}")
    for name in unpruned:
        if name not in mask:
            raise unknown("unpruned weight", name, mask)
    have = nonzeros(mask)
    must_stay = nonzeros({name: mask[name] for name in unpruned})
    if not must_stay <= keep <= have:
        raise ElthError(
            f"cannot keep {keep:,} weights: {have:,} are there"
            + (
                f", and {must_stay:,} in {', '.join(sorted(unpruned))} stay whole"
                if unpruned
                else ""
            )
        )
    return must_stay


def spared(network: nn.Module, unpruned: Collection[str] | None) -> frozenset[str]:
    """Names of the weights to leave whole: those given, or by default the anatomy's, if any."""
    if unpruned is None:
        anatomy = getattr(network, "anatomy", None)
        unpruned = anatomy.unpruned if isinstance(anatomy, Anatomy) else ()
    return frozenset(unpruned)


def on_cpu(mask: Mapping[str, Tensor]) -> Mask:
    """The mask on the CPU, where masks live."""
    return {name: m.cpu() for name, m in mask.items()}
