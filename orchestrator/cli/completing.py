"""What a shell offers for an argument: configs of the package, files, and grids of the store."""

from __future__ import annotations

import contextlib
import glob
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from orchestrator.experiment.shipped import shipped

_GRIDS = """\
select t.value from tags t join runs r using (run_uuid) join experiments e using (experiment_id)
where t.key = 'elth.grid' and e.name = 'elth-grids' and r.lifecycle_stage = 'active'"""
"""Read from the database itself: who presses a key will not wait for MLflow to be imported."""
_ARGUMENTS = {
    "config": "configs",
    "grid": "grids",
    "grid_or_config": "both",
    "grid_or_ticket": "both",
    "stage_or_config": "configs",
    "a": "both",
    "b": "both",
}
"""Arguments by their names, and what they may be; files of all of them but of a grid alone."""


def grids(store: str | None) -> list[str]:
    """Names of the grids of a store in a folder; none of a server, or of what cannot be read."""
    place = store or os.environ.get("MLFLOW_TRACKING_URI") or "runs"
    database = Path(os.path.expanduser(place), "mlflow.db").absolute()
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=0.5)
        try:
            return sorted({name for (name,) in connection.execute(_GRIDS)})
        finally:
            connection.close()
    return []


def offered(
    kind: str, context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """What may be meant by the beginning of an argument."""
    meant = grids(context.params.get("store")) if kind in ("grids", "both") else []
    meant += [name for name in shipped() if kind in ("configs", "both") and name not in meant]
    found = [name for name in meant if name.startswith(incomplete)]
    if kind != "grids" and not found:
        return [CompletionItem(incomplete, type="file")]
    return [
        CompletionItem(name) for name in (*found, *(_here(incomplete) if kind != "grids" else ()))
    ]


def _here(incomplete: str) -> list[str]:
    """Configs and folders of the current one: beside names, bash offers no files by itself."""
    return sorted(
        path.name + "/" * path.is_dir()
        for path in Path().glob(f"{glob.escape(incomplete)}*")
        if path.is_dir() or path.suffix.lower() in (".yaml", ".yml")
        if not path.name.startswith(".")
    )


def names(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Configs that come with elth, where nothing else can be meant."""
    return [CompletionItem(name) for name in shipped() if name.startswith(incomplete)]


class _Offering(click.ParamType):  # type: ignore[type-arg]  # no generic before click 8.5
    """A kind of argument, with what a shell offers for it."""

    def __init__(self, kind: click.ParamType[Any], offers: str) -> None:
        self._kind = kind
        self._offers = offers
        self.name = kind.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As the kind itself."""
        return self._kind.convert(value, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin so."""
        return offered(self._offers, ctx, param, incomplete)


def complete(parameters: Iterable[click.Parameter]) -> None:
    """Let the shell complete those arguments that name configs and grids."""
    for one in parameters:
        if isinstance(one, click.Argument) and one.name in _ARGUMENTS:
            one.type = _Offering(one.type, _ARGUMENTS[one.name])
