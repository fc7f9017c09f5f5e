"""Datasets, by name. To add one, write a file with a ``Source`` and name it in ``DATASETS``.

A name may carry options, as a network's does: ``cifar10(size=224)`` shows images of 32x32 resized
to 224x224, ``digits(channels=3)`` shows grey images as colour images. A dataset that is not ours is
named by its module, as ``my_lab.data:cells`` (``elth.dataset``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from elth import plugins, specs
from elth._lazy import lazily
from elth.data import _outside, digits, vision
from elth.data._declaration import Declaration, dataset
from elth.data._info import DatasetInfo
from elth.data._outside import OutsideSource
from elth.data._sources import (
    FOLDER,
    IMAGENET,
    CountedSource,
    FolderSource,
    MemorySource,
    Source,
)
from elth.errors import ElthError, unknown
from elth.files import expanded
from elth.specs import Choice, Option, Spec

if TYPE_CHECKING:
    from elth.data._dataset import (
        Batch,
        Batches,
        Dataset,
        Part,
        check_dataset,
        fixed_images,
    )
    from elth.data._memory import MemoryDataset, fingerprint
    from elth.data._stream import FolderDataset
    from elth.data.folders import ImagesError, make_manifest
    from elth.data.prepared import prepare
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "elth.data._dataset": (
                "Batch",
                "Batches",
                "Dataset",
                "Part",
                "check_dataset",
                "fixed_images",
            ),
            "elth.data._memory": ("MemoryDataset", "fingerprint"),
            "elth.data._stream": ("FolderDataset",),
            "elth.data.folders": ("ImagesError", "make_manifest"),
            "elth.data.prepared": ("prepare",),
        },
    )

__all__ = [
    "DATASETS",
    "Batch",
    "Batches",
    "Dataset",
    "DatasetInfo",
    "Declaration",
    "FolderDataset",
    "ImagesError",
    "MemoryDataset",
    "MemorySource",
    "Part",
    "Source",
    "about",
    "canonical",
    "check_dataset",
    "choices",
    "dataset",
    "describe",
    "fingerprint",
    "fixed_images",
    "info",
    "load",
    "make_manifest",
    "memory_bytes",
    "module",
    "names",
    "options",
    "prepare",
]

DATASETS: dict[str, Source] = {
    "digits": digits.SOURCE,
    "digits_shuffled": digits.SHUFFLED,
    "mnist": vision.MNIST,
    "cifar10": vision.CIFAR10,
    "svhn": vision.SVHN,
    "imagenet": IMAGENET,
    "folder": FOLDER,
}


def options(name: str) -> dict[str, Option]:
    """Return the options of a dataset with their defaults, as ``{"size": 32}``."""
    return dict(_source(name).defaults)


def choices(name: str) -> dict[str, Choice]:
    """Return the options of a dataset: what they are, their defaults and what they may be."""
    return dict(_source(name).choices)


def about(name: str) -> str:
    """What a dataset is, in a line of Markdown."""
    return _source(name).about


def names() -> tuple[str, ...]:
    """The datasets that may be named: ours, and those that listed modules give."""
    return (*DATASETS, *_outside.registered())


def module(name: str) -> str:
    """The module that a dataset from outside is in, of its name without options; nothing for ours.

    Raises:
        ElthError: there is no such dataset.
    """
    found = _source(name)
    return found.module if isinstance(found, OutsideSource) else ""


def _source(name: str) -> Source:
    if name in DATASETS:
        return DATASETS[name]
    if not plugins.is_reference(name) and name not in (known := names()):
        raise unknown("dataset", name, known)
    return _outside.source(name)


def canonical(name: str) -> str:
    """Check a name and its options; sort them, and leave out those that say the default.

    Example:
        >>> canonical("cifar10( size=224, channels=3 )")
        'cifar10(size=224)'

    Raises:
        ElthError: unknown dataset or option, or a value of another type than the default's.
    """
    return str(_canonical(name))


def _spec(name: str) -> Spec:
    return Spec.parse(name, "dataset", "cifar10(size=224)")


def _canonical(name: str) -> Spec:
    spec = _spec(name)
    found = _source(spec.name)
    if isinstance(found, OutsideSource):
        return found.canonical(spec)
    return specs.canonical(spec, "dataset", found.defaults, like={"manifest": "images.json"})


def info(name: str) -> DatasetInfo:
    """What is known of a dataset without reading it.

    Of a folder what its manifest tells, of one from outside what is declared above its function.

    Raises:
        ElthError: there is no dataset of this name, it cannot meet the options, or nothing is
            declared of it.
    """
    spec = _canonical(name)
    return _source(spec.name).describe(spec)


def memory_bytes(name: str) -> int:
    """Bytes of memory that all images of a dataset take, as they are kept while it is trained on.

    None for folders of images, which are read batch by batch.

    Raises:
        ElthError: as ``info``.
    """
    spec = _canonical(name)
    source = _source(spec.name)
    if isinstance(source, FolderSource | CountedSource):
        return 0
    found = source.info if isinstance(source, MemorySource) else source.describe(spec)
    channels, height, width = found.shape.image
    return (found.train_size + found.test_size) * channels * height * width


def describe(name: str, root: str | Path = "data") -> Declaration:
    """Read a dataset from outside and tell what is to be declared of it, by ``elth.dataset``.

    Args:
        name: the dataset, with options of its function.
        root: the folder that the function is given.

    Raises:
        ElthError: it is one of ours, there is none of this name, or its function fails or gives no
            dataset.
    """
    spec = _spec(name)
    if not isinstance(_source(spec.name), OutsideSource):
        raise ElthError(
            f"the dataset {spec.name} is described already: name a function, as my_lab.data:cells"
        )
    return _outside.describe(spec, expanded(root))


def load(
    name: str, root: str | Path = "data", *, download: bool = False, full: bool = False
) -> Dataset:
    """Read a dataset and check that it is the declared one.

    Args:
        name: the dataset, with its options.
        root: the folder that holds it.
        download: get it first, if it is missing and can be downloaded.
        full: compare every byte of an image folder or a prepared store with its manifest, where
            else names and sizes are compared; other datasets are always compared whole.

    Raises:
        ElthError: no dataset of this name, or it is not there, or it is another one.
    """
    described = info(name)
    source = _source(Spec.parse(described.name).name)
    return source.load(described, expanded(root), download=download, full=full)
