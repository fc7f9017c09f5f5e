"""Networks compared by what they say: function distance, and what pruning does to a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from elth import masks
from elth.analysis._numbers import number
from elth.errors import ElthError


@dataclass(frozen=True, kw_only=True)
class FunctionDistance:
    """How differently two networks judge the same images."""

    images: int
    """How many there are."""
    disagreement: float
    """Share of the images whose top class differs, in [0, 1]."""
    expected: float
    """The share that two networks of these errors would have if their errors were independent and
    fell on all wrong classes alike: ``1 - (1 - e1)(1 - e2) - e1 e2 / (classes - 1)``."""
    relative: float
    """``disagreement / expected`` (after Fort et al. 2019): 1 for networks that have
    nothing in common but their errors' number, 0 for the same function; NaN if neither errs."""
    kl: float
    """Mean over the images of KL(first || second), in nats."""
    kl_back: float
    """Mean over the images of KL(second || first), in nats."""

    def plain(self) -> dict[str, float | None]:
        """All fields as JSON values; None for what is not a number."""
        return {field.name: number(getattr(self, field.name)) for field in fields(self)}


def function_distance(first: Tensor, second: Tensor, labels: Tensor) -> FunctionDistance:
    """Compare two networks by their logits on the same images, in float64.

    Evci et al. 2020 (2010.03533) ask so whether a ticket learns the function of the network that it
    was pruned from.

    Args:
        first: logits (n, classes) of one network.
        second: those of the other.
        labels: classes (n,) of the images.

    Raises:
        ElthError: the logits are of other images or classes than each other or the labels.
    """
    if first.shape != second.shape or first.dim() != 2 or labels.shape != first.shape[:1]:
        raise ElthError(
            f"two networks are compared by logits of the same images and classes, found "
            f"{tuple(first.shape)} and {tuple(second.shape)} for labels {tuple(labels.shape)}"
        )
    images, classes = first.shape
    tops = [logits.argmax(1) for logits in (first, second)]
    e1, e2 = (int((top != labels).sum()) / images for top in tops)
    disagreement = int((tops[0] != tops[1]).sum()) / images
    both_wrong = e1 * e2 * classes / (classes - 1) if classes > 1 else 0.0
    expected = e1 + e2 - both_wrong
    log_p, log_q = (torch.log_softmax(logits.double(), 1) for logits in (first, second))
    apart = log_p - log_q
    return FunctionDistance(
        images=images,
        disagreement=disagreement,
        expected=expected,
        relative=disagreement / expected if expected else math.nan,
        kl=float((log_p.exp() * apart).sum(1).mean()),
        kl_back=float((log_q.exp() * -apart).sum(1).mean()),
    )


@dataclass(frozen=True, kw_only=True)
class ProjectionDamage:
    """How far pruning throws a trained network, before anything is retrained."""

    before: Mapping[str, float]
    """What was measured of the trained network, as ``test_error`` in percent."""
    after: Mapping[str, float]
    """The same of the network without the weights that are pruned."""

    @property
    def damage(self) -> dict[str, float]:
        """By how much each number has grown."""
        return {name: self.after[name] - value for name, value in self.before.items()}

    def plain(self) -> dict[str, Any]:
        """All of it as JSON values; None for what is not a number."""
        parts = {"before": self.before, "after": self.after, "damage": self.damage}
        return {part: {n: number(v) for n, v in one.items()} for part, one in parts.items()}


def projection_damage(
    trained: Mapping[str, Tensor],
    mask: Mapping[str, Tensor],
    measure: Callable[[Mapping[str, Tensor]], Mapping[str, float]],
) -> ProjectionDamage:
    """Compare a trained network with its projection to a mask (Paul et al. 2023).

    ``E(m theta) - E(theta)``, with theta the trained weights of a round and m the mask of the
    next one, or of any other; ``norm_removed`` tells how far the two lie apart. Batch normalisation
    keeps the statistics of the trained network, as nothing was trained since, unless what is
    measured takes them anew.

    Args:
        trained: the state dict.
        mask: which of its weights are kept.
        measure: what is measured, as an ``Evaluator``.

    Raises:
        NotMeasurableError: as what is measured.
        ElthError: the mask does not fit the state.
    """
    projected = masks.apply(mask, trained)
    return ProjectionDamage(before=dict(measure(trained)), after=dict(measure(projected)))
