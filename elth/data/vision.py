"""MNIST, CIFAR-10 and SVHN, read through torchvision, which checks and can download them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elth.data._info import IMAGENET_DEVIATION, IMAGENET_MEAN, DatasetInfo
from elth.data._sources import MemorySource, Reader, Statistics
from elth.specs import DataShape

if TYPE_CHECKING:
    from elth.data._memory import Parts

_HOW = (
    "give its folder with data.root=DIR (laid out as torchvision does), or let it be downloaded "
    "with data.download=true"
)

SVHN_MD5 = {
    "train": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test": "eb5a983be6a315427106f1b164d9cef3",
}
"""Published md5 sums of ``train_32x32.mat`` and ``test_32x32.mat``."""


def _mnist(root: Path, *, download: bool) -> Parts:
    from torchvision.datasets import MNIST

    parts = []
    for train in (True, False):
        part: Any = MNIST(str(root), train=train, download=download)
        parts += [part.data[:, None].contiguous(), part.targets]
    return parts[0], parts[1], parts[2], parts[3]


def _cifar10(root: Path, *, download: bool) -> Parts:
    import torch
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


def _svhn(root: Path, *, download: bool) -> Parts:
    import torch
    from torchvision.datasets import SVHN

    parts = []
    for split, md5 in SVHN_MD5.items():
        # torchvision compares a file with this sum before it reads it.
        if SVHN.split_list[split][2] != md5:
            raise RuntimeError(f"the installed torchvision knows another SVHN: expected md5 {md5}")
        part: Any = SVHN(str(root), split=split, download=download)
        parts += [torch.from_numpy(part.data).contiguous(), torch.from_numpy(part.labels)]
    return parts[0], parts[1], parts[2], parts[3]


def _source(
    read: Reader,
    *,
    what: str,
    verifies: bool = False,
    own: Statistics | None = None,
    **info: Any,
) -> MemorySource:
    described = DatasetInfo(how_to_get=_HOW, **info)
    return MemorySource(info=described, read=read, verifies=verifies, own=own, what=what)


def _scaled(*shares: float) -> tuple[float, ...]:
    return tuple(255 * share for share in shares)


MNIST = _source(
    _mnist,
    what="handwritten digits",
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
    what="photographs of animals and vehicles",
    name="cifar10",
    shape=DataShape(channels=3, size=32, classes=10),
    train_size=50_000,
    test_size=10_000,
    fingerprint="cb85cdd084bdd7718e8e746014bbc16f32cbe9ab4e0757d9f59e641b39f8f958",
    mean=IMAGENET_MEAN,
    deviation=IMAGENET_DEVIATION,
    own=(_scaled(0.4914, 0.4822, 0.4465), _scaled(0.2470, 0.2435, 0.2616)),
)

SVHN = _source(
    _svhn,
    what="house numbers, without the set `extra`",
    verifies=True,
    name="svhn",
    shape=DataShape(channels=3, size=32, classes=10),
    train_size=73_257,
    test_size=26_032,
    fingerprint=hashlib.sha256(" ".join(SVHN_MD5.values()).encode()).hexdigest(),
    # As the released code of E-LTH has them, in contrast to CIFAR-10.
    mean=_scaled(0.438, 0.444, 0.473),
    deviation=_scaled(0.198, 0.201, 0.197),
)
