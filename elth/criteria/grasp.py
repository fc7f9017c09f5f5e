"""GraSP: the weights stay that preserve the gradient's norm (Wang et al. 2020)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from elth.criteria._gradients import (
    Batch,
    Mode,
    Samples,
    finite,
    loss,
    replica,
    required,
    scoring,
    some,
)
from elth.criteria._selection import check_count, keep_highest, on_cpu, spared
from elth.errors import ElthError, unknown
from elth.masks import Mask
from elth.specs import DataShape
from elth.streams import stream

Halves = Literal["disjoint", "joint"]
"""Gradient and Hessian product each from its own half of the images, or both from all of them."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which images GraSP is scored on, and how; the defaults are the authors' for CIFAR.

    Raises:
        ElthError: a kind of halves that is unknown, or disjoint halves of a single part.
    """

    samples_per_class: int = 10
    """Images of each class in a batch: 10 for CIFAR, 1 for ImageNet."""
    batches: int = 1
    """How many batches are summed: 1 for CIFAR, 150 for ImageNet."""
    temperature: float = 200.0
    """Divides the logits."""
    mode: Mode = "train"
    """``train``: batch normalisation by the statistics of the part; ``eval``: by the running
    ones."""
    parts: int = 2
    """A batch goes through the network in so many parts, over which the gradient g and the product
    Hg of Hessian and gradient are summed: the authors take two for want of memory; 10 make it 100
    images of ImageNet at a time."""
    halves: Halves = "joint"
    """``joint``: both over all parts, as the authors have it; ``disjoint``: g over the first half
    of the parts, Hg over the second."""

    def __post_init__(self) -> None:
        """Refuse halves that cannot be."""
        if self.halves not in get_args(Halves):
            raise unknown("kind of halves", self.halves, get_args(Halves))
        if self.halves == "disjoint" and self.parts < 2:
            raise ElthError(
                f"GraSP on disjoint halves needs at least 2 parts, found {self.parts}; raise "
                "parts, or take halves joint"
            )


@scoring
def scores(
    network: nn.Module,
    mask: Mapping[str, Tensor],
    first: Iterable[Batch],
    second: Iterable[Batch],
    *,
    temperature: float = 200.0,
    mode: Mode = "train",
) -> dict[str, Tensor]:
    """Score ``w * Hg``, which is -S of Wang et al. 2020, algorithm 1: the highest stay.

    g is the gradient of the cross-entropy of logits / temperature, summed over the batches of
    ``first`` (each its mean), H the Hessian of the same loss over ``second``. Both are taken over
    the weights that the mask keeps. Hg is the gradient of ``sum(g * dL/dw)`` with g held
    constant (algorithm 2).

    Returns:
        For each weight of the mask its scores, signed, on the network's device.

    Raises:
        ElthError: the mask does not fit, one of the two has no batch, as an iterator that was gone
            through has none, or the loss or a score is not finite.
    """
    model, weights = replica(network, mask, mode)
    variables = list(weights.values())

    def gradient_of(batch: Batch, *, twice: bool) -> tuple[Tensor, ...]:
        with sdpa_kernel(SDPBackend.MATH):  # the others of attention have no second derivative
            value = loss(model, batch, reduction="mean", temperature=temperature)
        return torch.autograd.grad(value, variables, create_graph=twice, materialize_grads=True)

    gradient = [torch.zeros_like(w) for w in variables]
    for batch in some(first, "grasp"):
        part = gradient_of(batch, twice=False)
        gradient = [g + p for g, p in zip(gradient, part, strict=True)]
    gradient = [g * mask[n].to(g.device) for n, g in zip(weights, gradient, strict=True)]
    product = [torch.zeros_like(w) for w in variables]
    for batch in some(second, "grasp"):
        varying = gradient_of(batch, twice=True)
        inner = torch.stack([(g * v).sum() for g, v in zip(gradient, varying, strict=True)]).sum()
        part = torch.autograd.grad(inner, variables, materialize_grads=True)
        product = [h + p for h, p in zip(product, part, strict=True)]
    return finite(
        {n: w.detach() * h for (n, w), h in zip(weights.items(), product, strict=True)}, "grasp"
    )


def draw(
    labels: Tensor, classes: int, *, samples_per_class: int, batches: int, parts: int, seed: int
) -> list[list[Tensor]]:
    """Draw the batches without replacement from the stream "grasp", each in parts.

    A batch holds ``samples_per_class`` images of every class. They go to its parts in turn, so
    that the classes are spread over the parts as evenly as can be.

    Args:
        labels: the labels (N,) of the training set.
        classes: how many classes there are.
        samples_per_class: images of a class in a batch, all parts together.
        batches: how many batches.
        parts: how many parts a batch has.
        seed: fixes the draw.

    Returns:
        For each batch the indices of each of its parts.

    Raises:
        ElthError: a class has too few images, or there are more parts than images in a batch.
    """
    if parts > samples_per_class * classes:
        raise ElthError(
            f"a batch of GraSP has {samples_per_class * classes} images (samples_per_class "
            f"{samples_per_class}, {classes} classes) and cannot be cut into {parts} parts; lower "
            "parts"
        )
    needed = samples_per_class * batches
    labels = labels.cpu()
    counts = torch.bincount(labels, minlength=classes)
    fewest = int(counts[:classes].argmin())
    if int(counts[fewest]) < needed:
        raise ElthError(
            f"GraSP asks for {needed:,} training images of each class (samples_per_class "
            f"{samples_per_class}, batches {batches}), class {fewest} has "
            f"{int(counts[fewest]):,}; lower samples_per_class or batches"
        )
    shuffled = torch.randperm(len(labels), generator=stream(seed, "grasp"))
    by_class = shuffled[torch.sort(labels[shuffled], stable=True).indices].split(counts.tolist())
    drawn = torch.stack([of_class[:needed] for of_class in by_class[:classes]])
    # (batches, samples_per_class, classes)
    drawn = drawn.view(classes, batches, samples_per_class).permute(1, 2, 0)
    # Class by class: however many parts there are, each takes its turn within a class.
    places = torch.arange(samples_per_class)[:, None] + samples_per_class * torch.arange(classes)
    turns = (places + torch.arange(batches)[:, None, None]) % parts
    return [
        [b[turn == part] for part in range(parts)] for b, turn in zip(drawn, turns, strict=True)
    ]


def prune(
    network: nn.Module,
    mask: Mapping[str, Tensor],
    keep: int,
    *,
    shape: DataShape,
    data: Samples | None,
    seed: int,
    unpruned: Collection[str] | None = None,
    settings: Settings = Settings(),
) -> Mask:
    """Keep the ``keep`` weights of the highest ``w * Hg``: remove the highest S = -w * Hg.

    Args:
        network: the network with its weights; it is left as it is.
        mask: what is left so far.
        keep: the number of weights that are left afterwards.
        shape: tells the number of classes.
        data: the dataset; its training images are used, not augmented.
        seed: fixes which (see ``draw``).
        unpruned: names of weights that are left whole; None for the anatomy's.
        settings: which images, and how.

    Raises:
        ElthError: the count is impossible, a class has too few images, or as ``scores``.
    """
    data = required(data, "grasp")
    mask, whole = on_cpu(mask), spared(network, unpruned)
    check_count(mask, keep, whole)
    result = _scored(network, mask, shape, data, seed, settings)
    return keep_highest(result, mask, keep, unpruned=whole)


def prune_absolute(
    network: nn.Module,
    mask: Mapping[str, Tensor],
    keep: int,
    *,
    shape: DataShape,
    data: Samples | None,
    seed: int,
    unpruned: Collection[str] | None = None,
    settings: Settings = Settings(),
) -> Mask:
    """Keep the ``keep`` weights of the highest ``|w * Hg|``; otherwise as ``prune``.

    This is not the published method: the absolute value is what the public code of E-LTH takes,
    there over the whole augmented training set in evaluation mode.
    """
    data = required(data, "grasp_absolute")
    mask, whole = on_cpu(mask), spared(network, unpruned)
    check_count(mask, keep, whole)
    result = _scored(network, mask, shape, data, seed, settings)
    result = {name: score.abs() for name, score in result.items()}
    return keep_highest(result, mask, keep, unpruned=whole)


def _scored(
    network: nn.Module,
    mask: Mapping[str, Tensor],
    shape: DataShape,
    data: Samples,
    seed: int,
    settings: Settings,
) -> dict[str, Tensor]:
    """The scores by images that are drawn."""
    drawn = draw(
        data.train_labels,
        shape.classes,
        samples_per_class=settings.samples_per_class,
        batches=settings.batches,
        parts=settings.parts,
        seed=seed,
    )
    first = second = [part for batch in drawn for part in batch]
    if settings.halves == "disjoint":
        first = [part for batch in drawn for part in batch[: settings.parts // 2]]
        second = [part for batch in drawn for part in batch[settings.parts // 2 :]]
    return scores(
        network,
        mask,
        (data.sample(part) for part in first),
        (data.sample(part) for part in second),
        temperature=settings.temperature,
        mode=settings.mode,
    )
