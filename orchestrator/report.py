"""Reports: cells over seeds, as a table, CSV, JSON and the papers' kind of figure.

A report reads the store and nothing else, so it can be made on any machine that reaches it.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from elth.errors import ElthError
from orchestrator import layouts
from orchestrator.experiment import Paper
from orchestrator.methods import METHODS, SOURCE, rank, title
from orchestrator.soundness import DO_AGAIN, faulty
from orchestrator.tracking import Tracked, Tracker

_COLUMNS = 6
_TOLD = 8


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of axes, over its seeds. Lists are in the order of seeds."""

    network: str
    method: str
    source: str
    transform: str
    round: int
    dataset: str
    target: str = ""
    """Exact sparsity that was asked for, as ``0.9``, where it is not that of a whole round."""
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
    collapsed: tuple[str, ...] = ()
    """Weights of which no element is left, for any seed: through such a layer no signal passes."""

    @property
    def level(self) -> tuple[int, str]:
        """Round and exact sparsity: what is compared stands at one level."""
        return (self.round, self.target)

    @functools.cached_property
    def mean(self) -> float:
        """Mean accuracy."""
        return statistics.fmean(self.accuracy)

    @functools.cached_property
    def deviation(self) -> float | None:
        """Standard deviation of a sample (n - 1); None for one seed."""
        return statistics.stdev(self.accuracy) if len(self.accuracy) > 1 else None

    @property
    def name(self) -> str:
        """How the method is written: ``IMP``, ``ETT <- resnet14 append``."""
        if self.source:
            plan = "" if self.transform == "identity" else f" {self.transform}"
            return f"{title(self.method)} <- {self.source}{plan}"
        return title(self.method)

    @property
    def is_moved(self) -> bool:
        """Whether its ticket was found on another network or dataset."""
        return self.method in METHODS and METHODS[self.method].base == SOURCE

    def plain(self, *, provenance: bool = False) -> dict[str, Any]:
        """The cell as JSON values; with ``provenance`` also runs, numerics classes and times."""
        result: dict[str, Any] = {
            "network": self.network,
            "method": self.method,
            "source": self.source,
            "transform": self.transform,
            "round": self.round,
            "dataset": self.dataset,
            **({"target": self.target} if self.target else {}),
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
                "collapsed": list(self.collapsed),
            }
        return result


@dataclass(frozen=True, kw_only=True)
class Report:
    """The cells of a grid, sorted, and what is missing of it."""

    grid: str
    cells: tuple[Cell, ...]
    missing: int
    """Stages of the grid that are not finished."""
    paper: Paper | None = None
    """The table or figure that the grid is the setting of."""
    dataset: str = ""
    """The dataset of the experiment."""
    criteria: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings of pruning criteria that differ from the published ones."""
    rounds: int = 0
    """The last round that the experiment asks for."""
    faulty: tuple[str, ...] = ()
    """Stages whose gradients may have been wrong, as they were computed by an earlier version."""
    asked: frozenset[tuple[str, str]] = frozenset()
    """Datasets and networks that the grid names as targets; others are only on the way."""

    @property
    def shown(self) -> tuple[Cell, ...]:
        """The cells for tables and figures: those on the way to others are in JSON and CSV only."""
        shown = tuple(c for c in self.cells if (c.dataset, c.network) in self.asked)
        return shown or self.cells

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
    everything = tracker.stages()
    wrong = {one.run_id for one in faulty(everything)}
    for tracked in everything:
        if tracked.key in labels and tracked.status == "finished":
            stage = replace(tracked.stage, labels=labels[tracked.key])
            by_key.setdefault(tracked.key, replace(tracked, stage=stage))
    experiment = tracker.grid_experiment(grid)
    paper, dataset = experiment.get("paper"), str(experiment.get("dataset", ""))
    # An image folder is called by its manifest in the experiment, and by its own name in labels.
    titles = {one["place"]: one["dataset"] for one in labels.values() if "place" in one}
    return Report(
        grid=grid,
        cells=cells_of(by_key.values()),
        missing=len(labels) - len(by_key),
        paper=Paper.model_validate(paper) if paper else None,
        dataset=titles.get(dataset, dataset),
        criteria={name: given for name, given in experiment.get("criteria", {}).items() if given},
        faulty=tuple(one.stage.title for one in by_key.values() if one.run_id in wrong),
        rounds=int(experiment.get("pruning", {}).get("rounds", 0)),
        asked=frozenset(
            (titles.get(name, name), network)
            for entry in experiment.get("grid", ())
            for name in entry.get("dataset") or [dataset]
            for network in entry["network"]
        ),
    )


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
        place = (*(one.stage.labels[axis] for axis in axes), one.stage.labels.get("target", ""))
        groups.setdefault(place, []).append(one)
    cells = []
    for (network, method, source, transform, k, dataset, target), group in groups.items():
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
                target=target,
                sparsity=statistics.fmean(sparsity),
                seeds=seeds,
                nonzeros=tuple(one.nonzeros for one in group),
                accuracy=tuple(one.accuracy or 0.0 for one in group),
                runs=tuple(one.run_id for one in group),
                numerics=tuple(one.numerics for one in group),
                seconds=tuple(one.seconds or 0.0 for one in group),
                collapsed=tuple(dict.fromkeys(n for one in group for n in one.collapsed)),
            )
        )
    return tuple(sorted(cells, key=_sort_key))


def _sort_key(cell: Cell) -> tuple[Any, ...]:
    size = layouts.size(cell.network)
    method = rank(cell.method)
    return (cell.dataset, *size, *cell.level, method, cell.source, cell.transform)


def imp_of(cell: Cell, cells: Iterable[Cell]) -> Cell | None:
    """The IMP cell of the same network, level and dataset."""
    axes = (cell.network, cell.level, cell.dataset)
    for other in cells:
        if other.method == "imp" and (other.network, other.level, other.dataset) == axes:
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
    names = ("network", "method", "source", "transform", "round", "target", "dataset")
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
    parts: list[RenderableType] = [layouts.to_table(sheet) for sheet in sheets(report)]
    networks = dict.fromkeys((cell.dataset, cell.network) for cell in report.shown)
    for dataset, network in networks:
        cells = [c for c in report.shown if (c.dataset, c.network) == (dataset, network)]
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
    for name, given in report.criteria.items():
        settings = ", ".join(f"{key}={value}" for key, value in given.items())
        notes.append(f"{title(name)} differs from its published settings: {settings}.")
    if report.paper is not None and report.paper.printed:
        notes.append(f"paper: as printed in {report.paper.title}.")
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
    if report.missing:
        notes.append(f"{report.missing} stages of this grid are not finished.")
    if report.faulty:
        shown = "; ".join(report.faulty[:_TOLD])
        more = f" and {len(report.faulty) - _TOLD} more" if len(report.faulty) > _TOLD else ""
        notes.append(
            f"{len(report.faulty)} stages come from gradients that may be wrong "
            f"(docs/numerics.md): {shown}{more}. {DO_AGAIN}."
        )
    if len(report.numerics) > 1:
        notes.append(
            "These results come from several numerics classes, in which the same seed gives other "
            f"bits: {'; '.join(report.numerics)}."
        )
    return Group(*parts, Text("\n".join(notes), style="dim"))


def sheets(report: Report) -> list[layouts.Sheet]:
    """Our numbers in the shape of the paper's table, where the experiment names one."""
    if report.paper is None:
        return []
    return layouts.lay_out(report.shown, report.paper, report.dataset, report.rounds)


def _table(title: str, cells: Sequence[Cell]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="")
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
        if level[0]
    }
    for name in dict.fromkeys(cell.name for cell in sorted(cells, key=_row_key)):
        row = []
        for level in shown:
            cell = next((c for c in cells if c.name == name and c.level == level), None)
            row.append(_entry(cell, cells, columns[level], best.get(level)) if cell else Text(""))
        table.add_row(name, *row)
    return table


def _row_key(cell: Cell) -> tuple[Any, ...]:
    return (rank(cell.method), layouts.size(cell.source), cell.transform)


def _shown_levels(cells: Sequence[Cell]) -> list[tuple[int, str]]:
    """Levels for a table's columns: where there are many, the dense one and those compared."""
    order = {cell.level: cell.sparsity for cell in sorted(cells, key=_row_key, reverse=True)}
    levels = sorted(order, key=lambda level: (order[level], level))
    compared = {c.level for c in cells if c.method not in ("dense", "imp")}
    if len(levels) <= _COLUMNS or not compared:
        return levels
    shown = [level for level in levels if level[0] == 0 or level in compared]
    if len(shown) <= _COLUMNS:
        return shown
    spread = sorted({round(i * (len(shown) - 1) / (_COLUMNS - 1)) for i in range(_COLUMNS)})
    return [shown[i] for i in spread]


def _matched(cells: Sequence[Cell], level: tuple[int, str]) -> Cell:
    """The cell whose sparsity heads a column: IMP where there is one."""
    return min((c for c in cells if c.level == level), key=_row_key)


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
    from elth.files import write_atomic
    from orchestrator import figure

    console = Console(record=True, width=140, file=io.StringIO())
    console.print(to_tables(report))
    texts = {
        "table.txt": console.export_text(),
        "cells.csv": to_csv(report),
        "cells.json": to_json(report),
        "provenance.json": to_json(report, provenance=True),
    }
    laid_out = sheets(report)
    if laid_out:
        texts["paper.md"] = "\n".join(map(layouts.to_markdown, laid_out))
        texts["paper.csv"] = layouts.to_csv(laid_out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ElthError(f"cannot write the report to {folder}: {error.strerror}") from error
    for name, text in texts.items():  # an earlier report stays where there is no room for this one
        write_atomic(folder / name, text.encode())
    figures = figure.draw(report, folder)
    return [*(folder / name for name in texts), *figures]
