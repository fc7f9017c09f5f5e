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
        ElthError: with the nearest batch sizes that work.
    """

    def is_alone(batch: int) -> bool:
        last = train_size % batch or min(batch, train_size)
        return (last % recipe.batch_norm_group if recipe.batch_norm_group else last) == 1

    if not is_alone(recipe.batch_size):
        return
    step = recipe.batch_norm_group or 1
    below = range(recipe.batch_size - step, 1, -step)
    above = range(recipe.batch_size + step, train_size + step + 1, step)
    near = (next((b for b in sizes if not is_alone(b)), None) for sizes in (below, above))
    kind = f"group of {recipe.batch_norm_group}" if recipe.batch_norm_group else "batch"
    raise ElthError(
        f"the last {kind} of an epoch is one image ({train_size:,} images in batches of "
        f"{recipe.batch_size}), and batch normalisation has no statistics of a single value"
        f"{where}: take a batch size of {' or '.join(str(b) for b in near if b)}"
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
    return kept
