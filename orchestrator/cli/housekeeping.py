"""``elth grids``, ``rm`` and ``gc``: what a store holds, and what of it may go."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import click
from rich.table import Table

from orchestrator.cli.common import Command, open_tracker, out, store_option
from orchestrator.plan.costs import duration, size_of

_WIDTH = 48
"""Letters of a description that are shown."""


@click.command(cls=Command, example="elth grids --store runs")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def grids(store: str | None, as_json: bool) -> None:
    """List the grids of a store: how far each is, failures, size, last sign of life.

    Sizes are of the files of results; what grids share is counted in each. Of a store on a server
    a finished stage whose run does not tell its size, as those of before do not, costs a question
    of its own (some 50 ms).
    """
    from orchestrator.store.overview import overview

    tracker = open_tracker(store)
    found = overview(tracker)
    if as_json:
        click.echo(json.dumps([{**vars(one), "seen": _utc(one.seen)} for one in found], indent=1))
        return
    if not found:
        _say(f"{tracker.store} holds no grid")
        return
    now = time.time()
    table = Table()
    for column in ("grid", "finished", "running", "failed", "size", "last sign of life"):
        right = column in ("finished", "running", "failed", "size")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    table.add_column("description")
    for one in found:
        ago = "" if one.seen is None else f"{duration(max(now - one.seen, 0.0))} ago"
        aside = f" +{one.set_aside} set aside" if one.set_aside else ""
        progress = f"{one.finished:,} of {one.stages:,}"
        counts = (progress, f"{one.running:,}", f"{one.failed:,}{aside}", size_of(one.size))
        table.add_row(one.name, *counts, ago, _short(one.description))
    out.print(table)
    for one in found:
        if one.trouble:
            _say(f"note: {one.name}: {one.trouble}")


def _say(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3].rstrip()}..."


def _utc(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


COMMANDS = (grids,)
