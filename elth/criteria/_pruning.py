"""A criterion by its name, with its settings as keyword arguments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from elth.criteria._gradients import Samples
from elth.criteria._registry import CRITERIA, TOGETHER, criterion, together
from elth.criteria._settings import check_settings
from elth.errors import ElthError
from elth.masks import Mask, nonzeros
from elth.networks import Network
from elth.specs import DataShape


def prune(
    name: str,
    network: Network,
    mask: Mapping[str, Tensor],
    keep: int,
    *,
    shape: DataShape,
    data: Samples | None,
    seed: int,
    unpruned: Collection[str] | None = None,
    **settings: Any,
) -> Mask:
    """Prune by the criterion of a name (see ``Criterion``), with settings that differ from it.

    Raises:
        ElthError: unknown criterion or setting, a value that the setting cannot have, or as the
            criterion.
    """
    given = check_settings(name, settings)
    function = criterion(name)
    kind = together(function)
    made = function(
        network,
        mask,
        keep,
        shape=shape,
        data=data,
        seed=seed,
        unpruned=unpruned,
        **({TOGETHER: kind(**given)} if kind and given else given),
    )
    if name not in CRITERIA:
        _check(made, mask, keep, name)
    return made


def _check(made: Any, mask: Mapping[str, Tensor], keep: int, name: str) -> None:
    """Refuse what a criterion from outside gives, if it is no mask of so many weights.

    Raises:
        ElthError: with what it is.
    """
    if not isinstance(made, Mapping) or set(made) != set(mask):
        raise ElthError(
            f"criterion {name} gave no mask of the network: expected a dict of {len(mask)} boolean "
            f"tensors by the names of {next(iter(mask), '')} and so on"
        )
    for weight, kept in made.items():
        if kept.dtype is not torch.bool or kept.shape != mask[weight].shape:
            raise ElthError(
                f"criterion {name} gave {kept.dtype} of shape {tuple(kept.shape)} for '{weight}'; "
                f"expected booleans of shape {tuple(mask[weight].shape)}"
            )
        if bool((kept.cpu() & ~mask[weight].cpu()).any()):
            raise ElthError(f"criterion {name} brings back weights of '{weight}' that were pruned")
    if nonzeros(made) != keep:
        raise ElthError(
            f"criterion {name} keeps {nonzeros(made):,} weights, and was asked for {keep:,}: "
            "elth.criteria.keep_highest keeps exactly as many"
        )
