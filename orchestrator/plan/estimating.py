"""How long a plan takes here, before any of it was done: from steps that this machine has timed.

A stage takes its iterations, and after each epoch a look at the test images, which go forward only:
a third of the work of an image that is trained on.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from elth.errors import ElthError
from elth.recipes import Recipe
from elth.step_times import Step
from orchestrator.plan.costs import work
from orchestrator.plan.stage import (
    ANALYSIS,
    Stage,
    dataset_of,
    iterations,
    per_epoch,
    shape_of,
    sizes_of,
)

_STAGE_SECONDS = 0.2
"""Of a stage, whatever it trains."""
GROUP_SECONDS = 15.0
"""Of a job of several workers, until its first stage begins: Ray Train places and starts them; 11
to 18 s, measured."""
START_SECONDS = 10.0
"""Until the first stage begins: Ray and a process that imports torch; 8 to 12 s, measured."""


@dataclass(frozen=True)
class Trained:
    """What decides how long an iteration takes."""

    network: str
    dataset: str
    recipe: Recipe

    def __str__(self) -> str:
        return f"{self.network} on {self.dataset} in batches of {self.recipe.batch_size}"


def trained(stages: Iterable[Stage]) -> dict[Trained, Stage]:
    """What some stages train, each with the first stage that does."""
    found: dict[Trained, Stage] = {}
    for stage in stages:
        if not stage.is_given and stage.kind != ANALYSIS:
            found.setdefault(_trained(stage), stage)
    return found


def _trained(stage: Stage) -> Trained:
    return Trained(stage.params["network"], dataset_of(stage), stage.recipe)


def step_of(
    stage: Stage, *, threads: int, device: str = "cpu", kind: str = "", compiled: bool = False
) -> Step:
    """The iteration of a stage, as it is remembered."""
    return Step(
        network=stage.params["network"],
        image=shape_of(stage).image,
        recipe=stage.recipe,
        threads=threads,
        device=device,
        kind=kind,
        compiled=compiled,
    )


def known_steps(
    stages: Iterable[Stage],
    *,
    threads: int,
    device: str,
    compiled: Mapping[Trained, bool],
    kind: str = "",
) -> dict[Trained, float]:
    """Seconds of an iteration, of what was timed on this machine before.

    Args:
        stages: what is to be done.
        threads: of a trial.
        device: ``cpu`` or ``cuda``.
        compiled: what is compiled; where only the same uncompiled was timed, that is taken.
        kind: the name of the GPU.
    """
    found = {}
    for what, stage in trained(stages).items():
        ways = [True, False] if compiled.get(what) and device == "cpu" else [compiled.get(what)]
        for way in ways:
            step = step_of(stage, threads=threads, device=device, kind=kind, compiled=bool(way))
            if (seconds := step.known()) is not None:
                found[what] = seconds
                break
    return found


def epochs(stage: Stage) -> int:
    """How many epochs a stage tells of, those that it trains in part among them."""
    if stage.is_given or stage.kind == ANALYSIS:
        return 0
    start, stop = iterations(stage)
    whole = per_epoch(stage)
    return math.ceil(stop / whole) - start // whole if stop > start else 0


def seconds_of(stage: Stage, step: float) -> float:
    """How long a stage takes whose iteration takes so many seconds."""
    start, stop = iterations(stage)
    looks = sizes_of(stage)[1] / stage.recipe.batch_size / 3
    return _STAGE_SECONDS + step * (stop - start + epochs(stage) * looks)


def pace(stages: Iterable[Stage], steps: Mapping[Trained, float]) -> tuple[float, bool] | None:
    """Seconds that a unit of work takes, and whether all that is trained was timed.

    What was not timed is taken to be as fast or slow as the rest. None where nothing was timed.
    """
    seconds = units = 0.0
    is_whole = True
    for stage in stages:
        if stage.is_given or stage.kind == ANALYSIS:
            continue
        step = steps.get(_trained(stage))
        if step is None:
            is_whole = False
            continue
        try:
            seconds, units = seconds + seconds_of(stage, step), units + work(stage)
        except ElthError:  # of a dataset whose manifest is gone
            is_whole = False
    return (seconds / units, is_whole) if units else None


@dataclass(frozen=True, kw_only=True)
class Costs:
    """How long each stage takes."""

    seconds: Mapping[str, float]
    """By key."""
    is_whole: bool
    """Whether all that is trained was timed; else the rest is taken to be as fast or slow."""


def costs_by_steps(stages: Sequence[Stage], steps: Mapping[Trained, float]) -> Costs | None:
    """How long stages take, from the iterations that were timed; None where none was."""
    known = pace(stages, steps)
    if known is None:
        return None
    ratio, is_whole = known
    found = {}
    for stage in stages:
        is_trained = not stage.is_given and stage.kind != ANALYSIS
        step = steps.get(_trained(stage)) if is_trained else None
        found[stage.key] = ratio * work(stage) if step is None else seconds_of(stage, step)
    return Costs(seconds=found, is_whole=is_whole)


def costs_by_finished(
    stages: Sequence[Stage], finished: Iterable[tuple[Stage, float]]
) -> Costs | None:
    """How long stages take, from what others took; None where none is of their networks.

    What trains the same network by the same recipe on the same data takes as long for each
    iteration; what nothing finished has trained, as long for its work as the rest.

    Args:
        stages: what is to be done.
        finished: what was done, each with its seconds. A rewind point is short, and the first thing
            that a new process does: it tells nothing.
    """
    networks = {stage.params["network"] for stage in stages}
    sums: dict[Hashable, tuple[float, float]] = {}
    for stage, seconds in finished:
        if stage.kind == "rewind_point" or stage.is_given:
            continue
        if stage.params["network"] not in networks:
            continue
        with contextlib.suppress(ElthError):  # of a dataset whose module or manifest is gone
            own = work(stage)
            for what in (None, _timed_with(stage)):
                before = sums.get(what, (0.0, 0.0))
                sums[what] = before[0] + seconds, before[1] + own
    if None not in sums:
        return None
    ratios = {what: seconds / units for what, (seconds, units) in sums.items() if units}
    alike = {stage.key: _timed_with(stage) for stage in stages if not stage.is_given}
    return Costs(
        seconds={
            stage.key: work(stage) * ratios.get(alike.get(stage.key), ratios[None])
            for stage in stages
        },
        is_whole=all(what in ratios for what in alike.values()),
    )


def _timed_with(stage: Stage) -> Hashable:
    """What stages have in common of which one tells how long the others take."""
    if stage.kind == ANALYSIS:
        return stage.params["measure"], stage.params["network"]
    return _trained(stage)
