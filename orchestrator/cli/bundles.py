"""``elth export`` and ``import``: a grid as one file, from one store to another."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.common import (
    PLACE,
    Command,
    asked,
    find_store,
    open_tracker,
    out,
    replace_option,
    store_option,
)


def _say(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)


@click.command(cls=Command, name="export", example="elth export quickstart -o quickstart.tar")
@click.argument("grid_or_config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--output", "-o", type=PLACE, help="The file. [default: GRID.tar]")
@store_option
def export_grid(
    grid_or_config: str, overrides: tuple[str, ...], output: Path | None, store: str | None
) -> None:
    """Write a grid to one file: experiment, keys, results, metrics, report and checksums.

    Of a config, it writes the stages that the config asks for, without a report. The same grid
    gives the same bytes. What is not finished is not in it, nor what is made of a
    stage that came out different since.
    """
    from orchestrator.plan.costs import size_of
    from orchestrator.store.carrying import export

    tracker = open_tracker(store)
    grid, content = asked(grid_or_config, overrides)
    path = output or Path(f"{grid}.tar")
    done = export(tracker, grid, path, content)
    missing = f", without {done.missing} that are not finished" if done.missing else ""
    if done.stale:
        missing += f", {done.stale} of them as what they are made of came out different since"
    _say(
        f"wrote {path}: {done.stages} stages of {grid} in {tracker.store}{missing}; "
        f"{size_of(path.stat().st_size)}, sha256 of its checksums {done.sha256[:12]}"
    )


@click.command(cls=Command, name="import", example="elth import quickstart.tar --store runs")
@click.argument("file", type=PLACE)
@click.option("--name", help="Another name for the grid. [default: its own]")
@replace_option
@store_option
def import_grid(file: Path, name: str | None, replace: bool, store: str | None) -> None:
    """Bring the grid of a file that elth export wrote into a store; nothing is trained again.

    All of the file is checked before anything is written. A stage that is finished in the store
    stays as it is, and has to be the same, bit for bit, as that of the file; a grid of its name is
    continued by the rules of elth run. Give the same command again after any interruption.
    """
    from orchestrator.store.bundle import opened
    from orchestrator.store.carrying import arrive, bring, check
    from orchestrator.store.tracker import Tracker

    place = find_store(store)
    with opened(file) as bundle:
        cargo = check(bundle, name)
        tracker = Tracker(place)
        arrival = arrive(tracker, cargo, replace=replace)
        change = bring(tracker, arrival)
    held = len(arrival.there)
    _say(
        f"imported {len(cargo.stages) - held} stages of {change.grid} into {tracker.store}"
        + (f"; {held} were there already, the same bit for bit" if held else "")
    )
    if cargo.unread:
        _say(
            f"note: the tensors of {cargo.unread} stages were not looked at, as their code from "
            "outside is not here; their files are those that were exported"
        )
    if arrival.note:
        _say(f"note: {arrival.note}")
    _say(change.told)


COMMANDS = (export_grid, import_grid)
"""The commands."""
