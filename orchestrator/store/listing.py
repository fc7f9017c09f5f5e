"""The list of all stages of a store, and the index that spares reading every run each time.

MLflow reads a run with all its parameters and tags, which for ten thousand runs takes many seconds;
but a run that is finished stays as it is. The *index* is a file, kept with a run of the experiment
``elth-index``, of what is known of finished runs; a tag of that experiment names it, with its
checksum, and is set last.

Finished runs are listed by the time they ended, deleted ones among them, so that new ones come
last. The index holds whole pages of this listing and, for each, a *mark*: MLflow's token for the
next page and the run that comes first there. Reading goes on at the last mark, and only if that run
is still the next one: it is not when a run before it has been removed for good (``mlflow gc``), was
started again, or was added late by a machine whose clock is behind. Then an earlier mark is taken,
and in the end the beginning. What is deleted and what is not finished is asked for anew each time,
so the list is that of the store as it is, whatever the index holds.

An index that is missing, damaged or of another version is not used. Each writer gives its file a
name of its own, so two at once do no harm: one of two true indices is named in the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import itertools
import json
import logging
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run, RunStatus, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList

from elth.errors import ElthError
from orchestrator.plan.costs import work
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import Stage
from orchestrator.store.files import TRAINED, Files, told_by
from orchestrator.store.opening import NOTE
from orchestrator.store.processes import is_gone

INDEX = "elth-index"

INDEX_NOTE = (
    "The index of finished runs, by which elth lists a large store at once. Please do not delete: "
    "it would be made anew."
)
"""The description of that experiment and its run."""

DAMAGED = "elth.damaged"
"""The tag of a run that is set aside, with the reason."""

POINTER = "elth.index"
"""The tag of the experiment ``elth-index`` that names the index."""

PAGE = 500
"""Runs that are asked for at once; the index holds whole pages."""

MARGIN = 300_000
"""Milliseconds by which the clocks of two machines may differ before the index is of less use."""

_FINISHED = "attributes.status = 'FINISHED'"
_UNFINISHED = "attributes.status != 'FINISHED'"
_BY_START = "attributes.start_time ASC"
_BY_END = "attributes.end_time ASC"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """A stage as the store knows it."""

    run_id: str
    key: str
    stage: Stage
    grids: frozenset[str] = field(compare=False)
    """Grids that it is tagged with, for MLflow's pages; an index may not know the latest.

    What belongs to a grid is said by ``Grids.keys``.
    """
    status: str
    """``finished``, ``running``, ``failed``, ``killed`` or ``set aside``."""
    reason: str
    """Why it failed, or is set aside."""
    is_final: bool
    """Whether doing it again would fail again."""
    nonzeros: int
    prunable: int
    accuracy: float | None
    """Test accuracy in percent after the last epoch."""
    seconds: float | None
    """Wall time of the training."""
    numerics: str
    """Class within which results are equal bit for bit."""
    started: int
    """Time of start in milliseconds since 1970."""
    collapsed: tuple[str, ...] = ()
    """Weights of which no element is left."""
    ended: int = 0
    """Time of its end in milliseconds since 1970; 0 while it is not finished."""
    size: int | None = None
    """Bytes of the files of its result; None if its run does not tell, as those of before."""
    has_weights: bool = False
    """Whether its trained weights were kept; ``elth gc --weights`` may have let them go since."""


_FORMAT = ["2", *(one.name for one in dataclasses.fields(Tracked))]
"""Version of the file, and what it holds of each stage."""

_STATUS = {
    RunStatus.FINISHED: "finished",
    RunStatus.RUNNING: "running",
    RunStatus.FAILED: "failed",
}


def stage_of(run: Run) -> Stage:
    """The stage that a run holds.

    Raises:
        ElthError: the run is no stage.
    """
    text = run.data.tags.get("elth.stage")
    if text is None:
        raise ElthError(f"run {run.info.run_id} is no stage of elth")
    return Stage.of(json.loads(text))


def tracked(run: Run) -> Tracked:
    """What a run tells of its stage."""
    tags, params = run.data.tags, run.data.params
    status = RunStatus.from_string(run.info.status)
    if status == RunStatus.RUNNING and is_gone(tags.get("elth.owner", "")):
        status = RunStatus.KILLED
    is_aside = status == RunStatus.KILLED and DAMAGED in tags
    sizes, stage = told_by(tags), stage_of(run)
    return Tracked(
        run_id=run.info.run_id,
        key=tags["elth.key"],
        stage=stage,
        grids=frozenset(t.removeprefix("grid.") for t in tags if t.startswith("grid.")),
        status="set aside" if is_aside else _STATUS.get(status, "killed"),
        reason=tags.get(DAMAGED if is_aside else "elth.reason", ""),
        is_final=tags.get("elth.final") == "true",
        nonzeros=int(params.get("nonzeros", 0)),
        prunable=int(params.get("prunable", 0)),
        accuracy=run.data.metrics.get("test_accuracy"),
        seconds=float(tags["elth.seconds"]) if "elth.seconds" in tags else None,
        collapsed=tuple(filter(None, tags.get("elth.collapsed", "").split(", "))),
        numerics=tags.get("elth.numerics", ""),
        started=int(run.info.start_time),
        ended=int(run.info.end_time or 0),
        size=None if sizes is None else sum(sizes.values()),
        has_weights=TRAINED in sizes if sizes is not None else stage.kind == "round",
    )


def pages(
    client: MlflowClient,
    experiment: str,
    text: str = "",
    *,
    view: int = ViewType.ACTIVE_ONLY,
    order: str = _BY_START,
    token: str | None = None,
) -> Iterator[PagedList[Run]]:
    """The runs of an experiment that match an MLflow filter, page by page; at least one page."""
    while True:
        page = client.search_runs(
            [experiment],
            filter_string=text,
            run_view_type=view,
            max_results=PAGE,
            order_by=[order],
            page_token=token,
        )
        yield page
        token = _text(page.token)
        if not token:
            return


def _text(token: str | bytes | None) -> str | None:
    """A token of MLflow: bytes from a database, text from a server, and both take either."""
    return token.decode() if isinstance(token, bytes) else token


@dataclass(frozen=True)
class Mark:
    """A place in the listing of finished runs."""

    token: str
    """MLflow's token for the runs that follow."""
    next_run: str
    """The run that follows."""
    count: int
    """Stages before it."""


@dataclass(frozen=True)
class Index:
    """Finished stages in the order they ended, deleted ones too, up to the last mark."""

    stages: tuple[Tracked, ...] = ()
    marks: tuple[Mark, ...] = ()
    deleted: tuple[str, ...] = ()
    """Finished runs that were deleted at the time: see ``experiments``."""

    def pack(self, experiment: str) -> bytes:
        """The index as a file."""
        content = {
            "format": _FORMAT,
            "experiment": experiment,
            "marks": [dataclasses.astuple(mark) for mark in self.marks],
            "deleted": self.deleted,
            "stages": [
                {**vars(one), "stage": one.stage.describe(), "grids": sorted(one.grids)}
                for one in self.stages
            ],
        }
        text = json.dumps(content, separators=(",", ":"))
        return gzip.compress(text.encode(), compresslevel=5, mtime=0)

    @staticmethod
    def unpack(data: bytes, experiment: str) -> Index:
        """Read what ``pack`` made.

        Raises:
            ValueError: it is of another version or store.
        """
        content = json.loads(gzip.decompress(data))
        if content["format"] != _FORMAT or content["experiment"] != experiment:
            raise ValueError("an index of another version, or of another store")
        shared: dict[str, Any] = {}
        return Index(
            tuple(_unpacked(one, shared) for one in content["stages"]),
            tuple(Mark(*mark) for mark in content["marks"]),
            tuple(content["deleted"]),
        )


def _unpacked(entry: dict[str, Any], shared: dict[str, Any]) -> Tracked:
    """One stage of a file; equal recipes and datasets become one object in memory."""
    params = entry["stage"]["params"]
    for name in ("recipe", "dataset"):
        if name in params:
            params[name] = shared.setdefault(json.dumps(params[name]), params[name])
    entry["stage"] = Stage.of(entry["stage"])
    entry["grids"] = frozenset(entry["grids"])
    entry["collapsed"] = tuple(entry["collapsed"])
    return Tracked(**entry)


class Listing:
    """Lists the stages of a store, by its index as far as that goes."""

    def __init__(
        self,
        client: MlflowClient,
        files: Files,
        experiment: str,
        make_experiment: Callable[[str], str],
        *,
        keep: bool,
        reading: bool = False,
    ) -> None:
        """Prepare; nothing is asked of the store yet.

        Args:
            client: of the store.
            files: of its runs.
            experiment: the id of the experiment with the stages.
            make_experiment: gives the id of an experiment by name, and makes it if need be.
            keep: whether a new index is written once a whole page of runs is not in it.
            reading: whether nothing at all is written.
        """
        self._client = client
        self._files = files
        self._reading = reading
        self._experiment = experiment
        self._make_experiment = make_experiment
        self._keep = keep

    def read(self) -> list[Tracked]:
        """All stages of the store that are not deleted, oldest first."""
        # First what runs: if it ends meanwhile it is found again among the finished.
        found = {one.run_id: one for page in self._pages(_UNFINISHED) for one in _stages_of(page)}
        before = self._load()
        stages, marks = self._finished(before)
        found |= {one.run_id: one for one in stages}
        deleted = [
            str(run.info.run_id)
            for page in self._pages(_FINISHED, view=ViewType.DELETED_ONLY)
            for run in page
        ]
        for run_id in deleted:
            found.pop(run_id, None)
        index = Index(stages[: marks[-1].count] if marks else (), marks, tuple(sorted(deleted)))
        if self._keep and (index.marks, index.deleted) != (before.marks, before.deleted):
            self._save(index)
        return sorted(found.values(), key=lambda one: (one.started, one.run_id))

    def deleted(self) -> frozenset[str]:
        """The finished runs that were deleted when a command that keeps the index last read it."""
        return frozenset(self._load().deleted)

    def forget(self) -> None:
        """Set the index aside, as something it lists is not there: the next reading is a full one.

        This is for what no mark can tell: one run removed and another one added, both before it.
        """
        with contextlib.suppress(MlflowException):
            if not self._reading and self._pointer():
                self._client.set_experiment_tag(self._make_experiment(INDEX), POINTER, "")

    def _finished(self, before: Index) -> tuple[tuple[Tracked, ...], tuple[Mark, ...]]:
        """All finished stages, deleted ones too, and the marks of the pages that are settled."""
        marks = list(before.marks)
        while True:
            rest = self._after(marks[-1]) if marks else self._pages(_FINISHED, **_ALL)
            if rest is not None:
                break
            del marks[len(marks) // 2 :]
        stages = list(before.stages[: marks[-1].count]) if marks else []
        settled = int(time.time() * 1000) - MARGIN
        token = None
        for page in rest:
            if token is not None and len(page):
                marks.append(Mark(token, page[0].info.run_id, len(stages)))
            stages += _stages_of(page)
            token = _text(page.token)
            if not len(page) or (page[-1].info.end_time or settled) >= settled:
                token = None
        return tuple(stages), tuple(marks)

    def _pages(self, text: str, **options: Any) -> Iterator[PagedList[Run]]:
        return pages(self._client, self._experiment, text, **options)

    def _after(self, mark: Mark) -> Iterator[PagedList[Run]] | None:
        """The pages that follow a mark; None if something before it is not what it was."""
        rest = self._pages(_FINISHED, token=mark.token, **_ALL)
        try:
            first = next(rest)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            return None  # a token that this version of MLflow does not know
        if not len(first) or first[0].info.run_id != mark.next_run:
            return None
        return itertools.chain([first], rest)

    # The file

    def _pointer(self) -> str:
        experiment = self._client.get_experiment_by_name(INDEX)
        return str(experiment.tags.get(POINTER, "")) if experiment is not None else ""

    def _load(self) -> Index:
        """The index of the store; an empty one if there is none that can be used."""
        text = self._pointer()
        while text:
            try:
                place = json.loads(text)
                data = self._files.read(place["run"], place["file"])
                if hashlib.sha256(data).hexdigest() == place["sha256"]:
                    return Index.unpack(data, self._experiment)
            except (
                *(MlflowException, OSError, EOFError, zlib.error),
                *(ValueError, KeyError, TypeError, AttributeError),
            ) as error:
                _log.debug("the index is not used: %s", error)
            # Another process may have put a new one in its place while we read.
            before, text = text, self._pointer()
            if text == before:
                break
        return Index()

    def _save(self, index: Index) -> None:
        """Publish an index and remove the one before; one of nothing is only forgotten."""
        if not index.marks and not index.deleted:
            return self.forget()
        data = index.pack(self._experiment)
        name = f"index-{uuid.uuid4().hex}.json.gz"
        try:
            experiment = self._make_experiment(INDEX)
            home = self._home(experiment)
            self._files.write(home.info.run_id, name, data)
            before = self._pointer()
            digest = hashlib.sha256(data).hexdigest()
            place = {"run": home.info.run_id, "file": name, "sha256": digest}
            self._client.set_experiment_tag(experiment, POINTER, json.dumps(place))
        except (MlflowException, OSError) as error:
            _log.warning("the index of finished runs could not be written: %s", error)
            return None
        with contextlib.suppress(Exception):  # not every store of artifacts lets files be removed
            old = json.loads(before)
            if old["run"] == home.info.run_id:
                self._files.remove(home.info.run_id, old["file"])
        return None

    def _home(self, experiment: str) -> Run:
        """The run that keeps the files."""
        found = next(pages(self._client, experiment, view=ViewType.ALL))
        for run in found:
            if run.info.lifecycle_stage == LifecycleStage.ACTIVE:
                return run
        for run in found:
            self._client.restore_run(run.info.run_id)
            return run
        run = self._client.create_run(
            experiment, run_name="index of finished runs", tags={NOTE: INDEX_NOTE}
        )
        self._client.update_run(run.info.run_id, "FINISHED")
        return run


_ALL: dict[str, Any] = {"view": ViewType.ALL, "order": _BY_END}


def _stages_of(page: PagedList[Run]) -> list[Tracked]:
    return [tracked(run) for run in page if "elth.key" in run.data.tags]


def by_key(tracked: Iterable[Tracked]) -> dict[str, Tracked]:
    """Of each stage the run by which its state is told: a finished one, else the last begun.

    Args:
        tracked: runs of stages, oldest first.
    """
    found: dict[str, Tracked] = {}
    for one in tracked:
        if one.key not in found or found[one.key].status != "finished":
            found[one.key] = one
    return found


def seconds_per_work(tracked: Iterable[Tracked], plan: Plan) -> float | None:
    """How long a unit of work takes here, from finished stages of the plan's networks.

    None while the store holds none of them.
    """
    networks = {stage.params["network"] for stage in plan.stages.values()}
    timed = []
    for one in tracked:
        if (
            one.status == "finished"
            and one.seconds is not None
            and one.stage.kind != "rewind_point"
            and not one.stage.is_given
            and one.stage.params["network"] in networks
        ):
            with contextlib.suppress(ElthError):  # of a dataset whose module or manifest is gone
                timed.append((one.seconds, work(one.stage)))
    if not timed:
        return None
    return sum(seconds for seconds, _ in timed) / sum(units for _, units in timed)
