"""The training of a stage, by engines that a process keeps."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from elth import networks
from elth.checkpoints import Checkpoint
from elth.data import Dataset
from elth.engine import Engine
from elth.evaluation import evaluation_batch
from elth.networks import build
from elth.parallel import Group
from elth.recipes import Recipe
from elth.repulsion import Repulsion
from elth.specs import Spec
from elth.streams import Noise, stream
from elth.tickets import Ticket
from elth.training import Epoch, Training, engine_for
from orchestrator.plan.stage import SPARSE, Stage, iterations
from orchestrator.store.result import Result
from orchestrator.work.tickets import evolution_of

_KEPT_ENGINES = 8


@dataclass(kw_only=True)
class Engines:
    """Engines that one process has made: the next training of their network takes them over."""

    made: dict[tuple[Any, ...], Engine] = field(default_factory=dict)

    def get(
        self, stage: Stage, data: Dataset, *, compile: bool, group: Group | None = None
    ) -> Engine:
        """Return an engine for a stage, with whatever weights it was left with.

        The group is one and the same throughout a process.
        """
        spec, recipe, info = stage.params["network"], stage.recipe, data.info
        batch = evaluation_batch(info)
        key = (spec, info.shape, batch, recipe, str(data.device), compile)
        made = self.made.pop(key, None)
        if made is None:
            network = build(spec, info.shape, generator=stream(0, "init"))
            made = engine_for(network, data, recipe, compile=compile, group=group)
        if networks.module(Spec.parse(spec).name):
            return made  # what it keeps beside its state dict is not for the next training
        self.made[key] = made
        while len(self.made) > _KEPT_ENGINES:
            del self.made[next(iter(self.made))]
        return made

    def forget(self) -> None:
        """Let go of all of them."""
        self.made.clear()


def train(
    stage: Stage,
    ticket: Ticket | None,
    data: Dataset,
    engine: Engine,
    *,
    repulsion: Repulsion | None = None,
    saved: Checkpoint | None = None,
    at_check: Callable[[Training], None] | None = None,
) -> Generator[Epoch, None, Result]:
    """Do a stage's training; yields its epochs and returns its result.

    Args:
        stage: what to do.
        ticket: the ticket to train; None for a rewind point.
        data: the stage's dataset, on the device.
        engine: an engine of the stage's network and recipe.
        repulsion: what keeps it from earlier optima.
        saved: a checkpoint of this stage, to go on from.
        at_check: is called with the training after every epoch and within, as ``elth.Training``
            does.

    Raises:
        NonFiniteLossError: the loss was not finite; nothing of the stage is left.
    """
    recipe: Recipe = stage.recipe
    seed = stage.params["seed"]
    start, stop = iterations(stage)
    spec, shape = stage.params["network"], data.info.shape
    if ticket is None:
        state = build(spec, shape, generator=stream(seed, "init")).state_dict()
        mask = None
    else:
        state, mask = ticket.rewind, ticket.mask
    evolution = evolution_of(stage) if stage.kind == SPARSE else None
    training = Training(
        engine,
        data,
        recipe,
        seed=seed,
        state=state,
        mask=None if evolution is not None else mask,
        noise=Noise.of(stage.params.get("noise", {})),
        repulsion=repulsion,
        start=start,
        stop=stop,
        at_check=at_check,
        evolution=evolution,
    )
    if saved is not None:
        training.resume(saved)
    for epoch in training:
        yield epoch
        if at_check is not None and training.step < stop:
            at_check(training)
    if ticket is None:
        return Result(rewind=training.state())
    if evolution is not None:
        mask = {name: one.cpu() for name, one in evolution.mask.items()}
    return Result(mask=mask, trained=training.state())
