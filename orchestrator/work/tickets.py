"""The ticket that a stage trains: a pure function of its parents and the dataset."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlflow.entities import Run

from elth import controls, criteria, elastic, masks, ways
from elth.counts import iterations_per_epoch
from elth.data import Dataset
from elth.dynamic import Evolution, method
from elth.elastic import Plan
from elth.errors import ElthError
from elth.masks import Mask
from elth.networks import Anatomy, blueprint, build
from elth.repulsion import Repulsion
from elth.rounds import prune_and_rewind
from elth.specs import Spec
from elth.streams import Noise, stream
from elth.tickets import Ticket
from orchestrator.plan.stage import ANALYSIS, SPARSE, Stage, iterations, shape_of, size_of
from orchestrator.store.damage import AbsentError
from orchestrator.store.listing import stage_of
from orchestrator.store.marks import TIDIED
from orchestrator.store.result import Result, State
from orchestrator.store.tracker import Tracker

Load = Callable[[str], tuple[Stage, Result]]
"""Gives a finished stage and its result by key."""

_FORMERLY: Mapping[str, Mapping[str, Any]] = {
    "grasp": {"halves": "disjoint"},
    "grasp_absolute": {"halves": "disjoint"},
}
"""Defaults of a criterion's version 1 that it has no more."""


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


def ticket_of(
    stage: Stage, load: Load, *, data: Dataset | None = None, known: Mask | None = None
) -> Ticket:
    """The ticket that a stage trains: a pure function of its parents and the dataset.

    Args:
        stage: a round, a retraining, a sparse training or an imported ticket.
        load: gives finished stages.
        data: the stage's dataset, for criteria that look at images.
        known: the mask that came out, for a stage that is finished: no criterion is computed, and
            no trained weights are needed.

    Raises:
        AbsentError: what a stage left that is needed for it is not there any more.
        ElthError: the ticket cannot be made, as when a transformation does not fit.
    """
    if stage.is_given:
        return _imported(*load(stage.key))
    if stage.kind == "round":
        return _round(stage, load, known)
    if stage.kind == SPARSE:
        return _sparse(stage, load, known)
    return _expression(stage, _Making(stage=stage, load=load, data=data, known=known))


def tracked_ticket(tracker: Tracker, run_id: str) -> Ticket:
    """The ticket that a tracked run trained.

    Args:
        tracker: of the store.
        run_id: a run, or the key of its stage, or the beginning of one.

    Raises:
        ElthError: there is no such run, it has no mask, or what is made is not what was tracked.
    """
    found = tracker.get(run_id)
    stage = stage_of(found)
    if stage.kind == "rewind_point":
        raise ElthError(f"run {run_id} is a rewind point, which has no mask; name a round")
    if stage.kind == ANALYSIS:
        raise ElthError(f"run {run_id} is an analysis ({stage.title}), which has no ticket")
    own = stage.kind in ("retraining", SPARSE)
    mask = tracker.load_run(found)[1].mask if own else None
    try:
        made = ticket_of(stage, tracker.load, known=mask)
    except AbsentError:  # as weights that were tidied away: its own mask is there
        if mask is not None:
            raise
        known = tracker.load_run(found, partial=True)[1].mask
        made = ticket_of(stage, lambda key: tracker.load(key, partial=True), known=known)
    tracked = found.data.tags.get("elth.mask_sha256")
    if tracked is not None and tracked != masks.digest(made.mask):
        raise ElthError(
            f"the mask of run {run_id}, made again, is not the one that was tracked: the store is "
            "damaged, or this is another version of torch"
        )
    return made


def trained_ticket(tracker: Tracker, run_id: str) -> Ticket:
    """The ticket that a tracked run trained, with its weights as they are after the training.

    Args:
        tracker: of the store.
        run_id: a run, or the key of its stage, or the beginning of one.

    Raises:
        ElthError: as ``tracked_ticket``, or the trained weights were not kept.
    """
    made = tracked_ticket(tracker, run_id)
    run = tracker.get(run_id)
    stage, result = tracker.load_run(run)
    if stage.is_given:
        raise ElthError(f"{stage.title} has no trained weights: it was imported as it is")
    if result.trained is None:
        raise ElthError(why_no_weights(stage, run))
    origin = {**made.origin, "weights": "trained", "start": iterations(stage)[1]}
    return replace(made, rewind=result.trained, origin=origin)


def why_no_weights(stage: Stage, run: Run) -> str:
    """Why a finished training has no trained weights, and how to have them."""
    name = f"{stage.title} (run {run.info.run_id[:8]})"
    if TIDIED in run.data.tags:
        return (
            f"the trained weights of {name} were let go by elth gc --weights; elth run CONFIG "
            f"--redo '{stage.title}' trains it again and compares"
        )
    return (
        f"{name} was finished without keeping its trained weights: those of rounds are kept, of "
        "other trainings where their entry of the grid says keep: weights. With that, elth run "
        f"CONFIG --redo '{stage.title}' trains it again, compares, and keeps them"
    )


def _round(stage: Stage, load: Load, known: Mask | None) -> Ticket:
    start, rewound = load(stage.parents[0])
    state = _need(rewound.rewind, start)
    network = blueprint(stage.params["network"], shape_of(stage))
    mask = known or _first_mask(start, rewound)
    weights = stage.params.get("weights", "rewind")
    needs_trained = known is None or weights in ways.STAY
    if len(stage.parents) > 1 and needs_trained:
        before, result = load(stage.parents[1])
        trained = _need(result.trained, before, weights=True)
        state = ways.start_state(weights, trained, state, state)
        if known is None:
            mask, state = prune_and_rewind(
                trained,
                _need(result.mask, before),
                state,
                **{name: stage.params[name] for name in ("keep", "rate") if name in stage.params},
                unpruned=network.anatomy.unpruned,
            )
    if weights == "init":
        fresh = stream(int(stage.params["seed"]), "init")
        state = build(stage.params["network"], shape_of(stage), generator=fresh).state_dict()
    return _ticket(stage, state, mask, [*_origin(start), {"imp_round": stage.labels["round"]}])


def _sparse(stage: Stage, load: Load, known: Mask | None) -> Ticket:
    """What a sparse training begins with; once it is finished, with the mask of its end."""
    if stage.parents:
        start, rewound = load(stage.parents[0])
        state = _need(rewound.rewind, start)
    else:
        fresh = stream(int(stage.params["seed"]), "init")
        state = build(stage.params["network"], shape_of(stage), generator=fresh).state_dict()
    step = {"sparse": stage.params["method"], **stage.params.get("settings", {})}
    mask = evolution_of(stage).mask if known is None else known
    return _ticket(stage, state, mask, [step])


def evolution_of(stage: Stage) -> Evolution:
    """The mask of a sparse training, as it begins."""
    recipe, shape = stage.recipe, shape_of(stage)
    network = blueprint(stage.params["network"], shape)
    epoch = iterations_per_epoch(size_of(stage), recipe)
    return Evolution(
        method(stage.params["method"], stage.params.get("settings", {})),
        {name: tuple(mask.shape) for name, mask in masks.ones(network).items()},
        stage.params["keep"],
        length=recipe.length.iterations(epoch),
        per_epoch=epoch,
        start=iterations(stage)[0],
        unpruned=network.anatomy.unpruned,
        seed=int(stage.params["seed"]),
        noise=Noise.of(stage.params.get("noise", {})),
    )


def _first_mask(start: Stage, result: Result) -> Mask:
    """The mask that round 0 trains: of a rewind point the whole network, else the ticket's own."""
    if start.is_given:
        found: Mask = _need(result.mask, start)
        return found
    return masks.ones(blueprint(start.params["network"], shape_of(start)))


def _origin(start: Stage) -> list[dict[str, Any]]:
    """What the history of a ticket says of what its chain starts from."""
    return [{"imported": start.params["sha256"]}] if start.is_given else []


def _imported(stage: Stage, result: Result) -> Ticket:
    """An imported ticket by itself, which is of no recipe and no seed."""
    ticket = _ticket(stage, _need(result.rewind, stage), _first_mask(stage, result), _origin(stage))
    return replace(ticket, origin={**ticket.origin, "start": stage.params["iteration"]})


def repulsion_of(stage: Stage, load: Load) -> Repulsion | None:
    """The loss that keeps a stage's training from earlier optima; None as a rule.

    They are found by walking back: the stage that one goes on from is its last parent, and the
    first of a chain is repelled from nothing.

    Raises:
        AbsentError: trained weights of an earlier one are not there any more.
    """
    if "repel" not in stage.params:
        return None
    earlier: list[State] = []
    one = stage
    while "repel" in one.params:
        one, result = load(one.parents[-1])
        earlier.insert(0, _need(result.trained, one, weights=True))
        if stage.params.get("repel_from") == "previous":
            break
    return Repulsion(float(stage.params["repel"]), earlier)


def _expression(stage: Stage, making: _Making) -> Ticket:
    parent, result = making.load(stage.parents[0])
    if parent.is_given:
        current = _imported(parent, result)
        own = {name: stage.params[name] for name in ("recipe", "seed")}
        current = replace(current, origin={**current.origin, **own})
    elif parent.kind == "rewind_point":
        current = _ticket(parent, _need(result.rewind, parent), _first_mask(parent, result), [])
    else:
        start, rewound = making.load(parent.parents[0])
        history = [*_origin(start), {"imp_round": parent.labels["round"]}]
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
    moved = elastic.move(ticket, shape_of(making.stage), making.seed, fresh_head=is_fresh)
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
    settings = {k: v for k, v in step.items() if k not in ("graft", "version")}
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
    fixed = ("criterion", "version", "nonzeros", "at")
    settings = {k: v for k, v in step.items() if k not in fixed}
    if step.get("version", 1) == 1:
        settings = {**_FORMERLY.get(step["criterion"], {}), **settings}
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
    return criteria.prune(
        name,
        network,
        ticket.mask,
        keep,
        data=making.data,
        seed=making.seed,
        shape=ticket.shape,
        unpruned=unpruned,
        **settings,
    )


def _call(ticket: Ticket, step: Mapping[str, Any], making: _Making) -> Ticket:
    _, version, module = elastic.outside(step["call"])
    if version != step["version"]:
        raise ElthError(
            f"{step['call']} is another here than the one that {making.stage.title} is made by: "
            f"'{module}' has changed since; elth run makes it anew"
        )
    moved = elastic.apply(ticket, step["call"], step["to"], making.seed)
    history = [*ticket.origin["history"], dict(step)]
    return replace(moved, origin={**ticket.origin, "history": history})


_STEPS = {
    "transform": _transform,
    "width": _width,
    "move": _move,
    "reinit": _reinit,
    "shuffle": _shuffle,
    "graft": _graft,
    "criterion": _criterion,
    "call": _call,
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
    names = ("dataset", "recipe", "seed", "start", "noise")  # an imported one has not all of them
    origin = {name: stage.params[name] for name in names if name in stage.params}
    if "weights" in stage.params:
        plain = ways.span("rewind", stage.recipe, size_of(stage))
        spans = zip(("start", "stop"), iterations(stage), plain, strict=True)
        origin |= {name: own for name, own, usual in spans if own != usual}
    if way := _way(stage):
        origin["way"] = way
    return Ticket(
        network=Spec.parse(stage.params["network"]),
        shape=shape_of(stage),
        rewind=state,
        mask=mask,
        origin={**origin, "history": history},
    )


def _way(stage: Stage) -> dict[str, Any]:
    """In which way a round was found, as ``elth.imp`` tells it; nothing where it is plain IMP."""
    if stage.kind != "round" or not stage.labels["round"]:
        return {}
    names = ("weights", "finetune", "repel", "repel_from")
    found = {name: stage.params[name] for name in names if name in stage.params}
    return found | ({"noise": "round"} if Noise.of(stage.params.get("noise", {})).round else {})


def _need(value: Any, stage: Stage, *, weights: bool = False) -> Any:
    if value is None:
        raise AbsentError(
            stage.key,
            f"the result of {stage.title} lacks what is needed of it: it was tidied away, was "
            "lost, or was never kept",
            lacks_weights=weights,
        )
    return value


def _need_plan(making: _Making) -> tuple[Plan, Anatomy, Anatomy]:
    if making.plan is None:
        raise ElthError(f"{making.stage.title} is about replicated units, and no plan makes any")
    return making.plan
