"""How many trials find room."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.experiment.sections import Resources
from orchestrator.plan.places import trials_on, workers_on


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "count"),
    [
        ({"cpus": 4}, 10, 8, 2),
        ({"gpus": 1}, None, 8, 8),
        ({"gpus": 0.5}, None, 8, 16),
        ({"gpus": 0.3}, None, 2, 6),  # three on each, whatever is left of it
        ({"gpus": 0.4}, None, 5, 10),  # two on each: none lies across two, as .4 * 12 < 5
        ({"gpus": 0.25, "cpus": 2}, 12, 8, 6),
        ({"gpus": 1}, 64, 0, 0),
    ],
)
def test_workers_on_a_machine(
    resources: dict[str, Any], cpus: int | None, gpus: int, count: int
) -> None:
    assert workers_on(Resources.model_validate(resources), cpus=cpus, gpus=gpus) == count


def test_cores_that_are_not_known_bound_nothing() -> None:
    with pytest.raises(ValueError, match="it is not said how many there are"):
        workers_on(Resources(), cpus=None, gpus=8)


@pytest.mark.parametrize(
    ("workers", "placement", "room", "count"),
    [
        (1, "pack", [8, 8], 16),
        (3, "pack", [8, 8], 5),
        (3, "spread", [8, 8], 5),
        (3, "strict_pack", [8, 8], 4),
        (16, "strict_pack", [8, 8], 0),
        (3, "strict_spread", [8, 8], 0),
        (2, "strict_spread", [8, 8], 8),
        (2, "strict_spread", [8, 1], 1),  # each has one on the second, which has room for one
        (2, "strict_spread", [5, 2, 2], 4),  # four on the first, and two on each of the others
        (2, "pack", [], 0),
    ],
)
def test_trials_on_machines(workers: int, placement: Any, room: list[int], count: int) -> None:
    assert trials_on(Resources(workers=workers, placement=placement), room) == count
