"""What a network does with any weights, on images that stay the same."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from elth.analysis import batch_norm as norms
from elth.analysis._networks import fill, make
from elth.analysis.batch_norm import BatchNorm
from elth.data import Batches, Dataset, fixed_images
from elth.engine import Engine
from elth.errors import ElthError, unknown
from elth.evaluation import evaluation_batch, tally
from elth.recipes import Recipe, named
from elth.specs import Spec
from elth.streams import stream
from elth.tickets import state_digest

Part = Literal["train", "test"]
"""Training images without augmentation, or test images."""


class NotMeasurableError(ElthError):
    """There is no such network, or it gives no numbers; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well a network does on some images."""

    images: int
    """How many there are."""
    correct: int
    """How many are classified rightly."""
    loss: float
    """Mean cross-entropy in nats."""

    @property
    def accuracy(self) -> float:
        """Share of the images that are classified rightly, in percent."""
        return 100.0 * self.correct / self.images

    @property
    def error(self) -> float:
        """Share of the images that are classified wrongly, in percent."""
        return 100.0 * (self.images - self.correct) / self.images

    def plain(self) -> dict[str, float]:
        """Number of images, error and loss, as JSON values."""
        return {"images": self.images, "error": self.error, "loss": self.loss}


class Evaluator:
    """Puts states into a network and looks at what it does, in evaluation mode.

    It computes as ``Training.evaluate`` does operation by operation: on the test images the same
    state has the same accuracy and loss, bit for bit. Training images are not augmented. What was
    measured of a state is remembered, so that an end that several paths share is measured once.

    Args:
        network: a network of ``elth`` or ``module:function``, with its options; or a module, which
            is left as it is.
        data: the dataset, on the device to compute on.
        recipe: how the states were trained, or the name of one of ``RECIPES``; its precision is
            computed with.
        on: which images are looked at, of one part or of both.
        images: how many training images, those of ``fixed_images``; all, when there is none.
        batch_norm: what batch normalisation goes by: the ``interpolate``d statistics of the state,
            or those that are ``recompute``d for it.
        batch_norm_images: from how many training images they are recomputed, those of
            ``fixed_images``, in equal batches of about the size of evaluation and in an order
            of their own, which is always the same.

    Raises:
        ElthError: a choice is unknown, or as ``Engine``.
        WrongArithmeticError: the machine computes the network wrongly (``elth.arithmetic``).
    """

    def __init__(
        self,
        network: str | Spec | nn.Module,
        data: Dataset,
        recipe: str | Recipe,
        *,
        on: Part | Sequence[Part] = ("train", "test"),
        images: int | None = None,
        batch_norm: BatchNorm = "interpolate",
        batch_norm_images: int | None = 10_000,
    ) -> None:
        """Make the network on the device of the data, and draw the images."""
        norms.check(batch_norm)
        parts: tuple[Part, ...] = (on,) if isinstance(on, str) else tuple(on)
        for part in parts:
            if part not in get_args(Part):
                raise unknown("part of a dataset", part, get_args(Part))
        made = make(network, data.info.shape)
        # Groups of batch normalisation are a matter of training; recomputing is by whole batches.
        recipe = dataclasses.replace(named(recipe), batch_norm_group=0)
        self._engine = Engine(made, recipe, data.device, shape=data.info.shape.image)
        self.network: nn.Module = self._engine.network
        self.data = data
        self.on = parts
        self._batch = evaluation_batch(data.info)
        size = len(data.train_labels)
        self._images = fixed_images(size, images)
        self._recomputed: tuple[Tensor, ...] = ()
        if batch_norm == "recompute":
            chosen = fixed_images(size, batch_norm_images)
            if len(chosen) < 2:
                raise ElthError(
                    "statistics of batch normalisation are taken of 2 images at least, found "
                    f"{len(chosen)}: raise batch_norm_images"
                )
            # Images may be listed class by class, and batches of few classes lack the variance
            # between them.
            order = torch.randperm(len(chosen), generator=stream(0, "recomputed order"))
            chosen = chosen[order]
            # Equal parts, as a last batch of one image has no statistics.
            self._recomputed = torch.tensor_split(chosen, -(-len(chosen) // self._batch))
        self._known: dict[str, dict[Part, Score]] = {}

    def __call__(self, state: Mapping[str, Tensor]) -> dict[str, float]:
        """Error in percent and loss in nats on each part, as ``train_error`` and ``test_loss``.

        Raises:
            NotMeasurableError: as ``scores``.
            ElthError: as ``scores``.
        """
        return {
            f"{part}_{what}": value
            for part, score in self.scores(state).items()
            for what, value in (("error", score.error), ("loss", score.loss))
        }

    def scores(self, state: Mapping[str, Tensor]) -> dict[Part, Score]:
        """How well the network does with a state, on each part.

        Raises:
            NotMeasurableError: a running variance is negative, or a logit is not finite.
            ElthError: the state is of another network.
        """
        digest = state_digest(state)
        if digest not in self._known:
            self._load(state)
            self._known[digest] = {part: self._score(part) for part in self.on}
        return dict(self._known[digest])

    @torch.no_grad()
    def logits(self, state: Mapping[str, Tensor], part: Part) -> Tensor:
        """Logits (n, classes) of the images of a part, in their order, on the device.

        Raises:
            NotMeasurableError: a running variance is negative, or a logit is not finite.
            ElthError: the state is of another network.
        """
        self._load(state)
        with closing(self._batches(part)) as batches:
            found = torch.cat([self._engine.logits(images) for images, _ in batches])
        if not bool(torch.isfinite(found).all()):
            raise _not_finite(part)
        return found

    def labels(self, part: Part) -> Tensor:
        """Labels (n,) of the images of a part, in their order, on the device."""
        if part == "test":
            return self.data.test_labels
        return self.data.train_labels[self._images.to(self.data.device)]

    def _score(self, part: Part) -> Score:
        correct, loss = tally(self._engine.logits, self._batches(part), self.data.device)
        images = len(self.labels(part))
        score = Score(images=images, correct=int(correct), loss=float(loss) / images)
        if not math.isfinite(score.loss):
            raise _not_finite(part)
        return score

    def _batches(self, part: Part) -> Batches:
        if part == "test":
            return self.data.test_batches(self._batch)
        return self.data.samples(self._images.split(self._batch))

    def _load(self, state: Mapping[str, Tensor]) -> None:
        negative = "" if self._recomputed else norms.negative_variance(state)
        if negative:
            raise NotMeasurableError(f"the running variance '{negative}' is negative")
        fill(self.network, state)
        self.network.eval()
        if self._recomputed:
            norms.recompute(self.network, self._engine.logits, self.data.samples(self._recomputed))


def _not_finite(part: Part) -> NotMeasurableError:
    return NotMeasurableError(f"the logits of a {part} image are not finite")
