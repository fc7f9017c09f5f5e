"""Leases: of several drivers on one store, one does a stage, and the others know it.

MLflow's tags cannot be compared and set. What is atomic: a parameter of a run is logged once, and
logging it again with another value fails. So the n-th lease of a stage is the parameter
``lease/KEY/N`` of a *board*, and its value the run of the attempt that holds it. Whoever logs it
first has it; the next one is ``N + 1``, and only the holder of the last one publishes.

The board is one run for each 256th of all keys, and a run above them that names each once, in the
same way; that one is named by a tag given with the creation of an experiment, whose name is unique.

A holder tells that it lives by a tag on its run that changes every quarter of the lease's length.
No two clocks are compared: whoever waits takes the stage over once the tag has stayed the same for
that length on its own clock, or at once if the holder was a process of this host that has ended.
The run of a holder that is taken over is deleted, and MLflow refuses all that is written to it: a
process that was stopped and wakes up cannot publish.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException

from orchestrator.plan import Stage
from orchestrator.provenance import is_gone

if TYPE_CHECKING:
    from orchestrator.tracking import Tracker

BOARDS = "elth-leases"
ROOT = "elth-leases-root"
"""The experiment that exists once and names the run above the boards."""

BEAT = "elth.beat"
"""The tag by which an attempt tells that it lives: a number that grows, and its lease's length."""

GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow calls it when a run is not there, or deleted."""

_ROOT_TAG = "elth.root"
_BEATS = 4


def length() -> float:
    """Seconds without a sign of life after which a stage is taken over."""
    return float(os.environ.get("ELTH_LEASE_SECONDS", "60"))


class LostError(Exception):
    """Another attempt has taken the stage over, or has finished it."""


@dataclass(frozen=True)
class Held:
    """Another attempt is at a stage."""

    token: str
    """The last sign of life; as long as it stays the same, there was none."""


class Board:
    """Where the leases of a store are written."""

    def __init__(
        self, client: MlflowClient, make_experiment: Callable[[str], str], artifacts: str | None
    ) -> None:
        """Prepare; nothing is asked of the store yet.

        Args:
            client: of the store.
            make_experiment: gives the id of an experiment by name, and makes it if need be.
            artifacts: where files of its experiments lie, as of the others; there are none.
        """
        self._client = client
        self._make_experiment = make_experiment
        self._artifacts = artifacts
        self._root = ""
        self._boards: dict[str, str] = {}

    def latest(self, key: str) -> tuple[int, str]:
        """The number of a stage's last lease and the run that holds it; 0 if there was none."""
        prefix = f"lease/{key}/"
        params = self._client.get_run(self._board(key)).data.params
        numbers = [int(name.removeprefix(prefix)) for name in params if name.startswith(prefix)]
        number = max(numbers, default=0)
        return number, params.get(f"{prefix}{number}", "")

    def take(self, key: str, number: int, run_id: str) -> bool:
        """Take a lease for a run; whether it is its own now."""
        return self._log_once(self._board(key), f"lease/{key}/{number}", run_id) == run_id

    def _board(self, key: str) -> str:
        part = key[:2]
        if part not in self._boards:
            root = self._find_root()
            run_id = self._client.get_run(root).data.params.get(f"board/{part}")
            if run_id is None:
                mine = self._create(f"leases of {part}...")
                run_id = self._log_once(root, f"board/{part}", mine)
                if run_id != mine:
                    self._client.delete_run(mine)
            self._boards[part] = run_id
        return self._boards[part]

    def _find_root(self) -> str:
        if not self._root:
            found = self._client.get_experiment_by_name(ROOT)
            if found is None:
                mine = self._create("leases")
                with contextlib.suppress(MlflowException):  # another process has made it
                    self._client.create_experiment(ROOT, self._artifacts, {_ROOT_TAG: mine})
                found = self._client.get_experiment_by_name(ROOT)
                if found is None or found.tags[_ROOT_TAG] != mine:
                    self._client.delete_run(mine)
                if found is None:
                    raise MlflowException(f"the experiment {ROOT} could not be made")
            self._root = found.tags[_ROOT_TAG]
        return self._root

    def _create(self, name: str) -> str:
        run = self._client.create_run(self._make_experiment(BOARDS), run_name=name)
        self._client.update_run(run.info.run_id, "FINISHED")  # else it would seem to run for ever
        return str(run.info.run_id)

    def _log_once(self, run_id: str, name: str, value: str) -> str:
        """Log a parameter that nobody has logged; the value that stands then."""
        try:
            self._client.log_param(run_id, name, value)
        except MlflowException as error:
            stands = self._client.get_run(run_id).data.params.get(name)
            if error.error_code not in GONE or stands is None:
                raise
            return str(stands)
        return value


class Lease:
    """The right to do a stage, and a thread that tells that its holder lives."""

    def __init__(self, tracker: Tracker, key: str, number: int, run_id: str, driver: str) -> None:
        self.key = key
        self.number = number
        self.run_id = run_id
        self.seems_lost = False
        """Whether the store has refused a sign of life."""
        self._tracker = tracker
        self._driver = driver
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True, name="elth-lease")
        self._thread.start()

    def is_lost(self) -> bool:
        """Ask the store whether another has taken the stage over, or has finished it."""
        if self._tracker.board.latest(self.key)[0] != self.number:
            return True
        runs = self._tracker.runs_of(self.key)
        others = [run for run in runs if run.info.run_id != self.run_id]
        for run in others:  # a request whose answer was lost is made twice, and so is its run
            if is_dead(run, self._driver):
                self._tracker.client.delete_run(run.info.run_id)
        return _first(others, "FINISHED") is not None or len(others) == len(runs)

    def end(self) -> None:
        """Stop telling."""
        self._over.set()

    def give_up(self) -> None:
        """Stop telling, and remove the run, as nothing of it is worth keeping."""
        self.end()
        with contextlib.suppress(MlflowException):
            self._tracker.client.delete_run(self.run_id)

    def _live(self) -> None:
        seconds, count = length(), 0
        while not self._over.wait(seconds / _BEATS):
            count += 1
            try:
                self._tracker.client.set_tag(self.run_id, BEAT, _beat(count, seconds))
            except MlflowException as error:  # it may be away for a while
                self.seems_lost = error.error_code in GONE
            if self.seems_lost:
                return


def claim(
    tracker: Tracker,
    stage: Stage,
    *,
    grid: str,
    driver: str,
    since: float,
    watched: tuple[str, float] | None = None,
) -> Run | Held | Lease:
    """Ask for the right to do a stage.

    Args:
        tracker: of the store.
        stage: what is to be done.
        grid: for which grid.
        driver: which driver asks; what it has begun before and not finished is dead.
        since: when asking began, as ``time.monotonic`` tells.
        watched: the token of ``Held`` that was given before, and for how many seconds it was seen.

    Returns:
        the finished run, if there is one; ``Held`` while another attempt lives; else the lease.
    """
    before = tracker.runs_of(stage.key)
    done = _first(before, "FINISHED")
    if done is not None:
        return done
    number, last = tracker.board.latest(stage.key)
    others = {run.info.run_id: run for run in before}
    if last and last not in others:  # taken since we looked, or deleted
        with contextlib.suppress(MlflowException):
            found = tracker.client.get_run(last)
            if found.info.status == "FINISHED" and is_active(found):
                return found
            if is_active(found):
                others[last] = found
    alive = [r for r in others.values() if r.info.status == "RUNNING" and not is_dead(r, driver)]
    if alive:
        token = " ".join(sorted(f"{run.info.run_id}:{_told(run)[0]}" for run in alive))
        longest = max(_told(run)[1] for run in alive)
        if time.monotonic() - since > longest / _BEATS:
            token += f" {uuid.uuid4().hex}"  # the store was away, for them as well: count anew
        if watched is None or watched[0] != token or watched[1] < longest:
            return Held(token)
    mine = tracker.open_run(stage, grid=grid, driver=driver, tags={BEAT: _beat(0, length())})
    if not tracker.board.take(stage.key, number + 1, mine):
        tracker.client.delete_run(mine)
        return Held(uuid.uuid4().hex)
    for run in others.values():
        if run.info.status in ("RUNNING", "FAILED") and not _fence(tracker.client, run):
            tracker.client.delete_run(mine)
            return tracker.client.get_run(run.info.run_id)
    return Lease(tracker, stage.key, number + 1, mine, driver)


def is_dead(run: Run, driver: str) -> bool:
    """Whether an unfinished run's process is known to have ended, or was this driver's own."""
    owner = run.data.tags.get("elth.owner", "")
    return run.info.status == "RUNNING" and bool(owner) and (owner == driver or is_gone(owner))


def is_active(run: Run) -> bool:
    """Whether a run has not been deleted."""
    return bool(run.info.lifecycle_stage == LifecycleStage.ACTIVE)


def _fence(client: MlflowClient, run: Run) -> bool:
    """Delete a run, after which it cannot be published; False if it was published before that."""
    try:
        client.delete_run(run.info.run_id)
        if client.get_run(run.info.run_id).info.status != "FINISHED":
            return True
    except MlflowException as error:
        if error.error_code not in GONE:
            raise
        return True
    client.restore_run(run.info.run_id)
    return False


def _first(runs: Iterable[Run], status: str) -> Run | None:
    return next((run for run in runs if run.info.status == status), None)


def _beat(count: int, seconds: float) -> str:
    return f"{count} {seconds:g}"


def _told(run: Run) -> tuple[str, float]:
    """A run's last sign of life, and the length of its lease."""
    beat = run.data.tags.get(BEAT, "")
    _, _, seconds = beat.partition(" ")
    try:
        return beat, float(seconds)
    except ValueError:  # begun without a lease
        return beat, length()
