"""Training a masked network, from any iteration to any later one.

The dataset gives the batches of an epoch (see ``elth.data``). The order of the images and their
augmentation are drawn for whole epochs by named streams, so an image's draw depends on the seed,
the epoch, the noise and the image alone, and training may go on within an epoch.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from elth.checkpoints import Checkpoint
from elth.counts import check_last_batch
from elth.counts import iterations_per_epoch as iterations_per_epoch
from elth.counts import rewind_step as rewind_step
from elth.data import Dataset, Part, check_dataset
from elth.dynamic import Evolution
from elth.engine import Engine
from elth.errors import ElthError
from elth.evaluation import evaluation_batch as evaluation_batch
from elth.evaluation import tally
from elth.networks import smallest_norm
from elth.parallel import Group
from elth.recipes import Recipe, named
from elth.repulsion import Repulsion
from elth.streams import COMMON, Noise, seed_defaults, stream
from elth.tensors import contiguous
from elth.tickets import Ticket

_CHECK_EVERY = 100
"""Iterations after which the host asks the device whether the loss was finite throughout."""
_CHECK_SECONDS = 10.0
"""Seconds after which it asks at the latest, and a run that is to end is heard of."""
_TIMED = 5
"""Iterations of each epoch that several workers time, after the first, to ask as often as that."""
_HOLDERS: WeakKeyDictionary[nn.Module, object] = WeakKeyDictionary()
"""Whose weights a network holds: the token of the last training that was made with it."""


class NonFiniteLossError(ArithmeticError):
    """The training loss became infinite or not a number.

    No parameter was updated with it, or since; a mask that was to change then may have changed.
    Running statistics of batch normalisation have seen its batch, and those that followed until it
    was noticed.
    """

    def __init__(self, step: int, epoch: int) -> None:
        """Keep the iteration and the epoch, both counted from 0."""
        super().__init__(
            f"the training loss was not finite at iteration {step} (epoch {epoch}): lower lr or "
            "give a warmup; where it is so from the first iteration on, look at what the network "
            "gives for an image"
        )
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
    """Mean training loss over the images of the epoch that were trained on, in nats: cross-entropy,
    with the recipe's smoothing of labels."""
    test_loss: float
    """Mean cross-entropy over the test set, in nats."""
    test_accuracy: float
    """Test accuracy in percent."""
    repulsion: float | None = None
    """Mean repellent loss J over the images of the epoch (``elth.repulsion``), each at the weights
    that it was trained with; it is in no other loss. None where nothing repels."""
    exploration: float | None = None
    """Of the weights that may be pruned, the fraction that was trained at some time (ITOP's rate,
    Liu et al. 2021). None where the mask does not change."""
    changed: int | None = None
    """Connections that came into the mask in the epoch. None where it does not change."""

    def __str__(self) -> str:
        """One line for people."""
        repelled = "" if self.repulsion is None else f", repulsion {self.repulsion:.4f}"
        if self.changed is not None:
            repelled += f", {self.changed:,} connections changed"
        return (
            f"epoch {self.epoch} (iteration {self.step:,}, rate {self.lr:g}): loss "
            f"{self.train_loss:.4f}{repelled}, on the test set {self.test_loss:.4f}, accuracy "
            f"{self.test_accuracy:.2f} %"
        )


class Training:
    """One training run, epoch by epoch, with a fresh optimiser.

    Iterating trains and yields an ``Epoch`` at the end of each; ``state`` gives the weights. The
    network's weights are overwritten: once another training has been made with it, this one raises
    an error instead of going on with the other's.

    Args:
        network: the network to train, whose weights are overwritten, or an engine of it. With an
            engine of several workers all of them train, each on its part of every batch, and all
            arguments but the device of the data are the same.
        data: the dataset, on the device to train on.
        recipe: how to train.
        seed: fixes data order and augmentation.
        state: weights to start from; masked weights are zeroed first.
        mask: which weights are trained; all, when there is none.
        start: iteration to start at; schedule and data order go on from there.
        stop: iteration to stop at; the recipe's end when None.
        at_check: is called with the training within an epoch, every 100 iterations and, with one
            worker, every ten seconds, when all losses so far are known to be finite: the moment to
            take a ``checkpoint``.
        noise: another order, augmentation and dropout than those of the seed alone.
        repulsion: a loss that keeps the prunable weights from optima, beside cross-entropy. Without
            strength or optima the training is that without it, bit for bit.
        evolution: a mask that changes, in place of ``mask``; it begins as it is given, and goes
            through this training alone.

    Raises:
        ElthError: the recipe's augmentation has no meaning for the dataset or part of its schedule
            is never reached, the device lacks its precision, mask or optima do not fit, batch
            normalisation would see a last batch of one value, the dataset knows of no noise, the
            engine is another recipe's, its workers were given different things, a mask that
            changes has gone through another training, is made for another span or does not go
            with the optimiser, or the start lies before 0 or behind the stop.
        WrongArithmeticError: the machine computes the network wrongly (``elth.arithmetic``).
        NonFiniteLossError: while iterating, before the update that would have used the loss.
    """

    repulsion: float | None
    """Mean repellent loss of the last epoch, as in ``Epoch``."""
    evolution: Evolution | None
    """The mask, if it changes; its ``mask`` is the one of now."""

    def __init__(
        self,
        network: nn.Module | Engine,
        data: Dataset,
        recipe: Recipe,
        *,
        seed: int,
        state: Mapping[str, Tensor],
        mask: Mapping[str, Tensor] | None = None,
        start: int = 0,
        stop: int | None = None,
        at_check: Callable[[Training], None] | None = None,
        noise: Noise = COMMON,
        repulsion: Repulsion | None = None,
        evolution: Evolution | None = None,
    ) -> None:
        """Move the network to the data's device, load the weights and zero the pruned ones."""
        data.info.check_augment(recipe.augment)
        _check_noise(data, noise)
        self._images = len(data.train_labels)
        self.per_epoch = iterations_per_epoch(self._images, recipe)
        recipe.check(self.per_epoch)
        length = recipe.length.iterations(self.per_epoch)
        end = length if stop is None else stop
        if not 0 <= start <= end:
            raise ElthError(
                f"a training goes from a start of 0 or more to its stop, found {start} and {end} "
                f"(the recipe has {length} iterations)"
            )
        self._check_last_batch(network, data, recipe, start, end)
        if evolution is not None:  # before anything is taken from another training
            _check_evolution(evolution, mask, repulsion)
            evolution.method.check(recipe, self.per_epoch, start)
            evolution.check_span(length=length, per_epoch=self.per_epoch, start=start)
            mask = evolution.mask
        self._token = object()
        if not isinstance(network, Engine):
            _HOLDERS[network] = self._token  # from here on it may be arranged for this recipe
            network = Engine(network, recipe, data.device, shape=data.info.shape.image)
        elif network.recipe != recipe or network.device.type != data.device.type:
            raise ElthError(
                f"the engine is one for {network.recipe} on {network.device}, and this training "
                f"is by {recipe} on {data.device}: make an engine for it"
            )
        network.check_mask(mask or {})
        if evolution is not None:
            network.check_changing(evolution.mask, evolution.method.name)
        self.engine = network
        self.network = network.network
        self.data = data
        self.recipe = recipe
        self.seed = seed
        self.noise = noise
        self.step = start
        self.stop = end
        self._at_check = at_check
        self._every, self._timed_from = _CHECK_EVERY, 0.0
        self._seen = 0
        self._mask = mask
        self._repulsion = repulsion
        self.evolution = evolution
        self._hides = "" if evolution is None else evolution.method.hides
        self.repulsion = None
        self._group = network.group
        unit = recipe.batch_norm_group
        self._part = Part() if self._group is None else self._group.part(unit or 1)
        if self._group is not None:
            what = "the tickets" if repulsion is None else "the tickets and optima"
            self._group.check_same({**state, **_named(mask), **_spelled(repulsion)}, what)
            given = (seed, noise.plain(), start, self.stop, recipe.full(), data.info.identity())
            what = "the seed, noise, span, recipe or dataset"
            self._group.check_same({"given": _bytes(given)}, what)
        _HOLDERS[self.network] = self._token
        self.engine.begin(state, mask, start, repulsion, self._hides)
        if evolution is not None:
            evolution.take()
            evolution.to(self.engine.device)

    def _check_owner(self) -> None:
        """Refuse to go on with the weights of another training."""
        if _HOLDERS.get(self.network) is not self._token:
            raise ElthError(
                "the network of this training was given to another one, which has overwritten its "
                "weights: give each training a network of its own, or end one before the next"
            )

    def _check_last_batch(
        self,
        network: nn.Module | Engine,
        data: Dataset,
        recipe: Recipe,
        start: int,
        end: int,
    ) -> None:
        """Refuse a last batch of which batch normalisation can take no statistics."""
        if start + (self.per_epoch - 1 - start) % self.per_epoch >= end:  # it is never reached
            return
        with contextlib.suppress(ElthError):
            check_last_batch(self._images, recipe, "")
            return
        module = network.network if isinstance(network, Engine) else network
        name, values = smallest_norm(module, data.info.shape)
        if values == 1:
            check_last_batch(self._images, recipe, f" at '{name}'")

    def checkpoint(self) -> Checkpoint:
        """All that it takes to go on from here, bit for bit; the device is waited for.

        It is the same for all workers.
        """
        self._check_owner()
        return Checkpoint(
            step=self.step,
            seen=self._seen,
            loss=self.engine.loss_sum(reset=False),
            weights=self.state(),
            optimiser=self.engine.optimiser_state(),
            repulsion=self.engine.repulsion_sum(reset=False) or 0.0,
            evolution=contiguous({} if self.evolution is None else self.evolution.tensors()),
            hidden=self.engine.hidden_values(),
        )

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same training: of network, data and all that fixes it.

        Raises:
            ElthError: it lies outside of the bounds, or is of another network, another optimiser or
                another sparse training.
        """
        self._check_owner()
        if not self.step <= checkpoint.step <= self.stop:
            raise ElthError(
                f"the checkpoint is of iteration {checkpoint.step}, and this training goes from "
                f"{self.step} to {self.stop}"
            )
        expected = {name: tensor.shape for name, tensor in self.network.state_dict().items()}
        found = {name: tensor.shape for name, tensor in checkpoint.weights.items()}
        if found != expected:
            name = min(name for name in expected | found if found.get(name) != expected.get(name))
            raise ElthError(
                f"the checkpoint is of another network: '{name}' should be of shape "
                f"{_told(expected.get(name))}, found {_told(found.get(name))}"
            )
        if bool(checkpoint.evolution) != (self.evolution is not None):
            words = ("stays", "changes")
            of, here = words[bool(checkpoint.evolution)], words[self.evolution is not None]
            raise ElthError(
                f"the checkpoint is of a training whose mask {of}, and that of this one {here}"
            )
        self.engine.check_optimiser(checkpoint.optimiser)
        self.step, self._seen = checkpoint.step, checkpoint.seen
        mask = self._mask
        if self.evolution is not None:
            self.evolution.resume(checkpoint.evolution)
            mask = self.evolution.mask
        self.engine.begin(checkpoint.weights, mask, self.step, self._repulsion, self._hides)
        self.engine.resume(
            checkpoint.optimiser,
            loss_sum=checkpoint.loss,
            at=self.step,
            repulsion_sum=checkpoint.repulsion,
            hidden=checkpoint.hidden,
        )

    def __iter__(self) -> Iterator[Epoch]:
        """Train; yield what is measured at the end of each epoch."""
        while self.step < self.stop:
            train_loss, lr = self.train_epoch()
            test_accuracy, test_loss = self.evaluate()
            evolution = self.evolution
            yield Epoch(
                epoch=-(-self.step // self.per_epoch),
                step=self.step,
                lr=lr,
                train_loss=train_loss,
                test_loss=test_loss,
                test_accuracy=test_accuracy,
                repulsion=self.repulsion,
                exploration=None if evolution is None else evolution.exploration(),
                changed=None if evolution is None else evolution.changed(),
            )
        if self._group is not None:
            self._group.check_same(self.state(), "the trained weights")

    def run(self, on_epoch: Callable[[Epoch], object] = print) -> Epoch:
        """Train to the end; returns the last epoch, whose accuracy is the result.

        Args:
            on_epoch: is called with each epoch as it ends; by default it is printed.

        Raises:
            ElthError: the end was reached before.
            NonFiniteLossError: before the update that would have used the loss.
        """
        last = None
        for epoch in self:
            on_epoch(epoch)
            last = epoch
        if last is None:
            raise ElthError(
                f"this training is at its end, iteration {self.stop:,}: nothing is left to run; "
                "state() gives its weights, evaluate() its accuracy"
            )
        return last

    def state(self) -> dict[str, Tensor]:
        """A copy of the state dict on the CPU; pruned weights are exactly zero."""
        self._check_owner()
        return contiguous(self.network.state_dict())

    def evaluate(self) -> tuple[float, float]:
        """Accuracy in percent and mean cross-entropy in nats over the whole test set."""
        self._check_owner()
        self.network.eval()
        part = Part() if self._group is None else self._group.part()
        batches = self.data.test_batches(evaluation_batch(self.data.info), part)
        correct, loss = tally(self.engine.logits, batches, self.data.device)
        if self._group is not None:
            correct, loss = self._group.sum(correct), self._group.sum(loss)
        count = len(self.data.test_labels)
        return 100.0 * int(correct) / count, float(loss) / count

    def train_epoch(self) -> tuple[float, float]:
        """Train to the end of the epoch or to ``stop``: mean loss in nats, last learning rate.

        The mean repellent loss is then in ``repulsion``.
        """
        self._check_owner()
        epoch = self.step // self.per_epoch
        first = epoch * self.per_epoch
        self.network.train()
        lr, checked, begun = 0.0, time.monotonic(), self.step
        batches = self.data.train_batches(
            batch_size=self.recipe.batch_size,
            augment=self.recipe.augment,
            seed=self.seed,
            epoch=epoch,
            start=self.step - first,
            stop=min(self.per_epoch, self.stop - first),
            part=self._part,
            **({} if self.noise == COMMON else {"noise": self.noise}),
        )
        with closing(batches):
            for images, labels in batches:
                lr = self.recipe.lr_at(self.step, self.per_epoch)
                # Of the whole batch; the last one of an epoch may be smaller.
                count = min(
                    self.recipe.batch_size,
                    self._images - (self.step - first) * self.recipe.batch_size,
                )
                evolution = self.evolution
                hold = evolution is not None and evolution.before(self.engine, self.step)
                with self._drawn():
                    self.engine.step(images, labels, lr, count, hold=hold)
                if evolution is not None:
                    evolution.after(self.engine, self.step)
                self._seen += count
                self.step += 1
                self._space_checks(self.step - begun)
                late = time.monotonic() - checked > _CHECK_SECONDS
                # Several workers ask together, so they go by iterations alone.
                if self.step % self._every == 0 or (late and self._group is None):
                    checked = time.monotonic()
                    self.engine.settle()
                    self._check(epoch)
                    inside = self.step % self.per_epoch and self.step < self.stop
                    if self._at_check is not None and inside:
                        self._at_check(self)
        self.engine.settle()
        self._check(epoch)
        finite = [torch.isfinite(p).all() for p in self.network.parameters()]
        if not bool(torch.stack(finite).all()):
            raise NonFiniteLossError(self.step, epoch)
        loss = self.engine.loss_sum() / self._seen
        repelled = self.engine.repulsion_sum()
        self.repulsion = None if repelled is None else repelled / self._seen
        self._seen = 0
        return loss, lr

    def _space_checks(self, done: int) -> None:
        """Have several workers check so often as their iterations take, by the first one's clock.

        Where running statistics follow groups of a batch, a check makes them the mean of all: their
        last bits tell when it was made, so it is made by iterations alone.
        """
        if self._group is None or self.recipe.batch_norm_group or done not in (1, 1 + _TIMED):
            return
        self.engine.failed_at()  # the device is waited for
        now = time.monotonic()
        if done > 1:
            most = int(_CHECK_SECONDS * _TIMED / max(now - self._timed_from, 1e-6))
            self._every = self._group.share(min(max(most, 1), _CHECK_EVERY))
        self._timed_from = now

    def _drawn(self) -> contextlib.AbstractContextManager[Any]:
        """Let what a network draws depend on seed, noise and iteration alone, as dropout does."""
        if not self.engine.draws:
            return contextlib.nullcontext()
        return self._seeded()

    @contextlib.contextmanager
    def _seeded(self) -> Iterator[None]:
        worker = f" of worker {self._group.rank}" if self._group and self._group.rank else ""
        number = stream(self.seed, f"draws{worker}", self.step, self.noise).initial_seed()
        devices = [self.engine.device] if self.engine.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            seed_defaults(number, self.engine.device)
            yield

    def _check(self, epoch: int) -> None:
        """Stop where the loss was not finite; no update was made since."""
        failed_at = self.engine.failed_at()
        if failed_at >= 0:
            self.step = failed_at
            raise NonFiniteLossError(self.step, epoch)


def _check_noise(data: Dataset, noise: Noise) -> None:
    """Refuse a noise of a dataset from outside that knows of none."""
    if noise == COMMON:
        return
    try:
        inspect.signature(data.train_batches).bind_partial(noise=noise)
    except TypeError as error:
        raise ElthError(
            f"the dataset {data.info.name} draws the same for every noise, and this training is to "
            f"have {noise}: let train_batches of {type(data).__name__} take noise, and name its "
            "streams by it (elth.streams.stream)"
        ) from error


def _check_evolution(
    evolution: Evolution,
    mask: Mapping[str, Tensor] | None,
    repulsion: Repulsion | None,
) -> None:
    """Refuse what does not go with a mask that changes."""
    evolution.check_new()
    name = evolution.method.name
    if mask is not None:
        raise ElthError(f"method {name} has a mask of its own: leave out mask")
    if repulsion is not None and repulsion.acts:
        raise ElthError(
            f"method {name} changes its mask, and a repellent loss needs one that stays"
        )


def _bytes(values: object) -> Tensor:
    """JSON values as a tensor."""
    text = json.dumps(values, sort_keys=True, default=str)
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def _named(mask: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    return {f"mask.{name}": kept for name, kept in (mask or {}).items()}


def _spelled(repulsion: Repulsion | None) -> dict[str, Tensor]:
    """A repulsion as tensors."""
    if repulsion is None:
        return {}
    found = {"strength": torch.tensor(repulsion.strength, dtype=torch.float64)}
    for number, optimum in enumerate(repulsion.optima):
        found |= {f"optimum {number}.{name}": tensor for name, tensor in optimum.items()}
    return found


def _told(shape: Sequence[int] | None) -> str:
    return "nothing" if shape is None else "x".join(map(str, shape)) or "a number"


def engine_for(
    network: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    compile: bool = False,
    group: Group | None = None,
) -> Engine:
    """An engine for trainings of a network on a dataset, on the device where that is."""
    return Engine(
        network,
        recipe,
        data.device,
        shape=data.info.shape.image,
        evaluation_batch=evaluation_batch(data.info),
        compile=compile,
        group=group,
    )


def train_ticket(
    ticket: Ticket,
    data: Dataset,
    recipe: str | Recipe,
    *,
    seed: int | None = None,
    start: int | None = None,
    compile: bool = False,
    group: Group | None = None,
    noise: Noise | None = None,
    repulsion: Repulsion | None = None,
) -> Training:
    """Train a ticket from its rewind point to the recipe's end, or as it says itself.

    Iterate over the result, which gives its epochs, or let it ``run()``.

    Schedule and data order go on from the rewind point; the optimiser starts fresh. A ticket that
    was moved to another dataset starts at iteration 0 (``elth.move``).

    Args:
        ticket: the ticket.
        data: the dataset, on the device to train on.
        recipe: how to train, or the name of one of ``RECIPES``.
        seed: fixes data order and augmentation; by default the ticket's own.
        start: iteration to start at; by default the ticket's rewind point.
        compile: compile the network first, which takes a minute and pays for long trainings.
        group: the workers that train it together (``elth.parallel``), each of which calls this.
        noise: another order and augmentation than the ticket's own, as ``Noise(copy=1)`` for a
            twin of one whose rounds have their noise in common.
        repulsion: a loss that keeps it from the trained weights of other trainings. The rounds of a
            control repel each other so::

                optima = []
                for round in rounds:
                    training = elth.train_ticket(
                        replace(round.ticket, rewind=fresh), data, recipe,
                        repulsion=elth.Repulsion(2, optima),
                    )
                    training.run()
                    optima.append(training.state())

    Raises:
        ElthError: the ticket is of another shape of data or of another dataset, it does not say its
            seed, the recipe has another rewind point than the ticket or ends before it or elsewhere
            than the ticket needs, the ticket was repelled from others that are not given, or as
            ``Training``.
    """
    recipe = named(recipe)
    if not isinstance(cast(object, ticket), Ticket):
        raise ElthError(f"expected a ticket, as elth.Ticket.load(FILE) gives; found {ticket!r}")
    check_dataset(data)
    if ticket.shape != data.info.shape:
        raise ElthError(
            f"the ticket of {ticket.network} is for {ticket.shape}, "
            f"the dataset {data.info.name} has {data.info.shape}"
        )
    if seed is None:
        if "seed" not in ticket.origin:
            raise ElthError("the ticket does not say of which seed it is: give one, as seed=0")
        seed = int(ticket.origin["seed"])
    if repulsion is None and ticket.origin.get("way", {}).get("repel") and _is_late(ticket):
        raise ElthError(
            f"the ticket of {ticket.network} is of a round that was repelled from earlier ones, "
            "which are not in it: give them, as repulsion=elth.Repulsion(2, optima); with "
            "elth.Repulsion(0) it is trained without"
        )
    stop = None
    if start is None:
        start = _start(ticket, data, recipe)
        stop = _stop(ticket, data, recipe)
    if noise is None:
        noise = Noise.of(ticket.origin.get("noise", {}))
    engine = engine_for(ticket.make_network(), data, recipe, compile=compile, group=group)
    return Training(
        engine,
        data,
        recipe,
        seed=seed,
        state=ticket.rewind,
        mask=ticket.mask,
        start=start,
        stop=stop,
        noise=noise,
        repulsion=repulsion,
    )


def _start(ticket: Ticket, data: Dataset, recipe: Recipe) -> int:
    """The iteration of a ticket's rewind point.

    Raises:
        ElthError: the recipe has another one, or the ticket is of another dataset.
    """
    source = ticket.origin.get("dataset")
    if source is not None and source != data.info.identity():
        raise ElthError(
            f"the ticket was found on {source.get('name')}, and this is another dataset, "
            f"{data.info.title}: elth.move(ticket, data.info.shape, seed) carries it there, where "
            "it is trained from the beginning; or say where to start, as start=0"
        )
    if "start" in ticket.origin:
        return int(ticket.origin["start"])
    train_size = len(data.train_labels)
    start = rewind_step(train_size, recipe)
    if "recipe" in ticket.origin:
        found = Recipe.of(ticket.origin["recipe"])
        own = rewind_step(train_size, found)
        if own != start:
            raise ElthError(
                f"the ticket was rewound to {found.rewind} (iteration {own}), and the recipe's "
                f"rewind point is {recipe.rewind} (iteration {start}): take a recipe with rewind "
                f"{found.rewind}, or say where to start, as start={own}"
            )
    return start


def _stop(ticket: Ticket, data: Dataset, recipe: Recipe) -> int | None:
    """The iteration before which a ticket's training ends; None for the recipe's end.

    Raises:
        ElthError: the ticket names one, as that of a fine-tuning, which belongs to another recipe.
    """
    if "stop" not in ticket.origin:
        return None
    first, last = (int(ticket.origin.get(name, 0)) for name in ("start", "stop"))
    size, own = len(data.train_labels), ticket.origin.get("recipe")
    ends = []
    for one in [recipe] if own is None else [recipe, Recipe.of(own)]:
        per_epoch = iterations_per_epoch(size, one)
        ends.append((per_epoch, one.length.iterations(per_epoch)))
    if len(set(ends)) > 1:
        raise ElthError(
            f"the ticket is trained from iteration {first} to {last} by its own recipe, which ends "
            f"after {ends[1][1]} iterations, and this one ends after {ends[0][1]}: take its own, "
            f"or say where to start, as start={first}, and it is trained to the recipe's end"
        )
    return last


def _is_late(ticket: Ticket) -> bool:
    """Whether a ticket is that of a round after the first of its chain, as it was found."""
    history = ticket.origin.get("history", ())
    return bool(history) and bool(history[-1].get("imp_round"))
