"""Sparse trainings in a plan: what can be known of them before anything is trained."""

from __future__ import annotations

import functools

from elth.counts import iterations_per_epoch
from elth.data import DatasetInfo
from elth.dynamic import Method
from elth.errors import ElthError
from elth.networks import DataShape, facts, tensor_shapes
from elth.recipes import Recipe


def check_sparse(
    method: Method, network: str, info: DatasetInfo, recipe: Recipe, kept: int, start: int
) -> None:
    """Refuse a sparse training that cannot be done.

    Args:
        method: how its mask comes about and changes.
        network: what is trained.
        info: on what.
        recipe: how.
        kept: how many weights there are at the end.
        start: the iteration at which the training starts.

    Raises:
        ElthError: the recipe does not go with the method, so few weights cannot be spread over the
            layers as it asks, or no update would move one of them.
    """
    per_epoch = iterations_per_epoch(info.train_size, recipe)
    method.check(recipe, per_epoch, start)
    length = recipe.length.iterations(per_epoch)
    _check_layers(method, network, info.shape, kept, length, per_epoch, start)


@functools.lru_cache(maxsize=4096)
def _check_layers(
    method: Method,
    network: str,
    shape: DataShape,
    kept: int,
    length: int,
    per_epoch: int,
    start: int,
) -> None:
    known = facts(network, shape)
    given = {"length": length, "per_epoch": per_epoch, "start": start}
    try:
        counts = method.counts(weights_of_layers(network, shape), kept, known.anatomy.unpruned)
        method.check_moves(counts, known.sizes, kept, **given)
    except ElthError as error:
        raise ElthError(f"{network}: {error}") from error


def weights_of_layers(network: str, shape: DataShape) -> dict[str, tuple[int, ...]]:
    """The shape of each prunable weight, in the network's order."""
    tensors = tensor_shapes(network, shape)
    return {name: tensors[name] for name in facts(network, shape).sizes}
