"""Images that are decoded when they are needed, and what is done with each on its way to a batch.

Threads decode: nearly all of an image's time is spent in libraries that release the GIL
(``python -m benchmarks.input`` measures the share). An image is decoded, cropped and resized as
uint8 with its channels last, straight into its place in the batch, which goes to the device as a
whole. Each image is worked on alone, so a batch has the same bits with any number of threads.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from elth.data._augment import ResizedCrops, draw_flips
from elth.data._dataset import WHOLE, Batch, Batches, Part, chosen, normaliser, order_of
from elth.data._info import DatasetInfo
from elth.errors import ElthError
from elth.streams import COMMON, Noise

_AHEAD = 2
"""Batches that are made ready while one is used."""
_CHUNK = 8
"""Images that a thread takes at a time: handing one over costs more Python than preparing it."""


class Images(Protocol):
    """The images of one part of a dataset, wherever they lie."""

    @property
    def labels(self) -> Tensor:
        """Number of each image's class (N,), as int64 on the CPU."""

    def decode(self, index: int) -> Tensor:
        """Image ``index`` (3, H, W) as uint8, channels last in memory.

        Raises:
            ElthError: it cannot be decoded; the error names it.
        """

    def where(self, index: int) -> str:
        """Image ``index`` for a message."""


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize one image (C, H, W) of uint8 bilinearly, antialiased when smaller."""
    # The stride of a batch of one tells torch which layout it has; image[None] would hide it.
    batch = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    return F.interpolate(batch, size=(height, width), mode="bilinear", antialias=True)[0]


def resized_to(height: int, width: int, short: int) -> tuple[int, int]:
    """Height and width with ``short`` as the shorter side; the other is rounded down."""
    if height < width:
        return short, short * width // height
    return short * height // width, short


def centre_crop(image: Tensor, size: int) -> Tensor:
    """Resize the shorter side to 256/224 of ``size``, then cut (3, size, size) from the middle."""
    height, width = image.shape[1:]
    resized = resize(image, *resized_to(height, width, round(size * 256 / 224)))
    top, left = ((side - size) // 2 for side in resized.shape[1:])
    return resized[:, top : top + size, left : left + size]


Prepare = Callable[[Tensor, int], Tensor]
"""From image ``index`` (3, H, W) to (3, size, size), both uint8."""


@dataclass(frozen=True)
class ResizedCropFlip:
    """The augmentation of an epoch."""

    crops: ResizedCrops
    flips: Tensor
    size: int

    def __call__(self, image: Tensor, index: int) -> Tensor:
        """Cut the image's box out, resize it, and mirror it if it is to be."""
        top, left, height, width = self.crops.box(index, *image.shape[1:])
        cut = image[:, top : top + height, left : left + width]
        resized = resize(cut, self.size, self.size)
        return resized.flip(2) if self.flips[index] else resized


class FolderDataset:
    """Images that are decoded when they are needed (see ``Dataset``)."""

    def __init__(
        self, info: DatasetInfo, train: Images, test: Images, device: str | torch.device = "cpu"
    ) -> None:
        """Keep where the images are; labels go to the device.

        Raises:
            ElthError: there are more or fewer images than declared.
        """
        for part, images, declared in (
            ("training", train, info.train_size),
            ("test", test, info.test_size),
        ):
            if len(images.labels) != declared:
                raise ElthError(
                    f"the dataset {info.name} declares {declared:,} {part} images, and has "
                    f"{len(images.labels):,}"
                )
        self.info = info
        self.device = torch.device(device)
        self.train_labels = train.labels.to(device)
        self.test_labels = test.labels.to(device)
        self._train, self._test = train, test

    def to(self, device: str | torch.device) -> FolderDataset:
        """The same images, with their batches on another device."""
        return FolderDataset(self.info, self._train, self._test, device)

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
        count = len(self._train.labels)
        prepare: Prepare = self._prepare
        if augment == "resized_crop_flip":
            prepare = ResizedCropFlip(
                ResizedCrops.draw(count, seed, epoch, noise),
                draw_flips(count, seed, epoch, noise),
                self.info.shape.size,
            )
        order = order_of(count, seed, epoch, noise)
        batches = chosen(order, batch_size, start, stop, part)
        return self._batches(self._train, batches, prepare)

    def test_batches(self, batch_size: int, part: Part = WHOLE) -> Batches:
        """Give all test images in their order."""
        order = torch.arange(len(self._test.labels))
        return self._batches(self._test, chosen(order, batch_size, part=part), self._prepare)

    def sample(self, indices: Tensor) -> Batch:
        """Training images prepared as test images are, and their labels."""
        (batch,) = self.samples([indices])
        return batch

    def samples(self, batches: Iterable[Tensor]) -> Batches:
        """Training images batch by batch, prepared as test images are, and their labels."""
        return self._batches(self._train, (batch.cpu() for batch in batches), self._prepare)

    def _prepare(self, image: Tensor, index: int) -> Tensor:
        return centre_crop(image, self.info.shape.size)

    def _batches(self, images: Images, batches: Iterable[Tensor], prepare: Prepare) -> Batches:
        normalise = normaliser(self.info, self.device)
        size, pin = self.info.shape.size, self.device.type == "cuda"

        def fill(places: Tensor, indices: list[int]) -> None:
            for place, index in zip(places, indices, strict=True):
                image = images.decode(index)
                try:
                    place.copy_(prepare(image, index))
                except RuntimeError as error:  # such as too little memory for one that is large
                    reason = str(error).partition("\n")[0]
                    raise ElthError(
                        f"cannot crop and resize the image {images.where(index)} ({reason})"
                    ) from error

        def submit(pool: ThreadPoolExecutor, batch: Tensor) -> tuple[Tensor, list[Future[None]]]:
            shape = (len(batch), size, size, 3)
            places = torch.empty(shape, dtype=torch.uint8, pin_memory=pin).permute(0, 3, 1, 2)
            return places, [
                pool.submit(fill, some, indices.tolist())
                for some, indices in zip(places.split(_CHUNK), batch.split(_CHUNK), strict=True)
            ]

        copied: deque[torch.cuda.Event] = deque()
        for places, batch in _ahead(batches, submit):
            labels = images.labels[batch]
            if pin:  # else each batch would wait until the device has done the one before
                labels = labels.pin_memory()
            shown = normalise(places.to(self.device, non_blocking=True))
            given = labels.to(self.device, non_blocking=True)
            if pin:  # else all that the device has not come to yet would lie in pinned memory
                copied.append(torch.cuda.Event())
                copied[-1].record(torch.cuda.current_stream(self.device))
                if len(copied) > _AHEAD + 2:
                    copied.popleft().synchronize()
            yield shown, given


def decoders(count: int) -> ThreadPoolExecutor:
    """Threads that decode; what PyTorch does in one of them begins no further threads."""
    return ThreadPoolExecutor(count, thread_name_prefix="decode", initializer=_begin_no_others)


def _begin_no_others() -> None:
    """Set the number of OpenMP's threads to one for what the calling thread begins.

    ``torch.set_num_threads`` would set it for threads that are begun later, too. Where OpenMP
    cannot be found by its standard's name, each thread keeps a team of its own: slower, no more.
    """
    torch.get_num_threads()  # else the first operation would set what the process has
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).omp_set_num_threads(1)


def _ahead(
    batches: Iterable[Tensor],
    submit: Callable[[ThreadPoolExecutor, Tensor], tuple[Tensor, list[Future[None]]]],
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Fill the next batches in threads while one is used; give each with its image numbers."""
    waiting: deque[tuple[Tensor, list[Future[None]], Tensor]] = deque()
    pool = decoders(torch.get_num_threads())
    upcoming = iter(batches)
    try:
        while True:
            while len(waiting) <= _AHEAD and (batch := next(upcoming, None)) is not None:
                waiting.append((*submit(pool, batch), batch))
            if not waiting:
                return
            places, futures, batch = waiting.popleft()
            for future in futures:
                future.result()
            yield places, batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
