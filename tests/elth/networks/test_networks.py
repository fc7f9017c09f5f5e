"""Counts of the papers' networks, their names, and how they are initialised."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from elth import masks, networks
from elth.errors import ElthError
from elth.networks import (
    NETWORKS,
    Anatomy,
    DataShape,
    Network,
    _registry,
    blueprint,
    build,
    canonical,
    facts,
    prunable,
    smallest_norm,
)
from elth.specs import Spec
from elth.streams import stream
from tests.elth.helpers import IMAGE

CIFAR = DataShape(channels=3, size=32, classes=10)
MNIST = DataShape(channels=1, size=28, classes=10)
IMAGENET = DataShape(channels=3, size=224, classes=1000)

COUNTS = [
    ("resnet14", CIFAR, 174_128, 175_258),
    ("resnet20", CIFAR, 270_896, 272_474),
    ("resnet32", CIFAR, 464_432, 466_906),
    ("resnet44", CIFAR, 657_968, 661_338),
    ("resnet56", CIFAR, 851_504, 855_770),
    ("resnet110", CIFAR, 1_722_416, 1_730_714),
    ("resnet20(width=32)", CIFAR, 1_081_440, 1_084_586),
    ("resnet20(shortcut=pad)", CIFAR, 268_336, 269_722),
    ("resnet20(bn_affine=false)", CIFAR, 270_896, 270_906),
    ("resnet20(bn_affine=false,shortcut=pad)", CIFAR, 268_336, 268_346),
    ("vgg11", CIFAR, 9_222_848, 9_231_114),
    ("vgg13", CIFAR, 9_407_168, 9_416_010),
    ("vgg16", CIFAR, 14_715_584, 14_728_266),
    ("vgg19", CIFAR, 20_024_000, 20_040_522),
    ("vgg13(fc=2)", CIFAR, 9_669_312, 9_678_666),
    ("vgg13(fc=3)", CIFAR, 9_931_456, 9_941_322),
    ("vgg13(fc=5)", CIFAR, 10_455_744, 10_466_634),
    ("resnet18", IMAGENET, 11_678_912, 11_689_512),
    ("resnet26", IMAGENET, 19_051_712, 19_066_920),
    ("resnet34", IMAGENET, 21_779_648, 21_797_672),
    ("resnet50", IMAGENET, 25_502_912, 25_557_032),
    ("mobilenet", CIFAR, 3_195_328, 3_217_226),
    ("conv4", CIFAR, 2_425_024, 2_425_930),
    ("lenet_300_100", MNIST, 266_200, 266_610),
    ("mlp1", MNIST, 266_200, 266_610),
    ("mlp2", MNIST, 356_200, 356_910),
    ("mlp3", MNIST, 446_200, 447_210),
    ("mlp4", MNIST, 536_200, 537_510),
]


def test_every_network_is_counted() -> None:
    assert {Spec.parse(spec).name for spec, *_ in COUNTS} == set(NETWORKS)


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
    whole = {name for name in NETWORKS if blueprint(name, CIFAR).anatomy.unpruned}
    assert whole == {"mlp1", "mlp2", "mlp3", "mlp4", "vgg11", "vgg13", "vgg16", "vgg19"}


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
    assert networks.macs(Spec("mlp1"), MNIST) == 266_200


def test_options() -> None:
    assert networks.options("resnet20") == {
        "width": 16,
        "shortcut": "conv",
        "bn_affine": True,
        "init": "kaiming_normal",
    }
    assert networks.options("mlp2") == {"width": 300, "last_width": 100, "init": "kaiming_normal"}
    assert networks.options("vgg16").keys() == {"width", "fc", "bn_affine", "init"}
    assert all("init" in networks.options(name) for name in NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_and_option_says_what_it_is(name: str) -> None:
    assert networks.about(name)
    known = networks.choices(name)
    assert {key: one.default for key, one in known.items()} == networks.options(name)
    assert [key for key, one in known.items() if not one.about] == []
    for one in known.values():
        assert (one.default in one.words) == isinstance(one.default, str)


def test_canonical_leaves_out_defaults_and_sorts() -> None:
    assert canonical("resnet20(width=16)") == Spec("resnet20")
    assert str(canonical(" resnet20( width = 32 ) ")) == "resnet20(width=32)"
    unsorted = Spec("mlp1", (("width", 5), ("last_width", 4)))
    assert str(canonical(unsorted)) == "mlp1(last_width=4, width=5)"
    assert canonical("mlp1(width=300,last_width=100)") == Spec("mlp1")
    assert canonical("resnet14(bn_affine=true,shortcut=conv,init=kaiming_normal)") == Spec(
        "resnet14"
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "resnt110",
            r"unknown network 'resnt110'; did you mean 'resnet110'\? \(there is: resnet14,",
        ),
        ("qqq", r"unknown network 'qqq' \(there is: .*mlp4, lenet_300_100\)"),
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
        ("vgg13(fc=0)", "option fc of network vgg13 must be at least 1, is 0"),
        ("mobilenet(repeats=0)", "option repeats of network mobilenet must be at least 1"),
        ("resnet20(bn_affine=1)", "option bn_affine of network resnet20 is 1; expected .* True"),
        ("resnet18(width=32)", r"unknown option of network resnet18 'width' \(there is: shortcut"),
        (
            "resnet20(shortcut=padded)",
            r"unknown shortcut of network resnet20 'padded'; did you mean 'pad'\? "
            r"\(there is: conv, pad\)",
        ),
        (
            "conv4(init=uniform)",
            r"unknown init of network conv4 'uniform'.*\(there is: kaiming_normal, kaiming_unif",
        ),
        ("resnet50(init=3)", "option init of network resnet50 is 3; expected .*'kaiming_normal'"),
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


def test_kaiming_uniform_with_fan_in() -> None:
    normal, network = (
        build(f"vgg11(width=4,init={law})", CIFAR, generator=stream(0, "init"))
        for law in ("kaiming_normal", "kaiming_uniform")
    )
    for name in prunable(network):
        weight = network.get_parameter(name).detach()
        bound = math.sqrt(6 / weight.shape[1:].numel())
        error = 5 * bound / math.sqrt(weight.numel())
        assert weight.abs().max() <= bound
        assert weight.max() > bound - 10 * error
        assert weight.min() < 10 * error - bound
        assert abs(float(weight.mean())) < error
        # A standard deviation of bound / sqrt(3), as the normal law's.
        assert abs(float(weight.std()) - bound / math.sqrt(3)) < error
        other = normal.get_parameter(name).detach()
        assert abs(float(weight.std() - other.std())) < 2 * error
        assert other.abs().max() > bound or weight.numel() < 1000
    scales = torch.cat([p.detach() for n, p in network.named_parameters() if "bn.weight" in n])
    assert scales.min() >= 0
    assert scales.max() < 1
    assert float(scales.mean()) == pytest.approx(0.5, abs=0.1)


def test_kaiming_uniform_with_fan_out() -> None:
    """The same draws as by the fan-in, scaled: sqrt(fan-in / fan-out) is 1 in a square layer."""
    by_in, by_out = (
        build(f"lenet_300_100(init={law})", CIFAR, generator=stream(0, "init"))
        for law in ("kaiming_uniform", "kaiming_uniform_fan_out")
    )
    for name in prunable(by_out):
        weight, other = by_out.get_parameter(name).detach(), by_in.get_parameter(name).detach()
        fan_out, fan_in = weight.shape
        torch.testing.assert_close(weight, other * math.sqrt(fan_in / fan_out))
        assert math.sqrt(6 / fan_out) * 0.98 < float(weight.abs().max()) <= math.sqrt(6 / fan_out)
    convolution = build(
        "vgg11(width=4,init=kaiming_uniform_fan_out)", CIFAR, generator=stream(0, "init")
    ).get_parameter("stage1.0.conv.weight")
    bound = math.sqrt(6 / (convolution.shape[0] * 9))
    assert bound * 0.9 < float(convolution.detach().abs().max()) <= bound


def test_a_network_says_by_which_law_it_is_drawn() -> None:
    for name in NETWORKS:
        assert blueprint(name, CIFAR).init == networks.options(name)["init"]
        for law in ("kaiming_normal", "kaiming_uniform", "kaiming_uniform_fan_out"):
            assert blueprint(f"{name}(init={law})", CIFAR).init == law


@pytest.mark.parametrize(
    "spec", ["resnet14(width=2", "vgg11(width=2", "mobilenet(width=2", "resnet18(", "resnet50("]
)
def test_batch_normalisation_without_scale_and_shift(spec: str) -> None:
    plain = build(f"{spec})", CIFAR, generator=stream(0, "init")).eval()
    joint = "" if spec.endswith("(") else ","
    bare = build(f"{spec}{joint}bn_affine=false)", CIFAR, generator=stream(0, "init")).eval()
    norms = [name for name, m in bare.named_modules() if isinstance(m, nn.BatchNorm2d)]
    gone = {f"{name}.{part}" for name in norms for part in ("weight", "bias")}
    assert norms
    assert set(plain.state_dict()) - set(bare.state_dict()) == gone
    assert all(bare.get_buffer(f"{name}.running_var") is not None for name in norms)
    assert prunable(bare) == prunable(plain)
    state = plain.state_dict()
    for name in norms:
        state[f"{name}.weight"].fill_(1)
    plain.load_state_dict(state | bare.state_dict())
    images = torch.randn(2, 3, 32, 32, generator=stream(0, "images"))
    with torch.no_grad():
        torch.testing.assert_close(bare(images), plain(images))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_logits_and_state(name: str) -> None:
    narrow = "(width=1)" if "width" in networks.options(name) else ""
    spec, shape = canonical(name + narrow), DataShape(channels=2, size=32, classes=7)
    network = build(spec, shape, generator=stream(0, "init"))
    networks.check_state(network.state_dict(), spec, shape, what="state")
    with torch.no_grad():
        assert network(torch.zeros(3, 2, 32, 32)).shape == (3, 7)
    head = network.anatomy.head
    assert len(network.get_parameter(f"{head}.weight")) == 7
    assert all(name in prunable(network) for name in network.anatomy.unpruned)
    assert not any(unit.startswith(head) for s in network.anatomy.stages for unit in s.units)


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
    networks.check_state(_state(), Spec.parse("mlp1(width=4,last_width=3)"), IMAGE, what="x")


def test_check_state_names_what_does_not_fit() -> None:
    spec = Spec.parse("mlp1(width=4,last_width=3)")
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


class _Buffered(Network):
    """A network with buffers that are not those of batch normalisation."""

    def __init__(self, shape: DataShape) -> None:
        super().__init__()
        self.fc = nn.Linear(shape.channels * shape.size**2, shape.classes)
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("table", torch.arange(5.0), persistent=False)
        self.register_buffer("drawn", torch.rand(3))
        self.anatomy = Anatomy(family="buffered", stages=())


def test_buffers_are_what_the_author_made_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """They used to be whatever the memory held: 2.0 became 3e-8."""
    monkeypatch.setitem(_registry.NETWORKS, "buffered", _Buffered)
    monkeypatch.setattr(_registry, "_OURS", (*_registry._OURS, "buffered"))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    shape = DataShape(channels=1, size=4, classes=3)
    one, same, other = (
        build("buffered", shape, generator=stream(seed, "init")) for seed in (0, 0, 1)
    )
    assert float(one.get_buffer("scale")) == 2.0
    assert one.get_buffer("table").tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(one.get_buffer("drawn"), same.get_buffer("drawn"))
    assert not torch.equal(one.get_buffer("drawn"), other.get_buffer("drawn"))
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's draws are disturbed


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("resnet14", 4, ("layer3.0.bn1", 1)),
        ("resnet14", 8, ("layer3.0.bn1", 4)),
        ("resnet18", 32, ("layer4.0.bn1", 1)),
        ("mlp2", 8, ("", 0)),
    ],
)
def test_the_smallest_normalisation(name: str, size: int, expected: tuple[str, int]) -> None:
    shape = DataShape(channels=3, size=size, classes=10)
    network = build(name, shape, generator=stream(0, "init")).train()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    assert smallest_norm(network, shape) == expected
    assert facts(name, shape).norm_values == expected[1]
    assert network.training
    assert all(torch.equal(before[key], t) for key, t in network.state_dict().items())


@pytest.mark.parametrize("wrap", [weight_norm, spectral_norm], ids=lambda one: one.__name__)
def test_a_weight_that_is_made_of_others_is_refused(wrap: Callable[..., nn.Module]) -> None:
    """It would be left out without a word, and sparsity be that of a part."""
    network = nn.Sequential(nn.Flatten(), wrap(nn.Linear(8, 5)), nn.Linear(5, 3))
    with pytest.raises(ElthError, match="the weight of '1', of .*Linear, is no parameter of its"):
        masks.ones(network)
