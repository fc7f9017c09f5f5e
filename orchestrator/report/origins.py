"""What a grid was computed by: versions, commits and machines, as the runs of its stages tell.

Of ten thousand runs no one reads all tags. The store is asked for a run with another value than
those that are known, until there is none.
"""

from __future__ import annotations

from collections.abc import Mapping

from mlflow.exceptions import MlflowException

from orchestrator.store.opening import STAGES
from orchestrator.store.tracker import Tracker

_TAGS: Mapping[str, str] = {
    "elth": "version.elth",
    "commit": "mlflow.source.git.commit",
    "Python": "version.python",
    "PyTorch": "version.torch",
    "torchvision": "version.torchvision",
    "Ray": "version.ray",
    "MLflow": "version.mlflow",
    "machine": "machine",
}
"""What is told, and the tag of a run that tells it. Who and on which host is nobody's business."""

_MOST = 8
"""Values of one kind that are asked for."""


def origins(tracker: Tracker, grid: str) -> dict[str, tuple[str, ...]]:
    """What the runs of a grid were computed by, sorted; what none of them tells is left out."""
    found: dict[str, tuple[str, ...]] = {}
    for name, tag in _TAGS.items():
        values = _values(tracker, grid, tag)
        if values:
            found[name] = tuple(sorted(values))
    return found


def _values(tracker: Tracker, grid: str, tag: str) -> list[str]:
    """The values of a tag; none of a store that cannot tell."""
    values: list[str] = []
    while len(values) < _MOST:
        text = f"tags.`grid.{grid}` = 'true' and attributes.status = 'FINISHED'"
        text += "".join(f" and tags.`{tag}` != '{value}'" for value in ("", *values))
        try:
            runs = tracker.client.search_runs(
                [tracker.experiments[STAGES]], filter_string=text, max_results=1
            )
        except MlflowException:
            break
        if not runs or "'" in (value := runs[0].data.tags.get(tag, "'")) or value in values:
            break
        values.append(value)
    return values
