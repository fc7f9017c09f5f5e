"""The residual network against the formula, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth.errors import ElthError
from elth.networks import DataShape, blueprint, build
from elth.streams import stream
from tests.elth.helpers import IMAGE, ticket


def _norm(x: Tensor, state: Mapping[str, Tensor], name: str) -> Tensor:
    def per_channel(part: str) -> Tensor:
        return state[f"{name}.{part}"][:, None, None]

    scaled = (x - per_channel("running_mean")) / (per_channel("running_var") + 1e-5).sqrt()
    return scaled * per_channel("weight") + per_channel("bias")


def _formula(x: Tensor, state: Mapping[str, Tensor], units: int) -> Tensor:
    """He et al. 2016, section 4.2, with 1x1 convolutions as shortcuts, in evaluation mode."""
    x = _norm(F.conv2d(x, state["conv1.weight"], padding=1), state, "bn1").relu()
    for stage in (1, 2, 3):
        for unit in range(units):
            name = f"layer{stage}.{unit}"
            stride = 2 if stage > 1 and unit == 0 else 1
            y = F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = _norm(y, state, f"{name}.bn1").relu()
            y = _norm(F.conv2d(y, state[f"{name}.conv2.weight"], padding=1), state, f"{name}.bn2")
            if stride == 2:
                x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=2)
                x = _norm(x, state, f"{name}.downsample.1")
            x = (x + y).relu()
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize(("name", "units"), [("resnet14", 2), ("resnet20", 3)])
def test_forward_is_the_formula(name: str, units: int) -> None:
    shape = DataShape(channels=3, size=8, classes=5)
    made = ticket(f"{name}(width=2)", shape)
    # Numbers of the order of one, as the ticket's weights grow with the depth.
    state = {
        key: value if key.endswith("tracked") else value.double().frac() - 0.25
        for key, value in made.rewind.items()
    }
    state |= {k: v.abs() + 0.5 for k, v in state.items() if k.endswith("running_var")}
    network = build(made.network, shape, generator=stream(0, "init")).double()
    network.load_state_dict(state)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=stream(0, "images"))
    logits = network.eval()(images)
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
