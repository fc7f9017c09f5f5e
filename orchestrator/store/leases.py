"""Leases: of several drivers on one store, one does a stage, and the others know it.

A holder tells that it lives by a tag on its run that changes every quarter of the lease's length:
along with the epochs that it sends anyway, where these are often enough, else by itself.
No two clocks are compared: whoever waits takes the stage over once the tag has stayed the same for
that length on its own clock, or at once if the holder is known to have ended (``processes``).
The run of a holder that is taken over is deleted, and MLflow refuses all that is written to it: a
process that was stopped and wakes up cannot publish.

A driver that lived and lost a stage was taken for dead, and may be as wrong about who has it now:
from then on it goes by the other's signs of life alone. From the second time on it also waits for
longer without one, twice as long after each loss. So even drivers that misjudge each other do not
take a stage from each other for ever: each does so once without waiting, and a silence that is
twice as long each time is longer, in the end, than any of a driver that lives, or than the stage.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from orchestrator.plan.stage import VARIANT, Stage
from orchestrator.store.away import noted
from orchestrator.store.board import is_deleted
from orchestrator.store.describing import note_of
from orchestrator.store.listing import DAMAGED, pages
from orchestrator.store.marks import is_finished, standing
from orchestrator.store.opening import NOTE, STAGES
from orchestrator.store.pace import BEATS as _BEATS
from orchestrator.store.pace import lease_seconds as length
from orchestrator.store.processes import in_words, is_gone
from orchestrator.store.provenance import environment
from orchestrator.store.variants import tags_of, without_variant

if TYPE_CHECKING:
    from orchestrator.store.tracker import Tracker


BEAT = "elth.beat"
"""The tag by which an attempt tells that it lives: a number that grows, and its lease's length."""

FINAL = "elth.final"
"""The tag of a failed run: whether it would fail again."""

SEEN = "elth.seen"
"""The tag with the time of the last sign of life by its process's clock: for people alone."""


class LostError(Exception):
    """Another attempt has taken the stage over, or has finished it."""


@dataclass(frozen=True)
class Held:
    """Another attempt is at a stage."""

    token: str
    """The last sign of life; as long as it stays the same, there was none."""
    note: str = ""
    """What a person should know: that the stage was lost again and again."""


class Lease:
    """The right to do a stage, and a thread that tells that its holder lives."""

    def __init__(
        self,
        tracker: Tracker,
        key: str,
        number: int,
        run_id: str,
        driver: str,
        *,
        is_again: bool = False,
    ) -> None:
        self.key = key
        self.is_again = is_again
        """Whether the stage was finished before, so that what comes out is to be compared."""
        self.number = number
        self.run_id = run_id
        self.began = int(time.time() * 1000)
        """In milliseconds since 1970."""
        self.seems_lost = False
        """Whether the store has refused a sign of life."""
        self._tracker = tracker
        self._driver = driver
        self._length = length()
        self._signs = itertools.count(1)
        self._told = time.monotonic()
        """When the last sign of life was given that the store has taken."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True, name="elth-lease")
        self._thread.start()

    def is_lost(self) -> bool:
        """Ask the store whether another has taken the stage over, or has finished it."""
        if not self._tracker.board.is_last(self.key, self.run_id):
            return True
        runs = self._tracker.runs_of(self.key)
        others = [run for run in runs if run.info.run_id != self.run_id]
        for run in others:  # a request whose answer was lost is made twice, and so is its run
            if is_dead(run, self._driver):
                self._tracker.client.delete_run(run.info.run_id)
        return standing(others) is not None or len(others) == len(runs)

    def is_superseded(self) -> bool:
        """Whether its own driver, which took this process for dead, has begun the stage anew."""
        _, run_id = self._tracker.board.latest(self.key)
        if run_id in ("", self.run_id):
            return False
        try:
            return _owner(self._tracker.client.get_run(run_id)) == self._driver
        except MlflowException as error:
            if not is_deleted(self._tracker.client, run_id, error):
                raise
            return False

    @property
    def is_due(self) -> bool:
        """Whether the next sign of life is worth a place in what is sent now for another reason."""
        return time.monotonic() - self._told > self._length / _BEATS / 2

    def sign(self) -> list[RunTag]:
        """The next sign of life: tags of its run."""
        return [RunTag(*tag) for tag in _signs(next(self._signs), self._length).items()]

    def has_told(self) -> None:
        """Note that the store has taken a sign of life."""
        self._told = time.monotonic()

    def end(self) -> None:
        """Stop telling."""
        self._over.set()

    def give_up(self, *, lost: bool = False) -> None:
        """Stop telling, and remove the run, as nothing of it is worth keeping.

        Args:
            lost: whether it was taken away; else it does not count as such.
        """
        self.end()
        with contextlib.suppress(MlflowException):
            if not lost:
                self._tracker.client.update_run(self.run_id, "KILLED")
            self._tracker.client.delete_run(self.run_id)

    def _live(self) -> None:
        between = pause = self._length / _BEATS
        while not self._over.wait(pause):
            pause = self._told + between - time.monotonic()
            if pause > 0:  # it was told along with something else
                continue
            pause = between
            try:
                self._tracker.client.log_batch(self.run_id, tags=self.sign())
                self.has_told()
            except MlflowException as error:  # it may be away for a while
                noted(error)
                self.seems_lost = is_deleted(self._tracker.client, self.run_id, error)
            if self.seems_lost:
                return


def open_run(
    tracker: Tracker,
    stage: Stage,
    *,
    grid: str,
    driver: str,
    tags: Mapping[str, str] | None = None,
    started: int | None = None,
) -> str:
    """Create the run of an attempt at a stage, started then or now; returns its id.

    It is for no grid where that is empty.
    """
    run = tracker.create_run(
        start_time=started,
        run_name=stage.title,
        tags={
            "elth.key": stage.key,
            "elth.stage": json.dumps(without_variant(stage).describe()),
            "elth.owner": driver,
            **({f"grid.{grid}": "true"} if grid else {}),
            **tags_of(grid, [stage.labels.get(VARIANT)]),
            NOTE: note_of(stage, tracker.experiments[STAGES], grid),
            **environment(),
            **(tags or {}),
        },
    )
    tracker.files.know(run)
    return str(run.info.run_id)


def claim(
    tracker: Tracker,
    stage: Stage,
    *,
    grid: str,
    driver: str,
    since: float,
    watched: tuple[str, float] | None = None,
    started: int | None = None,
    with_failed: bool = False,
) -> Run | Held | Lease:
    """Ask for the right to do a stage.

    Args:
        tracker: of the store.
        stage: what is to be done.
        grid: for which grid; for none where that is empty.
        driver: which driver asks; what it has begun before and not finished is dead.
        since: when asking began, as ``time.monotonic`` tells.
        watched: the token of ``Held`` that was given before, and for how many seconds it was seen.
        started: when the run began that is to be written, in milliseconds since 1970; now if None.
        with_failed: whether an attempt that was watched, has failed and would fail again is the
            answer; else it is made once more.

    Returns:
        the finished run, if there is one that is not to be done again, or the failed one;
        ``Held`` while another attempt lives; else the lease.
    """
    before = tracker.runs_of(stage.key)
    done = standing(before)
    if done is not None:
        return done
    number, last = tracker.board.latest(stage.key)
    others = {run.info.run_id: run for run in before}
    if last and last not in others:  # taken since we looked, or deleted
        with contextlib.suppress(MlflowException):
            found = tracker.client.get_run(last)
            if is_active(found) and standing([found]) is not None:
                return found
            if is_active(found):
                others[last] = found
    alive = [r for r in others.values() if r.info.status == "RUNNING" and _owner(r) != driver]
    losses = _losses(tracker, stage.key, driver) if alive and number > 1 else []
    if not losses:  # else those that seem to have ended may live, as this driver did
        alive = [run for run in alive if not is_dead(run, driver)]
    if alive:
        token = " ".join(sorted(f"{run.info.run_id}:{last_beat(run)[0]}" for run in alive))
        longest = max(last_beat(run)[1] for run in alive)
        if time.monotonic() - since > longest / _BEATS:
            token += f" {uuid.uuid4().hex}"  # the store was away, for them as well: count anew
        patience = longest * _lengths(len(losses), f"{driver} {stage.key}")
        if watched is None or watched[0] != token or watched[1] < patience:
            return Held(token, _note(stage, losses, patience))
    seen = watched[0] if with_failed and watched is not None else ""
    for run in before:
        is_final = run.info.status == "FAILED" and run.data.tags.get(FINAL) == "true"
        if is_final and f"{run.info.run_id}:" in seen:
            return run
    signs = _signs(0, length())
    mine = open_run(tracker, stage, grid=grid, driver=driver, tags=signs, started=started)
    if not tracker.board.take(stage.key, number + 1, mine):
        tracker.client.delete_run(mine)
        return Held(uuid.uuid4().hex)
    for run in others.values():
        if run.info.status in ("RUNNING", "FAILED") and not _fence(tracker.client, run):
            tracker.client.delete_run(mine)
            return tracker.client.get_run(run.info.run_id)
    is_again = any(is_finished(run) or DAMAGED in run.data.tags for run in before)
    return Lease(tracker, stage.key, number + 1, mine, driver, is_again=is_again)


def is_dead(run: Run, driver: str) -> bool:
    """Whether an unfinished run's process is known to have ended, or was this driver's own."""
    owner = _owner(run)
    return run.info.status == "RUNNING" and bool(owner) and (owner == driver or is_gone(owner))


def last_seen(run: Run) -> float | None:
    """When a run's process gave its last sign of life, in seconds since 1970 by its own clock.

    For people: it is no judgement, as clocks differ. None if an older version has begun the run.
    """
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(run.data.tags.get(SEEN, "")).timestamp()
    return None


def is_active(run: Run) -> bool:
    """Whether a run has not been deleted."""
    return bool(run.info.lifecycle_stage == LifecycleStage.ACTIVE)


def _fence(client: MlflowClient, run: Run) -> bool:
    """Delete a run, after which it cannot be published; False if it was published before that."""
    try:
        # Were this process killed below, what is finished would be lost.
        if is_finished(client.get_run(run.info.run_id)):
            return False
        client.delete_run(run.info.run_id)
        if client.get_run(run.info.run_id).info.status != "FINISHED":
            return True
    except MlflowException as error:
        if not is_deleted(client, run.info.run_id, error):
            raise
        return True
    client.restore_run(run.info.run_id)
    return False


def _losses(tracker: Tracker, key: str, driver: str) -> list[str]:
    """To whom leases of a stage went that this driver held and had not ended, first to last.

    The board knows, so that it holds for all processes of a driver, and after the death of each.
    """
    text = f"tags.`elth.key` = '{key}'"
    found = pages(tracker.client, tracker.experiments[STAGES], text, view=ViewType.ALL)
    runs = {run.info.run_id: run for page in found for run in page}
    return [
        _owner(runs.get(after))
        for before, after in itertools.pairwise(tracker.board.holders(key))
        if before in runs and runs[before].info.status == "RUNNING"
        if _owner(runs[before]) == driver != _owner(runs.get(after))
    ]


def _owner(run: Run | None) -> str:
    return run.data.tags.get("elth.owner", "") if run is not None else ""


def _lengths(losses: int, who: str) -> float:
    """For how many lengths of its lease a holder must be silent; two that wait differ in it."""
    if losses < 2:
        return 1.0
    return 2.0 ** (losses - 1) * random.Random(f"{who} {losses}").uniform(1.0, 1.5)


def _note(stage: Stage, losses: list[str], patience: float) -> str:
    if len(losses) < 2:
        return ""
    return (
        f"{stage.title} was taken over from this driver {len(losses)} times while it was at work, "
        f"last by {in_words(losses[-1])}: it is left to that, and taken back only after "
        f"{patience:.0f} s without a sign of life"
    )


def _signs(count: int, seconds: float) -> dict[str, str]:
    """The tags by which an attempt tells that it lives."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {BEAT: f"{count} {seconds:g}", SEEN: now}


def last_beat(run: Run) -> tuple[str, float]:
    """A run's last sign of life, and the length of its lease."""
    beat = run.data.tags.get(BEAT, "")
    _, _, seconds = beat.partition(" ")
    try:
        return beat, float(seconds)
    except ValueError:  # begun without a lease
        return beat, length()
