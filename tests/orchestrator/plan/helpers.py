"""A grid of every kind of stage, and its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator import plan
from tests.orchestrator.helpers import experiment

CONFIGS = Path(__file__).parents[3] / "tune_configs"

GRID: list[dict[str, Any]] = [
    {"method": "imp", "network": "resnet14"},
    {
        "method": "ett",
        "source": "resnet14",
        "network": "resnet20",
        "transform": "append",
        "round": 10,
    },
    {"method": "magnitude", "network": "resnet20", "round": 10},
    {"method": ["reinit", "random"], "network": "resnet14", "round": 10},
]


def grid_keys(**changes: Any) -> dict[str, str]:
    """Keys by title, of the stages of ``GRID``."""
    built = plan.build(experiment(**{"grid": GRID, **changes}))
    return {stage.title: key for key, stage in built.stages.items()}


REWIND = "resnet14 rewind point, seed 0"
DENSE = "resnet14 dense round 0, seed 0"
ROUND = "resnet14 round 3, seed 0"
ETT = "resnet20 <- resnet14 append round 10, seed 0"
MAGNITUDE = "resnet20 magnitude round 10, seed 0"
STRETCH = {"source": "resnet14", "network": "resnet32"}

SHORT = {"base": "cifar10_resnet", "length": "5ep", "milestones": []}
"""Of 391 iterations each."""
