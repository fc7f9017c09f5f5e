"""A dataset of your own: a function of a folder that gives images and labels.

Put your own reading in the place of ``shapes``; what may be given is in docs/plugins.md. Whenever
what is read changes, describe it anew, and put what this prints above the function:

    elth data describe my_data:shapes --plugin my_data.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import elth

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (N, H, H), or (N, H, H, 3) of colours, and labels from 0 on."""


def _drawn(count: int, seed: int) -> Part:
    """Discs, rings, crosses and squares, somewhere on noise that is the same on every machine."""
    drawn = (np.arange(count * 144, dtype=np.int64) + 1_000_000 * seed) * 2654435761
    noise = ((drawn ^ drawn >> 15) * 2246822519 >> 13 & 4095).reshape(count, 12, 12)
    images, labels = noise % 130, noise[:, 0, 0] % 4
    rows, columns = np.mgrid[:12, :12]
    for image, label, place in zip(images, labels, noise[:, 0, 1:3] % 4, strict=True):
        down, right = rows - 4 - place[0], columns - 4 - place[1]
        away = down**2 + right**2
        disc, ring = away <= 10, (away >= 6) & (away <= 13)
        cross, square = (down * right == 0) & disc, np.maximum(abs(down), abs(right)) <= 2
        image[(disc, ring, cross, square)[label]] += 50
    return images.astype(np.uint8), labels


@elth.dataset(
    channels=1,
    size=12,
    classes=4,
    train_size=1000,
    test_size=500,
    fingerprint="0aa449ad77e7c18f670b2f6fc997328bd2a537f623db297723facc2b27dddb31",
    mean=[72.4488],
    deviation=[42.0443],
)
def shapes(root: Path) -> tuple[Part, Part]:
    """Two parts, for training and for testing; ``root`` is what ``data.root`` of the config names.

    Yours may be: ``one = np.load(root / "cells.npz"); return (one["x"], one["y"]), ...``
    """
    return _drawn(1000, seed=0), _drawn(500, seed=1)
