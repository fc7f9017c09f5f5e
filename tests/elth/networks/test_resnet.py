"""The residual network against the formula, layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth.errors import ElthError
from elth.networks import DataShape, blueprint, build
from elth.networks._parts import PadShortcut
from elth.streams import stream
from tests.elth.helpers import IMAGE
from tests.elth.networks.formula import State, norm, trial


def _formula(x: Tensor, state: State, units: int) -> Tensor:
    """He et al. 2016, section 4.2, with 1x1 convolutions as shortcuts, in evaluation mode."""
    x = norm(F.conv2d(x, state["conv1.weight"], padding=1), state, "bn1").relu()
    for stage in (1, 2, 3):
        for unit in range(units):
            name = f"layer{stage}.{unit}"
            stride = 2 if stage > 1 and unit == 0 else 1
            y = F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = norm(y, state, f"{name}.bn1").relu()
            y = norm(F.conv2d(y, state[f"{name}.conv2.weight"], padding=1), state, f"{name}.bn2")
            if stride == 2:
                x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=2)
                x = norm(x, state, f"{name}.downsample.1")
            x = (x + y).relu()
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize(("name", "units"), [("resnet14", 2), ("resnet20", 3)])
def test_forward_is_the_formula(name: str, units: int) -> None:
    shape = DataShape(channels=3, size=8, classes=5)
    state, images, logits = trial(f"{name}(width=2)", shape)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(logits, _formula(images, state, units), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("depth", [14, 20, 32, 44, 56, 110])
def test_depth_counts_the_layers_on_the_way(depth: int) -> None:
    network = blueprint(f"resnet{depth}", IMAGE)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) + 1 == depth
    assert sum(m.kernel_size == (1, 1) for m in convolutions) == 2
    assert all(m.bias is None for m in convolutions)


def test_width_doubles_twice() -> None:
    state = blueprint("resnet14(width=5)", IMAGE).state_dict()
    assert [state[f"layer{i}.1.conv2.weight"].shape[0] for i in (1, 2, 3)] == [5, 10, 20]
    assert state["fc.weight"].shape == (3, 20)


def test_any_shape_of_data() -> None:
    shape = DataShape(channels=1, size=28, classes=4)
    network = build("resnet14(width=1)", shape, generator=stream(0, "init"))
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 4)


def test_a_small_image_is_refused() -> None:
    with pytest.raises(ElthError, match="halves its image twice .* at least 4, found 3"):
        blueprint("resnet20", DataShape(channels=1, size=3, classes=2))


def test_the_pad_shortcut_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]])
    zeros, kept = [[0.0, 0], [0, 0]], [[1.0, 3], [7, 9]]
    # Three channels of zeros: one before, two after.
    assert PadShortcut(1, 4, 2)(x).tolist() == [[zeros, kept, zeros, zeros]]
    even = PadShortcut(2, 4, 1)(torch.tensor([[[[1.0]], [[2.0]]]]))
    assert even.flatten().tolist() == [0, 1, 2, 0]


def test_padded_shortcuts_where_the_width_changes() -> None:
    network = blueprint("resnet20(shortcut=pad)", IMAGE)
    padded = {name for name, module in network.named_modules() if isinstance(module, PadShortcut)}
    assert padded == {"layer2.0.downsample", "layer3.0.downsample"}
    whole = blueprint("resnet20", IMAGE).state_dict()
    assert list(network.state_dict()) == [name for name in whole if "downsample" not in name]


def test_a_block_with_a_padded_shortcut_by_hand() -> None:
    network = build(
        "resnet14(width=1,shortcut=pad)",
        DataShape(channels=1, size=4, classes=2),
        generator=stream(0, "init"),
    )
    block = network.get_submodule("layer2.0").eval()
    for name in ("conv1", "conv2"):
        torch.nn.init.zeros_(block.get_parameter(f"{name}.weight"))
    x = torch.arange(16.0).reshape(1, 1, 4, 4) - 5
    # Nothing but relu(shortcut): one channel of pixels, then the one that is added.
    assert block(x).tolist() == [[[[0, 0], [3, 5]], [[0, 0], [0, 0]]]]
