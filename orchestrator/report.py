"""Reports: cells over seeds, as a table, CSV, JSON and the papers' kind of figure.

A report reads the store and nothing else, so it can be made on any machine that reaches it.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from elth.errors import ElthError
from orchestrator.tracking import Tracked, Tracker

_ORDER = ("dense", "imp", "ett", "reinit", "random", "magnitude")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of axes, over its seeds. Lists are in the order of seeds."""

    network: str
    method: str
    source: str
    transform: str
    round: int
    dataset: str
    sparsity: float
    """Mean fraction of prunable weights that are zero."""
    seeds: tuple[int, ...]
    nonzeros: tuple[int, ...]
    accuracy: tuple[float, ...]
    """Test accuracy in percent after the last epoch."""
    runs: tuple[str, ...]
    """MLflow run ids."""
    numerics: tuple[str, ...]
    seconds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return statistics.fmean(self.accuracy)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of a sample (n - 1); None for one seed."""
        return statistics.stdev(self.accuracy) if len(self.accuracy) > 1 else None

    @property
    def name(self) -> str:
        """How the method is written: ``IMP``, ``ETT <- resnet14 append``."""
        if self.method == "ett":
            return f"ETT <- {self.source} {self.transform}"
        return {"imp": "IMP", "dense": "dense"}.get(self.method, self.method.capitalize())

    def plain(self, *, provenance: bool = False) -> dict[str, Any]:
        """The cell as JSON values; with ``provenance`` also runs, numerics classes and times."""
        result: dict[str, Any] = {
            "network": self.network,
            "method": self.method,
            "source": self.source,
            "transform": self.transform,
            "round": self.round,
            "dataset": self.dataset,
            "sparsity": self.sparsity,
            "seeds": list(self.seeds),
            "nonzeros": list(self.nonzeros),
            "accuracy": list(self.accuracy),
            "accuracy_mean": self.mean,
            "accuracy_sd": self.deviation,
        }
        if provenance:
            result |= {
                "runs": list(self.runs),
                "numerics": list(self.numerics),
                "seconds": list(self.seconds),
            }
        return result


@dataclass(frozen=True, kw_only=True)
class Report:
    """The cells of a grid, sorted, and what is missing of it."""

    grid: str
    cells: tuple[Cell, ...]
    missing: int
    """Stages of the grid that are not finished."""

    @property
    def numerics(self) -> tuple[str, ...]:
        """The numerics classes that the results come from; more than one is worth a word."""
        return tuple(sorted({name for cell in self.cells for name in cell.numerics}))


def collect(tracker: Tracker, grid: str) -> Report:
    """Read a grid from the store.

    Raises:
        ElthError: the store has no such grid.
    """
    labels = tracker.grid_keys(grid)
    by_key: dict[str, Tracked] = {}
    for tracked in tracker.stages(grid):
        if tracked.key in labels and tracked.status == "finished":
            stage = replace(tracked.stage, labels=labels[tracked.key])
            by_key.setdefault(tracked.key, replace(tracked, stage=stage))
    cells = cells_of(by_key.values())
    return Report(grid=grid, cells=cells, missing=len(labels) - len(by_key))


def cells_of(tracked: Iterable[Tracked]) -> tuple[Cell, ...]:
    """Gather finished stages into cells, sorted by network, sparsity, method and plan.

    Raises:
        ElthError: two results claim the same cell and seed.
    """
    groups: dict[tuple[Any, ...], list[Tracked]] = {}
    for one in tracked:
        if one.stage.kind == "rewind_point" or one.accuracy is None:
            continue
        axes = ("network", "method", "source", "transform", "round", "dataset")
        groups.setdefault(tuple(one.stage.labels[axis] for axis in axes), []).append(one)
    cells = []
    for (network, method, source, transform, k, dataset), group in groups.items():
        group.sort(key=lambda one: one.stage.labels["seed"])
        seeds = tuple(one.stage.labels["seed"] for one in group)
        if len(set(seeds)) != len(seeds):
            raise ElthError(
                f"two results for {method} on {network}, round {k}: the grid mixes recipes"
            )
        sparsity = [1 - one.nonzeros / one.prunable for one in group]
        cells.append(
            Cell(
                network=network,
                method=method,
                source=source,
                transform=transform,
                round=k,
                dataset=dataset,
                sparsity=statistics.fmean(sparsity),
                seeds=seeds,
                nonzeros=tuple(one.nonzeros for one in group),
                accuracy=tuple(one.accuracy or 0.0 for one in group),
                runs=tuple(one.run_id for one in group),
                numerics=tuple(one.numerics for one in group),
                seconds=tuple(one.seconds or 0.0 for one in group),
            )
        )
    return tuple(sorted(cells, key=_sort_key))


def _sort_key(cell: Cell) -> tuple[Any, ...]:
    method = _ORDER.index(cell.method) if cell.method in _ORDER else len(_ORDER)
    digits = "".join(c for c in cell.network.split("(")[0] if c.isdigit())
    size = (cell.network.rstrip("0123456789"), int(digits or 0), cell.network)
    return (cell.dataset, *size, cell.round, method, cell.source, cell.transform)


def imp_of(cell: Cell, cells: Iterable[Cell]) -> Cell | None:
    """The IMP cell of the same network, round and dataset."""
    axes = (cell.network, cell.round, cell.dataset)
    for other in cells:
        if other.method == "imp" and (other.network, other.round, other.dataset) == axes:
            return other
    return None


def difference(cell: Cell, cells: Iterable[Cell]) -> float | None:
    """Mean accuracy less that of IMP, over the seeds that both have; None where there is no IMP."""
    imp = imp_of(cell, cells)
    if imp is None or cell.method == "imp":
        return None
    reference = dict(zip(imp.seeds, imp.accuracy, strict=True))
    pairs = [
        accuracy - reference[seed]
        for seed, accuracy in zip(cell.seeds, cell.accuracy, strict=True)
        if seed in reference
    ]
    return statistics.fmean(pairs) if pairs else None


# Forms


def to_json(report: Report, *, provenance: bool = False) -> str:
    """The sorted list of cells; equal for two honest runs, byte for byte, without provenance."""
    return json.dumps([c.plain(provenance=provenance) for c in report.cells], indent=1) + "\n"


def to_csv(report: Report) -> str:
    """One line for each cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ("network", "method", "source", "transform", "round", "dataset")
    writer.writerow(
        (*names, "sparsity", "seeds", "nonzeros", "accuracy_mean", "accuracy_sd", "minus_imp")
    )
    for cell in report.cells:
        gap = difference(cell, report.cells)
        writer.writerow(
            (
                *(getattr(cell, name) for name in names),
                f"{cell.sparsity:.6f}",
                len(cell.seeds),
                f"{statistics.fmean(cell.nonzeros):.1f}",
                f"{cell.mean:.4f}",
                "" if cell.deviation is None else f"{cell.deviation:.4f}",
                "" if gap is None else f"{gap:.4f}",
            )
        )
    return out.getvalue()


def to_tables(report: Report) -> RenderableType:
    """A table for each network: method by sparsity, mean and deviation, difference to IMP."""
    parts: list[RenderableType] = []
    networks = dict.fromkeys((cell.dataset, cell.network) for cell in report.cells)
    for dataset, network in networks:
        cells = [c for c in report.cells if (c.dataset, c.network) == (dataset, network)]
        parts.append(_table(f"{network} on {dataset}", cells))
    notes = []
    seeds = sorted({len(cell.seeds) for cell in report.cells})
    if seeds:
        spread = "mean ± standard deviation" if seeds != [1] else "accuracy"
        count = " or ".join(str(n) for n in seeds)
        notes.append(
            f"Test accuracy in % after the last epoch, {spread} over {count} "
            f"seed{'s' if seeds != [1] else ''}; in brackets the difference to IMP, below it the "
            "sparsity where it is another than that of the column."
        )
    if report.missing:
        notes.append(f"{report.missing} stages of this grid are not finished.")
    if len(report.numerics) > 1:
        notes.append(
            "These results come from several numerics classes, in which the same seed gives other "
            f"bits: {'; '.join(report.numerics)}."
        )
    return Group(*parts, Text("\n".join(notes), style="dim"))


def _table(title: str, cells: Sequence[Cell]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="")
    shown = _shown_rounds(cells)
    table.add_column("sparsity %", no_wrap=True)
    columns = {k: _matched(cells, k) for k in shown}
    for k in shown:
        table.add_column(f"{100 * columns[k].sparsity:.2f}", justify="right")
    table.add_row(
        "non-zeros",
        *(f"{statistics.fmean(columns[k].nonzeros):,.0f}" for k in shown),
        end_section=True,
        style="dim",
    )
    best = {
        k: max(c.mean for c in cells if c.round == k and c.method != "dense")
        for k in shown
        if k and any(c.round == k for c in cells)
    }
    for name in dict.fromkeys(cell.name for cell in sorted(cells, key=_row_key)):
        row = []
        for k in shown:
            cell = next((c for c in cells if c.name == name and c.round == k), None)
            row.append(_entry(cell, cells, columns[k], best.get(k)) if cell else Text(""))
        table.add_row(name, *row)
    return table


def _row_key(cell: Cell) -> tuple[Any, ...]:
    method = _ORDER.index(cell.method) if cell.method in _ORDER else len(_ORDER)
    return (method, cell.source, cell.transform)


def _shown_rounds(cells: Sequence[Cell]) -> list[int]:
    """All rounds, or where there are many, the dense one and those with more than IMP."""
    rounds = sorted({cell.round for cell in cells})
    compared = {c.round for c in cells if c.method not in ("dense", "imp")}
    if len(rounds) <= 5 or not compared:
        return rounds
    return [k for k in rounds if k == 0 or k in compared]


def _matched(cells: Sequence[Cell], k: int) -> Cell:
    """The cell whose sparsity heads a column: IMP where there is one."""
    column = [c for c in cells if c.round == k]
    return min(column, key=_row_key)


def _entry(cell: Cell, cells: Sequence[Cell], head: Cell, best: float | None) -> Text:
    text = Text(f"{cell.mean:.2f}", style="bold" if best == cell.mean else "")
    if cell.deviation is not None:
        text.append(f" ± {cell.deviation:.2f}", style="not bold")
    gap = difference(cell, cells)
    if gap is not None:
        colour = "green" if gap >= 0 else "red"
        text.append(f" ({gap:+.2f})", style=f"not bold {colour}")
    if abs(cell.sparsity - head.sparsity) >= 5e-5:
        text.append(f"\n at {100 * cell.sparsity:.2f} %", style="not bold dim")
    return text


def write(report: Report, folder: Path) -> list[Path]:
    """Write table, CSV, JSON and figures; returns the files.

    Raises:
        ElthError: the folder cannot be written.
    """
    from orchestrator import figure

    console = Console(record=True, width=140, file=io.StringIO())
    console.print(to_tables(report))
    texts = {
        "table.txt": console.export_text(),
        "cells.csv": to_csv(report),
        "cells.json": to_json(report),
        "provenance.json": to_json(report, provenance=True),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        figures = figure.draw(report, folder)
    except OSError as error:
        raise ElthError(f"cannot write the report to {folder}: {error.strerror}") from error
    return [*(folder / name for name in texts), *figures]
