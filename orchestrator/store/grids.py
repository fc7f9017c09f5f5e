"""Grids in the store: what each consists of, and its last report.

Each grid has a run of its own in ``elth-grids``, with the resolved experiment, the keys of its
plan, and the last report. The runs of its stages are tagged with it, for MLflow's pages.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator.experiment import NAME
from orchestrator.plan import Stage
from orchestrator.store.address import Store
from orchestrator.store.away import is_away
from orchestrator.store.board import GONE
from orchestrator.store.files import Files
from orchestrator.store.listing import Tracked, pages

GRIDS = "elth-grids"
_JOINED = "joined.json"
_JOIN = 1000


class Grids:
    """The grids of a store."""

    def __init__(
        self,
        client: MlflowClient,
        files: Files,
        experiment: str,
        store: Store,
        forget: Callable[[], None],
    ) -> None:
        """Prepare; nothing is asked of the store yet.

        Args:
            client: of the store.
            files: of its runs.
            experiment: the id of ``elth-grids``.
            store: for messages.
            forget: is called where a run turns out to be gone.
        """
        self._client = client
        self._files = files
        self._experiment = experiment
        self._store = store
        self._forget = forget

    def _search(self, text: str) -> Iterator[Run]:
        for page in pages(self._client, self._experiment, text):
            yield from page

    def run(self, grid: str) -> Run | None:
        """The run that holds a grid's experiment, keys and report."""
        if not re.fullmatch(NAME, grid):
            return None
        return next(self._search(f"tags.`elth.grid` = '{grid}'"), None)

    def names(self) -> list[str]:
        """Names of the grids that the store knows."""
        return sorted({run.data.tags["elth.grid"] for run in self._search("")})

    def open(self, grid: str, resolved: str, plan: Mapping[str, Stage], text: str) -> str:
        """Note what a grid consists of now; returns the id of its run."""
        run = self.run(grid)
        if run is None:
            run = self._client.create_run(self._experiment, run_name=grid, tags={"elth.grid": grid})
        run_id = str(run.info.run_id)
        labels = {key: dict(stage.labels) for key, stage in plan.items()}
        self._log_file(run_id, "experiment.yaml", resolved)
        self._log_file(run_id, "keys.json", json.dumps(labels))
        self._client.set_tag(run_id, "mlflow.note.content", text)
        self._client.set_terminated(run_id, "FINISHED")
        return run_id

    def keys(self, grid: str) -> dict[str, dict[str, Any]]:
        """The keys of a grid, as of its last ``elth run``, each with what it is in this grid.

        A run may be shared with a grid in which it is something else: one count of weights, kept by
        magnitude, belongs to round 4 at 36 % a round and to round 8 at 20 %.

        Raises:
            ElthError: the store has no such grid; the message says which it has.
        """
        text = self._file(grid, "keys.json")
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError) as error:  # no JSON, or of another form
            raise self._half_begun(grid) from error

    def experiment(self, grid: str) -> dict[str, Any]:
        """The experiment of a grid as of its last ``elth run``, as plain values.

        Raises:
            ElthError: the store has no such grid; the message says which it has.
        """
        try:
            experiment = yaml.safe_load(self._file(grid, "experiment.yaml"))
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date as 2001-13-45
            raise self._half_begun(grid) from error
        return experiment if isinstance(experiment, dict) else {}

    def _file(self, grid: str, name: str) -> str:
        run = self.run(grid)
        if run is None:
            known = ", ".join(self.names()) or "none"
            raise ElthError(f"the store {self._store} has no grid '{grid}' (it has: {known})")
        try:
            text = self._files.read(run.info.run_id, name).decode()
            sums = [tag for tag in run.data.tags if tag.startswith(_checked(name, ""))]
            if sums and _checked(name, text) not in sums:
                raise ValueError(f"{name} is damaged: its checksum is of no file that was written")
            return text
        except (MlflowException, OSError, ValueError) as error:
            if is_away(error):
                raise
            raise self._half_begun(grid) from error

    def _log_file(self, run_id: str, name: str, text: str) -> None:
        """Write a file of a grid. Of two drivers that do so at once, either may be the last."""
        self._client.set_tag(run_id, _checked(name, text), "true")
        self._files.write(run_id, name, text.encode())

    def _half_begun(self, grid: str) -> ElthError:
        return ElthError(
            f"the grid '{grid}' in the store {self._store} was never begun to the end, or "
            "its files are gone: give elth run with its file again"
        )

    def add_report(self, grid: str, files: Iterable[Path]) -> None:
        """Log the files of a report with the grid's run.

        Not their folder: other drivers may be writing there.
        """
        run = self.run(grid)
        if run is not None:
            for file in files:
                self._files.add(run.info.run_id, file, "report")

    def join(self, run_ids: Iterable[str], grid: str) -> None:
        """Tag runs as belonging to a grid, which MLflow's pages show them by.

        Raises:
            ElthError: a run has been deleted.
        """
        for run_id in run_ids:
            try:
                self._client.set_tag(run_id, f"grid.{grid}", "true")
            except MlflowException as error:
                if error.error_code not in GONE:
                    raise
                self._forget()
                raise ElthError(
                    f"run {run_id} has been deleted from the store {self._store} meanwhile: give "
                    "the same command again, and its stage is done again"
                ) from error

    def join_finished(self, finished: Iterable[Tracked], grid: str) -> None:
        """Tag those of some finished stages as a grid's that are not tagged yet.

        The grid's run holds a list of them, as to read all their tags would take long.

        Raises:
            ElthError: a run has been deleted.
        """
        rest = [one.run_id for one in finished if grid not in one.grids]
        run = self.run(grid) if rest else None
        if run is None:
            return
        joined = set()
        with contextlib.suppress(ElthError, ValueError):
            joined = set(json.loads(self._file(grid, _JOINED)))
        rest = [run_id for run_id in rest if run_id not in joined]
        for i in range(0, len(rest), _JOIN):
            self.join(rest[i : i + _JOIN], grid)
            joined.update(rest[i : i + _JOIN])
            self._log_file(run.info.run_id, _JOINED, json.dumps(sorted(joined)))


def _checked(name: str, text: str) -> str:
    """The tag that tells the checksum of a grid's file."""
    return f"elth.sha256.{name}." + (hashlib.sha256(text.encode()).hexdigest() if text else "")
