"""Residual networks for small images (He et al. 2016, section 4.2).

A 3x3 convolution, three stages of D basic blocks at 16, 32 and 64 channels (times width/16),
global average pooling and a linear head: 6D + 2 layers. Stages 2 and 3 halve the resolution in
their first block, whose shortcut is a 1x1 convolution with batch normalisation, as in the networks
that E-LTH trains. For the networks of Maene et al. 2021 there are shortcuts without weights, and
batch normalisation without scale and shift.
"""

from __future__ import annotations

import functools
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth.meanings import About
from elth.networks._anatomy import Anatomy, Stage
from elth.networks._network import Builder, Init, Network
from elth.networks._parts import Affine, PadShortcut, Shortcut, check_side
from elth.specs import DataShape


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut: (N, in, H, W) to (N, out, H/stride, W/stride)."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        *,
        shortcut: Shortcut = "conv",
        bn_affine: bool = True,
    ) -> None:
        """Lay out the block; its shortcut is the identity where the shapes allow."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out, affine=bn_affine)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out, affine=bn_affine)
        self.downsample: nn.Module = nn.Identity()
        changes = stride != 1 or channels_in != channels_out
        if changes and shortcut == "pad":
            self.downsample = PadShortcut(channels_in, channels_out, stride)
        elif changes:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out, affine=bn_affine),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x))))))."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x))


class CifarResNet(Network):
    """ResNet of ``6 * units + 2`` layers for small square images."""

    def __init__(
        self,
        shape: DataShape,
        *,
        units: int,
        width: int = 16,
        shortcut: Shortcut = "conv",
        bn_affine: bool = True,
        init: Init = "kaiming_normal",
    ) -> None:
        """Lay out the network for images of ``shape``."""
        super().__init__()
        check_side("a CIFAR-type ResNet", shape, halvings=2)
        self.init = init
        self.conv1 = nn.Conv2d(shape.channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, affine=bn_affine)
        block = functools.partial(BasicBlock, shortcut=shortcut, bn_affine=bn_affine)
        channels, stages = width, []
        for index, name in enumerate(("layer1", "layer2", "layer3")):
            out = width * 2**index
            blocks = [block(channels, out, 1 if index == 0 else 2)]
            blocks += [block(out, out, 1) for _ in range(units - 1)]
            self.add_module(name, nn.Sequential(*blocks))
            stages.append(Stage.numbered(name, units, fixed=(0,)))
            channels = out
        self.fc = nn.Linear(channels, shape.classes)
        self.anatomy = Anatomy(family="cifar-resnet", stages=tuple(stages), head="fc")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in self.anatomy.stages:
            x = self.get_submodule(stage.name)(x)
        logits: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


_Width = Annotated[
    int, About("Channels of the first stage; the others have twice and four times as many.")
]


def _of_depth(layers: int) -> Builder:
    def build(
        shape: DataShape,
        *,
        width: _Width = 16,
        shortcut: Shortcut = "conv",
        bn_affine: Affine = True,
        init: Init = "kaiming_normal",
    ) -> Network:
        return CifarResNet(
            shape,
            units=(layers - 2) // 6,
            width=width,
            shortcut=shortcut,
            bn_affine=bn_affine,
            init=init,
        )

    return build


NETWORKS: dict[str, Builder] = {f"resnet{n}": _of_depth(n) for n in (14, 20, 32, 44, 56, 110)}
