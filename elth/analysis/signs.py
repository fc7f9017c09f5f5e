"""Whether the weights that survive have the same signs (as Gadhikar & Burkholz 2024 ask)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elth.analysis._numbers import number, ratio
from elth.analysis._vectors import State, check


@dataclass(frozen=True, kw_only=True)
class Signs:
    """How many weights have the same sign in two networks."""

    compared: int
    """Weights that both masks keep and that are zero in neither network."""
    equal: int
    """How many of them have the same sign."""

    @property
    def flips(self) -> int:
        """How many have the other sign."""
        return self.compared - self.equal

    @property
    def agreement(self) -> float:
        """Share of equal signs, in [0, 1]: .5 by chance; not a number where none is compared."""
        return ratio(self.equal, self.compared)

    def plain(self) -> dict[str, float | int | None]:
        """The numbers by name; None for an agreement that is not defined."""
        return {
            "agreement": number(self.agreement),
            "compared": self.compared,
            "flips": self.flips,
        }


@dataclass(frozen=True, kw_only=True)
class SignAgreement:
    """How many signs are the same, in all and in each layer."""

    pooled: Signs
    layers: Mapping[str, Signs]
    """By the name of the weight, in the order of the first mask."""

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        layers = {name: signs.plain() for name, signs in self.layers.items()}
        return {"pooled": self.pooled.plain(), "layers": layers}


def sign_agreement(
    a: State, mask_a: Mapping[str, Tensor], b: State, mask_b: Mapping[str, Tensor]
) -> SignAgreement:
    """Compare the signs of surviving weights.

    As of a round's rewind point and its end, of successive rounds, or of two tickets of a target.
    What is not a number has no sign, and is not compared.

    Raises:
        ElthError: weights and masks do not fit each other.
    """
    check([a, b], [mask_a, mask_b])
    layers = {}
    for name, kept in mask_a.items():
        both = (kept.cpu() & mask_b[name].cpu()).flatten()
        first, second = (torch.sign(s[name].detach().cpu().flatten()[both]) for s in (a, b))
        compared = (first.abs() == 1) & (second.abs() == 1)
        equal = compared & (first == second)
        layers[name] = Signs(
            compared=int(torch.count_nonzero(compared)), equal=int(torch.count_nonzero(equal))
        )
    pooled = Signs(
        compared=sum(layer.compared for layer in layers.values()),
        equal=sum(layer.equal for layer in layers.values()),
    )
    return SignAgreement(pooled=pooled, layers=layers)
