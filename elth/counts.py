"""Counts that are known before anything is trained: iterations, and weights that are kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
        if not kept:
            break
        kept = int(keep * kept)
        if not kept:
            break
    return kept


def kept_at(sparsity: float | str, prunable_weights: int) -> int:
    """Number of weights left at a sparsity, rounded down, in exact decimal arithmetic.

    Example:
        >>> kept_at(0.9, 43_656)
        4365
    """
    return int((1 - Fraction(str(sparsity))) * prunable_weights)


def last_round(rate: float | str, prunable_weights: int, least: int = 1) -> int:
    """The last round after which at least so many weights are left.

    Example:
        >>> last_round(0.9, 43_656)  # 43,656, 4,365, 436, 43, 4 and 0 weights
        4
    """
    keep = 1 - Fraction(str(rate))
    number, kept = 0, int(keep * prunable_weights)
    while kept >= least:
        number, kept = number + 1, int(keep * kept)
    return number


def largest_sparsity(prunable_weights: int, least: int = 1) -> str:
    """A sparsity at which at least so many weights are left, and next to none more.

    As a decimal fraction, of the fewest digits that leave no more than one weight too many.

    Example:
        >>> largest_sparsity(43_656)
        '0.99997'
    """
    exact = 1 - Fraction(least, prunable_weights)
    for digits in range(1, 40):
        near = Fraction(int(exact * 10**digits), 10**digits)
        if int((1 - near) * prunable_weights) <= least + 1:
            break
    whole = int(near * 10**digits)
    return f"0.{whole:0{digits}d}"


def check_round(
    number: int,
    rate: float | str,
    prunable_weights: int,
    *,
    of: str = "",
    kept: int | None = None,
    whole: int = 0,
    unpruned: Collection[str] = (),
) -> None:
    """Refuse a round that leaves no weight, or fewer than are never pruned.

    Args:
        number: the round.
        rate: the fraction that each prunes.
        prunable_weights: how many there are before the first.
        of: the network, for the message.
        kept: how many weights the round keeps, where that is known.
        whole: how many of them are never pruned.
        unpruned: the names of these.

    Raises:
        ElthError: with the last round that can be asked for.
    """
    kept = kept_after(rate, number, prunable_weights) if kept is None else kept
    least = max(whole, 1)
    if kept >= least:
        return
    last = last_round(rate, prunable_weights, least)
    enough = "as many" if whole else "any"
    left = kept_after(rate, last, prunable_weights)
    remedy = f"round {last} is the last that keeps {enough} ({left:,})" if last else "no round does"
    raise ElthError(
        f"round {number}{f' of {of}' if of else ''} "
        f"{_too_few(kept, prunable_weights, whole, unpruned)}: {remedy}, where each prunes {rate} "
        "of what is left"
    )


def check_sparsity(
    sparsity: float | str,
    prunable_weights: int,
    *,
    of: str = "",
    whole: int = 0,
    unpruned: Collection[str] = (),
) -> int:
    """How many weights are left at a sparsity; refuses one that leaves none.

    Args:
        sparsity: the fraction of weights that is zero.
        prunable_weights: how many there are.
        of: the network, for the message.
        whole: how many of them are never pruned.
        unpruned: the names of these.

    Raises:
        ElthError: no weight is left, or fewer than are never pruned; with the largest sparsity
            that can be asked for.
    """
    kept, least = kept_at(sparsity, prunable_weights), max(whole, 1)
    if kept < least:
        most = largest_sparsity(prunable_weights, least)
        raise ElthError(
            f"a sparsity of {sparsity}{f' on {of}' if of else ''} "
            f"{_too_few(kept, prunable_weights, whole, unpruned)}: ask for {most} at most, which "
            f"keeps {kept_at(most, prunable_weights):,}"
        )
    return kept


def _too_few(kept: int, prunable_weights: int, whole: int, unpruned: Collection[str]) -> str:
    """What is wrong with a count."""
    if not whole:
        return f"would keep none of {prunable_weights:,} weights"
    return f"would keep {kept:,} weights, and {whole:,} in {', '.join(unpruned)} are never pruned"


def densities(have: Mapping[str, int], keep: int) -> dict[str, int]:
    """Share ``keep`` weights out so that every layer keeps the same fraction of what it has.

    The shares are rounded down, and the weights that are missing go to the layers of the largest
    remainders; ties go by position.

    Example:
        >>> densities({"a": 10, "b": 4, "c": 1}, 7)
        {'a': 5, 'b': 2, 'c': 0}
    """
    total = max(sum(have.values()), 1)
    result = {name: keep * count // total for name, count in have.items()}
    ranked = sorted(have, key=lambda name: -(keep * have[name] % total))
    for name in ranked[: keep - sum(result.values())]:
        result[name] += 1
    return result
