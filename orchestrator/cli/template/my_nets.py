"""A network of your own: any ``nn.Module`` of images (N, channels, size, size) to logits.

Its convolutions and linear layers are pruned. With an anatomy, which names the stages of alike
units, its tickets can be stretched and squeezed, too (docs/plugins.md).
"""

from __future__ import annotations

from torch import Tensor, nn

import elth


class Block(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images to images of the same shape."""
        return nn.functional.relu(x + self.body(x))


class Small(nn.Module):
    """A stem, blocks, and a head on the mean of all pixels."""

    def __init__(self, shape: elth.DataShape, units: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(shape.channels, width, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(units)))
        self.head = nn.Linear(width, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


def small(shape: elth.DataShape, *, units: int = 2, width: int = 16) -> nn.Module:
    """Every keyword is an option of the config: ``my_nets:small(units=4)``."""
    network = Small(shape, units, width)
    return elth.with_anatomy(network, family="small", stages=["blocks"], head="head")
