"""``elth plan``: what a run would do, before anything is spent."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from elth.errors import ElthError
from orchestrator.cli.common import PLACE, Command, find_store, open_tracker, out, store_option
from orchestrator.cli.options import json_option, only_option, print_json
from orchestrator.cli.walking import Asked, Walked, slots_options, walked
from orchestrator.plan.costs import size_of
from orchestrator.plan.ending import endings
from orchestrator.plan.imported import lacking

if TYPE_CHECKING:
    from orchestrator.experiment.sections import Experiment
    from orchestrator.plan.graph import Plan
    from orchestrator.plan.only import Only
    from orchestrator.plan.stage import Stage
    from orchestrator.plan.walking import Course
    from orchestrator.store.listing import Tracked
    from orchestrator.store.standing import Standing
    from orchestrator.store.tracker import Tracker


@click.command(cls=Command, example="elth plan fig6_cifar_resnets scale=smoke")
@click.argument("config", type=PLACE)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
@only_option
@click.option(
    "--time", "measures", is_flag=True, help="Time a few real iterations of each network first."
)
@slots_options
@json_option
def plan(
    config: Path,
    overrides: tuple[str, ...],
    store: str | None,
    only: Only | None,
    measures: bool,
    slots: int | None,
    nodes: int | None,
    gpus: int | None,
    cpus: int | None,
    as_json: bool,
) -> None:
    """Tell what a run of CONFIG would do, before anything is spent.

    How long it takes is told from finished stages of the store; else from steps that were timed on
    this machine, by --time or when a network's arithmetic was looked at; else it is a guess.
    --slots tells it of another number of trials at a time, and where those would wait.
    """
    from orchestrator import plan as plans
    from orchestrator.experiment.reading import load

    experiment = load(config, overrides)
    asked = Asked.of(experiment.resources, slots, nodes, gpus, cpus)
    built = plans.build(experiment)
    place = str(find_store(store))
    part = built if only is None else only.of(built, experiment.name)
    tracker = _there(store)
    tracked: list[Tracked] = []
    now, change = None, None
    notes = list(part.notes)
    if tracker is not None:
        tracked = tracker.stages()
        change = tracker.grids.change(experiment, built)
        now, more = _standing(tracker, experiment, part, tracked)
        notes += more
    finished = {} if now is None else now.finished
    over = {} if now is None else now.over
    have = {one.key for one in tracked if one.status == "finished"}
    refusals = lacking(part.stages, have, [one.stage for one in tracked], place)
    told = f"The grid {experiment.name} is new in {place}."
    if change is not None:
        refusals += [change.refusal] if change.refusal else []
        told = change.told
    done = finished.keys() | over.keys()
    again = frozenset[str]() if now is None else now.again
    estimate = _estimate(experiment, part, done, tracked, measures, again, asked)
    seen = None
    if asked is not None:
        is_timed = estimate.source != "guess" or not estimate.course.stages
        seen = walked(asked, estimate.course, part, is_timed=is_timed)
    found = Outlook(
        experiment=experiment,
        part=part,
        whole=len(built.stages),
        only=only,
        store=place,
        finished=tuple(one for key, one in part.stages.items() if key in finished),
        over=over,
        notes=tuple(notes),
        refusals=tuple(refusals),
        change=told,
        estimate=estimate,
        walked=seen,
    )
    if as_json:
        print_json(found.plain())
    else:
        _print_plan(found)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long what is to be done takes, and from what that is known."""

    seconds: float
    source: str
    """``store``: finished stages of it; ``timed``: steps timed now, by ``--time``; ``steps``: such
    that were timed on this machine before; ``guess``."""
    is_whole: bool = True
    """Whether all that is trained was timed; else the rest is taken to be as fast or slow."""
    slots: int = 1
    """Trials at a time."""
    places: str = "1 trial at a time"
    not_here: str = ""
    """Why it cannot be run on this machine."""
    steps: Mapping[str, float] = field(default_factory=dict)
    """Of ``--time``: seconds of an iteration, by what is trained."""
    took: float = 0.0
    """Seconds that the timing took."""
    course: Course
    """What is to be done, with how long each stage takes: in seconds, or of a guess in work."""


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a run would do."""

    experiment: Experiment
    part: Plan
    whole: int
    """Stages of the whole grid."""
    only: Only | None
    store: str
    finished: tuple[Stage, ...]
    over: Mapping[str, str]
    """Stages that are ended, each with the reason."""
    notes: tuple[str, ...]
    refusals: tuple[str, ...]
    """Why ``elth run`` would refuse it."""
    change: str
    """What becomes of the grid."""
    estimate: Estimate
    walked: Walked | None = None
    """With the slots that were asked for."""

    @property
    def todo(self) -> list[Stage]:
        """The stages that are to be done."""
        done = {stage.key for stage in self.finished} | self.over.keys()
        return [stage for key, stage in self.part.stages.items() if key not in done]

    @property
    def columns(self) -> dict[str, Collection[Stage]]:
        """The stages in all, and those in each state."""
        return {
            "in all": self.part.stages.values(),
            "finished": self.finished,
            "ended": [self.part.stages[key] for key in self.over],
            "to do": self.todo,
        }

    @property
    def trainings(self) -> tuple[int, int, int]:
        """Trainings, and how many each line and each cell by itself would take."""
        from orchestrator import plan as plans

        counts = plans.count_kinds(self.part.stages.values())
        own = sum(counts.get(kind, 0) for kind in ("round", "retraining", plans.SPARSE))
        return (own, *self.part.alone())

    @property
    def size(self) -> int:
        """Bytes that are added to the store, about."""
        from orchestrator import plan as plans

        return sum(plans.stored_bytes(one, one.key in self.part.kept) for one in self.todo)

    def plain(self) -> dict[str, Any]:
        """As JSON values: what ``elth plan --json`` prints."""
        from orchestrator import plan as plans

        columns = {name.replace(" ", "_"): stages for name, stages in self.columns.items()}
        counts = {name: plans.count_kinds(stages) for name, stages in columns.items()}
        own, lines, cells = self.trainings
        guess = self.estimate
        return {
            "grid": self.experiment.name,
            "store": self.store,
            "dataset": self.experiment.dataset,
            "seeds": list(self.experiment.seeds),
            "only": None if self.only is None else str(self.only),
            "stages_of_grid": self.whole,
            "stages": {name: len(stages) for name, stages in columns.items()},
            "kinds": {
                kind: {name: count.get(kind, 0) for name, count in counts.items()}
                for kind in counts["in_all"]
            },
            "trainings": {"here": own, "by_line": lines, "by_cell": cells},
            "analyses": len(self.part.analyses),
            "seconds": guess.seconds,
            "seconds_from": guess.source,
            "seconds_of_iteration": dict(guess.steps),
            "trials_at_a_time": guess.slots,
            "not_here": guess.not_here,
            "bytes": self.size,
            "notes": list(self.notes),
            "refusals": list(self.refusals),
            "change": self.change,
            **({} if self.walked is None else {"walk": self.walked.plain()}),
        }


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


def _there(place: str | None) -> Tracker | None:
    """A store, if it is there and was ever begun, as a new server was not; nothing is created."""
    if not find_store(place).is_there:
        return None
    from orchestrator.store.tracker import NotBegunError

    try:
        return open_tracker(place)
    except NotBegunError:
        return None


def _standing(
    tracker: Tracker, experiment: Experiment, part: Plan, tracked: list[Tracked]
) -> tuple[Standing, list[str]]:
    """How a plan stands in a store, and what is to be told of trained weights that are not kept."""
    from orchestrator.store.keeping import notes_of
    from orchestrator.store.redo import waiting
    from orchestrator.store.standing import standing_of

    again = waiting(tracker, tracked)
    found = standing_of(tracker, part, tracked, again, experiment.pruning.stop)
    return found, notes_of(found.short)


def _estimate(
    experiment: Experiment,
    part: Plan,
    done: Collection[str],
    tracked: list[Tracked],
    measures: bool,
    again: Collection[str],
    asked: Asked | None,
) -> Estimate:
    """How long the rest of a plan takes: here, or on the slots that were asked for.

    Raises:
        ElthError: it is to be timed, and cannot be done here.
    """
    from orchestrator import plan as plans
    from orchestrator.plan import estimating
    from orchestrator.plan.walking import Course
    from orchestrator.store import classes
    from orchestrator.work import timing
    from orchestrator.work.resources import local_slots

    todo = [stage for key, stage in part.stages.items() if key not in done]
    count, places, not_here = 1, "1 trial at a time", ""
    try:
        slots = local_slots(experiment)
        count, places = slots.count, str(slots)
    except ElthError as error:
        if measures:
            raise
        not_here = str(error)
    costs, source, steps, took = None, "guess", {}, 0.0
    if todo and measures:
        began = time.monotonic()
        steps = timing.timed(experiment, todo, count)
        if (costs := estimating.costs_by_steps(todo, steps)) is not None:
            source, took = "timed", time.monotonic() - began
    elif todo:
        networks = {stage.params["network"] for stage in part.stages.values()}
        want = experiment.resources
        timed = (
            (one.stage, one.seconds)
            for one in tracked
            if one.status == "finished" and one.seconds is not None
            if one.stage.params["network"] in networks
            if classes.takes_as_long(one.numerics, gpus=want.gpus, workers=want.workers)
        )
        if (costs := estimating.costs_by_finished(todo, timed)) is not None:
            source = "store"
        else:
            costs = estimating.costs_by_steps(todo, timing.known(experiment, todo))
            source = "guess" if costs is None else "steps"
    if costs is None:
        guess = {stage.key: plans.work(stage) for stage in todo}
        costs = estimating.Costs(seconds=guess, is_whole=True)
    is_of_group = experiment.resources.workers > 1 and source != "guess"
    launch = estimating.GROUP_SECONDS if is_of_group else 0.0
    course = Course(part, done, costs.seconds, again=again, launch=launch)
    if asked is not None:
        count, places, not_here = asked.slots, asked.told, ""
    start = estimating.START_SECONDS if todo and source != "store" else 0.0
    return Estimate(
        seconds=course.walk(count).wall + start,
        source=source,
        is_whole=costs.is_whole,
        slots=count,
        places=places,
        not_here=not_here,
        steps={str(what): one for what, one in steps.items()},
        took=took,
        course=course,
    )


_HOW = {
    "store": "from the times of finished stages in this store",
    "timed": "from iterations that were timed now",
    "steps": "from steps that were timed on this machine",
    "guess": "a rough guess, until something of it was timed here: --time does",
}


def _print_plan(found: Outlook) -> None:
    from orchestrator import plan as plans
    from orchestrator.plan.costs import duration
    from orchestrator.store.content import spell_seeds

    experiment = found.experiment
    table = Table(
        title=f"{experiment.name}: {experiment.dataset}, {spell_seeds(experiment.seeds)}",
        title_justify="left",
    )
    table.add_column("stage")
    columns = {name: some for name, some in found.columns.items() if some or name != "ended"}
    for column in columns:
        table.add_column(column, justify="right")
    counts = [plans.count_kinds(stages) for stages in columns.values()]
    for kind in counts[0]:
        told = (str(count.get(kind, 0)) for count in counts)
        table.add_row(kind.replace("_", " "), *told)
    table.add_section()
    table.add_row("all", *(str(len(stages)) for stages in columns.values()), style="bold")
    if found.only is not None:
        _say(
            f"Only {found.only}: {len(found.part.stages):,} of {found.whole:,} stages, with what "
            "they need; the grid stays whole."
        )
    out.print(table)
    own, lines, cells = found.trainings
    _say(
        f"Trainings: {own:,}. Each line of the figure by itself would take {lines:,}, each "
        f"cell by itself {cells:,}."
        + f" Analyses: {len(found.part.analyses):,}."
        * bool(found.part.analyses)
    )
    _print_outside(found.part)
    for note in found.notes:
        _say(f"note: {note}")
    for line in endings(found.over):
        _say(line)
    guess = found.estimate
    if not found.todo:
        ended = " or ended" if found.over else ""
        _say(f"Nothing to do: every stage is finished{ended} in {found.store}.")
    else:
        if guess.not_here:
            _say(f"Not on this machine: {guess.not_here}.")
        for what, seconds in guess.steps.items():
            _say(f"Timed: {what}: {1000 * seconds:.3g} ms an iteration.")
        at_most = " at most, as chains may end early" if experiment.pruning.stop else ""
        how = _HOW[guess.source]
        how += f", in {duration(guess.took)}" if guess.took else ""
        how += "" if guess.is_whole else ", and a guess for what was not"
        if found.walked is None or found.walked.unit == "seconds":
            _say(f"Time: about {duration(guess.seconds)}{at_most} ({how}), {guess.places}.")
        _say(f"Disk: about {size_of(found.size)} in {found.store}.")
        if found.walked is not None:
            found.walked.print()
    for line in found.refusals:
        _say(f"elth run would refuse: {line}.")
    if not found.refusals:
        _say(found.change)


def _say(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)


COMMANDS = (plan,)
