"""``elth plan``, ``run`` and ``resume``."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from elth.errors import ElthError
from orchestrator.cli.common import (
    EXIT_FAILED,
    PLACE,
    Command,
    find_store,
    open_tracker,
    out,
    replace_option,
    store_option,
)
from orchestrator.plan.costs import size_of
from orchestrator.plan.ending import ended, endings, links_of, verdicts
from orchestrator.plan.imported import lacking

if TYPE_CHECKING:
    from orchestrator.experiment.sections import Experiment
    from orchestrator.plan.graph import Plan
    from orchestrator.plan.stage import Stage
    from orchestrator.store.content import Change
    from orchestrator.store.listing import Tracked


@click.command(cls=Command, example="elth plan tune_configs/fig6_cifar_resnets.yaml scale=smoke")
@click.argument("config", type=PLACE)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
def plan(config: Path, overrides: tuple[str, ...], store: str | None) -> None:
    """Tell what a run of CONFIG would do, before anything is spent."""
    from orchestrator import plan as plans
    from orchestrator.experiment.reading import load

    experiment = load(config, overrides)
    built = plans.build(experiment)
    place, tracked, change, again = _look(store, experiment, built)
    finished: dict[str, Tracked] = {}
    for one in tracked:
        if one.status == "finished" and one.key in built.stages and one.key not in again:
            finished.setdefault(one.key, one)
    over = ended(links_of(built.stages), verdicts(experiment.pruning.stop, finished))
    notes = []
    if finished and (built.kept or built.analyses):
        from orchestrator.store.keeping import notes_of, weightless

        short = weightless(open_tracker(store), built, finished, over)
        notes = notes_of(short)
        for stage in short.needed:
            del finished[stage.key]
    _print_plan(experiment, built, set(finished) - over.keys(), over, tracked, place)
    for note in notes:
        out.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    told = f"The grid {experiment.name} is new in {place}."
    lacks = lacking(built.stages, finished, [one.stage for one in tracked], place)
    for line in lacks:
        out.print(f"elth run would refuse: {line}.", highlight=False, markup=False, soft_wrap=True)
    if lacks:
        return
    if change is not None:
        told = f"elth run would refuse: {change.refusal}." if change.refusal else change.told
    out.print(told, highlight=False, markup=False, soft_wrap=True)


@click.command(cls=Command, example="elth run tune_configs/quickstart.yaml seeds=[0] --store runs")
@click.argument("config", type=PLACE)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
@click.option("--retry-failed", is_flag=True, help="Do stages again whose loss was not finite.")
@replace_option
@click.option(
    "--redo",
    multiple=True,
    metavar="STAGE",
    help="Do this stage again though it is finished: its title, or the beginning of its key or of "
    "its run's id; may be given again. What was made of it follows if it comes out different.",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Run on this Ray cluster; auto: that of this machine. [default: $RAY_ADDRESS, else "
    "a Ray of its own on this machine]",
)
@click.option(
    "--storage",
    metavar="DIR_OR_URL",
    help="Where checkpoints of trainings in progress lie. [default: resources.storage, else "
    "beside the store]",
)
def run(
    config: Path,
    overrides: tuple[str, ...],
    store: str | None,
    retry_failed: bool,
    replace: bool,
    redo: tuple[str, ...],
    address: str | None,
    storage: str | None,
) -> None:
    """Run CONFIG: every stage that is not finished in the store, then report.

    Give the same command again after any interruption, and it goes on. A plan that holds all that
    the grid of its name holds continues it, and seeds add up; one that would drop or change a cell
    is refused.
    """
    from orchestrator import plan as plans
    from orchestrator.cluster import machines
    from orchestrator.experiment.reading import spelled
    from orchestrator.work import stopping

    stopping.like_ctrl_c()
    if storage is not None:
        overrides = (*overrides, spelled("resources.storage", storage))
    experiment, built = plans.of_file(config, overrides)
    address = machines.address_of(address)
    from orchestrator.work.driver import execute

    there = machines.cluster(address, experiment.resources.cpus) if address else None
    failed = execute(
        experiment,
        built,
        find_store(store),
        out,
        retry_failed=retry_failed,
        replace=replace,
        redo=redo,
        machines=there,
    )
    _exit(failed)


@click.command(cls=Command, example="elth resume 3f9c1a2b pruning.rounds=10")
@click.argument("run_id")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
@replace_option
def resume(run_id: str, overrides: tuple[str, ...], store: str | None, replace: bool) -> None:
    """Go on from a tracked stage: run the experiment that its run holds, on any machine.

    RUN_ID is the id of a run or the key of its stage, or the beginning of one. What is finished in
    the store is not done again, so with pruning.rounds=N the chain goes on to round N. Where the
    grid has grown since, by rounds or seeds, the experiment is that of the grid.
    """
    from orchestrator.work import stopping

    stopping.like_ctrl_c()
    from orchestrator.work.resume import begin

    tracker = open_tracker(store)
    experiment, built, told = begin(tracker, run_id, overrides)
    out.print(told, highlight=False, markup=False, soft_wrap=True)
    from orchestrator.work.driver import execute

    _exit(execute(experiment, built, tracker.store, out, retry_failed=False, replace=replace))


def _exit(failed: Mapping[str, str]) -> None:
    """Tell what failed, if anything did."""
    for reason in failed.values():
        click.echo(f"elth: failed: {reason}", err=True)
    if failed:
        sys.exit(EXIT_FAILED)


def _print_outside(built: Plan) -> None:
    """Tell what of a plan is code from outside, and what of its networks is never pruned."""
    from elth import plugins
    from elth.networks import facts, module, version
    from elth.specs import Spec
    from orchestrator.plan.outside import outside
    from orchestrator.plan.stage import shape_of

    lines = []
    for name in outside(built.stages.values()).digests:
        sources = plugins.sources(name)
        files = ", ".join(sorted(path.name for path in sources.files.values()))
        lines.append(f"Code from outside: {name} ({files}), sha256:{sources.digest[:12]}.")
    told = set()
    for stage in built.stages.values():
        network = stage.params["network"]
        name = Spec.parse(network).name
        if name in told or not module(name):
            continue
        told.add(name)
        found = facts(network, shape_of(stage))
        rest = ", ".join(f"{kind} ({count:,})" for kind, count in found.whole.items())
        known = version(name)
        number = known[:19] if known.startswith("sha256:") else known
        lines.append(
            f"{network}, version {number}: {found.prunable:,} prunable weights in {found.layers} "
            f"layers{f'; never pruned: {rest}' if rest else ''}."
        )
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _look(
    place: str | None, experiment: Experiment, built: Plan
) -> tuple[str, list[Tracked], Change | None, frozenset[str]]:
    """The stages of a store, what a run would do to its grid, and what is to be done again.

    None of all if it is not there, or was never begun, as a new server; nothing is created.
    """
    store = find_store(place)
    if not store.is_there:
        return str(store), [], None, frozenset()
    from orchestrator.store.redo import waiting
    from orchestrator.store.tracker import NotBegunError

    try:
        tracker = open_tracker(place)
    except NotBegunError:
        return str(store), [], None, frozenset()
    tracked = tracker.stages()
    change = tracker.grids.change(experiment, built)
    return str(store), tracked, change, waiting(tracker, tracked)


def _print_plan(
    experiment: Experiment,
    built: Plan,
    finished: set[str],
    over: Mapping[str, str],
    tracked: list[Tracked],
    place: str,
) -> None:
    from orchestrator import plan as plans
    from orchestrator.plan.costs import duration
    from orchestrator.work.resources import local_slots

    table = Table(
        title=f"{experiment.name}: {experiment.dataset}, seeds "
        f"{', '.join(str(seed) for seed in experiment.seeds)}",
        title_justify="left",
    )
    table.add_column("stage")
    todo = [stage for key, stage in built.stages.items() if key not in finished and key not in over]
    columns: dict[str, Collection[Stage]] = {
        "in all": built.stages.values(),
        "finished": [built.stages[key] for key in finished],
        **({"ended": [built.stages[key] for key in over]} if over else {}),
        "to do": todo,
    }
    for column in columns:
        table.add_column(column, justify="right")
    counts = [plans.count_kinds(stages) for stages in columns.values()]
    for kind in counts[0]:
        told = (str(count.get(kind, 0)) for count in counts)
        table.add_row(kind.replace("_", " "), *told)
    table.add_section()
    table.add_row("all", *(str(len(stages)) for stages in columns.values()), style="bold")
    out.print(table)
    everything = counts[0]
    trainings = sum(everything.get(kind, 0) for kind in ("round", "retraining", plans.SPARSE))
    lines, cells = built.alone()
    out.print(
        f"Trainings: {trainings:,}. Each line of the figure by itself would take {lines:,}, each "
        f"cell by itself {cells:,}."
        + f" Analyses: {len(built.analyses):,}."
        * bool(built.analyses),
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    _print_outside(built)
    for note in built.notes:
        out.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    for line in endings(over):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if not todo:
        line = f"Nothing to do: every stage is finished{' or ended' if over else ''} in {place}."
        out.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    count, places = 1, "1 trial at a time"
    try:
        slots = local_slots(experiment)
        count, places = slots.count, str(slots)
    except ElthError as error:
        out.print(f"Not on this machine: {error}.", highlight=False, markup=False, soft_wrap=True)
    jobs = built.jobs(finished | over.keys())
    known = None
    if tracked:  # else MLflow need not be imported
        from orchestrator.store.listing import seconds_per_work

        known = seconds_per_work(tracked, built)
    seconds = plans.makespan(jobs, count, finished) * (known or 1.0)
    how = (
        "from the times of finished stages in this store"
        if known
        else "a rough guess, until stages have been timed here"
    )
    size = sum(plans.stored_bytes(stage, stage.key in built.kept) for stage in todo)
    at_most = " at most, as chains may end early" if experiment.pruning.stop else ""
    out.print(
        f"Time: about {duration(seconds)}{at_most} ({how}), {places}.\n"
        f"Disk: about {size_of(size)} in {place}.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


COMMANDS = (plan, run, resume)
