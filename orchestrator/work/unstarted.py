"""Says so when no process of a stage starts, which nobody else would: Ray waits for ever."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import ray
from ray import tune
from ray._private import worker
from ray.tune.experiment import Trial

from orchestrator.experiment.sections import Resources
from orchestrator.work.search import PlanSearch

SECONDS = 60.0
"""From which on it is told; a process is up after about ten, on a slow machine."""
_LOOK_SECONDS = 5.0
_WAITING = ("PENDING", "PREPARED", "RESCHEDULING")
"""States of a placement group that has no place."""
_LATEST = 1000
"""Trials among which one is looked for that waits; those of before have long been over."""


class Unstarted(tune.Callback):
    """Notes that stages wait for processes and none is at work, for as long as that is so.

    Args:
        search: of the trials, whose schedule is told.
        resources: what each stage asks for.
        clock: seconds.
    """

    def __init__(
        self, search: PlanSearch, resources: Resources, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._search = search
        self._resources = resources
        self._clock = clock
        self._at_work: set[str] = set()
        self._since = self._looked = clock()
        self._note = ""

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Note that a process is up."""
        self._at_work.add(trial.trial_id)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Note that one is free or gone."""
        self._at_work.discard(trial.trial_id)
        self._since = self._clock()

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Note that one is gone."""
        self._at_work.discard(trial.trial_id)
        self._since = self._clock()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look, every few seconds."""
        now = self._clock()
        if now - self._looked < _LOOK_SECONDS:
            return
        if now - self._looked > 2 * _LOOK_SECONDS:  # Tune had nothing to do meanwhile
            self._since = now
        self._looked = now
        waits = self._search.waits  # of a group, whose launcher is up
        is_waiting = any(trial.status == Trial.PENDING for trial in trials[-_LATEST:])
        if not waits and (self._at_work or not is_waiting):
            self._since = now
            if self._note:
                self._search.schedule.take_back(self._note)
                self._note = ""
            return
        silent = max(waits, 0.0 if self._at_work else now - self._since)
        if silent >= SECONDS and not self._note:
            self._note = told(self._resources)
            self._search.schedule.note(self._note)


def told(resources: Resources) -> str:
    """What a person should know of it."""
    asked = f"{resources.cpus} CPU" + (f" and {resources.gpus:g} GPU" if resources.gpus else "")
    if resources.workers > 1:
        asked = f"{resources.workers} workers with {asked} each"
    text = f"no process that computes has been heard of for {SECONDS:g} s; a stage asks for {asked}"
    where = ""
    with contextlib.suppress(Exception):  # of Ray's: it is no more than a note
        node: Any = vars(worker)["_global_node"]
        where = f" (here {node.get_logs_dir_path()})"
    with contextlib.suppress(Exception):
        groups = ray.util.placement_group_table().values()
        if any(group.get("state") in _WAITING for group in groups):
            has = ray.cluster_resources()
            sizes = f"{has.get('CPU', 0):g} CPU and {has.get('GPU', 0):g} GPU"
            text += f", and not all that is asked of Ray has room (it has {sizes} in all)"
    return (
        f"{text}. Unless others use what there is, or it is slow to start, why none comes is in "
        f"the logs of Ray's session on the machine that was to start it{where}: raylet.err, "
        "python-core-worker-*.log"
    )
