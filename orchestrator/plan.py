"""Plans: the stages that an experiment comes to, each known by a key of its meaning.

A stage is a frozen description. Its key hashes what fixes its result: kind, parameters, dataset,
recipe, seed and the keys of its parents, and nothing of where or how it is computed. A stage whose
key is finished in the store is never computed again, whoever asks for it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elth import criteria, data, elastic
from elth.counts import check_last_batch, iterations_per_epoch, kept_after, rewind_step
from elth.errors import ElthError
from elth.networks import DataShape, NetworkSpec, facts, is_listed, options
from elth.recipes import Recipe
from orchestrator.apart import apart
from orchestrator.experiment import Cell, Experiment, load
from orchestrator.methods import CHAIN, METHODS, REWIND, SOURCE, Method

if TYPE_CHECKING:
    from orchestrator.tracking import Tracked

VERSIONS = {"rewind_point": 1, "round": 1, "retraining": 1}
"""Raised when a kind comes to mean something else, which gives its stages new keys."""

KINDS = tuple(VERSIONS)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One thing to compute."""

    kind: str
    """``rewind_point``, ``round`` or ``retraining``."""
    params: Mapping[str, Any]
    """What fixes the result, as JSON values, beside the parents."""
    parents: tuple[str, ...] = ()
    """Keys of the stages whose results are needed."""
    labels: Mapping[str, Any] = field(compare=False)
    """Axes by which people compare: network, method, source, transform, round, seed, dataset."""

    @functools.cached_property
    def key(self) -> str:
        """sha256 of the canonical description, in hexadecimal."""
        text = json.dumps(
            {
                "kind": self.kind,
                "version": VERSIONS[self.kind],
                "params": self.params,
                "parents": self.parents,
            },
            sort_keys=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(text.encode()).hexdigest()

    @functools.cached_property
    def recipe(self) -> Recipe:
        """How it trains."""
        return _recipe(json.dumps(self.params["recipe"]))

    @property
    def title(self) -> str:
        """A short name for people, as ``resnet20 <- resnet14 append, round 8, seed 0``."""
        label = self.labels
        text = str(label["network"])
        if label["source"]:
            text += f" <- {label['source']} {label['transform']}"
            if label["method"] != "ett":
                text += f" {label['method']}"
        elif label["method"] not in ("imp", "rewind"):
            text += f" {label['method']}"
        if self.kind == "rewind_point":
            text += " rewind point"
        elif label.get("target"):
            text += f" at {100 * float(label['target']):g} %"
        else:
            text += f" round {label['round']}"
        return f"{text}, seed {label['seed']}"

    def describe(self) -> dict[str, Any]:
        """The whole stage as JSON values; ``Stage.of`` undoes it."""
        return {
            "kind": self.kind,
            "params": dict(self.params),
            "parents": list(self.parents),
            "labels": dict(self.labels),
        }

    @staticmethod
    def of(description: Mapping[str, Any]) -> Stage:
        """Read what ``describe`` gave."""
        return Stage(
            kind=description["kind"],
            params=description["params"],
            parents=tuple(description["parents"]),
            labels=description["labels"],
        )


@dataclass(frozen=True)
class Job:
    """Consecutive stages that one trial computes: the rounds of a chain share a process."""

    stages: tuple[Stage, ...]

    @property
    def key(self) -> str:
        """The key of the last stage."""
        return self.stages[-1].key


@dataclass(frozen=True)
class Plan:
    """All stages of an experiment, parents before children."""

    stages: Mapping[str, Stage]
    asked: tuple[str, ...] = ()
    """Keys of the stages that cells ask for; the others are on the way to them."""

    def children(self) -> dict[str, list[str]]:
        """For each key the keys of the stages that need it."""
        result: dict[str, list[str]] = {key: [] for key in self.stages}
        for key, stage in self.stages.items():
            for parent in stage.parents:
                result[parent].append(key)
        return result

    def jobs(self, finished: Collection[str] = ()) -> list[Job]:
        """Group the stages that are still to do; a chain's rounds go to one job."""
        chains: list[list[Stage]] = []
        tail: dict[str, list[Stage]] = {}
        for key, stage in self.stages.items():
            if key in finished:
                continue
            goes_on = stage.kind == "round" and "keep" not in stage.params
            chain = tail.pop(stage.parents[-1], None) if goes_on else None
            if chain is None:
                chain = []
                chains.append(chain)
            chain.append(stage)
            tail[key] = chain
        return [Job(tuple(chain)) for chain in chains]

    def remaining_path(self) -> dict[str, float]:
        """For each stage the work of the longest path that starts with it, in work units."""
        children = self.children()
        result: dict[str, float] = {}
        for key in reversed(list(self.stages)):
            below = max((result[child] for child in children[key]), default=0.0)
            result[key] = work(self.stages[key]) + below
        return result

    def alone(self) -> tuple[int, int]:
        """Trainings that it would take to do each line, and each cell, by itself.

        A line is a method with its source and plan on a network and seed; one chain serves all its
        rounds. A rewind point is no training of its own.
        """
        above: dict[str, frozenset[str]] = {}
        for key, stage in self.stages.items():
            own = () if stage.kind == "rewind_point" else (key,)
            above[key] = frozenset(own).union(*(above[parent] for parent in stage.parents))
        lines: dict[tuple[Any, ...], frozenset[str]] = {}
        for key in self.asked:
            labels = self.stages[key].labels
            axes = ("network", "method", "source", "transform", "seed", "dataset")
            line = tuple("imp" if labels[a] == "dense" else labels[a] for a in axes)
            lines[line] = lines.get(line, frozenset()) | above[key]
        return sum(map(len, lines.values())), sum(len(above[key]) for key in self.asked)


def build(experiment: Experiment) -> Plan:
    """Work out the stages of an experiment. Needs neither data nor store.

    Raises:
        ElthError: a transformation does not fit its networks, or a count cannot be met.
    """
    stages: dict[str, Stage] = {}
    builders = [_Builder(experiment, seed, stages) for seed in experiment.seeds]
    asked = dict.fromkeys(
        builder.cell(cell).key for cell in experiment.cells() for builder in builders
    )
    return Plan(stages, tuple(asked))


def of_file(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Experiment, Plan]:
    """Read an experiment, changed by overrides, and work out its stages.

    Raises:
        ElthError: as ``experiment.load`` and ``build``.
    """
    experiment = load(path, overrides)
    return experiment, build(experiment)


@dataclass(frozen=True, kw_only=True)
class _Level:
    """How much of a network is kept: after a number of prunings, or at an exact sparsity."""

    round: int
    target: str
    kept: int


class _Builder:
    """Adds what a cell needs to the stages, for one seed."""

    def __init__(self, experiment: Experiment, seed: int, stages: dict[str, Stage]) -> None:
        self.experiment = experiment
        self.seed = seed
        self.stages = stages
        self._chains: dict[tuple[str, str], list[Stage]] = {}
        self._starts: dict[tuple[str, str], Stage] = {}
        self._common: dict[str, dict[str, Any]] = {}

    def cell(self, cell: Cell) -> Stage:
        """Add the stages of a cell, parents first; returns its own."""
        method = METHODS[cell.method]
        if method.base == SOURCE:
            return self.moved(cell)
        level = self.level(cell.network, cell.dataset, cell)
        if method.base == REWIND:
            settings = self.experiment.criteria.get(method.criterion, {})
            _check_samples(method.criterion, settings, cell.dataset)
            step = {"criterion": method.criterion, "nonzeros": level.kept, **settings}
            start = self.rewind_point(cell.network, cell.dataset)
            return self.retraining(cell, level, (start,), [step])
        ticket = self.ticket(cell.network, cell.dataset, level)
        if method.base == CHAIN:
            return ticket
        return self.retraining(cell, level, (ticket,), list(method.steps))

    def moved(self, cell: Cell) -> Stage:
        """The ticket of another network or dataset, transformed."""
        method = METHODS[cell.method]
        level = self.level(cell.source, cell.source_dataset, cell)
        ticket = self.ticket(cell.source, cell.source_dataset, level)
        move = _transform(
            cell.transform, cell.source, cell.network, cell.source_dataset, cell.dataset
        )
        steps: list[Mapping[str, Any]] = [move.step] if move.step else []
        if cell.source_dataset != cell.dataset:
            steps.append({"move": method.move})
        elif method.move != Method.move:
            raise ElthError(
                f"method {cell.method} carries a head to another dataset, and this ticket stays on "
                f"{cell.dataset}: give source_dataset, or take ett"
            )
        if not steps:
            if method.steps:
                raise ElthError(
                    f"method {cell.method} from {cell.source} to itself changes no unit: use "
                    "reinit or random, which are the same, or leave this pair out"
                )
            return ticket
        parents = [ticket]
        for step in method.steps:
            replicates = "graft" in step or step.get("shuffle") == "replicated"
            if replicates and (not move.replicates or cell.source_dataset != cell.dataset):
                raise ElthError(
                    f"method {cell.method} is about replicated units, and '{cell.transform}' from "
                    f"{cell.source} to {cell.network} has none: give a plan that stretches"
                )
            if "graft" in step:
                parents.append(self.rewind_point(cell.network, cell.dataset))
                settings = self.experiment.criteria.get(method.criterion, {})
                _check_samples(method.criterion, settings, cell.dataset)
                step = {**step, **{k: v for k, v in settings.items() if k != "at"}}
            steps.append(step)
        return self.retraining(cell, level, tuple(parents), steps, move.label)

    def level(self, network: str, dataset: str, cell: Cell) -> _Level:
        """The count that a cell asks for on a network.

        Raises:
            ElthError: it keeps fewer weights than are never pruned, or needs more rounds.
        """
        total, whole = _counts(network, dataset)
        pruning = self.experiment.pruning
        if not cell.target:
            kept = _kept(pruning.rate, cell.round, total)
            level = _Level(round=cell.round, target="", kept=kept)
        else:
            kept = int((1 - Fraction(cell.target)) * total)
            k = 0
            while _kept(pruning.rate, k + 1, total) > kept:
                k += 1
            if k > pruning.rounds:
                last = 1 - _kept(pruning.rate, pruning.rounds, total) / total
                raise ElthError(
                    f"a sparsity of {cell.target} on {network} needs a smaller round after round "
                    f"{k}, and pruning.rounds is {pruning.rounds} ({100 * last:.2f} %)"
                )
            level = _Level(round=k + 1, target=cell.target, kept=kept)
        if level.kept < whole:
            unpruned = facts(network, _info(dataset).shape).anatomy.unpruned
            raise ElthError(
                f"round {level.round} of {network} would keep {level.kept:,} weights, and "
                f"{whole:,} in {', '.join(unpruned)} are never pruned: ask for fewer rounds"
            )
        return level

    def ticket(self, network: str, dataset: str, level: _Level) -> Stage:
        """The stage of IMP that trains the ticket of a level."""
        if not level.target:
            return self.chain(network, dataset, level.round)
        before = self.chain(network, dataset, level.round - 1)
        start = self.rewind_point(network, dataset)
        return self.add(
            Stage(
                kind="round",
                params={"network": network, **self.common(dataset), "keep": level.kept},
                parents=(start.key, before.key),
                labels=self.labels(network, dataset, "imp", level),
            )
        )

    def chain(self, network: str, dataset: str, rounds: int) -> Stage:
        """The rounds of IMP up to one, which is returned."""
        start = self.rewind_point(network, dataset)
        chain = self._chains.setdefault((network, dataset), [])
        common = {"network": network, **self.common(dataset)}
        for k in range(len(chain), rounds + 1):
            rate = {"rate": str(self.experiment.pruning.rate)} if k else {}
            level = _Level(round=k, target="", kept=0)
            chain.append(
                self.add(
                    Stage(
                        kind="round",
                        params={**common, **rate},
                        parents=(start.key, chain[-1].key) if k else (start.key,),
                        labels=self.labels(network, dataset, "imp" if k else "dense", level),
                    )
                )
            )
        return chain[rounds]

    def rewind_point(self, network: str, dataset: str) -> Stage:
        """The stage that trains a network to its rewind point."""
        if (network, dataset) not in self._starts:
            recipe, info = self.experiment.recipe_for(dataset), _info(dataset)
            rewind_step(info.train_size, recipe)
            info.check_augment(recipe.augment)
            recipe.check(iterations_per_epoch(info.train_size, recipe))
            per_epoch = iterations_per_epoch(info.train_size, recipe)
            if (
                recipe.length.iterations(per_epoch) >= per_epoch
                and facts(network, info.shape).norm_values == 1
            ):
                check_last_batch(info.train_size, recipe, f" of {network}")
            level = _Level(round=0, target="", kept=0)
            self._starts[network, dataset] = self.add(
                Stage(
                    kind="rewind_point",
                    params={"network": network, **self.common(dataset)},
                    labels=self.labels(network, dataset, "rewind", level),
                )
            )
        return self._starts[network, dataset]

    def retraining(
        self,
        cell: Cell,
        level: _Level,
        parents: tuple[Stage, ...],
        steps: list[Mapping[str, Any]],
        label: str = "",
    ) -> Stage:
        """The stage that trains what is made of its parents by some steps."""
        source = cell.source
        if source and cell.source_dataset != cell.dataset:
            source += f"@{_info(cell.source_dataset).title}"
        return self.add(
            Stage(
                kind="retraining",
                params={
                    "network": cell.network,
                    "ticket": [dict(step) for step in steps],
                    **self.common(cell.dataset),
                },
                parents=tuple(parent.key for parent in parents),
                labels=self.labels(cell.network, cell.dataset, cell.method, level, source, label),
            )
        )

    def add(self, stage: Stage) -> Stage:
        """Add a stage; the same one if it is there already."""
        return self.stages.setdefault(stage.key, stage)

    def common(self, dataset: str) -> dict[str, Any]:
        """What the key of every stage holds."""
        if dataset not in self._common:
            self._common[dataset] = {
                "dataset": _info(dataset).identity(),
                "recipe": self.experiment.recipe_for(dataset).plain(),
                "seed": self.seed,
            }
        return self._common[dataset]

    def labels(
        self,
        network: str,
        dataset: str,
        method: str,
        level: _Level,
        source: str = "",
        transform: str = "",
    ) -> dict[str, Any]:
        """The axes by which people compare."""
        info = _info(dataset)
        return {
            "network": network,
            "method": method,
            "source": source,
            "transform": transform,
            "round": level.round,
            "seed": self.seed,
            "dataset": info.title,
            **({"target": level.target} if level.target else {}),
            **({"place": info.name} if info.name != info.title else {}),
        }


@dataclass(frozen=True, kw_only=True)
class _Move:
    """A transformation between two networks, checked."""

    step: Mapping[str, Any] | None
    """None where each unit stays in its place."""
    label: str
    replicates: bool
    """Whether some source unit fills more than one place."""


@functools.lru_cache(maxsize=4096)
def _transform(
    text: str, source: str, target: str, source_dataset: str, target_dataset: str
) -> _Move:
    """Work out a transformation, and refuse one that does not fit before anything is spent."""
    shape, goal = _info(source_dataset).shape, _info(target_dataset).shape
    before, after = facts(source, shape).anatomy, facts(target, goal).anatomy
    if elastic.is_width(text):
        width = elastic.parse_width(text)
        elastic.check_width(width, NetworkSpec.parse(source), NetworkSpec.parse(target), shape)
        from elth.networks import blueprint

        moved, goal_state = (blueprint(target, s).state_dict() for s in (shape, goal))
        for name, tensor in goal_state.items():
            if tensor.shape != moved[name].shape and not name.startswith(f"{after.head}."):
                raise ElthError(
                    f"a ticket of {target} for {source_dataset} does not fit {target_dataset}: "
                    f"'{name}' has shape {tuple(tensor.shape)} there, {tuple(moved[name].shape)} "
                    "here"
                )
        return _Move(step={"width": str(width), "to": target}, label=str(width), replicates=False)
    plan = elastic.resolve(text, before, after)
    if not _differ_in_depth_only(source, target, shape, goal):
        _check_tensors(plan, source, target, source_dataset, target_dataset)
    stays = source == target and plan.is_identity
    return _Move(
        step=None if stays else {"transform": [list(s) for s in plan.stages], "to": target},
        label=elastic.label(plan, before, after),
        replicates=any(len(set(stage)) < len(stage) for stage in plan.stages),
    )


def _differ_in_depth_only(source: str, target: str, shape: DataShape, goal: DataShape) -> bool:
    """Whether two networks are of one family and agree in every option and in their images.

    Then every plan that fits the anatomies fills each tensor from one of its shape: the units of a
    stage are alike but for fixed ones, which stay in their places, and the head is made anew where
    the dataset is another. ``_check_tensors``, which builds both networks, would find nothing.
    """
    one, other = NetworkSpec.parse(source), NetworkSpec.parse(target)
    return (
        facts(one, shape).anatomy.family == facts(other, goal).anatomy.family
        and {**options(one.name), **dict(one.options)}
        == {**options(other.name), **dict(other.options)}
        and (shape.channels, shape.size) == (goal.channels, goal.size)
    )


def _check_tensors(
    plan: elastic.Plan, source: str, target: str, source_dataset: str, target_dataset: str
) -> None:
    """Refuse a plan that fills a tensor from one of another shape."""
    from elth.networks import blueprint

    networks = (
        blueprint(source, _info(source_dataset).shape),
        blueprint(target, _info(target_dataset).shape),
    )
    before, after = (network.anatomy for network in networks)
    have, want = (network.state_dict() for network in networks)
    origins = elastic.tensor_sources(plan, before, after, have, list(want))
    head = f"{after.head}."
    for name, origin in origins.items():
        if source_dataset != target_dataset and name.startswith(head):
            continue
        if have[origin].shape != want[name].shape:
            raise ElthError(
                f"a ticket of {source} does not fit {target}: '{name}' has shape "
                f"{tuple(want[name].shape)}, '{origin}' of the source {tuple(have[origin].shape)}"
                + _hint(source, target)
            )


def _check_samples(criterion: str, settings: Mapping[str, Any], dataset: str) -> None:
    """Refuse a criterion that asks for more training images than there are."""
    known = {**criteria.options(criterion), **settings}
    info = _info(dataset)
    asked = known.get("samples", 0)
    if "samples_per_class" in known:
        asked = known["samples_per_class"] * known["batches"] * info.shape.classes
    if asked > info.train_size:
        raise ElthError(
            f"criterion {criterion} asks for {asked:,} training images, and {info.title} has "
            f"{info.train_size:,}: lower criteria.{criterion}"
        )


def _hint(source: str, target: str) -> str:
    widths = [dict(NetworkSpec.parse(name).options).get("width") for name in (source, target)]
    if widths[0] == widths[1]:
        return ""
    return "; between widths in the ratio of two, transform is double or halve"


_kept = functools.lru_cache(maxsize=4096)(kept_after)


@functools.lru_cache(maxsize=4096)
def _counts(network: str, dataset: str) -> tuple[int, int]:
    """Prunable weights of a network, and how many of them are never pruned."""
    found = facts(network, _info(dataset).shape)
    return found.prunable, found.unpruned


def recipe_of(stage: Stage) -> Recipe:
    """The recipe by which a stage trains."""
    return stage.recipe


@functools.lru_cache(maxsize=256)
def _recipe(text: str) -> Recipe:
    return Recipe.of(json.loads(text))


_info = functools.lru_cache(maxsize=256)(data.info)
"""What is known of a dataset, asked for once: plans have thousands of stages."""


def iterations(stage: Stage) -> tuple[int, int]:
    """First and last iteration that a stage trains, counted from initialisation."""
    recipe = recipe_of(stage)
    size = _info(dataset_of(stage)).train_size
    start = rewind_step(size, recipe)
    if stage.kind == "rewind_point":
        return 0, start
    if any("move" in step for step in stage.params.get("ticket", ())):
        start = 0  # carried to another dataset, a ticket is trained from the beginning
    return start, recipe.length.iterations(iterations_per_epoch(size, recipe))


def dataset_of(stage: Stage) -> str:
    """The dataset that a stage trains on, as ``elth.data.info`` knows it.

    The key holds its identity; the labels say where that is to be found.
    """
    return str(stage.labels.get("place", stage.labels["dataset"]))


def work(stage: Stage) -> float:
    """Rough cost of a stage: seconds on one core of a laptop.

    Three times the multiply-accumulates of a forward pass, at 50 GMAC/s, and half a millisecond
    for every layer; only ratios matter once a stage has been timed on the machine at hand.
    """
    start, stop = iterations(stage)
    return 0.2 + (stop - start) * seconds_of_step(stage)


def seconds_of_step(stage: Stage) -> float:
    """Rough cost of an iteration: seconds on one core of a laptop."""
    batch = recipe_of(stage).batch_size
    return _step(stage.params["network"], dataset_of(stage), batch)


def per_epoch(stage: Stage) -> int:
    """Iterations of an epoch."""
    return iterations_per_epoch(_info(dataset_of(stage)).train_size, recipe_of(stage))


@functools.lru_cache(maxsize=4096)
def _step(network: str, dataset: str, batch: int) -> float:
    shape = _info(dataset).shape
    # The driver of a run asks for it, which is to stay without torch.
    found = facts(network, shape) if is_listed(network, shape) else apart(facts, network, shape)
    return 3 * found.macs * batch / 50e9 + 5e-4 * found.layers


def stored_bytes(stage: Stage, keep_weights: bool = False) -> int:
    """About how many bytes a stage leaves in the store."""
    weights, _ = _counts(stage.params["network"], dataset_of(stage))
    overhead = 60_000
    if stage.kind == "rewind_point":
        return overhead + 4 * weights
    kept = weights
    if "keep" in stage.params:
        kept = stage.params["keep"]
    elif stage.kind == "round" and stage.labels["round"]:
        kept = kept_after(stage.params["rate"], stage.labels["round"], weights)
    return overhead + weights // 8 + (4 * kept if stage.kind == "round" or keep_weights else 0)


def count_kinds(stages: Iterable[Stage]) -> dict[str, int]:
    """How many stages there are of each kind."""
    counts = dict.fromkeys(KINDS, 0)
    for stage in stages:
        counts[stage.kind] += 1
    return counts


def makespan(jobs: Iterable[Job], slots: int, finished: Collection[str] = ()) -> float:
    """Work units of wall time for jobs on ``slots`` trials at a time: the longer of two bounds.

    No schedule is shorter than the whole work shared evenly, or than the longest chain of stages
    that wait for each other.
    """
    stages = {s.key: s for job in jobs for s in job.stages if s.key not in finished}
    ends: dict[str, float] = {}
    total = 0.0
    for key, stage in stages.items():
        begin = max((ends.get(parent, 0.0) for parent in stage.parents), default=0.0)
        own = work(stage)
        ends[key] = begin + own
        total += own
    return max(total / max(slots, 1), max(ends.values(), default=0.0))


def seconds_per_work(tracked: Iterable[Tracked], plan: Plan) -> float | None:
    """How long a unit of work takes here, from finished stages of the plan's networks.

    None while the store holds none of them.
    """
    networks = {stage.params["network"] for stage in plan.stages.values()}
    timed = [
        (one.seconds, work(one.stage))
        for one in tracked
        if one.status == "finished"
        and one.seconds is not None
        and one.stage.kind != "rewind_point"
        and one.stage.params["network"] in networks
    ]
    if not timed:
        return None
    return sum(seconds for seconds, _ in timed) / sum(units for _, units in timed)
