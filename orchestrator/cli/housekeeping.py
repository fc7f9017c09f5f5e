"""``elth grids``, ``rm`` and ``gc``: what a store holds, and what of it may go."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from elth.errors import ElthError
from orchestrator.cli.common import Command, open_tracker, out, store_option
from orchestrator.plan.costs import duration, size_of

if TYPE_CHECKING:
    from orchestrator.store.tracker import Tracker
    from orchestrator.store.trash import Removal


_AGE = "7d"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_WIDTH = 48
"""Letters of a description that are shown."""
_DESCRIBED = 100
"""Columns of a terminal from which on there is room for it."""


@click.command(cls=Command, example="elth grids --store runs")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def grids(store: str | None, as_json: bool) -> None:
    """List the grids of a store: how far each is, failures, size, last sign of life.

    Sizes are of the files of results; what grids share is counted in each. Of a store on a server
    a finished stage whose run does not tell its size, as those of before do not, costs a question
    of its own (some 50 ms).
    """
    print_grids(store, as_json=as_json)


def print_grids(store: str | None, *, as_json: bool) -> None:
    """Print the grids of a store."""
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
    table.add_column("grid", overflow="fold")  # whole, as it is what is to be typed next
    for column in ("finished", "running", "failed", "size", "last sign of life"):
        right = column in ("finished", "running", "failed", "size")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    told = out.width >= _DESCRIBED
    if told:
        table.add_column("description")
    for one in found:
        ago = "" if one.seen is None else f"{duration(max(now - one.seen, 0.0))} ago"
        aside = f" +{one.set_aside} set aside" if one.set_aside else ""
        progress = f"{one.finished:,} of {one.stages:,}"
        counts = (progress, f"{one.running:,}", f"{one.failed:,}{aside}", size_of(one.size))
        table.add_row(one.name, *counts, ago, *([_short(one.description)] if told else []))
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


def _age(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """A length of time, as ``7d``, in seconds."""
    found = re.fullmatch(r"(\d+)([smhdw])", value)
    if found is None:
        raise click.BadParameter(f"'{value}' is no length of time: give one as 12h, 7d or 4w")
    return float(int(found[1]) * _UNITS[found[2]])


def _older_than(what: str) -> Callable[[Any], Any]:
    """Add ``--older-than`` to a command."""
    return click.option(
        "--older-than", metavar="AGE", callback=_age, default=_AGE, show_default=True, help=what
    )


@click.command(cls=Command, example="elth rm quickstart --dry-run")
@click.argument("grid", required=False)
@store_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@click.option("--restore", is_flag=True, help="Take back what was removed with GRID last.")
@click.option("--purge", is_flag=True, help="Remove the files of what is in the trash, for good.")
@_older_than("With --purge: only what was removed longer ago, as 12h, 7d or 4w.")
def rm(
    grid: str | None,
    store: str | None,
    yes: bool,
    dry_run: bool,
    restore: bool,
    purge: bool,
    older_than: float,
) -> None:
    """Remove GRID and what no other grid uses, ancestors included; all of it can be taken back.

    A grid uses what is in its list of stages or carries its tag, and what that was made of. What is
    in no grid stays, with what it was made of. The trash is MLflow's: runs that are deleted, whose
    files stay until --purge, which without GRID is about all that elth rm has removed. What a
    driver is at work on is not removed.
    """
    if restore and purge:
        raise click.UsageError("give --restore or --purge, not both")
    if grid is None and not purge:
        raise click.UsageError("Missing argument 'GRID'")
    if restore and dry_run:
        raise click.UsageError("--dry-run does not go with --restore")
    tracker = open_tracker(store, writing=not dry_run)
    if purge:
        _purge(tracker, grid, older_than, dry=dry_run, yes=yes)
    elif grid is not None and restore:
        _restore(tracker, grid)
    elif grid is not None:
        _remove(tracker, grid, dry=dry_run, yes=yes)


def _remove(tracker: Tracker, grid: str, *, dry: bool, yes: bool) -> None:
    from orchestrator.store import trash

    found = trash.look(tracker, grid)
    _tell(tracker, found, "would go" if dry else "to be removed")
    if dry or not _agreed(f"Remove {grid}?", yes=yes):
        return
    done = trash.remove(tracker, found)
    for note in done.notes:
        _say(f"note: {note}")
    if done.restored:
        who = trash.named(done.others)
        _say(f"note: {done.restored} runs were restored at once, as they are used by {who}")
    _say(
        f"removed {grid}: {len(done.runs):,} runs are in the trash; elth rm --restore {grid} takes "
        "them back, elth rm --purge removes their files"
    )


def _tell(tracker: Tracker, found: Removal, verb: str) -> None:
    from orchestrator.store import trash

    _say(
        f"{found.grid} in {tracker.store}: {len(found.runs):,} runs {verb}, with "
        f"{size_of(found.size)} of results; {len(found.shared):,} stay"
        + (f", used by {trash.named(found.others)}" if found.shared else "")
    )


def _restore(tracker: Tracker, grid: str) -> None:
    from orchestrator.store import trash

    back = trash.restore(tracker, grid)
    _say(f"restored {grid}: {back.runs:,} runs are back")
    if back.again:
        _say(f"note: {back.again} stay in the trash, as their stages were done again meanwhile")
    if back.purged:
        _say(f"note: the files of {back.purged} are gone for good: elth run does these again")


def _purge(tracker: Tracker, grid: str | None, seconds: float, *, dry: bool, yes: bool) -> None:
    from orchestrator.store import trash

    would = trash.purge(tracker, grid, seconds, dry=True)
    young = f"; {would.young:,} runs are in the trash for less than that" if would.young else ""
    _say(
        f"{tracker.store}: files of {would.runs:,} runs, {size_of(would.size)}, were removed more "
        f"than {duration(seconds)} ago{young}"
    )
    if dry or not would.runs or not _agreed("Remove these files for good?", yes=yes):
        return
    done = trash.purge(tracker, grid, seconds)
    _say(f"removed for good: files of {done.runs:,} runs, {size_of(done.size)}")


def _agreed(question: str, *, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ElthError(f"{question} Nobody is there to be asked: give --yes, or --dry-run first")
    return click.confirm(question)


@click.command(cls=Command, example="elth gc --dry-run\nelth gc --weights quickstart")
@store_option
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@_older_than("What is younger stays.")
@click.option(
    "--storage",
    metavar="DIR_OR_URL",
    help="Where checkpoints of trainings in progress lie. [default: beside the store]",
)
@click.option(
    "--weights",
    metavar="GRID",
    help="Instead: let the trained weights of this grid's rounds go, all but the last of each "
    "chain and those that something yet to be done needs, in any grid. Whatever needs them later "
    "has them trained again.",
)
@click.option(
    "--tickets", is_flag=True, help="Instead: move imported tickets that no grid uses to the trash."
)
def gc(
    store: str | None,
    dry_run: bool,
    older_than: float,
    storage: str | None,
    weights: str | None,
    tickets: bool,
) -> None:
    """Tell what lies in a store and is of no use any more, by kind, and remove what is old.

    Files of deleted runs; damaged results that were done again; what is not whole in the outbox, or
    waited there and is in the store; checkpoints of stages that are finished or unknown; folders
    whose runs the database does not have. Reports stay, imported tickets, and what a live driver
    uses.
    """
    if weights is not None and tickets:
        raise click.UsageError("give --weights or --tickets, not both")
    tracker = open_tracker(store, writing=not dry_run)
    if tickets:
        _let_tickets_go(tracker, dry=dry_run)
    elif weights is not None:
        _let_go(tracker, weights, dry=dry_run)
    else:
        _clean(tracker, storage, older_than, dry=dry_run)


def _clean(tracker: Tracker, given: str | None, age: float, *, dry: bool) -> None:
    from orchestrator.store import storage
    from orchestrator.store.leftovers import KINDS, clean, leftovers

    found = list(leftovers(tracker, storage.of(storage.place(given, tracker.store))))
    table = Table()
    table.add_column("kind")
    old = f"older than {duration(age)}"
    for column in ("found", "size", old, "size"):
        table.add_column(column, justify="right")
    for kind in KINDS:
        some = [one for one in found if one.kind == kind]
        due = [one for one in some if one.is_due(age)]
        counts = [(len(s), size_of(sum(one.size for one in s))) for s in (some, due)]
        table.add_row(kind, *(text for n, size in counts for text in (f"{n:,}", size)))
    out.print(table)
    for why in dict.fromkeys(one.why for one in found if one.why):
        some = [one for one in found if one.why == why]
        kinds = ", ".join(dict.fromkeys(one.kind for one in some))
        _say(f"stays: {len(some):,} ({kinds}): {why}")
    due = [one for one in found if one.is_due(age)]
    if dry or not due:
        return
    tried = [(one, clean(one)) for one in due]  # two of different kinds may have one name
    gone = [one for one, trouble in tried if not trouble]
    _say(f"removed: {len(gone):,}, {size_of(sum(one.size for one in gone))}")
    for one, trouble in tried:
        if trouble:
            _say(f"not removed: {one.kind} {one.name}: {trouble}")


def _let_go(tracker: Tracker, grid: str, *, dry: bool) -> None:
    from orchestrator.store import weights

    found = weights.look(tracker, grid)
    also = f", also of {', '.join(found.others)}" if found.others else ""
    _say(
        f"{grid} in {tracker.store}: trained weights of {len(found.runs):,} rounds{also}, "
        f"{size_of(found.size)}; those of the last round of each chain stay ({found.kept:,})"
        + f", and {found.needed:,} that are still needed, or that a grid says to keep"
        * bool(found.needed)
    )
    if dry or not found.runs:
        return
    count = sum(1 for _ in weights.let_go(tracker, found))
    _say(f"removed: weights of {count:,} rounds, {size_of(found.size)}")


def _let_tickets_go(tracker: Tracker, *, dry: bool) -> None:
    from orchestrator.store import imported_tickets

    found = imported_tickets.unused(tracker)
    _say(
        f"{tracker.store}: {len(found)} imported tickets that no grid uses, "
        f"{size_of(sum(one.size for one in found))}"
    )
    for one in found:
        _say(f"    {one.stage.title} ({one.stage.key[:12]})")
    if dry or not found:
        return
    gone = imported_tickets.remove(tracker, found)
    if len(gone) < len(found):
        _say(f"note: {len(found) - len(gone)} stay, as a grid has begun to use them")
    _say(f"{len(gone)} are in the trash; elth gc removes their files when they are old")


COMMANDS = (grids, rm, gc)
