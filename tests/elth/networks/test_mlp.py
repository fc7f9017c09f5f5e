"""The perceptron against its formula."""

from __future__ import annotations

import pytest
import torch

from elth.networks import DataShape, blueprint, build, canonical, options
from elth.streams import stream


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_layers(layers: int) -> None:
    state = blueprint(f"mlp{layers}", DataShape(channels=1, size=28, classes=10)).state_dict()
    shapes = [tuple(t.shape) for name, t in state.items() if name.endswith("weight")]
    assert shapes == [(300, 784), *[(300, 300)] * (layers - 1), (100, 300), (10, 100)]


def test_forward_by_hand() -> None:
    network = build(
        "mlp2(width=2, last_width=1)",
        DataShape(channels=1, size=2, classes=2),
        generator=stream(0, "init"),
    )
    network.load_state_dict(
        {
            "stem.weight": torch.tensor([[1.0, 0, 0, -1], [0, 2, 0, 0]]),
            "stem.bias": torch.tensor([0.5, -1.0]),
            "hidden.0.weight": torch.tensor([[1.0, 1], [-1, 0]]),
            "hidden.0.bias": torch.tensor([0.0, 1.0]),
            "tail.weight": torch.tensor([[2.0, 1]]),
            "tail.bias": torch.tensor([-1.0]),
            "head.weight": torch.tensor([[1.0], [-1]]),
            "head.bias": torch.tensor([0.0, 3.0]),
        }
    )
    images = torch.tensor([[[[1.0, 2], [3, 0]]], [[[0.0, 0], [0, 4]]]])
    # First image: stem (1.5, 3), hidden (4.5, 0), tail 8. Second: stem 0, hidden (0, 1), tail 0.
    assert torch.equal(network(images), torch.tensor([[8.0, -5.0], [0.0, 3.0]]))


def test_lenet_is_mlp1_from_uniform_weights_and_pruned_everywhere() -> None:
    shape = DataShape(channels=1, size=28, classes=10)
    lenet, mlp = blueprint("lenet_300_100", shape), blueprint("mlp1", shape)
    assert {n: t.shape for n, t in lenet.state_dict().items()} == {
        n: t.shape for n, t in mlp.state_dict().items()
    }
    assert lenet.anatomy.stages == mlp.anatomy.stages
    assert (lenet.anatomy.family, lenet.anatomy.head) == ("mlp", "head")
    assert (lenet.anatomy.unpruned, mlp.anatomy.unpruned) == ((), ("head.weight",))
    assert options("lenet_300_100") == options("mlp1") | {"init": "kaiming_uniform"}
    assert str(canonical("lenet_300_100(init=kaiming_normal)")) == (
        "lenet_300_100(init=kaiming_normal)"
    )
    uniform, same = (
        build(spec, shape, generator=stream(0, "init")).state_dict()
        for spec in ("lenet_300_100", "mlp1(init=kaiming_uniform)")
    )
    assert all(torch.equal(uniform[name], same[name]) for name in uniform)
