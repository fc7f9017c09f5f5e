"""Effective weights and dead units: by hand, by SynFlow's flow, and by what removing them does."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from elth import masks
from elth.analysis import effective_sparsity
from elth.controls import shuffle_global
from elth.criteria import synflow
from elth.errors import ElthError
from elth.masks import Mask
from elth.networks import DataShape, blueprint, build
from elth.streams import stream
from elth.tickets import state_digest
from tests.plugins.vit import vit

PIXELS = DataShape(channels=2, size=1, classes=1)
"""Images of one pixel: two numbers."""
IMAGE = DataShape(channels=2, size=4, classes=3)


class Two(nn.Module):
    """A perceptron of two inputs, two hidden units and one output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x.flatten(1))))


def _mask(**layers: list[list[int]]) -> Mask:
    return {f"{name}.weight": torch.tensor(rows) == 1 for name, rows in layers.items()}


def _of(net: nn.Module, mask: Mapping[str, Tensor], shape: DataShape = PIXELS) -> dict[str, int]:
    found = effective_sparsity(net, mask, shape)
    return {n.removesuffix(".weight"): layer.effective for n, layer in found.layers.items()}


def _random(net: nn.Module, density: float, seed: int) -> Mask:
    generator = stream(seed, "mask")
    ones = masks.ones(net)
    return {n: torch.rand(m.shape, generator=generator) < density for n, m in ones.items()}


# By hand -----------------------------------------------------------------------------------------


def test_a_unit_without_output() -> None:
    """All weights of the first layer are kept, and hidden unit 2 has no output."""
    found = effective_sparsity(Two(), _mask(first=[[1, 1], [1, 1]], second=[[1, 0]]), PIXELS)
    assert (found.kept, found.effective, found.dead) == (5, 3, 1)
    assert found.total == 6
    assert found.sparsity == 0.5
    assert not found.collapsed
    assert vars(found.layers["first.weight"]) == {
        "size": 4,
        "kept": 4,
        "effective": 2,
        "units": 2,
        "dead": 1,
    }
    assert found.layers["second.weight"].dead == 0
    assert found.mask["first.weight"].tolist() == [[True, True], [False, False]]


def test_a_unit_that_only_its_bias_keeps_alive() -> None:
    """Hidden unit 2 has no input: what it hands on is the same for all images."""
    net = Two()
    nn.init.constant_(net.first.bias, 3.0)
    found = effective_sparsity(net, _mask(first=[[1, 0], [0, 0]], second=[[1, 1]]), PIXELS)
    assert (found.kept, found.effective, found.dead) == (3, 2, 1)
    assert found.mask["second.weight"].tolist() == [[True, False]]


def test_collapse() -> None:
    found = effective_sparsity(Two(), _mask(first=[[1, 1], [0, 0]], second=[[0, 1]]), PIXELS)
    assert found.collapsed
    assert (found.kept, found.effective, found.dead, found.outputs) == (3, 0, 3, 0)
    assert found.sparsity == 1


class Residual(nn.Module):
    """A layer and its input added, normalised; then a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x + F.relu_(self.norm(self.branch(x)))).flatten(1))


def test_a_shortcut_goes_round_an_empty_layer() -> None:
    net = Residual()
    nn.init.constant_(net.norm.bias, 5.0)
    empty = torch.zeros(2, 2, 1, 1) == 1
    found = effective_sparsity(net, {"branch.weight": empty, **_mask(head=[[1, 1]])}, PIXELS)
    assert not found.collapsed
    assert (found.effective, found.dead) == (2, 2)
    one = empty.clone()
    one[1, 0] = True  # into the second channel, from which nothing goes on
    assert _of(net, {"branch.weight": one, **_mask(head=[[1, 0]])}) == {"branch": 0, "head": 1}
    assert _of(net, {"branch.weight": one, **_mask(head=[[0, 1]])}) == {"branch": 1, "head": 1}


class Depthwise(nn.Module):
    """Each channel by itself, then across the channels; then the whole image into a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(2, 2, 3, padding=1, groups=2)
        self.pointwise = nn.Conv2d(2, 3, 1)
        self.head = nn.Linear(3 * 4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.pointwise(F.relu6(self.depthwise(x)))).flatten(1))


def test_depthwise_and_flattened_by_hand() -> None:
    net = Depthwise()
    mask = masks.ones(net)
    mask["depthwise.weight"][1] = False
    mask["pointwise.weight"][2] = False
    # Channel 2 is dead: 9 and 2 weights are left of the convolutions, and two channels flattened.
    found = effective_sparsity(net, mask, IMAGE)
    assert {n: layer.effective for n, layer in found.layers.items()} == {
        "depthwise.weight": 9,
        "pointwise.weight": 2,
        "head.weight": 3 * 2 * 16,
    }
    assert [layer.dead for layer in found.layers.values()] == [1, 1, 0]


def test_a_single_pixel_of_a_flattened_channel() -> None:
    """The head looks at the pixel in the corner alone, which five taps of nine see as padding."""
    net = Depthwise()
    mask = {**masks.ones(net), "head.weight": torch.zeros(3, 48) == 1}
    mask["head.weight"][0, 16] = True  # channel 2, row 1, column 1
    found = effective_sparsity(net, mask, IMAGE)
    assert {n: layer.effective for n, layer in found.layers.items()} == {
        "depthwise.weight": 2 * 4,
        "pointwise.weight": 2,
        "head.weight": 1,
    }
    corner = torch.tensor([[False, False, False], [False, True, True], [False, True, True]])
    assert torch.equal(found.mask["depthwise.weight"][0, 0], corner)
    assert found.outputs == 1
    assert [layer.dead for layer in found.layers.values()] == [0, 2, 2]


class Pooled(nn.Module):
    """A convolution of which every window hands on its largest value."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(2, 1, 3, padding=1), pool
        self.head = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.conv(x)).flatten(1))


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(2), nn.AvgPool2d(2)])
def test_any_value_of_a_window_may_be_the_largest(pool: nn.Module) -> None:
    """Of the window in the corner, two rows and columns: all taps meet a pixel somewhere."""
    net = Pooled(pool)
    net(torch.zeros(1, 2, 4, 4))
    mask = masks.ones(net)
    mask["head.weight"][:, 1:] = False
    assert _of(net, mask, IMAGE) == {"conv": 18, "head": 3}
    mask["head.weight"][:] = False
    assert _of(net, mask, IMAGE) == {"conv": 0, "head": 0}


@pytest.mark.parametrize(
    "activation",
    [
        *(nn.Hardtanh(), nn.Softshrink(1.0), nn.Hardshrink(1.0), nn.Threshold(1.0, 0.0)),
        *(nn.Softmin(dim=1), nn.ReLU6(), nn.Hardswish(), nn.SiLU()),
    ],
    ids=lambda module: type(module).__name__,
)
def test_an_activation_that_is_level_somewhere_stops_no_path(activation: nn.Module) -> None:
    layers = (nn.Flatten(), nn.Linear(32, 8), activation, nn.Linear(8, 3))
    net = nn.Sequential(*layers)
    assert _of(net, masks.ones(net), IMAGE) == {"1": 256, "3": 24}


def test_a_maximum_by_dimension_is_reached_by_all_that_it_compares() -> None:
    class Largest(nn.Module):
        def __init__(self, whole: bool) -> None:
            super().__init__()
            self.conv, self.fc, self.whole = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 3), whole

        def forward(self, x: Tensor) -> Tensor:
            found = F.relu(self.conv(x)).flatten(2)
            return self.fc(found.amax(2) if self.whole else found.max(2).values)

    nets = [Largest(whole) for whole in (True, False)]
    assert [_of(net, masks.ones(net), IMAGE) for net in nets] == [{"conv": 72, "fc": 12}] * 2


def test_taps_that_meet_padding_alone_do_nothing() -> None:
    shape = DataShape(channels=1, size=4, classes=3)
    net = build("resnet14(width=2)", shape)
    found = effective_sparsity(net, masks.ones(net), shape)
    layers = {name: (layer.size, layer.effective) for name, layer in found.layers.items()}
    assert layers["layer1.0.conv1.weight"] == (36, 36)
    assert layers["layer3.0.conv2.weight"] == (8 * 8 * 9, 8 * 8)  # its image is a single pixel
    assert found.dead == 0


class Transposed(nn.Module):
    """From four channels of one pixel to four of four, in two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 4, 2, groups=2)
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(x).flatten(1))


def test_units_of_a_transposed_convolution_are_its_outputs() -> None:
    net = Transposed()
    mask = masks.ones(net)
    mask["head.weight"][0, 4:8] = False  # channel 2 of 4
    found = effective_sparsity(net, mask, DataShape(channels=4, size=1, classes=1))
    assert (found.layers["up.weight"].units, found.layers["up.weight"].dead) == (4, 1)
    assert found.layers["up.weight"].effective == 32 - 8
    alive = [[True, False], [True, False], [True, True], [True, True]]
    assert found.mask["up.weight"].any((2, 3)).tolist() == alive


class InPlace(Two):
    """Two, which changes what a layer has seen."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x.sub_(1.0).flatten(1))
        return self.second(hidden) + 0 * hidden.add_(1.0).sum()


def test_what_a_layer_has_seen_may_change_afterwards() -> None:
    found = effective_sparsity(InPlace(), masks.ones(Two()), PIXELS)
    assert found.effective == found.kept


# Against another way of counting -----------------------------------------------------------------

NETWORKS = {
    "mlp2(width=6,last_width=4)": IMAGE,
    "lenet_300_100(width=6,last_width=4)": IMAGE,
    "conv4(width=2)": IMAGE,
    "vgg11(width=2,fc=2)": DataShape(channels=2, size=16, classes=3),
    "resnet14(width=2)": DataShape(channels=2, size=8, classes=3),
    "resnet14(width=2,shortcut=pad,bn_affine=false)": DataShape(channels=2, size=8, classes=3),
    "mobilenet(width=2,repeats=1)": DataShape(channels=2, size=16, classes=3),
}
DENSITIES = (0.7, 0.4, 0.25, 0.15)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_where_synflow_flows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SynFlow's scores in float64 without shifts, of networks so small that none vanishes."""
    shape = NETWORKS[name]
    net = build(name, shape)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1.0 if parameter.dim() > 1 else 0.0)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.fill_(1.0)
    seen = set()
    for seed, density in enumerate(4 * DENSITIES):
        mask = _random(net, density, seed)
        with monkeypatch.context() as patch:  # its gradient would follow one of equal values
            patch.setattr(F, "max_pool2d", F.avg_pool2d)
            scores = synflow.scores(net, mask, shape)
        found = effective_sparsity(net, mask, shape)
        for layer, score in scores.items():
            assert torch.equal(found.mask[layer], score > 0), layer
        seen.add(found.effective)
        kept = {n: layer.kept for n, layer in found.layers.items()}
        assert kept == {n: int(m.sum()) for n, m in mask.items()}
        assert found.collapsed == (found.effective == 0)
    assert len(seen) > 3


@pytest.mark.parametrize(
    ("name", "densities"),
    [
        *((name, (0.5, 0.3, 0.15)) for name in NETWORKS),
        ("resnet50", (0.003,)),
    ],
)
def test_without_the_others_it_is_the_same_function(
    name: str, densities: tuple[float, ...]
) -> None:
    shape = NETWORKS.get(name, DataShape(channels=3, size=32, classes=3))
    net = build(name, shape).double().eval()
    images = torch.randn(2, *shape.image, generator=stream(0, "images"), dtype=torch.float64)
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if key.endswith("bias"):
                tensor.zero_()
    telling = False
    for seed, density in enumerate(densities):
        mask = _random(net, density, seed)
        found = effective_sparsity(net, mask, shape)
        telling |= 0 < found.effective < found.kept
        logits = []
        for some in (mask, found.mask):
            pruned = copy.deepcopy(net)
            pruned.load_state_dict(masks.apply(some, net.state_dict()))
            logits.append(pruned(images))
        torch.testing.assert_close(*logits, rtol=1e-12, atol=1e-14)
        assert not found.collapsed or not bool(logits[0].any())
        again = effective_sparsity(net, found.mask, shape)
        assert again.kept == again.effective == found.effective
    assert telling


def _by_search(mask: Mapping[str, Tensor]) -> dict[str, list[list[bool]]]:
    """Of a perceptron, edge by edge."""
    layers = [m.tolist() for m in mask.values()]
    reached = [{*range(len(layers[0][0]))}]
    for rows in layers:
        reached.append({i for i, row in enumerate(rows) if any(row[j] for j in reached[-1])})
    asked = [{*range(len(layers[-1]))}]
    for rows in reversed(layers):
        asked.insert(0, {j for j in range(len(rows[0])) if any(rows[i][j] for i in asked[0])})
    return {
        name: [
            [bool(kept) and j in come and i in go for j, kept in enumerate(row)]
            for i, row in enumerate(rows)
        ]
        for name, rows, come, go in zip(mask, layers, reached, asked[1:], strict=False)
    }


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.2, 0.4]))
def test_perceptrons_by_search(seed: int, density: float) -> None:
    net = build("mlp3(width=5,last_width=4)", PIXELS)
    mask = _random(net, density, seed)
    found = effective_sparsity(net, mask, PIXELS)
    assert {name: m.tolist() for name, m in found.mask.items()} == _by_search(mask)


DEEP = {
    "resnet110": ("layer1.0.conv1", "layer1.0.conv2"),
    "mobilenet": ("stage1.0.pointwise", "stage2.0.depthwise"),
    "vgg19": ("stage1.0.conv", "stage1.1.conv"),
}
"""Their paths are too many to be counted: 144 inputs to the power of 109 layers are 1e235. Beside
each a layer and the one that takes its outputs."""


@pytest.mark.parametrize("name", DEEP)
def test_in_deep_networks_nothing_overflows(name: str) -> None:
    """And so zero times what has overflown makes no path where there is none."""
    shape = DataShape(channels=3, size=16, classes=10)
    net = build(name, shape)
    mask = masks.ones(net)
    before, after = (f"{layer}.weight" for layer in DEEP[name])
    place = 0 if mask[after].shape[1] == 1 else (slice(None), 0)
    mask[after][place] = False
    found = effective_sparsity(net, mask, shape)
    assert not bool(found.mask[before][0].any())
    assert bool(found.mask[before][1:].all())
    assert found.layers[before].dead == 1
    assert found.outputs == 10


@pytest.mark.parametrize("name", DEEP)
def test_in_deep_networks_nothing_vanishes(name: str) -> None:
    """A single path: the first unit of each layer is kept with its first input, and no other."""
    shape = DataShape(channels=3, size=16, classes=10)
    net = build(name, shape)
    mask = {n: torch.zeros_like(m) for n, m in masks.ones(net).items()}
    for m in mask.values():
        m[(0, 0, *(side // 2 for side in m.shape[2:]))] = True
    found = effective_sparsity(net, mask, shape)
    assert found.outputs == 1
    assert found.effective == found.kept == len(mask)


# From outside ------------------------------------------------------------------------------------


def test_a_vision_transformer() -> None:
    """Constants, as learned places, are no input; queries and keys count as values do."""
    shape = DataShape(channels=1, size=8, classes=3)
    net = vit(shape, depth=2, width=8)
    dense = effective_sparsity(net, masks.ones(net), shape)
    assert dense.kept == dense.effective == dense.total
    mask = masks.ones(net)
    mask["patches.weight"][:] = False
    gone = effective_sparsity(net, mask, shape)
    assert gone.collapsed
    assert gone.effective == 0

    mask = masks.ones(net)
    mask["blocks.0.attention.in_proj_weight"][16:] = False  # no values: the attention is silent
    found = effective_sparsity(net, mask, shape)
    assert found.layers["blocks.0.attention.in_proj_weight"].effective == 0
    assert found.layers["blocks.0.attention.out_proj.weight"].effective == 0
    assert found.layers["blocks.0.mlp.0.weight"].effective == 16 * 8

    mask = masks.ones(net)
    mask["blocks.0.attention.in_proj_weight"][:8] = False  # no queries: all keys weigh the same
    found = effective_sparsity(net, mask, shape)
    assert found.layers["blocks.0.attention.in_proj_weight"].effective == 8 * 8
    assert found.layers["blocks.0.attention.out_proj.weight"].effective == 8 * 8


class Strange(nn.Module):
    """Tokens first, a class token, gates that begin at 0, and probabilities at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 1, 4))
        self.gate = nn.Parameter(torch.zeros(4))
        self.embed = nn.Linear(2, 4)
        self.mix = nn.MultiheadAttention(4, 2)
        self.squeeze, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(2).permute(2, 0, 1))  # (tokens, N, 4)
        x = torch.cat([self.token.expand(1, x.shape[1], 4), x])
        x = x + self.gate * self.mix(x, x, x)[0]
        x = x * torch.sigmoid(self.squeeze(x.mean(0)))
        x = F.dropout(self.norm(x[0]), 0.5)
        return self.head(x).log_softmax(-1)


def test_a_network_of_which_nothing_is_known() -> None:
    net = Strange()
    found = effective_sparsity(net, masks.ones(net), IMAGE)
    assert found.kept == found.effective
    assert found.outputs == 3
    mask = masks.ones(net)
    mask["mix.out_proj.weight"][:] = False  # then the class token, which is read, sees no pixel
    silent = effective_sparsity(net, mask, IMAGE)
    assert {n: layer.effective for n, layer in silent.layers.items() if layer.effective} == {
        "embed.weight": 8,
        "squeeze.weight": 16,
        "head.weight": 12,
    }  # all by the gate, which sees the mean of all tokens
    mask["squeeze.weight"][:] = False
    assert effective_sparsity(net, mask, IMAGE).collapsed


class Centred(nn.Module):
    """Of each image, or of each of its places, the mean over some dimensions is taken away."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(self.dims, keepdim=True)
        return x / (x.square().mean(self.dims, keepdim=True) + 1e-6).sqrt()


class Standardised(nn.Conv2d):
    """It multiplies by what it makes of its weight."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, padding=1)


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(2, 8, 3, padding=1), Centred(1), nn.ReLU()),
        (Centred(1, 2, 3), nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(inplace=True)),
        (Standardised(2, 8, 3, padding=1), nn.ReLU()),
    ],
    ids=("layer norm", "images", "weights"),
)
def test_a_mean_that_is_taken_away_stops_no_path(layers: tuple[nn.Module, ...]) -> None:
    net = nn.Sequential(*layers, nn.Conv2d(8, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 3))
    found = effective_sparsity(net, masks.ones(net), IMAGE)
    assert (found.effective, found.dead, found.outputs) == (found.total, 0, 3)


def test_a_weight_that_a_layer_makes_of_its_own_goes_by_the_mask() -> None:
    net = nn.Sequential(Standardised(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(48, 3))
    mask = masks.ones(net)
    mask["0.weight"][:] = False
    mask["0.weight"][0, 0, 1, 1] = True
    assert _of(net, mask, IMAGE) == {"0": 1, "2": 3 * 16}


# What is told, and what is refused ---------------------------------------------------------------


def test_the_network_is_left_as_it_is() -> None:
    shape = DataShape(channels=3, size=8, classes=3)
    net = build("resnet14(width=4)", shape).train()
    net.get_submodule("layer1").eval()
    before, drawn = state_digest(net.state_dict()), torch.random.get_rng_state()
    mask = _random(net, 0.5, 0)
    digest = masks.digest(mask)
    with torch.no_grad():
        first = effective_sparsity(net, mask, shape)
    assert state_digest(net.state_dict()) == before
    assert masks.digest(mask) == digest
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert net.training
    assert not net.get_submodule("layer1").training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert first.mask["conv1.weight"].dtype is torch.bool
    assert masks.digest(effective_sparsity(net.double(), mask, shape).mask) == masks.digest(
        first.mask
    )


def test_plain_is_json() -> None:
    net = Two()
    found = effective_sparsity(net, masks.ones(net), PIXELS).plain()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["layers"]["second.weight"] == {
        "size": 2,
        "kept": 2,
        "effective": 2,
        "units": 1,
        "dead": 0,
    }
    assert (found["total"], found["sparsity"], found["collapsed"]) == (6, 0, False)


def test_masks_of_equal_counts_are_told_apart() -> None:
    """A shuffled mask keeps as many weights as one by SynFlow, and can do less."""
    shape = DataShape(channels=3, size=8, classes=10)
    net = build("resnet14(width=4)", shape)
    flows = synflow.prune(net, masks.ones(net), 300, shape=shape)
    shuffled = shuffle_global(flows, 0)
    assert masks.nonzeros(flows) == masks.nonzeros(shuffled)
    found = [effective_sparsity(net, mask, shape).effective for mask in (flows, shuffled)]
    assert found[0] == 300
    assert found[1] < 200


class Talkative(Two):
    """Two, which tells more than logits."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x), x)  # type: ignore[return-value]


class Deaf(Two):
    """Two, of which no logit depends on the image."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(x))


class Fickle(Two):
    """Two, of which dark images skip the hidden layer."""

    def forward(self, x: Tensor) -> Tensor:
        return self.second(x.flatten(1)) if x.sum() == 0 else super().forward(x)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("second.weight", None, "the mask of 'second.weight' is missing"),
        (
            "second.weight",
            torch.ones(2, 1) == 1,
            r"the mask of 'second.weight' should be boolean of shape \(1, 2\), found torch.bool "
            r"\(2, 1\)",
        ),
        (
            "second.weight",
            torch.ones(1, 2),
            r"the mask of 'second.weight' should be boolean of shape \(1, 2\), found torch.float32 "
            r"\(1, 2\)",
        ),
        ("third.weight", torch.ones(1) == 1, "names 'third.weight', which is no prunable weight"),
    ],
)
def test_masks_that_do_not_fit(name: str, value: Tensor | None, message: str) -> None:
    mask: dict[str, Tensor] = {**masks.ones(Two()), name: torch.empty(0)}
    if value is None:
        del mask[name]
    else:
        mask[name] = value
    with pytest.raises(ElthError, match=message):
        effective_sparsity(Two(), mask, PIXELS)


def test_networks_that_do_not_fit() -> None:
    plan = blueprint("mlp1", PIXELS)
    with pytest.raises(ElthError, match="'stem.weight' has no storage: build the network"):
        effective_sparsity(plan, masks.ones(plan), PIXELS)
    with pytest.raises(ElthError, match="the network has no convolution, linear layer or atten"):
        effective_sparsity(nn.Flatten(), {}, PIXELS)
    with pytest.raises(ElthError, match="the network gave a tuple for an image; expected logits"):
        effective_sparsity(Talkative(), masks.ones(Two()), PIXELS)
    with pytest.raises(ElthError, match="calls other layers for an image of noise than for one o"):
        effective_sparsity(Fickle(), masks.ones(Fickle()), PIXELS)
    with pytest.raises(ElthError, match="no logit of Deaf depends on the image even where all wei"):
        effective_sparsity(Deaf(), _mask(first=[[1, 1], [0, 0]], second=[[1, 1]]), PIXELS)
