"""MobileNet v1 (Howard et al. 2017, table 1) for images of 32 pixels.

A 3x3 convolution of stride 1 at 32 channels, then depthwise-separable blocks at 64 | 128, 128 |
256, 256 | 512 and 512 x repeats | 1024, 1024 channels (times width/32); stages 2 to 5 halve the
resolution in their first block. Global average pooling and a linear head. The published network has
five repeats.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth.meanings import About
from elth.networks._anatomy import Anatomy, Stage
from elth.networks._network import Builder, Init, Network
from elth.networks._parts import Affine, check_side
from elth.specs import DataShape


class SeparableBlock(nn.Module):
    """A 3x3 convolution channel by channel, then a 1x1 one across channels.

    (N, in, H, W) to (N, out, H/stride, W/stride).
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, *, bn_affine: bool
    ) -> None:
        """Lay out the block."""
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False
        )
        self.bn1 = nn.BatchNorm2d(channels_in, affine=bn_affine)
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out, affine=bn_affine)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(bn2(pointwise(relu(bn1(depthwise(x))))))."""
        x = F.relu(self.bn1(self.depthwise(x)))
        return F.relu(self.bn2(self.pointwise(x)))


class MobileNet(Network):
    """MobileNet whose fourth stage has ``repeats`` blocks after its first."""

    def __init__(
        self,
        shape: DataShape,
        *,
        width: int = 32,
        repeats: int = 5,
        bn_affine: bool = True,
        init: Init = "kaiming_normal",
    ) -> None:
        """Lay out the network for images of ``shape``."""
        super().__init__()
        check_side("a MobileNet", shape, halvings=4)
        self.init = init
        self.conv1 = nn.Conv2d(shape.channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, affine=bn_affine)
        channels, stages = width, []
        for index, depth in enumerate((1, 2, 2, 1 + repeats, 2)):
            name, out = f"stage{index + 1}", width * 2 ** (index + 1)
            stride = 1 if index == 0 else 2
            blocks = [SeparableBlock(channels, out, stride, bn_affine=bn_affine)]
            blocks += [SeparableBlock(out, out, 1, bn_affine=bn_affine) for _ in range(depth - 1)]
            self.add_module(name, nn.Sequential(*blocks))
            stages.append(Stage.numbered(name, depth, fixed=(0,)))
            channels = out
        self.fc = nn.Linear(channels, shape.classes)
        self.anatomy = Anatomy(family="mobilenet", stages=tuple(stages), head="fc")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in self.anatomy.stages:
            x = self.get_submodule(stage.name)(x)
        logits: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


_Width = Annotated[
    int, About("Channels of the first convolution; stages have 2, 4, 8, 16 and 32 times as many.")
]
_Repeats = Annotated[int, About("Units of the fourth stage after its first.")]


def _build(
    shape: DataShape,
    *,
    width: _Width = 32,
    repeats: _Repeats = 5,
    bn_affine: Affine = True,
    init: Init = "kaiming_normal",
) -> Network:
    return MobileNet(shape, width=width, repeats=repeats, bn_affine=bn_affine, init=init)


NETWORKS: dict[str, Builder] = {"mobilenet": _build}
