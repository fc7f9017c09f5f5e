"""A criterion by its name, with its settings as keyword arguments."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from elth import masks, plugins
from elth.counts import check_sparsity
from elth.criteria._gradients import Samples
from elth.criteria._registry import CRITERIA, TOGETHER, criterion, together
from elth.criteria._settings import check_settings
from elth.errors import ElthError
from elth.masks import Mask
from elth.specs import DataShape
from elth.streams import stream


def prune(
    name: str,
    network: nn.Module,
    mask: Mapping[str, Tensor] | None = None,
    keep: int | None = None,
    *,
    sparsity: float | None = None,
    data: Samples | None = None,
    seed: int = 0,
    shape: DataShape | None = None,
    unpruned: Collection[str] | None = None,
    **settings: Any,
) -> Mask:
    """Prune a network, or any module of PyTorch, by the criterion of a name (see ``Criterion``).

    Example::

        mask = elth.criteria.prune("snip", module, sparsity=0.9, data=data, seed=0)

    Args:
        name: one of ``CRITERIA``, or one from outside.
        network: the network with its weights; it is left as it is.
        mask: what is left so far; by default all weights that can be pruned.
        keep: the number of weights that are left afterwards, over all layers.
        sparsity: instead of ``keep`` the fraction of all of them that is zero afterwards; at least
            one weight is left.
        data: the dataset, of which some criteria take training images.
        seed: fixes what is drawn.
        shape: the shape of the data; by default that of the dataset.
        unpruned: names of weights that are left whole; None for the anatomy's, if there is one.
        settings: those that differ from the criterion's own (``options``).

    Raises:
        ElthError: unknown criterion or setting, a value that the setting cannot have, a module
            without weights to prune, or as the criterion.
    """
    if not isinstance(name, str):
        raise ElthError(
            f"expected the name of a criterion, as snip, or of one of your own as module:function; "
            f"found {name!r}"
        )
    given = check_settings(name, settings)
    function = criterion(name)
    mask = masks.ones(network) if mask is None else mask
    if not mask:
        raise ElthError(
            f"{type(network).__name__} has no weight to prune: expected a convolution or a linear "
            "layer"
        )
    if shape is None:
        shape = getattr(getattr(data, "info", None), "shape", None)
    needs_shape = inspect.signature(function).parameters["shape"].default is inspect.Parameter.empty
    if shape is None and needs_shape:
        raise ElthError(
            f"the criterion {name} needs the shape of the data: give it a dataset, or shape"
        )
    kind = together(function)
    keep = _count(mask, keep, sparsity)
    words = {TOGETHER: kind(**given)} if kind and given else given

    def call() -> Mask:
        return function(
            network,
            mask,
            keep,
            shape=shape,
            data=data,
            seed=seed,
            unpruned=unpruned,
            **words,
        )

    if name in CRITERIA:
        return call()
    with torch.random.fork_rng():  # what it draws without the seed is the same each time
        torch.manual_seed(stream(seed, "criterion").initial_seed())
        try:
            made = call()
        except ElthError:
            raise
        except Exception as error:
            raise ElthError(f"criterion {name} fails: {plugins.reason(error)}") from error
    _check(made, mask, keep, name)
    return made


def _count(mask: Mapping[str, Tensor], keep: int | None, sparsity: float | None) -> int:
    """How many weights are kept, of a sparsity by exact decimal arithmetic.

    Raises:
        ElthError: both are given, or neither, the sparsity is no fraction, or none would be left.
    """
    if (keep is None) == (sparsity is None):
        raise ElthError("say how many weights stay: keep, a number, or sparsity, a fraction of all")
    if keep is not None:
        return keep
    if not 0 <= float(sparsity or 0) < 1:
        raise ElthError(f"sparsity must be at least 0 and below 1, as 0.9; found {sparsity}")
    return check_sparsity(sparsity or 0, masks.total(mask))


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
        if not isinstance(kept, Tensor):
            raise ElthError(
                f"criterion {name} gave {type(kept).__name__} for '{weight}'; expected a tensor"
            )
        if kept.dtype is not torch.bool or kept.shape != mask[weight].shape:
            raise ElthError(
                f"criterion {name} gave {kept.dtype} of shape {tuple(kept.shape)} for '{weight}'; "
                f"expected booleans of shape {tuple(mask[weight].shape)}"
            )
        if bool((kept.cpu() & ~mask[weight].cpu()).any()):
            raise ElthError(f"criterion {name} brings back weights of '{weight}' that were pruned")
    if masks.nonzeros(made) != keep:
        raise ElthError(
            f"criterion {name} keeps {masks.nonzeros(made):,} weights, and was asked for {keep:,}: "
            "elth.criteria.keep_highest keeps exactly as many"
        )
