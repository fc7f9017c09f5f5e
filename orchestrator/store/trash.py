"""What is removed: to the trash, back from it, and for good.

The trash is MLflow's own: a run in the state *deleted* is listed no more, nothing can be written to
it, and its files stay. A removal has a name, which is the tag ``elth.removed`` of each run that it
deletes, set before, as nothing can be set after. The name begins with the time, as MLflow does not
tell when a run was deleted.

Between the look at who uses what and the end of the deleting, a driver may begin a grid that uses
some of it. So after the deleting it is looked again, and what is used now is restored. A driver
that writes what its grid holds later than that second look finds the runs deleted when it joins
them to its grid, which it does after the writing, and says so: nothing is lost in any order.

A removal may be cut off anywhere. Its name is a tag of the grid's own run, set before all and
deleted last: the same command goes on with it, the way back knows it, and who runs the grid takes
back what was removed of it.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow.entities import Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator.store import storage
from orchestrator.store.board import is_deleted
from orchestrator.store.files import told_by
from orchestrator.store.grids import GRIDS, REMOVED
from orchestrator.store.leases import is_active
from orchestrator.store.listing import pages
from orchestrator.store.marks import standing
from orchestrator.store.opening import STAGES
from orchestrator.store.tracker import RESULT, Tracker
from orchestrator.store.users import NOBODY, SOMEBODY, Users, at_work, users

_GRID = "elth.removed.grid"
"""The tag of a run that was removed: with which grid."""

_AT = "elth.removed.at"
"""The tag of a run that was removed: when, which is later than the name says if it was cut off."""

LEFT = "elth.left."
"""What the tag begins with of a run that stayed when a grid with its tag was removed."""

_ABSENT = "RESOURCE_DOES_NOT_EXIST"

_FORM = "%Y-%m-%dT%H:%M:%SZ"

_IN_USE = 3600.0
"""Seconds for which a checkpoint may be in use; a live training writes one every few minutes."""


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What the removal of a grid would do, or has done."""

    grid: str
    name: str
    runs: tuple[Run, ...]
    """Runs of stages that nothing else uses."""
    keys: frozenset[str]
    """The keys of all such stages, begun or not."""
    shared: tuple[Run, ...]
    """Runs of its stages that stay."""
    others: tuple[str, ...]
    """The grids that use these; ``NOBODY`` for stages that are in no grid, ``SOMEBODY`` for whoever
    imported a ticket."""
    size: int
    """Bytes of the files of results of ``runs``, as far as their runs tell."""
    restored: int = 0
    """Runs that turned out to be used when they were deleted, and were restored."""
    notes: tuple[str, ...] = ()
    """What a person should know."""


def look(tracker: Tracker, grid: str) -> Removal:
    """Work out what the removal of a grid would do; nothing is written.

    Raises:
        ElthError: there is no such grid, somebody is at work on it, or it cannot be told what
            another grid uses.
    """
    found = users(tracker, grid)
    own = tracker.grids.runs(grid)
    if not own and not any(grid in names for names in found.by_key.values()):
        known = ", ".join(tracker.grids.names()) or "none"
        raise ElthError(f"the store {tracker.store} has no grid '{grid}' (it has: {known})")
    name = next((r.data.tags[REMOVED] for r in own if REMOVED in r.data.tags), "")
    removal = _of(found, grid, name or _new_name())
    _refuse_if_at_work(tracker, removal)
    return removal


def _of(found: Users, grid: str, name: str) -> Removal:
    keys = found.only(grid)
    mine = [run for run in found.runs if grid in found.by_key[run.data.tags["elth.key"]]]
    runs = tuple(run for run in mine if run.data.tags["elth.key"] in keys)
    shared = tuple(run for run in mine if run.data.tags["elth.key"] not in keys)
    others = {name for run in shared for name in found.by_key[run.data.tags["elth.key"]]}
    sizes = (told_by(run.data.tags) or {} for run in runs)
    return Removal(
        grid=grid,
        name=name,
        runs=runs,
        keys=keys,
        shared=shared,
        others=tuple(sorted(others - {grid})),
        size=sum(sum(some.values()) for some in sizes),
    )


def _refuse_if_at_work(tracker: Tracker, removal: Removal) -> None:
    tag = f"grid.{removal.grid}"
    concerned = [*removal.runs, *(run for run in removal.shared if tag in run.data.tags)]
    busy = at_work(tracker, concerned, [removal.grid])
    if busy:
        more = f" (and {len(busy) - 1} more)" if len(busy) > 1 else ""
        raise ElthError(
            f"the grid {removal.grid} cannot be removed now: {busy[0]}{more}; stop it first"
        )


def _new_name() -> str:
    return f"{_now()} {uuid.uuid4().hex[:8]}"


def _now() -> str:
    return datetime.now(UTC).strftime(_FORM)


def remove(tracker: Tracker, removal: Removal) -> Removal:
    """Remove a grid and what nothing else uses; returns what was removed in the end.

    Raises:
        ElthError: a driver has begun to run the grid meanwhile: all is restored.
        MlflowException: the store does not answer; the same removal goes on with it.
    """
    place, notes = _storage(tracker, removal.grid)
    for run in tracker.grids.runs(removal.grid):
        tag(tracker, run, removal)
    for run in removal.runs:
        _delete(tracker, run, removal)
    # The second look.
    found = users(tracker, removal.grid, trash=f"tags.`{REMOVED}` = '{removal.name}'")
    now = _of(found, removal.grid, removal.name)
    try:
        _refuse_if_at_work(tracker, now)
    except ElthError as error:
        count = sum(_restore(tracker, run, removal.name) for run in found.runs)
        for run in tracker.grids.runs(removal.grid):
            untag(tracker, run)
        tracker.forget()
        raise ElthError(f"{error}. What was removed ({count} runs) is restored") from error
    restored = sum(_restore(tracker, run, removal.name) for run in now.shared)
    for run in now.runs:  # begun between the looks
        if is_active(run):
            _delete(tracker, run, removal)
    for run in now.shared:
        _leave(tracker, run, removal)
    for run in tracker.grids.runs(removal.grid):
        _delete(tracker, run, removal)
    tracker.forget()
    if place is not None:
        notes += _clear(tracker, place, now.keys)
    return Removal(**{**vars(now), "restored": restored, "notes": notes})


def _clear(tracker: Tracker, place: storage.Storage, keys: frozenset[str]) -> tuple[str, ...]:
    """Remove the checkpoints of stages; those that may be another store's stay while in use."""
    is_own = tracker.store.folder is not None and str(place) == str(tracker.store.inflight)
    kept = 0
    for key in keys & set(place.folders()):
        since = None if is_own else place.about(key)[1]
        if is_own or (since is not None and time.time() - since >= _IN_USE):
            place.clear(key)
        else:
            kept += 1
    if not kept:
        return ()
    return (
        f"checkpoints of {kept} stages in {place} stay, as they are of the last hour and a "
        "training of another store may go on from them: elth gc removes them later",
    )


def _storage(tracker: Tracker, grid: str) -> tuple[storage.Storage | None, tuple[str, ...]]:
    """Where checkpoints of a grid's trainings lie."""
    given = None
    with contextlib.suppress(ElthError):  # its files are gone: those beside the store
        resources = tracker.grids.experiment(grid).get("resources")
        given = resources.get("storage") if isinstance(resources, dict) else None
    try:
        return storage.of(storage.place(given, tracker.store)), ()
    except ElthError as error:
        return None, (f"checkpoints of trainings in progress stay where they are: {error}",)


def tag(tracker: Tracker, run: Run, removal: Removal | None = None) -> None:
    """Note on a run that elth removes it now: with a grid, or by itself."""
    found = {REMOVED: _new_name() if removal is None else removal.name, _AT: _now()}
    found |= {} if removal is None else {_GRID: removal.grid}
    tracker.client.log_batch(run.info.run_id, tags=[RunTag(*one) for one in found.items()])


def untag(tracker: Tracker, run: Run) -> None:
    """Take off a run what says that it was removed.

    Raises:
        MlflowException: the store does not answer; to do it again does no harm.
    """
    for tag in (REMOVED, _AT, _GRID):  # the last one is that by which they are found
        try:
            tracker.client.delete_tag(run.info.run_id, tag)
        except MlflowException as error:
            if error.error_code != _ABSENT:  # it was not there
                raise


def _delete(tracker: Tracker, run: Run, removal: Removal) -> None:
    try:
        tag(tracker, run, removal)
        tracker.client.delete_run(run.info.run_id)
    except MlflowException as error:  # somebody else has deleted it: not ours to take back
        if not is_deleted(tracker.client, run.info.run_id, error):
            raise


def _restore(tracker: Tracker, run: Run, name: str) -> bool:
    """Restore a run if this removal has deleted it, or was about to; whether it has."""
    now = tracker.client.get_run(run.info.run_id)
    if now.data.tags.get(REMOVED) != name:
        return False
    was_deleted = not is_active(now)
    if was_deleted:
        tracker.client.restore_run(run.info.run_id)
    untag(tracker, run)
    return was_deleted


def _leave(tracker: Tracker, run: Run, removal: Removal) -> None:
    """Take a grid's tag off a run that stays, with a note of it for the way back."""
    if f"grid.{removal.grid}" not in run.data.tags:
        return
    try:
        tracker.client.set_tag(run.info.run_id, f"{LEFT}{removal.grid}", removal.name)
        tracker.client.delete_tag(run.info.run_id, f"grid.{removal.grid}")
    except MlflowException as error:
        if not is_deleted(tracker.client, run.info.run_id, error):
            raise


# The way back


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What came back of a grid."""

    name: str
    """Of the removal."""
    runs: int
    again: int
    """Runs that stay in the trash, as their stages were done again meanwhile."""
    purged: int
    """Runs that stay there, as their files were removed for good: ``elth run`` does them again."""


def undo(tracker: Tracker, grid: str) -> str:
    """Take back what a removal of a grid has removed that was cut off; who runs it, wants it.

    Returns:
        what a person should know; empty if there was none.
    """
    name = max((_name(run) for run in tracker.grids.runs(grid)), default="")
    if not name:
        return ""
    back = restore(tracker, grid, name)
    return (
        f"elth rm {grid} was cut off before its end: {back.runs} runs that it had removed are "
        f"restored{f', {back.purged} have no files any more' if back.purged else ''}"
    )


def restore(tracker: Tracker, grid: str, name: str = "") -> Restored:
    """Take back what the last removal of a grid removed, and nothing else.

    Cut off anywhere, the same call goes on.

    Args:
        tracker: of the store.
        grid: its name.
        name: that of the removal; the last one when empty.

    Raises:
        ElthError: nothing of it is in the trash, there is a grid of this name, or the files of the
            grid itself were removed for good.
    """
    text = f"tags.`{_GRID}` = '{grid}'"
    own = list(_all(tracker, GRIDS, text))
    stages = list(_all(tracker, STAGES, text))
    back, ended = (
        [run for run in some if is_active(run) and REMOVED not in run.data.tags]
        for some in (stages, own)
    )
    for run in (*back, *ended):  # of a call that was cut off, of which that of the grid comes last
        untag(tracker, run)
    # If the grid had no run of its own any more, its stages have the name.
    name = name or max(map(_name, own), default="") or max(map(_name, stages), default="")
    if ended or (back and not name):
        tracker.forget()
        return Restored(name="", runs=len(back) + len(ended), again=0, purged=0)
    if not name:
        raise ElthError(f"no grid '{grid}' was removed from the store {tracker.store}")
    own = [run for run in own if _name(run) == name]
    begun = {run.info.run_id for run in tracker.grids.runs(grid)}
    if begun - {run.info.run_id for run in own}:
        raise ElthError(
            f"the store {tracker.store} has a grid '{grid}' again, begun since that one was "
            f"removed, so it is not restored; single runs of it can be in MLflow's pages (deleted "
            f"runs, tags.`{REMOVED}` = '{name}')"
        )
    if own and not any(tracker.files.size(run.info.run_id) for run in own):
        raise ElthError(
            f"the files of the grid '{grid}' were removed for good: give elth run with its file"
        )
    runs, again, purged = 0, 0, 0
    for run in stages:
        if _name(run) != name:
            continue
        if not is_active(run) and _is_done_again(tracker, run):
            again += 1
        elif not is_active(run) and _is_purged(tracker, run):
            purged += 1
        else:
            runs += _restore(tracker, run, name)
    for run in _all(tracker, STAGES, f"tags.`{LEFT}{grid}` = '{name}'"):
        if is_active(run):
            tracker.client.set_tag(run.info.run_id, f"grid.{grid}", "true")
            tracker.client.delete_tag(run.info.run_id, f"{LEFT}{grid}")
    for run in own:
        _restore(tracker, run, name)
    tracker.forget()
    return Restored(name=name, runs=runs, again=again, purged=purged)


def _all(tracker: Tracker, experiment: str, text: str) -> Iterator[Run]:
    """Runs that match a filter, deleted or not."""
    found = pages(tracker.client, tracker.experiments[experiment], text, view=ViewType.ALL)
    for page in list(found):  # whole, as what is found is changed meanwhile
        yield from page


def _name(run: Run) -> str:
    """The name of the removal that a run was removed with."""
    return str(run.data.tags.get(REMOVED, ""))


def _is_done_again(tracker: Tracker, run: Run) -> bool:
    if run.info.status != "FINISHED":
        return False
    return standing(tracker.runs_of(run.data.tags["elth.key"])) is not None


def _is_purged(tracker: Tracker, run: Run) -> bool:
    return run.info.status == "FINISHED" and not tracker.files.sizes(run.info.run_id, RESULT)


# For good


@dataclass(frozen=True, kw_only=True)
class Purged:
    """What was removed for good, or would be."""

    runs: int
    size: int
    """Bytes."""
    young: int
    """Runs that are in the trash for less time, and stay."""


def purge(tracker: Tracker, grid: str | None, seconds: float, *, dry: bool = False) -> Purged:
    """Remove the files of what was removed with a grid, or with any, longer ago than that.

    Their runs stay, deleted, without files. What was deleted by other ways is no part of it.

    Args:
        tracker: of the store.
        grid: its name; all when None.
        seconds: for how long something has to be in the trash, by the clock of who removed it.
        dry: whether it is only told.
    """
    text = f"tags.`{_GRID}` = '{grid}'" if grid is not None else f"tags.`{_GRID}` LIKE '%'"
    runs, size, young = 0, 0, 0
    for run in (*_all(tracker, STAGES, text), *_all(tracker, GRIDS, text)):
        if is_active(run):
            continue
        since = time_of(run)
        bytes_ = tracker.files.size(run.info.run_id)
        if not bytes_:
            continue
        if since is None or time.time() - since < seconds:
            young += 1
            continue
        if not dry and not remove_files(tracker, run):
            continue
        runs, size = runs + 1, size + bytes_
    return Purged(runs=runs, size=size, young=young)


def remove_files(tracker: Tracker, run: Run) -> bool:
    """Remove the files of a run in the trash; False if it was restored meanwhile.

    Raises:
        ElthError: the store does not let them be removed.
    """
    run_id = run.info.run_id
    if is_active(tracker.client.get_run(run_id)):
        return False
    try:
        tracker.files.remove_all(run_id)
    except (MlflowException, OSError, NotImplementedError) as error:
        raise ElthError(f"the files of run {run_id} cannot be removed: {error}") from error
    return True


def time_of(run: Run) -> float | None:
    """When a run was removed, in seconds since 1970 by the clock of who did; None if not by us."""
    with contextlib.suppress(ValueError):
        text = run.data.tags.get(_AT) or _name(run).partition(" ")[0]
        return datetime.strptime(text, _FORM).replace(tzinfo=UTC).timestamp()
    return None


def named(others: Iterable[str]) -> str:
    """Grids for people: ``a, b and stages that are in no grid``."""
    others = tuple(others)
    told = ", ".join(name for name in others if name not in (NOBODY, SOMEBODY))
    for who, text in (
        (NOBODY, "stages that are in no grid"),
        (SOMEBODY, "whoever imported tickets"),
    ):
        if who in others:
            told += f"{' and ' if told else ''}{text}"
    return told
