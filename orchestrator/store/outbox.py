"""The outbox: finished stages that wait on disk while MLflow is away.

A stage that ends is written to a folder beside the store or in ``runs``, and published once MLflow
answers: by the same process, or by the next ``elth run``. Run id, times and values are those of the
end of the training, and MLflow drops a metric that it has already: to publish twice does no harm.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from elth.files import write_atomic
from orchestrator.store.away import AwayError, waiting
from orchestrator.store.describing import inputs_from
from orchestrator.store.leases import LostError
from orchestrator.store.marks import standing

if TYPE_CHECKING:
    from orchestrator.store.address import Store
    from orchestrator.store.result import Result
    from orchestrator.store.runlog import RunLog
    from orchestrator.store.tracker import Tracker


_ENTRY = "entry.json"
_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A finished stage that is not published yet: what its run lacks, apart from files."""

    store: str
    key: str
    run_id: str
    number: int
    """The number of its lease."""
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[tuple[str, float, int, int]]
    """Name, value, time in milliseconds and step of every point."""
    ended: int
    """When the training ended, in milliseconds since 1970."""
    files: dict[str, int]
    """Sizes in bytes of the files beside it."""
    inputs: list[dict[str, Any]] = field(default_factory=list)
    """Its datasets; none in an entry of before."""


def deliver(
    tracker: Tracker, log: RunLog, key: str, result: Result, folder: Path, *, keep_weights: bool
) -> Generator[str, None, None]:
    """Publish a finished stage, by way of the outbox if the store is away; yields notes.

    Args:
        tracker: of the store.
        log: the writing side of its run.
        key: the stage's key.
        result: what it leaves.
        folder: the outbox.
        keep_weights: whether trained weights are kept.

    Raises:
        LostError: another attempt has taken the stage over.
        AwayError: the store has not answered for too long; the stage is in the outbox.
        ElthError: the store did not take it, for another reason.
    """
    try:
        log.finish(result, keep_weights=keep_weights)
    except AwayError as error:
        log.stop()
        place = folder / log.run_id
        try:
            _keep(tracker, log, key, result, place, keep_weights=keep_weights)
        except OSError as failure:
            raise ElthError(
                f"{error}, and the outbox {place} cannot be written: {failure.strerror}"
            ) from failure
        yield f"a finished stage waits in {place}: {error}"
        yield from waiting(lambda: publish(tracker, place), tracker.store)
        # Another process may have come to the entry first, and found another attempt's result.
        runs = yield from waiting(lambda: tracker.runs_of(key), tracker.store)
        stands = standing(runs)
        if stands is not None and stands.info.run_id != log.run_id:
            raise LostError(f"another attempt has finished what waited in {place}") from None


def _keep(
    tracker: Tracker, log: RunLog, key: str, result: Result, place: Path, *, keep_weights: bool
) -> None:
    (place / "files").mkdir(parents=True, exist_ok=True)
    log.write(result, place / "files", keep_weights=keep_weights)
    entry = Entry(
        store=str(tracker.store),
        key=key,
        run_id=log.run_id,
        number=log.lease.number if log.lease is not None else 0,
        ended=log.ended,
        **log.noted(),
        files=_sizes(place / "files"),
    )
    write_atomic(place / _ENTRY, json.dumps(asdict(entry)).encode())


def publish(tracker: Tracker, place: Path) -> None:
    """Publish an entry of the outbox and remove it, unless it was published meanwhile.

    Raises:
        LostError: another attempt has taken its stage over: the entry stays until that is done,
            and is removed if it is.
    """
    entry = _read(place)
    if entry is None or not is_of(entry.store, place, tracker.store):
        return
    runs = tracker.runs_of(entry.key)
    mine = next((run for run in runs if run.info.run_id == entry.run_id), None)
    stands = standing(runs)
    if stands is not None:
        if mine is not None and mine.info.status != "FINISHED":
            tracker.client.delete_run(entry.run_id)
    elif mine is None or (entry.number and not tracker.board.is_last(entry.key, entry.run_id)):
        raise LostError(f"another attempt has taken over what waits in {place}")
    else:
        try:
            _send(tracker, entry, place / "files")
        except (MlflowException, OSError):
            # Two processes may find one entry: the other removes it under this one's hands.
            if (place / _ENTRY).exists() or standing(tracker.runs_of(entry.key)) is None:
                raise
    (place / _ENTRY).unlink(missing_ok=True)  # first, as what has an entry is whole
    shutil.rmtree(place, ignore_errors=True)
    if stands is not None and stands.info.run_id != entry.run_id:
        raise LostError(f"another attempt has finished what waited in {place}")


def _send(tracker: Tracker, entry: Entry, files: Path) -> None:
    """Bring an entry into the store: its files first, the state of its run last."""
    client = tracker.client
    params = [Param(name, value) for name, value in entry.params.items()]
    tags = [RunTag(name, value) for name, value in entry.tags.items()]
    tracker.files.add(entry.run_id, files)
    client.log_batch(entry.run_id, params=params, tags=tags)
    with contextlib.suppress(MlflowException):  # for people alone
        client.log_inputs(entry.run_id, datasets=inputs_from(entry.inputs))
    for i in range(0, len(entry.metrics), _BATCH):
        points = [Metric(*point) for point in entry.metrics[i : i + _BATCH]]
        client.log_batch(entry.run_id, metrics=points)
    client.set_terminated(entry.run_id, "FINISHED", entry.ended)


def publish_all(tracker: Tracker, folder: Path) -> int:
    """Publish what waits in the outbox for a store; how many entries there were."""
    count = 0
    for place in sorted(folder.glob(f"*/{_ENTRY}")):
        entry = _read(place.parent)
        if entry is not None and is_of(entry.store, place.parent, tracker.store):
            with contextlib.suppress(LostError):
                publish(tracker, place.parent)
            count += 1
    return count


def is_of(named: str, place: Path, store: Store) -> bool:
    """Whether an entry that names a store waits for one.

    What lies in a directory's own outbox moved with it.
    There entries of a server may lie as well, where the directory is ``runs``.
    """
    if named == str(store):
        return True
    is_own = store.folder is not None and place.parent == store.outbox
    return is_own and Path(named).is_absolute()


def _read(place: Path) -> Entry | None:
    """An entry; None if it is gone, or not whole: then it is set aside.

    Raises:
        ElthError: it is there and cannot be read now, which says nothing of what is in it.
    """
    path = place / _ENTRY
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        entry = Entry(**content)
        if entry.run_id != place.name:
            raise ValueError("it is of another run")
        if entry.files != _sizes(place / "files"):
            raise ValueError("its files are not those that were written")
        return entry
    except FileNotFoundError:
        return None  # another process has published it, or is removing it
    except OSError as error:
        raise ElthError(
            f"the finished stage that waits in {place} cannot be read ({error.strerror}): see to "
            "that disk, and give the same command again; nothing is lost"
        ) from error
    except (ValueError, TypeError):
        with contextlib.suppress(OSError):
            path.rename(path.with_suffix(".bad"))
        return None


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}
