"""Ways of iterative magnitude pruning: what its rounds start from, how far they train, what repels.

Round 0 is the same in all of them: the dense network, trained from the rewind point to the end. Of
the rounds after it is said here what differs. Nothing here needs torch, so that a plan tells by the
same functions what a chain will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from elth.counts import iterations_per_epoch, rewind_step
from elth.errors import ElthError, unknown
from elth.recipes import Recipe, Step
from elth.streams import COMMON, Noise

_T = TypeVar("_T")

WEIGHTS = ("rewind", "init", "trained", "finetune")
"""Where the weights that are left go back to after a pruning.

- ``rewind``: to the rewind point, as E-LTH and Maene et al. have it (Frankle et al. 2020).
- ``init``: to initialisation, from where the whole recipe is trained (Frankle and Carbin 2019).
- ``trained``: they stay where training brought them, and only the learning rate goes back to the
  rewind point: learning-rate rewinding (Renda et al. 2020, section 3).
- ``finetune``: they stay, and are trained on at the recipe's last learning rate (Han et al. 2015).
"""
STAY = ("trained", "finetune")
"""Those of them with which a round starts from where the round before has ended."""
REPEL_FROM = ("all", "previous")
"""Which earlier trained rounds repel a round: all, or the last (Maene et al. 2021, figure 17)."""
NOISES = ("common", "round")
"""Whether all rounds have one noise of SGD in common, or each its own, as fresh draws have it."""


def check(weights: str, recipe: Recipe, finetune: Step | None = None) -> None:
    """Refuse weights that there are not, or a fine-tuning that is not told or that cannot be.

    Raises:
        ElthError: ``weights`` is none of ``WEIGHTS``; ``finetune`` is missing, empty or idle; or
            the recipe has no last learning rate to go on with.
    """
    if weights not in WEIGHTS:
        raise unknown("weights of a pruning", weights, WEIGHTS)
    if weights != "finetune":
        if finetune is not None:
            raise ElthError(
                f"finetune ({finetune}) is how long trained weights are fine-tuned, and these are "
                f"weights: {weights}: take weights: finetune, or leave it out"
            )
        return
    if finetune is None or not finetune.count:
        raise ElthError(
            f"weights: finetune needs a length of at least 1ep or 1it, as finetune: 10ep; found "
            f"{finetune or 'none'}"
        )
    if recipe.schedule == "cosine":
        raise ElthError(
            "fine-tuning is at the last learning rate of the recipe, which is next to 0 where the "
            "schedule is cosine: take a schedule of step or constant, or other weights"
        )


def span(
    weights: str, recipe: Recipe, train_size: int, finetune: Step | None = None
) -> tuple[int, int]:
    """The iterations of a round after round 0: its first, and the one before which it ends.

    They are counted from initialisation, so that schedule and data order go on. After the recipe's
    end its learning rate stays what it was in its last iteration (``Recipe.lr_at``).

    Args:
        weights: one of ``WEIGHTS``.
        recipe: the recipe.
        train_size: training images.
        finetune: the length of a fine-tuning.

    Example:
        >>> from elth.recipes import RECIPES
        >>> span("trained", RECIPES["cifar10_resnet"], 50_000)
        (1000, 62560)
        >>> span("finetune", RECIPES["cifar10_resnet"], 50_000, Step(10, "ep"))
        (62560, 66470)

    Raises:
        ElthError: as ``check``, or the rewind point does not come before the recipe's end.
    """
    check(weights, recipe, finetune)
    per_epoch = iterations_per_epoch(train_size, recipe)
    end = recipe.length.iterations(per_epoch)
    if weights == "finetune" and finetune is not None:
        return end, end + finetune.iterations(per_epoch)
    return 0 if weights == "init" else rewind_step(train_size, recipe), end


def start_state(weights: str, trained: _T, rewind: _T, initial: _T) -> _T:
    """The weights that a round after round 0 starts from; its mask is applied to them then.

    Args:
        weights: one of ``WEIGHTS``.
        trained: those at the end of the round before.
        rewind: those at the rewind point.
        initial: those before the first iteration.

    Raises:
        ElthError: ``weights`` is none of ``WEIGHTS``.
    """
    if weights not in WEIGHTS:
        raise unknown("weights of a pruning", weights, WEIGHTS)
    return {"rewind": rewind, "init": initial}.get(weights, trained)


def repelling(repel_from: str, earlier: Sequence[_T]) -> tuple[_T, ...]:
    """Those of the earlier rounds of a chain, oldest first, that a round is repelled from.

    Example:
        >>> repelling("all", range(3)), repelling("previous", range(3)), repelling("previous", [])
        ((0, 1, 2), (2,), ())

    Raises:
        ElthError: ``repel_from`` is none of ``REPEL_FROM``.
    """
    if repel_from not in REPEL_FROM:
        raise unknown("repel_from of a pruning", repel_from, REPEL_FROM)
    return tuple(earlier if repel_from == "all" else earlier[-1:])


def noise_of(noise: str, number: int, copy: int = 0) -> Noise:
    """The noise of a round's training; that of round 0 and of rewind points is the common one.

    Args:
        noise: one of ``NOISES``.
        number: the round.
        copy: of a twin, which number it has.

    Raises:
        ElthError: ``noise`` is none of ``NOISES``.
    """
    if noise not in NOISES:
        raise unknown("noise of a pruning", noise, NOISES)
    return Noise(round=number if noise == "round" else COMMON.round, copy=copy)
