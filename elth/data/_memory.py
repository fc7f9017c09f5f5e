"""Datasets of small square images, whole in memory as uint8.

They live on the device; batches are cut, augmented, resized and normalised there.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from elth.data._augment import (
    ResizedCrops,
    centre_crop,
    crop_flip,
    draw_flips,
    draw_offsets,
    resize,
    resized_crop_flip,
)
from elth.data._dataset import WHOLE, Batch, Batches, Part, chosen, normaliser, order_of
from elth.data._info import DatasetInfo
from elth.errors import ElthError
from elth.streams import COMMON, Noise

_AT_ONCE = {"cpu": 2**22, "cuda": 2**28}
"""Bytes of normalised images that are prepared at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryDataset:
    """Images (N, C, H, H) as uint8 and labels (N,) as int64, for training and for testing.

    The images are as they were read; ``info.shape`` is what they become in a batch.
    """

    info: DatasetInfo
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def __post_init__(self) -> None:
        """Compare the tensors with what is declared.

        Raises:
            ElthError: numbers of images or labels are others, or a label is of no class.
        """
        for part, images, labels, declared in (
            ("training", self.train_images, self.train_labels, self.info.train_size),
            ("test", self.test_images, self.test_labels, self.info.test_size),
        ):
            if not len(images) == len(labels) == declared:
                raise ElthError(
                    f"the dataset {self.info.name} declares {declared:,} {part} images, and has "
                    f"{len(images):,} images and {len(labels):,} labels"
                )
            if not len(labels) or labels.device.type != "cpu":  # compared where they were read
                continue
            least, most = int(labels.min()), int(labels.max())
            if least < 0 or most >= self.info.shape.classes:
                raise ElthError(
                    f"the dataset {self.info.name} has {self.info.shape.classes} classes, and "
                    f"{part} labels from {least} to {most}: they are numbers from 0"
                )

    def __repr__(self) -> str:
        """One line: what it is, and where."""
        return (
            f"<{type(self).__name__} {self.info.name}: {len(self.train_labels):,} training and "
            f"{len(self.test_labels):,} test images, {self.info.shape}, on {self.device}>"
        )

    @property
    def device(self) -> torch.device:
        """Where images and batches are."""
        return self.train_images.device

    def to(self, device: str | torch.device) -> MemoryDataset:
        """Move all four tensors to a device."""
        return MemoryDataset(
            info=self.info,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
        )

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
        """Give the batches of an epoch (see ``Dataset``)."""
        self.info.check_augment(augment)
        order = order_of(len(self.train_labels), seed, epoch, noise).to(self.device)
        batches = list(chosen(order, batch_size, start, stop, part))
        shown = self._augmented(augment, seed, epoch, noise)
        finish = self._finisher(is_augmented=augment != "none")
        block = self._at_once(-(-batch_size // part.workers))
        return (
            batch
            for some in (batches[i : i + block] for i in range(0, len(batches), block))
            for batch in _cut(finish(shown(torch.cat(some))), self.train_labels, some)
        )

    def test_batches(self, batch_size: int, part: Part = WHOLE) -> Batches:
        """Give all test images in their order."""
        finish = self._finisher()
        return (
            (finish(part.of(images)), part.of(labels))
            for images, labels in zip(
                torch.split(self.test_images, batch_size),
                torch.split(self.test_labels, batch_size),
                strict=True,
            )
        )

    def sample(self, indices: Tensor) -> Batch:
        """Training images without augmentation, and their labels."""
        (batch,) = self.samples([indices])
        return batch

    def samples(self, batches: Iterable[Tensor]) -> Batches:
        """Training images batch by batch without augmentation, and their labels."""
        finish = self._finisher()
        return (
            (finish(self.train_images[indices]), self.train_labels[indices])
            for indices in (batch.to(self.device) for batch in batches)
        )

    def _at_once(self, batch_size: int) -> int:
        """Batches that are prepared at once: starting an operation costs as much as a small one."""
        shape = self.info.shape
        size = 4 * batch_size * shape.channels * shape.size**2
        return max(1, _AT_ONCE.get(self.device.type, _AT_ONCE["cpu"]) // size)

    def _augmented(
        self, augment: str, seed: int, epoch: int, noise: Noise
    ) -> Callable[[Tensor], Tensor]:
        """The function from numbers of training images to raw images, as drawn for the epoch."""
        images = self.train_images
        if augment == "none":
            return lambda batch: images[batch]
        count, side = len(images), images.shape[-1]
        flips = draw_flips(count, seed, epoch, noise).to(self.device)
        if augment == "crop_flip":
            padding = side // 8
            offsets = draw_offsets(count, padding, seed, epoch, noise).to(self.device)
            return lambda batch: crop_flip(images[batch], offsets[batch], flips[batch], padding)
        crops = ResizedCrops.draw(count, seed, epoch, noise)
        boxes = torch.tensor([crops.box(i, side, side) for i in range(count)]).to(self.device)
        size = self.info.shape.size
        return lambda batch: resized_crop_flip(images[batch], boxes[batch], flips[batch], size)

    def _finisher(self, *, is_augmented: bool = False) -> Callable[[Tensor], Tensor]:
        """The function from raw images to what a network is shown."""
        normalise = normaliser(self.info, self.device)
        shape = self.info.shape
        crops = dict(self.info.options).get("centre_crop", False) and not is_augmented
        shown = functools.partial(centre_crop if crops else resize, size=shape.size)
        return lambda images: normalise(shown(images).expand(-1, shape.channels, -1, -1))


def _cut(images: Tensor, labels: Tensor, batches: list[Tensor]) -> Iterator[Batch]:
    """Cut what was prepared at once into its batches, each with its labels."""
    return zip(
        torch.split(images, [len(batch) for batch in batches]),
        torch.split(labels[torch.cat(batches)], [len(batch) for batch in batches]),
        strict=True,
    )


Parts = tuple[Tensor, Tensor, Tensor, Tensor]
"""Training images and labels, test images and labels."""


def fingerprint(parts: Parts) -> str:
    """sha256 over shapes, types and bytes of the decoded parts: the identity of a dataset."""
    sha = hashlib.sha256()
    for tensor in parts:
        sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()
