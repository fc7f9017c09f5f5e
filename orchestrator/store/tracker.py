"""Tracking in MLflow: one run for each stage, found again by its key.

The store is a directory (``mlflow.db`` and ``artifacts/`` below it) or the address of an MLflow
server. Every stage is a run of the MLflow experiment ``elth``; the grids that use it are tags, so a
stage that two grids share is there once.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from elth import plugins
from elth.errors import ElthError
from orchestrator.plan.outside import CodeError
from orchestrator.plan.stage import Stage
from orchestrator.store.address import Store
from orchestrator.store.away import AwayError, is_away
from orchestrator.store.board import Board
from orchestrator.store.damage import DamagedError
from orchestrator.store.grids import GRIDS, Grids
from orchestrator.store.listing import Listing, Tracked, pages, stage_of, tracked
from orchestrator.store.opening import STAGES, alone, check_reachable, index_tags

if TYPE_CHECKING:
    from orchestrator.store.result import Result


logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


class Tracker:
    """Everything that is asked of MLflow."""

    def __init__(self, store: Store, *, keep_index: bool = False) -> None:
        """Open the store, and create it if it is a directory that is not there yet.

        Args:
            store: where it is.
            keep_index: whether ``stages`` also brings the index of finished runs up to date.

        Raises:
            ElthError: it cannot be created, written or reached, with the reason.
        """
        self.store = store
        self._artifacts = None
        if store.folder is not None:
            try:
                (store.folder / "artifacts").mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=store.folder):
                    pass
            except OSError as error:
                raise ElthError(
                    f"cannot write the store {store}: {error.strerror}; give another with --store"
                ) from error
            self._artifacts = (store.folder / "artifacts").as_uri()
        check_reachable(store.uri)
        try:
            with alone(store.folder):
                self.client = MlflowClient(store.uri)
                self.experiments = {name: self._experiment(name) for name in (STAGES, GRIDS)}
            if store.folder is not None:
                index_tags(store.folder / "mlflow.db")
        except Exception as error:  # MLflow's, SQLAlchemy's, Alembic's
            first = (str(error) or type(error).__name__).splitlines()[0]
            kind = AwayError if is_away(error) else ElthError
            raise kind(f"cannot use the store {store}: {first}") from error
        self.board = Board(self.client, self._experiment, self._artifacts)
        self._listing = Listing(
            self.client, self.experiments[STAGES], self._experiment, keep=keep_index
        )
        self.grids = Grids(self.client, self.experiments[GRIDS], store, self._listing.forget)

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self.client.create_experiment(name, artifact_location=self._artifacts))
        except MlflowException:
            again = self.client.get_experiment_by_name(name)
            if again is None:
                raise
            return str(again.experiment_id)

    # Finding

    def search(self, text: str = "") -> Iterator[Run]:
        """All runs of stages that match an MLflow filter, oldest first."""
        for page in pages(self.client, self.experiments[STAGES], text):
            yield from page

    def stages(self, grid: str | None = None) -> list[Tracked]:
        """What the store knows of all stages, or of those of one grid, oldest first.

        The keys of a grid are those of its last ``elth run``; of a grid whose own run is gone only
        tags tell.
        """
        if grid is None:
            return self._listing.read()
        if self.grids.run(grid) is None:
            found = self.search(f"tags.`grid.{grid}` = 'true'")
            return [tracked(run) for run in found if "elth.key" in run.data.tags]
        keys = self.grids.keys(grid)
        return [one for one in self.stages() if one.key in keys]

    def run_of(self, key: str) -> Run | None:
        """The finished run of a key; of several the oldest."""
        return finished(self.runs_of(key))

    def runs_of(self, key: str) -> list[Run]:
        """All runs of a key, oldest first."""
        return list(self.search(f"tags.`elth.key` = '{key}'"))

    def load(self, key: str) -> tuple[Stage, Result]:
        """A finished stage and its result.

        Raises:
            DamagedError: no run of this key is finished, or its files are damaged: it is set aside.
            ElthError: its files are not to be had, for another reason.
        """
        run = self.run_of(key)
        if run is None:
            self._listing.forget()
            raise DamagedError(key, f"the store {self.store} has no finished stage {key[:12]}")
        return self.load_run(run)

    def load_run(self, run: Run) -> tuple[Stage, Result]:
        """The stage of a run and its result; as ``load``."""
        stage = stage_of(run)
        with contextlib.suppress(DamagedError):  # it may have been the way and not the file
            return self._load_run(stage, run)
        try:
            return self._load_run(stage, run)
        except DamagedError as error:
            if run.info.status == "FINISHED":
                self.set_aside(run, str(error))
            text = f"{error} (its run {run.info.run_id[:8]} is set aside: elth run does it again)"
            raise DamagedError(stage.key, text) from error

    def _load_run(self, stage: Stage, run: Run) -> tuple[Stage, Result]:
        from orchestrator.store.result import read

        uri = str(run.info.artifact_uri)
        with tempfile.TemporaryDirectory(prefix="elth-") as folder:
            place = None if uri.startswith("file:") else folder  # then nothing is copied
            try:
                # Not the client's own way, which without a place leaves a copy in /tmp.
                files = get_artifact_repository(uri, self.client.tracking_uri)
                path = files.download_artifacts("result", place)
                for file in Path(path).iterdir():
                    file.open("rb").close()
            except (MlflowException, OSError) as error:
                text = (
                    f"the files of run {run.info.run_id} ({stage.title}) are not to be had: {error}"
                )
                if not self.client.list_artifacts(run.info.run_id, "result"):
                    raise DamagedError(stage.key, text) from error
                raise (AwayError if is_away(error) else ElthError)(text) from error
            try:
                result = read(stage, Path(path))
            except CodeError:  # nothing is known to be wrong with it
                raise
            except ElthError as error:
                if "network_version" in stage.params and "does not fit" in str(error):
                    raise CodeError(
                        f"{stage.title} was made by another {stage.params['network']} than the one "
                        f"that is here, whose version is the same: {error}"
                    ) from error
                raise DamagedError(stage.key, str(error)) from error
        if stage.kind == "round" and result.trained is None:
            raise DamagedError(stage.key, f"{path} lacks the trained weights of {stage.title}")
        return stage, result

    def verify(self, grid: str | None = None) -> Iterator[tuple[Stage, str | None]]:
        """Read the result of each finished stage of a grid, or of all, by its checksums.

        Yields:
            The stage, and what is damaged in it: nothing if it is whole, None if that cannot be
            told, as its network or dataset is code from outside that is not here. A damaged one is
            set aside.

        Raises:
            ElthError: there is no such grid, or files are not to be had for another reason.
        """
        if grid is not None:
            self.grids.keys(grid)  # refuses what is no grid
        for one in self.stages(grid):
            if one.status != "finished":
                continue
            run = self.client.get_run(one.run_id)
            try:
                with plugins.closed():  # a store has nothing run
                    self.load_run(run)
            except DamagedError as error:
                yield stage_of(run), str(error)
            except CodeError:
                yield stage_of(run), None
            else:
                yield stage_of(run), ""

    def set_aside(self, run: Run, reason: str) -> None:
        """Let a finished run count as finished no longer, as its files are damaged; it is kept."""
        self.client.set_tag(run.info.run_id, "elth.damaged", reason[:500])
        self.client.update_run(run.info.run_id, "KILLED")
        self._listing.forget()

    def get(self, run_id: str) -> Run:
        """A run by its id, or by the beginning of it or of its stage's key.

        Raises:
            ElthError: there is none.
        """
        with contextlib.suppress(MlflowException):
            return self.client.get_run(run_id)
        if re.fullmatch(r"[0-9a-f]{6,64}", run_id):
            for name in ("tags.`elth.key`", "attributes.run_id"):
                text = f"{name} LIKE '{run_id}%' and attributes.status = 'FINISHED'"
                for run in self.search(text):
                    if "elth.key" in run.data.tags:
                        return run
        raise ElthError(f"the store {self.store} has no run or stage '{run_id}'")


def finished(runs: Iterable[Run]) -> Run | None:
    """The first of some runs that is finished."""
    return next((run for run in runs if run.info.status == "FINISHED"), None)
