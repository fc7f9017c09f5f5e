"""Tracking in MLflow: one run for each stage, found again by its key.

The store is a directory (``mlflow.db`` and ``artifacts/`` below it) or the address of an MLflow
server. Every stage is a run of the MLflow experiment ``elth``; the grids that use it are tags, so a
stage that two grids share is there once. Each grid has a run of its own in ``elth-grids``, with the
resolved experiment, the keys of its plan, and the last report.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import logging
import re
import sqlite3
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from elth.errors import ElthError
from orchestrator.damage import DamagedError
from orchestrator.experiment import NAME
from orchestrator.leases import GONE, Board, Lease, is_dead
from orchestrator.listing import Listing, pages, tracked
from orchestrator.listing import Tracked as Tracked
from orchestrator.listing import stage_of as stage_of
from orchestrator.outbox import AwayError, is_away
from orchestrator.plan import Stage, recipe_of
from orchestrator.provenance import environment
from orchestrator.runlog import RunLog
from orchestrator.store import Store

if TYPE_CHECKING:
    from elth.tickets import Ticket
    from orchestrator.stages import Result

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

STAGES = "elth"
GRIDS = "elth-grids"
AXES = ("network", "method", "source", "transform", "round", "seed", "dataset")
"""Labels that are parameters of every run, under the same names."""

_ALONE_SECONDS = 120.0
_ANSWER_SECONDS = 10.0
_JOINED = "joined.json"
_JOIN = 1000


def check_reachable(uri: str) -> None:
    """Refuse a server that does not answer at once; MLflow would try again for minutes."""
    if not uri.startswith("http"):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_ANSWER_SECONDS).close()
    except urllib.error.HTTPError as error:  # it answers; it may ask for a password
        error.close()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # MLflow has settings of its own for certificates
            why = getattr(reason, "strerror", None) or reason
            raise AwayError(
                f"cannot reach the MLflow server {uri}: {why}; is it running, and is the address "
                "right?"
            ) from error


@contextlib.contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    """Open a store's database alone: of several that create it at once, all but one fail.

    Whoever holds the lock for long is asleep and not waited for.
    """
    if folder is None:
        yield
        return
    with (folder / ".opening").open("ab") as file:
        end = time.monotonic() + _ALONE_SECONDS
        while time.monotonic() < end:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:  # a file system without locks
                break
        yield


def _index_tags(database: Path) -> None:
    """Let the runs of a key be found without reading the keys of all runs.

    MLflow's own index is of names of tags alone. Without this one everything works, and each stage
    takes longer with the number of runs: 40 ms at 10,000 (docs/performance.md).
    """
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database)) as base:
        base.execute("CREATE INDEX IF NOT EXISTS elth_tags ON tags (key, value)")
        base.commit()


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
            with _alone(store.folder):
                self.client = MlflowClient(store.uri)
                self.experiments = {name: self._experiment(name) for name in (STAGES, GRIDS)}
            if store.folder is not None:
                _index_tags(store.folder / "mlflow.db")
        except Exception as error:  # MLflow's, SQLAlchemy's, Alembic's
            first = (str(error) or type(error).__name__).splitlines()[0]
            kind = AwayError if is_away(error) else ElthError
            raise kind(f"cannot use the store {store}: {first}") from error
        self.board = Board(self.client, self._experiment, self._artifacts)
        self._listing = Listing(
            self.client, self.experiments[STAGES], self._experiment, keep=keep_index
        )

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

    def search(self, text: str = "", experiment: str = STAGES) -> Iterator[Run]:
        """All runs that match an MLflow filter, oldest first."""
        for page in pages(self.client, self.experiments[experiment], text):
            yield from page

    def stages(self, grid: str | None = None) -> list[Tracked]:
        """What the store knows of all stages, or of those of one grid, oldest first.

        The keys of a grid are those of its last ``elth run``; of a grid whose own run is gone only
        tags tell.
        """
        if grid is None:
            return self._listing.read()
        if self.grid_run(grid) is None:
            found = self.search(f"tags.`grid.{grid}` = 'true'")
            return [tracked(run) for run in found if "elth.key" in run.data.tags]
        keys = self.grid_keys(grid)
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
        from orchestrator.stages import read

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
            except ElthError as error:
                raise DamagedError(stage.key, str(error)) from error
        if stage.kind == "round" and result.trained is None:
            raise DamagedError(stage.key, f"{path} lacks the trained weights of {stage.title}")
        return stage, result

    def verify(self, grid: str | None = None) -> Iterator[tuple[Stage, str]]:
        """Read the result of each finished stage of a grid, or of all, by its checksums.

        Yields:
            The stage, and what is damaged in it; nothing if it is whole. A damaged one is set
            aside.

        Raises:
            ElthError: there is no such grid, or files are not to be had for another reason.
        """
        if grid is not None:
            self.grid_keys(grid)  # refuses what is no grid
        for one in self.stages(grid):
            if one.status != "finished":
                continue
            run = self.client.get_run(one.run_id)
            try:
                self.load_run(run)
            except DamagedError as error:
                yield stage_of(run), str(error)
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

    # Grids

    def grid_run(self, grid: str) -> Run | None:
        """The run that holds a grid's experiment, keys and report."""
        if not re.fullmatch(NAME, grid):
            return None
        return next(self.search(f"tags.`elth.grid` = '{grid}'", GRIDS), None)

    def grids(self) -> list[str]:
        """Names of the grids that the store knows."""
        return sorted({run.data.tags["elth.grid"] for run in self.search("", GRIDS)})

    def open_grid(self, grid: str, resolved: str, plan: Mapping[str, Stage], text: str) -> str:
        """Note what a grid consists of now; returns the id of its run."""
        run = self.grid_run(grid)
        if run is None:
            run = self.client.create_run(
                self.experiments[GRIDS], run_name=grid, tags={"elth.grid": grid}
            )
        run_id = str(run.info.run_id)
        labels = {key: dict(stage.labels) for key, stage in plan.items()}
        self._log_grid_file(run_id, "experiment.yaml", resolved)
        self._log_grid_file(run_id, "keys.json", json.dumps(labels))
        self.client.set_tag(run_id, "mlflow.note.content", text)
        self.client.set_terminated(run_id, "FINISHED")
        return run_id

    def grid_keys(self, grid: str) -> dict[str, dict[str, Any]]:
        """The keys of a grid, as of its last ``elth run``, each with what it is in this grid.

        A run may be shared with a grid in which it is something else: one count of weights, kept by
        magnitude, belongs to round 4 at 36 % a round and to round 8 at 20 %.

        Raises:
            ElthError: the store has no such grid; the message says which it has.
        """
        text = self._grid_file(grid, "keys.json")
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError) as error:  # no JSON, or of another form
            raise self._half_begun(grid) from error

    def grid_experiment(self, grid: str) -> dict[str, Any]:
        """The experiment of a grid as of its last ``elth run``, as plain values.

        Raises:
            ElthError: the store has no such grid; the message says which it has.
        """
        try:
            experiment = yaml.safe_load(self._grid_file(grid, "experiment.yaml"))
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date as 2001-13-45
            raise self._half_begun(grid) from error
        return experiment if isinstance(experiment, dict) else {}

    def _grid_file(self, grid: str, name: str) -> str:
        run = self.grid_run(grid)
        if run is None:
            known = ", ".join(self.grids()) or "none"
            raise ElthError(f"the store {self.store} has no grid '{grid}' (it has: {known})")
        with tempfile.TemporaryDirectory(prefix="elth-") as folder:
            try:
                path = self.client.download_artifacts(run.info.run_id, name, folder)
                text = Path(path).read_text(encoding="utf-8")
                sums = [tag for tag in run.data.tags if tag.startswith(_checked(name, ""))]
                if sums and _checked(name, text) not in sums:
                    raise ValueError(
                        f"{name} is damaged: its checksum is of no file that was written"
                    )
                return text
            except (MlflowException, OSError, ValueError) as error:
                if is_away(error):
                    raise
                raise self._half_begun(grid) from error

    def _log_grid_file(self, run_id: str, name: str, text: str) -> None:
        """Write a file of a grid. Of two drivers that do so at once, either may be the last."""
        self.client.set_tag(run_id, _checked(name, text), "true")
        self.client.log_text(run_id, text, name)

    def _half_begun(self, grid: str) -> ElthError:
        return ElthError(
            f"the grid '{grid}' in the store {self.store} was never begun to the end, or "
            "its files are gone: give elth run with its file again"
        )

    def add_report(self, grid: str, files: Iterable[Path]) -> None:
        """Log the files of a report with the grid's run.

        Not their folder: other drivers may be writing there.
        """
        run = self.grid_run(grid)
        if run is not None:
            for file in files:
                self.client.log_artifact(run.info.run_id, str(file), "report")

    def join_grid(self, run_ids: Iterable[str], grid: str) -> None:
        """Tag runs as belonging to a grid, which MLflow's pages show them by.

        Raises:
            ElthError: a run has been deleted.
        """
        for run_id in run_ids:
            try:
                self.client.set_tag(run_id, f"grid.{grid}", "true")
            except MlflowException as error:
                if error.error_code not in GONE:
                    raise
                self._listing.forget()
                raise ElthError(
                    f"run {run_id} has been deleted from the store {self.store} meanwhile: give "
                    "the same command again, and its stage is done again"
                ) from error

    def join_finished(self, finished: Iterable[Tracked], grid: str) -> None:
        """Tag those of some finished stages as a grid's that are not tagged yet.

        The grid's run holds a list of them, as to read all their tags would take long.

        Raises:
            ElthError: a run has been deleted.
        """
        rest = [one.run_id for one in finished if grid not in one.grids]
        run = self.grid_run(grid) if rest else None
        if run is None:
            return
        joined = set()
        with contextlib.suppress(ElthError, ValueError):
            joined = set(json.loads(self._grid_file(grid, _JOINED)))
        rest = [run_id for run_id in rest if run_id not in joined]
        for i in range(0, len(rest), _JOIN):
            self.join_grid(rest[i : i + _JOIN], grid)
            joined.update(rest[i : i + _JOIN])
            self._log_grid_file(run.info.run_id, _JOINED, json.dumps(sorted(joined)))

    # Writing a stage

    def open_run(
        self, stage: Stage, *, grid: str, driver: str, tags: Mapping[str, str] | None = None
    ) -> str:
        """Create the run of an attempt at a stage; returns its id."""
        run = self.client.create_run(
            self.experiments[STAGES],
            run_name=stage.title,
            tags={
                "elth.key": stage.key,
                "elth.stage": json.dumps(stage.describe()),
                "elth.owner": driver,
                f"grid.{grid}": "true",
                **environment(),
                **(tags or {}),
            },
        )
        return str(run.info.run_id)

    def begin(
        self,
        stage: Stage,
        ticket: Ticket | None,
        *,
        grid: str,
        experiment: str,
        driver: str,
        numerics: str,
        lease: Lease | None = None,
    ) -> RunLog:
        """Start the run of a stage: that of a lease (``leases.claim``), or a new one.

        Without a lease, runs of the same stage that died before are removed.
        """
        if lease is None:
            for run in self.runs_of(stage.key):
                if run.info.status == "FAILED" or is_dead(run, driver):
                    self.client.delete_run(run.info.run_id)
            run_id = self.open_run(stage, grid=grid, driver=driver)
        else:
            run_id = lease.run_id
        log = RunLog(self.client, run_id, lease)
        log.tags({"elth.numerics": numerics})
        axes = {name: stage.labels[name] for name in AXES}
        log.params({"kind": stage.kind, **{n: "-" if v == "" else v for n, v in axes.items()}})
        if ticket is not None:
            from elth import masks

            log.params(
                {
                    "sparsity": f"{100 * ticket.sparsity:.2f}",
                    "nonzeros": ticket.nonzeros,
                    "prunable": masks.total(ticket.mask),
                }
            )
            log.tags({"elth.mask_sha256": masks.digest(ticket.mask)})
            log.texts["layers.json"] = json.dumps(masks.layer_sparsity(ticket.mask), indent=1)
            empty = masks.collapsed(ticket.mask)
            if empty:
                log.tags({"elth.collapsed": ", ".join(empty)})
        log.params({f"recipe.{k}": v for k, v in recipe_of(stage).full().items()})
        log.texts["experiment.yaml"] = experiment
        log.start()
        return log


def _checked(name: str, text: str) -> str:
    """The tag that tells the checksum of a grid's file."""
    return f"elth.sha256.{name}." + (hashlib.sha256(text.encode()).hexdigest() if text else "")


def finished(runs: Iterable[Run]) -> Run | None:
    """The first of some runs that is finished."""
    return next((run for run in runs if run.info.status == "FINISHED"), None)
