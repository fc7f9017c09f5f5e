"""Digits: 1,797 real handwritten digits of 8x8 pixels that come with scikit-learn.

The test part of the UCI set of optical recognition of handwritten digits (Alpaydin & Kaynak 1998),
parted in two ways, each into 1,297 images for training and 500 for testing; pixels go from 0 to 16.

* ``digits``: in the order of the set, in which the digits of a writer follow each other. The last
  500 are for testing, and so most of their writers are unseen.
* ``digits_shuffled``: 500 that are drawn, so that both parts have digits of all writers, as most
  people split the set. It is easier, and test images are more alike training images.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from elth.data._info import DatasetInfo
from elth.data._sources import MemorySource
from elth.specs import DataShape

if TYPE_CHECKING:
    from elth.data._memory import Parts

TRAIN = 1297
TEST = 500


def shuffled() -> list[int]:
    """The order of ``digits_shuffled``: positions in the set, the training images first.

    They are sorted by the sha256 of ``elth/digits_shuffled/POSITION``: a draw that is the same with
    every version of Python, numpy and PyTorch.
    """

    def lot(position: int) -> bytes:
        return hashlib.sha256(f"elth/digits_shuffled/{position}".encode()).digest()

    return sorted(range(TRAIN + TEST), key=lot)


def _read(root: Path, *, download: bool) -> Parts:
    import torch
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    return images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:]


def _read_shuffled(root: Path, *, download: bool) -> Parts:
    import torch

    parts = _read(root, download=download)
    images, labels = torch.cat(parts[::2]), torch.cat(parts[1::2])
    order = torch.tensor(shuffled())
    train, test = order[:TRAIN], order[TRAIN:]
    return images[train], labels[train], images[test], labels[test]


SOURCE = MemorySource(
    info=DatasetInfo(
        name="digits",
        shape=DataShape(channels=1, size=8, classes=10),
        train_size=TRAIN,
        test_size=TEST,
        fingerprint="ee46149fc808dd563efa642b4bb7ac777bb9c15f6eed0959872054fbe7a7cfe9",
        mean=(4.894,),
        deviation=(6.009,),
        how_to_get="it comes with scikit-learn: reinstall scikit-learn",
    ),
    read=_read,
    what="handwritten digits that come with scikit-learn, in their order: the last 500 are for "
    "testing, and most of their writers are unseen",
)

SHUFFLED = MemorySource(
    info=replace(
        SOURCE.info,
        name="digits_shuffled",
        fingerprint="7a6d3cbf1061e31e4e20d9d58454ca637d26fbdd9d88f831685abc552ee00be6",
        mean=(4.882,),
        deviation=(6.014,),
    ),
    read=_read_shuffled,
    what="the same digits, 500 drawn ones for testing, so that both parts have all writers: easier",
)
