"""Masks: which weights a ticket keeps. A mask is a dict from weight name to boolean tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from elth.counts import kept_after as kept_after
from elth.errors import ElthError
from elth.networks import blueprint, prunable
from elth.specs import DataShape, Spec

Mask = dict[str, Tensor]
"""Weight name to boolean tensor of the weight's shape, in the order of the network."""


def ones(network: nn.Module) -> Mask:
    """The mask of a dense network: every prunable weight is kept.

    Raises:
        ElthError: two layers share one weight.
    """
    names: dict[int, str] = {}
    found = {}
    for name in prunable(network):
        weight = network.get_parameter(name)
        first = names.setdefault(id(weight), name)
        if first != name:
            raise ElthError(
                f"'{first}' and '{name}' are one tensor, which a mask cannot tell apart: give each "
                "layer weights of its own"
            )
        found[name] = torch.ones(weight.shape, dtype=torch.bool)
    return found


def total(mask: Mapping[str, Tensor]) -> int:
    """Number of prunable weights, kept or not."""
    return sum(m.numel() for m in mask.values())


def nonzeros(mask: Mapping[str, Tensor]) -> int:
    """Number of weights that are kept."""
    return sum(int(torch.count_nonzero(m)) for m in mask.values())


def sparsity(mask: Mapping[str, Tensor]) -> float:
    """Fraction of the prunable weights that are zero, in [0, 1]."""
    return 1.0 - nonzeros(mask) / total(mask)


def layer_sparsity(mask: Mapping[str, Tensor]) -> dict[str, float]:
    """Sparsity of each weight, by name."""
    return {n: 1.0 - int(torch.count_nonzero(m)) / m.numel() for n, m in mask.items()}


def collapsed(mask: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of weights of which nothing is kept: through such a layer no signal passes."""
    return tuple(name for name, m in mask.items() if not bool(m.any()))


def apply(mask: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with every pruned weight exactly zero; the input is left as it is.

    Raises:
        ElthError: the mask names a tensor that the state lacks, or one of another shape.
    """
    result = dict(state)
    for name, m in mask.items():
        if name not in state:
            raise ElthError(f"the mask names '{name}', which the weights lack")
        if state[name].shape != m.shape:
            raise ElthError(
                f"the mask of '{name}' has shape {tuple(m.shape)}, "
                f"its weight {tuple(state[name].shape)}"
            )
        value = state[name]
        result[name] = torch.where(m.to(value.device), value, torch.zeros_like(value))
    return result


def check(mask: Mapping[str, Tensor], spec: Spec, shape: DataShape) -> None:
    """Refuse a mask that is not boolean or does not fit its network.

    Raises:
        ElthError: naming the weight, what was expected and what was found.
    """
    network = blueprint(spec, shape)
    names = prunable(network)
    for name in names:
        expected = network.get_parameter(name).shape
        if name not in mask:
            raise ElthError(f"mask does not fit {spec}: the mask of '{name}' is missing")
        if mask[name].shape != expected:
            raise ElthError(
                f"mask does not fit {spec}: the mask of '{name}' should have shape "
                f"{tuple(expected)}, found {tuple(mask[name].shape)}"
            )
        if mask[name].dtype is not torch.bool:
            raise ElthError(f"the mask of '{name}' must be boolean, found {mask[name].dtype}")
    for name in mask:
        if name not in names:
            raise ElthError(f"mask does not fit {spec}: it has no prunable weight '{name}'")


def pack(mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pack each mask to bits: uint8 of ceil(n / 8), the first weight in the lowest bit."""
    return {
        name: torch.from_numpy(np.packbits(m.cpu().numpy().reshape(-1), bitorder="little"))
        for name, m in mask.items()
    }


def unpack(packed: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> Mask:
    """Undo ``pack``; ``shapes`` gives the names, their order and the shape of each mask.

    Raises:
        ElthError: a name is missing or a tensor does not have ceil(n / 8) bytes.
    """
    mask: Mask = {}
    for name, shape in shapes.items():
        size = shape.numel()
        if name not in packed:
            raise ElthError(f"the packed mask of '{name}' is missing")
        bits = packed[name]
        if bits.dtype is not torch.uint8 or bits.shape != ((size + 7) // 8,):
            raise ElthError(
                f"the packed mask of '{name}' should be {(size + 7) // 8} bytes for shape "
                f"{tuple(shape)}, found {bits.dtype} {tuple(bits.shape)}"
            )
        flat = np.unpackbits(bits.numpy(), count=size, bitorder="little").astype(bool)
        mask[name] = torch.from_numpy(flat).reshape(shape)
    return mask


def digest(mask: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and bits, in the order of names: the identity of a mask."""
    sha = hashlib.sha256()
    packed = pack(mask)
    for name in sorted(packed):
        sha.update(f"{name}{tuple(mask[name].shape)}".encode())
        sha.update(packed[name].numpy().tobytes())
    return sha.hexdigest()
