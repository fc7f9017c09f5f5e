"""Iterative magnitude pruning: train, prune the least magnitudes, rewind (E-LTH, section 3.1).

Or do not rewind: the ways that there are stand in ``elth.ways``, and the loss by which rounds may
repel each other in ``elth.repulsion``.

``imp`` does the rounds one after the other in this process. A round's seeds and steps are those of
the system (``orchestrator``), so that both find the same ticket, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from elth import masks, ways
from elth.counts import check_round, rewind_step
from elth.criteria import keep_highest, magnitude
from elth.data import Dataset, check_dataset
from elth.engine import Engine
from elth.errors import ElthError
from elth.masks import Mask
from elth.networks import Anatomy, build, canonical, check_module, module
from elth.recipes import Recipe, Step, named
from elth.repulsion import Repulsion
from elth.specs import DataShape, Spec
from elth.streams import COMMON, Noise, stream
from elth.tensors import contiguous
from elth.tickets import Ticket
from elth.training import Epoch, Training, engine_for

State = dict[str, Tensor]


def prune_and_rewind(
    trained: Mapping[str, Tensor],
    mask: Mapping[str, Tensor],
    rewind: State,
    *,
    keep: int | None = None,
    rate: float | str | None = None,
    unpruned: Collection[str] = (),
) -> tuple[Mask, State]:
    """The step of IMP from a trained round to the next: its mask, and the weights it starts from.

    The weights of the least magnitude are pruned, over all layers; those that are left go back to
    the rewind point, or to what else is given (``ways.start_state``).

    Args:
        trained: the state dict at the end of the round's training.
        mask: the round's mask.
        rewind: the state dict at the rewind point, dense.
        keep: how many weights the next round keeps.
        rate: instead of ``keep`` the fraction of the round's weights that is pruned; what is kept
            is rounded down (``kept_after``).
        unpruned: names of weights that are left whole, as the anatomy's.

    Raises:
        ElthError: not one of ``keep`` and ``rate`` is given, or as ``criteria.keep_highest``.
    """
    if (keep is None) == (rate is None):
        raise ElthError("say how many weights the next round keeps: either keep or rate")
    if keep is None:
        keep = masks.kept_after(rate or 0, 1, masks.nonzeros(mask))
    return keep_highest(magnitude(trained, mask), mask, keep, unpruned=unpruned), rewind


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """A round of IMP: the ticket, and how well it trained."""

    number: int
    """How many prunings came before; round 0 is the dense network."""
    mask: Mask
    """Which weights were trained."""
    rewind: State
    """The whole state dict from which it was trained, not masked: that at the rewind point, or what
    the way of the chain has in its place."""
    trained: State
    """The state dict at the end; pruned weights are exactly zero."""
    epochs: tuple[Epoch, ...]
    """What was measured from there on."""
    network: Spec | None
    """The network, if it was given by name."""
    shape: DataShape
    """The shape of the data."""
    origin: Mapping[str, Any]
    """Dataset, recipe, seed and history, as of ``Ticket``."""
    optima: tuple[State, ...] = ()
    """Trained weights of earlier rounds that it was repelled from, oldest first."""

    def __repr__(self) -> str:
        """One line: how much is left, how well it trained, and whether layers have collapsed."""
        empty = len(masks.collapsed(self.mask))
        return (
            f"<Round {self.number} of {self.network or 'a module'}: {self.nonzeros:,} of "
            f"{masks.total(self.mask):,} weights, {100 * self.sparsity:.2f} % sparse, accuracy "
            f"{self.accuracy:.2f} %{f', {empty} layers empty' if empty else ''}>"
        )

    @property
    def accuracy(self) -> float:
        """Test accuracy in percent after the last epoch."""
        return self.epochs[-1].test_accuracy

    @property
    def nonzeros(self) -> int:
        """Number of prunable weights that are kept."""
        return masks.nonzeros(self.mask)

    @property
    def sparsity(self) -> float:
        """Fraction of the prunable weights that are zero."""
        return masks.sparsity(self.mask)

    @property
    def ticket(self) -> Ticket:
        """The ticket, which can be saved, moved and trained again.

        Raises:
            ElthError: the network was given as a module: a ticket says by name what it is of.
        """
        if self.network is None:
            raise ElthError(
                "a ticket names its network, and this one was given as a module: take mask and "
                "rewind of the round, or give the network by name, as module:function of a file "
                "that makes it"
            )
        return Ticket(
            network=self.network,
            shape=self.shape,
            rewind=self.rewind,
            mask=self.mask,
            origin=self.origin,
        )


def imp(
    network: str | Spec | nn.Module,
    data: Dataset,
    recipe: str | Recipe,
    *,
    seed: int = 0,
    rate: float = 0.2,
    rounds: int = 10,
    weights: str = "rewind",
    finetune: str | Step | None = None,
    repel: float = 0.0,
    repel_from: str = "all",
    noise: str = "common",
    start: Round | Ticket | None = None,
    on_epoch: Callable[[int, Epoch], object] | None = None,
    verbose: bool = False,
    compile: bool = False,
) -> Iterator[Round]:
    """Find tickets by iterative magnitude pruning; gives each round as it ends, from the dense one.

    Example::

        for round in elth.imp("resnet20", data, "cifar10_resnet", rate=0.2, rounds=10):
            print(round.sparsity, round.accuracy)

    Round 0 is the same whatever the way: the dense network, trained from the rewind point.

    Args:
        network: a network of ``elth`` or ``module:function``, with its options; or any module of
            PyTorch, whose weights are then the initial ones, and which is left as it is.
        data: the dataset, on the device to train on.
        recipe: how to train, or the name of one of ``RECIPES``.
        seed: fixes the initial weights of a network by name, data order and augmentation.
        rate: fraction of the remaining weights that a round prunes. One-shot pruning to a sparsity
            of 0.9 is ``rate=0.9, rounds=1``.
        rounds: how many prunings there are in all: the last round has this number.
        weights: what the weights that are left go back to after a pruning: ``rewind``, the rewind
            point; ``init``, initialisation; ``trained``, nothing: the learning rate alone is
            rewound (Renda et al. 2020); ``finetune``, nothing, and they are trained on at the last
            learning rate.
        finetune: with ``weights="finetune"`` for how long, as ``10ep``.
        repel: strength of a loss that keeps the training of a round from where earlier rounds
            ended: 2 repels, -1 attracts (Maene et al. 2021, section 3; ``elth.repulsion``).
        repel_from: from ``all`` earlier rounds, or from the ``previous`` one.
        noise: whether all rounds see the data in one order and augmentation (``common``), or each
            ``round`` in its own, as Maene et al. have it; those of round 0 are the same in both.
        start: go on from here: after a round of ``imp``, or with the ticket of one, which is
            trained again. A ticket does not hold the earlier rounds that it is repelled from.
        on_epoch: is called with a round's number and each of its epochs as it ends, those before
            the rewind point as of round 0.
        verbose: print a line for each epoch.
        compile: compile the network first, which takes a minute and pays for long trainings.

    Raises:
        ElthError: something does not fit; a module has nothing to prune; so many rounds would leave
            no weight, or prune what is never pruned; ``start`` comes of other arguments; the way is
            none (``ways.check``); or as ``Training``.
        NonFiniteLossError: while iterating, as ``Training``.
    """
    recipe = named(recipe)
    check_dataset(data)
    rewind_step(len(data.train_labels), recipe)
    shape = data.info.shape
    if isinstance(network, nn.Module):
        check_module(network, shape)
        spec, made = None, copy.deepcopy(network)
        initial = contiguous(made.state_dict())
    else:
        spec, made = canonical(network), build(network, shape, generator=stream(0, "init"))
        initial = build(spec, shape, seed).state_dict()
    origin = {"dataset": data.info.identity(), "recipe": recipe.plain(), "seed": seed}
    anatomy = getattr(made, "anatomy", None)
    chain = _Chain(
        made=made,
        data=data,
        recipe=recipe,
        seed=seed,
        rate=rate,
        rounds=rounds,
        weights=weights,
        finetune=None if finetune is None else Step.parse(finetune),
        repel=repel,
        repel_from=repel_from,
        noise=noise,
        unpruned=anatomy.unpruned if isinstance(anatomy, Anatomy) else (),
        spec=spec,
        initial=initial,
        origin=origin,
        on_epoch=on_epoch,
        verbose=verbose,
        compile=compile,
    )
    chain.check()
    if start is not None:
        chain.check_start(start)
    return chain.found(start)


@dataclass(frozen=True, kw_only=True)
class _Chain:
    """The rounds of a network, by the arguments of ``imp``."""

    made: nn.Module
    """The network that is trained, with whatever weights."""
    data: Dataset
    recipe: Recipe
    seed: int
    rate: float
    rounds: int
    weights: str
    finetune: Step | None
    repel: float
    repel_from: str
    noise: str
    unpruned: Collection[str]
    spec: Spec | None
    initial: State
    """The state dict before the first iteration."""
    origin: Mapping[str, Any]
    on_epoch: Callable[[int, Epoch], object] | None
    verbose: bool
    compile: bool

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            ElthError: as ``imp``.
        """
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, int) or self.rounds < 0:
            raise ElthError(
                f"rounds must be a whole number of at least 0, found {self.rounds!r}: how many "
                "prunings there are"
            )
        ways.check(self.weights, self.recipe, self.finetune)
        ways.noise_of(self.noise, 0)
        Repulsion(self.repel)
        ways.repelling(self.repel_from, ())
        if self.repel_from != "all" and not self.repel:
            raise ElthError(
                f"repel_from is {self.repel_from}, and nothing repels: give a strength, as repel=2"
            )
        if not 0 < float(self.rate) < 1:
            raise ElthError(f"rate must lie between 0 and 1, as 0.2; found {self.rate!r}")
        dense = masks.ones(self.made)
        if not dense:
            raise ElthError(
                f"{type(self.made).__name__} has no weight to prune: expected a convolution or a "
                "linear layer"
            )
        whole = masks.nonzeros({name: dense[name] for name in self.unpruned})
        check_round(
            self.rounds,
            self.rate,
            masks.total(dense),
            of=str(self.spec or type(self.made).__name__),
            whole=whole,
            unpruned=self.unpruned,
        )

    def check_start(self, start: Round | Ticket) -> None:
        """Refuse a start that comes of other arguments.

        Raises:
            ElthError: with what differs.
        """
        what = "a round" if isinstance(start, Round) else "a ticket"
        number = _number(start)
        if start.network != self.spec:
            raise ElthError(
                f"start is {what} of {start.network or 'a module'}, and the network is "
                f"{self.spec or 'a module'}: give its own network"
            )
        found = {name: tensor.shape for name, tensor in start.rewind.items()}
        if found != {name: tensor.shape for name, tensor in self.initial.items()}:
            raise ElthError(f"start is {what} of another network or shape of data than this")
        for name, value in self.origin.items():
            if start.origin.get(name) != value:
                raise ElthError(
                    f"start is {what} of another {name} ({start.origin.get(name)}, here {value}): "
                    f"go on with its own {name}"
                )
        if start.origin.get("weights") == "trained":
            raise ElthError(
                f"start is {what} with the weights that it had after its training, and not those "
                "that it started from: take the ticket as it was trained (elth ticket export "
                "without --weights trained)"
            )
        if number:
            found_way = _way_of(start)
            if found_way != self.way:
                raise ElthError(
                    f"start is {what} of another way of pruning ({_told(found_way)}; here "
                    f"{_told(self.way)}): go on as it was made, or start from round 0"
                )
            if self.repel and isinstance(start, Ticket):
                raise ElthError(
                    "start is a ticket, and the earlier rounds that it is repelled from are not in "
                    "it: start from the round itself, or from round 0"
                )
            own, found_span = self._span(number), _span_of(start, self._span(0))
            if own != found_span:
                raise ElthError(
                    f"start is {what} that was trained from iteration {found_span[0]} to "
                    f"{found_span[1]}, and this way of pruning goes from {own[0]} to {own[1]}: go "
                    "on as it was made, or start from round 0"
                )
        if number > self.rounds:
            raise ElthError(
                f"start is {what} after {number} prunings, and rounds is {self.rounds}: ask for "
                f"more than {number}"
            )

    def found(self, start: Round | Ticket | None) -> Iterator[Round]:
        """Train round after round, on from ``start``."""
        shape = self.data.info.shape
        engine = self._engine() if self._is_ours else None
        trained: State | None = None
        optima: tuple[State, ...] = ()
        if start is None:
            at = rewind_step(len(self.data.train_labels), self.recipe)
            state, _ = self._trained(engine, 0, self.initial, None, (0, at))
            number, mask = 0, masks.ones(self.made)
        else:
            number, mask, state = _number(start), start.mask, start.rewind
            if isinstance(start, Round):
                trained, optima = start.trained, start.optima
        rewind = state  # which no other way than rewinding looks at again
        while trained is None or number < self.rounds:
            if trained is not None:
                number += 1
                begin = ways.start_state(self.weights, trained, rewind, self.initial)
                mask, state = prune_and_rewind(
                    trained, mask, begin, rate=self.rate, unpruned=self.unpruned
                )
                if self.repel:
                    optima = ways.repelling(self.repel_from, (*optima, trained))
            trained, epochs = self._trained(
                engine, number, state, mask, self._span(number), Repulsion(self.repel, optima)
            )
            yield Round(
                number=number,
                mask=mask,
                rewind=state,
                trained=trained,
                epochs=epochs,
                network=self.spec,
                shape=shape,
                origin=self._origin(number),
                optima=optima,
            )

    @property
    def _is_ours(self) -> bool:
        """Whether its network keeps nothing beside its state dict: one engine serves all rounds."""
        return self.spec is not None and not module(self.spec.name)

    def _engine(self) -> Engine:
        network = self.made if self._is_ours else copy.deepcopy(self.made)
        return engine_for(network, self.data, self.recipe, compile=self.compile)

    @property
    def way(self) -> dict[str, Any]:
        """What differs from plain IMP, as JSON values."""
        given = {
            "weights": self.weights,
            "finetune": None if self.finetune is None else str(self.finetune),
            "repel": self.repel,
            "repel_from": self.repel_from,
            "noise": self.noise,
        }
        plain = {"weights": "rewind", "repel_from": "all", "noise": "common"}
        return {name: value for name, value in given.items() if value and value != plain.get(name)}

    def _span(self, number: int) -> tuple[int, int]:
        """The first iteration of a round, and the one before which it ends."""
        size, weights = len(self.data.train_labels), self.weights if number else "rewind"
        return ways.span(weights, self.recipe, size, self.finetune if number else None)

    def _noise(self, number: int) -> Noise:
        return ways.noise_of(self.noise, number)

    def _origin(self, number: int) -> dict[str, Any]:
        """Where a round comes from, and what ``train_ticket`` has to know of it."""
        origin = {**self.origin, "history": [{"imp_round": number}]}
        if not number:  # which is that of plain IMP
            return origin
        if self.way:
            origin["way"] = self.way
        (first, last), (start, stop) = self._span(number), self._span(0)
        if first != start:
            origin["start"] = first
        if last != stop:
            origin["stop"] = last
        if self._noise(number) != COMMON:
            origin["noise"] = self._noise(number).plain()
        return origin

    def _trained(
        self,
        engine: Engine | None,
        number: int,
        state: State,
        mask: Mask | None,
        span: tuple[int, int],
        repulsion: Repulsion | None = None,
    ) -> tuple[State, tuple[Epoch, ...]]:
        """The state dict after a training, and its epochs."""
        training = Training(
            engine or self._engine(),
            self.data,
            self.recipe,
            seed=self.seed,
            state=state,
            mask=mask,
            start=span[0],
            stop=span[1],
            noise=self._noise(number),
            repulsion=repulsion,
        )
        epochs = []
        for epoch in training:
            epochs.append(epoch)
            if self.verbose:
                print(f"round {number}, {epoch}", flush=True)
            if self.on_epoch is not None:
                self.on_epoch(number, epoch)
        return training.state(), tuple(epochs)


def _told(way: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in way.items()) or "plain rewinding"


def _way_of(start: Round | Ticket) -> dict[str, Any]:
    """The way in which a round was found; of tickets of before, as far as their noise tells."""
    way = dict(start.origin.get("way", {}))
    if Noise.of(start.origin.get("noise", {})).round:
        way.setdefault("noise", "round")
    return way


def _span_of(start: Round | Ticket, plain: tuple[int, int]) -> tuple[int, int]:
    """The iterations that a round trained; ``plain`` where it says nothing else."""
    first, last = plain
    return int(start.origin.get("start", first)), int(start.origin.get("stop", last))


def _number(start: Round | Ticket) -> int:
    """How many prunings came before.

    Raises:
        ElthError: a ticket that is none of a round, or has been changed since.
    """
    if isinstance(start, Round):
        return start.number
    history = start.origin.get("history", ())
    if len(history) != 1 or "imp_round" not in history[0]:
        raise ElthError(
            "start must be a round of imp or its ticket, and this ticket is another one's "
            f"({start!r}; its history: {list(history)})"
        )
    return int(history[0]["imp_round"])
