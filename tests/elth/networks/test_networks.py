"""Counts of the papers' networks, their names, and how they are initialised."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from elth import networks
from elth.errors import ElthError
from elth.networks import NETWORKS, DataShape, NetworkSpec, blueprint, build, canonical, prunable
from elth.streams import stream
from tests.elth.helpers import IMAGE

CIFAR = DataShape(channels=3, size=32, classes=10)
MNIST = DataShape(channels=1, size=28, classes=10)

COUNTS = [
    ("resnet14", CIFAR, 174_128, 175_258),
    ("resnet20", CIFAR, 270_896, 272_474),
    ("resnet32", CIFAR, 464_432, 466_906),
    ("resnet44", CIFAR, 657_968, 661_338),
    ("resnet56", CIFAR, 851_504, 855_770),
    ("resnet110", CIFAR, 1_722_416, 1_730_714),
    ("resnet20(width=32)", CIFAR, 1_081_440, 1_084_586),
    ("mlp1", MNIST, 266_200, 266_610),
    ("mlp2", MNIST, 356_200, 356_910),
    ("mlp3", MNIST, 446_200, 447_210),
    ("mlp4", MNIST, 536_200, 537_510),
]


def test_every_network_is_counted() -> None:
    assert {NetworkSpec.parse(spec).name for spec, *_ in COUNTS} == set(NETWORKS)


@pytest.mark.parametrize(("spec", "shape", "weights", "parameters"), COUNTS)
def test_parameter_counts(spec: str, shape: DataShape, weights: int, parameters: int) -> None:
    network = blueprint(spec, shape)
    assert sum(network.get_parameter(name).numel() for name in prunable(network)) == weights
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_prunable_weights_in_the_order_of_the_network() -> None:
    assert prunable(blueprint("mlp3", MNIST)) == (
        "stem.weight",
        "hidden.0.weight",
        "hidden.1.weight",
        "tail.weight",
        "head.weight",
    )
    resnet = prunable(blueprint("resnet14", CIFAR))
    assert resnet[0] == "conv1.weight"
    assert resnet[-1] == "fc.weight"
    # 13 convolutions of 3x3, two shortcuts and the head; no bias and no batch normalisation.
    assert len(resnet) == 16
    assert "layer2.0.downsample.0.weight" in resnet
    assert not any("bn" in name or "downsample.1" in name for name in resnet)


def test_anatomy_names_units_by_state_dict_prefix() -> None:
    first, second, third = blueprint("resnet20", CIFAR).anatomy.stages
    assert first.units == ("layer1.0", "layer1.1", "layer1.2")
    assert (first.name, second.name, third.name) == ("layer1", "layer2", "layer3")
    assert first.fixed == second.fixed == third.fixed == (0,)
    assert first.free == (1, 2)
    mlp = blueprint("mlp3", MNIST).anatomy
    assert [s.units for s in mlp.stages] == [("hidden.0", "hidden.1")]
    assert mlp.stages[0].fixed == ()
    assert mlp.stages[0].free == (0, 1)


def test_unpruned_weights() -> None:
    assert blueprint("mlp2", MNIST).anatomy.unpruned == ("head.weight",)
    assert blueprint("resnet20", CIFAR).anatomy.unpruned == ()


@pytest.mark.parametrize("spec", sorted(NETWORKS))
def test_free_units_of_a_stage_have_the_same_tensors(spec: str) -> None:
    network = blueprint(spec, CIFAR)
    state = network.state_dict()
    for stage in network.anatomy.stages:
        tensors = [
            {
                name.removeprefix(f"{stage.units[place]}."): tuple(tensor.shape)
                for name, tensor in state.items()
                if name.startswith(f"{stage.units[place]}.")
            }
            for place in stage.free
        ]
        assert all(found and found == tensors[0] for found in tensors)


def test_macs_by_hand() -> None:
    stem = 3 * 16 * 9 * 32**2
    stages = 6 * 16 * 16 * 9 * 32**2 + 5 * 32 * 32 * 9 * 16**2 + 5 * 64 * 64 * 9 * 8**2
    down = 16 * 32 * (9 + 1) * 16**2 + 32 * 64 * (9 + 1) * 8**2
    assert networks.macs("resnet20", CIFAR) == stem + stages + down + 64 * 10 == 40_813_184
    assert networks.macs(NetworkSpec("mlp1"), MNIST) == 266_200


def test_options() -> None:
    assert networks.options("resnet20") == {"width": 16}
    assert networks.options("mlp2") == {"width": 300, "last_width": 100}


def test_canonical_leaves_out_defaults_and_sorts() -> None:
    assert canonical("resnet20(width=16)") == NetworkSpec("resnet20")
    assert str(canonical(" resnet20( width = 32 ) ")) == "resnet20(width=32)"
    unsorted = NetworkSpec("mlp1", (("width", 5), ("last_width", 4)))
    assert str(canonical(unsorted)) == "mlp1(last_width=4, width=5)"
    assert canonical("mlp1(width=300,last_width=100)") == NetworkSpec("mlp1")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "resnt110",
            r"unknown network 'resnt110'; did you mean 'resnet110'\? \(there is: resnet14,",
        ),
        ("qqq", r"unknown network 'qqq' \(there is: .*mlp4\)"),
        (
            "resnet20(widht=32)",
            r"unknown option of network resnet20 'widht'; did you mean 'width'\?",
        ),
        (
            "resnet20(width=wide)",
            "option width of network resnet20 is 'wide'; expected a value like 16",
        ),
        ("resnet20(width=true)", "option width of network resnet20 is True"),
        ("resnet20(width=0)", "option width of network resnet20 must be at least 1, is 0"),
        ("resnet20(width=-4)", "must be at least 1, is -4"),
    ],
)
def test_unknown_networks_and_options_are_refused(spec: str, message: str) -> None:
    for make in (canonical, lambda s: blueprint(s, CIFAR)):
        with pytest.raises(ElthError, match=message):
            make(spec)


def test_build_depends_on_its_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build("resnet14(width=2)", CIFAR, generator=stream(0, "init")).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = build("resnet14(width=2)", CIFAR, generator=stream(0, "init")).state_dict()
    other = build("resnet14(width=2)", CIFAR, generator=stream(1, "init")).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name, tensor in first.items() if bool((tensor != other[name]).any())]
    assert set(prunable(blueprint("resnet14", CIFAR))) < set(drawn)
    assert "layer3.1.bn2.weight" in drawn
    assert "fc.bias" in drawn


def test_kaiming_normal_with_fan_in() -> None:
    network = build("resnet20", CIFAR, generator=stream(0, "init"))
    for name in prunable(network):
        weight = network.get_parameter(name).detach()
        fan_in = weight.shape[1:].numel()
        expected = math.sqrt(2 / fan_in)
        # Standard errors: of a deviation s / sqrt(2n), of a mean s / sqrt(n); five of each.
        error = 5 * expected / math.sqrt(weight.numel())
        assert abs(float(weight.std()) - expected) < error
        assert abs(float(weight.mean())) < error
    largest = network.get_parameter("layer3.2.conv2.weight").detach()
    within = (largest.abs() < math.sqrt(2 / 576)).float().mean()
    assert float(within) == pytest.approx(0.6827, abs=0.01)  # a uniform law would have 0.577


def test_linear_layers_are_normal_with_uniform_biases() -> None:
    network = build("mlp1", MNIST, generator=stream(0, "init"))
    weight = network.get_parameter("stem.weight").detach()
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / 784), rel=0.01)
    bias = network.get_parameter("stem.bias").detach()
    bound = 1 / math.sqrt(784)
    assert float(bias.abs().max()) <= bound
    assert float(bias.std()) == pytest.approx(bound / math.sqrt(3), rel=0.15)


def test_batch_normalisation_scale_is_uniform_in_0_1() -> None:
    network = build("resnet56", CIFAR, generator=stream(0, "init"))
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    scales = torch.cat([m.weight.detach() for m in norms])
    assert scales.min() >= 0
    assert scales.max() < 1
    assert float(scales.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(scales.std()) == pytest.approx(1 / math.sqrt(12), abs=0.02)
    for norm in norms:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        assert not norm.bias.any()
        assert not norm.running_mean.any()
        assert torch.equal(norm.running_var, torch.ones_like(norm.running_var))
        assert int(norm.num_batches_tracked) == 0


def test_initialise_resets_running_statistics() -> None:
    norm = nn.BatchNorm2d(2, affine=False)
    norm(torch.randn(4, 2, 3, 3, generator=stream(0, "images")))
    networks.initialise(norm, stream(0, "init"))
    assert norm.running_mean is not None
    assert not norm.running_mean.any()


def test_initialise_refuses_a_module_without_a_law() -> None:
    with pytest.raises(ElthError, match="no initialisation is stated for LayerNorm '1'"):
        networks.initialise(nn.Sequential(nn.ReLU(), nn.LayerNorm(3)), stream(0, "init"))


def _state() -> dict[str, Tensor]:
    return build("mlp1(width=4,last_width=3)", IMAGE, generator=stream(0, "init")).state_dict()


def test_check_state_accepts_what_fits() -> None:
    networks.check_state(_state(), NetworkSpec.parse("mlp1(width=4,last_width=3)"), IMAGE, what="x")


def test_check_state_names_what_does_not_fit() -> None:
    spec = NetworkSpec.parse("mlp1(width=4,last_width=3)")
    missing = _state()
    del missing["tail.bias"]
    with pytest.raises(
        ElthError, match=r"x does not fit mlp1\(.*\): tensor 'tail.bias' is missing"
    ):
        networks.check_state(missing, spec, IMAGE, what="x")
    wrong = _state() | {"head.weight": torch.zeros(3, 4)}
    with pytest.raises(
        ElthError, match=r"tensor 'head.weight' should have shape \(3, 3\), found \(3, 4\)"
    ):
        networks.check_state(wrong, spec, IMAGE, what="x")
    more = _state() | {"extra": torch.zeros(1)}
    with pytest.raises(ElthError, match="it has no tensor 'extra'"):
        networks.check_state(more, spec, IMAGE, what="x")
