"""Datasets are what they say, or are refused with how to get them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from pathlib import Path

import pytest
import torch

from elth import data
from elth.data import DATASETS, DatasetInfo, Source, fingerprint
from elth.data._dataset import Parts, read
from elth.errors import ElthError
from elth.networks import DataShape

PARTS: Parts = (
    torch.tensor([[[[1, 2]]]], dtype=torch.uint8),
    torch.tensor([3]),
    torch.tensor([[[[4, 5]]]], dtype=torch.uint8),
    torch.tensor([6]),
)


def _reader(root: Path, *, download: bool) -> Parts:
    if (root / "absent").exists():
        raise FileNotFoundError("no such folder")
    if (root / "damaged").exists() and not download:
        raise RuntimeError("file not found or corrupted")
    return PARTS


SOURCE = Source(
    info=DatasetInfo(
        name="tiny",
        shape=DataShape(channels=1, size=1, classes=7),
        train_size=1,
        test_size=1,
        fingerprint=fingerprint(PARTS),
        mean=(0.0,),
        deviation=(1.0,),
        how_to_get="ask for it",
    ),
    read=_reader,
)


def test_fingerprint_by_hand() -> None:
    expected = hashlib.sha256(
        b"torch.uint8(1, 1, 1, 2)"
        + bytes([1, 2])
        + b"torch.int64(1,)"
        + (3).to_bytes(8, "little")
        + b"torch.uint8(1, 1, 1, 2)"
        + bytes([4, 5])
        + b"torch.int64(1,)"
        + (6).to_bytes(8, "little")
    ).hexdigest()
    assert fingerprint(PARTS) == expected


def test_identity_is_what_results_depend_on() -> None:
    identity = SOURCE.info.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity == {
        "name": "tiny",
        "fingerprint": fingerprint(PARTS),
        "mean": [0.0],
        "deviation": [1.0],
    }


def test_parts_find_their_places(tmp_path: Path) -> None:
    found = read(SOURCE, tmp_path, download=False)
    assert found.info is SOURCE.info
    images = (found.train_images, found.train_labels, found.test_images, found.test_labels)
    assert all(a is b for a, b in zip(images, PARTS, strict=True))


def test_a_missing_dataset_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "absent").touch()
    with pytest.raises(
        ElthError, match=r"the dataset tiny is not in .* \(no such folder\); ask for it$"
    ):
        read(SOURCE, tmp_path, download=False)


def test_download_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "damaged").touch()
    with pytest.raises(ElthError, match=r"not in .* \(file not found or corrupted\); ask for it"):
        read(SOURCE, tmp_path, download=False)
    read(SOURCE, tmp_path, download=True)


@pytest.mark.parametrize("part", range(4))
def test_another_dataset_is_refused(tmp_path: Path, part: int) -> None:
    changed = list(PARTS)
    changed[part] = PARTS[part] + 1
    other = fingerprint((changed[0], changed[1], changed[2], changed[3]))
    info = dataclasses.replace(SOURCE.info, fingerprint=other)
    with pytest.raises(
        ElthError,
        match=f"tiny in .* is not the published one: its fingerprint is "
        f"{SOURCE.info.fingerprint[:12]}, expected {other[:12]}; ask for it",
    ):
        read(Source(info=info, read=_reader), tmp_path, download=False)


def test_a_missing_library_is_an_error_for_people(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def absent(root: Path, *, download: bool) -> Parts:
        importlib.import_module("a_library_that_is_not_installed")
        return PARTS

    with pytest.raises(ElthError, match="tiny is not in .*a_library_that_is_not_in.*; ask for it"):
        read(Source(info=SOURCE.info, read=absent), tmp_path, download=False)


def test_digits() -> None:
    digits = data.load("digits")
    assert digits.info is data.info("digits")
    assert digits.train_images.shape == (1297, 1, 8, 8)
    assert digits.test_images.shape == (500, 1, 8, 8)
    assert digits.train_images.dtype is digits.test_images.dtype is torch.uint8
    assert digits.train_labels.dtype is digits.test_labels.dtype is torch.int64
    assert int(digits.train_images.max()) == int(digits.test_images.max()) == 16
    counts = [128, 131, 128, 132, 130, 131, 130, 129, 128, 130]
    assert torch.bincount(digits.train_labels).tolist() == counts
    assert torch.bincount(digits.test_labels).tolist() == [50, 51, 49, 51, 51, 51, 51, 50, 46, 50]
    # The first image is a 0, as in scikit-learn's documentation.
    assert digits.train_images[0, 0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert int(digits.train_labels[0]) == 0
    parts = (digits.train_images, digits.train_labels, digits.test_images, digits.test_labels)
    assert fingerprint(parts) == digits.info.fingerprint
    assert digits.info.fingerprint.startswith("ee46149fc808dd56")
    pixels = digits.train_images.float()
    assert float(pixels.mean()) == pytest.approx(digits.info.mean[0], abs=5e-4)
    assert float(pixels.std()) == pytest.approx(digits.info.deviation[0], abs=1e-3)


def test_moving_a_dataset_moves_all_parts() -> None:
    moved = read(SOURCE, Path(), download=False).to("meta")
    parts = (moved.train_images, moved.train_labels, moved.test_images, moved.test_labels)
    assert all(part.device.type == "meta" for part in parts)
    assert moved.info is SOURCE.info


def test_registry_names_are_those_of_the_descriptions() -> None:
    assert set(DATASETS) == {"digits", "mnist", "cifar10"}
    assert all(name == source.info.name for name, source in DATASETS.items())


def test_an_unknown_dataset() -> None:
    for ask in (data.info, data.load):
        with pytest.raises(
            ElthError, match=r"unknown dataset 'cifar'; did you mean 'cifar10'\? \(there is: dig"
        ):
            ask("cifar")
