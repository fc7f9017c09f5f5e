"""``elth plan --slots``: a plan walked in time, in tables and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from elth.errors import ElthError
from orchestrator.cli.common import out
from orchestrator.plan.costs import duration, size_of

if TYPE_CHECKING:
    from orchestrator.experiment.sections import Resources
    from orchestrator.plan.graph import Plan
    from orchestrator.plan.loading import Load
    from orchestrator.plan.walking import Course, Walk

_BARS = 12
_BINS = 60
_PARTS = 6
_BAR = 40


def slots_options(command: Any) -> Any:
    """Add ``--slots``, and ``--nodes`` with ``--gpus`` and ``--cpus``, to a command."""
    whole = click.IntRange(min=1)
    for option in (
        click.option(
            "--cpus", type=whole, metavar="N", help="Cores of each node; enough when left out."
        ),
        click.option("--gpus", type=whole, metavar="N", help="GPUs of each node."),
        click.option(
            "--nodes",
            type=whole,
            metavar="N",
            help="The same on so many nodes, of --gpus or --cpus each, by what a trial takes.",
        ),
        click.option(
            "--slots",
            type=whole,
            metavar="N",
            help="Walk the plan with so many trials at a time: how long it takes, where it waits, "
            "and what the tracker must take.",
        ),
    ):
        command = option(command)
    return command


@dataclass(frozen=True, kw_only=True)
class Asked:
    """For which slots a plan is walked."""

    slots: int
    """Trials at a time."""
    nodes: int | None = None
    gpus: int | None = None
    cpus: int | None = None
    resources: Resources
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(
        want: Resources, slots: int | None, nodes: int | None, gpus: int | None, cpus: int | None
    ) -> Asked | None:
        """Read the options; None where none was given.

        Raises:
            ElthError: they do not go together, or no trial finds room.
        """
        if nodes is None:
            for name, given in (("--gpus", gpus), ("--cpus", cpus)):
                if given is not None:
                    raise ElthError(f"{name} is of each node: give their number by --nodes")
            if slots is None:
                return None
        elif slots is not None:
            raise ElthError(
                "--slots and --nodes both say how many trials run at a time: give one of them"
            )
        if slots is None:
            assert nodes is not None
            slots = trials(want, nodes, gpus, cpus)
            if slots < 1:
                raise ElthError(_no_room(want, nodes, gpus, cpus))
        notes = []
        if nodes is not None and want.workers > 1:
            room = nodes * _room(want, gpus, cpus)
            if (left := room - slots * want.workers) > 0:
                notes.append(
                    f"of the room for {room:,} workers that for {left:,} is left over, as a trial "
                    f"has {want.workers}, placed {want.placement}"
                )
        if want.concurrent is not None and want.concurrent < slots:
            notes.append(
                f"resources.concurrent lets {want.concurrent} trials run at a time, of {slots:,}"
            )
            slots = want.concurrent
        return Asked(
            slots=slots, nodes=nodes, gpus=gpus, cpus=cpus, resources=want, notes=tuple(notes)
        )

    @property
    def told(self) -> str:
        """As ``512 trials at a time, on 64 nodes of 8 GPUs``."""
        text = f"{self.slots:,} trial{'s' * (self.slots > 1)} at a time"
        if self.nodes is not None:
            has = [f"{self.gpus:,} GPU{'s' * (self.gpus > 1)}"] if self.gpus else []
            has += [f"{self.cpus:,} core{'s' * (self.cpus > 1)}"] if self.cpus else []
            each = "nodes" if self.nodes > 1 else "node"
            text += f", on {self.nodes:,} {each} of {' and '.join(has)}"
        want = self.resources
        if want.workers > 1:
            text += f", each of {want.workers} workers"
        if want.gpus:
            share = "a GPU" if want.gpus == 1 else f"{want.gpus:g} of a GPU"
            text += f", {share} {'a worker' if want.workers > 1 else 'each'}"
        return text

    def rows(self, width: int) -> list[tuple[int | None, int]]:
        """Nodes, where they are given, and slots of each row of the table, most last.

        Powers of two below what was asked for, or below what the plan can use, and both of these.
        """
        if self.nodes is None:
            useful = min(self.slots, max(width, 1))
            numbers = {2**i for i in range(useful.bit_length()) if 2**i < useful}
            return [(None, one) for one in sorted({*numbers, useful, self.slots})]
        found = {}
        for count in (*(2**i for i in range(self.nodes.bit_length())), self.nodes):
            slots = trials(self.resources, count, self.gpus, self.cpus)
            if slots:
                found[count] = min(slots, self.slots)
        most = min(width, self.slots)  # more nodes bring nothing
        enough = next((count for count, slots in found.items() if slots >= most), self.nodes)
        return [(n, found[n]) for n in found if n <= enough or n == self.nodes]


def trials(want: Resources, nodes: int, gpus: int | None, cpus: int | None) -> int:
    """How many trials run at a time on alike nodes, as the driver counts them.

    Raises:
        ElthError: what a trial takes is not among what is told of a node.
    """
    from orchestrator.plan.places import trials_on

    return trials_on(want, [_room(want, gpus, cpus)] * nodes)


def _room(want: Resources, gpus: int | None, cpus: int | None) -> int:
    """How many workers of trials fit on a node."""
    from orchestrator.plan.places import workers_on

    if want.gpus and gpus is None:
        raise ElthError(
            f"a worker takes {want.gpus:g} of a GPU (resources.gpus): say how many each node has, "
            "by --gpus"
        )
    if not want.gpus and cpus is None:
        raise ElthError(
            f"a worker takes {want.cpus} cores and no GPU (resources.cpus, resources.gpus): say "
            "how many cores each node has, by --cpus"
        )
    return workers_on(want, cpus=cpus, gpus=gpus or 0)


def _no_room(want: Resources, nodes: int, gpus: int | None, cpus: int | None) -> str:
    has = f"{gpus or 0} gpus" if cpus is None else f"{cpus} cpus and {gpus or 0} gpus"
    lies = f", placed {want.placement}" if want.workers > 1 else ""
    return (
        f"no trial finds room on {nodes:,} node{'s' * (nodes > 1)} of {has}: it has {want.workers} "
        f"worker{'s' * (want.workers > 1)} of {want.cpus} cpus and {want.gpus:g} gpus{lies}; give "
        "more, or lower resources.workers, resources.cpus or resources.gpus"
    )


@dataclass(frozen=True, kw_only=True)
class Walked:
    """A plan walked for the slots that were asked for, and for fewer."""

    asked: Asked
    walk: Walk
    rows: Sequence[tuple[int | None, Walk]]
    """By nodes, where they are given, the fewest first."""
    load: Load
    several_datasets: bool

    @property
    def unit(self) -> str:
        """In what times are told: ``seconds``, or ``work`` where none is known."""
        return "work" if self.load.window is None else "seconds"

    def plain(self) -> dict[str, Any]:
        """As JSON values: what ``elth plan --json`` has under ``walk``."""
        from orchestrator.plan.walking import parts_of

        course, walk, asked = self.walk.course, self.walk, self.asked
        waits = walk.waits()
        lost = math.fsum(part.cost for part in waits)
        return {
            "unit": self.unit,
            "slots": asked.slots,
            "nodes": asked.nodes,
            "gpus": asked.gpus,
            "cpus": asked.cpus,
            "workers": asked.slots * asked.resources.workers,
            "wall": walk.wall,
            "total": course.total,
            "idle": walk.idle,
            "speed_up": walk.speed_up,
            "most": walk.most,
            "width": course.width,
            "enough": course.enough,
            "bound": "path" if walk.is_bound_by_path else "slots",
            "path": {
                "length": course.length,
                "stages": [course.stages[index].key for index in course.path],
                "parts": [{**part.plain(), "length": part.cost} for part in parts_of(course)],
            },
            "waits": [{**part.plain(), "share": part.cost / lost} for part in waits],
            "profile": {"width": walk.wall / _BINS, "busy": walk.profile(_BINS)},
            "table": [
                {
                    "nodes": nodes,
                    "slots": one.slots,
                    "wall": one.wall,
                    "idle": one.idle,
                    "speed_up": one.speed_up,
                    "slot_time": one.slots * one.wall,
                    "node_time": None if nodes is None else nodes * one.wall,
                }
                for nodes, one in self.rows
            ],
            "tracker": {
                "window": self.load.window,
                **{name: dict(vars(rate)) for name, rate in self.load.rates.items()},
            },
            "notes": list(asked.notes),
        }

    def time(self, cost: float) -> str:
        """A length of time for people, or an amount of work."""
        if self.unit == "work":
            return f"{_number(cost)} units"
        return duration(cost) if cost >= 9.95 else f"{cost:.1f} s"

    def print(self) -> None:
        """Print it for people."""
        for line in self.asked.notes:
            _say(f"note: {line}.")
        for line in self._lines():
            _say(line)
        out.print(self._table())
        self._print_profile()
        self._print_parts()
        self._print_load()

    def _lines(self) -> Iterator[str]:
        course, walk = self.walk.course, self.walk
        if self.unit == "work":
            several = self.asked.resources.workers > 1
            yield (
                "No time is known: nothing of it was timed on this machine, or is finished in the "
                "store. What follows is in units of work, each about a second of one core; only "
                "ratios count. "
                + (
                    "Of trainings by several workers a finished stage in the store tells the time."
                    if several
                    else "With --time a few iterations are timed first, and it is in hours."
                )
            )
        else:
            yield "From the begin of the first stage:"
        yield (
            f"Walked with {self.asked.told}: {self.time(walk.wall)}, "
            f"{100 * walk.idle:.0f} % of the slots' time idle."
        )
        width = course.width
        reach = f"At most {width:,} slot{'s are' if width > 1 else ' is'} ever at work at once"
        if course.enough < width:
            reach += f", and more than {course.enough:,} save less than 1 %"
        yield f"{reach}: the longest path takes {self.time(course.length)}."
        if walk.is_bound_by_path:
            yield "It waits for the longest path, and more slots bring nothing."
        else:
            over = self.time(walk.wall - course.length)
            yield f"It waits for slots: the longest path would be done {over} sooner."

    def _table(self) -> Table:
        table = Table()
        by_node = self.asked.nodes is not None
        for column in (*(["nodes"] * by_node), "slots", "wall time", "idle %", "speed-up"):
            table.add_column(column, justify="right")
        table.add_column(f"{'nodes' if by_node else 'slots'} x wall time", justify="right")
        for nodes, one in self.rows:
            own = [f"{nodes:,}"] if nodes is not None else []
            table.add_row(
                *own,
                f"{one.slots:,}",
                self.time(one.wall),
                f"{100 * one.idle:.0f}",
                f"{one.speed_up:.1f}",
                self.time((nodes or one.slots) * one.wall),
                style="bold" if one.slots == self.walk.slots else "",
            )
        return table

    def _print_profile(self) -> None:
        walk = self.walk
        if not walk.wall:
            return
        _say(f"Slots at work, of {walk.slots:,}, on average from each time on:")
        step = walk.wall / _BARS
        times = [self.time(index * step) for index in range(_BARS)]
        side = max(map(len, times))
        busy = walk.profile(_BARS)
        digits = 0 if walk.slots >= 10 else 1
        full = max(min(walk.slots, walk.most), 1)  # else hundreds of idle slots leave no bar
        for at, one in zip(times, busy, strict=True):
            bar = "#" * round(_BAR * one / full)
            _say(f"  {at:>{side}}  {bar:<{_BAR}} {one:,.{digits}f}")

    def _print_parts(self) -> None:
        from orchestrator.plan.walking import parts_of

        several = self.several_datasets
        _say(f"The longest path, {self.time(self.walk.course.length)}:")
        parts = parts_of(self.walk.course)
        for part in parts[:_PARTS]:
            stages = f"{part.stages} stage{'s' * (part.stages > 1)}"
            _say(f"  {part.told(dataset=several)}: {self.time(part.cost)}, {stages}")
        _say_rest(parts)
        waits = self.walk.waits()
        lost = math.fsum(part.cost for part in waits)
        useful = min(self.walk.slots, self.walk.course.width) * self.walk.wall
        if lost > 0.005 * useful:
            _say(
                f"Slots that it could use are idle for {100 * lost / useful:.0f} % of the time, "
                "and wait for:"
            )
            for part in waits[:_PARTS]:
                _say(f"  {100 * part.cost / lost:3.0f} %  {part.told(dataset=several)}")
            _say_rest(waits)

    def _print_load(self) -> None:
        rates, window = self.load.rates, self.load.window
        if window is None:
            _say(
                f"To the tracker come {rates['epochs'].total:,.0f} epochs of "
                f"{rates['stages'].total:,.0f} stages, and files of "
                f"{size_of(rates['bytes'].total)}; how many a second is not known without times."
            )
            return
        table = Table(title="What the tracker must take", title_justify="left")
        busiest = "minute" if window == 60 else duration(window)
        table.add_column("")
        for column in ("in all", "a second", f"a second, in the busiest {busiest}"):
            table.add_column(column, justify="right")
        for name, text in _LOADS.items():
            rate = rates[name]
            number = size_of if name == "bytes" else _number
            table.add_row(text, *(number(one or 0.0) for one in (rate.total, rate.mean, rate.peak)))
        out.print(table)


def walked(asked: Asked, course: Course, part: Plan, *, is_timed: bool) -> Walked:
    """Walk a plan for what was asked.

    Args:
        asked: with how many slots.
        course: what is to be done.
        part: the plan of which it is.
        is_timed: whether its costs are seconds.
    """
    from orchestrator.plan.loading import load_of, untimed
    from orchestrator.store.pace import BEATS, CALLS, SHORTEST, lease_seconds

    walk = course.walk(asked.slots)
    known = {asked.slots: walk}
    rows = []
    for nodes, slots in asked.rows(course.width):
        if slots not in known:
            known[slots] = course.walk(slots)
        rows.append((nodes, known[slots]))
    load = untimed(course, part.kept)
    if is_timed:
        beat = lease_seconds() / BEATS
        load = load_of(walk, part.kept, between=SHORTEST, beat=beat, calls=CALLS)
    datasets = {stage.labels["dataset"] for stage in part.stages.values()}
    return Walked(asked=asked, walk=walk, rows=rows, load=load, several_datasets=len(datasets) > 1)


_LOADS = {
    "stages": "stages that end",
    "epochs": "epochs",
    "batches": "batches",
    "beats": "signs of life",
    "calls": "calls in all",
    "bytes": "files",
}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _say_rest(parts: Sequence[Any]) -> None:
    if len(parts) > _PARTS:
        _say(f"  and {len(parts) - _PARTS} more")


def _say(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)
