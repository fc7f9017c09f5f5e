"""``elth run``: from a plan to a report, by way of what the store holds already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console

from elth.errors import ElthError
from orchestrator import cluster
from orchestrator import report as reports
from orchestrator.apart import apart, end
from orchestrator.experiment import Experiment
from orchestrator.outbox import patiently, publish_all
from orchestrator.plan import Plan, Stage, dataset_of, seconds_per_work
from orchestrator.progress import Progress
from orchestrator.resources import (
    check_recipes,
    compiles,
    local_slots,
    numerics_here,
    read_datasets,
)
from orchestrator.schedule import Schedule
from orchestrator.store import Store
from orchestrator.tracking import Tracked, Tracker


def execute(
    experiment: Experiment,
    plan: Plan,
    store: Store,
    console: Console,
    *,
    retry_failed: bool,
    address: str | None = None,
) -> Mapping[str, str]:
    """Do what is left of a plan, then report; returns the reasons of failed stages by key.

    Args:
        experiment: the experiment of the plan.
        plan: its stages.
        store: where results are found and go.
        console: where progress and tables are printed.
        retry_failed: whether stages that failed for good are done again.
        address: the Ray cluster to run on; this machine alone when None.

    Raises:
        ElthError: the store or the dataset cannot be had, the machines are too small, or one of
            them cannot see what the others write.
    """
    check_recipes(experiment)
    if address is None:
        return _execute(experiment, plan, store, console, None, retry_failed=retry_failed)
    with cluster.connected(address, experiment.resources.cpus) as nodes:
        return _execute(experiment, plan, store, console, nodes, retry_failed=retry_failed)


def _execute(
    experiment: Experiment,
    plan: Plan,
    store: Store,
    console: Console,
    nodes: tuple[cluster.Node, ...] | None,
    *,
    retry_failed: bool,
) -> Mapping[str, str]:
    if nodes is None:
        count = local_slots(experiment)
    else:
        count = cluster.slots(experiment, nodes)
    tracker = Tracker(store, keep_index=True)
    publish_all(tracker, store.outbox)
    tracked = tracker.stages()
    finished: dict[str, Tracked] = {}
    for one in tracked:
        if one.status == "finished" and one.key in plan.stages:
            finished.setdefault(one.key, one)
    failed = {
        one.key: one.reason
        for one in tracked
        if one.status == "failed" and one.is_final and not retry_failed
        if one.key in plan.stages and one.key not in finished
    }
    todo = [stage for key, stage in plan.stages.items() if key not in finished]
    datasets = list(dict.fromkeys(dataset_of(stage) for stage in todo))
    root, download = experiment.data.root, experiment.data.download
    if todo:
        apart(read_datasets, datasets, root, download=download)
    expected = _expected(experiment, todo, nodes) if finished and todo else set()
    if nodes and todo:
        for note in cluster.check_places(
            nodes,
            store,
            experiment.resources.storage,
            datasets=datasets,
            data_root=str(root.absolute()),
            download=download,
        ):
            console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    tracker.open_grid(experiment.name, experiment.resolved(), plan.stages, experiment.description)
    tracker.join_finished(finished.values(), experiment.name)
    others = {one.numerics for one in finished.values()} - expected
    if others and expected:
        console.print(
            "note: finished stages of this grid come from another numerics class, in which the "
            f"same seed gives other bits: {', '.join(sorted(others))}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    schedule = Schedule(
        plan, finished, failed, slots=count, seconds_per_work=seconds_per_work(tracked, plan)
    )
    del tracked, finished, todo  # much memory, in a run that may last for days
    end()  # the process beside this one, which holds as much
    with Progress(schedule, console, experiment.name):
        if not schedule.is_over:
            from orchestrator import runner

            runner.run(schedule, experiment, store, count)
    outcome = schedule.snapshot().failed
    try:
        patiently(lambda: _report(tracker, experiment, console), store)
    except ElthError as error:
        if not outcome:
            raise
        first = next(iter(outcome.values()))  # what a person has to know
        raise ElthError(f"{error}; before that failed {first}") from error
    return outcome


def _expected(
    experiment: Experiment, todo: Iterable[Stage], nodes: tuple[cluster.Node, ...] | None
) -> set[str]:
    """The numerics classes in which stages will be computed."""
    resources = experiment.resources
    device = "cuda" if resources.gpus else "cpu"
    fast = "compiled-graph" if resources.gpus else "compiled"
    workers = resources.workers
    ways = {
        fast if workers == 1 and compiles(stage, resources.compile, device) else "eager"
        for stage in todo
    }
    classes = [(resources.cpus, resources.gpus, way, workers) for way in sorted(ways)]
    if nodes is None:
        return apart(numerics_here, classes)
    answers = cluster.ask(nodes, numerics_here, classes).values()
    return set().union(*(found for found in answers if not isinstance(found, str)))


def _report(tracker: Tracker, experiment: Experiment, console: Console) -> None:
    report = reports.collect(tracker, experiment.name)
    folder = (tracker.store.folder or Path()) / "reports" / experiment.name
    files = reports.write(report, folder)
    tracker.add_report(experiment.name, files)
    console.print(reports.to_tables(report))
    shown = ", ".join(path.name for path in files)
    console.print(f"Report: {folder} ({shown})", highlight=False, markup=False, soft_wrap=True)
