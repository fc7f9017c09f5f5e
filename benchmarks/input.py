"""``python -m benchmarks.input FOLDER``: how many images a second and core are made ready.

Ours, from an image folder and from a prepared store, against torchvision's reference pipeline
(ImageFolder with Pillow, RandomResizedCrop, flip, ToTensor, Normalize, in a DataLoader with as many
worker processes), with the same images, crops of one law and the same size. "For a GPU" leaves out
what is then done on the device: the normalising, which torchvision's pipeline does in its workers.
Repeats are interleaved in one run; what comes of it are the ratios, as machines are noisy.

Images of FOLDER are measured as they are, and made as large as those of ImageNet: 500x375 pixels
and about 110 kB, by bilinear upscaling and the JPEG quality that comes nearest to it. They have no
finer detail than before, but cost about as much to decode.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.io import encode_jpeg, write_jpeg

from benchmarks.rows import Row, row, show
from elth import data
from elth.data import FolderDataset, make_manifest, prepare
from elth.data._augment import AREA, RATIO, ResizedCrops, draw_flips
from elth.data._dataset import normaliser
from elth.data._info import IMAGENET_DEVIATION, IMAGENET_MEAN
from elth.data._stream import ResizedCropFlip
from elth.data.folders import decode

SIZE = 224
BATCH = 50
LARGE = (375, 500)
LARGE_BYTES = 110_000
SHORT = 256
_TRAIN, _VAL = 60, 2


def rows(folder: Path, *, workers: int = 2, repeats: int = 7) -> list[Row]:
    """Measure on images as they are and on large ones made of them."""
    torch.set_num_threads(workers)
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        small = Path(scratch) / "small"
        for part, images in (("train", _TRAIN), ("val", _VAL)):
            _subset(folder / part, small / part, images)
        large = Path(scratch) / "large"
        quality = _upscale(small, large)
        for source in (small, large):
            name = "as they are" if source is small else f"500x375, quality {quality}"
            sizes = [path.stat().st_size for path in source.glob("*/*/*")]
            name = f"{name}, {statistics.mean(sizes) / 1000:.0f} kB"
            store = Path(scratch) / f"{source.name}-prepared"
            prepare(source, store, short=SHORT)
            found += _of(name, source, store, workers, repeats)
    found.append(row("python of an image in a store, at most", "us/image", _python_us(repeats)))
    return found


def _subset(folder: Path, goal: Path, images: int) -> None:
    """The first images of every class."""
    for classes in sorted(path for path in folder.iterdir() if path.is_dir()):
        (goal / classes.name).mkdir(parents=True)
        for path in sorted(classes.iterdir())[:images]:
            (goal / classes.name / path.name).symlink_to(path.resolve())


def _upscale(folder: Path, goal: Path) -> int:
    """Write large images; return the quality that gives them about ``LARGE_BYTES``."""

    def enlarged(path: Path) -> Tensor:
        image = decode(str(path))
        return F.interpolate(image[None], LARGE, mode="bilinear", antialias=True)[0]

    some = [enlarged(path) for path in sorted(folder.glob("train/*/*"))[::_TRAIN]]
    sizes = {
        quality: statistics.mean(len(encode_jpeg(image, quality)) for image in some)
        for quality in range(90, 101)
    }
    quality = min(sizes, key=lambda quality: abs(sizes[quality] - LARGE_BYTES))
    for path in sorted(folder.glob("*/*/*")):
        place = goal / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_jpeg(enlarged(path), str(place), quality=quality)
    return quality


# Pipelines.


def _of(name: str, source: Path, store: Path, workers: int, repeats: int) -> list[dict[str, Any]]:
    """All pipelines on one set of images."""
    manifest = source.with_suffix(".json")
    make_manifest(source, source.name, manifest)
    plain, packed = (
        _loaded(f"folder(manifest={path})") for path in (manifest, store / "manifest.json")
    )
    loaders = {
        "torchvision": _torchvision(source, workers),
        "folder": _ours(plain),
        "store": _ours(packed),
        "store, in processes": _processes(packed, workers),
        # Nothing is done on a meta device: what is left is what a GPU leaves to the processor.
        "folder, for a GPU": _ours(plain.to("meta")),
        "store, for a GPU": _ours(packed.to("meta")),
    }
    count = len(plain.train_labels)
    for loader in loaders.values():
        _seconds(loader())  # files are read, and worker processes have started
    rates: dict[str, list[float]] = {key: [] for key in loaders}
    for _ in range(repeats):
        for key, loader in loaders.items():
            rates[key].append(count / _seconds(loader()) / workers)
    rows = [row(f"{name}: {key}", "images/s/core", values) for key, values in rates.items()]
    for key, other in (
        ("folder", "torchvision"),
        ("store", "torchvision"),
        ("store", "folder"),
        ("folder, for a GPU", "torchvision"),
        ("store, for a GPU", "torchvision"),
        ("store", "store, in processes"),
    ):
        ratios = [a / b for a, b in zip(rates[key], rates[other], strict=True)]
        rows.append(row(f"{name}: {key} / {other}", "ratio", ratios))
    for key, dataset in (("folder", plain), ("store", packed)):
        for share, values in _shares(dataset, repeats).items():
            rows.append(row(f"{name}: {key}, {share}", "us/image", values))
    return rows


def _loaded(name: str) -> FolderDataset:
    dataset = data.load(name)
    assert isinstance(dataset, FolderDataset)
    return dataset


def _ours(dataset: FolderDataset) -> Callable[[], Iterable[Any]]:
    return lambda: dataset.train_batches(
        batch_size=BATCH, augment="resized_crop_flip", seed=0, epoch=0
    )


def _torchvision(source: Path, workers: int) -> Callable[[], Iterable[Any]]:
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, scale=AREA, ratio=RATIO),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(
                [value / 255 for value in IMAGENET_MEAN],
                [value / 255 for value in IMAGENET_DEVIATION],
            ),
        ]
    )
    loader: DataLoader[Any] = DataLoader(
        ImageFolder(str(source / "train"), transform),
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
    )
    return lambda: loader


class _Prepared(TorchDataset[Tensor]):
    """Ours as worker processes would do it: an item is a whole batch."""

    def __init__(self, dataset: FolderDataset) -> None:
        self._images = dataset._train
        self._prepare = _augmentation(dataset)

    def __len__(self) -> int:
        return math.ceil(len(self._images.labels) / BATCH)

    def __getitem__(self, batch: int) -> Tensor:
        indices = range(len(self._images.labels))[batch * BATCH : (batch + 1) * BATCH]
        places = _places(len(indices))
        for place, index in zip(places, indices, strict=True):
            place.copy_(self._prepare(self._images.decode(index), index))
        return places


def _processes(dataset: FolderDataset, workers: int) -> Callable[[], Iterator[Any]]:
    normalise = normaliser(dataset.info, dataset.device)
    loader: DataLoader[Any] = DataLoader(
        _Prepared(dataset), batch_size=None, num_workers=workers, persistent_workers=True
    )
    return lambda: (normalise(images) for images in loader)


def _augmentation(dataset: FolderDataset) -> ResizedCropFlip:
    count = len(dataset.train_labels)
    return ResizedCropFlip(ResizedCrops.draw(count, 0, 0), draw_flips(count, 0, 0), SIZE)


def _places(count: int) -> Tensor:
    return torch.empty((count, SIZE, SIZE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)


def _seconds(batches: Iterable[Any]) -> float:
    began = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - began


# Where the time goes.


def _shares(dataset: FolderDataset, repeats: int) -> dict[str, list[float]]:
    """Microseconds of an image in one thread, by what is done."""
    images, prepare_one = dataset._train, _augmentation(dataset)
    normalise = normaliser(dataset.info, dataset.device)
    indices = range(min(200, len(images.labels)))
    decoded = [images.decode(index) for index in indices]
    places = _places(len(indices))
    small = [prepare_one(image, index) for index, image in enumerate(decoded)]

    def copy() -> None:
        for place, image in zip(places, small, strict=True):
            place.copy_(image)

    steps: dict[str, Callable[[], Any]] = {
        "decode": lambda: [images.decode(index) for index in indices],
        "crop, resize, flip": lambda: [prepare_one(x, i) for i, x in enumerate(decoded)],
        "copy": copy,
        "normalise (on the device)": lambda: [normalise(some) for some in places.split(BATCH)],
    }
    return {key: _microseconds(step, len(indices), repeats) for key, step in steps.items()}


def _python_us(repeats: int) -> list[float]:
    """Microseconds of an image of one pixel: nearly all of it is Python, which holds the GIL."""
    count = 500
    with tempfile.TemporaryDirectory() as scratch:
        source, store = Path(scratch) / "pixels", Path(scratch) / "store"
        for part in ("train", "val"):
            (source / part / "only").mkdir(parents=True)
            pixel = torch.zeros((3, 1, 1), dtype=torch.uint8)
            write_jpeg(pixel, str(source / part / "only" / "0.jpg"))
        prepare(source, store)
        images = _loaded(f"folder(manifest={store / 'manifest.json'})")._train
        augment = ResizedCropFlip(ResizedCrops.draw(count, 0, 0), draw_flips(count, 0, 0), 1)
        places = torch.empty((count, 1, 1, 3), dtype=torch.uint8).permute(0, 3, 1, 2)

        def fill() -> None:
            for index, place in enumerate(places):
                place.copy_(augment(images.decode(0), index))

        return _microseconds(fill, count, repeats)


def _microseconds(step: Callable[[], Any], count: int, repeats: int) -> list[float]:
    """Of one thread at work, whatever else the machine does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        step()
        values = []
        for _ in range(repeats):
            began = time.thread_time()
            step()
            values.append(1e6 * (time.thread_time() - began) / count)
        return values
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.input", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds train/CLASS/* and val/CLASS/*")
    parser.add_argument("--workers", type=int, default=2, help="threads, or processes")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    found = rows(given.folder, workers=given.workers, repeats=given.repeats)
    show("images a second and core", found)


if __name__ == "__main__":
    main()
