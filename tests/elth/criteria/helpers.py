"""Tiny networks in float64 with every tensor drawn, and images of noise."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth import masks
from elth.masks import Mask
from elth.networks import Anatomy, DataShape, Network, Stage, build
from elth.streams import stream

SHAPE = DataShape(channels=1, size=4, classes=3)


class Tiny(Network):
    """Convolution 3x3 to 2 channels, batch normalisation, ReLU, mean of 2x2, linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.bn = nn.BatchNorm2d(2)
        self.fc = nn.Linear(8, 3)
        self.anatomy = Anatomy(family="tiny", stages=(Stage(name="none", units=()),))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        logits: Tensor = self.fc(torch.flatten(F.avg_pool2d(x, 2), 1))
        return logits


def network(name: str, seed: int = 0, shape: DataShape = SHAPE) -> Network:
    """``tiny`` or a network of ``elth``, in float64, in evaluation mode, no tensor left trivial."""
    made = Tiny() if name == "tiny" else build(name, shape, generator=stream(seed, "init"))
    generator = stream(seed, "tensors")
    with torch.no_grad():
        for key, tensor in made.state_dict().items():
            if tensor.is_floating_point():
                size = 1.0 if tensor.dim() < 2 else (2.0 / tensor[0].numel()) ** 0.5
                drawn = size * torch.randn(tensor.shape, generator=generator)
                # Shifts upwards, so that few channels are dead behind their ReLU.
                upwards = tensor.dim() == 1 and not key.endswith("running_mean")
                tensor.copy_(drawn.abs() + 0.5 if upwards else drawn)
    return made.double().eval()


def half(made: Network, seed: int = 0) -> Mask:
    """A mask of about half of the weights."""
    generator = stream(seed, "half")
    return {n: torch.rand(m.shape, generator=generator) < 0.5 for n, m in masks.ones(made).items()}


@dataclass
class Noise:
    """Training images of noise; keeps the indices that were asked for."""

    images: Tensor
    train_labels: Tensor
    asked: list[list[int]] = field(default_factory=list)

    def sample(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append(indices.tolist())
        return self.images[indices], self.train_labels[indices]


def noise(size: int = 60, seed: int = 0, shape: DataShape = SHAPE) -> Noise:
    """Float32 images; the labels go round the classes, so that all have as many."""
    images = torch.randn(
        size, shape.channels, shape.size, shape.size, generator=stream(seed, "noise")
    )
    order = torch.randperm(size, generator=stream(seed, "labels"))
    return Noise(images, (torch.arange(size) % shape.classes)[order])


def batch(data: Noise, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Some images in float64, and their labels."""
    return data.images[start:stop].double(), data.train_labels[start:stop]
