"""A criterion by its name, with its settings as keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor

from elth.criteria._gradients import Samples
from elth.criteria._registry import CRITERIA, TOGETHER, together
from elth.criteria._settings import check_settings
from elth.masks import Mask
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
    criterion: Callable[..., Mask] = CRITERIA[name]
    kind = together(criterion)
    return criterion(
        network,
        mask,
        keep,
        shape=shape,
        data=data,
        seed=seed,
        unpruned=unpruned,
        **({TOGETHER: kind(**given)} if kind and given else given),
    )
