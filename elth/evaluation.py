"""How well a network does on images: the batches in which it is looked at, and what is counted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import torch
from torch import Tensor
from torch.nn import functional as F

from elth.data import Batches, DatasetInfo

_BATCH = 1000
_PIXELS = 2**23


def evaluation_batch(info: DatasetInfo) -> int:
    """Images in a batch of evaluation: bounded by their number and by their pixels."""
    return min(_BATCH, -(-_PIXELS // info.shape.size**2), info.test_size)


@torch.no_grad()
def tally(
    logits: Callable[[Tensor], Tensor], batches: Batches, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Go through images: how many are classified rightly, and the sum of their cross-entropies.

    Args:
        logits: from images (n, C, H, W) to logits (n, classes).
        batches: images and labels; they are closed at the end.
        device: where they are.

    Returns:
        The number as int64 and the sum in nats as float64, (), on the device.
    """
    correct = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    with closing(batches):
        for images, labels in batches:
            found = logits(images)
            correct += (found.argmax(1) == labels).sum()
            loss += F.cross_entropy(found, labels, reduction="sum")
    return correct, loss
