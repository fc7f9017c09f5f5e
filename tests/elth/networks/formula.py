"""The parts of the formulas that the networks are held against, and numbers to try them with."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from elth.networks import DataShape, build
from elth.streams import stream
from tests.elth.helpers import ticket

State = dict[str, Tensor]


def norm(x: Tensor, state: State, name: str) -> Tensor:
    """Batch normalisation in evaluation mode."""

    def per_channel(part: str) -> Tensor:
        return state[f"{name}.{part}"][:, None, None]

    scaled = (x - per_channel("running_mean")) / (per_channel("running_var") + 1e-5).sqrt()
    return scaled * per_channel("weight") + per_channel("bias")


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def conv3(x: Tensor, state: State, name: str) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)


def trial(spec: str, shape: DataShape) -> tuple[State, Tensor, Tensor]:
    """A state of numbers of the order of one, two images, and what the network makes of them."""
    made = ticket(spec, shape)
    state = {}
    for key, value in made.rewind.items():
        number = value.double().frac() - 0.5
        if value.dim() > 1:
            number *= math.sqrt(24 / value[0].numel())  # a variance of 2 / fan-in
        elif key.endswith(("weight", "running_var")):
            number += 1
        state[key] = value if key.endswith("tracked") else number
    network = build(made.network, shape, generator=stream(0, "init")).double()
    network.load_state_dict(state)
    images = torch.randn(
        2,
        shape.channels,
        shape.size,
        shape.size,
        dtype=torch.float64,
        generator=stream(0, "images"),
    )
    return state, images, network.eval()(images)
