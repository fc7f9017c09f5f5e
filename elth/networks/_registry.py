"""The networks by name: how they are built, initialised, measured and compared with a state."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from elth.convolutions import is_strided_pixel
from elth.errors import ElthError
from elth.networks import _options, conv4, imagenet, mlp, mobilenet, resnet, vgg
from elth.networks._network import Builder, Network
from elth.specs import DataShape, Spec

NETWORKS: dict[str, Builder] = {
    **resnet.NETWORKS,
    **vgg.NETWORKS,
    **imagenet.NETWORKS,
    **mobilenet.NETWORKS,
    **conv4.NETWORKS,
    **mlp.NETWORKS,
}


def catalogue() -> dict[str, dict[str, Any]]:
    """What the functions tell of their options, as JSON values.

    For each network the ``defaults``, and the ``words`` that an option may be.
    """
    return {name: _told(builder) for name, builder in NETWORKS.items()}


@functools.cache
def _told(builder: Builder) -> dict[str, Any]:
    parameters = inspect.signature(builder).parameters.values()
    hints = get_type_hints(builder)
    return {
        "defaults": {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY},
        "words": {
            key: list(get_args(hint)) for key, hint in hints.items() if get_origin(hint) is Literal
        },
    }


def _canonical(spec: str | Spec) -> Spec:
    return _options.canonical(spec, catalogue())


def build(spec: str | Spec, shape: DataShape, *, generator: torch.Generator) -> Network:
    """Make a network on the CPU, initialised from ``generator`` alone (see ``initialise``).

    Raises:
        ElthError: unknown network or option, or a shape that the network cannot take.
    """
    # Made on the CPU, as buffers are what their author made of them; what its modules draw for
    # their parameters is drawn anew, and nobody else's draws are disturbed.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        network = _make(_canonical(spec), shape)
    initialise(network, generator)
    return network


def _make(spec: Spec, shape: DataShape) -> Network:
    return NETWORKS[spec.name](shape, **dict(spec.options))


@functools.lru_cache(maxsize=256)
def _blueprint(spec: Spec, shape: DataShape) -> Network:
    with torch.device("meta"):
        return _make(spec, shape)


def blueprint(spec: str | Spec, shape: DataShape) -> Network:
    """Return the network without storage (device "meta"): names, shapes and anatomy only."""
    return _blueprint(_canonical(spec), shape)


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw every parameter anew, in the order of the network's modules.

    Kaiming normal (fan-in) for the weights of convolutions and linear layers, or Kaiming uniform
    where the network's ``init`` says so; torch's own uniform law for their biases; batch
    normalisation: scale uniform in [0, 1), shift 0, running mean 0 and variance 1. The first are
    the settings of the experiments of E-LTH.

    Raises:
        ElthError: a module holds parameters of a kind for which no law is stated.
    """
    uniform = isinstance(network, Network) and network.init == "kaiming_uniform"
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            if uniform:
                bound = math.sqrt(6.0 / fan_in)
                module.weight.uniform_(-bound, bound, generator=generator)
            else:
                module.weight.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
            if module.bias is not None:
                bound = 1.0 / math.sqrt(fan_in)
                module.bias.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            if module.affine:
                module.weight.uniform_(0.0, 1.0, generator=generator)
                module.bias.zero_()
        elif next(module.parameters(recurse=False), None) is not None:
            raise ElthError(f"no initialisation is stated for {type(module).__name__} '{name}'")


def prunable(network: nn.Module) -> tuple[str, ...]:
    """Names of the prunable weights: those of every convolution and linear layer, in order."""
    return tuple(
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    )


def check_state(state: Mapping[str, Tensor], spec: Spec, shape: DataShape, *, what: str) -> None:
    """Refuse a state dict that does not fit its network.

    Raises:
        ElthError: naming the first tensor that is missing, superfluous or of another shape.
    """
    expected = blueprint(spec, shape).state_dict()
    for name, tensor in expected.items():
        if name not in state:
            raise ElthError(f"{what} does not fit {spec}: tensor '{name}' is missing")
        if state[name].shape != tensor.shape:
            raise ElthError(
                f"{what} does not fit {spec}: tensor '{name}' should have shape "
                f"{tuple(tensor.shape)}, found {tuple(state[name].shape)}"
            )
    for name in state:
        if name not in expected:
            raise ElthError(f"{what} does not fit {spec}: it has no tensor '{name}'")


def smallest_norm(network: nn.Module, shape: DataShape) -> tuple[str, int]:
    """The batch normalisation that sees the fewest values of a channel of an image, and how many.

    A layer that sees one value has no statistics of a single image. An empty name and 0 without
    batch normalisation. One image is shown to the network, in evaluation mode.
    """
    seen: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs:
                seen[name] = inputs[0][0, 0].numel()

        return hook

    hooks = [
        module.register_forward_pre_hook(note(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    if not hooks:
        return "", 0
    was_training, like = network.training, next(network.parameters())
    try:
        with torch.no_grad():
            network.eval()(torch.zeros((1, *shape.image), dtype=like.dtype, device=like.device))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return min(seen.items(), key=lambda item: item[1], default=("", 0))


def strided_pixels(network: nn.Module) -> tuple[int, ...]:
    """Input channels, in each group, of the convolutions of one pixel with a stride."""
    return tuple(
        module.in_channels // module.groups
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
        and is_strided_pixel(module.kernel_size, module.stride, module.padding)
    )


def macs(spec: str | Spec, shape: DataShape) -> int:
    """Multiply-accumulate operations of convolutions and linear layers for one image, forward."""
    return _counted(_canonical(spec), shape)[0]


def norm_values(spec: str | Spec, shape: DataShape) -> int:
    """What ``smallest_norm`` counts, of a network that need not be made."""
    return _counted(_canonical(spec), shape)[1]


@functools.lru_cache(maxsize=256)
def _counted(spec: Spec, shape: DataShape) -> tuple[int, int]:
    """Multiply-accumulate operations, and values at the smallest normalisation."""
    with torch.device("meta"):
        network = _make(spec, shape)
    total, values = 0, [0]

    def stand_in(module: nn.Conv2d | nn.Linear) -> Callable[[Tensor], Tensor]:
        """Count, and give zeros of the right shape: no weight is needed and nothing computed."""

        def forward(x: Tensor) -> Tensor:
            nonlocal total
            size: list[int] = []
            if isinstance(module, nn.Conv2d):
                size = [
                    (x.shape[2 + i] + 2 * int(module.padding[i]) - module.kernel_size[i])
                    // module.stride[i]
                    + 1
                    for i in (0, 1)
                ]
            total += module.weight.numel() * math.prod(size)
            return torch.zeros(1, module.weight.shape[0], *size)

        return forward

    def pass_on(x: Tensor) -> Tensor:
        values.append(x[0, 0].numel())
        return x

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            vars(module)["forward"] = stand_in(module)
        elif isinstance(module, nn.BatchNorm2d):
            vars(module)["forward"] = pass_on
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape.image))
    return total, min(values[1:], default=0)


def measured(spec: str | Spec, shape: DataShape) -> dict[str, Any]:
    """The fields of ``Facts``, as JSON values, of the network as it is when it is built."""
    network = blueprint(spec, shape)
    sizes = {name: network.get_parameter(name).numel() for name in prunable(network)}
    return {
        "anatomy": dataclasses.asdict(network.anatomy),
        "layers": len(sizes),
        "prunable": sum(sizes.values()),
        "unpruned": sum(sizes[name] for name in network.anatomy.unpruned),
        "macs": macs(spec, shape),
        "norm_values": norm_values(spec, shape),
        "strided_pixels": strided_pixels(network),
    }
