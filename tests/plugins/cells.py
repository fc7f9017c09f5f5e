"""Images of round cells, as a researcher brings them: a file that is no part of the package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import elth

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


def _draw(count: int, seed: int, size: int) -> tuple[Images, Labels]:
    """Discs of three sizes on noise, (N, H, H), and which size it is."""
    drawn = (np.arange(count * size**2, dtype=np.int64) + seed) * 2654435761 % 2**32 >> 20
    noise = drawn.reshape(count, size, size)
    labels = noise[:, 0, 0] % 3
    rows, columns = np.mgrid[:size, :size]
    distance = (2 * rows + 1 - size) ** 2 + (2 * columns + 1 - size) ** 2  # squared, in halves
    inside = 16 * distance < ((1 + labels) * size)[:, None, None] ** 2
    return (noise % 64 + 150 * inside).astype(np.uint8), labels


def bare(root: Path, *, size: int = 8) -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """Nothing is declared of it."""
    return _draw(96, 0, size), _draw(32, 1, size)


@elth.dataset(
    options={"stain": "blue"},
    channels=3,
    size=8,
    classes=3,
    train_size=96,
    test_size=32,
    fingerprint="cc41e76b3b836e12832e759c039d28d49f58c6a12f70b062b41efc236d7943a1",
    mean=[0.0, 0.0, 78.075],
    deviation=[1.0, 1.0, 71.9316],
)
@elth.dataset(
    channels=1,
    size=8,
    classes=3,
    train_size=96,
    test_size=32,
    fingerprint="2ec10b4ddc568fe853b45a1d5d9045d69e6ee25fece5dc2f887129ad7168eb68",
    mean=[78.075],
    deviation=[71.9316],
)
def cells(
    root: Path, *, stain: Literal["none", "blue"] = "none"
) -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """Grey images, or (N, H, H, 3) of a colour."""
    (images, labels), (test_images, test_labels) = bare(root)
    if stain == "blue":
        images, test_images = (
            np.stack([0 * x, 0 * x, x], 3).astype(np.uint8) for x in (images, test_images)
        )
    return (images, labels), (test_images, test_labels)


class Slides:
    """One after the other as PIL images, as the datasets of torchvision give them."""

    def __init__(self, part: tuple[Images, Labels]) -> None:
        self.images, self.labels = part

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]), int(self.labels[index])


@elth.dataset(
    channels=1,
    size=8,
    classes=3,
    train_size=96,
    test_size=32,
    fingerprint="2ec10b4ddc568fe853b45a1d5d9045d69e6ee25fece5dc2f887129ad7168eb68",
    mean=[78.075],
    deviation=[71.9316],
)
def slides(root: Path) -> tuple[Slides, Slides]:
    """The same images."""
    train, test = bare(root)
    return Slides(train), Slides(test)


DATASETS = {"tiny_cells": cells, "bare_cells": bare}
