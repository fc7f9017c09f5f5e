"""Sheets: tables of our numbers with a paper's beside them, and their forms."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from orchestrator.store.content import spell_seeds

if TYPE_CHECKING:
    from orchestrator.report.cells import Cell


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A place of a sheet: our number and the printed one, either of which may be missing."""

    cell: Cell | None = None
    printed: float | None = None

    @property
    def ours(self) -> str:
        """Mean and standard deviation, as ``91.20 ± 0.13``."""
        if self.cell is None:
            return ""
        spread = "" if self.cell.deviation is None else f" ± {self.cell.deviation:.2f}"
        return f"{self.cell.mean:.2f}{spread}"

    @property
    def theirs(self) -> str:
        """The printed number, or nothing."""
        return "" if self.printed is None else f"{self.printed:.2f}"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table: named columns, named rows."""

    title: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]


def _columns(sheet: Sheet) -> list[tuple[str, bool]]:
    """Names of the columns, each followed by one of printed numbers where there are any."""
    columns = []
    for place, name in enumerate(sheet.columns):
        columns.append((name, any(entries[place].theirs for _, entries in sheet.rows)))
    return columns


def texts_of(sheet: Sheet) -> tuple[list[str], list[list[str]]]:
    """Head and rows as text."""
    columns = _columns(sheet)
    head = [sheet.corner]
    for name, printed in columns:
        head += [name, "paper"] if printed else [name]
    rows = []
    for name, entries in sheet.rows:
        row = [name]
        for entry, (_, printed) in zip(entries, columns, strict=True):
            row += [entry.ours or "-"] + ([entry.theirs or "-"] if printed else [])
        rows.append(row)
    return head, rows


def _title(sheet: Sheet) -> str:
    """The title, with the seeds that its numbers of ours are of."""
    cells = [entry.cell for _, entries in sheet.rows for entry in entries if entry.cell]
    seeds = {seed for cell in cells for seed in cell.seeds}
    return f"{sheet.title}, {spell_seeds(seeds)}" if seeds else sheet.title


def heading(title: str) -> Text:
    """The title of a table in a terminal: in one line, also where the table is narrower."""
    return Text(title, style="bold", no_wrap=True, overflow="ignore")


def sheet_table(sheet: Sheet) -> Table:
    """The sheet for a terminal; printed numbers are dim."""
    head, rows = texts_of(sheet)
    table = Table(title=heading(_title(sheet)), title_justify="left", header_style="")
    table.add_column(head[0], no_wrap=True)
    for name in head[1:]:
        table.add_column(name, justify="right", style="dim" if name == "paper" else "")
    for row in rows:
        table.add_row(*(Text(text) for text in row))
    return table


def sheet_markdown(sheet: Sheet) -> str:
    """The sheet as a table of Markdown."""
    head, rows = texts_of(sheet)
    lines = [f"**{_title(sheet)}**", "", _line(head), _line(["---"] + ["---:"] * (len(head) - 1))]
    return "\n".join([*lines, *map(_line, rows)]) + "\n"


def _line(texts: Sequence[str]) -> str:
    cells = [text.replace("|", r"\|") for text in texts]
    return f"| {' | '.join(cells)} |"


def sheet_csv(sheets: Sequence[Sheet]) -> str:
    """One line for each place of each sheet, with seeds, sparsity and the printed number."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ("table", "row", "column", "accuracy_mean", "accuracy_sd", "seeds", "sparsity", "paper")
    writer.writerow(names)
    for sheet in sheets:
        for row, entries in sheet.rows:
            for column, entry in zip(sheet.columns, entries, strict=True):
                cell = entry.cell
                if cell is None and entry.printed is None:
                    continue
                ours: tuple[object, ...] = ("", "", "", "")
                if cell is not None:
                    sd = "" if cell.deviation is None else f"{cell.deviation:.4f}"
                    ours = (f"{cell.mean:.4f}", sd, len(cell.seeds), f"{cell.sparsity:.6f}")
                writer.writerow((sheet.title, row, column, *ours, entry.theirs))
    return out.getvalue()
