"""What every dataset does: it gives batches of normalised images on a device."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from elth.data._info import DatasetInfo
from elth.errors import ElthError
from elth.streams import COMMON, Noise, stream

Batch = tuple[Tensor, Tensor]
"""Normalised images (n, C, H, W) as float32 in channels-last layout, and labels (n,) as int64."""

Batches = Generator[Batch, None, None]


@dataclass(frozen=True)
class Part:
    """Which part of every batch is given out: that of one of several workers.

    The parts of all workers are the batch, in its order. They differ by a unit at most, and the
    last ones of a small batch may be empty.
    """

    rank: int = 0
    """Number of the worker, from 0."""
    workers: int = 1
    unit: int = 1
    """Consecutive images that stay together."""

    def of(self, batch: Tensor) -> Tensor:
        """This worker's consecutive rows of a batch."""
        units = -(-len(batch) // self.unit)
        first, end = (units * rank // self.workers for rank in (self.rank, self.rank + 1))
        return batch[first * self.unit : end * self.unit]


WHOLE = Part()


def check_dataset(data: object) -> None:
    """Refuse what is no dataset, as its name alone is none.

    Raises:
        ElthError: with what gives one.
    """
    if not hasattr(data, "train_batches") or not hasattr(data, "info"):
        raise ElthError(
            f"expected a dataset, as elth.load_dataset('digits') gives; found {data!r}: tensors of "
            "your own become one by a function that is given to elth.dataset (docs/plugins.md)"
        )


class Dataset(Protocol):
    """Images and labels for training and for testing, given out in batches on a device."""

    @property
    def info(self) -> DatasetInfo:
        """What is known of it."""

    @property
    def train_labels(self) -> Tensor:
        """Labels (N,) of the training images as int64, on the device."""

    @property
    def test_labels(self) -> Tensor:
        """Labels (N,) of the test images as int64, on the device."""

    @property
    def device(self) -> torch.device:
        """Where the batches are."""

    def to(self, device: str | torch.device) -> Dataset:
        """The same dataset, with its batches on another device."""

    def train_batches(
        self,
        *,
        batch_size: int,
        augment: str,
        seed: int,
        epoch: int,
        start: int = 0,
        stop: int | None = None,
        part: Part = WHOLE,
        noise: Noise = COMMON,
    ) -> Batches:
        """Give the batches of an epoch, from batch ``start`` on and before batch ``stop``.

        Every image is shown once, in the order of the stream "order"; the last batch may be
        smaller. What is drawn for an image depends on seed, epoch, noise and the image alone. A
        dataset that knows of no noise need not take it: it is given where it is another than the
        common one.

        Raises:
            ElthError: the augmentation has no meaning for this dataset.
        """

    def test_batches(self, batch_size: int, part: Part = WHOLE) -> Batches:
        """Give all test images in their order."""

    def sample(self, indices: Tensor) -> Batch:
        """Training images (n, C, H, W) prepared as test images are: no augmentation.

        Args:
            indices: numbers (n,) of training images.
        """

    def samples(self, batches: Iterable[Tensor]) -> Batches:
        """Training images batch by batch, prepared as test images are: no augmentation.

        Args:
            batches: for each batch the numbers (n,) of its training images.
        """


def normaliser(info: DatasetInfo, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the function (n, C, H, W) -> (x - mean) / deviation by channel, in channels-last."""
    scale = torch.tensor(info.deviation, device=device).reciprocal()
    shift = -torch.tensor(info.mean, device=device) * scale

    def normalise(images: Tensor) -> Tensor:
        if images.shape[1] > 1 and images.is_contiguous(memory_format=torch.channels_last):
            return in_rows(images)
        scaled = images.to(torch.float32) * scale[:, None, None]
        return (scaled + shift[:, None, None]).contiguous(memory_format=torch.channels_last)

    def in_rows(images: Tensor) -> Tensor:
        """The same for channels-last images, row by row and in place.

        A loop over the three values of a pixel is slow on a processor, and so is fresh memory.
        """
        width, channels = images.shape[3], images.shape[1]
        rows = images.permute(0, 2, 3, 1).flatten(2).to(torch.float32, copy=True)
        rows.mul_(scale.repeat(width)).add_(shift.repeat(width))
        return rows.unflatten(2, (width, channels)).permute(0, 3, 1, 2)

    return normalise


def chosen(
    order: Tensor, batch_size: int, start: int = 0, stop: int | None = None, part: Part = WHOLE
) -> Iterator[Tensor]:
    """Cut an order into batches of image numbers, from batch ``start`` on, before ``stop``."""
    end = len(order) if stop is None else min(len(order), stop * batch_size)
    for position in range(start * batch_size, end, batch_size):
        yield part.of(order[position : position + batch_size])


def order_of(count: int, seed: int, epoch: int, noise: Noise = COMMON) -> Tensor:
    """The order (count,) of the training images in an epoch."""
    return torch.randperm(count, generator=stream(seed, "order", epoch, noise))


def fixed_images(size: int, count: int | None = None) -> Tensor:
    """Numbers (n,) of the training images that every analysis looks at, in ascending order.

    They are drawn by the stream "analysis images" of seed 0, the same for all networks, methods
    and seeds, so that what is measured on them can be compared. Of two counts the lesser one's
    images are among those of the greater one.

    Args:
        size: how many training images there are.
        count: how many are looked at; all, when there is none or there are no more.

    Raises:
        ElthError: the count is below 1.
    """
    if count is not None and count < 1:
        raise ElthError(
            f"an analysis looks at 1 training image at least, found images {count}: give a number "
            "of 1 or more, or none for all"
        )
    if count is None or count >= size:
        return torch.arange(size)
    return torch.randperm(size, generator=stream(0, "analysis images"))[:count].sort().values
