"""The grids of a store at a glance: how far each is, what failed, its size, its last sign of life.

All of it comes from the list of stages (``listing``) and two files of each grid. Sizes are those
that runs tell of their results. What runs of before do not tell is asked of the store: a folder is
looked at, which takes no time, or a server is asked, once for each such run (some 50 ms).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator.store.leases import last_seen
from orchestrator.store.listing import Tracked, by_key
from orchestrator.store.tracker import RESULT, Tracker


@dataclass(frozen=True, kw_only=True)
class Overview:
    """One grid at a glance."""

    name: str
    stages: int
    """Stages that it consists of; a stage that several grids share is counted in each."""
    finished: int
    running: int
    failed: int
    set_aside: int
    size: int
    """Bytes of the files of its results."""
    seen: float | None
    """Its last sign of life in seconds since 1970, by the clock of who gave it: for people alone.
    None if nothing of it was ever begun."""
    description: str
    trouble: str = ""
    """Why it cannot be told what it consists of: then the stages are those with its tag."""


def overview(tracker: Tracker) -> list[Overview]:
    """All grids of a store, sorted by name.

    Raises:
        AwayError: the store does not answer.
    """
    everything = tracker.stages()
    tagged = {name for one in everything for name in one.grids}
    sizes: dict[str, int] = {}
    return [
        _overview(tracker, name, everything, sizes)
        for name in sorted(tagged.union(tracker.grids.names()))
    ]


def _overview(
    tracker: Tracker, name: str, everything: Iterable[Tracked], sizes: dict[str, int]
) -> Overview:
    run, keys, experiment, trouble = tracker.grids.run(name), None, {}, ""
    try:
        content = tracker.grids.content(name)
        keys, experiment = content.keys, content.experiment
    except ElthError as error:
        trouble = str(error) if run is not None else "its own run is gone, only tags tell of it"
    mine = [one for one in everything if (one.key in keys if keys is not None else _has(one, name))]
    best = by_key(mine)
    counts = Counter(one.status for one in best.values())
    seen = [s for s in (_seen(tracker, one) for one in mine) if s is not None]
    if run is not None and not seen:
        seen = [(run.info.end_time or run.info.start_time) / 1000]
    return Overview(
        name=name,
        stages=len(best if keys is None else keys),
        finished=counts["finished"],
        running=counts["running"],
        failed=counts["failed"],
        set_aside=counts["set aside"],
        size=sum(_size(tracker, one, sizes) for one in mine),
        seen=max(seen, default=None),
        description=_line(experiment),
        trouble=trouble,
    )


def _has(one: Tracked, grid: str) -> bool:
    return grid in one.grids


def _line(experiment: Mapping[str, Any]) -> str:
    return " ".join(str(experiment.get("description") or "").split())


def _seen(tracker: Tracker, one: Tracked) -> float | None:
    """The last sign of life of a stage; of one that is at work as its run tells it now."""
    if one.status == "running":
        try:
            return last_seen(tracker.client.get_run(one.run_id)) or one.started / 1000
        except MlflowException:  # removed since it was listed
            return None
    return (one.ended or one.started) / 1000


def _size(tracker: Tracker, one: Tracked, known: dict[str, int]) -> int:
    """Bytes of a stage's result; ``known``: what was asked for before, by run."""
    if one.size is not None:
        return one.size
    if one.status not in ("finished", "set aside"):
        return 0
    if one.run_id not in known:
        known[one.run_id] = sum(tracker.files.sizes(one.run_id, RESULT).values())
    return known[one.run_id]
