"""Training a masked network, from any iteration to any later one.

The dataset gives the batches of an epoch (see ``elth.data``). The order of the images and their
augmentation are drawn for whole epochs by named streams, so an image's draw depends on the seed,
the epoch and the image alone, and training may go on within an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth.counts import iterations_per_epoch as iterations_per_epoch
from elth.counts import rewind_step as rewind_step
from elth.data import Dataset
from elth.errors import ElthError
from elth.files import contiguous
from elth.recipes import Recipe
from elth.tickets import Ticket

_CHECK_EVERY = 100
"""Iterations after which the host asks the device whether the loss was finite throughout."""
_EVALUATION_BATCH = 1000
_EVALUATION_PIXELS = 2**23


class NonFiniteLossError(ArithmeticError):
    """The training loss became infinite or not a number.

    No parameter was updated with it, or since. Running statistics of batch normalisation have seen
    its batch, and those that followed until it was noticed.
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
        ElthError: the recipe's augmentation has no meaning for the dataset.
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
        data.info.check_augment(recipe.augment)
        device = data.device
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
        self._optimiser: Any = _optimiser(self.network, recipe)

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
        correct = torch.zeros((), dtype=torch.int64, device=self.data.device)
        loss = torch.zeros((), dtype=torch.float64, device=self.data.device)
        batch_size = min(_EVALUATION_BATCH, -(-_EVALUATION_PIXELS // self.data.info.shape.size**2))
        with closing(self.data.test_batches(batch_size)) as batches:
            for images, labels in batches:
                logits = self.network(images)
                correct += (logits.argmax(1) == labels).sum()
                loss += F.cross_entropy(logits, labels, reduction="sum")
        count = len(self.data.test_labels)
        return 100.0 * int(correct) / count, float(loss) / count

    def train_epoch(self) -> tuple[float, float]:
        """Train to the end of the epoch or to ``stop``: mean loss in nats, last learning rate."""
        epoch = self.step // self.per_epoch
        first = epoch * self.per_epoch
        self.network.train()
        total = torch.zeros((), dtype=torch.float64, device=self.data.device)
        seen, lr = 0, 0.0
        failed_at = torch.full((), -1, dtype=torch.int64, device=self.data.device)
        batches = self.data.train_batches(
            batch_size=self.recipe.batch_size,
            augment=self.recipe.augment,
            seed=self.seed,
            epoch=epoch,
            start=self.step - first,
            stop=min(self.per_epoch, self.stop - first),
        )
        with closing(batches):
            for images, labels in batches:
                lr = self.recipe.lr_at(self.step, self.per_epoch)
                for group in self._optimiser.param_groups:
                    group["lr"] = lr
                self._optimiser.zero_grad(set_to_none=True)
                loss = F.cross_entropy(self.network(images), labels)
                # Known on the device only, so that nothing waits for it: from the first loss that
                # is not finite, the fused optimiser skips its updates.
                failed = ~torch.isfinite(loss.detach()) & (failed_at < 0)
                failed_at = torch.where(failed, self.step, failed_at)
                self._optimiser.found_inf = (failed_at >= 0).to(torch.float32)
                torch.autograd.backward(loss)
                self._optimiser.step()
                self._apply_masks()
                total += loss.detach() * len(labels)
                seen += len(labels)
                self.step += 1
                if self.step % _CHECK_EVERY == 0:
                    self._check(failed_at, epoch)
        self._check(failed_at, epoch)
        if not all(bool(torch.isfinite(p).all()) for p in self.network.parameters()):
            raise NonFiniteLossError(self.step, epoch)
        return float(total) / seen, lr

    def _check(self, failed_at: Tensor, epoch: int) -> None:
        """Stop where the loss was not finite; no update was made since."""
        if int(failed_at) >= 0:
            self.step = int(failed_at)
            raise NonFiniteLossError(self.step, epoch)

    def _apply_masks(self) -> None:
        if self._masks:
            with torch.no_grad():
                torch._foreach_mul_(self._pruned, self._masks)


def train_ticket(ticket: Ticket, data: Dataset, recipe: Recipe, *, seed: int) -> Training:
    """Train a ticket from its rewind point to the recipe's end; iterate over the result.

    A ticket that was moved to another dataset starts at iteration 0 (``elth.move``).

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
    start = ticket.origin.get("start")
    if start is None:
        start = rewind_step(len(data.train_labels), recipe)
    return Training(
        ticket.make_network(),
        data,
        recipe,
        seed=seed,
        state=ticket.rewind,
        mask=ticket.mask,
        start=start,
    )


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
