"""How a run is going: a live display in a terminal, plain lines anywhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

import rich.progress
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.plan.costs import duration
from orchestrator.plan.ending import endings
from orchestrator.plan.schedule import Running, Schedule, Snapshot

_PLAIN_SECONDS = 15.0
_BESIDE = 4
"""Lines of the live display beside those of trials, latest results and notes."""
_SHARE = 50
"""What is shown stays for at least so many times the time that it took to make: with thousands of
stages that is time in which the trials' results wait."""
_SLOW = 1.5
"""What runs for longer than so many times its estimate is told of in plain lines."""


def is_live(console: Console) -> bool:
    """Whether what stands there can be drawn anew: a terminal that moves its cursor."""
    return console.is_terminal and not console.is_dumb_terminal


class Counter:
    """Shows how many of a number of things are done; a context manager."""

    def __init__(self, console: Console, what: str) -> None:
        self._console = console
        self._what = what
        self._began = self._told = time.monotonic()
        self._bar = rich.progress.Progress(
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn(what),
            rich.progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not is_live(console),
        )
        self._task = self._bar.add_task(what, total=None)

    def __enter__(self) -> Counter:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Show it: a bar in a terminal, a line every few seconds anywhere else."""
        self._bar.update(self._task, completed=done, total=total)
        now = time.monotonic()
        if not is_live(self._console) and now - self._told >= _PLAIN_SECONDS:
            self._told = now
            elapsed = duration(now - self._began)
            line = f"{done:,} of {total:,} {self._what} in {elapsed}"
            self._console.print(line, highlight=False)


class Progress:
    """Shows a schedule while it is worked through; a context manager."""

    def __init__(self, schedule: Schedule, console: Console, title: str) -> None:
        self._schedule = schedule
        self._console = console
        self._title = title
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._live: Live | None = None
        self._thread: threading.Thread | None = None
        self._told: set[str] = set()
        self._shown: RenderableType = ""
        self._due = 0.0

    def __enter__(self) -> Progress:
        if is_live(self._console):
            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=1,
                transient=True,
            )
            self._live.start()
        else:
            self._thread = threading.Thread(target=self._lines, daemon=True, name="elth-progress")
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._live is not None:
            self._live.stop()
        if self._thread is not None:
            self._thread.join()
        elapsed = duration(time.monotonic() - self._began)
        now = self._schedule.snapshot()
        self._tell({text: f"note: {text}" for text in now.notes})
        self._tell({line: line for line in endings(now.ended)})
        self._console.print(f"{_counts(now)} in {elapsed}", highlight=False)

    def _render(self) -> RenderableType:
        began = time.monotonic()
        if began >= self._due:
            now = self._schedule.snapshot()
            height = self._console.height
            self._shown = display(now, self._title, began - self._began, height=height)
            self._due = began + _SHARE * (time.monotonic() - began)
        return self._shown

    def _lines(self) -> None:
        """A line when something has changed, at most every few seconds."""
        last, wait = "", 1.0
        latest: tuple[tuple[str, float], ...] = ()
        while not self._stop.wait(wait):
            now = self._schedule.snapshot()
            self._tell({key: f"failed: {reason}" for key, reason in now.failed.items()})
            self._tell({text: f"note: {text}" for text in now.notes})
            self._tell({line: line for line in endings(now.ended)})
            line = _counts(now) + _left(now)
            if line != last:
                at = duration(time.monotonic() - self._began)
                self._console.print(f"[{at}] {line}", highlight=False, markup=False, soft_wrap=True)
                new = tuple(one for one in now.latest if one not in latest)
                more = [_accuracies(new)] if new else []
                if now.slowest is not None and now.slowest.times >= _SLOW:
                    more.append(_slowest(now.slowest))
                if more:
                    text = f"    {'; '.join(more)}"
                    self._console.print(text, highlight=False, markup=False, soft_wrap=True)
                latest = now.latest
            last, wait = line, _PLAIN_SECONDS

    def _tell(self, texts: Mapping[str, str]) -> None:
        """Print what was not printed before."""
        for key, text in texts.items():
            if key not in self._told:
                self._told.add(key)
                self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def display(
    now: Snapshot, title: str, elapsed: float, *, height: int | None = None
) -> RenderableType:
    """The live display: a bar over all stages, and a line for each running trial.

    Args:
        now: how far everything is.
        title: what is run.
        elapsed: seconds since it began.
        height: lines that there is room for, if that is known. Of many trials those are shown that
            have run longest; hundreds would take a terminal's whole height and half a core.
    """
    complete = now.found + now.done
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(title, style="bold"),
        ProgressBar(total=max(now.total, 1), completed=complete, width=30),
        Text(f"{complete}/{now.total} stages"),
        Text(f"{duration(elapsed)}{_left(now)}", style="cyan"),
    )
    more = [Text(f"  {_accuracies(now.latest)}", style="dim")] if now.latest else []
    if now.slowest is not None:
        more.append(Text(f"  {_slowest(now.slowest)}", style="dim"))
    notes = [Text(f"  note: {text}", style="yellow") for text in now.notes[-1:]]
    rows = Table.grid(padding=(0, 1))
    shown = _longest(now.running, height and height - _BESIDE - len(more) - len(notes))
    for running in shown:
        rows.add_row(*_row(running))
    if len(shown) < len(now.running):
        rows.add_row("", Text(f"and {len(now.running) - len(shown):,} more", style="dim"))
    counts = Text(f"  {now.waiting} waiting", style="dim")
    if now.elsewhere:
        counts.append(f", {now.elsewhere} computed by another driver")
    if now.found:
        counts.append(f", {now.found} found finished")
    if now.failed:
        counts.append(f", {len(now.failed)} failed, {now.blocked} blocked", style="red")
    if now.ended:
        counts.append(f", {len(now.ended)} ended")
    if not now.running and not now.elsewhere:
        counts.append(", starting")
    return Group(head, rows, counts, *more, *notes)


def _longest(running: Sequence[Running], room: int | None) -> Sequence[Running]:
    """What fits into some lines, with one that tells how many do not; as many as are there."""
    if room is None or len(running) <= room:
        return running
    return sorted(running, key=lambda one: one.since)[: max(room - 1, 1)]


def _row(running: Running) -> tuple[RenderableType, ...]:
    accuracy = "" if running.accuracy is None else f"{running.accuracy:.1f} %"
    return (
        Text("  ●", style="green"),
        Text(running.stage.title.ljust(48)),
        ProgressBar(total=1.0, completed=running.fraction, width=14),
        Text(accuracy.rjust(7), style="dim"),
        Text(duration(time.monotonic() - running.since), style="dim"),
    )


def _accuracies(latest: Iterable[tuple[str, float]]) -> str:
    """``latest: resnet20 round 3, seed 0: 93.40 %``: what was finished last comes first."""
    return f"latest: {'; '.join(f'{title}: {found:.2f} %' for title, found in latest)}"


def _slowest(running: Running) -> str:
    assert running.expected is not None
    so_far = duration(time.monotonic() - running.since)
    expected = f"about {duration(running.expected)} expected"
    return f"slowest: {running.stage.title}: {so_far}, {expected}"


def _counts(now: Snapshot) -> str:
    parts = [f"{now.found + now.done} of {now.total} stages done"]
    if now.found:
        parts.append(f"{now.found} of them found finished")
    if now.running:
        parts.append(f"{len(now.running)} running")
    if now.elsewhere:
        parts.append(f"{now.elsewhere} computed by another driver")
    if now.waiting:
        parts.append(f"{now.waiting} waiting")
    if now.ended:
        parts.append(f"{len(now.ended)} ended")
    if now.failed:
        parts.append(f"{len(now.failed)} failed")
    if now.blocked:
        parts.append(f"{now.blocked} blocked")
    return ", ".join(parts)


def _left(now: Snapshot) -> str:
    if now.seconds_left is None or not (now.running or now.waiting or now.elsewhere):
        return ""
    return f", about {duration(now.seconds_left)} left"
