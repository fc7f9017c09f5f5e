"""What the commands have in common: where they print, the store they mean, and how they end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from elth.errors import ElthError
from elth.files import expanded
from orchestrator.cli.completing import complete
from orchestrator.experiment.shipped import is_shipped

if TYPE_CHECKING:
    from orchestrator.store.address import Store
    from orchestrator.store.content import Content
    from orchestrator.store.tracker import Tracker


EXIT_REFUSED = 2
EXIT_FAILED = 3
EXIT_TIME = 124
"""As of ``timeout``: the hours of ``elth run --hours`` were over."""
EXIT_STOPPED = 130
out = Console()


if not out.is_terminal and os.environ.get("COLUMNS", "0") in ("", "0"):
    out = Console(width=120)  # a file or a pipe has no width, and 80 columns break tables


class _Place(click.Path):
    """A path, in which ``~`` is a home folder wherever the shell leaves it as it is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path that is meant."""
        return expanded(str(super().convert(value, param, ctx)))


PLACE = _Place()
"""The kind of every argument and option that is a path."""


class Command(click.Command):
    """A command whose help ends with an example."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        complete(self.params)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example below the options."""
        if self.example:
            with formatter.section("Example"):
                for line in self.example.splitlines():
                    formatter.write(f"  {line}\n")


def store_option(command: Any) -> Any:
    """Add ``--store`` to a command."""
    return click.option(
        "--store",
        metavar="DIR_OR_URI",
        help="Where runs are kept: a directory or an MLflow address. "
        "[default: $MLFLOW_TRACKING_URI, else runs]",
    )(command)


def replace_option(command: Any) -> Any:
    """Add ``--replace`` to a command that runs a plan."""
    return click.option(
        "--replace",
        is_flag=True,
        help="Let the grid be what the file says, also where it held other cells. No run is "
        "deleted: their stages stay in the store.",
    )(command)


def _use(context: click.Context, parameter: click.Parameter, paths: tuple[str, ...]) -> None:
    from elth import plugins

    plugins.use(paths)


def plugin_option(command: Any) -> Any:
    """Add ``--plugin`` to a command: what a module from outside gives may then be named."""
    return click.option(
        "--plugin",
        multiple=True,
        metavar="FILE",
        callback=_use,
        expose_value=False,
        help="A module from outside, as under plugins in a config; may be given again.",
    )(command)


def find_store(place: str | None) -> Store:
    """The store that is meant, by ``--store`` or the environment."""
    from orchestrator.store.address import Store
    from orchestrator.work.passing import take_credentials

    if place:
        return Store.of(take_credentials(place))
    given = os.environ.get("MLFLOW_TRACKING_URI")
    return Store.of(take_credentials(given) if given else None, said_by="MLFLOW_TRACKING_URI")


def open_tracker(place: str | None, *, writing: bool = False) -> Tracker:
    """The tracker of a store that must be there already; nothing is written unless ``writing``."""
    store = find_store(place)
    if not store.is_there:
        near = "" if place else _above(store)
        raise ElthError(
            f"there is no store in {store}{near}; run an experiment, or name one by --store"
        )
    from orchestrator.store.tracker import Tracker

    tracker = Tracker(store, reading=not writing)
    if writing:
        tracker.tend()
        for note in tracker.notes:
            click.echo(f"note: {note}", err=True)
    return tracker


def _above(store: Store) -> str:
    """Where a store of the usual place is for who stands in a folder above, to be told."""
    if store.folder != Path("runs").absolute():
        return ""
    for folder in Path.cwd().parents:
        if find_store(str(folder / "runs")).is_there:
            return f", and one in {folder / 'runs'}"
    return ""


def is_config(text: str, overrides: Sequence[str] = ()) -> bool:
    """Whether a text names a config, where it may name a grid as well.

    A file is told by its suffix. Any other word is a grid, but for the name of a config that comes
    with the package and is to be changed: a grid cannot be.
    """
    named = bool(overrides) and is_shipped(text)
    return named or Path(text).suffix.lower() in (".yaml", ".yml")


def asked(grid_or_config: str, overrides: Sequence[str] = ()) -> tuple[str, Content | None]:
    """The name of the grid that is meant and, of a config, what that asks for.

    Raises:
        ElthError: the config cannot be read, or there are overrides and no config.
    """
    if is_config(grid_or_config, overrides):
        from orchestrator import plan as plans
        from orchestrator.store.content import Content

        if is_shipped(grid_or_config):
            click.echo(
                f"note: {grid_or_config} with {overrides[0]} is the config of that name that comes "
                "with elth",
                err=True,
            )
        experiment, built = plans.of_file(grid_or_config, overrides)
        return experiment.name, Content.of(experiment, built)
    path = expanded(grid_or_config)
    if overrides:
        raise ElthError(f"'{overrides[0]}' can change a config only, and {path} names a grid")
    return grid_or_config, None
