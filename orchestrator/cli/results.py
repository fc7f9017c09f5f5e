"""``elth report``, ``verify`` and ``ui``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import (
    EXIT_FAILED,
    PLACE,
    Command,
    asked,
    open_tracker,
    out,
    plugin_option,
    store_option,
)
from orchestrator.cli.options import json_option, only_option, print_json

if TYPE_CHECKING:
    from orchestrator.plan.only import Only
    from orchestrator.report.cells import Report
    from orchestrator.report.judgement import Judgement
    from orchestrator.store.content import Content
    from orchestrator.store.tracker import Tracker


@click.command(cls=Command, example="elth verify quickstart")
@click.argument("grid_or_config", required=False)
@plugin_option
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
@click.option("--set-aside", is_flag=True, help="Mark what is damaged, for elth run to do again.")
@click.option("--absent", is_flag=True, help="With --set-aside: what is not there as well.")
@click.option("--restore", is_flag=True, help="Take back what was set aside and is whole.")
@click.option(
    "--faulty",
    is_flag=True,
    help="Set aside, instead, the stages whose gradients may have been wrong (docs/numerics.md).",
)
@json_option
def verify(
    grid_or_config: str | None,
    overrides: tuple[str, ...],
    store: str | None,
    set_aside: bool,
    absent: bool,
    restore: bool,
    faulty: bool,
    as_json: bool,
) -> None:
    """Read every file of the finished stages of a grid or config, or of all: are they whole?

    Nothing is changed unless --set-aside, --restore or --faulty says so. An elth run that comes
    upon a damaged stage sets it aside itself. From a server every file is fetched.
    """
    if absent and not set_aside:
        raise click.UsageError("--absent goes with --set-aside")
    if set_aside + restore + faulty > 1:
        raise click.UsageError("give one of --set-aside, --restore and --faulty")
    if as_json and (restore or faulty):
        raise click.UsageError("--json tells what is whole: without --restore and --faulty")
    tracker = open_tracker(store, writing=set_aside or restore or faulty)
    grid: str | Content | None = None
    if grid_or_config:
        name, content = asked(grid_or_config, overrides)
        grid = content or name
    if faulty:
        _set_faulty_aside(tracker, grid)
    elif restore:
        _restore(tracker, grid)
    else:
        marked = ("damaged", "absent")[: set_aside + absent]
        if not _verify(tracker, grid, marked=marked, as_json=as_json):
            sys.exit(EXIT_FAILED)


def _verify(
    tracker: Tracker, grid: str | Content | None, *, marked: Sequence[str], as_json: bool
) -> bool:
    """Look at all; set aside what is in a state that is to be marked; whether all is whole."""
    from orchestrator.store.verifying import STATES, verify

    counts: Counter[str] = Counter()
    told_of = []
    for found in verify(tracker, grid, absent="absent" in marked):
        counts[found.state] += 1
        if found.state in marked:
            tracker.set_aside(found.run, found.reason)
        if as_json:
            told_of.append(found.plain(set_aside=found.state in marked))
        elif found.state in ("absent", "damaged"):
            line = f"{found.state}: {found.stage.title}: {found.reason}"
            out.print(line, highlight=False, markup=False, soft_wrap=True)
    is_whole = not (counts["absent"] or counts["damaged"])
    if as_json:
        told_by = {state: counts[state] for state in STATES}
        print_json({"store": str(tracker.store), "counts": told_by, "stages": told_of})
        return is_whole
    told = f"{counts.total()} finished stages in {tracker.store}: {counts['whole']} whole"
    if counts["unknown"]:
        told += f", {counts['unknown']} not looked at, as their code from outside is not here"
        told += " (--plugin FILE names it)"
    for state, words in (("absent", "whose files are not there"), ("damaged", "damaged")):
        if counts[state]:
            told += f", {counts[state]} {words}"
            told += " and set aside; elth run does them again" if state in marked else ""
    if counts["damaged"] and "damaged" not in marked:
        told += "; elth verify --set-aside lets elth run do what is damaged again"
    if counts["absent"] and "absent" not in marked:
        told += "; put back what is not there, or elth verify --set-aside --absent lets elth run do"
        told += " it again"
    out.print(told, highlight=False, markup=False, soft_wrap=True)
    return is_whole


def _restore(tracker: Tracker, grid: str | Content | None) -> None:
    from orchestrator.store.verifying import restore

    counts: Counter[bool] = Counter()
    for found in restore(tracker, grid):
        counts[found.state == "whole"] += 1
        line = f"still {found.state}: {found.stage.title}: {found.reason}"
        if found.state == "whole":
            line = f"taken back: {found.stage.title}"
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    told = f"{counts[True]} stages in {tracker.store} count as finished again"
    told += f", {counts[False]} stay set aside" if counts[False] else ""
    out.print(told, highlight=False, markup=False, soft_wrap=True)


def _baselines(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> tuple[Any, ...]:
    """What is to be compared with, each a method or a mapping."""
    from pydantic import ValidationError

    from orchestrator.experiment.claims import Baseline
    from orchestrator.experiment.notation import parse

    found = []
    for text in given:
        value = parse(text, f"--against {text}", lined=False).value
        try:
            Baseline.model_validate(value)
        except ValidationError as error:
            details = error.errors()[0]
            told = details.get("ctx", {}).get("error") or details["msg"]
            where = ".".join(str(part) for part in details["loc"])
            raise click.BadParameter(f"{where}: {told}" if where else str(told)) from error
        found.append(value)
    return tuple(found)


def _print_verdicts(judged: Judgement, report: Report) -> None:
    from orchestrator.report.judgement import TICKETS
    from orchestrator.report.notes import notes_of
    from orchestrator.report.verdicts import claims_table, counts_of, verdicts_tables

    for table in verdicts_tables(judged):
        out.print(table)
    if judged.claims:
        out.print(claims_table(judged))
    told = counts_of(judged)
    notes = [f"Against {'; '.join(told)}." if told else f"Nothing of {report.grid} is compared."]
    sizes = ", ".join(f"{count} with {name}" for name, count in judged.families.items() if count)
    if sizes and judged.comparisons:
        notes.append(
            f"p is corrected by Holm within its family ({sizes}), and the interval is of the level "
            "that decides; --csv has that of 95 % of each comparison by itself (docs/judging.md)."
        )
    if judged.comparisons or judged.claims:
        notes += [judged.meaning[:1].upper() + judged.meaning[1:], TICKETS]
    notes += notes_of(report, [])
    for note in notes:
        out.print(note, highlight=False, markup=False, style="dim")


@click.command(cls=Command, example="elth report quickstart --json > cells.json")
@click.argument("grid_or_config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print the cells as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the cells as CSV.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the tables as Markdown.")
@click.option("--latex", "as_latex", is_flag=True, help="Print the tables as LaTeX, by booktabs.")
@click.option(
    "--verdicts",
    "of_verdicts",
    is_flag=True,
    help="Print every comparison with its interval instead; with --json or --csv too.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="METHOD",
    callback=_baselines,
    help="With --verdicts: compare with this instead of dense and imp, a method or "
    "'{method: ett, source: resnet14}'; may be given again.",
)
@click.option(
    "--analyses", "of_analyses", is_flag=True, help="With --json or --csv: the analyses instead."
)
@click.option("--provenance", is_flag=True, help="With --json: run ids, numerics and times too.")
@click.option(
    "--flops", is_flag=True, help="Tell of costs in the table of any grid, as of sparse training."
)
@click.option("--output", type=PLACE, help="Folder for page, table, CSV, JSON and figure.")
@only_option
def report(
    grid_or_config: str,
    overrides: tuple[str, ...],
    store: str | None,
    as_json: bool,
    as_csv: bool,
    as_markdown: bool,
    as_latex: bool,
    of_verdicts: bool,
    against: tuple[Any, ...],
    of_analyses: bool,
    provenance: bool,
    flops: bool,
    output: Path | None,
    only: Only | None,
) -> None:
    """Print the results of a grid, from the store alone.

    Of a config, changed by KEY=VALUE, it prints the cells that the config asks for, and says how
    the grid of its name differs.
    """
    from orchestrator.report import analyses
    from orchestrator.report.analysis_forms import analyses_csv, analyses_json, analyses_tables
    from orchestrator.report.cells import collect
    from orchestrator.report.flops import has_sparse_training, known
    from orchestrator.report.flops_forms import told
    from orchestrator.report.forms import to_csv, to_json, to_tables, write
    from orchestrator.report.judgement import AGAINST, judge
    from orchestrator.report.latex import to_latex
    from orchestrator.report.markdown import to_markdown
    from orchestrator.report.verdicts import verdicts_csv, verdicts_json

    if as_json + as_csv + as_markdown + as_latex > 1:
        raise click.UsageError("give one of --json, --csv, --markdown and --latex")
    if of_analyses and not (as_json or as_csv):
        raise click.UsageError("--analyses goes with --json or --csv")
    if of_verdicts and (of_analyses or as_markdown or as_latex):
        raise click.UsageError("--verdicts goes with --json or --csv, or alone")
    if against and not of_verdicts:
        raise click.UsageError("--against goes with --verdicts")
    if provenance and (of_analyses or of_verdicts or not as_json):
        raise click.UsageError("--provenance goes with --json, of cells")
    tracker = open_tracker(store)
    meant = asked(grid_or_config, overrides)
    found = collect(tracker, *meant, only)
    is_text = as_json or as_csv or as_markdown or as_latex
    is_read = of_analyses or output is not None or not (is_text or of_verdicts)
    measured = analyses.collect(tracker, *meant, only) if is_read else analyses.NONE
    counted, is_cells = None, (as_json or as_csv) and not (of_analyses or of_verdicts)
    is_told = flops or has_sparse_training(found)
    if output is not None or is_cells or is_told:
        counted = known(
            tracker,
            found,
            meant[1],
            whole=collect(tracker, *meant) if only else None,
            tell=lambda why: click.echo(f"note: {why}", err=True) if is_told else None,
        )
    if is_text and found.beside:
        click.echo(f"note: {found.beside}", err=True)
    if of_analyses:
        text = analyses_json(measured) if as_json else analyses_csv(measured)
        click.echo(text.encode(), nl=False)  # UTF-8
    elif is_text:
        judged = judge(found, against or AGAINST)
        if of_verdicts:
            text = verdicts_json(judged) if as_json else verdicts_csv(judged)
        elif as_json:
            text = to_json(found, counted, provenance=provenance, judged=judged)
        elif as_csv:
            text = to_csv(found, counted, judged)
        else:
            text = to_markdown(found, judged) if as_markdown else to_latex(found, judged)
        click.echo(text.encode(), nl=False)
    elif of_verdicts:
        _print_verdicts(judge(found, against or AGAINST), found)
    else:
        out.print(to_tables(found, told(found, counted, flops=flops)))
        if measured != analyses.NONE:
            out.print(analyses_tables(measured))
    if output is not None:
        from orchestrator.report import page

        for path in write(found, output, measured, counted, flops=flops):
            click.echo(f"wrote {path}", err=True)
        written = page.write(tracker, found, output, measured, counted, meant[1], only)
        click.echo(f"wrote {written}", err=True)


@click.command(cls=Command, example="elth ui --port 5001 --no-browser")
@store_option
@click.option("--grid", help="Show this grid only.")
@click.option("--port", default=5000, show_default=True)
@click.option("--no-browser", is_flag=True, help="Only serve, and print the address.")
def ui(store: str | None, grid: str | None, port: int, no_browser: bool) -> None:
    """Open the MLflow pages on the store, on this machine only (127.0.0.1)."""
    from orchestrator.report import ui as pages

    tracker = open_tracker(store, writing=True)  # it keeps the view of what is compared
    sys.exit(pages.serve(tracker, grid=grid, port=port, browser=not no_browser))


def _set_faulty_aside(tracker: Tracker, grid: str | Content | None) -> None:
    from orchestrator.store.soundness import UNSOUND, faulty, of_grid

    chosen = faulty(tracker.stages())
    if grid is not None:
        keys = tracker.grids.keys(grid) if isinstance(grid, str) else grid.keys
        chosen = of_grid(chosen, keys)
    for one in chosen:
        line = f"set aside: {one.stage.title} ({one.numerics})"
        tracker.set_aside(tracker.get(one.run_id), UNSOUND)
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    told = f"{len(chosen)} stages in {tracker.store} come from gradients that may be wrong"
    told += "; elth run does them again" if chosen else ""
    out.print(told, highlight=False, markup=False, soft_wrap=True)


COMMANDS = (report, verify, ui)
