"""The variants of a grid that a run belongs to, as tags, which MLflow's pages show and filter by.

A run may be of one variant in a grid, of two in another and of none in a third, so the tag is by
grid, as ``variant.GRID``, and a stage is kept without any.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.experiment.variants import PLAIN
from orchestrator.plan.stage import VARIANT, Stage
from orchestrator.store.content import Content, all_labels

if TYPE_CHECKING:
    from orchestrator.store.tracker import Tracker

TAG = "variant."
"""What the name of such a tag begins with; that of the grid follows."""


def tags_of(grid: str, variants: Iterable[str | None]) -> dict[str, str]:
    """The tag of a run that is of some variants of a grid; none if it is of no variant.

    Args:
        grid: the grid's name.
        variants: names of variants; an empty one, or None, is the experiment itself.
    """
    names = list(dict.fromkeys(name or PLAIN for name in variants))
    return {f"{TAG}{grid}": ", ".join(names)} if names not in ([], [PLAIN]) else {}


def without_variant(stage: Stage) -> Stage:
    """A stage as it is kept with its run, whatever it is called in one grid."""
    labels = {name: value for name, value in stage.labels.items() if name != VARIANT}
    return replace(stage, labels=labels) if VARIANT in stage.labels else stage


def tell(tracker: Tracker, grid: str, content: Content) -> int:
    """Tag the runs of a grid that do not say yet of which of its variants they are; how many."""
    called = {
        key: tags_of(grid, [labels.get(VARIANT) for labels in all_labels(found)])
        for key, found in content.keys.items()
    }
    if not any(called.values()):
        return 0
    count = 0
    for run in tracker.search(f"tags.`grid.{grid}` = 'true'"):
        for name, value in called.get(run.data.tags.get("elth.key", ""), {}).items():
            if run.data.tags.get(name) != value:
                tracker.client.set_tag(run.info.run_id, name, value)
                count += 1
    return count
