"""A small vision transformer, as a researcher brings one: a file that is no part of the package."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import elth


class Block(nn.Module):
    """Attention and a perceptron, each after a LayerNorm, with dropout."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches of 2x2 pixels, learned places, blocks, the mean of all patches."""

    def __init__(self, shape: elth.DataShape, depth: int, width: int, dropout: float) -> None:
        super().__init__()
        self.patches = nn.Conv2d(shape.channels, width, 2, 2)
        self.places = nn.Parameter(0.02 * torch.randn(1, (shape.size // 2) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, 4, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, shape.classes)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(x)).mean(1) * self.scale / 2)


def vit(
    shape: elth.DataShape, *, depth: int = 2, width: int = 32, dropout: float = 0.1
) -> nn.Module:
    """The transformer with its anatomy: its blocks can be replicated and dropped."""
    network = ViT(shape, depth, width, dropout)
    return elth.with_anatomy(network, family="vit", stages=["blocks"], head="head")


NETWORKS = {"tiny_vit": vit}
