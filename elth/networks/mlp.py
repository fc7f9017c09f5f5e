"""Multilayer perceptrons MLP-n of E-LTH, appendix C: 784, 300 x n, 100, 10 with ReLU.

The n - 1 layers from 300 to 300 are the units that stretch and squeeze. MLP-1 is LeNet-300-100
(LeCun et al. 1998; Frankle & Carbin 2019), which Maene et al. 2021 prune over all its layers, from
uniform weights: ``lenet_300_100``.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth.meanings import About
from elth.networks._anatomy import Anatomy, Stage
from elth.networks._network import Builder, Init, Network
from elth.specs import DataShape


class MLP(Network):
    """Perceptron with ``layers`` hidden layers of ``width`` and one of ``last_width`` units."""

    def __init__(
        self,
        shape: DataShape,
        *,
        layers: int,
        width: int = 300,
        last_width: int = 100,
        unpruned: tuple[str, ...] = ("head.weight",),
        init: Init = "kaiming_normal",
    ) -> None:
        """Lay out the layers for images of ``shape``."""
        super().__init__()
        self.init = init
        self.stem = nn.Linear(shape.channels * shape.size**2, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.tail = nn.Linear(width, last_width)
        self.head = nn.Linear(last_width, shape.classes)
        self.anatomy = Anatomy(
            family="mlp",
            stages=(Stage.numbered("hidden", layers - 1),),
            head="head",
            unpruned=unpruned,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        x = F.relu(self.stem(torch.flatten(x, 1)))
        for layer in self.hidden:
            x = F.relu(layer(x))
        logits: Tensor = self.head(F.relu(self.tail(x)))
        return logits


_Width = Annotated[int, About("Units of each hidden layer but the last.")]
_LastWidth = Annotated[int, About("Units of the last hidden layer.")]


def _of_depth(layers: int) -> Builder:
    def build(
        shape: DataShape,
        *,
        width: _Width = 300,
        last_width: _LastWidth = 100,
        init: Init = "kaiming_normal",
    ) -> Network:
        return MLP(shape, layers=layers, width=width, last_width=last_width, init=init)

    return build


def _lenet(
    shape: DataShape,
    *,
    width: _Width = 300,
    last_width: _LastWidth = 100,
    init: Init = "kaiming_uniform",
) -> Network:
    """LeNet-300-100: MLP-1, pruned over all layers, from uniform weights (Maene et al. 2021)."""
    return MLP(shape, layers=1, width=width, last_width=last_width, unpruned=(), init=init)


NETWORKS: dict[str, Builder] = {
    **{f"mlp{n}": _of_depth(n) for n in (1, 2, 3, 4)},
    "lenet_300_100": _lenet,
}
