"""Effective sparsity: how many of the weights that a mask keeps can do anything at all.

A kept weight is effective if it is on a path of kept weights from the input to the logits
(Vysogorets & Kempe 2021; ``_connectivity`` tells how paths are found). So is no weight into a unit
from which nothing goes on, and none out of a unit into which nothing comes, even where a bias keeps
that unit's output from zero: it is the same for all images, and what it feeds could be a bias.
Biases, and all else that is never pruned, are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elth.analysis._connectivity import connected
from elth.analysis._numbers import number, ratio
from elth.masks import Mask
from elth.specs import DataShape


@dataclass(frozen=True, kw_only=True)
class EffectiveLayer:
    """What is left of a layer."""

    size: int
    """Number of its weights, kept or not."""
    kept: int
    """How many the mask keeps."""
    effective: int
    """How many of these are on a path from the input to the logits."""
    units: int
    """Its outputs: channels of a convolution, units of a linear layer."""
    dead: int
    """How many of them have no input or no output that is alive."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Effective:
    """What is left of a network."""

    mask: Mask
    """The weights that are effective."""
    layers: Mapping[str, EffectiveLayer]
    """By the name of the weight, in the order of the mask."""
    outputs: int
    """How many logits an image reaches."""

    @property
    def collapsed(self) -> bool:
        """Whether no image reaches any logit: the network says the same of all images."""
        return self.outputs == 0

    @property
    def total(self) -> int:
        """Number of prunable weights."""
        return sum(layer.size for layer in self.layers.values())

    @property
    def kept(self) -> int:
        """How many the mask keeps."""
        return sum(layer.kept for layer in self.layers.values())

    @property
    def effective(self) -> int:
        """How many of these are effective."""
        return sum(layer.effective for layer in self.layers.values())

    @property
    def dead(self) -> int:
        """Number of dead units, over all layers."""
        return sum(layer.dead for layer in self.layers.values())

    @property
    def sparsity(self) -> float:
        """1 - effective / total: what the sparsity really is, in [0, 1]."""
        return 1 - ratio(self.effective, self.total)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "total": self.total,
            "kept": self.kept,
            "effective": self.effective,
            "sparsity": number(self.sparsity),
            "dead": self.dead,
            "outputs": self.outputs,
            "collapsed": self.collapsed,
            "layers": {name: dict(vars(layer)) for name, layer in self.layers.items()},
        }


def effective_sparsity(
    network: nn.Module, mask: Mapping[str, Tensor], shape: DataShape
) -> Effective:
    """Find the weights of a mask that are effective, and the units that are dead.

    It takes as long as two forward passes and a backward pass of one image. Even of a dense network
    not all weights need be effective: the outer taps of a kernel meet nothing but padding where an
    image has come down to one pixel.

    Args:
        network: of ``elth`` or from outside; its weights do not matter, and it is left as it is.
        mask: which of its weights are kept.
        shape: the shape of its data.

    Raises:
        ElthError: the mask does not fit the network, or the network gives no logits or none that
            could be followed back to the image even where all weights are kept.
    """
    found, reached = connected(network, mask, shape)
    return Effective(
        mask=found,
        layers={name: _layer(network, name, m, found[name]) for name, m in mask.items()},
        outputs=int(torch.count_nonzero(reached)),
    )


def _layer(network: nn.Module, name: str, kept: Tensor, effective: Tensor) -> EffectiveLayer:
    alive = _by_unit(network.get_submodule(name.rpartition(".")[0]), effective).any(1)
    return EffectiveLayer(
        size=kept.numel(),
        kept=int(torch.count_nonzero(kept)),
        effective=int(torch.count_nonzero(effective)),
        units=alive.numel(),
        dead=int(torch.count_nonzero(~alive)),
    )


def _by_unit(module: nn.Module, weight: Tensor) -> Tensor:
    """The weights (units, n) that lead into each unit of a layer."""
    if isinstance(module, nn.modules.conv._ConvTransposeNd):  # (in, out / groups, *kernel)
        grouped = weight.reshape(module.groups, -1, *weight.shape[1:])
        return grouped.transpose(1, 2).reshape(module.out_channels, -1)
    return weight.flatten(1)
