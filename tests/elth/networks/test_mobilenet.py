"""MobileNet against the formula, layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from elth.errors import ElthError
from elth.networks import DataShape, blueprint, macs, prunable
from elth.specs import Spec
from tests.elth.networks.formula import linear, norm, trial

CIFAR = DataShape()

# Channels in and out of every block, and the side of what it makes of 32 pixels.
BLOCKS = [
    (32, 64, 32),
    (64, 128, 16),
    (128, 128, 16),
    (128, 256, 8),
    (256, 256, 8),
    (256, 512, 4),
    *[(512, 512, 4)] * 5,
    (512, 1024, 2),
    (1024, 1024, 2),
]


def test_forward_is_the_formula() -> None:
    state, x, logits = trial("mobilenet(width=1,repeats=2)", DataShape(size=18, classes=5))
    x = norm(F.conv2d(x, state["conv1.weight"], padding=1), state, "bn1").relu()
    for number, depth in enumerate((1, 2, 2, 3, 2), 1):
        for unit in range(depth):
            name = f"stage{number}.{unit}"
            x = F.conv2d(
                x,
                state[f"{name}.depthwise.weight"],
                stride=2 if number > 1 and unit == 0 else 1,
                padding=1,
                groups=x.shape[1],
            )
            x = norm(x, state, f"{name}.bn1").relu()
            x = F.conv2d(x, state[f"{name}.pointwise.weight"])
            x = norm(x, state, f"{name}.bn2").relu()
    expected = linear(x.mean((2, 3)), state, "fc")
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


def test_counts_by_hand() -> None:
    network = blueprint("mobilenet", CIFAR)
    weights = 3 * 9 * 32 + sum(9 * a + a * b for a, b, _ in BLOCKS) + 1024 * 10
    norms = 32 + sum(a + b for a, b, _ in BLOCKS)
    assert sum(network.get_parameter(name).numel() for name in prunable(network)) == weights
    assert sum(p.numel() for p in network.parameters()) == weights + 2 * norms + 10


def test_macs_by_hand() -> None:
    blocks = sum((9 * a + a * b) * side**2 for a, b, side in BLOCKS)
    expected = 3 * 9 * 32 * 32**2 + blocks + 1024 * 10
    assert macs(Spec("mobilenet"), CIFAR) == expected


def test_anatomy() -> None:
    anatomy = blueprint("mobilenet(repeats=3)", CIFAR).anatomy
    assert [len(stage.units) for stage in anatomy.stages] == [1, 2, 2, 4, 2]
    assert all(stage.fixed == (0,) for stage in anatomy.stages)
    assert anatomy.stages[3].units == ("stage4.0", "stage4.1", "stage4.2", "stage4.3")
    assert (anatomy.family, anatomy.head, anatomy.unpruned) == ("mobilenet", "fc", ())


def test_a_small_image_is_refused() -> None:
    with pytest.raises(
        ElthError, match="a MobileNet halves its image four times .* at least 16, found 15"
    ):
        blueprint("mobilenet", DataShape(size=15))
