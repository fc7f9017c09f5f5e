"""Options that several commands take: a part of a grid, JSON, and what a run does besides."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import find_store, out
from orchestrator.plan.only import Only

if TYPE_CHECKING:
    from orchestrator.work.notifying import Notifier


def _only(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> Only | None:
    return Only.parse(texts)


def only_option(command: Any) -> Any:
    """Add ``--only`` to a command, which is given an ``Only`` or None."""
    return click.option(
        "--only",
        multiple=True,
        metavar="AXIS=VALUE,...",
        callback=_only,
        help="Only these cells, as method=ett,network=resnet20,resnet32 or round=6-8; given again, "
        "what is chosen adds up. Of run, plan and status what they need is done or told as well. "
        "The grid stays what CONFIG says.",
    )(command)


def json_option(command: Any) -> Any:
    """Add ``--json`` to a command: standard output is JSON then, and nothing else."""
    return click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")(command)


def print_json(value: Any) -> None:
    """Print a value as JSON, in UTF-8 whatever the locale."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    click.echo(f"{text}\n".encode(), nl=False)


def _until(context: click.Context, parameter: click.Parameter, hours: float | None) -> float | None:
    return None if hours is None else time.monotonic() + 3600 * hours


def hours_option(command: Any) -> Any:
    """Add ``--hours`` to a command, which is given as ``until`` when they are over, or None."""
    return click.option(
        "--hours",
        "until",
        type=click.FloatRange(min=0, min_open=True),
        metavar="HOURS",
        callback=_until,
        help="End after so many hours, as 8 or 0.5, in the way of a signal: trials write a "
        "checkpoint, and the same command goes on. Exit code 124.",
    )(command)


def notify_option(command: Any) -> Any:
    """Add ``--notify`` to a command."""
    return click.option(
        "--notify",
        metavar="COMMAND",
        help="A line for the shell, run at the first failure and at the end: in its environment "
        "are ELTH_EVENT (failed, finished or stopped), ELTH_MESSAGE, ELTH_GRID and more.",
    )(command)


def notifier(
    command: str | None, grid: str, store: str | None
) -> AbstractContextManager[Notifier | None]:
    """What runs the command of ``--notify``, if there is one."""
    if command is None:
        return nullcontext()
    from orchestrator.work.notifying import Notifier

    def warn(text: str) -> None:
        out.print(f"note: {text}", highlight=False, markup=False, soft_wrap=True)

    return Notifier(command, grid=grid, store=str(find_store(store)), warn=warn)
