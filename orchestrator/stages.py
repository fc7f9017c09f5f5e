"""What each kind of stage does: from the results of its parents to its own, with ``elth``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from elth import controls, criteria, elastic, masks
from elth.checkpoints import Checkpoint
from elth.data import Dataset, info
from elth.elastic import Plan
from elth.engine import Engine
from elth.errors import ElthError
from elth.masks import Mask
from elth.networks import (
    Anatomy,
    DataShape,
    NetworkSpec,
    blueprint,
    build,
    check_state,
    prunable,
)
from elth.parallel import Group
from elth.recipes import Recipe
from elth.streams import stream
from elth.tensors import read_tensors, write_tensors
from elth.tickets import Ticket, state_digest
from elth.training import Epoch, Training, evaluation_batch
from orchestrator.plan import Stage, dataset_of, iterations, recipe_of

State = dict[str, Tensor]
_KEPT_ENGINES = 8


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished stage leaves: a rewind point its weights, all others a mask, and weights."""

    rewind: State | None = None
    mask: Mask | None = None
    trained: State | None = None
    """Trained weights, pruned ones exactly zero."""

    @functools.cached_property
    def nbytes(self) -> int:
        """Bytes of its tensors in memory."""
        states = (state for state in (self.rewind, self.mask, self.trained) if state is not None)
        return sum(tensor.nbytes for state in states for tensor in state.values())


Load = Callable[[str], tuple[Stage, Result]]
"""Gives a finished stage and its result by key."""


@dataclass(kw_only=True)
class _Making:
    """What the steps of a ticket expression know besides the ticket."""

    stage: Stage
    load: Load
    data: Dataset | None
    known: Mask | None
    """The mask that comes out, where the stage is finished: criteria need not be computed again."""
    plan: tuple[Plan, Anatomy, Anatomy] | None = None
    """The plan of the transformation that was made, with its source and target."""

    @property
    def seed(self) -> int:
        return int(self.stage.params["seed"])


def ticket(
    stage: Stage, load: Load, *, data: Dataset | None = None, known: Mask | None = None
) -> Ticket:
    """The ticket that a stage trains: a pure function of its parents and the dataset.

    Args:
        stage: a round or a retraining.
        load: gives finished stages.
        data: the stage's dataset, for criteria that look at images.
        known: the mask that came out, for a stage that is finished: no criterion is computed.

    Raises:
        ElthError: the ticket cannot be made, as when a transformation does not fit.
    """
    if stage.kind == "round":
        return _round(stage, load)
    return _expression(stage, _Making(stage=stage, load=load, data=data, known=known))


def _round(stage: Stage, load: Load) -> Ticket:
    start, rewound = load(stage.parents[0])
    state = _need(rewound.rewind, start)
    network = blueprint(stage.params["network"], _shape(stage))
    mask = masks.ones(network)
    if len(stage.parents) > 1:
        before, result = load(stage.parents[1])
        mask, trained = _need(result.mask, before), _need(result.trained, before)
        if "keep" in stage.params:
            keep = stage.params["keep"]
        else:
            keep = masks.kept_after(stage.params["rate"], 1, masks.nonzeros(mask))
        mask = criteria.keep_highest(
            criteria.magnitude(trained, mask), mask, keep, unpruned=network.anatomy.unpruned
        )
    return _ticket(stage, state, mask, [{"imp_round": stage.labels["round"]}])


def _expression(stage: Stage, making: _Making) -> Ticket:
    parent, result = making.load(stage.parents[0])
    if parent.kind == "rewind_point":
        network = blueprint(parent.params["network"], _shape(parent))
        history: list[dict[str, Any]] = []
        current = _ticket(parent, _need(result.rewind, parent), masks.ones(network), history)
    else:
        start, rewound = making.load(parent.parents[0])
        history = [{"imp_round": parent.labels["round"]}]
        current = _ticket(parent, _need(rewound.rewind, start), _need(result.mask, parent), history)
    for step in stage.params["ticket"]:
        kind = next(kind for kind in _STEPS if kind in step)
        current = _STEPS[kind](current, step, making)
    return current


def _transform(ticket: Ticket, step: Mapping[str, Any], making: _Making) -> Ticket:
    plan = Plan(tuple(tuple(s) for s in step["transform"]))
    moved = elastic.transform(ticket, step["to"], plan)
    source, target = (blueprint(t.network, t.shape).anatomy for t in (ticket, moved))
    making.plan = (plan, source, target)
    return moved


def _width(ticket: Ticket, step: Mapping[str, Any], making: _Making) -> Ticket:
    width = elastic.parse_width(step["width"])
    return elastic.change_width(ticket, step["to"], width, making.seed)


def _move(ticket: Ticket, step: Mapping[str, Any], making: _Making) -> Ticket:
    is_fresh = step["move"] == "fresh head"
    moved = elastic.move(ticket, _shape(making.stage), making.seed, fresh_head=is_fresh)
    origin = {name: making.stage.params[name] for name in ("dataset", "recipe")}
    return replace(moved, origin={**moved.origin, **origin})


def _reinit(ticket: Ticket, step: Mapping[str, Any], making: _Making) -> Ticket:
    state = controls.reinit(ticket.network, ticket.shape, making.seed)
    return _changed(ticket, step, rewind=state)


def _shuffle(ticket: Ticket, step: Mapping[str, Any], making: _Making) -> Ticket:
    unpruned = blueprint(ticket.network, ticket.shape).anatomy.unpruned
    version = step.get("version", 1)
    if step["shuffle"] == "replicated":
        plan = _need_plan(making)
        mask = controls.permute_replicated(ticket, *plan, making.seed, version=version)
    elif step["shuffle"] == "global":
        mask = controls.shuffle_global(ticket.mask, making.seed, unpruned=unpruned, version=version)
    else:
        mask = controls.shuffle_layerwise(ticket.mask, making.seed, version=version)
    return _changed(ticket, step, mask=mask)


def _graft(ticket: Ticket, step: Mapping[str, Any], making: _Making) -> Ticket:
    """Put the network's own weights into the replicated units, and prune only there."""
    plan, source, target = _need_plan(making)
    start, rewound = making.load(making.stage.parents[1])
    grafted = controls.graft(ticket, plan, source, target, _need(rewound.rewind, start))
    extra = set(controls.in_replicas(plan, source, target, grafted.mask))
    settings = {k: v for k, v in step.items() if k != "graft"}
    mask = making.known or _pruned(
        step["graft"],
        grafted,
        ticket.nonzeros,
        making,
        settings,
        unpruned=[name for name in grafted.mask if name not in extra],
    )
    return _changed(grafted, step, mask=mask)


def _criterion(ticket: Ticket, step: Mapping[str, Any], making: _Making) -> Ticket:
    settings = {k: v for k, v in step.items() if k not in ("criterion", "nonzeros", "at")}
    scored = ticket
    if step.get("at") == "init":
        fresh = build(ticket.network, ticket.shape, generator=stream(making.seed, "init"))
        scored = replace(ticket, rewind=fresh.state_dict())
    mask = making.known or _pruned(step["criterion"], scored, step["nonzeros"], making, settings)
    return _changed(ticket, step, mask=mask)


def _pruned(
    name: str,
    ticket: Ticket,
    keep: int,
    making: _Making,
    settings: Mapping[str, Any],
    unpruned: Collection[str] | None = None,
) -> Mask:
    if criteria.needs_data(name) and making.data is None:
        raise ElthError(f"the mask of {making.stage.title} needs the dataset to be made")
    network = ticket.make_network()
    if making.data is not None:
        network = network.to(making.data.train_labels.device)
    return criteria.CRITERIA[name](
        network,
        ticket.mask,
        keep,
        data=making.data,
        seed=making.seed,
        shape=ticket.shape,
        unpruned=unpruned,
        **settings,
    )


_STEPS = {
    "transform": _transform,
    "width": _width,
    "move": _move,
    "reinit": _reinit,
    "shuffle": _shuffle,
    "graft": _graft,
    "criterion": _criterion,
}
"""What can be done to a ticket, by the key that names it in a step."""


def _changed(
    ticket: Ticket, step: Mapping[str, Any], rewind: State | None = None, mask: Mask | None = None
) -> Ticket:
    return Ticket(
        network=ticket.network,
        shape=ticket.shape,
        rewind=rewind or ticket.rewind,
        mask=mask or ticket.mask,
        origin={**ticket.origin, "history": [*ticket.origin["history"], dict(step)]},
    )


def _ticket(stage: Stage, state: State, mask: Mask, history: list[dict[str, Any]]) -> Ticket:
    origin = {name: stage.params[name] for name in ("dataset", "recipe", "seed")}
    return Ticket(
        network=NetworkSpec.parse(stage.params["network"]),
        shape=_shape(stage),
        rewind=state,
        mask=mask,
        origin={**origin, "history": history},
    )


def _shape(stage: Stage) -> DataShape:
    return info(dataset_of(stage)).shape


def _need(value: Any, stage: Stage) -> Any:
    if value is None:
        raise ElthError(f"the result of {stage.title} lacks what is needed of it")
    return value


def _need_plan(making: _Making) -> tuple[Plan, Anatomy, Anatomy]:
    if making.plan is None:
        raise ElthError(f"{making.stage.title} is about replicated units, and no plan makes any")
    return making.plan


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
        spec, recipe, info = stage.params["network"], recipe_of(stage), data.info
        key = (spec, info.shape, recipe, str(data.device), compile)
        made = self.made.pop(key, None)
        if made is None:
            shape = info.shape
            made = Engine(
                build(spec, shape, generator=stream(0, "init")),
                recipe,
                data.device,
                shape=(shape.channels, shape.size, shape.size),
                evaluation_batch=evaluation_batch(info),
                compile=compile,
                group=group,
            )
        self.made[key] = made
        while len(self.made) > _KEPT_ENGINES:
            del self.made[next(iter(self.made))]
        return made


def train(
    stage: Stage,
    ticket: Ticket | None,
    data: Dataset,
    engine: Engine,
    *,
    saved: Checkpoint | None = None,
    at_check: Callable[[Training], None] | None = None,
) -> Generator[Epoch, None, Result]:
    """Do a stage's training; yields its epochs and returns its result.

    Args:
        stage: what to do.
        ticket: the ticket to train; None for a rewind point.
        data: the stage's dataset, on the device.
        engine: an engine of the stage's network and recipe.
        saved: a checkpoint of this stage, to go on from.
        at_check: is called with the training every 100 iterations and after every epoch.

    Raises:
        NonFiniteLossError: the loss was not finite; nothing of the stage is left.
    """
    recipe: Recipe = recipe_of(stage)
    seed = stage.params["seed"]
    start, stop = iterations(stage)
    spec, shape = stage.params["network"], data.info.shape
    if ticket is None:
        state = build(spec, shape, generator=stream(seed, "init")).state_dict()
        mask = None
    else:
        state, mask = ticket.rewind, ticket.mask
    training = Training(
        engine,
        data,
        recipe,
        seed=seed,
        state=state,
        mask=mask,
        start=start,
        stop=stop,
        at_check=at_check,
    )
    if saved is not None:
        training.resume(saved)
    for epoch in training:
        yield epoch
        if at_check is not None and training.step < stop:
            at_check(training)
    if ticket is None:
        return Result(rewind=training.state())
    return Result(mask=mask, trained=training.state())


def write(result: Result, folder: Path, *, keep_weights: bool) -> None:
    """Write a result as files: rewind point whole, mask as bits, of trained weights the non-zeros.

    Args:
        result: what to write.
        folder: where to; it exists.
        keep_weights: whether trained weights are written.
    """
    if result.rewind is not None:
        _write(folder / "rewind.safetensors", result.rewind, "rewind point")
    if result.mask is not None:
        metadata = {"kind": "mask", "sha256": masks.digest(result.mask)}
        write_tensors(folder / "mask.safetensors", masks.pack(result.mask), metadata)
    if result.trained is not None and result.mask is not None and keep_weights:
        kept = {
            name: tensor[result.mask[name]] if name in result.mask else tensor
            for name, tensor in result.trained.items()
        }
        _write(folder / "trained.safetensors", kept, "trained weights")


def _write(path: Path, state: State, kind: str) -> None:
    write_tensors(path, state, {"kind": kind, "sha256": state_digest(state)})


def _read(path: Path, kind: str) -> State:
    state, metadata = read_tensors(path, kind=kind)
    if metadata.get("sha256") != state_digest(state):
        raise ElthError(f"{path} is damaged: its checksum is not that of its content")
    return state


def read(stage: Stage, folder: Path) -> Result:
    """Read what ``write`` wrote; what was not written is None.

    Raises:
        ElthError: a file is damaged, or does not fit the stage's network.
    """
    spec, shape = NetworkSpec.parse(stage.params["network"]), _shape(stage)
    if stage.kind == "rewind_point":
        state = _read(folder / "rewind.safetensors", "rewind point")
        check_state(state, spec, shape, what="rewind point")
        return Result(rewind=state)
    network = blueprint(spec, shape)
    path = folder / "mask.safetensors"
    packed, metadata = read_tensors(path, kind="mask")
    mask = masks.unpack(
        packed, {name: network.get_parameter(name).shape for name in prunable(network)}
    )
    if metadata.get("sha256") != masks.digest(mask):
        raise ElthError(f"{path} is damaged: its checksum is not that of its content")
    trained = None
    if (folder / "trained.safetensors").exists():
        kept = _read(folder / "trained.safetensors", "trained weights")
        trained = {}
        for name, tensor in network.state_dict().items():
            if name not in kept:
                raise ElthError(f"{folder}/trained.safetensors lacks '{name}'")
            if name in mask:
                whole = kept[name].new_zeros(tensor.shape)
                if kept[name].numel() != int(mask[name].sum()):
                    raise ElthError(
                        f"{folder}/trained.safetensors: '{name}' should hold "
                        f"{int(mask[name].sum())} non-zeros, found {kept[name].numel()}"
                    )
                whole[mask[name]] = kept[name]
                trained[name] = whole
            else:
                trained[name] = kept[name]
        check_state(trained, spec, shape, what="trained weights")
    return Result(mask=mask, trained=trained)
