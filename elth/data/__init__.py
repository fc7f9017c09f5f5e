"""Datasets, by name. To add one, write a file with a ``Source`` and name it in ``DATASETS``."""

from __future__ import annotations

from pathlib import Path

from elth.data import digits, vision
from elth.data._dataset import Dataset, DatasetInfo, Source, fingerprint, read
from elth.errors import unknown

__all__ = ["DATASETS", "Dataset", "DatasetInfo", "Source", "fingerprint", "info", "load"]

DATASETS: dict[str, Source] = {
    source.info.name: source for source in (digits.SOURCE, vision.MNIST, vision.CIFAR10)
}


def info(name: str) -> DatasetInfo:
    """What is known of a dataset without reading it.

    Raises:
        ElthError: there is no dataset of this name.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    return DATASETS[name].info


def load(name: str, root: str | Path = "data", *, download: bool = False) -> Dataset:
    """Read a dataset into memory and check that it is the declared one.

    Raises:
        ElthError: no dataset of this name, or it is not there, or it is another one.
    """
    info(name)
    return read(DATASETS[name], Path(root), download=download)
