"""MNIST and CIFAR-10, read through torchvision, which checks and can download them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from elth.data._dataset import DatasetInfo, Parts, Source
from elth.networks import DataShape

_HOW = (
    "give its folder with data.root=DIR (laid out as torchvision does), or let it be downloaded "
    "with data.download=true"
)


def _mnist(root: Path, *, download: bool) -> Parts:
    from torchvision.datasets import MNIST

    parts = []
    for train in (True, False):
        part: Any = MNIST(str(root), train=train, download=download)
        parts += [part.data[:, None].contiguous(), part.targets]
    return parts[0], parts[1], parts[2], parts[3]


def _cifar10(root: Path, *, download: bool) -> Parts:
    from torchvision.datasets import CIFAR10

    parts = []
    for train in (True, False):
        # torchvision compares the files with their published md5 sums before it reads them.
        part: Any = CIFAR10(str(root), train=train, download=download)
        parts += [
            torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(),
            torch.tensor(part.targets, dtype=torch.int64),
        ]
    return parts[0], parts[1], parts[2], parts[3]


def _source(read: Callable[..., Parts], **info: Any) -> Source:
    return Source(info=DatasetInfo(how_to_get=_HOW, **info), read=read)


# ImageNet's statistics, on the scale of 0 to 255, which the experiments of E-LTH use for CIFAR too.
_IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_DEVIATION = (0.229 * 255, 0.224 * 255, 0.225 * 255)

MNIST = _source(
    _mnist,
    name="mnist",
    shape=DataShape(channels=1, size=28, classes=10),
    train_size=60_000,
    test_size=10_000,
    fingerprint="3ee7f568b8fdc8915ba79f8c2e5cfce6e08e6def379bae044b8ec31ae87c0afb",
    mean=(0.1307 * 255,),
    deviation=(0.3081 * 255,),
)

CIFAR10 = _source(
    _cifar10,
    name="cifar10",
    shape=DataShape(channels=3, size=32, classes=10),
    train_size=50_000,
    test_size=10_000,
    fingerprint="cb85cdd084bdd7718e8e746014bbc16f32cbe9ab4e0757d9f59e641b39f8f958",
    mean=_IMAGENET_MEAN,
    deviation=_IMAGENET_DEVIATION,
)
