"""``elth status``: how far grids are, once or again and again."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click
from rich.table import Table

from orchestrator.cli.common import (
    EXIT_FAILED,
    EXIT_STOPPED,
    Command,
    asked,
    open_tracker,
    out,
    store_option,
)
from orchestrator.cli.housekeeping import print_grids
from orchestrator.cli.options import json_option, only_option, print_json

if TYPE_CHECKING:
    from orchestrator.plan.only import Only
    from orchestrator.report.watching import Look
    from orchestrator.store.content import Content
    from orchestrator.store.tracker import Tracker

_SHOWN = 20
"""Stages of one state that are listed."""


@click.command(
    cls=Command,
    example="elth status quickstart\nelth status quickstart --watch",
)
@click.argument("grid_or_config", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
@only_option
@click.option("--watch", is_flag=True, help="Look again and again, until nothing is left to do.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.5),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: time between two looks.",
)
@json_option
def status(
    grid_or_config: str | None,
    overrides: tuple[str, ...],
    store: str | None,
    only: Only | None,
    watch: bool,
    every: float,
    as_json: bool,
) -> None:
    """Tell how far a grid is: what runs, waits, failed, is blocked or ended, and why.

    Of a config, it tells of the stages that the config asks for. Without a name it lists the grids
    of the store, as elth grids does. With --watch it ends once nothing is left to do, with 3 if
    something failed, or on Ctrl-C, which leaves the run alone.
    """
    if watch and as_json:
        raise click.UsageError("give --watch or --json, not both")
    if grid_or_config is None:
        if watch or only is not None:
            raise click.UsageError(f"{'--watch' if watch else '--only'} takes the name of a grid")
        print_grids(store, as_json=as_json)
        return
    from orchestrator.report.watching import look
    from orchestrator.store.content import beside

    tracker = open_tracker(store)
    grid, content = asked(grid_or_config, overrides)
    held = tracker.grids.content(grid)
    differs = beside(grid, held, content) if content else ""
    if watch:
        _watch(tracker, grid, content, only, every, differs)
        return
    found = look(tracker, grid, content, only)
    if as_json:
        print_json(found.plain(differs))
    else:
        _print(found, differs)


def _print(found: Look, differs: str) -> None:
    from orchestrator.report.status import STATES

    _say(f"{found.grid} in {found.store}")
    if differs:
        _say(differs)
    table = Table()
    table.add_column("state")
    table.add_column("stages", justify="right")
    for state, count in found.counts.items():
        table.add_row(state, str(count))
    out.print(table)
    for state in STATES[1:]:
        some = [one for one in found.states if one.state == state]
        for one in some[:_SHOWN]:
            so_far = "" if one.accuracy is None else f", {one.accuracy:.2f} % so far"
            _say(f"{state}: {one.title}{f': {one.reason}' if one.reason else ''}{so_far}")
            for text in one.log:
                _say(f"    {text}")
        if len(some) > _SHOWN:
            out.print(f"{state}: {len(some) - _SHOWN} more", highlight=False)


def _watch(
    tracker: Tracker,
    grid: str,
    content: Content | None,
    only: Only | None,
    every: float,
    differs: str,
) -> None:
    """Look until nothing is left to do; a display in a terminal, lines anywhere else."""
    from rich.live import Live

    from orchestrator.plan.costs import duration
    from orchestrator.report.watching import display, line, look
    from orchestrator.work.progress import is_live

    began = time.monotonic()
    found = look(tracker, grid, content, only)
    if differs:
        _say(differs)
    try:
        if is_live(out):
            shown = display(found, height=out.height)
            with Live(shown, console=out, auto_refresh=False, vertical_overflow="crop") as live:
                while not found.is_over:
                    _pause(every, began)
                    began, note = time.monotonic(), ""
                    try:
                        found = look(tracker, grid, content, only)
                    except Exception as error:
                        note = _of_a_moment(error)
                    live.update(display(found, height=out.height, note=note), refresh=True)
        else:
            first, last = time.monotonic(), ""
            while True:
                if (text := line(found)) != last:
                    _say(f"[{duration(time.monotonic() - first)}] {text}")
                last = text
                if found.is_over:
                    break
                _pause(every, began)
                began = time.monotonic()
                try:
                    found = look(tracker, grid, content, only)
                except Exception as error:
                    click.echo(f"note: {_of_a_moment(error)}", err=True)
    except KeyboardInterrupt:
        click.echo("elth: no longer watching; the run itself goes on", err=True)
        sys.exit(EXIT_STOPPED)
    if found.has_failed:
        sys.exit(EXIT_FAILED)


def _pause(every: float, began: float) -> None:
    """Wait for the next look, and as long as the last one took: a store has others to serve."""
    time.sleep(max(every, time.monotonic() - began))


def _say(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)


COMMANDS = (status,)


def _of_a_moment(error: Exception) -> str:
    """What is noted of an error that another look may not have; else it is raised again."""
    from orchestrator.store.away import is_away, plain

    if not is_away(error):
        raise error
    return plain(error)
