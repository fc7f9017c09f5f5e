"""Networks that are made for a measure, and the states that are put into them."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from elth.errors import ElthError
from elth.networks import build
from elth.specs import DataShape, Spec
from elth.streams import stream


def make(network: str | Spec | nn.Module, shape: DataShape) -> nn.Module:
    """Build a network by name, or copy a module; what weights it has is of no matter.

    Raises:
        ElthError: as ``elth.networks.build``.
    """
    if isinstance(network, nn.Module):
        return copy.deepcopy(network)
    return build(network, shape, generator=stream(0, "init"))


def fill(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a state into a network, on its device.

    Raises:
        ElthError: the state is of another network; the message names a tensor.
    """
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    if found != expected:
        name = min(one for one in expected | found if found.get(one) != expected.get(one))
        raise ElthError(
            f"the state is of another network: '{name}' should be of shape "
            f"{_told(expected.get(name))}, found {_told(found.get(name))}"
        )
    network.load_state_dict(dict(state))


def _told(shape: torch.Size | None) -> str:
    return "nothing" if shape is None else "x".join(map(str, shape)) or "a number"
