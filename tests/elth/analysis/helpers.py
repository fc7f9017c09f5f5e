"""Weights and masks of two small layers, by hand or drawn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from elth.masks import Mask
from elth.streams import stream

Array = npt.NDArray[np.float64]


def one(*values: float) -> dict[str, Tensor]:
    """A network of a single layer, in float64."""
    return {"w": torch.tensor(values, dtype=torch.float64)}


def keeps(*values: int) -> Mask:
    """Its mask."""
    return {"w": torch.tensor(values, dtype=torch.bool)}


def drawn(seed: int, *, scale: float = 1.0, sides: int = 5) -> dict[str, Tensor]:
    """Weights of two layers, with a bias that is not pruned."""
    generator = stream(seed, "weights")
    return {
        "stem.weight": scale * torch.randn(sides, sides, 3, generator=generator),
        "stem.bias": torch.randn(sides, generator=generator),
        "fc.weight": scale * torch.randn(sides, 2 * sides, generator=generator),
    }


def drawn_mask(seed: int, density: float, *, sides: int = 5) -> Mask:
    """A mask of them."""
    generator = stream(seed, "mask")
    shapes = {"stem.weight": (sides, sides, 3), "fc.weight": (sides, 2 * sides)}
    return {n: torch.rand(shape, generator=generator) < density for n, shape in shapes.items()}


def nested(seed: int, rounds: int, *, rate: float = 0.2, sides: int = 5) -> list[Mask]:
    """Masks of a chain: each keeps some of those before it."""
    whole = drawn_mask(seed, 2.0, sides=sides)
    masks = [whole]
    for number in range(1, rounds):
        more = drawn_mask(1000 * seed + number, 1 - rate, sides=sides)
        masks.append({name: m & more[name] for name, m in masks[-1].items()})
    return masks


def flat(
    state: Mapping[str, Tensor], mask: Mapping[str, Tensor]
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """All weights of a mask as one vector of numpy, and the mask."""
    names = sorted(mask)
    return (
        np.concatenate([state[name].double().numpy().ravel() for name in names]),
        np.concatenate([mask[name].numpy().ravel() for name in names]),
    )
