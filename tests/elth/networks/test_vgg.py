"""VGG against the formula, layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth.errors import ElthError
from elth.networks import DataShape, blueprint, build
from elth.streams import stream
from tests.elth.networks.formula import State, conv3, linear, norm, trial

CIFAR = DataShape()


def _formula(x: Tensor, state: State, stages: tuple[int, ...], fc: int) -> Tensor:
    """E-LTH's VGG in evaluation mode, on images of 32 pixels."""
    for number, depth in enumerate(stages, 1):
        for unit in range(depth):
            name = f"stage{number}.{unit}"
            x = norm(conv3(x, state, f"{name}.conv"), state, f"{name}.bn").relu()
        x = F.max_pool2d(x, 2) if number < 5 else F.avg_pool2d(x, 2)
    x = x.flatten(1)
    for layer in range(fc - 1):
        x = linear(x, state, f"tail.{layer}").relu()
    return linear(x, state, "fc")


@pytest.mark.parametrize(
    ("name", "stages", "fc"),
    [
        ("vgg11", (1, 1, 2, 2, 2), 1),
        ("vgg13", (2, 2, 2, 2, 2), 3),
        ("vgg16", (2, 2, 3, 3, 3), 1),
        ("vgg19", (2, 2, 4, 4, 4), 2),
    ],
)
def test_forward_is_the_formula(name: str, stages: tuple[int, ...], fc: int) -> None:
    state, images, logits = trial(f"{name}(width=1,fc={fc})", CIFAR)
    assert logits.shape == (2, 10)
    expected = _formula(images, state, stages, fc)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_depth_counts_three_linear_layers_as_the_original(depth: int) -> None:
    network = blueprint(f"vgg{depth}(fc=3)", CIFAR)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth
    assert all(layer.bias is not None for layer in layers)


def test_widths() -> None:
    state = blueprint("vgg13(width=3,fc=2)", CIFAR).state_dict()
    assert [len(state[f"stage{i}.1.conv.weight"]) for i in range(1, 6)] == [3, 6, 12, 24, 24]
    assert state["tail.0.weight"].shape == (24, 24)
    assert state["fc.weight"].shape == (10, 24)


def test_anatomy() -> None:
    anatomy = blueprint("vgg16(fc=3)", CIFAR).anatomy
    assert anatomy.family == "vgg"
    assert [stage.name for stage in anatomy.stages] == [f"stage{i}" for i in range(1, 6)] + ["tail"]
    assert [stage.fixed for stage in anatomy.stages] == [(0,)] * 5 + [()]
    assert anatomy.stages[2].units == ("stage3.0", "stage3.1", "stage3.2")
    assert anatomy.stages[5].units == ("tail.0", "tail.1")
    assert blueprint("vgg16", CIFAR).anatomy.stages[5].units == ()
    assert (anatomy.head, anatomy.unpruned) == ("fc", ("fc.weight",))


@pytest.mark.parametrize("size", [16, 28, 40])
def test_any_side_that_can_be_halved_four_times(size: int) -> None:
    shape = DataShape(channels=1, size=size, classes=4)
    network = build("vgg11(width=1)", shape, generator=stream(0, "init"))
    assert network(torch.zeros(2, 1, size, size)).shape == (2, 4)


def test_a_small_image_is_refused() -> None:
    with pytest.raises(
        ElthError, match="a VGG halves its image four times and needs a side of at least 16, fo.* 8"
    ):
        blueprint("vgg13", DataShape(channels=1, size=8, classes=2))
