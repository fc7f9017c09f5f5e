"""The plain loop: masked training as most people write it, to measure against.

PIL transforms in a DataLoader of two workers, masks multiplied in every forward, float32, the
default layout of tensors, ``.item()`` each step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Images
from torchvision import transforms

from elth.data import MemoryDataset
from elth.recipes import Recipe

WORKERS = 2


class _Pictures(Images[tuple[Tensor, int]]):
    """Training images as PIL images, as torchvision's datasets give them."""

    def __init__(self, data: MemoryDataset, augment: str) -> None:
        images = data.train_images.cpu().permute(0, 2, 3, 1)
        self.images = (images[..., 0] if images.shape[-1] == 1 else images).numpy()
        self.labels = data.train_labels.tolist()
        size, info = data.info.shape.size, data.info
        crops: list[Any] = []
        if augment == "crop_flip":
            crops = [
                transforms.RandomCrop(size, padding=size // 8),
                transforms.RandomHorizontalFlip(),
            ]
        mean, deviation = ([v / 255 for v in values] for values in (info.mean, info.deviation))
        self.transform = transforms.Compose(
            [*crops, transforms.ToTensor(), transforms.Normalize(mean, deviation)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


class PlainLoop:
    """Trains on and on; every call goes on where the last one stopped."""

    def __init__(
        self, network: nn.Module, data: MemoryDataset, recipe: Recipe, mask: Mapping[str, Tensor]
    ) -> None:
        self.device = data.device
        self.network = network.to(self.device).train()
        self.mask = {name: m.to(self.device) for name, m in mask.items()}
        self.optimiser = torch.optim.SGD(
            network.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            foreach=False,
            fused=False,
        )
        self.loader = DataLoader(
            _Pictures(data, recipe.augment),
            batch_size=recipe.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=WORKERS,
            persistent_workers=True,
            pin_memory=self.device.type == "cuda",
        )
        self.batches = self._endless()
        self.losses = 0.0

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def seconds(self, steps: int) -> float:
        """Do some iterations; seconds of one."""
        began = time.perf_counter()
        for _ in range(steps):
            x, y = (t.to(self.device, non_blocking=True) for t in next(self.batches))
            parameters = {
                name: p * self.mask[name] if name in self.mask else p
                for name, p in self.network.named_parameters()
            }
            loss = F.cross_entropy(functional_call(self.network, parameters, (x,)), y)
            self.optimiser.zero_grad()
            torch.autograd.backward(loss)
            self.optimiser.step()
            self.losses += loss.item()
        return (time.perf_counter() - began) / steps
