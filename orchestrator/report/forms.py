"""A report as tables of a terminal, CSV, JSON and files."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from elth.errors import ElthError
from orchestrator.experiment.axes import Axes
from orchestrator.plan.stage import NOISE, VARIANT
from orchestrator.report.analyses import NONE, Analyses
from orchestrator.report.analysis_forms import analyses_csv, analyses_json, analyses_tables
from orchestrator.report.blocks import MARKS, MATCHING, Block, Spot, blocks
from orchestrator.report.cells import Imps, Report
from orchestrator.report.flops_forms import (
    COLUMNS,
    cost_line,
    cost_note,
    cost_values,
    told,
    with_costs,
)
from orchestrator.report.inference import ERROR
from orchestrator.report.judgement import AGAINST, TICKETS, judge
from orchestrator.report.latex import to_latex
from orchestrator.report.layouts import LAYOUTS, lay_out
from orchestrator.report.markdown import to_markdown
from orchestrator.report.notes import notes_of
from orchestrator.report.sheets import Sheet, heading, sheet_csv, sheet_markdown, sheet_table
from orchestrator.report.verdicts import (
    STYLES,
    claims_table,
    counts_of,
    csv_numbers,
    is_told,
    more_csv,
    verdicts_csv,
    verdicts_json,
)

if TYPE_CHECKING:
    from orchestrator.report.flops import Costs
    from orchestrator.report.judgement import Comparison, Judgement

_JUDGED = ("n", "difference", "low", "high", "confidence", "p", "verdict", "more_seeds")
"""What the table of cells has of each comparison; p is corrected."""


def to_json(
    report: Report,
    counted: Costs | None = None,
    *,
    provenance: bool = False,
    judged: Judgement | None = None,
) -> str:
    """The sorted list of cells; equal for two honest runs, byte for byte, without provenance.

    Under ``judgement`` stands what each is compared with, and what came of it.

    Args:
        report: the cells.
        counted: what they cost, where it is known.
        provenance: whether runs, numerics classes and times are told.
        judged: of the report, where it is there already.
    """
    compared: dict[Axes, list[Any]] = {}
    for one in (judged or judge(report)).comparisons:
        compared.setdefault(Axes.of(one.cell), []).append(one.plain())
    plain = [
        {
            **with_costs(cell.plain(provenance=provenance), cell, counted),
            "judgement": compared.get(Axes.of(cell), []),
        }
        for cell in report.cells
    ]
    return json.dumps(plain, indent=1) + "\n"


def to_csv(report: Report, counted: Costs | None = None, judged: Judgement | None = None) -> str:
    """One line for each cell; the last columns are what it is against dense and IMP."""
    judged = judged or judge(report)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    axes = (VARIANT, NOISE, "ticket")
    more = [axis for axis in axes if any(getattr(c, axis) for c in report.cells)]
    names = ("network", "method", "source", "transform", "round", "target", "dataset", *more)
    writer.writerow(
        (
            *(*names, "sparsity", "seeds", "nonzeros", "accuracy_mean", "accuracy_sd", "minus_imp"),
            "which_seeds",
            *(f"{method}_{name}" for method in AGAINST for name in _JUDGED),
            *(COLUMNS if counted is not None else ()),
        )
    )
    imps = Imps(report.compared, report.planned)
    for cell in report.cells:
        gap = imps.difference(cell)
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
                *(text for method in AGAINST for text in _csv(judged.against(method, cell))),
                *cost_values(cell, counted),
            )
        )
    return out.getvalue()


def _csv(one: Comparison | None) -> list[Any]:
    """A comparison as the columns of ``_JUDGED``."""
    if one is None:
        return [""] * len(_JUDGED)
    n, _, difference, _, _, _, _, p, confidence, low, high = csv_numbers(one)
    return [n, difference, low, high, confidence, p, one.word, more_csv(one)]


def to_tables(
    report: Report, counted: Costs | None = None, judged: Judgement | None = None
) -> RenderableType:
    """A table for each network: method by sparsity, mean and deviation, difference to IMP.

    Signs tell what was decided of it; below stand what the experiment claims, and what there is to
    know.

    Args:
        report: the report.
        counted: what its cells cost, if that is told below each accuracy.
        judged: of the report, where it is there already.
    """
    judged = judged or judge(report)
    laid_out = sheets(report)
    parts: list[RenderableType] = [sheet_table(sheet) for sheet in laid_out]
    parts += [_table(block, counted) for block in blocks(report, judged)]
    if judged.claims:
        parts.append(claims_table(judged))
    notes = []
    seeds = sorted({len(cell.seeds) for cell in report.cells})
    if seeds:
        spread = "mean ± standard deviation" if seeds != [1] else "accuracy"
        count = " or ".join(str(n) for n in seeds)
        notes.append(
            f"Test accuracy in % after the last epoch, {spread} over {count} "
            f"seed{'s' if seeds != [1] else ''}; in brackets the difference to IMP"
            f"{' over the seeds that both have' if len(seeds) > 1 else ''}, below it the sparsity "
            "where it is another than that of the column."
        )
        if len(seeds) > 1:
            notes.append("n: of how many seeds an accuracy is, where others have more.")
    if counted is not None:
        notes.append(cost_note(counted))
    if is_told(judged):
        notes += _judged(judged)
    notes += notes_of(report, laid_out)
    return Group(*parts, Text("\n".join(notes), style="dim"))


def _judged(judged: Judgement) -> list[str]:
    """What signs and words mean, and how often each came out."""
    signs = ", ".join(f"{sign} {word}" for word, sign in MARKS.items())
    notes = [
        f"Against IMP: {signs}, none where it is undecided. {MATCHING} wins against dense or "
        f"matches it. By intervals at a family-wise error of {100 * ERROR:g} %; {judged.meaning}",
        TICKETS,
    ]
    told = counts_of(judged)
    if told:
        notes.append(f"Against {'; '.join(told)}: see elth report --verdicts (docs/judging.md).")
    return notes


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


def _table(block: Block, counted: Costs | None) -> Table:
    table = Table(title=heading(block.title), title_justify="left", header_style="")
    table.add_column("sparsity %", no_wrap=True)
    for sparsity in block.sparsities:
        table.add_column(f"{100 * sparsity:.2f}", justify="right")
    counts = (f"{count:,.0f}" for count in block.nonzeros)
    table.add_row("non-zeros", *counts, end_section=True, style="dim")
    for name, spots in block.lines:
        entries = (Text("") if spot is None else _entry(spot, counted) for spot in spots)
        table.add_row(name, *entries)
    return table


def _entry(spot: Spot, counted: Costs | None) -> Text:
    cell = spot.cell
    text = Text(f"{cell.mean:.2f}", style="bold" if spot.is_best else "")
    if cell.deviation is not None:
        text.append(f" ± {cell.deviation:.2f}", style="not bold")
    if spot.fewer is not None:
        text.append(f", n = {spot.fewer}", style="not bold")
    colour = STYLES.get(spot.word, "dim")
    if spot.gap is not None:
        text.append(f" ({spot.gap:+.2f})", style=f"not bold {colour}")
    if spot.marks:
        text.append(f" {spot.marks}", style=f"not bold {colour}")
    if spot.elsewhere is not None:
        text.append(f"\n at {100 * spot.elsewhere:.2f} %", style="not bold dim")
    if cost := cost_line(cell, counted):
        text.append(f"\n {cost}", style="not bold dim")
    return text


_ELSEWHERE = (
    *("table.md", "table.tex", "verdicts.csv", "verdicts.json", "analyses.json", "analyses.csv"),
    *("paper.md", "paper.csv", "flops.json", "flops.png", "flops.svg"),
    *("accuracy.png", "accuracy.svg", "analysis_*.png", "analysis_*.svg"),
)
"""Files that not every report has."""


def write(
    report: Report,
    folder: Path,
    analyses: Analyses = NONE,
    counted: Costs | None = None,
    *,
    flops: bool = False,
    judged: Judgement | None = None,
) -> list[Path]:
    """Write table, CSV, JSON and figures, of analyses where there are any.

    Args:
        report: the report.
        folder: where to.
        analyses: what was measured.
        counted: what the cells cost. CSV and JSON tell of it; the table, a file and a figure of
            their own where the grid holds sparse training, or ``flops`` is true.
        flops: whether they do in any case.
        judged: of the report, where it is there already.

    What an earlier report there had and this one has not is removed.

    Returns the files.

    Raises:
        ElthError: the folder cannot be written.
    """
    from elth.files import write_atomic
    from orchestrator.report import figure, flops_figure, pictures
    from orchestrator.report.flops import to_json as costs_to_json

    console = Console(record=True, width=140, file=io.StringIO())
    judged = judged or judge(report)
    in_table = told(report, counted, flops=flops)
    console.print(to_tables(report, in_table, judged))
    if analyses != NONE:
        console.print(analyses_tables(analyses))
    texts = {
        "table.txt": console.export_text(),
        "cells.csv": to_csv(report, counted, judged),
        "cells.json": to_json(report, counted, judged=judged),
        "provenance.json": to_json(report, counted, provenance=True, judged=judged),
    }
    if report.cells:
        texts |= {
            "table.md": to_markdown(report, judged),
            "table.tex": to_latex(report, judged),
            "verdicts.csv": verdicts_csv(judged),
            "verdicts.json": verdicts_json(judged),
        }
    if analyses.found:
        texts["analyses.json"] = analyses_json(analyses)
        texts["analyses.csv"] = analyses_csv(analyses)
    if in_table is not None:
        texts["flops.json"] = costs_to_json(in_table)
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
        figures += flops_figure.draw(in_table, folder)
    files = [*(folder / name for name in texts), *figures]
    for path in (one for pattern in _ELSEWHERE for one in folder.glob(pattern)):
        if path not in files:
            path.unlink(missing_ok=True)
    return files
