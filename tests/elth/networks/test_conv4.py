"""Conv-4 against the formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from elth.errors import ElthError
from elth.networks import DataShape, blueprint
from tests.elth.networks.formula import conv3, linear, trial


@pytest.mark.parametrize("size", [8, 10])
def test_forward_is_the_formula(size: int) -> None:
    state, x, logits = trial("conv4(width=2)", DataShape(channels=3, size=size, classes=5))
    for name in ("stage1.0", "stage1.1", "pool", "stage2.0", "stage2.1", "pool"):
        x = F.max_pool2d(x, 2) if name == "pool" else conv3(x, state, name).relu()
    x = linear(x.flatten(1), state, "linear").relu()
    x = linear(linear(x, state, "tail.0").relu(), state, "fc")
    torch.testing.assert_close(logits, x, rtol=1e-10, atol=1e-10)


def test_shapes_and_anatomy() -> None:
    network = blueprint("conv4", DataShape())
    shapes = {n: tuple(t.shape) for n, t in network.state_dict().items() if n.endswith("weight")}
    assert shapes == {
        "stage1.0.weight": (64, 3, 3, 3),
        "stage1.1.weight": (64, 64, 3, 3),
        "stage2.0.weight": (128, 64, 3, 3),
        "stage2.1.weight": (128, 128, 3, 3),
        "linear.weight": (256, 8192),
        "tail.0.weight": (256, 256),
        "fc.weight": (10, 256),
    }
    anatomy = network.anatomy
    assert [(s.name, s.units, s.fixed) for s in anatomy.stages] == [
        ("stage1", ("stage1.0", "stage1.1"), (0,)),
        ("stage2", ("stage2.0", "stage2.1"), (0,)),
        ("tail", ("tail.0",), ()),
    ]
    assert (anatomy.family, anatomy.head, anatomy.unpruned) == ("conv4", "fc", ())


def test_a_small_image_is_refused() -> None:
    with pytest.raises(ElthError, match="Conv-4 halves its image twice .* at least 4, found 3"):
        blueprint("conv4", DataShape(size=3))
