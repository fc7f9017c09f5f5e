"""``elth run`` and ``resume``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import (
    EXIT_FAILED,
    PLACE,
    Command,
    find_store,
    open_tracker,
    out,
    replace_option,
    store_option,
)
from orchestrator.cli.options import hours_option, notifier, notify_option, only_option

if TYPE_CHECKING:
    from orchestrator.plan.only import Only


@click.command(cls=Command, example="elth run quickstart seeds=[0] --store runs")
@click.argument("config", type=PLACE)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
@click.option("--retry-failed", is_flag=True, help="Do stages again whose loss was not finite.")
@replace_option
@click.option(
    "--redo",
    multiple=True,
    metavar="STAGE",
    help="Do this stage again though it is finished: its title, or the beginning of its key or of "
    "its run's id; may be given again. What was made of it follows if it comes out different.",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Run on this Ray cluster; auto: that of this machine. [default: $RAY_ADDRESS, else "
    "a Ray of its own on this machine]",
)
@click.option(
    "--storage",
    metavar="DIR_OR_URL",
    help="Where checkpoints of trainings in progress lie. [default: resources.storage, else "
    "beside the store]",
)
@only_option
@hours_option
@notify_option
def run(
    config: Path,
    overrides: tuple[str, ...],
    store: str | None,
    retry_failed: bool,
    replace: bool,
    redo: tuple[str, ...],
    address: str | None,
    storage: str | None,
    only: Only | None,
    until: float | None,
    notify: str | None,
) -> None:
    """Run CONFIG: every stage that is not finished in the store, then report.

    Give the same command again after any interruption, and it goes on. A plan that holds all that
    the grid of its name holds continues it, and seeds add up; one that would drop or change a cell
    is refused.
    """
    from orchestrator import plan as plans
    from orchestrator.cluster import machines
    from orchestrator.experiment.reading import spelled
    from orchestrator.work import stopping

    stopping.like_ctrl_c()
    if storage is not None:
        overrides = (*overrides, spelled("resources.storage", storage))
    experiment, built = plans.of_file(config, overrides)
    address = machines.address_of(address)
    from orchestrator.work.driver import execute

    there = machines.cluster(address, experiment.resources.cpus) if address else None
    with notifier(notify, experiment.name, store) as watcher:
        failed = execute(
            experiment,
            built,
            find_store(store),
            out,
            retry_failed=retry_failed,
            replace=replace,
            redo=redo,
            machines=there,
            only=only,
            watcher=watcher,
            until=until,
        )
    _exit(failed)


@click.command(cls=Command, example="elth resume 3f9c1a2b pruning.rounds=10")
@click.argument("run_id")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
@replace_option
@hours_option
@notify_option
def resume(
    run_id: str,
    overrides: tuple[str, ...],
    store: str | None,
    replace: bool,
    until: float | None,
    notify: str | None,
) -> None:
    """Go on from a tracked stage: run the experiment that its run holds, on any machine.

    RUN_ID is the id of a run or the key of its stage, or the beginning of one. What is finished in
    the store is not done again, so with pruning.rounds=N the chain goes on to round N. Where the
    grid has grown since, by rounds or seeds, the experiment is that of the grid.
    """
    from orchestrator.work import stopping

    stopping.like_ctrl_c()
    from orchestrator.work.resume import begin

    tracker = open_tracker(store)
    experiment, built, told = begin(tracker, run_id, overrides)
    out.print(told, highlight=False, markup=False, soft_wrap=True)
    from orchestrator.work.driver import execute

    with notifier(notify, experiment.name, store) as watcher:
        failed = execute(
            experiment,
            built,
            tracker.store,
            out,
            retry_failed=False,
            replace=replace,
            watcher=watcher,
            until=until,
        )
    _exit(failed)


def _exit(failed: Mapping[str, str]) -> None:
    """Tell what failed, if anything did."""
    for reason in failed.values():
        click.echo(f"elth: failed: {reason}", err=True)
    if failed:
        sys.exit(EXIT_FAILED)


COMMANDS = (run, resume)
