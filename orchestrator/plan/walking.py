"""A plan walked in time: which stage begins when on a number of slots, and where that waits.

The driver gives the next job that is ready to whichever slot is free (``schedule.Schedule``), and a
job keeps its slot from its first stage to its last. That is list scheduling: the end is never
earlier than the whole work shared evenly, or than the longest path, and never later than both of
these one after the other (R. L. Graham, Bounds on Multiprocessing Timing Anomalies, 1969).
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.experiment.axes import OF_LINE
from orchestrator.plan.graph import Plan, kept_back, rank
from orchestrator.plan.stage import ANALYSIS, MEASURE, Stage, is_twin
from orchestrator.plan.summing import Spread

_AS_GOOD = 1.01
"""Times the longest path that a walk may take, where more slots are said to bring nothing."""


class Course:
    """What is left of a plan, to be walked with any number of slots."""

    def __init__(
        self,
        plan: Plan,
        done: Collection[str],
        costs: Mapping[str, float],
        *,
        again: Iterable[str] = (),
        launch: float = 0.0,
    ) -> None:
        """Begin with what the store holds.

        Args:
            plan: all stages.
            done: keys that are finished in the store, or ended.
            costs: how long each of the others takes, by key, in any unit.
            again: keys that are not finished although what is made of them may be, as those of
                ``Schedule``.
            launch: how long each job takes before its first stage.
        """
        done = {*done, *(key for key, stage in plan.stages.items() if stage.is_given)}
        jobs = plan.jobs(done)
        self.stages: tuple[Stage, ...] = tuple(s for k, s in plan.stages.items() if k not in done)
        number = {stage.key: index for index, stage in enumerate(self.stages)}
        self.costs = [float(costs[stage.key]) for stage in self.stages]
        """How long each stage takes, with the launch of its job where it is the first."""
        self._jobs = [[number[stage.key] for stage in job.stages] for job in jobs]
        for job in self._jobs:
            self.costs[job[0]] += launch
        path = plan.remaining_path()
        self._ranks = [(*rank(path[job.stages[0].key], i), i) for i, job in enumerate(jobs)]
        self._after: list[set[int]] = [
            {number[parent] for parent in stage.parents if parent not in done}
            for stage in self.stages
        ]
        held = kept_back(jobs, plan.children(), [key for key in again if key in number])
        for key, needs in held.items():
            self._after[number[key]] |= {number[one] for one in needs}
        self._unlocks: list[list[int]] = [[] for _ in self.stages]
        for index, job in enumerate(self._jobs):
            for before in sorted(self._after[job[0]]):
                self._unlocks[before].append(index)
        self.total = math.fsum(self.costs)
        """How long all takes, one after the other."""

    @functools.cached_property
    def path(self) -> tuple[int, ...]:
        """The longest chain of stages that wait for each other, first to last, by number.

        No number of slots makes it shorter.
        """
        ends, last = self._earliest
        if not ends:
            return ()
        at = max(range(len(ends)), key=ends.__getitem__)
        found = [at]
        while (at := last[at]) >= 0:
            found.append(at)
        return tuple(reversed(found))

    @functools.cached_property
    def leads(self) -> list[bool]:
        """Of each stage whether another one waits for it."""
        found = [bool(children) for children in self._unlocks]
        for job in self._jobs:
            for index in job[:-1]:
                found[index] = True
        return found

    @property
    def length(self) -> float:
        """How long the longest chain takes."""
        return max(self._earliest[0], default=0.0)

    @functools.cached_property
    def _earliest(self) -> tuple[list[float], list[int]]:
        """When each stage ends with slots enough, and which stage it waits for last."""
        ends: list[float] = []
        last: list[int] = []
        for cost, after in zip(self.costs, self._after, strict=True):  # parents come first
            before = max(sorted(after), key=ends.__getitem__, default=-1)
            ends.append(cost + (ends[before] if before >= 0 else 0.0))
            last.append(before)
        return ends, last

    def walk(self, slots: int | None = None) -> Walk:
        """Walk it with so many slots; with as many as can be of use when None.

        Raises:
            ValueError: there is not one slot.
        """
        if slots is not None and slots < 1:
            raise ValueError(f"a plan cannot be walked with {slots} slots")
        jobs, costs = self._jobs, self.costs
        needs = [len(self._after[job[0]]) for job in jobs]
        ready = [place for place in self._ranks if not needs[place[-1]]]
        heapq.heapify(ready)
        running: list[tuple[float, int, int]] = []  # its end, the job, and how far that is
        begins, ends = [0.0] * len(costs), [0.0] * len(costs)
        most, now = 0, 0.0
        room = len(jobs) if slots is None else slots

        def begin(job: int, at: int) -> None:
            stage = jobs[job][at]
            begins[stage], ends[stage] = now, now + costs[stage]
            heapq.heappush(running, (ends[stage], job, at))

        while ready or running:
            while ready and len(running) < room:
                begin(heapq.heappop(ready)[-1], 0)
            most = max(most, len(running))
            now = running[0][0]
            while running and running[0][0] <= now:
                _, job, at = heapq.heappop(running)
                for child in self._unlocks[jobs[job][at]]:
                    needs[child] -= 1
                    if not needs[child]:
                        heapq.heappush(ready, self._ranks[child])
                if at + 1 < len(jobs[job]):
                    begin(job, at + 1)
        return Walk(course=self, slots=slots or most, begins=begins, ends=ends, most=most)

    @functools.cached_property
    def width(self) -> int:
        """How many slots are at work at once at most, however many there are."""
        return self.walk().most

    @functools.cached_property
    def enough(self) -> int:
        """From which number of slots on more of them save less than a hundredth of the time.

        Found by halving; as one slot more may now and then cost time, a smaller one may do.
        """
        if not self.stages:
            return 0
        low, high = 1, max(self.width, 1)
        if self.length > 0:
            low = max(1, min(high, math.ceil(self.total / (self.length * _AS_GOOD))))
        while low < high:
            middle = (low + high) // 2
            if self.walk(middle).wall <= self.length * _AS_GOOD:
                high = middle
            else:
                low = middle + 1
        return low


@dataclass(frozen=True, kw_only=True)
class Walk:
    """When each stage begins and ends on a number of slots."""

    course: Course
    slots: int
    begins: list[float]
    """By the number of the stage in the course, from the begin of the first."""
    ends: list[float]
    most: int
    """Slots that are at work at once at most."""

    @property
    def wall(self) -> float:
        """When the last stage ends."""
        return max(self.ends, default=0.0)

    @property
    def idle(self) -> float:
        """The share of the slots' time in which nothing is done."""
        whole = self.slots * self.wall
        return max(0.0, 1 - self.course.total / whole) if whole else 0.0

    @property
    def speed_up(self) -> float:
        """How many times as long one slot alone would take."""
        return self.course.total / self.wall if self.wall else 1.0

    @property
    def is_bound_by_path(self) -> bool:
        """Whether more slots bring nothing, as the longest path takes as long."""
        return self.wall <= self.course.length * _AS_GOOD

    def profile(self, bins: int) -> list[float]:
        """How many slots are at work, on average in each of so many equal parts of the time."""
        if not self.wall:
            return [0.0] * bins
        at_work = Spread(zip(self.begins, self.ends, self.course.costs, strict=True))
        width = self.wall / bins
        return [one / width for one in at_work.within(width, bins)]

    def waits(self) -> list[Part]:
        """What is at work while slots that the plan could use have nothing to do: most idle first.

        An idle slot waits for those of the stages that are at work which something comes after, for
        each to the same part; where there is none left, for all. What differs by seed alone is told
        together.
        """
        useful = min(self.slots, self.course.width)
        changes = sorted({*self.begins, *self.ends})
        place = {time: index for index, time in enumerate(changes)}
        leads = self.course.leads
        steps = {True: [0] * len(changes), False: [0] * len(changes)}
        for begin, end, lead in zip(self.begins, self.ends, leads, strict=True):
            steps[lead][place[begin]] += 1
            steps[lead][place[end]] -= 1
        busy = {True: 0, False: 0}
        idle = {True: [0.0], False: [0.0]}  # until each change, for what is at work all the time
        for index in range(len(changes) - 1):
            for lead in busy:
                busy[lead] += steps[lead][index]
            lost = max(useful - sum(busy.values()), 0) * (changes[index + 1] - changes[index])
            for lead, count in busy.items():
                share = lost / count if count and (lead or not busy[True]) else 0.0
                idle[lead].append(idle[lead][-1] + share)
        found: dict[tuple[Any, ...], Part] = {}
        for index, stage in enumerate(self.course.stages):
            so_far = idle[leads[index]]
            own = so_far[place[self.ends[index]]] - so_far[place[self.begins[index]]]
            key = tuple(value for axis, value in _line(stage).items() if axis != "seed")
            found[key] = found.get(key, Part()).plus(stage, own)
        parts = [part for part in found.values() if part.cost > 0]
        return sorted(parts, key=lambda part: -part.cost)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some stages of one line, for people."""

    axes: Mapping[str, Any] = field(default_factory=dict)
    """``network``, ``method``, ``source``, ``transform``, ``ticket``, ``dataset``, and of some
    ``variant``, ``noise`` and ``measure``."""
    seeds: tuple[int, ...] = ()
    rounds: tuple[int, int] | None = None
    """The first and the last round, if there is one."""
    has_rewind_point: bool = False
    stages: int = 0
    cost: float = 0.0
    """How long they take, or what else was added up."""

    def plus(self, stage: Stage, cost: float) -> Part:
        """The same with one stage more."""
        axes = {axis: value for axis, value in _line(stage).items() if axis != "seed"}
        is_point = stage.kind == "rewind_point"
        rounds, number = self.rounds, stage.labels.get("round")
        if isinstance(number, int) and not is_point and stage.kind != ANALYSIS:
            first, last = rounds or (number, number)
            rounds = min(first, number), max(last, number)
        return Part(
            axes=axes,
            seeds=tuple(sorted({*self.seeds, stage.labels["seed"]})),
            rounds=rounds,
            has_rewind_point=self.has_rewind_point or is_point,
            stages=self.stages + 1,
            cost=self.cost + cost,
        )

    def told(self, *, dataset: bool = False) -> str:
        """As ``resnet20 imp, rewind point and rounds 0 to 8, seed 0``."""
        axes = self.axes
        text = str(axes["network"])
        text += f" <- {axes['source']} {axes['transform']}" if axes["source"] else ""
        text += f" {axes['method']}"
        text += f" from {axes['ticket']}" if axes["ticket"] else ""
        text = f"{axes['measure']} of {text}" if axes["measure"] else text
        text += f" on {axes['dataset']}" if dataset else ""
        text += f", {axes['variant']}" if axes["variant"] else ""
        text += f", noise {axes['noise']}" if axes["noise"] else ""
        what = ["rewind point"] if self.has_rewind_point else []
        if self.rounds is not None:
            first, last = self.rounds
            what.append(f"rounds {first} to {last}" if first < last else f"round {first}")
        text += f", {' and '.join(what)}" if what else ""
        seeds = ", ".join(map(str, self.seeds))
        if len(self.seeds) > 3 and self.seeds[-1] - self.seeds[0] == len(self.seeds) - 1:
            seeds = f"{self.seeds[0]} to {self.seeds[-1]}"
        return f"{text}, seed{'s' * (len(self.seeds) > 1)} {seeds}"

    def plain(self) -> dict[str, Any]:
        """As JSON values, without the cost."""
        return {
            **self.axes,
            "seeds": list(self.seeds),
            "rounds": None if self.rounds is None else list(self.rounds),
            "rewind_point": self.has_rewind_point,
            "stages": self.stages,
        }


def parts_of(course: Course) -> list[Part]:
    """The longest path: its stages, those of one line together."""
    found: list[tuple[dict[str, Any], Part]] = []
    for index in course.path:
        stage, cost = course.stages[index], course.costs[index]
        if found and found[-1][0] == _line(stage):
            found[-1] = found[-1][0], found[-1][1].plus(stage, cost)
        else:
            found.append((_line(stage), Part().plus(stage, cost)))
    return [part for _, part in found]


def _line(stage: Stage) -> dict[str, Any]:
    """What a stage has in common with others of its chain, or of its method: axes and the seed."""
    found = {axis: stage.labels.get(axis) or "" for axis in OF_LINE}
    is_chain = stage.kind == "rewind_point" or (stage.kind == "round" and not is_twin(stage))
    if is_chain and found["method"] in ("dense", "rewind"):
        found["method"] = "imp"  # it begins with both
    found[MEASURE] = stage.labels.get(MEASURE, "") if stage.kind == ANALYSIS else ""
    return {**found, "seed": stage.labels["seed"]}
