"""Plans: the stages that an experiment comes to, each known by a key of its meaning.

A stage is a frozen description. Its key hashes what fixes its result: kind, parameters, dataset,
recipe, seed and the keys of its parents, and nothing of where or how it is computed. A stage whose
key is finished in the store is never computed again, whoever asks for it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from elth import data, elastic, masks
from elth.errors import ElthError
from elth.networks import DataShape, Network, NetworkSpec, blueprint, macs, prunable
from elth.recipes import Recipe
from elth.training import iterations_per_epoch, rewind_step
from orchestrator.experiment import Cell, Experiment

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

    @property
    def title(self) -> str:
        """A short name for people, as ``resnet20 <- resnet14 append, round 8, seed 0``."""
        label = self.labels
        text = str(label["network"])
        if label["source"]:
            text += f" <- {label['source']} {label['transform']}"
        elif label["method"] not in ("imp", "rewind"):
            text += f" {label['method']}"
        text += " rewind point" if self.kind == "rewind_point" else f" round {label['round']}"
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
            chain = tail.pop(stage.parents[-1], None) if stage.kind == "round" else None
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


def build(experiment: Experiment) -> Plan:
    """Work out the stages of an experiment. Needs neither data nor store.

    Raises:
        ElthError: a transformation does not fit its networks, or a count cannot be met.
    """
    stages: dict[str, Stage] = {}
    for cell in experiment.cells():
        for seed in experiment.seeds:
            for stage in _Builder(experiment, seed).cell(cell):
                stages.setdefault(stage.key, stage)
    return Plan(stages)


@dataclass(frozen=True)
class _Builder:
    experiment: Experiment
    seed: int

    def cell(self, cell: Cell) -> Iterator[Stage]:
        """The stages of one cell, parents first, the cell's own last."""
        if cell.method in ("dense", "imp"):
            yield from self.chain(cell.network, cell.round)
        elif cell.method == "ett":
            yield from self.ett(cell)
        elif cell.method == "magnitude":
            start = self.rewind_point(cell.network)
            kept = self.kept(cell.network, cell.round)
            yield start
            yield self.retraining(
                cell, start, [{"criterion": "magnitude", "nonzeros": kept}], cell.network
            )
        else:
            *before, ticket = self.chain(cell.network, cell.round)
            step = {"reinit": {"reinit": "all"}, "random": {"shuffle": "layerwise"}}[cell.method]
            yield from (*before, ticket)
            yield self.retraining(cell, ticket, [step], cell.network)

    def ett(self, cell: Cell) -> Iterator[Stage]:
        networks = [blueprint(name, self.shape) for name in (cell.source, cell.network)]
        source, target = (network.anatomy for network in networks)
        plan = elastic.resolve(cell.transform, source, target)
        _check_shapes(cell, plan, *networks)
        *before, ticket = self.chain(cell.source, cell.round)
        yield from (*before, ticket)
        if cell.source != cell.network or not plan.is_identity:
            step = {"transform": [list(stage) for stage in plan.stages], "to": cell.network}
            label = elastic.label(plan, source, target)
            yield self.retraining(cell, ticket, [step], cell.network, label)

    def chain(self, network: str, rounds: int) -> Iterator[Stage]:
        start = self.rewind_point(network)
        self.kept(network, rounds)
        yield start
        parents: tuple[str, ...] = (start.key,)
        for k in range(rounds + 1):
            stage = Stage(
                kind="round",
                params={
                    "network": network,
                    **self.common(),
                    **({"rate": str(self.experiment.pruning.rate)} if k else {}),
                },
                parents=parents,
                labels=self.labels(network, "imp" if k else "dense", k),
            )
            yield stage
            parents = (start.key, stage.key)

    def rewind_point(self, network: str) -> Stage:
        recipe = self.experiment.recipe
        rewind_step(self.info.train_size, recipe)
        return Stage(
            kind="rewind_point",
            params={"network": network, **self.common()},
            labels=self.labels(network, "rewind", 0),
        )

    def retraining(
        self, cell: Cell, parent: Stage, steps: list[dict[str, Any]], network: str, label: str = ""
    ) -> Stage:
        return Stage(
            kind="retraining",
            params={"network": network, "ticket": steps, **self.common()},
            parents=(parent.key,),
            labels=self.labels(network, cell.method, cell.round, cell.source, label),
        )

    def common(self) -> dict[str, Any]:
        return {
            "dataset": self.info.identity(),
            "recipe": self.experiment.recipe.plain(),
            "seed": self.seed,
        }

    def labels(
        self, network: str, method: str, k: int, source: str = "", transform: str = ""
    ) -> dict[str, Any]:
        return {
            "network": network,
            "method": method,
            "source": source,
            "transform": transform,
            "round": k,
            "seed": self.seed,
            "dataset": self.info.name,
        }

    def kept(self, network: str, k: int) -> int:
        net = blueprint(network, self.shape)
        total = sum(net.get_parameter(name).numel() for name in prunable(net))
        kept = masks.kept_after(self.experiment.pruning.rate, k, total)
        whole = sum(net.get_parameter(name).numel() for name in net.anatomy.unpruned)
        if kept < whole:
            raise ElthError(
                f"round {k} of {network} would keep {kept:,} weights, and {whole:,} in "
                f"{', '.join(net.anatomy.unpruned)} are never pruned: ask for fewer rounds"
            )
        return kept

    @property
    def info(self) -> data.DatasetInfo:
        return data.info(self.experiment.dataset)

    @property
    def shape(self) -> DataShape:
        return self.info.shape


def _check_shapes(cell: Cell, plan: elastic.Plan, source: Network, target: Network) -> None:
    """Refuse a transformation between networks of different widths before anything is spent."""
    have, want = source.state_dict(), target.state_dict()
    origins = elastic.tensor_sources(plan, source.anatomy, target.anatomy, have, list(want))
    for name, origin in origins.items():
        if have[origin].shape != want[name].shape:
            raise ElthError(
                f"a ticket of {cell.source} does not fit {cell.network}: '{name}' has shape "
                f"{tuple(want[name].shape)}, '{origin}' of the source {tuple(have[origin].shape)}"
            )


def recipe_of(stage: Stage) -> Recipe:
    """The recipe by which a stage trains."""
    return Recipe.of(stage.params["recipe"])


def iterations(stage: Stage) -> tuple[int, int]:
    """First and last iteration that a stage trains, counted from initialisation."""
    recipe = recipe_of(stage)
    size = data.info(stage.params["dataset"]["name"]).train_size
    start = rewind_step(size, recipe)
    if stage.kind == "rewind_point":
        return 0, start
    return start, recipe.length.iterations(iterations_per_epoch(size, recipe))


def work(stage: Stage) -> float:
    """Rough cost of a stage: seconds on one core of a laptop.

    Three times the multiply-accumulates of a forward pass, at 50 GMAC/s, and half a millisecond
    for every layer; only ratios matter once a stage has been timed on the machine at hand.
    """
    start, stop = iterations(stage)
    shape = data.info(stage.params["dataset"]["name"]).shape
    network = NetworkSpec.parse(stage.params["network"])
    layers = len(prunable(blueprint(network, shape)))
    each = 3 * macs(network, shape) * recipe_of(stage).batch_size / 50e9 + 5e-4 * layers
    return 0.2 + (stop - start) * each


def stored_bytes(stage: Stage, keep_weights: bool = False) -> int:
    """About how many bytes a stage leaves in the store."""
    network = blueprint(stage.params["network"], data.info(stage.params["dataset"]["name"]).shape)
    weights = sum(network.get_parameter(name).numel() for name in prunable(network))
    overhead = 60_000
    if stage.kind == "rewind_point":
        return overhead + 4 * weights
    kept = weights
    if stage.kind == "round" and stage.labels["round"]:
        kept = masks.kept_after(stage.params["rate"], stage.labels["round"], weights)
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
    for key, stage in stages.items():
        begin = max((ends.get(parent, 0.0) for parent in stage.parents), default=0.0)
        ends[key] = begin + work(stage)
    total = sum(work(stage) for stage in stages.values())
    return max(total / max(slots, 1), max(ends.values(), default=0.0))
