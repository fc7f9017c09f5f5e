"""VGG for small images (Simonyan & Zisserman 2015), as E-LTH trains it on CIFAR.

Five stages of 3x3 convolutions with bias, batch normalisation and ReLU at 64, 128, 256, 512 and 512
channels (times width/64). Max-pooling follows stages 1 to 4; what is left then is averaged. Before
the linear head comes a tail of fc - 1 linear layers of equal width with ReLU, without dropout
(E-LTH, appendix C: VGG-13-n-FC).
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

_CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
_CHANNELS = (1, 2, 4, 8, 8)


class ConvUnit(nn.Module):
    """A 3x3 convolution, normalised, with ReLU: (N, in, H, W) to (N, out, H, W)."""

    def __init__(self, channels_in: int, channels_out: int, *, bn_affine: bool) -> None:
        """Lay out the unit."""
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels_out, affine=bn_affine)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(bn(conv(x)))."""
        return F.relu(self.bn(self.conv(x)))


class VGG(Network):
    """VGG with ``convolutions`` of each stage and ``fc`` linear layers, the head included."""

    def __init__(
        self,
        shape: DataShape,
        *,
        convolutions: tuple[int, ...],
        width: int = 64,
        fc: int = 1,
        bn_affine: bool = True,
        init: Init = "kaiming_normal",
    ) -> None:
        """Lay out the network for images of ``shape``."""
        super().__init__()
        check_side("a VGG", shape, halvings=4)
        self.init = init
        channels, stages = shape.channels, []
        for number, (depth, times) in enumerate(zip(convolutions, _CHANNELS, strict=True), 1):
            name, out = f"stage{number}", width * times
            units = [ConvUnit(channels, out, bn_affine=bn_affine)]
            units += [ConvUnit(out, out, bn_affine=bn_affine) for _ in range(depth - 1)]
            self.add_module(name, nn.Sequential(*units))
            stages.append(Stage.numbered(name, depth, fixed=(0,)))
            channels = out
        self.tail = nn.ModuleList(nn.Linear(channels, channels) for _ in range(fc - 1))
        self.fc = nn.Linear(channels, shape.classes)
        self.anatomy = Anatomy(
            family="vgg",
            stages=(*stages, Stage.numbered("tail", fc - 1)),
            head="fc",
            unpruned=("fc.weight",),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        *pooled, last, _ = self.anatomy.stages
        for stage in pooled:
            x = F.max_pool2d(self.get_submodule(stage.name)(x), 2)
        x = self.get_submodule(last.name)(x)
        x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        for layer in self.tail:
            x = F.relu(layer(x))
        logits: Tensor = self.fc(x)
        return logits


_Width = Annotated[
    int, About("Channels of the first stage; the others have 2, 4, 8 and 8 times as many.")
]
_Fc = Annotated[
    int,
    About(
        "Linear layers, the head among them; those before it have as many units as the last stage "
        "has channels, and ReLU."
    ),
]


def _of_depth(layers: int) -> Builder:
    def build(
        shape: DataShape,
        *,
        width: _Width = 64,
        fc: _Fc = 1,
        bn_affine: Affine = True,
        init: Init = "kaiming_normal",
    ) -> Network:
        return VGG(
            shape,
            convolutions=_CONVOLUTIONS[layers],
            width=width,
            fc=fc,
            bn_affine=bn_affine,
            init=init,
        )

    return build


NETWORKS: dict[str, Builder] = {f"vgg{n}": _of_depth(n) for n in _CONVOLUTIONS}
