"""Convolutions that kernels get wrong: the same function, never given to oneDNN as they are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from elth.convolutions import arrange_convolutions, calls_others, safe_convolutions
from elth.criteria import prune
from elth.engine import Engine
from elth.forward import Forward, channels_last
from elth.masks import ones, total
from elth.networks import DataShape, build
from elth.recipes import Recipe, Step
from elth.streams import stream
from tests.elth.helpers import dataset

SHAPE = DataShape(channels=3, size=8, classes=3)
NARROW = "resnet14(width=4)"


class _Strides(TorchDispatchMode):
    """Counts the strided convolutions of one pixel that PyTorch is given, backward ones too."""

    count = 0
    convolutions = 0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        place = {"convolution": 1, "convolution_backward": 2}.get(func.__name__.split(".")[0])
        if place is not None:
            self.convolutions += 1
            is_pixel = all(side == 1 for side in args[place].shape[2:])
            self.count += is_pixel and any(step > 1 for step in args[place + 2])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("convolution", "input", "weight", "more"),
    [
        (F.conv2d, (2, 4, 9, 8), (6, 4, 1, 1), {"stride": 2}),
        (F.conv2d, (2, 4, 9, 8), (6, 2, 1, 1), {"stride": (3, 2), "groups": 2}),
        (F.conv2d, (4, 9, 8), (6, 4, 1, 1), {"stride": 2, "padding": "valid"}),
        (F.conv2d, (2, 4, 9, 8), (6, 4, 1, 1), {"stride": 2, "padding": 1}),
        (F.conv2d, (2, 4, 9, 8), (6, 4, 1, 1), {"stride": (1, 2), "padding": (0, 0)}),
        (F.conv2d, (2, 4, 9, 8), (6, 4, 3, 3), {"stride": 2, "padding": 1, "dilation": 2}),
        (F.conv2d, (2, 4, 9, 8), (6, 4, 1, 3), {"stride": 2}),
        (F.conv1d, (2, 4, 9), (6, 4, 1), {"stride": 2}),
        (F.conv3d, (2, 4, 5, 9, 8), (6, 4, 1, 1, 1), {"stride": 2}),
        *(
            (F.conv2d, (2, 4, *sides), (6, 2, kernel, 3), more | {"groups": 2})
            for sides in ((1, 1), (2, 1), (1, 8), (4, 3))
            for kernel in (3, 6)
            for more in (
                {"stride": 2, "padding": (kernel // 2, 1)},
                {"stride": (3, 5), "padding": (3, 4)},
                {"stride": 2, "padding": (5, 2), "dilation": 2},
                {"stride": (1, 3), "padding": (5, 7)},
            )
        ),
        (F.conv2d, (2, 4, 1, 1), (6, 4, 1, 1), {"stride": 2, "padding": 1}),  # meets no pixel
        (F.conv2d, (4, 1, 1), (6, 4, 3, 3), {"stride": 2, "padding": 1}),
        (F.conv1d, (2, 4, 1), (6, 4, 3), {"stride": 2, "padding": 1}),
        (F.conv1d, (2, 4, 2), (6, 4, 7), {"stride": 2, "padding": 3}),
        (F.conv3d, (2, 4, 1, 2, 3), (6, 4, 3, 3, 3), {"padding": 1}),
        (F.conv3d, (2, 4, 1, 2, 3), (6, 4, 3, 7, 5), {"padding": "same"}),
        (F.conv3d, (2, 4, 3, 3, 3), (6, 4, 7, 7, 7), {"stride": 2, "padding": 3}),
        *(
            (F.conv_transpose2d, (2, 4, *sides), (4, 3, 3, kernel), more | {"groups": 2})
            for sides in ((1, 1), (2, 1), (5, 4))
            for kernel in (3, 4)
            for more in (
                {"stride": 2, "padding": 1},
                {"stride": 2, "padding": 1, "output_padding": 1},
                {"stride": 3, "padding": (1, 0), "output_padding": (2, 1), "dilation": 2},
            )
        ),
        (
            F.conv_transpose1d,
            (2, 4, 1),
            (4, 3, 2),
            {"stride": 3, "padding": 2, "output_padding": 2, "dilation": 4},
        ),
        (F.conv_transpose1d, (2, 4, 1), (4, 3, 3), {"stride": 2, "padding": 1}),
        (F.conv_transpose3d, (2, 4, 1, 2, 1), (4, 3, 3, 3, 3), {"padding": 1}),
    ],
)
def test_the_same_function(
    convolution: Callable[..., Tensor],
    input: tuple[int, ...],
    weight: tuple[int, ...],
    more: dict[str, Any],
) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    is_transposed = "transpose" in convolution.__name__
    outputs = weight[1] * more.get("groups", 1) if is_transposed else weight[0]
    x, w, b = drawn(*input), drawn(*weight), drawn(outputs)
    expected = convolution(x, w, b, **more)
    with safe_convolutions():
        found = convolution(x, w, b, **more)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad(found, (x, w, b), upstream),
        torch.autograd.grad(expected, (x, w, b), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


class _Functional(nn.Module):
    """A network from outside, which calls a strided convolution by its function."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, 1, 1, generator=stream(0, "w")))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, stride=2).mean((2, 3))


class _OfItsOwn(nn.Conv2d):
    """A convolution of a class of its own."""


def _outside() -> list[nn.Module]:
    own = nn.Sequential(_OfItsOwn(3, 3, 1, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    listed = build(NARROW, SHAPE, generator=stream(0, "init"))
    parametrised = nn.Sequential(nn.Conv2d(3, 3, 1, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    torch.nn.utils.parametrizations.weight_norm(parametrised[0])
    return [listed, _Functional(), own, parametrised]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("index", range(4))
def test_no_network_gives_pytorch_a_strided_pixel(index: int, precision: str) -> None:
    network = _outside()[index]
    recipe = Recipe(length=Step(1, "ep"), rewind=Step(0, "ep"), precision=precision)
    forward = Forward(copy.deepcopy(network), recipe, torch.device("cpu"))
    images = channels_last(torch.randn(4, 3, 8, 8))
    labels = torch.zeros(4, dtype=torch.int64)
    with _Strides() as seen:
        for training in (True, False):
            forward.network.train(training)
            torch.autograd.backward(forward.loss(images, labels))
    assert seen.count == 0
    assert seen.convolutions >= 4
    network = network.double()  # whose kernels are right
    with _Strides() as plain:  # the test would notice
        torch.autograd.backward(F.cross_entropy(network(images.double()), labels))
    assert plain.count >= 2


@pytest.mark.parametrize("name", ["snip", "grasp", "synflow"])
def test_criteria_give_pytorch_none(name: str) -> None:
    network = build(NARROW, SHAPE, generator=stream(0, "init"))
    mask = ones(network)
    settings: dict[str, Any] = {"iterations": 1} if name == "synflow" else {}
    with _Strides() as seen:
        prune(
            name,
            network,
            mask,
            total(mask) // 2,
            shape=SHAPE,
            data=dataset(140, shape=SHAPE),
            seed=0,
            **settings,
        )
    assert seen.convolutions > 10
    assert seen.count == 0
    assert type(network.get_submodule("layer2.0.downsample.0")) is nn.Conv2d  # left as it is


def test_compiled_code_has_none() -> None:
    """Also of a network that calls functions, which are looked at while it is compiled."""
    recipe = Recipe(length=Step(1, "ep"), rewind=Step(0, "ep"), batch_size=4)
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    for network in _outside()[:2]:
        forward = Forward(network, recipe, torch.device("cpu"))
        fast = torch.compile(forward.loss, dynamic=False, fullgraph=True, backend=keep)
        torch.autograd.backward(
            fast(channels_last(torch.randn(4, 3, 8, 8)), torch.zeros(4, dtype=torch.int64))
        )
    calls = [n for g in graphs for n in g.graph.nodes if n.target is torch.conv2d]
    assert len(calls) > 15
    strides = {a if isinstance(a, int) else max(a) for n in calls for a in n.args[3:4]}
    kernels = [tuple(n.args[1].meta["example_value"].shape[2:]) for n in calls]
    assert 2 in strides  # 3x3 convolutions keep theirs
    assert (1, 1) in kernels
    for node, kernel in zip(calls, kernels, strict=True):
        stride = node.args[3] if len(node.args) > 3 else node.kwargs.get("stride", 1)
        assert kernel != (1, 1) or set(stride if isinstance(stride, tuple) else (stride,)) == {1}


def test_modules_stay_the_same_objects() -> None:
    network = build(NARROW, SHAPE, generator=stream(0, "init"))
    shortcut, weights = network.get_submodule("layer2.0.downsample.0"), dict(network.state_dict())
    arrange_convolutions(network)
    assert network.get_submodule("layer2.0.downsample.0") is shortcut
    assert isinstance(shortcut, nn.Conv2d)
    assert all(t.data_ptr() == weights[n].data_ptr() for n, t in network.state_dict().items())
    assert not calls_others(network)
    assert calls_others(_Functional())
    assert "SafeConv2d(4, 8, kernel_size=(1, 1), stride=(2, 2), bias=False)" in repr(network)


def test_gradients_of_narrow_networks_are_right() -> None:
    """Against float64; with oneDNN's own way they are off by 600 to 2,500 % where it is AVX2."""
    images = torch.randn(64, 1, 8, 8, generator=stream(0, "x"))
    labels = torch.randint(0, 10, (64,), generator=stream(0, "y"))
    shape = DataShape(channels=1, size=8, classes=10)
    recipe = Recipe(length=Step(1, "ep"), rewind=Step(0, "ep"))
    for width in (2, 4, 6):
        network = build(f"resnet14(width={width})", shape, generator=stream(0, "init"))
        exact = copy.deepcopy(network).double().train()
        torch.autograd.backward(F.cross_entropy(exact(images.double()), labels))
        engine = Engine(network, recipe)
        engine.network.train()
        torch.autograd.backward(engine.loss(images, labels))
        for name, own in engine.network.named_parameters():
            known = exact.get_parameter(name).grad
            assert own.grad is not None
            assert known is not None
            off = torch.linalg.vector_norm(own.grad.double() - known)
            assert float(off) < 0.1 * float(torch.linalg.vector_norm(known)), (width, name)


class _Idle(TorchDispatchMode):
    """Counts the convolutions with a stride whose kernels are larger than what they meet."""

    count = 0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        place = {"convolution": 0, "convolution_backward": 1}.get(func.__name__.split(".")[0])
        if place is not None:
            input, weight, stride = args[place], args[place + 1], args[place + (3 - place)]
            self.count += max(stride) > 1 and input.shape[-1] < weight.shape[-1]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_taps_that_meet_only_padding_are_left_out(precision: str) -> None:
    """As of a network that comes to images of a pixel; in bf16 some processors are wrong there."""
    network = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ConvTranspose2d(16, 16, 3, 2, 1),
        nn.Conv2d(16, 3, 3, 2, 1),
        nn.Flatten(),
    )
    exact = copy.deepcopy(network).double()
    recipe = Recipe(length=Step(1, "ep"), rewind=Step(0, "ep"), precision=precision)
    forward = Forward(network, recipe, torch.device("cpu"))
    images = channels_last(torch.randn(128, 3, 4, 4, generator=stream(0, "x")))
    labels = torch.zeros(128, dtype=torch.int64)
    with _Idle() as plain:
        torch.autograd.backward(F.cross_entropy(exact(images.double()), labels))
    assert plain.count >= 4
    for _ in range(10):
        forward.network.zero_grad()
        with _Idle() as seen:
            torch.autograd.backward(forward.loss(images, labels))
        assert seen.count == 0
        for name, own in forward.network.named_parameters():
            known = exact.get_parameter(name).grad
            torch.testing.assert_close(own.grad, known, rtol=0.05, atol=2e-3, check_dtype=False)


def test_the_mode_covers_functions_only_while_it_is_entered() -> None:
    x, w = torch.randn(1, 2, 4, 4), torch.randn(2, 2, 1, 1)
    with safe_convolutions(), _Strides() as inside:
        F.conv2d(x, w, stride=2)
    with _Strides() as outside:
        F.conv2d(x, w, stride=2)
    assert (inside.count, outside.count) == (0, 1)
