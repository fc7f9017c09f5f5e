"""What each kind of stage does: from the results of its parents to its own, with ``elth``."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from elth import controls, criteria, masks
from elth.data import Dataset, info
from elth.elastic import Plan, transform
from elth.errors import ElthError
from elth.files import read_tensors, write_tensors
from elth.masks import Mask
from elth.networks import Network, NetworkSpec, blueprint, build, check_state, prunable
from elth.recipes import Recipe
from elth.streams import stream
from elth.tickets import Ticket, state_digest
from elth.training import Epoch, Training
from orchestrator.plan import Stage, iterations, recipe_of

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished stage leaves: a rewind point its weights, all others a mask, and weights."""

    rewind: State | None = None
    mask: Mask | None = None
    trained: State | None = None
    """Trained weights, pruned ones exactly zero."""


Load = Callable[[str], tuple[Stage, Result]]
"""Gives a finished stage and its result by key."""


def ticket(stage: Stage, load: Load) -> Ticket:
    """The ticket that a stage trains: a pure function of its parents.

    Raises:
        ElthError: the ticket cannot be made, as when a transformation does not fit.
    """
    if stage.kind == "round":
        return _round(stage, load)
    return _expression(stage, load)


def _round(stage: Stage, load: Load) -> Ticket:
    start, rewound = load(stage.parents[0])
    state = _need(rewound.rewind, start)
    network = blueprint(stage.params["network"], _shape(stage))
    mask = masks.ones(network)
    if "rate" in stage.params:
        before, result = load(stage.parents[1])
        mask, trained = _need(result.mask, before), _need(result.trained, before)
        mask = criteria.keep_highest(
            criteria.magnitude(trained, mask),
            mask,
            masks.kept_after(stage.params["rate"], 1, masks.nonzeros(mask)),
            unpruned=network.anatomy.unpruned,
        )
    return _ticket(stage, state, mask, [{"imp_round": stage.labels["round"]}])


def _expression(stage: Stage, load: Load) -> Ticket:
    parent, result = load(stage.parents[0])
    if parent.kind == "rewind_point":
        network = blueprint(parent.params["network"], _shape(parent))
        history: list[dict[str, Any]] = []
        current = _ticket(parent, _need(result.rewind, parent), masks.ones(network), history)
    else:
        start, rewound = load(parent.parents[0])
        history = [{"imp_round": parent.labels["round"]}]
        current = _ticket(parent, _need(rewound.rewind, start), _need(result.mask, parent), history)
    for step in stage.params["ticket"]:
        current = _STEPS[next(iter(step))](current, step, stage.params["seed"])
    return current


def _transform(ticket: Ticket, step: Mapping[str, Any], seed: int) -> Ticket:
    return transform(ticket, step["to"], Plan(tuple(tuple(s) for s in step["transform"])))


def _reinit(ticket: Ticket, step: Mapping[str, Any], seed: int) -> Ticket:
    state = controls.reinit(ticket.network, ticket.shape, seed)
    return _changed(ticket, step, rewind=state)


def _shuffle(ticket: Ticket, step: Mapping[str, Any], seed: int) -> Ticket:
    return _changed(ticket, step, mask=controls.shuffle_layerwise(ticket.mask, seed))


def _criterion(ticket: Ticket, step: Mapping[str, Any], seed: int) -> Ticket:
    scores = CRITERIA[step["criterion"]](ticket.rewind, ticket.mask)
    unpruned = blueprint(ticket.network, ticket.shape).anatomy.unpruned
    mask = criteria.keep_highest(scores, ticket.mask, step["nonzeros"], unpruned=unpruned)
    return _changed(ticket, step, mask=mask)


CRITERIA = {"magnitude": criteria.magnitude}

_STEPS = {
    "transform": _transform,
    "reinit": _reinit,
    "shuffle": _shuffle,
    "criterion": _criterion,
}
"""What can be done to a ticket, by the first key of a step."""


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


def _shape(stage: Stage) -> Any:
    return info(stage.params["dataset"]["name"]).shape


def _need(value: Any, stage: Stage) -> Any:
    if value is None:
        raise ElthError(f"the result of {stage.title} lacks what is needed of it")
    return value


@dataclass(kw_only=True)
class Networks:
    """Networks that one process has built, by shape: their weights are overwritten each time."""

    built: dict[tuple[str, Any], Network] = field(default_factory=dict)

    def get(self, spec: str, shape: Any) -> Network:
        """Return a network of this shape, with whatever weights it was left with."""
        if (spec, shape) not in self.built:
            self.built[spec, shape] = build(spec, shape, generator=stream(0, "init"))
        return self.built[spec, shape]


def train(
    stage: Stage, ticket: Ticket | None, data: Dataset, networks: Networks
) -> Generator[Epoch, None, Result]:
    """Do a stage's training; yields its epochs and returns its result.

    Args:
        stage: what to do.
        ticket: the ticket to train; None for a rewind point.
        data: the stage's dataset, on the device.
        networks: the process's networks.

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
        networks.get(spec, shape),
        data,
        recipe,
        seed=seed,
        state=state,
        mask=mask,
        start=start,
        stop=stop,
    )
    yield from training
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
