"""Trained weights that a person lets go: of each chain of a grid, those of all rounds but the last.

They are most of what a store holds, and only the next round needs them, which is finished. A round
without them is whole: its mask is there, its report is the same, and a tag says that they were let
go. The last round of each chain keeps its own, so that the chain can go on. Whoever needs others,
as a longer chain at another rate or an exact sparsity between two rounds, has them trained again
(``redo``), and the two results are compared by the digests that each run tells.

The tags are set before a file is removed: cut off between the two, the file is there, which does no
harm, and the same command goes on.

What is yet to be done in any grid of the store keeps what it needs: an analysis the weights of all
that it looks at, a round or its twin those of the round before, a training that is repelled those
of all that it is repelled from. An analysis that is finished needs them no more. So do those for
which an entry of any grid says ``keep: weights``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from elth import plugins
from elth.errors import ElthError
from orchestrator.experiment import Experiment
from orchestrator.plan.analysing import weights_of
from orchestrator.plan.building import build
from orchestrator.plan.ending import is_round, link_of
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import ANALYSIS, Stage, is_twin
from orchestrator.store.content import Content
from orchestrator.store.files import FILES
from orchestrator.store.listing import Tracked, stage_of
from orchestrator.store.marks import TIDIED, is_finished, mark_of
from orchestrator.store.redo import reasons
from orchestrator.store.result import OPTIONAL, files_of
from orchestrator.store.tracker import RESULT, Tracker
from orchestrator.store.users import at_work

_PART = "trained"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Trained weights of a grid's rounds that may go."""

    grid: str
    runs: tuple[Run, ...]
    size: int
    """Bytes of their files."""
    kept: int
    """Rounds whose weights stay, as the last of their chains."""
    needed: int
    """Rounds whose weights stay, as something that is yet to be done needs them, or an entry says
    so (``keep: weights``), in any grid."""
    others: tuple[str, ...]
    """Other grids that have some of these rounds, too."""


def look(tracker: Tracker, grid: str) -> Weights:
    """Find the weights that may go; nothing is written.

    Raises:
        ElthError: there is no such grid, or somebody is at work on it.
    """
    keys = tracker.grids.keys(grid)
    known = tracker.stages()
    goes_on = {
        link_of(one.stage).after
        for one in known
        if one.status == "finished" and is_round(one.stage) and not one.stage.labels.get("target")
    }
    needed = needed_weights(tracker, known) | _asked_for(tracker)
    runs, size, kept, wanted, names = [], 0, 0, 0, {grid}
    for run in tracker.search():
        key = run.data.tags.get("elth.key", "")
        if key not in keys or not is_finished(run) or mark_of(run):
            continue
        found, stage = _size(tracker, run), stage_of(run)
        if not found or not (key in goes_on or link_of(stage).after):
            continue
        if key in needed:
            wanted += 1
        elif key in goes_on or is_twin(stage):
            runs.append(run)
            size += found
            names |= {t.removeprefix("grid.") for t in run.data.tags if t.startswith("grid.")}
        else:
            kept += 1
    mine = [r for r in tracker.search("attributes.status = 'RUNNING'") if _is_in(r, keys)]
    busy = at_work(tracker, mine, sorted(names))
    if busy:
        raise ElthError(
            f"weights of the grid {grid} cannot be let go now: {busy[0]}; stop it first"
        )
    return Weights(
        grid=grid,
        runs=tuple(runs),
        size=size,
        kept=kept,
        needed=wanted,
        others=tuple(sorted(names - {grid})),
    )


def needed_weights(tracker: Tracker, known: Sequence[Tracked]) -> frozenset[str]:
    """Keys of the stages whose trained weights something needs that is yet to be done, in any grid.

    Args:
        tracker: of the store.
        known: its stages, as ``Tracker.stages`` lists them.

    Raises:
        ElthError: it cannot be told what a grid is made of.
    """
    stages = {one.key: one.stage for one in known}
    finished = {one.key: one for one in known if one.status == "finished"}
    settled = finished.keys() - reasons(tracker, known).keys()
    todo: set[str] = set()
    for grid in tracker.grids.names():
        if not tracker.grids.is_begun(grid):
            continue
        content = tracker.grids.content(grid)
        left = content.keys.keys() - settled
        left -= content.ended({key: finished[key] for key in settled & content.keys.keys()}).keys()
        if not left <= stages.keys():  # what was never begun, only its plan tells of
            stages |= _planned(content)
        lost = left - stages.keys()
        if lost:
            raise ElthError(
                f"it cannot be told which weights {len(lost)} stages of the grid {grid} need that "
                "are yet to be done, as its plan cannot be worked out here: finish it by elth run "
                "with its file, or remove it by elth rm"
            )
        todo |= left
    return _needed(todo, stages, {key for key in settled if finished[key].has_weights})


def _asked_for(tracker: Tracker) -> frozenset[str]:
    """Keys of the stages whose trained weights an entry of a grid keeps.

    Of a grid whose plan cannot be worked out here, as code from outside is in it, they are all.
    """
    found: set[str] = set()
    for grid in tracker.grids.names():
        if not tracker.grids.is_begun(grid):
            continue
        content = tracker.grids.content(grid)
        if any(entry.get("keep") for entry in content.experiment.get("grid", ())):
            built = _plan_of(content)
            found |= content.keys.keys() if built is None else built.kept
    return frozenset(found)


def _planned(content: Content) -> Mapping[str, Stage]:
    """The stages of a grid; none if its plan cannot be worked out here."""
    built = _plan_of(content)
    return {} if built is None else built.stages


def _plan_of(content: Content) -> Plan | None:
    try:
        with plugins.closed():  # a store has nothing run
            return build(Experiment.model_validate(content.experiment), is_stored=True)
    except (ElthError, ValidationError):
        return None


def _needed(
    todo: Iterable[str], stages: Mapping[str, Stage], have: Collection[str]
) -> frozenset[str]:
    """What some stages need, and what is to be trained again for them needs in its turn."""
    found: set[str] = set()
    left = list(todo)
    while left:
        for key in _needs(stages[left.pop()], stages):
            if key not in found:
                found.add(key)
                if key not in have and key in stages:
                    left.append(key)
    return frozenset(found)


def _needs(stage: Stage, stages: Mapping[str, Stage]) -> Iterator[str]:
    """Keys of the stages whose trained weights a stage needs."""
    if stage.kind == ANALYSIS:
        yield from weights_of(stage, stages)
        return
    if link_of(stage).after:
        yield link_of(stage).after
    one: Stage | None = stage
    while one is not None and "repel" in one.params:
        yield one.parents[-1]
        if stage.params.get("repel_from") == "previous":
            return
        one = stages.get(one.parents[-1])


def _is_in(run: Run, keys: dict[str, dict[str, object]]) -> bool:
    return run.data.tags.get("elth.key") in keys


def _size(tracker: Tracker, run: Run) -> int:
    """Bytes of a run's trained weights; 0 if it has none."""
    told = files_of(stage_of(run), run.data.tags)
    names = [name for name in OPTIONAL if name in told]
    if names and all(told[name] is not None for name in names):
        return sum(told[name] or 0 for name in names)
    if not names and TIDIED not in run.data.tags:
        return 0
    there = tracker.files.sizes(run.info.run_id, RESULT)
    return sum(there.get(name, 0) for name in OPTIONAL)


def let_go(tracker: Tracker, weights: Weights) -> Iterator[Run]:
    """Remove the weights, run by run.

    Raises:
        DamagedError, AbsentError: a result is not whole, so it is not known what was let go.
        ElthError: the store does not let files be removed.
    """
    for run in weights.runs:
        if TIDIED not in run.data.tags:
            _tell(tracker, run)
        for name in OPTIONAL:
            if name in tracker.files.sizes(run.info.run_id, RESULT):
                try:
                    tracker.files.remove(run.info.run_id, f"{RESULT}/{name}")
                except (MlflowException, OSError, NotImplementedError) as error:
                    raise ElthError(
                        f"{name} of run {run.info.run_id} cannot be removed: {error}"
                    ) from error
        yield run
    tracker.forget()


def _tell(tracker: Tracker, run: Run) -> None:
    """Tell in a run's tags what it will have, and the digests of all that it had."""
    stage = stage_of(run)
    tags = {}
    if f"elth.{_PART}_sha256" not in run.data.tags:  # of before: what it was could not be compared
        result = tracker.result_of(stage, run)
        tags = {f"elth.{part}_sha256": digest for part, digest in result.digests.items()}
    there = tracker.files.sizes(run.info.run_id, RESULT)
    wanted = files_of(stage, run.data.tags)
    left = {
        name: there[name] if size is None else size
        for name, size in wanted.items()
        if name not in OPTIONAL
    }
    tags |= {FILES: json.dumps(left), TIDIED: datetime.now(UTC).isoformat(timespec="seconds")}
    given = [RunTag(name, value) for name, value in tags.items()]
    tracker.client.log_batch(run.info.run_id, tags=given)
