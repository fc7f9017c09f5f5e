"""Counts that are known before anything is trained: iterations, and weights that are kept."""

from __future__ import annotations

from fractions import Fraction

from elth.errors import ElthError
from elth.recipes import Recipe


def iterations_per_epoch(train_size: int, recipe: Recipe) -> int:
    """Iterations of an epoch; the last, smaller batch is kept."""
    return -(-train_size // recipe.batch_size)


def check_last_batch(train_size: int, recipe: Recipe, where: str) -> None:
    """Refuse batches of which the last leaves batch normalisation a single image.

    Only a network that normalises a single value of it needs this (``smallest_norm``): one value
    has no statistics.

    Args:
        train_size: training images.
        recipe: its batches, and the groups in which batch normalisation sees them.
        where: the layer, for the message.

    Raises:
        ElthError: with the nearest batch sizes that work; of groups it is the number of images.
    """
    group = recipe.batch_norm_group
    why = f"and batch normalisation has no statistics of a single value{where}"
    if group:  # which divides the batch
        if train_size % group == 1:
            raise ElthError(
                f"the last group of an epoch is one image ({train_size:,} images in groups of "
                f"{group}), {why}: take another batch_norm_group"
            )
        return

    def is_alone(batch: int) -> bool:
        return batch == 1 or train_size % batch == 1

    if is_alone(recipe.batch_size):
        below, above = range(recipe.batch_size, 1, -1), range(recipe.batch_size, train_size + 1)
        near = (next((b for b in sizes if not is_alone(b)), None) for sizes in (below, above))
        remedy = " or ".join(str(b) for b in near if b) or "more, of more images"
        raise ElthError(
            f"the last batch of an epoch is one image ({train_size:,} images in batches of "
            f"{recipe.batch_size}), {why}: take a batch size of {remedy}"
        )


def rewind_step(train_size: int, recipe: Recipe) -> int:
    """The rewind point in iterations.

    Raises:
        ElthError: it does not lie before the end of the training.
    """
    per_epoch = iterations_per_epoch(train_size, recipe)
    step, end = recipe.rewind.iterations(per_epoch), recipe.length.iterations(per_epoch)
    if step >= end:
        raise ElthError(
            f"the rewind point {recipe.rewind} (iteration {step}) must come before the end of the "
            f"training {recipe.length} (iteration {end})"
        )
    return step


def kept_after(rate: float | str, rounds: int, prunable_weights: int) -> int:
    """Number of weights left after ``rounds`` prunings at ``rate``, each rounding down.

    A round keeps floor((1 - rate) * kept) weights, computed in exact decimal arithmetic, so that
    counts are known before anything is trained.

    Example:
        >>> kept_after(0.2, 6, 270_896)  # ResNet-20 at 73.79 %
        71012
    """
    keep = 1 - Fraction(str(rate))
    kept = prunable_weights
    for _ in range(rounds):
        kept = int(keep * kept)
        if not kept:
            break
    return kept
