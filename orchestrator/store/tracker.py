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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator.plan.outside import CodeError
from orchestrator.plan.stage import Stage
from orchestrator.store import experiments
from orchestrator.store.address import Store
from orchestrator.store.away import AwayError, is_away, plain
from orchestrator.store.board import Board
from orchestrator.store.content import Content
from orchestrator.store.damage import AbsentError, DamagedError
from orchestrator.store.experiments import Astray
from orchestrator.store.files import ARTIFACTS, Files
from orchestrator.store.grids import GRIDS, Grids
from orchestrator.store.listing import DAMAGED, Listing, Tracked, pages, stage_of, tracked
from orchestrator.store.marks import finished
from orchestrator.store.opening import STAGES, alone, check_reachable, index_tags
from orchestrator.store.schema import check_schema

if TYPE_CHECKING:
    from orchestrator.store.result import Result


RESULT = "result"
"""The folder of a run with what its stage leaves."""

_LOOKED_AT = 16
"""Runs by which it is told whether a store's files are there."""


logging.getLogger("mlflow").setLevel(logging.WARNING)
# It dumps the traceback of each error of a database that it raises as well, and we tell.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("alembic").setLevel(logging.WARNING)


class NotBegunError(ElthError):
    """A store is there, as a server is before its first run, and holds nothing of ours."""


class Tracker:
    """Everything that is asked of MLflow."""

    def __init__(
        self,
        store: Store,
        *,
        keep_index: bool = False,
        reading: bool = False,
        restore: bool = False,
    ) -> None:
        """Open the store, and create it if it is a directory that is not there yet.

        Args:
            store: where it is.
            keep_index: whether ``stages`` also brings the index of finished runs up to date.
            reading: whether nothing is written, not even what is found to be damaged: the store
                has to be there, and may be on a disk that cannot be written.
            restore: whether the experiment with the stages is taken back if it was deleted.

        Raises:
            NotBegunError: it would have to be begun, and nothing may be written.
            ElthError: it cannot be created, written or reached, with the reason.
        """
        self.store = store
        self.reading = reading
        self.notes: list[str] = []
        """What a person should know: of experiments and runs that were deleted and taken back."""
        self._restores = restore
        self._back: set[str] = set()
        """Experiments that were deleted and are taken back, with what was deleted before them."""
        self._artifacts = None
        if store.folder is not None:
            self._artifacts = (store.folder / ARTIFACTS).as_uri()
            if not reading:
                _check_writing(store)
        check_reachable(store.uri)
        with _in_words(store):
            with alone(store.folder, reading=reading):
                check_schema(store, reading=reading)
                self.client = MlflowClient(store.uri)
                self.experiments = {name: self._experiment(name) for name in (STAGES, GRIDS)}
            if store.folder is not None and not reading:
                index_tags(store.folder / "mlflow.db")
        self.files = Files(self.client, store.folder)
        self.board = Board(self.client, self._experiment, self._artifacts, self.notes)
        self._listing = Listing(
            self.client,
            self.files,
            self.experiments[STAGES],
            self._experiment,
            keep=keep_index,
            reading=reading,
        )
        experiment = self.experiments[GRIDS]
        self.grids = Grids(self.client, self.files, experiment, store, self.board, self._listing)
        if self._back:
            self._settle()

    def _experiment(self, name: str) -> str:
        """The id of one of our experiments, which is made, or taken back, if need be."""
        found = experiments.find(self.client, self.store, name)
        if isinstance(found, Experiment):
            return str(found.experiment_id)
        if isinstance(found, Astray):
            if self.reading or (name == STAGES and not self._restores):
                raise ElthError(found.told)
            self.notes.append(experiments.take_back(self.client, found))
            if not found.now:
                self._back.add(name)
            return found.experiment
        if self.reading:
            raise NotBegunError(
                f"the store {self.store} has no experiment '{name}': it was not made by elth run, "
                "or never begun to the end; give elth run, or name another by --store"
            )
        try:
            return experiments.make(self.client, name, self._artifacts)
        except MlflowException:
            again = self.client.get_experiment_by_name(name)
            if again is None:
                raise
            return str(again.experiment_id)

    def _settle(self) -> None:
        """Delete again what was deleted before the experiments that are taken back."""
        with _in_words(self.store):
            count = 0
            if STAGES in self._back:
                latest, before = self.board.latest, self._listing.deleted()
                count += experiments.settle(self.client, self.experiments[STAGES], latest, before)
                self._listing.forget()
            if GRIDS in self._back:
                count += self.grids.settle()
            if count:
                self.notes.append(f"{count} runs had been deleted before that, and are again")

    def tend(self) -> None:
        """Restore what elth needs and was deleted in MLflow's pages, and describe what is not yet.

        For the beginning of a command that writes; what was done is added to ``notes``.

        Raises:
            ElthError: the store does not answer, or does not take it.
        """
        with _in_words(self.store):
            self._tend()

    def _tend(self) -> None:
        for name in experiments.NOTES:
            found = experiments.find(self.client, self.store, name)
            if isinstance(found, Astray):
                self._experiment(name)
                found = self.client.get_experiment_by_name(name)
            if isinstance(found, Experiment):
                experiments.describe(self.client, found)
        self.board.restore()
        self.board.prepare()

    def create_run(self, **words: Any) -> Run:
        """Begin a run of a stage; as ``MlflowClient.create_run``.

        Raises:
            ElthError: the experiment with the stages was deleted meanwhile.
        """
        try:
            return self.client.create_run(self.experiments[STAGES], **words)
        except MlflowException as error:
            found = None if is_away(error) else experiments.find(self.client, self.store, STAGES)
            if isinstance(found, Astray):
                raise ElthError(found.told) from error
            raise

    # Finding

    def search(self, text: str = "") -> Iterator[Run]:
        """All runs of stages that match an MLflow filter, oldest first."""
        for page in pages(self.client, self.experiments[STAGES], text):
            yield from page

    def stages(self, grid: str | Content | None = None) -> list[Tracked]:
        """What the store knows of all stages, or of those of one grid or file, oldest first.

        Of a grid whose own run is gone only tags tell.
        """
        if grid is None:
            return self._listing.read()
        if isinstance(grid, Content):
            return [one for one in self.stages() if one.key in grid.keys]
        if self.grids.run(grid) is None:
            found = self.search(f"tags.`grid.{grid}` = 'true'")
            return [tracked(run) for run in found if "elth.key" in run.data.tags]
        keys = self.grids.keys(grid)
        return [one for one in self.stages() if one.key in keys]

    def run_of(self, key: str) -> Run | None:
        """The finished run of a key; of several the oldest that is not to be done again."""
        return finished(self.runs_of(key))

    def runs_of(self, key: str) -> list[Run]:
        """All runs of a key, oldest first."""
        return list(self.search(f"tags.`elth.key` = '{key}'"))

    def load(self, key: str, *, partial: bool = False) -> tuple[Stage, Result]:
        """A finished stage and its result.

        Args:
            key: its key.
            partial: whether parts that are not there may be None, where the others can be read.

        Raises:
            DamagedError: no run of this key is finished, or its files are damaged: it is set aside.
            AbsentError: files of it are not there.
            AwayError: nor are those of most other stages.
            ElthError: they are not to be had, for another reason.
        """
        run = self.run_of(key)
        if run is None:
            self._listing.forget()
            raise DamagedError(key, f"the store {self.store} has no finished stage {key[:12]}")
        return self.load_run(run, partial=partial)

    def load_run(self, run: Run, *, partial: bool = False) -> tuple[Stage, Result]:
        """The stage of a run and its result; as ``load``."""
        stage = stage_of(run)
        try:
            with contextlib.suppress(DamagedError):  # it may have been the way and not the file
                return stage, self.result_of(stage, run, partial=partial)
            return stage, self.result_of(stage, run, partial=partial)
        except AbsentError as error:
            self.check_files()
            raise AbsentError(
                stage.key,
                f"{error}, while those of other stages are: put them back; elth run does it again "
                "where something needs them, or in any case after elth verify --set-aside --absent",
            ) from error
        except DamagedError as error:
            name = run.info.run_id[:8]
            if self.reading or run.info.status != "FINISHED":
                text = f"{error} (elth verify --set-aside lets elth run do it again)"
            else:
                self.set_aside(run, str(error))
                text = f"{error} (its run {name} is set aside: elth run does it again)"
            raise DamagedError(stage.key, text) from error

    def result_of(self, stage: Stage, run: Run, *, partial: bool = False) -> Result:
        """What a run holds of its stage, read by checksums; nothing is set aside.

        Raises:
            DamagedError: a file is not what was written.
            AbsentError: a file is not there.
            CodeError: it cannot be told, as code from outside is not here.
            ElthError: the files are not to be had, for another reason.
        """
        from orchestrator.store.result import OPTIONAL, files_of

        run_id = str(run.info.run_id)
        wanted = files_of(stage, run.data.tags)
        able = OPTIONAL if partial else ()
        try:
            with self.files.fetched(run_id, RESULT) as place:
                return result_in(place, stage, run_id, run.data.tags, able)
        except FileNotFoundError:
            _check_there(stage, run_id, wanted or {RESULT: None}, {})
            raise
        except (MlflowException, OSError) as error:
            text = f"the files of run {run_id} ({stage.title}) are not to be had: {plain(error)}"
            raise (AwayError if is_away(error) else ElthError)(text) from error

    def check_files(self, runs: Sequence[str] | None = None) -> None:
        """Refuse a store of which most files are not there: nothing is wrong with it then.

        Args:
            runs: ids of finished runs that are looked at, a few of them; any when None. If most of
                these have none, it may be these alone: then any others are looked at as well.

        Raises:
            AwayError: of more than half of them, and of the store, the files are not there.
        """
        given = runs
        if runs is None:
            runs = [one.run_id for one in self.stages() if one.status == "finished"]
        some = runs[:: max(1, len(runs) // _LOOKED_AT)]
        gone = sum(not self.files.sizes(run_id, RESULT) for run_id in some)
        if 2 * gone > len(some):
            if given is not None:
                return self.check_files()
            where = f" in {self.store.folder / ARTIFACTS}" if self.store.folder else ""
            raise AwayError(
                f"the store {self.store} is there, and the files of its runs are not: of "
                f"{len(some)} finished stages that were looked at, {gone} have none{where}. Is the "
                "disk mounted, and was the folder moved whole? Nothing was changed. If they are "
                "lost for good, elth verify --set-aside --absent lets elth run do them again"
            )

    def forget(self) -> None:
        """Set the index of finished runs aside, as it tells of what is another now."""
        self._listing.forget()

    def set_aside(self, run: Run, reason: str) -> None:
        """Let a finished run count as finished no longer; it is kept, with the reason."""
        self.client.set_tag(run.info.run_id, DAMAGED, reason[:500])
        self.client.update_run(run.info.run_id, "KILLED")
        self._listing.forget()

    def take_back(self, run: Run) -> None:
        """Let a run that was set aside count as finished again."""
        self.client.update_run(run.info.run_id, "FINISHED")
        self.client.delete_tag(run.info.run_id, DAMAGED)
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


def deleted(store: Store) -> list[Astray]:
    """The experiments of a store, and runs of the board, that were deleted or renamed.

    Nothing is changed, and the store need not have any of them.

    Raises:
        ElthError: the store cannot be reached, or not by this MLflow.
    """
    with _in_words(store), alone(store.folder, reading=True):
        check_schema(store, reading=True)
        client = MlflowClient(store.uri)
        return experiments.look(client, store)


@contextlib.contextmanager
def _in_words(store: Store) -> Iterator[None]:
    """Let an error of MLflow, SQLAlchemy or Alembic be one line that names the store."""
    try:
        yield
    except ElthError:
        raise
    except Exception as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        kind = AwayError if is_away(error) else ElthError
        raise kind(f"cannot use the store {store}: {first}") from error


def result_in(
    place: Path, stage: Stage, run_id: str, tags: Mapping[str, str], able: Collection[str] = ()
) -> Result:
    """What a folder holds as the result of a stage, read by sizes and checksums.

    Args:
        place: the folder.
        stage: the stage.
        run_id: of its run, for messages.
        tags: those of its run.
        able: files that need not be there.

    Raises:
        DamagedError: a file is not what was written.
        AbsentError: a file is not there.
        CodeError: it cannot be told, as code from outside is not here.
        OSError: a file cannot be read.
    """
    from orchestrator.store.result import files_of, read

    have = {path.name: path.stat().st_size for path in place.iterdir()}
    _check_there(stage, run_id, files_of(stage, tags), have, able)
    for name in have:
        (place / name).open("rb").close()
    return _checked(stage, lambda: read(stage, place))


def _check_writing(store: Store) -> None:
    folder = store.folder
    assert folder is not None
    try:
        (folder / ARTIFACTS).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ElthError(
            f"cannot write the store {store}: {error.strerror}; give another with --store"
        ) from error


def _check_there(
    stage: Stage,
    run_id: str,
    wanted: Mapping[str, int | None],
    have: Mapping[str, int],
    able: Collection[str] = (),
) -> None:
    """Refuse a result of which files are not there, or not of the sizes that were written.

    Args:
        stage: whose result it is.
        run_id: of its run.
        wanted: the files that were written, and their sizes where they are known.
        have: those that are there.
        able: files that need not be there.
    """
    missing = [name for name in wanted if name not in have and name not in able]
    if missing:
        raise AbsentError(
            stage.key,
            f"{' and '.join(missing)} of {stage.title} (run {run_id[:8]}) "
            f"{'is' if len(missing) == 1 else 'are'} not there",
        )
    for name, size in wanted.items():
        if size is not None and have.get(name, size) != size:
            raise DamagedError(
                stage.key,
                f"{name} of {stage.title} (run {run_id[:8]}) has {have[name]:,} bytes, and "
                f"{size:,} were written",
            )


def _checked(stage: Stage, read: Callable[[], Result]) -> Result:
    try:
        return read()
    except CodeError:  # nothing is known to be wrong with it
        raise
    except ElthError as error:
        if "network_version" in stage.params and "does not fit" in str(error):
            raise CodeError(
                f"{stage.title} was made by another {stage.params['network']} than the one that "
                f"is here, whose version is the same: {error}"
            ) from error
        raise DamagedError(stage.key, str(error)) from error
