"""Digits: 1,797 real handwritten digits of 8x8 pixels that come with scikit-learn.

The test part of the UCI set of optical recognition of handwritten digits (Alpaydin & Kaynak 1998).
The first 1,297 images are for training, the last 500 for testing; pixels go from 0 to 16.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from elth.data._info import DatasetInfo
from elth.data._sources import MemorySource
from elth.specs import DataShape

if TYPE_CHECKING:
    from elth.data._memory import Parts

TRAIN = 1297


def _read(root: Path, *, download: bool) -> Parts:
    import torch
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    return images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:]


SOURCE = MemorySource(
    info=DatasetInfo(
        name="digits",
        shape=DataShape(channels=1, size=8, classes=10),
        train_size=TRAIN,
        test_size=500,
        fingerprint="ee46149fc808dd563efa642b4bb7ac777bb9c15f6eed0959872054fbe7a7cfe9",
        mean=(4.894,),
        deviation=(6.009,),
        how_to_get="it comes with scikit-learn: reinstall scikit-learn",
    ),
    read=_read,
)
