"""Which job comes next, and how far the plan is: the state that Tune's search walks through.

Nothing here reads or writes files or the network; Tune asks ten times a second.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import takewhile

from orchestrator.plan import Job, Plan, Stage, makespan, work


@dataclass(frozen=True, kw_only=True)
class Running:
    """A stage that is being computed, and how far it is."""

    stage: Stage
    fraction: float
    accuracy: float | None
    since: float


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """How far the plan is, at one moment."""

    total: int
    found: int
    """Stages that were finished in the store already."""
    done: int
    """Stages finished in this run."""
    running: tuple[Running, ...]
    waiting: int
    failed: Mapping[str, str]
    """What failed and why, by key."""
    blocked: int
    """Stages that cannot be done as something they need has failed."""
    seconds_left: float | None
    """Estimated wall time; None before anything is known of this machine's speed."""
    notes: tuple[str, ...] = ()
    """What a person should know once."""


class Schedule:
    """Jobs whose parents are done, longest remaining path first, never more than ``slots``."""

    def __init__(
        self,
        plan: Plan,
        finished: Collection[str],
        failed: Mapping[str, str],
        *,
        slots: int,
        seconds_per_work: float | None = None,
    ) -> None:
        """Begin with what the store holds.

        Args:
            plan: all stages.
            finished: keys that are finished in the store.
            failed: keys that failed for good, with the reason.
            slots: jobs at a time.
            seconds_per_work: seconds that a unit of work takes, if it is known.
        """
        self._lock = threading.Lock()
        self._plan = plan
        self._found = set(finished) & set(plan.stages)
        self._finished = set(self._found)
        self._failed = {
            key: f"{plan.stages[key].title}: {why}"
            for key, why in failed.items()
            if key in plan.stages and key not in self._found
        }
        self._path = plan.remaining_path()
        jobs = plan.jobs(self._finished)
        self._jobs = {job.stages[0].key: job for job in jobs}  # by the key of its first stage
        self._order = {key: number for number, key in enumerate(self._jobs)}
        self._running: dict[str, Job] = {}
        self._progress: dict[str, Running] = {}
        self._slots = slots
        self._speed = seconds_per_work
        self._timed: list[tuple[float, float]] = []
        self._children = plan.children()
        self._blocked: set[str] = set()
        self._notes: dict[str, None] = {}
        self._ready: list[tuple[float, int, str]] = []
        for key in self._jobs:
            self._offer(key)
        self._block()

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to start or to wait for."""
        with self._lock:
            return not self._running and not self._jobs

    def take(self, trial: str) -> Job | None:
        """The next job for a trial; None while none is ready or all slots are taken."""
        with self._lock:
            if len(self._running) >= self._slots:
                return None
            while self._ready and self._ready[0][2] not in self._jobs:
                heapq.heappop(self._ready)  # taken or blocked
            if not self._ready:
                return None
            job = self._jobs.pop(heapq.heappop(self._ready)[2])
            self._running[trial] = job
            self._progress[trial] = Running(
                stage=job.stages[0], fraction=0.0, accuracy=None, since=time.monotonic()
            )
            return job

    def advance(self, trial: str, index: int, fraction: float, accuracy: float | None) -> None:
        """Note that stage ``index`` of a trial's job is so far; those before it are finished."""
        with self._lock:
            job = self._running.get(trial)
            if job is None:
                return
            for stage in job.stages[:index]:
                self._finish(trial, stage)
            if index < len(job.stages):
                before = self._progress[trial]
                since = before.since if before.stage == job.stages[index] else time.monotonic()
                self._progress[trial] = Running(
                    stage=job.stages[index], fraction=fraction, accuracy=accuracy, since=since
                )

    def fail(self, trial: str, reason: str) -> None:
        """Note that the stage a trial is at has failed; what needs it is blocked."""
        with self._lock:
            if trial in self._progress:
                stage = self._progress[trial].stage
                self._failed[stage.key] = f"{stage.title}: {reason}"
                self._block()

    def note(self, text: str) -> None:
        """Keep what a person should know; a text that came before is kept once."""
        with self._lock:
            self._notes[text] = None

    def end(self, trial: str) -> None:
        """Note that a trial is over; what it was at and left undone has failed."""
        with self._lock:
            job = self._running.pop(trial, None)
            at = self._progress.pop(trial, None)
            if job is None or at is None:
                return
            left = [s for s in job.stages if s.key not in self._finished]
            if left and at.stage.key not in self._failed:
                self._failed[at.stage.key] = f"{at.stage.title}: its process died"
                self._block()

    def snapshot(self) -> Snapshot:
        """How far everything is now."""
        with self._lock:
            # A trial that is about to end is still at its last stage, finished or failed.
            settled = self._finished | self._blocked | set(self._failed)
            running = tuple(r for r in self._progress.values() if r.stage.key not in settled)
            return Snapshot(
                total=len(self._plan.stages),
                found=len(self._found),
                done=len(self._finished) - len(self._found),
                running=running,
                waiting=len(self._plan.stages) - len(settled) - len(running),
                failed=dict(self._failed),
                blocked=len(self._blocked),
                seconds_left=self._seconds_left(),
                notes=tuple(self._notes),
            )

    def _finish(self, trial: str, stage: Stage) -> None:
        if stage.key in self._finished:
            return
        self._finished.add(stage.key)
        for child in self._children[stage.key]:
            self._offer(child)
        if stage.kind == "rewind_point":
            return  # short, and the first thing that a new process does
        self._timed.append((work(stage), time.monotonic() - self._progress[trial].since))

    def _offer(self, key: str) -> None:
        """Note that the job that begins with a stage is ready, if its parents are done."""
        if key in self._jobs:
            job = self._jobs[key]
            if all(parent in self._finished for parent in job.stages[0].parents):
                heapq.heappush(self._ready, (-self._path[key], self._order[key], key))

    def _block(self) -> None:
        """Take the jobs that can no longer be done out of the queue."""
        todo = list(self._failed)
        while todo:
            for child in self._children[todo.pop()]:
                if child not in self._blocked | self._finished | self._failed.keys():
                    self._blocked.add(child)
                    todo.append(child)
        lost = self._blocked | self._failed.keys()
        if not lost:
            return
        for key, job in list(self._jobs.items()):
            stages = tuple(takewhile(lambda s: s.key not in lost, job.stages))
            if not stages:
                del self._jobs[key]
            elif len(stages) < len(job.stages):
                self._jobs[key] = Job(stages)

    def _seconds_left(self) -> float | None:
        speed = self._speed
        now = time.monotonic()
        timed = self._timed
        if not timed and speed is None:
            timed = [
                (work(r.stage) * r.fraction, now - r.since)
                for r in self._progress.values()
                if r.fraction > 0 and r.stage.kind != "rewind_point"
            ]
        if timed:
            speed = sum(t for _, t in timed) / sum(w for w, _ in timed)
        if speed is None:
            return None
        left = [*self._jobs.values(), *self._running.values()]
        lost = self._finished | self._blocked | set(self._failed)
        units = makespan(left, self._slots, lost)
        under_way = sum(work(r.stage) * r.fraction for r in self._progress.values())
        return max(speed * (units - under_way / self._slots), 0.0)
