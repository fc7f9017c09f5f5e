"""The networks of the papers, each telling its anatomy: stages, units, and what is fixed.

A network is a function of the data's shape and of its options. To add one, write a file beside
this one with a ``NETWORKS`` dict and name it in the list below.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from elth.errors import ElthError, unknown
from elth.networks import mlp, resnet
from elth.networks._anatomy import Anatomy, Builder, Network, Stage
from elth.networks._spec import DataShape, NetworkSpec

__all__ = [
    "NETWORKS",
    "Anatomy",
    "DataShape",
    "Network",
    "NetworkSpec",
    "Stage",
    "blueprint",
    "build",
    "canonical",
    "check_state",
    "initialise",
    "macs",
    "options",
    "prunable",
]

NETWORKS: dict[str, Builder] = {**resnet.NETWORKS, **mlp.NETWORKS}


def options(name: str) -> dict[str, Any]:
    """Return the options of a network with their defaults, as ``{"width": 16}``."""
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    parameters = inspect.signature(NETWORKS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def canonical(spec: str | NetworkSpec) -> NetworkSpec:
    """Check a name and its options; sort them, and leave out those that say the default.

    Raises:
        ElthError: unknown network or option, or a value of another type than the default's.
    """
    spec = NetworkSpec.parse(spec)
    defaults = options(spec.name)
    kept = []
    for key, value in spec.options:
        if key not in defaults:
            raise unknown(f"option of network {spec.name}", key, defaults)
        if type(value) is not type(defaults[key]):
            raise ElthError(
                f"option {key} of network {spec.name} is {value!r}; expected a value like "
                f"{defaults[key]!r}"
            )
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ElthError(f"option {key} of network {spec.name} must be at least 1, is {value}")
        if value != defaults[key]:
            kept.append((key, value))
    return NetworkSpec(spec.name, tuple(sorted(kept)))


def build(spec: str | NetworkSpec, shape: DataShape, *, generator: torch.Generator) -> Network:
    """Make a network on the CPU, initialised from ``generator`` alone (see ``initialise``).

    Raises:
        ElthError: unknown network or option, or a shape that the network cannot take.
    """
    with torch.device("meta"):
        network = _make(canonical(spec), shape)
    network = network.to_empty(device="cpu")
    initialise(network, generator)
    return network


def _make(spec: NetworkSpec, shape: DataShape) -> Network:
    return NETWORKS[spec.name](shape, **dict(spec.options))


@functools.lru_cache(maxsize=256)
def _blueprint(spec: NetworkSpec, shape: DataShape) -> Network:
    with torch.device("meta"):
        return _make(spec, shape)


def blueprint(spec: str | NetworkSpec, shape: DataShape) -> Network:
    """Return the network without storage (device "meta"): names, shapes and anatomy only."""
    return _blueprint(canonical(spec), shape)


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw every parameter anew, in the order of the network's modules.

    Kaiming normal (fan-in) for the weights of convolutions and linear layers, torch's own uniform
    law for their biases; batch normalisation: scale uniform in [0, 1), shift 0, running mean 0 and
    variance 1. These are the settings of the experiments of E-LTH.

    Raises:
        ElthError: a module holds parameters of a kind for which no law is stated.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
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


def check_state(
    state: Mapping[str, Tensor], spec: NetworkSpec, shape: DataShape, *, what: str
) -> None:
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


@functools.lru_cache(maxsize=256)
def macs(spec: NetworkSpec, shape: DataShape) -> int:
    """Multiply-accumulate operations of convolutions and linear layers for one image, forward."""
    # On the CPU: a forward pass without storage would import torch's compiler, which takes seconds.
    network = build(spec, shape, generator=torch.Generator())
    total = 0

    def count(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        weight = module.get_parameter("weight")
        total += weight.numel() * output.shape[2:].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.zeros(1, shape.channels, shape.size, shape.size))
    return total
