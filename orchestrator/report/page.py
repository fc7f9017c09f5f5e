"""``report.html``: a whole report as one file that opens anywhere, without a network.

Templates (``templates/``) write it. Of one store it is the same file, byte for byte. It may be read
without its script, which sorts tables and narrows them, and makes links of the numbers where the
store is a server.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from matplotlib.figure import Figure
from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from elth.files import write_atomic
from orchestrator.experiment.methods import rank, title
from orchestrator.plan.costs import duration
from orchestrator.plan.only import Only
from orchestrator.report import figure, flops_figure, pictures
from orchestrator.report.analyses import NONE, Analyses, grouped, shown
from orchestrator.report.analysis_forms import Spread, spread_of
from orchestrator.report.cells import Cell, Report
from orchestrator.report.flops import Costs, Spent
from orchestrator.report.forms import sheets
from orchestrator.report.inference import ERROR, Samples
from orchestrator.report.inline import Palette, inline
from orchestrator.report.judgement import TICKETS, Comparison, Judgement, judge
from orchestrator.report.notes import notes_of
from orchestrator.report.origins import origins
from orchestrator.report.sheets import Sheet, texts_of
from orchestrator.report.status import STATES, states
from orchestrator.report.strips import layers_strip, seeds_strip
from orchestrator.report.wording import question, verdict
from orchestrator.store.address import without_credentials
from orchestrator.store.content import Content, all_labels, spell_seeds
from orchestrator.store.opening import STAGES
from orchestrator.store.tracker import Tracker

NAME = "report.html"

_READERS = 8
"""Files of a server's runs that are asked for at once."""
_TITLES = 40
"""Stages of one state and reason that are named."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A cell, as the table of its network shows it."""

    cell: Cell
    level: str
    """Its round, with the exact sparsity or the imported ticket where there is one."""
    interval: tuple[float, float] | None
    """In which the mean of its accuracy is, with 95 %."""
    against: tuple[Comparison | None, ...]
    """Its comparison with each baseline of its table."""
    spent: Spent | None
    seeds: Markup
    layers: Markup | None
    number: int
    """Its place in the data of the page."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The cells of a network."""

    title: str
    note: str
    baselines: tuple[str, ...]
    """The methods that something in it is compared with."""
    rows: tuple[Row, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of any of its cells."""
        return tuple(sorted({seed for row in self.rows for seed in row.cell.seeds}))

    @property
    def is_costed(self) -> bool:
        """Whether it is known what any of its cells costs."""
        return any(row.spent is not None for row in self.rows)

    @property
    def has_layers(self) -> bool:
        """Whether it is known what any of its masks keeps of each layer."""
        return any(row.layers is not None for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with its title."""

    title: str
    svg: Markup


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Stages of one state that are so for one reason."""

    reason: str
    titles: tuple[str, ...]
    log: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """Those that are named."""
        return self.titles[:_TITLES]

    @property
    def more(self) -> int:
        """How many are not."""
        return len(self.titles) - len(self.named)


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that is on the page."""

    grid: str
    description: str
    question: str
    verdict: str
    """In two sentences."""
    judgement: Judgement
    facts: tuple[tuple[str, str], ...]
    """What there is of what, as ``("stages", "74 of 74 finished")``."""
    panels: tuple[Picture, ...]
    """Accuracy over sparsity, by network."""
    spending: tuple[Picture, ...]
    """Accuracy over costs, where these are known."""
    sheets: tuple[Sheet, ...]
    tables: tuple[Table, ...]
    unit: str
    """The network whose dense run is the unit of training operations."""
    missing: Mapping[str, tuple[Missing, ...]]
    """By state."""
    endings: tuple[str, ...]
    analyses: tuple[tuple[str, tuple[Spread, ...], tuple[Picture, ...]], ...]
    """For each measure its name, its tables and its pictures."""
    lacking: tuple[str, ...]
    notes: tuple[str, ...]
    experiment: str
    """The resolved experiment, as YAML."""
    plugins: tuple[str, ...]
    """Code from outside that it names."""
    origins: Mapping[str, tuple[str, ...]]
    numerics: tuple[str, ...]
    server: str
    """The address of the store, if it is a server."""
    data: Mapping[str, Any]
    """What the script needs: runs and their links, layers with their names."""
    palette: Palette

    @property
    def is_judged(self) -> bool:
        """Whether anything can be said of differences: of one seed nothing can."""
        return any(one.n > 1 for one in self.judgement.comparisons)

    @property
    def command(self) -> str:
        """What does the experiment again, of the file beside it."""
        return f"elth run {self.grid}.yaml"


def write(
    tracker: Tracker,
    report: Report,
    folder: Path,
    analyses: Analyses = NONE,
    counted: Costs | None = None,
    asked: Content | None = None,
    only: Only | None = None,
    judgement: Judgement | None = None,
) -> Path:
    """Write the page of a report into the folder of its other files; returns the file.

    Args:
        tracker: of the store.
        report: the cells.
        folder: where it is written.
        analyses: what was measured.
        counted: what the tickets cost.
        asked: what a file asks for, if the report is of a file.
        only: what of it the report is of; all when None.
        judgement: what can be said of it; by default against the dense network and IMP.

    Raises:
        ElthError: the store does not answer, or the folder cannot be written.
    """
    told = gather(tracker, report, asked, only)
    page = page_of(report, told, judgement or judge(report), analyses, counted)
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ElthError(f"cannot write the report to {folder}: {error.strerror}") from error
    write_atomic(path, html(page).encode())
    return path


def html(page: Page) -> str:
    """The page, as it is sent: its own rules and script in it, and nothing else allowed."""
    environment = _environment()
    style = _part(environment, "report.css", page)
    script = _part(environment, "report.js", page)
    return environment.get_template("report.html").render(
        page=page,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        tickets=TICKETS,
        data=htmlsafe_json_dumps(page.data, dumps=_dumps),
        yaml=base64.b64encode(page.experiment.encode()).decode(),
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("orchestrator.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "seeds": spell_seeds,
        "duration": duration,
        "sheet": texts_of,
        "id": lambda text: re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-"),
    }
    return environment


def _part(environment: Environment, name: str, page: Page) -> str:
    """Rules or a script, which are no HTML: nothing of them comes from an experiment."""
    colours = {paper: page.palette.colours(paper) for paper in ("light", "dark")}
    plain = environment.overlay(autoescape=False)
    return plain.get_template(name).render(colours=colours, plots=page.palette.rules).strip()


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_dumps = functools.partial(json.dumps, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a store tells of a report beside its cells."""

    content: Content
    """What the grid, or the file that the report is of, consists of."""
    stages: int
    """How many there are, of what the report is of."""
    layers: Sequence[Mapping[str, float] | None]
    """For each cell the sparsity of each layer, of its first seed; None where it is not told."""
    missing: Mapping[str, tuple[Missing, ...]] = field(default_factory=dict)
    """What is not finished, by state."""
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What it was computed by."""
    server: str = ""
    """The address of the store, if it is a server, without a user and a password."""
    experiment: str = ""
    """The id of the experiment in MLflow that holds the runs."""


def gather(
    tracker: Tracker, report: Report, asked: Content | None = None, only: Only | None = None
) -> Told:
    """Read from the store what the page of a report tells besides.

    Raises:
        ElthError: the store has no such grid.
    """
    uri = tracker.store.uri
    content = asked or tracker.grids.content(report.grid)
    called = {key: all_labels(labels) for key, labels in content.keys.items()}
    return Told(
        content=content,
        stages=len(called if only is None else only.keys(called)),
        layers=_layers(tracker, report.cells),
        missing=_missing(tracker, report, asked, only),
        origins=origins(tracker, report.grid),
        server=without_credentials(uri).rstrip("/") if uri.startswith("http") else "",
        experiment=str(tracker.experiments[STAGES]),
    )


@mpl.rc_context(figure.STYLE)
def page_of(
    report: Report,
    told: Told,
    judgement: Judgement,
    analyses: Analyses = NONE,
    counted: Costs | None = None,
) -> Page:
    """All that is on the page of a report."""
    palette = Palette()
    laid_out = sheets(report)
    return Page(
        grid=report.grid,
        description=str(told.content.experiment.get("description") or ""),
        question=question(report, analyses),
        verdict=verdict(report, judgement),
        judgement=judgement,
        facts=_facts(report, told),
        panels=tuple(
            _pictures(
                figure.panels(report), palette, "a", "Test accuracy over sparsity, a line a method"
            )
        ),
        spending=tuple(
            _pictures(
                flops_figure.panels(counted) if counted else (),
                palette,
                "c",
                "Test accuracy over what training and search cost, a line a method",
            )
        ),
        sheets=tuple(laid_out),
        tables=tuple(_tables(report, told.layers, judgement, counted)),
        unit=counted.reference if counted else "",
        missing=told.missing,
        endings=report.endings,
        analyses=tuple(_analyses(analyses, palette)),
        lacking=analyses.lacking,
        notes=tuple(notes_of(report, laid_out)),
        experiment=told.content.text,
        plugins=tuple(str(one) for one in told.content.experiment.get("plugins") or ()),
        origins=told.origins,
        numerics=report.numerics,
        server=told.server,
        data=_data(report, told),
        palette=palette,
    )


def _pictures(
    drawn: Iterable[tuple[str, Figure]], palette: Palette, name: str, what: str
) -> Iterator[Picture]:
    """Figures of networks for the page; their numbers are in its tables."""
    for number, (of, plot) in enumerate(drawn):
        alt = f"{what}: {of}. The numbers are in the table of its cells."
        svg = inline(plot, palette, name=f"{name}{number}-", alt=alt)
        yield Picture(title=of, svg=svg)


def _facts(report: Report, told: Told) -> tuple[tuple[str, str], ...]:
    total = told.stages
    done = total - report.missing - report.ended
    counts = {state: sum(len(one.titles) for one in some) for state, some in told.missing.items()}
    left = ", ".join(f"{count} {state}" for state, count in counts.items())
    left = "" if report.only else left  # of a part, what it needs is among them
    seeds = {seed for cell in report.cells for seed in cell.seeds}
    word, _, numbers = spell_seeds(seeds).partition(" ")
    # A training that several cells have in common counts once.
    seconds = sum(
        {
            run: second
            for cell in report.cells
            for run, second in zip(cell.runs, cell.seconds, strict=True)
        }.values()
    )
    facts = [
        *([("part", report.only)] if report.only else []),
        ("stages finished", f"{done:,} of {total:,}{f' ({left})' if left else ''}"),
        ("cells", f"{len(report.cells):,}"),
        (word, numbers) if seeds else ("seeds", "none"),
        ("time of training, of all cells", duration(seconds)),
    ]
    return tuple(facts)


# Cells


def _tables(
    report: Report,
    layers: Sequence[Mapping[str, float] | None],
    judgement: Judgement,
    counted: Costs | None,
) -> Iterator[Table]:
    """A table for each network, those that are on the way to others last."""
    spent: Mapping[Cell, Spent] = counted.by_cell if counted else {}
    compared = {(_axes(one.cell), one.baseline.method): one for one in judgement.comparisons}
    lows, highs = Samples.of([cell.accuracy for cell in report.cells]).interval(ERROR)
    asked = {(cell.dataset, cell.network) for cell in report.shown}
    places: dict[tuple[str, str], list[int]] = {}
    for number, cell in enumerate(report.cells):
        places.setdefault((cell.dataset, cell.network), []).append(number)
    for place in sorted(places, key=lambda one: one not in asked):
        cells = [report.cells[number] for number in places[place]]
        values = [value for cell in cells for value in cell.accuracy]
        margin = max(0.1, 0.04 * (max(values) - min(values)))
        span = (min(values) - margin, max(values) + margin)
        dense = next((c.mean for c in cells if c.method == "dense" and not c.variant), None)
        there = {method for axes, method in compared if axes[:2] == place}
        methods = [method for method in _baselines(judgement) if method in there]
        rows = []
        for number, cell in zip(places[place], cells, strict=True):
            found, low, high = layers[number], float(lows[number]), float(highs[number])
            interval = None if math.isnan(low) else (low, high)
            rows.append(
                Row(
                    cell=cell,
                    level=" ".join(filter(None, (str(cell.round), cell.target, cell.ticket))),
                    interval=interval,
                    against=tuple(compared.get((_axes(cell), method)) for method in methods),
                    spent=spent.get(cell),
                    seeds=seeds_strip(cell.accuracy, cell.mean, interval, span, dense),
                    layers=layers_strip(found) if found else None,
                    number=number,
                )
            )
        yield Table(
            title=f"{place[1]} on {place[0]}",
            note="" if place in asked else "On the way to other cells: nothing asks for it.",
            baselines=tuple(title(method) for method in methods),
            rows=tuple(rows),
        )


def _baselines(judgement: Judgement) -> list[str]:
    """The methods that are compared with, tickets before the dense network."""
    found = dict.fromkeys(one.baseline.method for one in judgement.comparisons)
    return sorted(found, key=lambda name: (name == "dense", rank(name)))


def _axes(cell: Cell) -> tuple[Any, ...]:
    axes = (cell.dataset, cell.network, cell.method, cell.source, cell.transform, cell.level)
    return (*axes, cell.variant, cell.noise)


def _layers(tracker: Tracker, cells: Sequence[Cell]) -> list[dict[str, float] | None]:
    """For each cell the sparsity of each layer, of its first seed; None where it is not told."""

    def read(run_id: str) -> dict[str, float] | None:
        try:
            found = json.loads(tracker.files.read(run_id, "layers.json"))
            return {str(name): float(value) for name, value in found.items()} or None
        except (ElthError, MlflowException, OSError, ValueError, AttributeError, TypeError):
            return None

    runs = [cell.runs[0] for cell in cells]
    if tracker.store.folder is not None:
        return [read(run_id) for run_id in runs]
    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(read, runs))


def _data(report: Report, told: Told) -> dict[str, Any]:
    """What the script needs: layers as their names and zeros in hundredths of a percent, runs."""
    names: dict[tuple[str, ...], int] = {}
    layers: list[list[int] | None] = []
    for one in told.layers:
        if one is None:
            layers.append(None)
            continue
        place = names.setdefault(tuple(one), len(names))
        layers.append([place, *(round(10_000 * value) for value in one.values())])
    data: dict[str, Any] = {"names": list(names), "layers": layers}
    if told.server:
        runs = [list(cell.runs) for cell in report.cells]
        data |= {"server": told.server, "experiment": told.experiment, "runs": runs}
    return data


# What is missing, analyses


def _missing(
    tracker: Tracker, report: Report, asked: Content | None, only: Only | None
) -> dict[str, tuple[Missing, ...]]:
    """What is not finished, by state and reason; to tell it takes the plan, so only if need be."""
    if not report.missing:
        return {}
    groups: dict[str, dict[str, list[Any]]] = {}
    for one in states(tracker, asked or report.grid, only):
        if one.state not in ("finished", "ended"):
            # For how long it runs, and when it was last seen, is another each time.
            reason = "" if one.state == "running" else one.reason
            groups.setdefault(one.state, {}).setdefault(reason, []).append(one)
    return {
        state: tuple(
            Missing(
                reason=reason,
                titles=tuple(one.title for one in some),
                log=next((one.log for one in some if one.log), ()),
            )
            for reason, some in groups[state].items()
        )
        for state in STATES
        if state in groups
    }


def _analyses(
    analyses: Analyses, palette: Palette
) -> Iterator[tuple[str, tuple[Spread, ...], tuple[Picture, ...]]]:
    measures: dict[str, list[Spread]] = {}
    for group in grouped(analyses.found):
        measures.setdefault(group.measure, []).extend(spread_of(group, n) for n in shown(group))
    drawn: dict[str, list[Picture]] = {}
    for number, (name, plot) in enumerate(pictures.plots(analyses)):
        own = [one for one in measures if f"{name}_".startswith(f"{one}_")]
        measure = max(own, key=len, default="")
        shows = " ".join(plot.get_suptitle().split())
        svg = inline(plot, palette, name=f"b{number}-", alt=shows)
        drawn.setdefault(measure, []).append(Picture(title=shows, svg=svg))
    for measure, spreads in measures.items():
        yield measure, tuple(spreads), tuple(drawn.get(measure, ()))
