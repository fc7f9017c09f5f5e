"""What a sparse network costs: what was computed by hand, and what RigL's authors print."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from elth.dynamic import layer_densities, published_counts
from elth.errors import ElthError
from elth.flops import Cost, Layer, elth_units, step
from elth.networks import DataShape, facts, tensor_shapes

IMAGENET = DataShape(channels=3, size=224, classes=1000)
CIFAR = DataShape(channels=3, size=32, classes=10)
SMALL = Cost({"w": Layer(weights=288, outputs=8, macs=10_368)})
"""A 3x3 convolution from 4 to 8 channels, of 6x6 outputs."""


def resnet50(side: int = 115) -> Cost:
    """ResNet-50, whose first outputs RigL's authors count as those of an image with a border."""
    cost = facts("resnet50", IMAGENET).cost
    first = cost.layers["conv1.weight"]
    assert first.macs == first.weights * 112**2
    changed = dataclasses.replace(first, macs=first.weights * side**2)
    return Cost({**cost.layers, "conv1.weight": changed}, cost.other)


def layers() -> dict[str, tuple[int, ...]]:
    own = tensor_shapes("resnet50", IMAGENET)
    return {name: own[name] for name in facts("resnet50", IMAGENET).sizes}


def kept(sparsity: float, distribution: str, dense: tuple[str, ...] = ()) -> dict[str, int]:
    return published_counts(layers(), sparsity, distribution, dense=dense)


def asked(
    sparsity: float, distribution: str, dense: tuple[str, ...] = ()
) -> dict[str, int | Fraction]:
    """Weights that the densities say, which are no whole numbers: what published figures count."""
    own = {name: shape for name, shape in layers().items() if name not in dense}
    sizes = {name: math.prod(shape) for name, shape in own.items()}
    if distribution == "uniform":
        return {name: size * (1 - Fraction(str(sparsity))) for name, size in sizes.items()}
    zeros = sum(math.floor(Fraction(str(sparsity)) * size) for size in sizes.values())
    densities = layer_densities(own, sum(sizes.values()) - zeros, distribution)
    return {name: density * sizes[name] for name, density in densities.items()}


def test_one_convolution_by_hand() -> None:
    dense, sparse = SMALL.inference(), SMALL.inference({"w": 144})
    assert [dense, sparse, SMALL.macs()] == [21_024, 10_656, 10_368]
    assert step("dense", sparse, dense) == 63_072
    assert step("static", sparse, dense) == step("set", sparse, dense) == 31_968
    assert step("snfs", sparse, dense) == 42_336
    assert float(step("rigl", sparse, dense)) == pytest.approx(32_070.653, abs=1e-3)
    assert step("rigl", sparse, dense, every=1) == Fraction(5 * sparse + dense, 2)
    assert step("dpf", sparse, dense) == 42_336
    assert step("dpf", sparse, dense, dpf="elth") == 52_704


def test_resnet50_dense() -> None:
    assert resnet50().macs() == 4_095_591_104
    assert resnet50().inference() == 8_202_340_776
    assert facts("resnet50", IMAGENET).cost.inference() == 8_189_483_496
    assert facts("resnet50", IMAGENET).cost.macs() == facts("resnet50", IMAGENET).macs
    assert 3 * float(resnet50().inference()) * 32_000 * 4096 == pytest.approx(3.225e18, rel=1e-3)


@pytest.mark.parametrize(
    ("sparsity", "distribution", "dense", "inference", "training"),
    [
        (0.8, "erk", (), 0.4153, 2.0861),
        (0.9, "erk", (), 0.2431, 1.2282),
        (0.95, "erk", (), 0.1230, 0.6295),
        (0.965, "erk", (), 0.0865, 0.4476),
        (0.99, "erk", ("conv1.weight",), 0.0548, 0.2895),
        (0.8, "uniform", ("conv1.weight",), 0.2254, 1.1396),
        (0.9, "uniform", ("conv1.weight",), 0.1285, 0.6570),
        (0.95, "uniform", ("conv1.weight",), 0.0801, 0.4157),
        (0.965, "uniform", ("conv1.weight",), 0.0656, 0.3434),
        (0.9, "uniform", (), 0.1012, 0.5210),
    ],
)
def test_resnet50_as_printed_with_rigl(
    sparsity: float, distribution: str, dense: tuple[str, ...], inference: float, training: float
) -> None:
    """Inference, and RigL for five times as long, in units of the dense network's.

    Whole numbers of weights are a little more than the densities say: 1e-5 of the dense network.
    """
    cost = resnet50()
    whole, sparse = cost.inference(), cost.inference(asked(sparsity, distribution, dense))
    assert float(sparse / whole) == pytest.approx(inference, abs=5.1e-5)
    five = 5 * step("rigl", sparse, whole) / (3 * whole)
    assert float(five) == pytest.approx(training, abs=5.1e-5)
    counted = cost.inference(kept(sparsity, distribution, dense))
    assert 0 <= counted - sparse < 2e-5 * whole


@pytest.mark.parametrize(("sparsity", "expected"), [(0.8, 0.6102), (0.9, 0.4954)])
def test_snfs_as_printed(sparsity: float, expected: float) -> None:
    cost = resnet50()
    whole, sparse = cost.inference(), cost.inference(asked(sparsity, "erk"))
    assert float(step("snfs", sparse, whole) / (3 * whole)) == pytest.approx(expected, abs=5.1e-5)


def test_the_units_of_elth() -> None:
    """Footnote 2 of E-LTH: six rounds of a search at 12 of 16 blocks, and RigL-5x."""
    counts = [Fraction(4, 5) ** k for k in range(6)]
    assert float(sum(counts)) == pytest.approx(3.68928)
    million = [int(1_000_000 * c) for c in counts]
    assert float(elth_units(million, 1_000_000, ratio=0.75)) == pytest.approx(2.767, abs=5e-4)
    assert float(elth_units([262_144], 1_000_000, epochs=5)) == pytest.approx(1.31072)


@pytest.mark.parametrize("spec", ["resnet20", "vgg13(width=8)", "mobilenet", "mlp2", "resnet18"])
def test_layers_make_up_the_network(spec: str) -> None:
    found = facts(spec, CIFAR)
    assert found.cost.macs() == found.macs
    assert found.cost.other == 0
    assert {n: layer.weights for n, layer in found.cost.layers.items()} == found.sizes
    assert Cost.of(found.cost.plain()) == found.cost
    bias = found.cost.layers.get("fc.weight")
    assert bias is None or bias.values == bias.outputs


class Attention(nn.Module):
    """Patches of an image, one layer of attention, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens)
        return self.fc(mixed.mean(1))


def attention(shape: DataShape) -> nn.Module:
    """A network from outside."""
    return Attention()


def test_a_network_from_outside_is_counted_by_doing() -> None:
    cost = facts("tests.elth.test_flops:attention", CIFAR).cost
    tokens = 64
    assert {name: layer.macs for name, layer in cost.layers.items()} == {
        "patches.weight": 8 * 48 * tokens,
        "attention.in_proj_weight": 3 * 8 * 8 * tokens,
        "attention.out_proj.weight": 8 * 8 * tokens,
        "fc.weight": 80,
    }
    assert cost.layers["patches.weight"].values == 8 * tokens
    assert cost.other == 2 * tokens * tokens * 8, "what tokens multiply among themselves"
    assert math.isclose(float(cost.macs({"fc.weight": 40})), float(cost.macs()) - 40)


class Cross(nn.Module):
    """Four learnt questions that look at the patches of an image, which are of another width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.questions = nn.Parameter(torch.zeros(1, 4, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, kdim=width, vdim=width)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        questions = self.questions.expand(len(x), -1, -1)
        mixed, _ = self.attention(questions, value=tokens, key=tokens)
        return self.fc(mixed.mean(1))


def cross(shape: DataShape, *, width: int = 8) -> nn.Module:
    """A network from outside; of width 8 its three projections are one weight."""
    return Cross(width)


@pytest.mark.parametrize("width", [8, 6])
def test_attention_to_other_tokens_is_counted_by_who_asks_and_who_is_asked(width: int) -> None:
    cost = facts(f"tests.elth.test_flops:cross(width={width})", CIFAR).cost
    asks, asked = 4, 64
    own = {"q": 8 * 8 * asks, "k": 8 * width * asked, "v": 8 * width * asked}
    inside = {f"attention.{name}_proj_weight": macs for name, macs in own.items()}
    if width == 8:
        inside = {"attention.in_proj_weight": sum(own.values())}
    assert {name: layer.macs for name, layer in cost.layers.items()} == {
        "patches.weight": width * 48 * asked,
        **inside,
        "attention.out_proj.weight": 8 * 8 * asks,
        "fc.weight": 80,
    }
    assert cost.other == 2 * asks * asked * 8, "what tokens multiply with each other"
    values = sum(layer.values for name, layer in cost.layers.items() if name in inside)
    assert values == 8 * (asks + 2 * asked)


class Upwards(nn.Module):
    """A transposed convolution, which makes four values where it is applied once, and is sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 16, 8, stride=8)
        self.up = nn.ConvTranspose2d(16, 4, 4, stride=2, padding=1)
        self.fc = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.up(self.down(x)).mean((2, 3)))


def upwards(shape: DataShape) -> nn.Module:
    """A network from outside."""
    return Upwards()


def test_a_transposed_convolution_makes_more_values_than_it_has_places() -> None:
    """Of 4x4 places 8x8 values come in each of 4 channels; each of 1,024 weights is used 16 times.

    So n (2 v d + 1) is 2 * 16,384 d + 256.
    """
    cost = facts("tests.elth.test_flops:upwards", CIFAR).cost
    up = cost.layers["up.weight"]
    assert up.macs == 1_024 * 4 * 4
    assert up.values == 4 * 8 * 8
    assert cost.layers["down.weight"].values == 16 * 4 * 4
    assert cost.layers["fc.weight"].values == 10
    assert Cost({"up.weight": up}).inference({"up.weight": 512}) == 16_384 + 256
    assert Cost.of(cost.plain()) == cost
    assert cost.plain()["layers"]["fc.weight"] == [40, 10, 40], "as costs were always stored"


def test_a_cost_that_was_stored_without_values_is_read() -> None:
    cost = Cost.of({"layers": {"w": [288, 8, 10_368], "up": [4, 2, 8, 16]}, "other": 1})
    assert cost.layers["w"] == SMALL.layers["w"]
    assert [cost.layers[name].values for name in ("w", "up")] == [288, 16]


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ElthError, match="unknown way of training, to be counted 'lth'"):
        step("lth", Fraction(1), Fraction(2))
    with pytest.raises(ElthError, match="unknown way of counting DPF 'none'"):
        step("dpf", Fraction(1), Fraction(2), dpf="none")
    with pytest.raises(ElthError, match="'w' has 288 weights, and cannot keep 289"):
        SMALL.macs({"w": 289})
