"""To look at every file of a store, and to take back what was set aside and is whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Run

from elth import plugins
from orchestrator.plan.outside import CodeError
from orchestrator.plan.stage import Stage
from orchestrator.store.content import Content
from orchestrator.store.damage import AbsentError, DamagedError
from orchestrator.store.listing import stage_of
from orchestrator.store.soundness import UNSOUND
from orchestrator.store.tracker import Tracker

STATES = ("whole", "absent", "damaged", "unknown")
"""``absent``: files are not there. ``unknown``: code from outside that it was made by is not."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the files of one run are."""

    run: Run
    stage: Stage
    state: str
    """One of ``STATES``."""
    reason: str = ""

    def plain(self, *, set_aside: bool = False) -> dict[str, Any]:
        """As JSON values; ``set_aside``: whether it was so, as it is not whole."""
        own = {"key": self.stage.key, "run": self.run.info.run_id, "title": self.stage.title}
        return {**own, "state": self.state, "reason": self.reason, "set_aside": set_aside}


def verify(
    tracker: Tracker, grid: str | Content | None = None, *, absent: bool = False
) -> Iterator[Found]:
    """Read the results of the finished stages of a grid, or of all, by their checksums.

    Nothing is changed.

    Args:
        tracker: of the store.
        grid: its name, or what a file asks for; all stages when None.
        absent: whether to go on where most of the files are not there.

    Raises:
        AwayError: most of the files are not there.
        ElthError: there is no such grid, or files are not to be had for another reason.
    """
    if isinstance(grid, str):
        tracker.grids.keys(grid)  # refuses what is no grid
    runs = [one.run_id for one in tracker.stages(grid) if one.status == "finished"]
    if not absent:
        tracker.check_files(runs)
    for run_id in runs:
        yield look(tracker, tracker.client.get_run(run_id))


def look(tracker: Tracker, run: Run) -> Found:
    """Read the result of a run by its checksums."""
    stage, state, reason = stage_of(run), "whole", ""
    try:
        with plugins.closed():  # a store has nothing run
            tracker.result_of(stage, run)
    except DamagedError:  # it may have been the way and not the file
        try:
            with plugins.closed():
                tracker.result_of(stage, run)
        except DamagedError as error:
            state, reason = "damaged", str(error)
    except AbsentError as error:
        state, reason = "absent", str(error)
    except CodeError as error:
        state, reason = "unknown", str(error)
    return Found(run=run, stage=stage, state=state, reason=reason)


def restore(tracker: Tracker, grid: str | Content | None = None) -> Iterator[Found]:
    """Take back each run that was set aside and is whole, if its stage was not done again.

    What was set aside as its gradients may have been wrong stays so.

    Yields:
        what the files of each are: those that are whole are taken back.
    """
    known = tracker.stages(grid)
    done = {one.key for one in known if one.status == "finished"}
    for one in known:
        if one.status == "set aside" and one.key not in done and one.reason != UNSOUND:
            found = look(tracker, tracker.client.get_run(one.run_id))
            if found.state == "whole":
                tracker.take_back(found.run)
                done.add(one.key)
            yield found
