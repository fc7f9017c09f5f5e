"""Datasets of small images, whole in memory as uint8."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from elth.errors import ElthError
from elth.networks import DataShape


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known of a dataset before it is read: enough to plan and to check it."""

    name: str
    shape: DataShape
    train_size: int
    test_size: int
    fingerprint: str
    """sha256 of the decoded images and labels (see ``fingerprint``)."""
    mean: tuple[float, ...]
    """Mean of each channel, on the raw scale of the stored pixels."""
    deviation: tuple[float, ...]
    """Standard deviation of each channel, on the raw scale."""
    how_to_get: str
    """One sentence for the error when it is not there."""

    def identity(self) -> dict[str, Any]:
        """What the results of a training depend on, as JSON values."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "mean": list(self.mean),
            "deviation": list(self.deviation),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Images (N, C, H, W) as uint8 and labels (N,) as int64, for training and for testing."""

    info: DatasetInfo
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def to(self, device: str | torch.device) -> Dataset:
        """Move all four tensors to a device."""
        return Dataset(
            info=self.info,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
        )


Parts = tuple[Tensor, Tensor, Tensor, Tensor]
"""Training images and labels, test images and labels."""


class Reader(Protocol):
    """Reads a dataset below a root; may download it first."""

    def __call__(self, root: Path, *, download: bool) -> Parts:
        """Return the decoded parts.

        Raises:
            FileNotFoundError: it is not there.
        """


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset's description and how to read it."""

    info: DatasetInfo
    read: Reader


def fingerprint(parts: Parts) -> str:
    """sha256 over shapes, types and bytes of the decoded parts: the identity of a dataset."""
    sha = hashlib.sha256()
    for tensor in parts:
        sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def read(source: Source, root: Path, *, download: bool) -> Dataset:
    """Read a dataset and check that it is the one that is declared.

    Raises:
        ElthError: it is not there (with how to get it), or it is another one.
    """
    info = source.info
    try:
        parts = source.read(root, download=download)
    except (OSError, RuntimeError, ImportError) as error:
        raise ElthError(
            f"the dataset {info.name} is not in {root} ({error}); {info.how_to_get}"
        ) from error
    found = fingerprint(parts)
    if found != info.fingerprint:
        raise ElthError(
            f"the dataset {info.name} in {root} is not the published one: its fingerprint is "
            f"{found[:12]}, expected {info.fingerprint[:12]}; {info.how_to_get}"
        )
    images, labels, test_images, test_labels = parts
    return Dataset(
        info=info,
        train_images=images,
        train_labels=labels,
        test_images=test_images,
        test_labels=test_labels,
    )
