"""Which job comes next, and how far the plan is: the state that Tune's search walks through.

Nothing here reads or writes files or the network; Tune asks ten times a second.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile

from orchestrator.plan.costs import work
from orchestrator.plan.ending import ended, links_of
from orchestrator.plan.graph import Job, Plan, bound, kept_back, rank
from orchestrator.plan.stage import Stage

_LOOK_SECONDS = (1.0, 30.0)
"""Time between two looks at a stage that another driver is at: it grows with the waiting."""

_PASSED_SECONDS = 0.2
"""What takes less was finished already and only passed over."""

_PAUSES = (1.0, 10.0, 30.0)
"""Seconds before a job whose process died is begun again; another death is a failure then.

A cluster takes some seconds to see that a node is gone, and until then gives places on it.
"""

_LATEST = 3
"""Finished stages whose accuracies are told."""

_REDONE = 2
"""Times that a stage is done again as its result was damaged, before that is a failure."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A stage that is being computed, and how far it is."""

    stage: Stage
    fraction: float
    accuracy: float | None
    since: float
    told: float | None = None
    """When the fraction was heard of; None before anything was."""
    expected: float | None = None
    """Seconds that it should take, by what others took; None before that is known."""

    @property
    def times(self) -> float:
        """For how many times what it should take it has run; 0 where that is not known.

        A rewind point is short, and the first thing that a new process does: it tells nothing.
        """
        if not self.expected or self.stage.kind == "rewind_point":
            return 0.0
        return (time.monotonic() - self.since) / self.expected


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
    elsewhere: int = 0
    """Stages that another driver computes."""
    ended: Mapping[str, str] = field(default_factory=dict)
    """Stages that are not done as a chain has ended before them, and why, by key."""
    latest: tuple[tuple[str, float], ...] = ()
    """Titles and test accuracies of the stages that were finished last, the last one first."""

    @property
    def slowest(self) -> Running | None:
        """Of what is running that which has run longest, by what it should take."""
        found = max(self.running, key=lambda one: one.times, default=None)
        return found if found is not None and found.times > 0 else None


@dataclass(frozen=True, kw_only=True)
class _Elsewhere:
    """A stage that another driver is at, and when to look again."""

    token: str
    """Its last sign of life."""
    since: float
    """When that was seen first."""
    began: float
    """When the stage was found to be held."""
    due: float


class Schedule:
    """Jobs whose parents are done, longest remaining path first, never more than ``slots``."""

    def __init__(
        self,
        plan: Plan,
        finished: Collection[str],
        failed: Mapping[str, str],
        *,
        again: Collection[str] = (),
        slots: int,
        seconds_per_work: float | None = None,
        last: Mapping[str, str] | None = None,
    ) -> None:
        """Begin with what the store holds.

        Args:
            plan: all stages.
            finished: keys that are finished in the store.
            failed: keys that failed for good, with the reason.
            again: keys that are not finished although what is made of them may be: whatever comes
                of one waits for it, as all on the way may have to be done again.
            slots: jobs at a time.
            seconds_per_work: seconds that a unit of work takes, if it is known.
            last: of the finished ones the rounds that are the last of their chain, with the reason
                (``ending.verdicts``). What that ends is not done, whatever was done of it before.
        """
        self._lock = threading.Lock()
        self._plan = plan
        self._links = links_of(plan.stages)
        self._last = dict(last or {})
        self._ended = ended(self._links, self._last)
        self._found = (set(finished) & set(plan.stages)) - self._ended.keys()
        self._finished = set(self._found)
        self._failed = {
            key: f"{plan.stages[key].title}: {why}"
            for key, why in failed.items()
            if key in plan.stages and key not in self._found and key not in self._ended
        }
        self._path = plan.remaining_path()
        jobs = plan.jobs(self._finished | self._ended.keys())
        self._jobs = {job.stages[0].key: job for job in jobs}  # by the key of its first stage
        self._order = {key: number for number, key in enumerate(self._jobs)}
        self._running: dict[str, Job] = {}
        self._progress: dict[str, Running] = {}
        self._slots = slots
        self._speed = seconds_per_work
        self._timed = (0.0, 0.0)  # work units that were timed, and the seconds that they took
        self._works: dict[str, float] = {}
        self._latest: deque[tuple[str, float]] = deque(maxlen=_LATEST)
        self._children = plan.children()
        self._blocked: set[str] = set()
        self._notes: dict[str, None] = {}
        self._ready: list[tuple[float, int, str]] = []
        self._elsewhere: dict[str, _Elsewhere] = {}
        self._redone: Counter[str] = Counter()
        self._deaths: Counter[str] = Counter()
        self._reached: dict[str, float] = {}  # how far a stage was at most when its process died
        self._resting: dict[str, float] = {}  # jobs whose process died, and when to begin again
        self._needs: dict[str, set[str]] = defaultdict(set)  # beside the parents
        self._keep_back(again)
        for key in self._jobs:
            self._offer(key)
        self._block()

    @property
    def stages(self) -> Mapping[str, Stage]:
        """All stages of the plan."""
        return self._plan.stages

    @property
    def kept(self) -> Collection[str]:
        """Keys of the stages whose trained weights are kept because an entry says so."""
        return self._plan.kept

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to start or to wait for."""
        with self._lock:
            return not self._running and not self._jobs

    @property
    def failed(self) -> Mapping[str, str]:
        """What failed so far and why, by key; of no cost, so that it can be asked often."""
        with self._lock:
            return dict(self._failed)

    def take(self, trial: str) -> Job | None:
        """The next job for a trial; None while none is ready or all slots are taken."""
        with self._lock:
            if len(self._running) >= self._slots:
                return None
            for key, held in self._elsewhere.items():
                if held.due <= time.monotonic():
                    self._elsewhere[key] = replace(held, due=math.inf)
                    self._offer(key)
            for key, due in list(self._resting.items()):
                if due <= time.monotonic():
                    del self._resting[key]
                    self._offer(key)
            while self._ready and not self._is_ready(self._ready[0][2]):
                heapq.heappop(self._ready)  # taken, blocked, or it waits again
            if not self._ready:
                return None
            job = self._jobs.pop(heapq.heappop(self._ready)[2])
            self._running[trial] = job
            self._progress[trial] = Running(
                stage=job.stages[0], fraction=0.0, accuracy=None, since=time.monotonic()
            )
            return job

    def begin(self, trial: str) -> None:
        """Note that there is room for a trial now: it had waited for it, and was not at work."""
        with self._lock:
            at = self._progress.get(trial)
            if at is not None and at.told is None:
                self._progress[trial] = replace(at, since=time.monotonic())

    def advance(
        self,
        trial: str,
        index: int,
        fraction: float,
        accuracy: float | None,
        ended_at: float | None = None,
    ) -> None:
        """Note that stage ``index`` of a trial's job is so far; those before it are finished.

        Args:
            trial: the trial.
            index: the stage's place in its job.
            fraction: how far it is.
            accuracy: test accuracy after its last epoch so far, in %.
            ended_at: that of the stage before it, where it has just ended.
        """
        with self._lock:
            job = self._running.get(trial)
            if job is None:
                return
            for number, stage in enumerate(job.stages[:index], 1):
                self._finish(trial, stage, ended_at if number == index else None)
            if index < len(job.stages):
                if fraction > 0:
                    self._elsewhere.pop(job.stages[index].key, None)  # taken over
                before = self._progress[trial]
                is_same = before.stage == job.stages[index]
                if is_same and not fraction:  # a note, which tells nothing of how far it is
                    return
                self._progress[trial] = Running(
                    stage=job.stages[index],
                    fraction=fraction,
                    accuracy=accuracy,
                    since=before.since if is_same else time.monotonic(),
                    told=time.monotonic(),
                )

    def end_chain(self, key: str, reason: str) -> None:
        """Note that a finished round is the last of its chain: what would follow it is ended."""
        with self._lock:
            self._last[key] = reason
            self._ended = ended(self._links, self._last)
            for lost in self._ended:  # another grid may have done some of it before
                self._found.discard(lost)
                self._finished.discard(lost)
                self._blocked.discard(lost)
                self._failed.pop(lost, None)
                self._elsewhere.pop(lost, None)
            self._block()

    def fail(self, trial: str, reason: str) -> Stage | None:
        """Note that the stage a trial is at has failed; what needs it is blocked.

        Returns the stage; None for a trial that is over.
        """
        with self._lock:
            if trial not in self._progress:
                return None
            stage = self._progress[trial].stage
            if stage.key not in self._ended:
                self._failed[stage.key] = f"{stage.title}: {reason}"
                self._block()
            return stage

    def hold(self, trial: str, token: str) -> None:
        """Note that another driver is at the stage of a trial: its job comes back after a while.

        Args:
            trial: the trial, which is over.
            token: the other driver's last sign of life.
        """
        with self._lock:
            stage = self._put_back(trial)
            if stage is None:
                return
            now = time.monotonic()
            before = self._elsewhere.get(stage.key)
            began = before.began if before is not None else now
            same = before is not None and before.token == token
            self._elsewhere[stage.key] = _Elsewhere(
                token=token,
                since=before.since if before is not None and same else now,
                began=began,
                due=now + min(max((now - began) / 4, _LOOK_SECONDS[0]), _LOOK_SECONDS[1]),
            )

    def title(self, trial: str) -> str:
        """The title of the stage that a trial is at; empty if it is over."""
        with self._lock:
            return self._progress[trial].stage.title if trial in self._progress else ""

    def watched(self, trial: str) -> tuple[str, float] | None:
        """What ``hold`` was told last of the stage that a trial begins with, and how long ago."""
        with self._lock:
            at = self._progress.get(trial)
            held = self._elsewhere.get(at.stage.key) if at is not None else None
            return None if held is None else (held.token, time.monotonic() - held.since)

    def redo(self, trial: str, key: str, reason: str) -> None:
        """Note that a stage which a trial needs is finished no longer: it is done again first.

        Args:
            trial: the trial, which is over; its job comes back.
            key: the stage that has to be done again.
            reason: what is wrong with it.
        """
        stage = self._plan.stages.get(key)
        if stage is None or self._redone[key] >= _REDONE:
            self.fail(trial, reason)
            return
        self.note(f"{stage.title} is done again: {reason}")
        with self._lock:
            if key in self._finished:
                self._redone[key] += 1
                self._finished.discard(key)
                self._found.discard(key)
                self._add(Job((stage,)))
            child = self._put_back(trial)
            if child is not None:
                self._needs[child.key].add(key)
                self._offer(child.key)
            self._block()  # what it needs may have failed by now

    def again(self, keys: Collection[str]) -> None:
        """Note that stages are finished no longer, as what they are made of is another now."""
        with self._lock:
            some = [key for key in self._plan.stages if key in keys and key in self._finished]
            self._finished.difference_update(some)
            self._found.difference_update(some)
            for key in some:
                self._add(Job((self._plan.stages[key],)))
            self._keep_back(some)

    def give_back(self, trial: str) -> None:
        """Note that a trial has ended early, as it was told to: its job waits again."""
        with self._lock:
            stage = self._put_back(trial)
            if stage is not None:
                self._offer(stage.key)

    def give_back_all(self) -> None:
        """Note that no trial is at work any more."""
        for trial in list(self._running):
            self.give_back(trial)

    def note(self, text: str) -> None:
        """Keep what a person should know; a text that came before is kept once."""
        with self._lock:
            self._notes[text] = None

    def take_back(self, note: str) -> None:
        """Let go of a note that holds no longer."""
        with self._lock:
            self._notes.pop(note, None)

    def end(self, trial: str, why: str = "its process died") -> tuple[Stage, str] | None:
        """Note that a trial is over: if it left something undone, its process has died.

        What it was at is begun again after a pause, and has failed if that happens too often at
        no further a place than before.

        Args:
            trial: the trial.
            why: why its process has died.

        Returns:
            the stage that has failed by that, if one has, and the reason with the number of deaths.
        """
        failed = None
        with self._lock:
            job, at = self._running.get(trial), self._progress.get(trial)
            left = self._left(job, at.stage) if job is not None and at is not None else ()
            if left and left[0].key not in self._failed:
                key = left[0].key
                if at is not None and at.fraction > self._reached.get(key, 0.0):
                    self._reached[key] = at.fraction
                    self._deaths[key] = 0  # it gets on, whatever its machines do
                died = self._deaths[key]
                self._deaths[key] += 1
                if died < len(_PAUSES):
                    if self._put_back(trial) is not None:
                        self._resting[key] = time.monotonic() + _PAUSES[died]
                        self._notes[f"{left[0].title} is begun again: {why}"] = None
                else:
                    failed = left[0], f"{died + 1} times: {why}" if died else why
                    self._failed[key] = f"{left[0].title}: {failed[1]}"
            self._running.pop(trial, None)
            self._progress.pop(trial, None)
            if failed is not None:
                self._block()
        return failed

    def snapshot(self) -> Snapshot:
        """How far everything is now."""
        with self._lock:
            # A trial that is about to end is still at its last stage, finished or failed.
            settled = self._finished | self._blocked | set(self._failed) | set(self._ended)
            held = self._elsewhere.keys() - settled
            speed = self._pace()
            running = tuple(
                r if speed is None else replace(r, expected=speed * self._work(r.stage))
                for r in self._progress.values()
                if r.stage.key not in settled | held
            )
            return Snapshot(
                total=len(self._plan.stages),
                found=len(self._found),
                done=len(self._finished) - len(self._found),
                running=running,
                waiting=len(self._plan.stages) - len(settled) - len(running) - len(held),
                elsewhere=len(held),
                failed=dict(self._failed),
                blocked=len(self._blocked),
                ended=dict(self._ended),
                seconds_left=self._seconds_left(),
                notes=tuple(self._notes),
                latest=tuple(self._latest),
            )

    def _finish(self, trial: str, stage: Stage, accuracy: float | None) -> None:
        if stage.key in self._finished or stage.key in self._ended:
            return
        self._finished.add(stage.key)
        self._blocked.discard(stage.key)  # it was at work when what it had read was done again
        elsewhere = self._elsewhere.pop(stage.key, None) is not None
        for child in self._children[stage.key]:
            self._offer(child)
        for child, needs in self._needs.items():
            if stage.key in needs:
                self._offer(child)
        at = self._progress[trial]
        if accuracy is not None and stage.kind != "rewind_point":
            self._latest.appendleft((stage.title, accuracy))
        seconds = time.monotonic() - at.since
        if elsewhere or seconds < _PASSED_SECONDS or stage.kind == "rewind_point":
            return  # done by another driver; or short, and the first thing that a new process does
        units, total = self._timed
        self._timed = units + self._work(stage), total + seconds

    def _keep_back(self, keys: Collection[str]) -> None:
        """Let the jobs that come of stages wait for these, even where all between is finished."""
        for first, needs in kept_back(self._jobs.values(), self._children, keys).items():
            self._needs[first] |= needs

    def _offer(self, key: str) -> None:
        """Note that the job that begins with a stage is ready, if its parents are done."""
        if self._is_ready(key):
            heapq.heappush(self._ready, (*rank(self._path[key], self._order[key]), key))

    def _is_ready(self, key: str) -> bool:
        held = self._elsewhere.get(key)
        looks_later = held is not None and time.monotonic() < held.due < math.inf
        if key not in self._jobs or key in self._resting or looks_later:
            return False
        needed = {*self._jobs[key].stages[0].parents, *self._needs.get(key, ())}
        return needed <= self._finished

    def _add(self, job: Job, order: int = 0) -> None:
        key = job.stages[0].key
        self._jobs[key] = job
        self._order.setdefault(key, order)
        self._offer(key)

    def _put_back(self, trial: str) -> Stage | None:
        """Take a trial's job back, from the stage on that it is at; returns that stage."""
        job = self._running.pop(trial, None)
        at = self._progress.pop(trial, None)
        if job is None or at is None:
            return None
        left = self._left(job, at.stage)
        if not left:
            return None
        key = left[0].key
        self._jobs[key] = Job(left)
        self._order.setdefault(key, self._order[job.stages[0].key])
        self._cut(key)
        return left[0] if key in self._jobs else None

    def _left(self, job: Job, at: Stage) -> tuple[Stage, ...]:
        """What is unfinished of a job, from the stage on that it is at."""
        rest = job.stages[job.stages.index(at) :]
        return tuple(s for s in rest if s.key not in self._finished and s.key not in self._ended)

    def _block(self) -> None:
        """Take the jobs that can no longer be done, or are ended, out of the queue."""
        todo = [*self._failed, *self._blocked]
        while todo:
            key = todo.pop()
            needing = (child for child, needs in self._needs.items() if key in needs)
            for child in (*self._children[key], *needing):
                if child not in self._finished and not self._is_lost(child):
                    self._blocked.add(child)
                    todo.append(child)
        if self._blocked or self._failed or self._ended:
            for key in list(self._jobs):
                self._cut(key)

    def _cut(self, key: str) -> None:
        """Take what can no longer be done off a job of the queue."""
        job = self._jobs[key]
        stages = tuple(takewhile(lambda s: not self._is_lost(s.key), job.stages))
        if not stages:
            del self._jobs[key]
        elif len(stages) < len(job.stages):
            self._jobs[key] = Job(stages)

    def _is_lost(self, key: str) -> bool:
        """Whether a stage has failed, is blocked or ended."""
        return key in self._blocked or key in self._failed or key in self._ended

    def _work(self, stage: Stage) -> float:
        """Work units of a stage, which take longer to be worked out than to be looked up."""
        found = self._works.get(stage.key)
        if found is None:
            found = self._works[stage.key] = work(stage)
        return found

    def _pace(self) -> float | None:
        """Seconds that a unit of work takes, by what was timed; None before that is known."""
        speed = self._speed
        units, seconds = self._timed
        if not units and speed is None:
            for r in self._progress.values():
                if r.told and r.fraction > 0 and r.stage.kind != "rewind_point":
                    units += self._work(r.stage) * r.fraction
                    seconds += r.told - r.since  # not what has passed since: it is not told yet
        return seconds / units if units else speed

    def _seconds_left(self) -> float | None:
        speed = self._pace()
        if speed is None:
            return None
        wanted = {
            stage.key
            for job in (*self._jobs.values(), *self._running.values())
            for stage in job.stages
            if stage.key not in self._finished and not self._is_lost(stage.key)
        }
        # In the order of the plan, in which parents come first, wherever their jobs are.
        left = {key: stage for key, stage in self._plan.stages.items() if key in wanted}
        done = {r.stage.key: r.fraction for r in self._progress.values()}
        works = {key: self._work(stage) * (1 - done.get(key, 0.0)) for key, stage in left.items()}
        return speed * bound(left, works, self._slots)
