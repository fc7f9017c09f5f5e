"""What a numerics class tells beside which bits are equal."""

from __future__ import annotations

import pytest

from orchestrator.store.classes import takes_as_long

CPU = "cpu-AuthenticAMD-AVX2-AVX2/torch-2.13.0/threads-1/workers-{}/eager/elth-2"
GPU = "NVIDIA H100/torch-2.13.0/threads-8/workers-{}/compiled/elth-2"


@pytest.mark.parametrize(
    ("name", "gpus", "workers", "tells"),
    [
        (CPU.format(1), 0, 1, True),
        (CPU.format(1), 0.25, 1, False),
        (CPU.format(2), 0, 1, False),
        (GPU.format(1), 1, 1, True),
        (GPU.format(1), 0, 1, False),
        (GPU.format(8), 1, 1, False),
        (f"{CPU.format(1)} then {GPU.format(1)}", 1, 1, False),
        (f"{GPU.format(1)} then {GPU.format(1)}", 1, 1, True),
        ("", 1, 4, True),
    ],
)
def test_times_of_other_devices_and_of_more_workers_tell_nothing(
    name: str, gpus: float, workers: int, tells: bool
) -> None:
    """A grid that was begun on a laptop's cores would have its hours told for a GPU."""
    assert takes_as_long(name, gpus=gpus, workers=workers) is tells
