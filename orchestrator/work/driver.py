"""``elth run``: from a plan to a report, by way of what the store holds already."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from rich.console import Console

from elth import plugins
from elth.apart import apart, end
from elth.errors import ElthError
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.estimating import pace
from orchestrator.plan.graph import Plan
from orchestrator.plan.imported import how_to_import, lacking
from orchestrator.plan.naming import find
from orchestrator.plan.only import Only
from orchestrator.plan.outside import Outside, outside
from orchestrator.plan.schedule import Schedule
from orchestrator.plan.stage import Stage, dataset_of
from orchestrator.report import analyses
from orchestrator.report.analysis_forms import analyses_tables
from orchestrator.report.cells import collect
from orchestrator.report.flops import known
from orchestrator.report.flops_forms import told
from orchestrator.store import classes, trash, variants
from orchestrator.store import redo as again
from orchestrator.store.address import Store
from orchestrator.store.away import patiently
from orchestrator.store.content import Change
from orchestrator.store.keeping import notes_of
from orchestrator.store.listing import Tracked, seconds_per_work
from orchestrator.store.outbox import publish_all
from orchestrator.store.processes import owner
from orchestrator.store.standing import Standing, standing_of
from orchestrator.store.tracker import Tracker
from orchestrator.work import scratch, shadows, timing
from orchestrator.work.progress import Progress
from orchestrator.work.resources import (
    check_recipes,
    compiles,
    local_slots,
    numerics_here,
    read_datasets,
)

_NAMED = 5
"""Stages whose titles a note tells."""


class Machines(Protocol):
    """Where trials run."""

    def slots(self, experiment: Experiment) -> int:
        """How many trials run at a time.

        Raises:
            ElthError: not even one; the message has the numbers.
        """

    def check(
        self, experiment: Experiment, store: Store, datasets: Iterable[str], code: Outside
    ) -> list[str]:
        """Refuse machines that do not see what others write, or do not have the same code.

        Returns what a person should know besides.

        Raises:
            ElthError: one of them does not; the message names it.
        """

    def numerics(self, classes: Iterable[tuple[int, float, str, int]]) -> set[str]:
        """The numerics classes there, of arguments of ``resources.numerics``."""

    def publish(self, store: Store) -> list[str]:
        """Publish what finished stages wait on other disks than this machine's; returns notes."""


class Watcher(Protocol):
    """Who is told how far a run is."""

    def watching(self, schedule: Schedule) -> AbstractContextManager[None]:
        """Look at a schedule for as long as the block lasts."""


class ThisMachine:
    """Trials run beside the driver."""

    def slots(self, experiment: Experiment) -> int:
        """How many trials run at a time."""
        return local_slots(experiment).count

    def check(
        self, experiment: Experiment, store: Store, datasets: Iterable[str], code: Outside
    ) -> list[str]:
        """It sees what it writes; where memory lets fewer trials run than cores do, it says so.

        Raises:
            ElthError: Ray could not start here.
        """
        scratch.check()
        slots = local_slots(experiment)
        return [str(slots)] if slots.by_memory else []

    def numerics(self, classes: Iterable[tuple[int, float, str, int]]) -> set[str]:
        """The numerics classes here."""
        return apart(numerics_here, list(classes))

    def publish(self, store: Store) -> list[str]:
        """There are no other disks."""
        return []


def execute(
    experiment: Experiment,
    plan: Plan,
    store: Store,
    console: Console,
    *,
    retry_failed: bool,
    replace: bool = False,
    redo: Sequence[str] = (),
    machines: AbstractContextManager[Machines] | None = None,
    only: Only | None = None,
    watcher: Watcher | None = None,
    until: float | None = None,
) -> Mapping[str, str]:
    """Do what is left of a plan, then report; returns the reasons of failed stages by key.

    Args:
        experiment: the experiment of the plan.
        plan: its stages.
        store: where results are found and go.
        console: where progress and tables are printed.
        retry_failed: whether stages that failed for good are done again.
        replace: whether the grid shall be this plan alone, whatever it held.
        redo: stages that are done again though they are finished, as ``naming.find`` knows them;
            and what was made of them, where they come out different.
        machines: where trials run, entered for as long as they do; this machine when None.
        only: what of the plan is done now, with all that it needs; all of it when None. The grid
            is recorded as the whole plan in any case.
        watcher: is told how far it is, while trials run.
        until: by ``time.monotonic``, when the run is to end as on a signal.

    Raises:
        ElthError: the grid would lose cells, the store or the dataset cannot be had, the machines
            are too small, or one of them cannot see what the others write.
        KeyboardInterrupt: it was stopped before its end; ``stopping.TimeOverError`` if by
            ``until``.
    """
    shadows.check()
    check_recipes(experiment)
    _check_case(store.folder or Path(), experiment.name)
    with machines or nullcontext(ThisMachine()) as found:
        return _execute(
            experiment,
            plan,
            store,
            console,
            found,
            retry_failed=retry_failed,
            replace=replace,
            redo=redo,
            only=only,
            watcher=watcher,
            until=until,
        )


def _check_case(folder: Path, grid: str) -> None:
    """Refuse a grid whose report would go over that of another, on a disk that ignores case."""
    reports = folder / "reports"
    names = [path.name for path in reports.glob("*")]
    twins = [name for name in names if name.lower() == grid.lower()]
    if twins and grid not in twins and (reports / grid).exists():
        raise ElthError(
            f"the disk of {reports} takes the grids {twins[0]} and {grid} for one: name this one "
            "otherwise, by name="
        )


def _execute(
    experiment: Experiment,
    plan: Plan,
    store: Store,
    console: Console,
    machines: Machines,
    *,
    retry_failed: bool,
    replace: bool,
    redo: Sequence[str],
    only: Only | None,
    watcher: Watcher | None,
    until: float | None,
) -> Mapping[str, str]:
    whole = plan
    if only is not None:
        plan = only.of(whole, experiment.name)
        part = f"{len(plan.stages):,} of {len(whole.stages):,} stages"
        _say(console, f"only {only}: {part} of {experiment.name}, with what they need")
    count = machines.slots(experiment)
    for note in plan.notes:
        _say(console, f"note: {note}")
    tracker = _open(store, experiment.name, console)
    change = _change(tracker, experiment, whole, replace)
    publish_all(tracker, store.outbox)
    for note in machines.publish(store):
        _say(console, f"note: {note}")
    tracked = tracker.stages()
    have = {one.key for one in tracked if one.status == "finished"}
    missing = lacking(plan.stages, have, [one.stage for one in tracked], str(store))
    if missing:
        raise ElthError("; ".join(missing))
    asked = _asked(experiment, plan, tracker, tracked, redo, only)
    waiting = again.waiting(tracker, tracked, asked.named) | asked.again
    now = standing_of(tracker, plan, tracked, waiting, experiment.pruning.stop)
    todo, expected = now.todo, set[str]()
    needed = {key for stage in todo for key in stage.parents if key in now.finished}
    tracker.check_files([now.finished[key].run_id for key in needed])
    if todo:
        datasets = list(dict.fromkeys(dataset_of(stage) for stage in todo))
        root, download = experiment.data.root, experiment.data.download
        apart(read_datasets, datasets, root, download=download, paths=plugins.in_use())
        expected = _expected(experiment, todo, machines) if now.finished else set()
        for note in machines.check(experiment, store, datasets, outside(todo)):
            _say(console, f"note: {note}")
    change = tracker.grids.extend(experiment, whole, change)  # from here on it is written to
    is_whole = change.before is None or change.after == change.asked
    if not is_whole or change.lost or change.renewed:
        _say(console, f"note: {change.told}")
    del change
    if redo:
        again.begin(tracker, asked)
    for stage in now.short.needed:
        again.mark_lacking(tracker, stage.key, weights=True)
    comes = _what_comes(plan, tracked, now.again, experiment.name)
    for note in (*asked.notes, *comes, *notes_of(now.short), *_classes(now, expected)):
        _say(console, f"note: {note}")
    rest = (
        one
        for one in tracked
        if one.status == "finished" and one.key in whole.stages.keys() - plan.stages.keys()
    )
    tracker.grids.join_finished([*now.finished.values(), *rest], experiment.name)
    schedule = Schedule(
        plan,
        now.finished,
        {} if retry_failed else _failed(now, tracked),
        again=now.again - now.over.keys(),
        slots=count,
        seconds_per_work=_speed(experiment, plan, tracked, todo),
        last=now.last,
    )
    redoes = bool(now.again or redo)
    del tracked, now, todo  # much memory, in a run that may last for days
    end()  # the process beside this one, which holds as much
    driven = tracker.grids.driven(experiment.name, owner())
    watched = nullcontext() if watcher is None else watcher.watching(schedule)
    with driven, Progress(schedule, console, experiment.name), watched:
        if not schedule.is_over:
            from orchestrator.work import runner

            limit = {} if until is None else {"until": until}
            runner.run(schedule, experiment, store, count, **limit)
    outcome = schedule.snapshot().failed
    if redoes:
        patiently(lambda: _end_redo(tracker, plan, asked, console), store)
    try:
        patiently(lambda: _report(tracker, experiment, console, only), store)
    except ElthError as error:
        if not outcome:
            raise
        first = next(iter(outcome.values()))  # what a person has to know
        raise ElthError(f"{error}; before that failed {first}") from error
    return outcome


def _open(store: Store, grid: str, console: Console) -> Tracker:
    """The store, begun if it is new; tells what was taken back that somebody deleted."""
    tracker = Tracker(store, keep_index=True)
    tracker.tend()
    for note in (*tracker.notes, trash.undo(tracker, grid), tracker.grids.take_back(grid)):
        if note:
            _say(console, f"note: {note}")
    tracker.notes.clear()
    return tracker


def _change(tracker: Tracker, experiment: Experiment, whole: Plan, replace: bool) -> Change:
    """What becomes of the grid.

    Raises:
        ElthError: it would lose cells.
    """
    try:
        change = tracker.grids.change(experiment, whole, replace=replace)
    except ElthError:
        tracker.check_files()  # if most are not there, that is what is to be told
        raise
    if change.refusal:
        raise ElthError(change.refusal)
    return change


def _failed(now: Standing, tracked: Iterable[Tracked]) -> dict[str, str]:
    """The stages that failed for good and are left so, each with the reason."""
    done = now.finished.keys() | {stage.key for stage in now.short.needed}
    return {
        one.key: one.reason
        for one in tracked
        if one.status == "failed" and one.is_final
        if one.key in now.plan.stages and one.key not in done
    }


def _classes(now: Standing, expected: Collection[str]) -> list[str]:
    """What is to be told where stages will be of other numerics classes than those that are there.

    Args:
        now: how the plan stands.
        expected: the classes in which the rest will be computed; none where there is no rest.
    """
    others = {one.numerics for one in now.finished.values() if one.numerics} - {*expected}
    if not others or not expected:
        return []
    return [
        "finished stages of this grid come from another numerics class, in which the same seed "
        f"gives other bits: {', '.join(sorted(others))}"
    ]


def _asked(
    experiment: Experiment,
    plan: Plan,
    tracker: Tracker,
    tracked: Sequence[Tracked],
    redo: Sequence[str],
    only: Only | None = None,
) -> again.Request:
    """What is to be done again; nothing is written yet."""
    if not redo:
        return again.NOTHING
    runs = {one.run_id: one.key for one in tracked}
    where = experiment.name if only is None else f"{experiment.name} (only {only})"
    stages = [find(text, plan.stages, runs, where) for text in redo]
    for stage in stages:
        if stage.is_given:
            raise ElthError(
                f"{stage.title} is computed by nothing: {how_to_import(stage)} brings it anew"
            )
    return again.request(tracker, experiment.name, {one.key: one for one in stages}.values())


def _speed(
    experiment: Experiment, plan: Plan, tracked: Sequence[Tracked], todo: Sequence[Stage]
) -> float | None:
    """Seconds that a unit of work takes here: by the store, or by steps that were timed before."""
    want = experiment.resources
    alike = (
        one
        for one in tracked
        if classes.takes_as_long(one.numerics, gpus=want.gpus, workers=want.workers)
    )
    speed = seconds_per_work(alike, plan)
    if speed is None and todo:
        timed = pace(todo, timing.known(experiment, todo))
        speed = None if timed is None else timed[0]
    return speed


def _what_comes(
    plan: Plan, tracked: Iterable[Tracked], waiting: Collection[str], grid: str
) -> Iterable[str]:
    """What a person should know before finished stages are done again."""
    mine = [key for key in plan.stages if key in waiting]
    if not mine:
        return
    made = {one.key: one for one in again.below(mine, tracked)}
    own = sum(key in plan.stages for key in made)
    others = sorted({name for one in made.values() for name in one.grids} - {grid})
    named = ", ".join(plan.stages[key].title for key in mine[:_NAMED])
    more = f" and {len(mine) - _NAMED} more" if len(mine) > _NAMED else ""
    text = f"to be done again: {named}{more}"
    if made:
        text += f"; {len(made)} finished stages come of it"
        text += f", {len(made) - own} of them in no cell of this grid" if own < len(made) else ""
        text += f" (in {', '.join(others)} too)" if others else ""
        text += ", of which those are done again whose parents come out different"
    yield text


def _end_redo(tracker: Tracker, plan: Plan, asked: again.Request, console: Console) -> None:
    """Close a request that was met, or tell what is left of it."""
    left = again.waiting(tracker, tracker.stages(), asked.named) & plan.stages.keys()
    if left:
        _say(console, f"note: {len(left)} stages are still to be done again: give the same command")
    elif asked.named:
        again.end(tracker, asked)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _expected(experiment: Experiment, todo: Iterable[Stage], machines: Machines) -> set[str]:
    """The numerics classes in which stages will be computed."""
    resources = experiment.resources
    device = "cuda" if resources.gpus else "cpu"
    workers = resources.workers
    fast = "compiled-graph" if resources.gpus and workers == 1 else "compiled"
    ways = {fast if compiles(stage, resources.compile, device) else "eager" for stage in todo}
    classes = [(resources.cpus, resources.gpus, way, workers) for way in sorted(ways)]
    return machines.numerics(classes)


def _report(tracker: Tracker, experiment: Experiment, console: Console, only: Only | None) -> None:
    """Write the report of the whole grid, and print it; of a part what belongs to that."""
    from orchestrator.report import page  # it draws, by matplotlib
    from orchestrator.report.forms import to_tables, write
    from orchestrator.report.judgement import judge  # by scipy

    report = collect(tracker, experiment.name)
    if experiment.variants:
        variants.tell(tracker, experiment.name, tracker.grids.content(experiment.name))
    folder = (tracker.store.folder or Path()) / "reports" / experiment.name
    measured = analyses.collect(tracker, experiment.name)
    counted = known(tracker, report, tell=lambda why: _say(console, f"Note: {why}"))
    judged = judge(report)
    files = write(report, folder, measured, counted, judged=judged)
    files.append(page.write(tracker, report, folder, measured, counted, judgement=judged))
    tracker.grids.add_report(experiment.name, files)
    if only is not None:
        whole, report = report, collect(tracker, experiment.name, only=only)
        measured = analyses.collect(tracker, experiment.name, only=only)
        counted, judged = known(tracker, report, whole=whole), judge(report)
    console.print(to_tables(report, told(report, counted), judged))
    if measured != analyses.NONE:
        console.print(analyses_tables(measured))
    _say(console, f"Report: {folder} ({', '.join(path.name for path in files)})")
