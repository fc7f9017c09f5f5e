"""From an experiment to the stages that it comes to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elth import criteria, dynamic, elastic, ways
from elth.counts import (
    check_last_batch,
    check_round,
    check_sparsity,
    iterations_per_epoch,
    rewind_step,
)
from elth.errors import ElthError
from elth.networks import facts
from elth.streams import Noise
from orchestrator.experiment.axes import Axes
from orchestrator.experiment.methods import (
    CHAIN,
    METHODS,
    REWIND,
    SOURCE,
    SPARSE,
    Method,
    method_of,
)
from orchestrator.experiment.reading import load
from orchestrator.experiment.sections import Cell, Experiment
from orchestrator.plan.analysing import stages_of
from orchestrator.plan.claiming import check_claims
from orchestrator.plan.costs import kept_after, weights_of
from orchestrator.plan.emptying import notes
from orchestrator.plan.graph import Plan
from orchestrator.plan.imported import check_iteration, imported
from orchestrator.plan.limits import MOST_STAGES, check_count, check_names
from orchestrator.plan.sparse import check_sparse
from orchestrator.plan.stage import NOISE, PAIRED, VARIANT, Stage, data_labels, info_of, named
from orchestrator.plan.stage import SPARSE as SPARSE_TRAINING
from orchestrator.plan.transforming import transform


def build(experiment: Experiment, *, is_stored: bool = False) -> Plan:
    """Work out the stages of an experiment. Needs neither data nor store.

    Args:
        experiment: the experiment.
        is_stored: whether it is that of a grid that is there, of which some slips are let pass that
            earlier versions let pass.

    Raises:
        ElthError: a transformation does not fit its networks, a count cannot be met, there are too
            many stages or too long names, two datasets have one name, or something is claimed, or
            asked for, of no cell.
    """
    check_count(experiment)
    gathered = _Gathered()
    builders: dict[str, list[_Builder]] = {}
    for name in ("", *experiment.variants):
        varied = experiment.variant(name)
        builders[name] = [_Builder(varied, seed, gathered, name) for seed in experiment.seeds]
    asked: dict[str, bool] = {}
    called: dict[str, str] = {}
    for cell in experiment.cells():
        if not is_stored:
            _check_titles(cell, called)
        for builder in builders[cell.variant]:
            key = builder.cell(cell).key
            asked[key] = asked.get(key, False) or cell.keep
    if not is_stored:
        check_claims(experiment.claims, (labels for _, labels in gathered.called()))
    looked = _analyses(experiment, gathered, is_stored=is_stored)
    stages = gathered.stages
    check_names(experiment.name, experiment.description, stages.values())
    kept = frozenset(gathered.kept.union(key for key, is_kept in asked.items() if is_kept))
    also = {key: tuple(labels) for key, labels in gathered.also.items()}
    told = (*notes(experiment), *_scored(experiment))
    return Plan(stages, tuple(asked), told, kept, also, looked)


def _analyses(experiment: Experiment, gathered: _Gathered, *, is_stored: bool) -> tuple[str, ...]:
    """Add the stages of analyses, which stand after all trainings; returns their keys."""
    rates = {name: pruning.rate for name, pruning in experiment.prunings().items()}
    trained = list(gathered.called())
    found: dict[str, None] = {}
    for number, analysis in enumerate(experiment.analyses):
        for stage in stages_of(number, analysis, trained, rates, is_stored=is_stored):
            found[gathered.add(stage).key] = None
            looked_at = (gathered.stages[parent] for parent in stage.parents)
            gathered.kept.update(one.key for one in looked_at if one.kind != "round")
            if len(gathered.stages) > MOST_STAGES:
                raise ElthError(
                    f"with analyses {number} and those before, {experiment.name} comes to more "
                    f"than the {MOST_STAGES:,} stages that a plan holds: select fewer cells by of"
                )
    return tuple(found)


def of_file(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Experiment, Plan]:
    """Read an experiment, changed by overrides, and work out its stages.

    Raises:
        ElthError: as ``experiment.load`` and ``build``.
    """
    experiment = load(path, overrides)
    return experiment, build(experiment)


ANEW: tuple[Mapping[str, Any], ...] = ({"reinit": "all"},)
"""The steps of the method that takes the masks of a chain and draws all weights anew."""


@dataclass(frozen=True, kw_only=True)
class _Level:
    """How much of a network is kept: after a number of prunings, or at an exact sparsity."""

    round: int
    target: str
    kept: int
    ticket: str = ""
    """The imported ticket from which rounds are counted; of the rewind point when empty."""


@dataclass(frozen=True)
class _Gathered:
    """What the builders of all seeds and variants add to."""

    stages: dict[str, Stage] = field(default_factory=dict)
    also: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    """What stages are called besides, that are of several variants or several cells."""
    kept: set[str] = field(default_factory=set)
    """Stages whose trained weights another one needs."""

    def called(self) -> Iterator[tuple[Stage, Mapping[str, Any]]]:
        """Each stage with all that it is called, one after the other."""
        for key, stage in self.stages.items():
            for labels in (stage.labels, *self.also.get(key, ())):
                yield stage, labels

    def add(self, stage: Stage) -> Stage:
        """Add a stage; the same one if it is there already."""
        known = self.stages.setdefault(stage.key, stage)
        if known is not stage and (place := _place(stage.labels)) != _place(known.labels):
            named = self.also.setdefault(stage.key, [])
            if all(_place(labels) != place for labels in named):
                named.append(stage.labels)
        return known


def _place(labels: Mapping[str, Any]) -> tuple[Any, ...]:
    """What cells are told apart by; one training may be several, as a round and its sparsity."""
    pair = (tuple(one.items()) for one in labels.get(PAIRED, ()))
    return (*Axes.of(labels), labels.get("seed"), *pair)


class _Builder:
    """Adds what a cell needs to the stages, for one seed and variant."""

    def __init__(
        self, experiment: Experiment, seed: int, gathered: _Gathered, variant: str
    ) -> None:
        self.experiment = experiment
        self.seed = seed
        self.gathered = gathered
        self.variant = variant
        self._chains: dict[tuple[str, str, str], list[Stage]] = {}
        self._anew: dict[tuple[str, str, str, str], list[Stage]] = {}
        self._starts: dict[tuple[str, str], Stage] = {}
        self._common: dict[str, dict[str, Any]] = {}

    def cell(self, cell: Cell) -> Stage:
        """Add the stages of a cell, parents first; returns its own."""
        made = self.trained(cell)
        return self.add(self.twin(made, cell.noise) if cell.noise else made)

    def trained(self, cell: Cell) -> Stage:
        """The stage of a cell, twins apart; what it needs is added, and not itself.

        Whoever asks for a twin does not ask for what it is a twin of.
        """
        method = method_of(cell.method)
        if method.base == SOURCE:
            return self.moved(cell)
        level = self.level(cell.network, cell.dataset, cell)
        if method.base == SPARSE:
            return self.sparse(cell, level)
        if method.base == REWIND:
            settings = self.experiment.criteria.get(method.criterion, {})
            _check_samples(method.criterion, settings, cell.dataset)
            step = {
                "criterion": method.criterion,
                **_version_of(method.criterion, method),
                "nonzeros": level.kept,
                **settings,
            }
            start = self.rewind_point(cell.network, cell.dataset)
            return self.retraining(cell, level, (start,), [step, *method.steps])
        if method.base == CHAIN:
            return self.ticket_stage(cell.network, cell.dataset, level)
        if method.steps == ANEW and (not level.round or self.experiment.pruning.repel):
            return self.drawn_anew(cell, level)
        ticket = self.untrained(cell.network, cell.dataset, level)
        return self.retraining(cell, level, (ticket,), list(method.steps))

    def sparse(self, cell: Cell, level: _Level) -> Stage:
        """A training whose mask is its own: of as many weights at the end as the level has."""
        name = method_of(cell.method).criterion
        settings = dict(self.experiment.criteria.get(name, {}))
        recipe, info = self.experiment.recipe_for(cell.dataset), info_of(cell.dataset)
        # A rewind point at iteration 0 is initialisation.
        at = rewind_step(info.train_size, recipe) if settings.pop("at", "init") == "rewind" else 0
        check_sparse(
            dynamic.method(name, settings),
            cell.network,
            info,
            recipe,
            level.kept,
            at,
        )
        self.check(cell.network, cell.dataset)
        start = self.rewind_point(cell.network, cell.dataset) if at else None
        return Stage(
            kind=SPARSE_TRAINING,
            params={
                **named(cell.network),
                **self.common(cell.dataset),
                "method": name,
                **({"settings": settings} if settings else {}),
                "keep": level.kept,
                **({} if start else {"start": 0}),
            },
            parents=(start.key,) if start else (),
            labels=self.labels(cell.network, cell.dataset, cell.method, level),
        )

    def drawn_anew(self, cell: Cell, level: _Level) -> Stage:
        """Masks of a chain with weights drawn anew: of what it starts from, or each repelled.

        Under a repellent loss it is a chain as well, which is repelled from its own earlier rounds
        and not from those whose masks it takes (Maene et al. 2021, Figure 15).
        """
        line = (cell.method, cell.network, cell.dataset, level.ticket)
        chain = self._anew.setdefault(line, [])
        first = _Level(round=0, target="", kept=0, ticket=level.ticket)
        if not chain:
            start = self.start(cell.network, cell.dataset, level.ticket)
            chain.append(self.retraining(cell, first, (start,), list(ANEW)))
        whole = level.round - bool(level.target)  # an exact sparsity comes after that round
        for k in range(len(chain), whole + 1):
            chain.append(self.repelled_anew(cell, dataclasses.replace(first, round=k), chain[-1]))
        return self.repelled_anew(cell, level, chain[whole]) if level.target else chain[whole]

    def repelled_anew(self, cell: Cell, level: _Level, before: Stage) -> Stage:
        """The next of such a chain."""
        ticket = self.ticket(cell.network, cell.dataset, level)
        self.gathered.kept.add(self.add(before).key)
        repelled = self.repelled(level.round)
        return self.retraining(cell, level, (ticket, before), list(ANEW), more=repelled)

    def twin(self, stage: Stage, number: int) -> Stage:
        """The training of a stage with other noise, and nothing else changed."""
        noise = dataclasses.replace(Noise.of(stage.params.get("noise", {})), copy=number)
        params = {**stage.params, "noise": noise.plain()}
        # It may be called by another variant that has it in common with this one.
        labels = {name: one for name, one in stage.labels.items() if name != VARIANT}
        labels |= {NOISE: number, **({VARIANT: self.variant} if self.variant else {})}
        return dataclasses.replace(stage, params=params, labels=labels)

    def moved(self, cell: Cell) -> Stage:
        """The ticket of another network or dataset, transformed."""
        method = method_of(cell.method)
        level = self.level(cell.source, cell.source_dataset, cell)
        try:
            move = transform(
                cell.transform, cell.source, cell.network, cell.source_dataset, cell.dataset
            )
        except ElthError as error:
            raise ElthError(
                f"in {cell.method} from {cell.source} to {cell.network} by '{cell.transform}': "
                f"{error}"
            ) from error
        steps: list[Mapping[str, Any]] = [move.step] if move.step else []
        if cell.source_dataset != cell.dataset:
            head = facts(cell.network, info_of(cell.dataset).shape).anatomy.head
            if not head and method.move == Method.move:
                raise ElthError(
                    f"{cell.network} tells no anatomy, so it is not known which layer is its head, "
                    f"which {cell.dataset} needs anew: let its function return elth.with_anatomy"
                )
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
            return self.ticket_stage(cell.source, cell.source_dataset, level)
        parents = [self.untrained(cell.source, cell.source_dataset, level)]
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
                more = {k: v for k, v in settings.items() if k != "at"}
                step = {**step, **_version_of(step["graft"]), **more}
            steps.append(step)
        return self.retraining(cell, level, tuple(parents), steps, move.label)

    def level(self, network: str, dataset: str, cell: Cell) -> _Level:
        """The count that a cell asks for on a network.

        Raises:
            ElthError: it leaves no weight, fewer than are never pruned, or needs more rounds.
        """
        total, whole = weights_of(network, info_of(dataset).shape)
        pruning, name = self.experiment.pruning, cell.ticket
        unpruned = facts(network, info_of(dataset).shape).anatomy.unpruned
        first = self.experiment.tickets[name].nonzeros if name else total
        if not cell.target:
            kept = kept_after(pruning.rate, cell.round, first)
            check_round(
                *(cell.round, pruning.rate, first),
                of=f"{network} from {name}" if name else network,
                kept=kept,
                whole=whole,
                unpruned=unpruned,
            )
            return _Level(round=cell.round, target="", kept=kept, ticket=name)
        kept = check_sparsity(cell.target, total, of=network, whole=whole, unpruned=unpruned)
        if name and kept >= first:
            raise ElthError(
                f"a sparsity of {cell.target} on {network} keeps {kept:,} weights, and the ticket "
                f"{name} has {first:,}: ask for more than {1 - first / total:.4f}, or for round: 0"
            )
        k = 0
        while k < MOST_STAGES and kept_after(pruning.rate, k + 1, first) > kept:
            k += 1
        if k > pruning.rounds and method_of(cell.method).base not in (REWIND, SPARSE):
            last = 1 - kept_after(pruning.rate, pruning.rounds, first) / total
            raise ElthError(
                f"a sparsity of {cell.target} on {network} needs a smaller round after round "
                f"{k}, and pruning.rounds is {pruning.rounds} ({100 * last:.2f} %)"
            )
        return _Level(round=k + 1, target=cell.target, kept=kept, ticket=name)

    def untrained(self, network: str, dataset: str, level: _Level) -> Stage:
        """The stage that has the ticket of a level, added: the imported one, or who trains it."""
        if level.ticket and not level.round:
            return self.start(network, dataset, level.ticket)
        return self.ticket(network, dataset, level)

    def ticket(self, network: str, dataset: str, level: _Level) -> Stage:
        """The stage of IMP that trains the ticket of a level, added."""
        return self.add(self.ticket_stage(network, dataset, level))

    def ticket_stage(self, network: str, dataset: str, level: _Level) -> Stage:
        """The stage of IMP that trains the ticket of a level; what it needs is added."""
        name = level.ticket
        if self.experiment.pruning.one_shot and level.round:
            return self.smaller(network, dataset, level, self.chain(network, dataset, 0, name))
        if not level.target:
            return self.round_of(network, dataset, level.round, name)
        before = self.chain(network, dataset, level.round - 1, name)
        return self.smaller(network, dataset, level, before)

    def smaller(self, network: str, dataset: str, level: _Level, before: Stage) -> Stage:
        """A round that prunes to a count."""
        start = self.start(network, dataset, level.ticket)
        common = {**named(network), **self.common(dataset), "keep": level.kept}
        return Stage(
            kind="round",
            params={
                **common,
                **self.goes_on(level.ticket),
                **self.way(dataset),
                **self.repelled(level.round),
                **self.drawn(level),
            },
            parents=(start.key, before.key),
            labels=self.labels(network, dataset, "imp", level),
        )

    def chain(self, network: str, dataset: str, rounds: int, ticket: str = "") -> Stage:
        """Add the rounds of IMP up to one, which is returned; from an imported ticket, if given.

        Round 0 trains what they start from: the dense network, or that ticket.
        """
        chain = self._chains.setdefault((network, dataset, ticket), [])
        for k in range(len(chain), rounds + 1):
            chain.append(self.add(self.round_of(network, dataset, k, ticket)))
        return chain[rounds]

    def round_of(self, network: str, dataset: str, k: int, ticket: str = "") -> Stage:
        """A round of IMP; those before it are added."""
        chain = self._chains.get((network, dataset, ticket), [])
        if k < len(chain):
            return chain[k]
        start = self.start(network, dataset, ticket)
        before = (self.chain(network, dataset, k - 1, ticket).key,) if k else ()
        level = _Level(round=k, target="", kept=0, ticket=ticket)
        rate = {"rate": str(self.experiment.pruning.rate), **self.way(dataset)} if k else {}
        return Stage(
            kind="round",
            params={
                **named(network),
                **self.common(dataset),
                **self.goes_on(ticket),
                **rate,
                **self.repelled(k),
                **self.drawn(level),
            },
            parents=(start.key, *before),
            labels=self.labels(network, dataset, "imp" if k or ticket else "dense", level),
        )

    def start(self, network: str, dataset: str, ticket: str) -> Stage:
        """What a chain starts from and goes back to: its rewind point, or an imported ticket."""
        if not ticket:
            return self.rewind_point(network, dataset)
        if self.experiment.pruning.weights == "init":
            raise ElthError(
                f"with pruning.weights: init rounds go back to what was before any training, and "
                f"the ticket {ticket} has weights of iteration "
                f"{self.experiment.tickets[ticket].iteration} alone"
            )
        given = self.experiment.tickets[ticket]
        recipe = self.experiment.recipe_for(dataset)
        check_iteration(ticket, given.iteration, info_of(dataset).train_size, recipe)
        self.check(network, dataset)
        return self.add(imported(network, dataset, **given.model_dump(), name=ticket))

    def goes_on(self, ticket: str) -> dict[str, Any]:
        """What the key of a stage holds of where its training starts, if that is elsewhere."""
        return {"start": self.experiment.tickets[ticket].iteration} if ticket else {}

    def check(self, network: str, dataset: str) -> None:
        """Refuse a network that the recipe cannot train."""
        recipe, info = self.experiment.recipe_for(dataset), info_of(dataset)
        info.check_augment(recipe.augment)
        per_epoch = iterations_per_epoch(info.train_size, recipe)
        recipe.check(per_epoch)
        if (
            recipe.length.iterations(per_epoch) >= per_epoch
            and facts(network, info.shape).norm_values == 1
        ):
            check_last_batch(info.train_size, recipe, f" of {network}")

    def rewind_point(self, network: str, dataset: str) -> Stage:
        """The stage that trains a network to its rewind point."""
        if (network, dataset) not in self._starts:
            recipe, info = self.experiment.recipe_for(dataset), info_of(dataset)
            rewind_step(info.train_size, recipe)
            self.check(network, dataset)
            level = _Level(round=0, target="", kept=0)
            self._starts[network, dataset] = self.add(
                Stage(
                    kind="rewind_point",
                    params={**named(network), **self.common(dataset)},
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
        more: Mapping[str, Any] | None = None,
    ) -> Stage:
        """The stage that trains what is made of its parents by some steps."""
        is_moved = any("move" in step for step in steps)
        source = cell.source
        if source and cell.source_dataset != cell.dataset:
            source += f"@{info_of(cell.source_dataset).title}"
        return Stage(
            kind="retraining",
            params={
                **named(cell.network),
                "ticket": [_with_version(step, cell.network) for step in steps],
                **self.common(cell.dataset),
                **({} if is_moved else self.goes_on(level.ticket)),
                **self.drawn(level),
                **(more or {}),
            },
            parents=tuple(parent.key for parent in parents),
            labels=self.labels(cell.network, cell.dataset, cell.method, level, source, label),
        )

    def add(self, stage: Stage) -> Stage:
        """Add a stage; the same one if it is there already."""
        return self.gathered.add(stage)

    def way(self, dataset: str) -> dict[str, Any]:
        """What the key of a round holds of the weights that it starts from: usually nothing."""
        pruning = self.experiment.pruning
        ways.check(pruning.weights, self.experiment.recipe_for(dataset), pruning.finetune)
        found = {} if pruning.weights == "rewind" else {"weights": pruning.weights}
        return found | ({"finetune": str(pruning.finetune)} if pruning.finetune else {})

    def repelled(self, number: int) -> dict[str, Any]:
        """What a key holds of the loss by which a round is repelled from earlier ones."""
        pruning = self.experiment.pruning
        if not number or not pruning.repel:
            return {}
        previous = number > 1 and pruning.repel_from == "previous"  # of one, it is all
        return {"repel": pruning.repel, **({"repel_from": "previous"} if previous else {})}

    def drawn(self, level: _Level) -> dict[str, Any]:
        """What a key holds of noise: that of round 0 is everybody's."""
        noise = ways.noise_of(self.experiment.pruning.noise, level.round).plain()
        return {"noise": noise} if noise else {}

    def common(self, dataset: str) -> dict[str, Any]:
        """What the key of every stage holds."""
        if dataset not in self._common:
            self._common[dataset] = {
                "dataset": info_of(dataset).identity(),
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
        info = info_of(dataset)
        return {
            "network": network,
            "method": method,
            "source": source,
            "transform": transform,
            "round": level.round,
            "seed": self.seed,
            "dataset": info.title,
            **({"target": level.target} if level.target else {}),
            **({"ticket": level.ticket} if level.ticket else {}),
            **({VARIANT: self.variant} if self.variant else {}),
            **data_labels(info),
        }


def _check_titles(cell: Cell, called: dict[str, str]) -> None:
    """Refuse two datasets of one name, which labels, and so reports, could not tell apart.

    Args:
        cell: whose datasets are looked at.
        called: the datasets of cells before, by their names for people; these are added.
    """
    for name in filter(None, (cell.dataset, cell.source_dataset)):
        if (other := called.setdefault(title := info_of(name).title, name)) != name:
            raise ElthError(
                f"two datasets are called {title}: {other} and {name}: give one of them another "
                "name, in its manifest or by its folder"
            )


def _scored(experiment: Experiment) -> tuple[str, ...]:
    """Where a setting of a criterion says otherwise than a graft does."""
    found: dict[str, None] = {}
    for called, variant in dict.fromkeys((one.method, one.variant) for one in experiment.cells()):
        method = method_of(called)
        if not any("graft" in step for step in method.steps):
            continue
        name = method.criterion
        at = experiment.variant(variant).criteria.get(name, {}).get("at")
        if at is not None:
            told = f"{called} scores the weights that it takes, which are the rewind point's"
            found[f"{told}: criteria.{name}.at={at} is of {name} by itself"] = None
    return tuple(found)


def _check_samples(criterion: str, settings: Mapping[str, Any], dataset: str) -> None:
    """Refuse a criterion that asks for more training images than there are."""
    known = {**criteria.options(criterion), **settings}
    info = info_of(dataset)
    asked = known.get("samples", 0)
    if "samples_per_class" in known:
        asked = known["samples_per_class"] * known["batches"] * info.shape.classes
    if asked > info.train_size:
        raise ElthError(
            f"criterion {criterion} asks for {asked:,} training images, and {info.title} has "
            f"{info.train_size:,}: lower criteria.{criterion}"
        )


def _version_of(criterion: str, method: Method | None = None) -> Mapping[str, Any]:
    """The version of a criterion, where it is another than the first of ours.

    Args:
        criterion: its name.
        method: the method whose criterion it is, if it is one's.
    """
    known = criteria.version(criterion)
    if known:
        return {"version": known}
    ours = METHODS.get(criterion, method)  # of a method from outside, by a criterion of ours
    return {"version": ours.version} if ours is not None and ours.version > 1 else {}


def _with_version(step: Mapping[str, Any], network: str) -> dict[str, Any]:
    """A step; one that calls a function from outside with that one's version."""
    if "call" not in step or "version" in step:
        return dict(step)
    spec, known, _ = elastic.outside(step["call"])
    return {**step, "call": str(spec), "version": known, "to": network}
