"""Plans: the stages of an experiment, parents before children, and the jobs that trials do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.experiment.axes import OF_LINE
from orchestrator.plan.costs import work
from orchestrator.plan.stage import Stage, is_twin


@dataclass(frozen=True)
class Job:
    """Consecutive stages that one trial computes: the rounds of a chain share a process."""

    stages: tuple[Stage, ...]

    @property
    def key(self) -> str:
        """The key of the last stage."""
        return self.stages[-1].key


@dataclass(frozen=True)
class Plan:
    """All stages of an experiment, parents before children."""

    stages: Mapping[str, Stage]
    asked: tuple[str, ...] = ()
    """Keys of the stages that cells ask for; the others are on the way to them."""
    notes: tuple[str, ...] = ()
    """What a person should know before anything is trained."""
    kept: frozenset[str] = frozenset()
    """Keys of the stages whose trained weights are kept as an entry says so, or another stage needs
    them; those of rounds are kept anyway."""
    also: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    """What a stage is called besides, by key, where several variants or cells have it in common."""
    analyses: tuple[str, ...] = ()
    """Keys of the analyses, which train nothing."""

    def labels(self, key: str) -> list[Mapping[str, Any]]:
        """All that a stage is called; what it says itself comes first."""
        return [self.stages[key].labels, *self.also.get(key, ())]

    def children(self) -> dict[str, list[str]]:
        """For each key the keys of the stages that need it."""
        result: dict[str, list[str]] = {key: [] for key in self.stages}
        for key, stage in self.stages.items():
            for parent in stage.parents:
                result[parent].append(key)
        return result

    def jobs(self, finished: Collection[str] = ()) -> list[Job]:
        """Group the stages that are still to do; a chain's rounds go to one job."""
        chains: list[list[Stage]] = []
        tail: dict[str, list[Stage]] = {}
        for key, stage in self.stages.items():
            if key in finished:
                continue
            goes_on = stage.kind == "round" and "keep" not in stage.params and not is_twin(stage)
            chain = tail.pop(stage.parents[-1], None) if goes_on else None
            if chain is None:
                chain = []
                chains.append(chain)
            chain.append(stage)
            tail[key] = chain
        return [Job(tuple(chain)) for chain in chains]

    def remaining_path(self) -> dict[str, float]:
        """For each stage the work of the longest path that starts with it, in work units."""
        children = self.children()
        result: dict[str, float] = {}
        for key in reversed(list(self.stages)):
            below = max((result[child] for child in children[key]), default=0.0)
            result[key] = work(self.stages[key]) + below
        return result

    def alone(self) -> tuple[int, int]:
        """Trainings that it would take to do each line, and each cell, by itself.

        A line is a method with its source and plan on a network and seed; one chain serves all its
        rounds. A rewind point is no training of its own.
        """
        above: dict[str, frozenset[str]] = {}
        for key, stage in self.stages.items():
            own = () if stage.kind == "rewind_point" or stage.is_given else (key,)
            above[key] = frozenset(own).union(*(above[parent] for parent in stage.parents))
        lines: dict[tuple[Any, ...], frozenset[str]] = {}
        for key in self.asked:
            for labels in self.labels(key):
                axes = (labels.get(axis) for axis in (*OF_LINE, "seed"))
                line = tuple("imp" if value == "dense" else value for value in axes)
                lines[line] = lines.get(line, frozenset()) | above[key]
        return sum(map(len, lines.values())), sum(len(above[key]) for key in self.asked)


def rank(path: float, number: int) -> tuple[float, int]:
    """Which of the jobs that are ready comes first: the one with the least.

    Args:
        path: the work of the longest path that starts with the job; the longest comes first.
        number: its place in the plan, which decides where paths are as long.
    """
    return -path, number


def kept_back(
    jobs: Iterable[Job], children: Mapping[str, Collection[str]], again: Iterable[str]
) -> dict[str, set[str]]:
    """What jobs wait for beside their parents, by the key of their first stage.

    Args:
        jobs: what is to be done.
        children: for each key the keys of the stages that need it.
        again: stages that are done again: whatever comes of one waits for it, even where all
            between is finished, as all on the way may have to be done again.
    """
    firsts = {stage.key: job.stages[0].key for job in jobs for stage in job.stages}
    needs: dict[str, set[str]] = {}
    for key in again:
        below, todo = {key}, [key]
        while todo:
            new = [child for child in children.get(todo.pop(), ()) if child not in below]
            below.update(new)
            todo += new
        waiting = {firsts[one] for one in below if one in firsts}
        for first in waiting - {firsts.get(key)}:
            needs.setdefault(first, set()).add(key)
    return needs


def makespan(jobs: Iterable[Job], slots: int, finished: Collection[str] = ()) -> float:
    """Work units of wall time for jobs on ``slots`` trials at a time: the longer of two bounds.

    No schedule is shorter than the whole work shared evenly, or than the longest chain of stages
    that wait for each other.
    """
    stages = {s.key: s for job in jobs for s in job.stages if s.key not in finished}
    return bound(stages, {key: work(stage) for key, stage in stages.items()}, slots)


def bound(stages: Mapping[str, Stage], works: Mapping[str, float], slots: int) -> float:
    """As ``makespan``, of stages whose work units are known.

    Args:
        stages: by key; of a chain parents before children.
        works: of each stage, and maybe of others.
        slots: trials at a time.
    """
    ends: dict[str, float] = {}
    total = 0.0
    for key, stage in stages.items():
        begin = max((ends.get(parent, 0.0) for parent in stage.parents), default=0.0)
        own = works[key]
        ends[key] = begin + own
        total += own
    return max(total / max(slots, 1), max(ends.values(), default=0.0))
