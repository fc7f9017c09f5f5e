"""Counts that are known before anything is trained: iterations, and weights that are kept."""

from __future__ import annotations

from fractions import Fraction

from elth.errors import ElthError
from elth.recipes import Recipe


def iterations_per_epoch(train_size: int, recipe: Recipe) -> int:
    """Iterations of an epoch; the last, smaller batch is kept."""
    return -(-train_size // recipe.batch_size)


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
