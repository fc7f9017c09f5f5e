"""Trained weights: which stages of a plan shall keep them, and were finished without.

What an entry keeps is in no key: a stage that was finished before anyone asked for its weights is
finished, and is not trained again by itself. A note says so, with the way to have them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import Stage
from orchestrator.store.files import told_by
from orchestrator.store.listing import Tracked

if TYPE_CHECKING:
    from orchestrator.store.tracker import Tracker

TRAINED = "trained.safetensors"
"""The file of a result with the trained weights."""

_RESULT = "result"
_NAMED = 3


def without_weights(
    tracker: Tracker, plan: Plan, finished: Mapping[str, Tracked]
) -> Sequence[Stage]:
    """The finished stages of a plan that shall keep their trained weights, and have none.

    Args:
        tracker: of the store.
        plan: what is asked for.
        finished: the stages that are finished, by key.
    """
    found = []
    for key, stage in plan.stages.items():
        if key in plan.kept and key in finished:
            run_id = finished[key].run_id
            files = told_by(tracker.client.get_run(run_id).data.tags)
            if TRAINED not in (tracker.files.sizes(run_id, _RESULT) if files is None else files):
                found.append(stage)
    return found


def note_of(stages: Sequence[Stage]) -> list[str]:
    """What a person should know of stages that were finished without their weights."""
    if not stages:
        return []
    named = ", ".join(stage.title for stage in stages[:_NAMED])
    more = f" and {len(stages) - _NAMED} more" if len(stages) > _NAMED else ""
    return [
        f"{len(stages)} stages were finished without the trained weights that keep: weights asks "
        f"for, and are not trained again for it ({named}{more}): elth run CONFIG --redo "
        f"'{stages[0].title}' does one again, compares, and keeps them"
    ]
