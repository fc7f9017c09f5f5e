"""Conv-4 of the lottery ticket hypothesis (Frankle & Carbin 2019; Maene et al. 2021).

Two stages of two 3x3 convolutions with bias and ReLU at 64 and 128 channels (times width/64), each
followed by max-pooling; then linear layers of 256, 256 and as many units as there are classes.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth.meanings import About
from elth.networks._anatomy import Anatomy, Stage
from elth.networks._network import Builder, Init, Network
from elth.networks._parts import check_side
from elth.specs import DataShape


class Conv4(Network):
    """Four convolutions and three linear layers, all pruned."""

    def __init__(self, shape: DataShape, *, width: int = 64, init: Init = "kaiming_normal") -> None:
        """Lay out the network for images of ``shape``."""
        super().__init__()
        check_side("Conv-4", shape, halvings=2)
        self.init = init
        self.stage1 = _stage(shape.channels, width)
        self.stage2 = _stage(width, 2 * width)
        self.linear = nn.Linear(2 * width * (shape.size // 4) ** 2, 4 * width)
        self.tail = nn.ModuleList([nn.Linear(4 * width, 4 * width)])
        self.fc = nn.Linear(4 * width, shape.classes)
        self.anatomy = Anatomy(
            family="conv4",
            stages=(
                Stage.numbered("stage1", 2, fixed=(0,)),
                Stage.numbered("stage2", 2, fixed=(0,)),
                Stage.numbered("tail", 1),
            ),
            head="fc",
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        for stage in (self.stage1, self.stage2):
            for conv in stage:
                x = F.relu(conv(x))
            x = F.max_pool2d(x, 2)
        x = F.relu(self.linear(torch.flatten(x, 1)))
        for layer in self.tail:
            x = F.relu(layer(x))
        logits: Tensor = self.fc(x)
        return logits


def _stage(channels_in: int, channels_out: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Conv2d(channels, channels_out, 3, padding=1) for channels in (channels_in, channels_out)
    )


_Width = Annotated[
    int,
    About(
        "Channels of the first stage; the second has twice, the linear layers four times as many."
    ),
]


def _build(shape: DataShape, *, width: _Width = 64, init: Init = "kaiming_normal") -> Network:
    return Conv4(shape, width=width, init=init)


NETWORKS: dict[str, Builder] = {"conv4": _build}
