"""A grid that is watched: how far it is, from the store alone, as a display or as a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.plan.only import Only
from orchestrator.report.status import STATES, State, states
from orchestrator.store.content import Content
from orchestrator.store.processes import is_gone
from orchestrator.store.tracker import Tracker

_SETTLED = ("finished", "ended", "failed", "blocked")
_STYLES = {
    "running": "green",
    "failed": "red",
    "blocked": "red",
    "set aside": "yellow",
    "interrupted": "yellow",
}
_LATEST = 3
"""Finished stages whose accuracies are shown."""
_BESIDE = 6
"""Lines of the display beside those of stages."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How far a grid is at one moment."""

    grid: str
    store: str
    states: tuple[State, ...]
    drivers: int
    """Processes that run the grid, as far as they are not known to have ended."""

    @property
    def counts(self) -> dict[str, int]:
        """Stages by state, in the order of ``STATES``; only of those that there are."""
        found = Counter(one.state for one in self.states)
        return {state: found[state] for state in STATES if found[state]}

    @property
    def is_over(self) -> bool:
        """Whether no stage is left that might still be done."""
        return all(one.state in _SETTLED for one in self.states)

    @property
    def has_failed(self) -> bool:
        """Whether a stage has failed, or is blocked by one."""
        return any(one.state in ("failed", "blocked") for one in self.states)

    @property
    def latest(self) -> list[State]:
        """The stages with an accuracy that were finished last, the last one first."""
        done = [one for one in self.states if one.state == "finished" and one.accuracy is not None]
        return sorted(done, key=lambda one: one.ended, reverse=True)[:_LATEST]

    def plain(self, differs: str = "") -> dict[str, object]:
        """As JSON values: what ``elth status --json`` prints."""
        return {
            "grid": self.grid,
            "store": self.store,
            "differs": differs,
            "drivers": self.drivers,
            "counts": {state: self.counts.get(state, 0) for state in STATES},
            "stages": [one.plain() for one in self.states],
        }


def look(
    tracker: Tracker, grid: str, asked: Content | None = None, only: Only | None = None
) -> Look:
    """Look at a grid.

    Args:
        tracker: of the store.
        grid: its name.
        asked: what a file asks for, if that is meant.
        only: what of it is chosen; all when None.

    Raises:
        ElthError: the store has no such grid, it has nothing of the kind that is chosen, or it does
            not answer.
    """
    drivers = [who for who in tracker.grids.drivers(grid) if not is_gone(who)]
    return Look(
        grid=grid,
        store=str(tracker.store),
        states=tuple(states(tracker, asked or grid, only)),
        drivers=len(drivers),
    )


def line(now: Look) -> str:
    """How far it is, in a line."""
    parts = [f"{count:,} {state}" for state, count in now.counts.items()]
    text = f"{now.counts.get('finished', 0):,} of {len(now.states):,} stages finished"
    rest = [part for part in parts if not part.endswith(" finished")]
    text += "".join(f", {part}" for part in rest)
    told = [_with_accuracy(one) for one in now.latest[:1]]
    return text + (f"; last {told[0]}" if told else "") + _driven(now)


def display(now: Look, *, height: int, note: str = "") -> RenderableType:
    """How far it is, for a terminal of so many lines, whatever its width.

    Args:
        now: what was seen.
        height: lines of the terminal.
        note: what a person should know besides, as that the store does not answer.
    """
    done = now.counts.get("finished", 0) + now.counts.get("ended", 0)
    bar = Table.grid(expand=True, padding=(0, 1))
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True, justify="right")
    bar.add_row(
        ProgressBar(total=max(len(now.states), 1), completed=done),
        f"{done:,}/{len(now.states):,}",
    )
    head = _line(Text.assemble((now.grid, "bold"), f" in {now.store}", _driven(now)))
    counts = Text()
    for state, count in now.counts.items():
        counts.append(f"{', ' if counts else ''}{count:,} {state}", style=_STYLES.get(state, ""))
    room = max(height - _BESIDE - (1 if note else 0), 3)
    rows = list(_rows(now))
    shown = rows if len(rows) <= room else rows[: room - 1]
    more = Text(f"and {len(rows) - len(shown):,} more", style="dim")
    last = [_line(more)] if len(shown) < len(rows) else []
    last += [_line(Text(note, style="yellow"))] if note else []
    return Group(head, bar, _line(counts), *shown, *last)


def _rows(now: Look) -> Iterator[Text]:
    """What is wrong, what is at work, and what was finished last; the rest is told by counts."""
    for state in ("failed", "set aside", "interrupted", "running"):
        for one in now.states:
            if one.state == state:
                mark = "●" if state == "running" else "✗"
                text = Text(f"{mark} ", style=_STYLES[state])
                text.append(_with_accuracy(one), style="default")
                why = one.reason if state == "running" else f"{state}: {one.reason}"
                yield _line(text.append(f"  {why}", style="dim"))
    for one in now.latest:
        yield _line(Text(f"✓ {_with_accuracy(one)}", style="dim"))


def _with_accuracy(one: State) -> str:
    return one.title if one.accuracy is None else f"{one.title}: {one.accuracy:.2f} %"


def _driven(now: Look) -> str:
    if now.drivers > 1:
        return f" ({now.drivers} runs at work)"
    if now.drivers or now.is_over:
        return ""
    return " (no run is at work on it)"


def _line(text: Text) -> Text:
    """One line, cut where the terminal ends."""
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text
