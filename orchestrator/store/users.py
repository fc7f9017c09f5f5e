"""Which grids use which stages, and who is at work on them.

A grid uses a stage if the stage's key is in the grid's list of keys, or a run of it carries the
grid's tag, or the stage is what such a one was made of, by way of any number of others. What is in
no grid is used by nobody that can be asked: it counts as used by ``NOBODY``, and so does all that
it was made of. An imported ticket, which a person has put there, is used by ``SOMEBODY`` besides.

All runs are read with all their tags, as an index may not know the latest: some seconds for ten
thousand stages in a directory, and about as many from a server, which gives 500 at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator.store.away import is_away
from orchestrator.store.board import is_deleted
from orchestrator.store.leases import is_active, last_beat
from orchestrator.store.listing import pages, stage_of
from orchestrator.store.opening import STAGES
from orchestrator.store.processes import in_words, is_alive
from orchestrator.store.tracker import Tracker

NOBODY = ""
"""What uses a stage that is in no grid."""

SOMEBODY = "*"
"""What uses a stage that a person has put into the store: no removal of a grid takes it along."""

_LOOK_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Users:
    """Which grids use which stages."""

    runs: tuple[Run, ...]
    """The runs of all stages that were looked at, oldest first."""
    by_key: Mapping[str, frozenset[str]]
    """Names of grids by key; ``NOBODY`` for none. Keys without a run are there as well."""

    def only(self, grid: str) -> frozenset[str]:
        """The keys that no other grid uses."""
        return frozenset(key for key, names in self.by_key.items() if names == {grid})


def users(tracker: Tracker, removed: str, trash: str = "") -> Users:
    """Read who uses what.

    Args:
        tracker: of the store.
        removed: a grid that is to be removed: if its files are gone its tags tell what it uses.
        trash: an MLflow filter; deleted runs that match it are looked at, too.

    Raises:
        ElthError: it cannot be told what another grid uses.
    """
    runs = [run for run in tracker.search() if "elth.key" in run.data.tags]
    if trash:
        found = pages(
            tracker.client, tracker.experiments[STAGES], trash, view=ViewType.DELETED_ONLY
        )
        runs += [run for page in found for run in page if "elth.key" in run.data.tags]
    names: dict[str, set[str]] = {}
    parents: dict[str, tuple[str, ...]] = {}
    for run in runs:
        key = run.data.tags["elth.key"]
        tags = (tag.removeprefix("grid.") for tag in run.data.tags if tag.startswith("grid."))
        names.setdefault(key, set()).update(tags)
        stage = stage_of(run)
        parents[key] = stage.parents
        if stage.is_given:
            names[key].add(SOMEBODY)
    for grid in tracker.grids.names():
        for key in _keys(tracker, grid, removed):
            names.setdefault(key, set()).add(grid)
    _spread(names, parents, names)
    free = [key for key, some in names.items() if not some]
    for key in free:
        names[key].add(NOBODY)
    _spread(names, parents, free)
    return Users(runs=tuple(runs), by_key={key: frozenset(some) for key, some in names.items()})


def _keys(tracker: Tracker, grid: str, removed: str) -> Iterable[str]:
    if not tracker.grids.is_begun(grid):  # a run of it may be about to begin: tags tell
        return ()
    try:
        return tracker.grids.keys(grid)
    except ElthError as error:
        if grid == removed and not is_away(error):
            return ()
        raise ElthError(f"it cannot be told what the grid {grid} uses: {error}") from error


def _spread(
    names: dict[str, set[str]], parents: Mapping[str, Sequence[str]], keys: Iterable[str]
) -> None:
    """Let what some stages were made of be used by all that these are used by."""
    todo = list(keys)
    while todo:
        key = todo.pop()
        for parent in parents.get(key, ()):
            before = names.setdefault(parent, set())
            if not names[key] <= before:
                before |= names[key]
                todo.append(parent)


# Who is at work


def at_work(tracker: Tracker, runs: Iterable[Run], grids: Iterable[str]) -> list[str]:
    """Who lives that works on some stages or runs some grids, in words; empty if nobody does.

    A process that cannot be seen from here is watched for its lease's length, unless a sign of
    life comes before that.

    Args:
        tracker: of the store.
        runs: of the stages.
        grids: names of the grids.
    """
    told = [
        f"the grid {grid} is being run by {in_words(driver)}"
        for grid in grids
        for driver in tracker.grids.drivers(grid)
        if is_alive(driver)
    ]
    unseen = []
    for run in runs:
        if run.info.status != "RUNNING" or not is_active(run):
            continue
        owner = run.data.tags.get("elth.owner", "")
        lives = is_alive(owner)
        if lives:
            told.append(_words(run))
        elif lives is None:
            unseen.append(run)
    if not told and unseen:
        told += [_words(run) for run in _watched(tracker, unseen)]
    return list(dict.fromkeys(told))


def _words(run: Run) -> str:
    who = in_words(run.data.tags.get("elth.owner", ""))
    return f"{stage_of(run).title} is being done by {who}"


def _watched(tracker: Tracker, runs: Sequence[Run]) -> list[Run]:
    """Those that give a sign of life before their lease's length is over."""
    before = {run.info.run_id: last_beat(run)[0] for run in runs}
    end = time.monotonic() + max(last_beat(run)[1] for run in runs)
    while time.monotonic() < end:
        now = []
        for run in runs:
            try:
                now.append(tracker.client.get_run(run.info.run_id))
            except MlflowException as error:
                if not is_deleted(tracker.client, run.info.run_id, error):
                    raise
        alive = [
            run
            for run in now
            if run.info.status == "RUNNING" and last_beat(run)[0] != before[run.info.run_id]
        ]
        if alive:
            return alive
        time.sleep(_LOOK_SECONDS)
    return []
