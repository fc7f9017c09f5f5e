"""The analyses of a report as tables of a terminal, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group as Parts
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.experiment.axes import LEVEL, ON_NETWORK
from orchestrator.report.analyses import Analyses, Group, Point, grouped, shown, words
from orchestrator.report.sheets import heading

_COLUMNS = 6
_TOLD = 8


def analyses_json(analyses: Analyses) -> str:
    """The sorted list of analyses; equal for two honest runs, byte for byte."""
    return json.dumps([one.plain() for one in analyses.found], indent=1, allow_nan=False) + "\n"


def analyses_csv(analyses: Analyses) -> str:
    """One line for each number; of a line of rounds, for each round.

    The axes of a pair are those of its first network.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    axes = (*ON_NETWORK, "seed")
    writer.writerow(
        (
            *("measure", "network", "dataset", *axes, "settings", "looks_at", *LEVEL),
            *("remaining", "name", "value"),
        )
    )
    for one in analyses.found:
        told = {**one.settings, **({"rate": one.rate} if one.rate else {})}
        settings = " ".join(f"{name}={value}" for name, value in sorted(told.items()))
        for at, numbers in one.points:
            remaining = "" if at.remaining is None else f"{at.remaining:.6f}"
            for name, value in numbers.items():
                writer.writerow(
                    (
                        *(one.measure, one.network, one.dataset),
                        *(getattr(one.of[0], axis) for axis in axes),
                        *(settings, one.looks_at, at.round, at.target, remaining),
                        *(name, f"{value:.6g}"),
                    )
                )
    return out.getvalue()


def analyses_tables(analyses: Analyses) -> RenderableType:
    """A short table for each number that is shown: lines by percent of weights remaining."""
    parts: list[RenderableType] = [
        _table(group, name) for group in grouped(analyses.found) for name in shown(group)
    ]
    notes = []
    if parts:
        notes.append(
            "Analyses by the percent of weights that remain in the denser network (of pairs with "
            "one round in common, in the other): mean over the seeds, and below it the lowest and "
            "the highest."
        )
    if analyses.lacking:
        more = f"; and {len(analyses.lacking) - _TOLD} more" if analyses.lacking[_TOLD:] else ""
        notes.append(
            f"{len(analyses.lacking)} analyses cannot be read: "
            f"{'; '.join(analyses.lacking[:_TOLD])}{more}. elth verify --set-aside --absent lets "
            "elth run do them again."
        )
    return Parts(*parts, Text("\n".join(notes), style="dim"))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One number of a group of analyses: a line for each method, a column for some sparsities."""

    title: str
    columns: tuple[str, ...]
    """Percent of weights that remain in the first line, or the round where that is not known."""
    rows: tuple[tuple[str, tuple[Entry | None, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What stands in a place of a spread."""

    point: Point
    elsewhere: str
    """Percent of weights that remain, where that is not what its column is headed with: of lines
    that prune at other rates, or count their rounds from a ticket of somebody else."""

    @property
    def mean(self) -> str:
        """Over the seeds; a dash where nothing could be measured."""
        return f"{self.point.mean:.3g}" if self.point.values else "-"

    @property
    def more(self) -> list[str]:
        """What stands below the mean: lowest and highest, of how many seeds, at which percent."""
        values, of = self.point.values, self.point.of
        found = [f"{min(values):.3g} to {max(values):.3g}"] if len(values) > 1 else []
        found += [f"{len(values)} of {of} seeds"] if values and len(values) < of else []
        return found + ([f"at {self.elsewhere} %"] if self.elsewhere else [])


def spread_of(group: Group, name: str) -> Spread:
    """A number of a group over its levels, of which a few are chosen where there are many."""
    curves = {line: group.curve(line, name) for line in group.lines}
    levels = {at.level: at for curve in reversed(list(curves.values())) for at in curve}
    chosen = list(_spread(sorted(levels.values(), key=_place)))
    for curve in curves.values():  # no line is without a number
        if curve and not {at.level for at in curve} & {at.level for at in chosen}:
            chosen.append(curve[-1])
    chosen.sort(key=_place)
    rows = []
    for line, curve in curves.items():
        found = {at.level: at for at in curve}
        rows.append((line, tuple(_placed(found.get(at.level), at) for at in chosen)))
    return Spread(
        title=f"{group.title}: {words(name)}",
        columns=tuple(
            f"round {at.level[0]}" if at.remaining is None else f"{100 * at.remaining:.4g}"
            for at in chosen
        ),
        rows=tuple(rows),
    )


def _place(at: Point) -> tuple[Any, ...]:
    return (-(at.remaining or 0), at.level)


def _placed(point: Point | None, head: Point) -> Entry | None:
    if point is None:
        return None
    there = point.remaining
    differs = there is not None and (head.remaining is None or abs(there - head.remaining) >= 5e-5)
    return Entry(point=point, elsewhere=f"{100 * (there or 0):.4g}" if differs else "")


def _table(group: Group, name: str) -> Table:
    spread = spread_of(group, name)
    table = Table(title=heading(spread.title), title_justify="left", header_style="")
    table.add_column("weights remaining %", no_wrap=True)
    for left in spread.columns:
        table.add_column(left, justify="right")
    for line, entries in spread.rows:
        table.add_row(line, *(_entry(entry) for entry in entries))
    return table


def _entry(entry: Entry | None) -> Text:
    if entry is None:
        return Text("")
    text = Text(entry.mean)
    for line in entry.more:
        text.append(f"\n{line}", style="dim")
    return text


def _spread(levels: Sequence[Point]) -> Sequence[Point]:
    """At most a few of many, evenly, the first and the last among them."""
    if len(levels) <= _COLUMNS:
        return levels
    return [levels[round(i * (len(levels) - 1) / (_COLUMNS - 1))] for i in range(_COLUMNS)]
