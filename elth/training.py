"""Training a masked network, from any iteration to any later one.

The dataset lives on the device as uint8; batches are cut, cropped, flipped and normalised there.
The order of the images, the crops and the flips are drawn for whole epochs by named streams, so an
image's draw depends on the seed, the epoch and the image alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth.data import Dataset
from elth.errors import ElthError
from elth.files import contiguous
from elth.recipes import Recipe
from elth.streams import stream
from elth.tickets import Ticket

_EVALUATION_BATCH = 1000


class NonFiniteLossError(ArithmeticError):
    """The training loss became infinite or not a number.

    No parameter was updated with it. Running statistics of batch normalisation have seen its batch.
    """

    def __init__(self, step: int, epoch: int) -> None:
        """Keep the iteration and the epoch, both counted from 0."""
        super().__init__(f"the training loss was not finite at iteration {step} (epoch {epoch})")
        self.step = step
        self.epoch = epoch


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What is measured at the end of an epoch, or where training stops within one."""

    epoch: int
    """Number of epochs begun since initialisation."""
    step: int
    """Number of iterations done since initialisation."""
    lr: float
    """Learning rate of the epoch's last iteration."""
    train_loss: float
    """Mean cross-entropy over the images of the epoch that were trained on, in nats."""
    test_loss: float
    """Mean cross-entropy over the test set, in nats."""
    test_accuracy: float
    """Test accuracy in percent."""


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


class Training:
    """One training run, epoch by epoch, with a fresh optimiser.

    Iterating trains and yields an ``Epoch`` at the end of each; ``state`` gives the weights.

    Args:
        network: the network to train; its weights are overwritten.
        data: the dataset, on the device to train on.
        recipe: how to train.
        seed: fixes data order and augmentation.
        state: weights to start from; masked weights are zeroed first.
        mask: which weights are trained; all, when there is none.
        start: iteration to start at; schedule and data order go on from there.
        stop: iteration to stop at; the recipe's end when None.

    Raises:
        NonFiniteLossError: while iterating, before the update that would have used the loss.
    """

    def __init__(
        self,
        network: nn.Module,
        data: Dataset,
        recipe: Recipe,
        *,
        seed: int,
        state: Mapping[str, Tensor],
        mask: Mapping[str, Tensor] | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        """Move the network to the data's device, load the weights and zero the pruned ones."""
        device = data.train_images.device
        module: Any = network  # torch's types leave memory_format out of Module.to
        self.network: nn.Module = module.to(device=device, memory_format=torch.channels_last)
        self.network.load_state_dict(dict(state))
        self.data = data
        self.recipe = recipe
        self.seed = seed
        self.per_epoch = iterations_per_epoch(len(data.train_labels), recipe)
        self.step = start
        self.stop = recipe.length.iterations(self.per_epoch) if stop is None else stop
        parameters = dict(network.named_parameters())
        masked = mask or {}
        self._pruned = [parameters[name].detach() for name in masked]
        self._masks = [
            torch.empty_like(parameters[name]).copy_(m.to(device)) for name, m in masked.items()
        ]
        self._apply_masks()
        self._optimiser = _optimiser(self.network, recipe)
        self._scale = torch.tensor(data.info.deviation, device=device).reciprocal()
        self._shift = -torch.tensor(data.info.mean, device=device) * self._scale

    def __iter__(self) -> Iterator[Epoch]:
        """Train; yield what is measured at the end of each epoch."""
        while self.step < self.stop:
            train_loss, lr = self.train_epoch()
            test_accuracy, test_loss = self.evaluate()
            yield Epoch(
                epoch=-(-self.step // self.per_epoch),
                step=self.step,
                lr=lr,
                train_loss=train_loss,
                test_loss=test_loss,
                test_accuracy=test_accuracy,
            )

    def state(self) -> dict[str, Tensor]:
        """A copy of the state dict on the CPU; pruned weights are exactly zero."""
        return contiguous(self.network.state_dict())

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Accuracy in percent and mean cross-entropy in nats over the whole test set."""
        self.network.eval()
        correct = torch.zeros((), dtype=torch.int64, device=self.data.test_labels.device)
        loss = torch.zeros((), dtype=torch.float64, device=self.data.test_labels.device)
        for images, labels in zip(
            torch.split(self.data.test_images, _EVALUATION_BATCH),
            torch.split(self.data.test_labels, _EVALUATION_BATCH),
            strict=True,
        ):
            logits = self.network(self._normalise(images))
            correct += (logits.argmax(1) == labels).sum()
            loss += F.cross_entropy(logits, labels, reduction="sum")
        count = len(self.data.test_labels)
        return 100.0 * int(correct) / count, float(loss) / count

    def train_epoch(self) -> tuple[float, float]:
        """Train to the end of the epoch or to ``stop``: mean loss in nats, last learning rate."""
        epoch = self.step // self.per_epoch
        end = min((epoch + 1) * self.per_epoch, self.stop)
        self.network.train()
        size = len(self.data.train_labels)
        device = self.data.train_labels.device
        order = torch.randperm(size, generator=stream(self.seed, "order", epoch)).to(device)
        draws = _Draws.of_epoch(self.recipe, self.data, self.seed, epoch)
        total = torch.zeros((), dtype=torch.float64, device=device)
        seen, lr = 0, 0.0
        while self.step < end:
            position = (self.step % self.per_epoch) * self.recipe.batch_size
            chosen = order[position : position + self.recipe.batch_size]
            images = self._normalise(draws.augment(self.data.train_images[chosen], chosen))
            lr = self.recipe.lr_at(self.step, self.per_epoch)
            for group in self._optimiser.param_groups:
                group["lr"] = lr
            self._optimiser.zero_grad(set_to_none=True)
            loss = F.cross_entropy(self.network(images), self.data.train_labels[chosen])
            if not bool(torch.isfinite(loss)):
                raise NonFiniteLossError(self.step, epoch)
            torch.autograd.backward(loss)
            self._optimiser.step()
            self._apply_masks()
            total += loss.detach() * len(chosen)
            seen += len(chosen)
            self.step += 1
        if not all(bool(torch.isfinite(p).all()) for p in self.network.parameters()):
            raise NonFiniteLossError(self.step, epoch)
        return float(total) / seen, lr

    def _apply_masks(self) -> None:
        if self._masks:
            with torch.no_grad():
                torch._foreach_mul_(self._pruned, self._masks)

    def _normalise(self, images: Tensor) -> Tensor:
        scaled = images.to(torch.float32) * self._scale[:, None, None]
        return (scaled + self._shift[:, None, None]).contiguous(memory_format=torch.channels_last)


def train_ticket(ticket: Ticket, data: Dataset, recipe: Recipe, *, seed: int) -> Training:
    """Train a ticket from its rewind point to the recipe's end; iterate over the result.

    Schedule and data order go on from the rewind point; the optimiser starts fresh.

    Raises:
        ElthError: the ticket is of another shape of data, or the recipe ends before the rewind
            point.
    """
    if ticket.shape != data.info.shape:
        raise ElthError(
            f"the ticket of {ticket.network} is for {ticket.shape}, "
            f"the dataset {data.info.name} has {data.info.shape}"
        )
    return Training(
        ticket.make_network(),
        data,
        recipe,
        seed=seed,
        state=ticket.rewind,
        mask=ticket.mask,
        start=rewind_step(len(data.train_labels), recipe),
    )


@dataclass(frozen=True, kw_only=True)
class _Draws:
    """The crops and flips of an epoch, one for each training image."""

    offsets: Tensor | None
    flips: Tensor | None
    padding: int

    @staticmethod
    def of_epoch(recipe: Recipe, data: Dataset, seed: int, epoch: int) -> _Draws:
        if recipe.augment == "none":
            return _Draws(offsets=None, flips=None, padding=0)
        size, device = len(data.train_labels), data.train_labels.device
        padding = data.info.shape.size // 8
        offsets = torch.randint(
            0, 2 * padding + 1, (size, 2), generator=stream(seed, "crop", epoch)
        )
        flips = torch.randint(0, 2, (size,), generator=stream(seed, "flip", epoch))
        return _Draws(offsets=offsets.to(device), flips=flips.bool().to(device), padding=padding)

    def augment(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Cut each image out of its zero-padded self at its own place, and flip half of them."""
        if self.offsets is None or self.flips is None:
            return images
        count, channels, height, width = images.shape
        device = images.device
        padded = F.pad(images, (self.padding,) * 4)
        columns = torch.arange(width, device=device).expand(count, width)
        columns = torch.where(self.flips[chosen][:, None], columns.flip(1), columns)
        rows = torch.arange(height, device=device) + self.offsets[chosen, 0][:, None]
        columns = columns + self.offsets[chosen, 1][:, None]
        return padded[
            torch.arange(count, device=device)[:, None, None, None],
            torch.arange(channels, device=device)[:, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]


def _optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimiser == "adam":
        return torch.optim.Adam(
            network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
