"""What lies in a store and is of no use any more, by kind; and its removal by age.

Of each kind only what is older than an age goes: what a live driver uses is younger, as it writes
checkpoints every few minutes. Reports stay, and so does all of which it is not known that nobody
needs it, with the reason.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator.store.away import is_away
from orchestrator.store.files import ARTIFACTS, bytes_of
from orchestrator.store.leases import is_active, last_seen
from orchestrator.store.listing import DAMAGED, pages
from orchestrator.store.marks import is_finished, standing
from orchestrator.store.opening import STAGES
from orchestrator.store.outbox import is_of
from orchestrator.store.redo import COMPARED, reasons
from orchestrator.store.storage import Storage
from orchestrator.store.tracker import Tracker
from orchestrator.store.trash import remove_files, time_of

KINDS = ("trash", "set aside", "outbox", "in flight", "orphaned")
"""``trash``: files of runs that are deleted. ``set aside``: results that were damaged and whose
stages are done again. ``outbox``: what waited there and is not whole, or is in the store by now.
``in flight``: checkpoints of stages that are finished, or of which nothing is known. ``orphaned``:
folders of files whose runs the database does not have."""


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """One thing that is of no use."""

    kind: str
    """One of ``KINDS``."""
    name: str
    size: int
    """Bytes."""
    since: float | None
    """Since when it has been so, at the latest, in seconds since 1970; None if nobody knows."""
    remove: Callable[[], object] | None
    """Removes it; None where it stays."""
    why: str = ""
    """Why it stays."""

    def is_due(self, age: float) -> bool:
        """Whether it may go, as it is older than an age in seconds."""
        return (
            self.remove is not None and self.since is not None and time.time() - self.since >= age
        )


def leftovers(tracker: Tracker, storage: Storage) -> Iterator[Leftover]:
    """Find them all; nothing is changed.

    Args:
        tracker: of the store.
        storage: where checkpoints lie.

    Raises:
        ElthError: the store does not answer.
    """
    yield from _trash(tracker)
    yield from _set_aside(tracker)
    yield from _outbox(tracker)
    yield from _in_flight(tracker, storage)
    yield from _orphaned(tracker)


# Runs


def _trash(tracker: Tracker) -> Iterator[Leftover]:
    known = _deleted_at(tracker)
    for run in _runs(tracker, "", ViewType.DELETED_ONLY):
        size = tracker.files.size(run.info.run_id)
        if not size:
            continue
        since = known.get(run.info.run_id) or time_of(run)
        if since is None and not is_finished(run):  # an attempt that another took over
            since = last_seen(run)
        why = "" if since is not None else "a server does not tell since when (mlflow gc knows)"
        yield Leftover(
            kind="trash",
            name=str(run.info.run_id),
            size=size,
            since=since,
            remove=_remover(tracker, run) if since is not None else None,
            why=why,
        )


def _remover(tracker: Tracker, run: Run) -> Callable[[], object]:
    return lambda: remove_files(tracker, run)


def _set_aside(tracker: Tracker) -> Iterator[Leftover]:
    for run in _runs(tracker, f"tags.`{DAMAGED}` != ''", ViewType.ACTIVE_ONLY):
        if is_finished(run):
            continue
        new = standing(tracker.runs_of(run.data.tags["elth.key"]))
        is_new = new is not None and new.info.end_time is not None
        done = is_new and COMPARED in run.data.tags
        again = "not compared yet with what took its place: elth run does that"
        never = "not done again yet: elth verify --restore may take it back"
        yield Leftover(
            kind="set aside",
            name=str(run.info.run_id),
            size=tracker.files.size(run.info.run_id),
            since=new.info.end_time / 1000 if done and new is not None else None,
            remove=_dropper(tracker, run) if done else None,
            why="" if done else again if is_new else never,
        )


def _dropper(tracker: Tracker, run: Run) -> Callable[[], object]:
    def drop() -> None:
        tracker.client.delete_run(run.info.run_id)
        remove_files(tracker, run)

    return drop


def _runs(tracker: Tracker, text: str, view: int) -> Iterator[Run]:
    for page in list(pages(tracker.client, tracker.experiments[STAGES], text, view=view)):
        yield from (run for run in page if "elth.key" in run.data.tags)


def _deleted_at(tracker: Tracker) -> dict[str, float]:
    """When runs were deleted, in seconds since 1970; a server does not tell."""
    return {run_id: at for run_id, at in _in_database(tracker).items() if at}


def _in_database(tracker: Tracker) -> dict[str, float]:
    """All runs of a store that is a directory, and when each was deleted; 0 if it was not."""
    if tracker.store.folder is None:
        return {}
    path = tracker.store.folder / "mlflow.db"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as base:
            found = base.execute("SELECT run_uuid, deleted_time FROM runs").fetchall()
    except sqlite3.Error as error:
        raise ElthError(f"cannot read {path}: {error}") from error
    return {str(run_id): (at or 0) / 1000 for run_id, at in found}


# Files beside the runs


def _outbox(tracker: Tracker) -> Iterator[Leftover]:
    for place in sorted(tracker.store.outbox.glob("*")):
        if not place.is_dir():
            continue
        since, entry, why = _newest(place), place / "entry.json", ""
        if entry.exists():
            why = _waits(tracker, entry)
        yield Leftover(
            kind="outbox",
            name=place.name,
            size=bytes_of(place),
            since=since,
            remove=None if why else _cleaner(place),
            why=why,
        )


def _waits(tracker: Tracker, entry: Path) -> str:
    """Why an entry of the outbox stays; empty if its stage is in the store by now."""
    try:
        content = json.loads(entry.read_bytes())
        store, key = str(content["store"]), str(content["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return "it cannot be read: the next elth run looks at it"
    if not re.fullmatch("[0-9a-f]{64}", key):
        return "it is of no stage"
    run = _known(tracker, entry.parent.name)  # then it is this store, by whatever address
    if run is not None and tracker.run_of(key) is not None:
        return ""
    if run is not None and not is_active(run):
        keys, unread = _asked(tracker)
        gone = "its run was taken over or deleted, so that nothing publishes it"
        return f"{gone}; its stage is yet to do" if key in keys or unread else ""
    if is_of(store, entry.parent, tracker.store):
        return "it waits for this store: the next elth run publishes it"
    return f"it waits for another store, {store}: elth run --store publishes it there"


def _known(tracker: Tracker, run_id: str) -> Run | None:
    """A run of this store, deleted or not."""
    try:
        return tracker.client.get_run(run_id)
    except MlflowException as error:
        if is_away(error):
            raise
        return None


def _in_flight(tracker: Tracker, storage: Storage) -> Iterator[Leftover]:
    folders = [name for name in storage.folders() if re.fullmatch("[0-9a-f]{64}", name)]
    if not folders:
        return
    status: dict[str, set[str]] = {}
    known = tracker.stages()
    for one in known:
        status.setdefault(one.key, set()).add(one.status)
    asked, unread = _asked(tracker)
    again = reasons(tracker, known, status.keys())
    folder = tracker.store.folder
    is_shared = folder is None or str(storage) != str(tracker.store.inflight)
    for key in folders:
        size, since = storage.about(key)
        found = status.get(key, set())
        why = ""
        if found or key in asked or unread:
            is_done = "finished" in found and "running" not in found and key not in again
            why = "" if is_done else "a stage that is to do, or may be, goes on from it"
        elif is_shared:
            why = "this store knows nothing of it, and another one may go on from it"
        yield Leftover(
            kind="in flight",
            name=key,
            size=size,
            since=since,
            remove=_clearer(storage, key) if not why and since is not None else None,
            why=why,
        )


def _asked(tracker: Tracker) -> tuple[set[str], bool]:
    """The keys of all grids, and whether it cannot be told of some what they hold."""
    keys, unread = set[str](), False
    for grid in tracker.grids.names():
        if not tracker.grids.is_begun(grid):
            continue
        try:
            keys |= tracker.grids.keys(grid).keys()
        except ElthError as error:
            if is_away(error):
                raise
            unread = True
    return keys, unread


def _orphaned(tracker: Tracker) -> Iterator[Leftover]:
    if tracker.store.folder is None:
        return
    place = tracker.store.folder / ARTIFACTS
    there = [path for path in sorted(place.glob("*")) if re.fullmatch("[0-9a-f]{32}", path.name)]
    known = _in_database(tracker)
    lost = [path for path in there if path.name not in known]
    why = ""
    if 2 * len(lost) > len(there):
        why = (
            f"the database lacks {len(lost)} of {len(there)}: is mlflow.db the one that belongs "
            "to these files?"
        )
    for path in lost:
        yield Leftover(
            kind="orphaned",
            name=path.name,
            size=bytes_of(path),
            since=_newest(path),
            remove=None if why else _cleaner(path),
            why=why,
        )


def _cleaner(place: Path) -> Callable[[], object]:
    return lambda: shutil.rmtree(place)


def _clearer(storage: Storage, key: str) -> Callable[[], object]:
    return lambda: storage.clear(key)


def _newest(place: Path) -> float:
    """When something below a folder was written last."""
    times = [place.lstat().st_mtime]
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):
            times.append(path.lstat().st_mtime)
    return max(times)


def clean(found: Leftover) -> str:
    """Remove a leftover; returns why it could not be, empty if it was."""
    assert found.remove is not None
    try:
        found.remove()
    except FileNotFoundError:  # somebody else did
        return ""
    except (ElthError, MlflowException, OSError) as error:
        return str(error)
    return ""
