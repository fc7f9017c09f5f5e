"""A report as tables of a terminal, CSV, JSON and files."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from elth.errors import ElthError
from orchestrator.experiment.methods import rank, title
from orchestrator.plan.stage import NOISE, VARIANT
from orchestrator.report.analyses import NONE, Analyses
from orchestrator.report.analysis_forms import analyses_csv, analyses_json, analyses_tables
from orchestrator.report.cells import Cell, Report, difference, network_order
from orchestrator.report.cost_forms import (
    COLUMNS,
    cost_line,
    cost_note,
    cost_values,
    told,
    with_costs,
)
from orchestrator.report.layouts import LAYOUTS, lay_out
from orchestrator.report.sheets import Sheet, heading, sheet_csv, sheet_markdown, sheet_table
from orchestrator.store.content import spell_seeds
from orchestrator.store.soundness import DO_AGAIN

if TYPE_CHECKING:
    from orchestrator.report.costs import Costs

_COLUMNS = 6
_TOLD = 8
_DENSE = (0, "")
"""The level of the dense network."""


def to_json(report: Report, counted: Costs | None = None, *, provenance: bool = False) -> str:
    """The sorted list of cells; equal for two honest runs, byte for byte, without provenance."""
    plain = [with_costs(c.plain(provenance=provenance), c, counted) for c in report.cells]
    return json.dumps(plain, indent=1) + "\n"


def to_csv(report: Report, counted: Costs | None = None) -> str:
    """One line for each cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    axes = (VARIANT, NOISE, "ticket")
    more = [axis for axis in axes if any(getattr(c, axis) for c in report.cells)]
    names = ("network", "method", "source", "transform", "round", "target", "dataset", *more)
    writer.writerow(
        (
            *(*names, "sparsity", "seeds", "nonzeros", "accuracy_mean", "accuracy_sd", "minus_imp"),
            "which_seeds",
            *(COLUMNS if counted is not None else ()),
        )
    )
    for cell in report.cells:
        gap = difference(cell, report.compared)
        writer.writerow(
            (
                *(getattr(cell, name) for name in names),
                f"{cell.sparsity:.6f}",
                len(cell.seeds),
                f"{statistics.fmean(cell.nonzeros):.1f}",
                f"{cell.mean:.4f}",
                "" if cell.deviation is None else f"{cell.deviation:.4f}",
                "" if gap is None else f"{gap:.4f}",
                " ".join(map(str, cell.seeds)),
                *cost_values(cell, counted),
            )
        )
    return out.getvalue()


def to_tables(report: Report, counted: Costs | None = None) -> RenderableType:
    """A table for each network: method by sparsity, mean and deviation, difference to IMP.

    Args:
        report: the report.
        counted: what its cells cost, if that is told below each accuracy.
    """
    laid_out = sheets(report)
    parts: list[RenderableType] = [sheet_table(sheet) for sheet in laid_out]
    networks = dict.fromkeys((cell.dataset, cell.network) for cell in report.shown)
    for dataset, network in networks:
        cells = [c for c in report.shown if (c.dataset, c.network) == (dataset, network)]
        seeds_told = spell_seeds(seed for cell in cells for seed in cell.seeds)
        above = f"{network} on {dataset}, {seeds_told}"
        parts.append(_table(above, cells, report.compared, counted))
    notes = [report.beside] if report.beside else []
    if report.only:
        notes.append(f"Only {report.only} is shown.")
    seeds = sorted({len(cell.seeds) for cell in report.cells})
    if seeds:
        spread = "mean ± standard deviation" if seeds != [1] else "accuracy"
        count = " or ".join(str(n) for n in seeds)
        notes.append(
            f"Test accuracy in % after the last epoch, {spread} over {count} "
            f"seed{'s' if seeds != [1] else ''}; in brackets the difference to IMP, below it the "
            "sparsity where it is another than that of the column."
        )
    if counted is not None:
        notes.append(cost_note(counted))
    tickets = dict.fromkeys(cell.ticket for cell in report.shown if cell.ticket)
    if tickets:
        notes.append(
            f"Rounds of lines from {', '.join(tickets)} are counted from an imported ticket, "
            "whose round 0 is its own mask."
        )
    for name, given in report.criteria.items():
        settings = ", ".join(f"{key}={value}" for key, value in given.items())
        notes.append(f"{title(name)} differs from its published settings: {settings}.")
    if report.paper is not None and report.paper.printed:
        notes.append(f"paper: as printed in {report.paper.title}.")
    if report.paper is not None and report.paper.layout not in LAYOUTS and not laid_out:
        notes.append(f"The layout {report.paper.layout} is code from outside, which is not here.")
    if report.paper is not None and report.paper.note:
        notes.append(report.paper.note)
    lost = [cell for cell in report.cells if cell.collapsed]
    for cell in lost[:_TOLD]:
        notes.append(
            f"{cell.name} on {cell.network} at {100 * cell.sparsity:.2f} % has lost every weight "
            f"of {', '.join(cell.collapsed)}."
        )
    if len(lost) > _TOLD:
        notes.append(f"So have {len(lost) - _TOLD} more cells: see provenance.json.")
    if report.ended:
        notes.append(_ended(report))
    if report.missing:
        of = "part" if report.only else "report" if report.beside else "grid"
        notes.append(f"{report.missing} stages of this {of} are not finished.")
    if report.faulty:
        notes.append(
            f"{len(report.faulty)} stages come from gradients that may be wrong "
            f"(docs/numerics.md): {_first(report.faulty)}. {DO_AGAIN}."
        )
    if report.stale:
        notes.append(
            f"{len(report.stale)} stages were made of what came out different when it was done "
            f"again: {_first(report.stale)}. The next elth run does them again."
        )
    if len(report.numerics) > 1:
        notes.append(
            "These results come from several numerics classes, in which the same seed gives other "
            f"bits: {'; '.join(report.numerics)}."
        )
    return Group(*parts, Text("\n".join(notes), style="dim"))


def _first(titles: Sequence[str]) -> str:
    more = f" and {len(titles) - _TOLD} more" if len(titles) > _TOLD else ""
    return f"{'; '.join(titles[:_TOLD])}{more}"


def _ended(report: Report) -> str:
    told = "; ".join(report.endings[:_TOLD])
    more = len(report.endings) - _TOLD
    seeds = {seed for cell in report.cells for seed in cell.seeds}
    fewer = any(len(cell.seeds) < len(seeds) for cell in report.cells)
    return (
        f"{report.ended} stages of this grid are ended by pruning.stop, as a chain ended before "
        f"them: {told}{f'; and {more} more' if more > 0 else ''}."
        f"{' Means after that are of the seeds whose chains went on.' if fewer else ''}"
    )


def sheets(report: Report) -> list[Sheet]:
    """Our numbers in the shape of the paper's table, where the experiment names one."""
    if report.paper is None:
        return []
    try:
        return lay_out(report.shown, report.paper, report.dataset, report.rounds)
    except ElthError:
        if report.paper.layout in LAYOUTS:
            raise
        return []  # its module is not here


def _table(
    title: str, cells: Sequence[Cell], compared: Sequence[Cell], counted: Costs | None
) -> Table:
    """The table of a network; cells are set beside those that they are compared with."""
    table = Table(title=heading(title), title_justify="left", header_style="")
    shown = _shown_levels(cells)
    table.add_column("sparsity %", no_wrap=True)
    columns = {level: _matched(cells, level) for level in shown}
    for level in shown:
        table.add_column(f"{100 * columns[level].sparsity:.2f}", justify="right")
    table.add_row(
        "non-zeros",
        *(f"{statistics.fmean(columns[level].nonzeros):,.0f}" for level in shown),
        end_section=True,
        style="dim",
    )
    best = {
        level: max(c.mean for c in cells if c.level == level and c.method != "dense")
        for level in shown
        if level != _DENSE
    }
    for name in dict.fromkeys(cell.name for cell in sorted(cells, key=_row_key)):
        row = []
        for level in shown:
            cell = next((c for c in cells if c.name == name and c.level == level), None)
            entry = Text("")
            if cell is not None:
                entry = _entry(cell, compared, columns[level], best.get(level))
                if cost := cost_line(cell, counted):
                    entry.append(f"\n {cost}", style="not bold dim")
            row.append(entry)
        table.add_row(name, *row)
    return table


def _row_key(cell: Cell) -> tuple[Any, ...]:
    return (rank(cell.method), network_order(cell.source), cell.transform)


def _shown_levels(cells: Sequence[Cell]) -> list[tuple[int, str]]:
    """Levels for a table's columns: where there are many, the dense one and those compared.

    And for each line that has none of these its last one, as it would stand there empty.
    """
    order = {cell.level: cell.sparsity for cell in sorted(cells, key=_row_key, reverse=True)}
    levels = sorted(order, key=lambda level: (order[level], level))
    compared = {c.level for c in cells if c.method not in ("dense", "imp")}
    if len(levels) <= _COLUMNS or not compared:
        return levels
    shown = [level for level in levels if level[0] == 0 or level in compared]
    if len(shown) > _COLUMNS:
        spread = sorted({round(i * (len(shown) - 1) / (_COLUMNS - 1)) for i in range(_COLUMNS)})
        shown = [shown[i] for i in spread]
    lines: dict[str, list[tuple[int, str]]] = {}
    for cell in cells:
        lines.setdefault(cell.name, []).append(cell.level)
    lacking = [line for line in lines.values() if not set(line) & set(shown)]
    last = {max(line, key=levels.index) for line in lacking}
    return [level for level in levels if level in last.union(shown)]


def _matched(cells: Sequence[Cell], level: tuple[int, str]) -> Cell:
    """The cell whose sparsity heads a column: IMP where there is one."""
    return min((c for c in cells if c.level == level), key=_row_key)


def _entry(cell: Cell, compared: Sequence[Cell], head: Cell, best: float | None) -> Text:
    text = Text(f"{cell.mean:.2f}", style="bold" if best == cell.mean else "")
    if cell.deviation is not None:
        text.append(f" ± {cell.deviation:.2f}", style="not bold")
    gap = difference(cell, compared)
    if gap is not None:
        colour = "green" if gap >= 0 else "red"
        text.append(f" ({gap:+.2f})", style=f"not bold {colour}")
    if abs(cell.sparsity - head.sparsity) >= 5e-5:
        text.append(f"\n at {100 * cell.sparsity:.2f} %", style="not bold dim")
    return text


def write(
    report: Report,
    folder: Path,
    analyses: Analyses = NONE,
    counted: Costs | None = None,
    *,
    flops: bool = False,
) -> list[Path]:
    """Write table, CSV, JSON and figures, of analyses where there are any.

    Args:
        report: the report.
        folder: where to.
        analyses: what was measured.
        counted: what the cells cost. CSV and JSON tell of it; the table, a file and a figure of
            their own where the grid holds sparse training, or ``flops`` is true.
        flops: whether they do in any case.

    Returns the files.

    Raises:
        ElthError: the folder cannot be written.
    """
    from elth.files import write_atomic
    from orchestrator.report import cost_figure, costs, figure, pictures

    console = Console(record=True, width=140, file=io.StringIO())
    in_table = told(report, counted, flops=flops)
    console.print(to_tables(report, in_table))
    if analyses != NONE:
        console.print(analyses_tables(analyses))
    texts = {
        "table.txt": console.export_text(),
        "cells.csv": to_csv(report, counted),
        "cells.json": to_json(report, counted),
        "provenance.json": to_json(report, counted, provenance=True),
    }
    if analyses.found:
        texts["analyses.json"] = analyses_json(analyses)
        texts["analyses.csv"] = analyses_csv(analyses)
    if in_table is not None:
        texts["flops.json"] = costs.to_json(in_table)
    laid_out = sheets(report)
    if laid_out:
        texts["paper.md"] = "\n".join(map(sheet_markdown, laid_out))
        texts["paper.csv"] = sheet_csv(laid_out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ElthError(f"cannot write the report to {folder}: {error.strerror}") from error
    for name, text in texts.items():  # an earlier report stays where there is no room for this one
        write_atomic(folder / name, text.encode())
    figures = figure.draw(report, folder) + pictures.draw(analyses, folder)
    if in_table is not None:
        figures += cost_figure.draw(in_table, folder)
    return [*(folder / name for name in texts), *figures]
