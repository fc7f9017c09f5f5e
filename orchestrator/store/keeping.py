"""Trained weights: which stages of a plan shall keep them, and were finished without.

What an entry keeps is in no key: a stage that was finished before anyone asked for its weights is
finished, and is not trained again by itself. A note says so, with the way to have them. But where
an analysis that is yet to be done needs them, it is trained again, and compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.plan.analysing import weights_of
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import ANALYSIS, Stage
from orchestrator.store.listing import Tracked
from orchestrator.store.marks import TIDIED

if TYPE_CHECKING:
    from orchestrator.store.tracker import Tracker

_NAMED = 3


def _lacking(
    tracker: Tracker, plan: Plan, finished: Mapping[str, Tracked], keys: Collection[str]
) -> list[Stage]:
    """Those of some stages that are finished and have no trained weights."""
    there = [key for key in plan.stages if key in keys and key in finished]
    if not there:
        return []
    gone = {run.info.run_id for run in tracker.search(f"tags.`{TIDIED}` LIKE '%'")}
    return [
        plan.stages[key]
        for key in there
        if not finished[key].has_weights or finished[key].run_id in gone
    ]


@dataclass(frozen=True, kw_only=True)
class Weightless:
    """Finished stages of a plan that have no trained weights, and shall have them."""

    needed: tuple[Stage, ...] = ()
    """Those that are trained again, as a stage that is yet to be done needs them."""
    asked: tuple[Stage, ...] = ()
    """Those that an entry of the grid asks for, which are left as they are."""


def weightless(
    tracker: Tracker, plan: Plan, finished: Mapping[str, Tracked], ended: Collection[str] = ()
) -> Weightless:
    """What is to be trained again for its weights, and what is not.

    Args:
        tracker: of the store.
        plan: what is asked for.
        finished: the stages that are finished, by key.
        ended: keys of those that are not done as their chain has ended.
    """
    keys = plan.kept | needed_by(plan.stages.values(), plan.stages)
    found = {stage.key: stage for stage in _lacking(tracker, plan, finished, keys)}
    needed: frozenset[str] = frozenset()
    more = True
    while found and more:  # what is trained again may need weights itself
        todo = (s for k, s in plan.stages.items() if k not in ended)
        todo = (s for s in todo if s.key in needed or s.key not in finished)
        now = needed_by(todo, plan.stages) & found.keys()
        needed, more = now, now != needed
    return Weightless(
        needed=tuple(stage for key, stage in found.items() if key in needed),
        asked=tuple(s for k, s in found.items() if k not in needed and k in plan.kept),
    )


def needed_by(stages: Iterable[Stage], known: Mapping[str, Stage]) -> frozenset[str]:
    """Keys of stages whose trained weights some others need, which cannot be done without.

    An analysis looks at what ``weights_of`` tells, and a training that is repelled from earlier
    ones at those of its last. What a round of a chain needs is found out when it is done.

    Args:
        stages: those that are to be done.
        known: all stages of the plan, by key.
    """
    found: set[str] = set()
    for stage in stages:
        if stage.kind == ANALYSIS:
            found.update(weights_of(stage, known))
        elif "repel" in stage.params:
            found.add(stage.parents[-1])
    return frozenset(found)


def notes_of(found: Weightless) -> list[str]:
    """What a person should know of stages that were finished without their weights."""
    notes = []
    if found.needed:
        notes.append(
            f"{len(found.needed)} finished stages are trained again and compared, as their trained "
            f"weights are needed and were not kept, or let go ({_named(found.needed)})"
        )
    return notes + note_of(found.asked)


def _named(stages: Sequence[Stage]) -> str:
    more = f" and {len(stages) - _NAMED} more" if len(stages) > _NAMED else ""
    return ", ".join(stage.title for stage in stages[:_NAMED]) + more


def note_of(stages: Sequence[Stage]) -> list[str]:
    """What a person should know of stages whose weights an entry asks for in vain."""
    if not stages:
        return []
    return [
        f"{len(stages)} stages were finished without the trained weights that keep: weights asks "
        f"for, and are not trained again for it ({_named(stages)}): elth run CONFIG --redo "
        f"'{stages[0].title}' does one again, compares, and keeps them"
    ]
