"""How a plan stands in a store: what of it counts as finished, what has ended, what is to be done.

``elth run`` goes by it, and ``elth plan`` and ``elth resume`` tell of the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.experiment.pruning import Stop
from orchestrator.plan.ending import ended, links_of, verdicts
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import Stage
from orchestrator.store.keeping import Weightless, weightless
from orchestrator.store.listing import Tracked

if TYPE_CHECKING:
    from orchestrator.store.tracker import Tracker


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a plan stands; every key is one of its stages."""

    plan: Plan
    finished: Mapping[str, Tracked]
    """What is finished and stays so: the first run of each key."""
    again: frozenset[str]
    """What is finished in the store and yet to do, that which has ended included."""
    last: Mapping[str, str]
    """Rounds that are the last of their chain, each with the reason, as of ``ending.verdicts``."""
    over: Mapping[str, str]
    """What is not done as its chain has ended, each with the reason, whatever was done of it."""
    short: Weightless
    """What was finished without its trained weights; what of it is needed is among ``again``."""

    @property
    def todo(self) -> list[Stage]:
        """The stages that are yet to do, parents before children."""
        done = self.finished.keys() | self.over.keys()
        return [stage for key, stage in self.plan.stages.items() if key not in done]


def standing_of(
    tracker: Tracker,
    plan: Plan,
    tracked: Iterable[Tracked],
    again: Collection[str] = (),
    stop: Stop | None = None,
) -> Standing:
    """How a plan stands in a store.

    Args:
        tracker: of the store.
        plan: what is asked for.
        tracked: the stages of the store, as ``Tracker.stages`` lists them.
        again: keys that are finished and yet to do, as of ``redo.waiting``.
        stop: where chains end, ``pruning.stop``.
    """
    found: dict[str, Tracked] = {}
    for one in tracked:
        if one.status == "finished" and one.key in plan.stages and one.key not in again:
            found.setdefault(one.key, one)
    last = verdicts(stop, found)
    over = ended(links_of(plan.stages), last)  # first, whatever was done of it before
    finished = {key: one for key, one in found.items() if key not in over}
    short = weightless(tracker, plan, finished, over)
    needed = {stage.key for stage in short.needed}
    return Standing(
        plan=plan,
        finished={key: one for key, one in finished.items() if key not in needed},
        again=frozenset(again) & plan.stages.keys() | needed,
        last=last,
        over=over,
        short=short,
    )
