"""How much a plan may hold, and how long names may be, so that no store is begun in vain.

The number of stages is known by arithmetic before the first is built. What MLflow refuses, or cuts
off without a word, is refused here; its limits are those of 3.17, and a test compares them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import product

from elth.errors import ElthError
from orchestrator.experiment.methods import CHAIN, REWIND, SOURCE, SPARSE, TICKET, method_of
from orchestrator.experiment.sections import Entry, Experiment
from orchestrator.plan.stage import ANALYSIS, Stage

_LONG = 10
"""Networks that an analysis looks at, from which on it is they that make it long."""
MOST_STAGES = 100_000
"""Ten times what a store and a driver were measured with (docs/performance.md)."""

PARAM_LENGTH = 6000
TAG_LENGTH = 8000
NAME_LENGTH = 250
"""Of a run, and of the name of a parameter or tag; a grid's is a tag's, after ``grid.``."""


def check_count(experiment: Experiment) -> None:
    """Refuse an experiment that comes to more stages than a plan can hold, before any is built.

    Raises:
        ElthError: with the number, the limit and what to do.
    """
    seeds, rounds = len(experiment.seeds), experiment.pruning.rounds
    stages, chains = 0, dict[tuple[str, str, str, str], int]()
    prunings = experiment.prunings()
    for entry in experiment.grid:
        datasets = entry.dataset or (experiment.dataset,)
        for variant, method in product(entry.variants, entry.method):
            pruning = prunings[variant]
            rounds = max(rounds, pruning.rounds)
            levels, last = _levels(entry, method, pruning.rounds)
            base = method_of(method).base
            moved = base == SOURCE
            sources = entry.source if moved else entry.network
            places = (entry.source_dataset or (experiment.dataset,)) if moved else datasets
            tickets = entry.ticket or ("",)
            count = len(entry.network) * len(datasets) * levels * len(tickets)
            if moved:
                count *= len(sources) * len(places) * len(entry.transform)
            # What is a round of a chain is counted there, where it is no twin.
            is_twin = [number > 0 for number in entry.noise or (0,)]
            own = count // levels * len(entry.sparsity) if base == CHAIN else count
            stages += sum(count if twin else own for twin in is_twin)
            if pruning.repel and base == TICKET:  # which may be a chain as well
                stages += count // levels * last
            for chain in product((variant,), sources, places, tickets):
                chains[chain] = max(0 if base in (REWIND, SPARSE) else last, chains.get(chain, 0))
    total = seeds * (stages + sum(2 + last for last in chains.values()))
    if total <= MOST_STAGES < rounds:  # no chain is as long, and to count its weights takes long
        raise ElthError(f"pruning.rounds is {rounds:,}, and at most {MOST_STAGES:,} are counted")
    if total > MOST_STAGES:
        told = f"{seeds:,} times {len(chains)} chains of up to {max(chains.values()):,} rounds"
        told += f" and {stages:,} trainings besides"
        raise ElthError(
            f"{experiment.name} would come to about {total:,} stages ({told}), and a "
            f"plan holds {MOST_STAGES:,}: lower pruning.rounds, or divide seeds and grid among "
            "several experiments; in one store they share what they have in common"
        )


def _levels(entry: Entry, method: str, rounds: int) -> tuple[int, int]:
    """How many levels an entry asks of a method, and the last round that they need."""
    if method == "dense":
        return 1, 0
    if entry.round == "all" or (not entry.round and not entry.sparsity and method == "imp"):
        return rounds + bool(entry.ticket) + len(entry.sparsity), rounds
    if not entry.round and not entry.sparsity:
        return 1, 0 if entry.ticket else rounds
    last = rounds if entry.sparsity else max(entry.round)
    return len(entry.round) + len(entry.sparsity), last


def check_names(grid: str, description: str, stages: Iterable[Stage]) -> None:
    """Refuse names that MLflow would refuse, or cut off.

    Raises:
        ElthError: with what is too long, its length and the limit.
    """
    _check("the name of the experiment", f"grid.{grid}", NAME_LENGTH, "give a shorter one by name=")
    _check("its description", description, TAG_LENGTH, "shorten it")
    for stage in stages:
        what = f"of {stage.title[:60]}"
        shorter = "give a network, dataset or plan with a shorter name"
        if stage.kind == ANALYSIS and len(stage.parents) > _LONG:
            shorter = (
                f"it looks at {len(stage.parents)} rounds: name fewer, as of: {{round: [...]}}"
            )
        _check(f"the title {what}", stage.title, NAME_LENGTH, shorter)
        _check(f"the description {what}", json.dumps(stage.describe()), TAG_LENGTH, shorter)
        for name, value in stage.labels.items():
            _check(f"the {name} {what}", str(value), PARAM_LENGTH, shorter)


def _check(what: str, text: str, most: int, way: str) -> None:
    if len(text) > most:
        raise ElthError(f"{what} takes {len(text):,} letters, and MLflow keeps {most:,}: {way}")
