"""``elth analyse``: a measure of tracked runs, at once, of which nothing is kept."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import Progress
from rich.table import Table

from elth.errors import ElthError
from elth.files import replacing
from orchestrator.cli.common import (
    PLACE,
    Command,
    open_tracker,
    out,
    plugin_option,
    store_option,
)

if TYPE_CHECKING:
    from orchestrator.work.adhoc import Inquiry


@click.command(
    cls=Command,
    example="elth analyse barrier 3f9c1a2b 77d0e4c1 data=test points=11\n"
    "elth analyse distances 3f9c1a2b 77d0e4c1 90ab12cd --json",
)
@click.argument("measure")
@click.argument("runs", nargs=-1, metavar="RUN [RUN]... [KEY=VALUE]...")
@plugin_option
@store_option
@click.option(
    "--data-root", type=PLACE, default="data", show_default=True, help="Where datasets lie."
)
@click.option(
    "--device", default="cpu", show_default=True, help="Where images are looked at: cpu or cuda."
)
@click.option("--json", "as_json", is_flag=True, help="Print all that it comes to as JSON.")
@click.option("--output", "-o", type=PLACE, help="Write that JSON to a file.")
def analyse(
    measure: str,
    runs: tuple[str, ...],
    store: str | None,
    data_root: Path,
    device: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Do MEASURE of tracked runs, now and in this process; the store stays as it is.

    RUN is the id of a run or the key of its stage, or the beginning of one; of a line, give its
    rounds in their order. KEY=VALUE are settings of the measure: see elth measures. What is to be
    kept, and done for whole grids, is asked for under analyses in a config.
    """
    names, settings = _parted(runs)
    _check_device(device)
    tracker = open_tracker(store)
    from orchestrator.work.adhoc import inquire

    found = inquire(tracker, measure, names, settings)
    result = _done(found, data_root, device)
    plain = found.plain(result)
    text = json.dumps(plain, indent=1) + "\n"
    if output is not None:
        with replacing(output) as file:
            file.write(text.encode())
    if as_json:
        click.echo(text, nl=False)
    else:
        _print(plain)
    if output is not None:
        click.echo(f"wrote {output}", err=True)


def _parted(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Names of runs, and settings."""
    from orchestrator.experiment.basics import as_number
    from orchestrator.experiment.notation import parse

    runs, settings = [], {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            runs.append(word)
        elif key in settings:
            raise ElthError(f"{key} is given twice: keep one of them")
        else:
            settings[key] = as_number(parse(value, f"the value of '{word}'", lined=False).value)
    return runs, settings


def _check_device(device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise click.BadParameter(f"'{device}' is none: cpu or cuda", param_hint="'--device'")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ElthError("PyTorch sees no GPU here: leave --device cuda out")


def _done(found: Inquiry, root: Path, device: str) -> dict[str, Any]:
    """What the measure comes to; its progress is shown in a terminal."""
    steps: Generator[tuple[float, Mapping[str, Any]], None, dict[str, Any]] = found.steps(
        found.dataset(root, device)
    )
    with Progress(console=out, transient=True, disable=not out.is_terminal) as shown:
        task = shown.add_task(str(found.stage.params["measure"]), total=1.0)
        while True:
            try:
                fraction, _ = next(steps)
            except StopIteration as end:
                return dict(end.value)
            shown.update(task, completed=fraction)


def _print(plain: Mapping[str, Any]) -> None:
    settings = ", ".join(
        f"{name} {'all' if value is None else value}" for name, value in plain["settings"].items()
    )
    out.print(
        f"{plain['measure']}{f' ({settings})' if settings else ''} of",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    titles = [one["title"] for one in plain["of"]]
    for one in plain["of"]:
        line = f"  {one['title']} (run {one['run'][:8]})"
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    result, table = plain["result"], Table()
    if plain["measure"] == "distances":  # of which the last is what the first starts from
        places = [str(number) for number, _ in enumerate(titles, start=1)]
        table.add_column("angular distance")
        for place in (*places, "start"):
            table.add_column(place, justify="right")
        for place, row in zip((*places, "start"), result["angular"], strict=True):
            table.add_row(place, *(_spelled(one) for one in row))
    elif "rounds" in result:
        names = [name for name, one in result["rounds"][0].items() if _is_single(one)]
        table.add_column("of")
        for name in names:
            table.add_column(name, justify="right")
        for title, one in zip(titles, result["rounds"], strict=True):
            table.add_row(title, *(_spelled(one[name]) for name in names))
    else:
        table.add_column("number")
        table.add_column("value", justify="right")
        for name, value in plain["numbers"].items():
            table.add_row(name, _spelled(value))
        if not plain["numbers"]:
            table.add_row("none is defined", "-")
    out.print(table)


def _is_single(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _spelled(value: float | None) -> str:
    """A number in as many digits as tell something; a dash for what is not defined."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


COMMANDS = (analyse,)
