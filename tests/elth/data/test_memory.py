"""Small images in memory: checked when they are read, resized and cut in batches."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from elth.data import DatasetInfo, MemoryDataset, MemorySource, fingerprint
from elth.data._augment import ResizedCrops
from elth.data._memory import Parts
from elth.errors import ElthError
from elth.networks import DataShape
from elth.specs import Spec
from elth.streams import COMMON, Noise, stream
from tests.elth.helpers import dataset

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


SOURCE = MemorySource(
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


def _load(source: MemorySource, root: Path, *, download: bool = False) -> MemoryDataset:
    return source.load(source.info, root, download=download, full=False)


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
    found = _load(SOURCE, tmp_path)
    assert found.info is SOURCE.info
    images = (found.train_images, found.train_labels, found.test_images, found.test_labels)
    assert all(a is b for a, b in zip(images, PARTS, strict=True))


def test_a_missing_dataset_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "absent").touch()
    with pytest.raises(
        ElthError, match=r"the dataset tiny is not in .* \(no such folder\); ask for it$"
    ):
        _load(SOURCE, tmp_path)


def test_download_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "damaged").touch()
    with pytest.raises(ElthError, match=r"not in .* \(file not found or corrupted\); ask for it"):
        _load(SOURCE, tmp_path)
    _load(SOURCE, tmp_path, download=True)


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
        _load(MemorySource(info=info, read=_reader), tmp_path)


def test_a_missing_library_is_an_error_for_people(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def absent(root: Path, *, download: bool) -> Parts:
        importlib.import_module("a_library_that_is_not_installed")
        return PARTS

    with pytest.raises(ElthError, match="tiny is not in .*a_library_that_is_not_in.*; ask for it"):
        _load(MemorySource(info=SOURCE.info, read=absent), tmp_path)


def test_moving_a_dataset_moves_all_parts() -> None:
    moved = _load(SOURCE, Path()).to("meta")
    parts = (moved.train_images, moved.train_labels, moved.test_images, moved.test_labels)
    assert all(part.device.type == "meta" for part in parts)
    assert moved.info is SOURCE.info


def test_a_reader_that_verifies_the_files_is_believed(tmp_path: Path) -> None:
    declared = dataclasses.replace(SOURCE.info, fingerprint="sums of the files")
    believed = MemorySource(info=declared, read=_reader, verifies=True)
    assert _load(believed, tmp_path).info.identity()["fingerprint"] == "sums of the files"
    with pytest.raises(ElthError, match="not the published one"):
        _load(MemorySource(info=declared, read=_reader), tmp_path)


# What a batch is.


def _with_options(data: MemoryDataset, **options: int) -> MemoryDataset:
    source = MemorySource(info=data.info, read=_reader)
    spec = Spec(data.info.name, tuple(sorted(options.items())))
    return dataclasses.replace(data, info=source.describe(spec))


def _epoch(data: MemoryDataset, augment: str = "none", **fields: int) -> Tensor:
    """The images of an epoch in the order of the dataset."""
    chosen: dict[str, Any] = {"seed": 0, "epoch": 0, "batch_size": 4, **fields}
    images = torch.cat([x for x, _ in data.train_batches(augment=augment, **chosen)])
    order = torch.randperm(
        len(data.train_labels), generator=stream(chosen["seed"], "order", chosen["epoch"])
    )
    result = torch.empty_like(images)
    result[order] = images
    return result


def test_resizing_by_hand() -> None:
    """Twice the side: a quarter and three quarters of two neighbours; the border repeats."""
    data = dataset(2, 1, shape=DataShape(channels=1, size=2, classes=3))
    image = torch.tensor([[[[0, 4], [8, 12]]]], dtype=torch.uint8)
    data = _with_options(dataclasses.replace(data, train_images=image.repeat(2, 1, 1, 1)), size=4)
    expected = [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    assert _epoch(data)[:, 0].tolist() == [expected] * 2
    assert data.train_images.shape == (2, 1, 2, 2)


def test_shrinking_is_antialiased() -> None:
    """Half the side: weights 1/8, 3/8, 3/8, 1/8 of four neighbours, of those that there are."""
    row = torch.tensor([80, 0, 0, 0, 0, 0, 0, 80], dtype=torch.uint8)
    data = dataset(1, 1, shape=DataShape(channels=1, size=8, classes=3))
    data = _with_options(dataclasses.replace(data, train_images=row.repeat(1, 1, 8, 1)), size=4)
    expected = torch.tensor([80 * 3 / 7, 0, 0, 80 * 3 / 7]).repeat(1, 1, 4, 1)
    torch.testing.assert_close(_epoch(data), expected)


def test_grey_images_are_repeated() -> None:
    grey = dataset(5, 3, mean=100, deviation=50)
    colour = _with_options(grey, channels=3)
    assert colour.info.shape == DataShape(channels=3, size=4, classes=3)
    assert (colour.info.mean, colour.info.deviation) == ((100.0,) * 3, (50.0,) * 3)
    found = _epoch(colour, "crop_flip")
    assert torch.equal(found, _epoch(grey, "crop_flip").repeat(1, 3, 1, 1))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_images_are_resized_after_augmentation_and_before_normalisation(augment: str) -> None:
    shape = DataShape(channels=2, size=16, classes=3)
    raw = dataset(7, 3, shape=shape)
    data = _with_options(dataset(7, 3, shape=shape, mean=100, deviation=50), size=40)
    for batch in ({"seed": 1, "epoch": 2}, {"batch_size": 7}):
        small = _epoch(raw, augment, **batch)
        resized = F.interpolate(small, (40, 40), mode="bilinear", align_corners=False)
        torch.testing.assert_close(
            _epoch(data, augment, **batch), (resized - 100) / 50, rtol=1e-5, atol=1e-5
        )


def test_a_sample_is_prepared_as_test_images_are() -> None:
    data = _with_options(dataset(9, 9, mean=100, deviation=50), size=6)
    data = dataclasses.replace(data, test_images=data.train_images, test_labels=data.train_labels)
    ((images, labels),) = data.test_batches(10)
    indices = torch.tensor([3, 0, 3])
    found, its_labels = data.sample(indices)
    assert found.shape == (3, 1, 6, 6)
    assert found.dtype is torch.float32
    assert torch.equal(found, images[indices])
    assert torch.equal(its_labels, labels[indices])
    assert torch.equal(labels, data.train_labels)


def test_samples_come_in_the_batches_that_are_asked_for() -> None:
    data = dataset(9, mean=100, deviation=50)
    asked = [torch.tensor([7, 2]), torch.tensor([2]), torch.tensor([0, 1, 8])]
    found = list(data.samples(asked))
    assert len(found) == 3
    for indices, (images, labels) in zip(asked, found, strict=True):
        torch.testing.assert_close(images, (data.train_images[indices].float() - 100) / 50)
        assert torch.equal(labels, data.train_labels[indices])
        assert images.is_contiguous(memory_format=torch.channels_last)
    assert list(data.samples([])) == []


def test_test_batches_are_in_order() -> None:
    data = dataset(1, 10)
    batches = list(data.test_batches(4))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([x for x, _ in batches]), data.test_images.float())
    assert torch.equal(torch.cat([y for _, y in batches]), data.test_labels)


@pytest.mark.parametrize("size", [16, 24, 8])
def test_resized_crops_against_single_images(size: int) -> None:
    """Each image: its own box, cut out, resized alone, and mirrored or not."""
    count = 40
    data = dataset(count, 1, shape=DataShape(channels=2, size=16, classes=3))
    found = _epoch(_with_options(data, size=size), "resized_crop_flip", seed=3, epoch=1)
    flips = torch.randint(0, 2, (count,), generator=stream(3, "flip", 1)).tolist()
    crops = ResizedCrops.draw(count, 3, 1)
    assert 5 < sum(flips) < 35
    for i, (image, flip) in enumerate(zip(data.train_images.float(), flips, strict=True)):
        top, left, height, width = crops.box(i, 16, 16)
        cut = image[None, :, top : top + height, left : left + width]
        if size < 16:  # grown to the stored size, then shrunk with antialiasing
            cut = F.interpolate(cut, (16, 16), mode="bilinear", align_corners=False)
        (expected,) = F.interpolate(
            cut, (size, size), mode="bilinear", align_corners=False, antialias=size < 16
        )
        torch.testing.assert_close(
            found[i], expected.flip(2) if flip else expected, rtol=1e-4, atol=1e-2
        )


@pytest.mark.parametrize("augment", ["none", "crop_flip", "resized_crop_flip"])
def test_an_epoch_goes_on_from_any_batch(augment: str) -> None:
    data = _with_options(dataset(30, 1, shape=DataShape(channels=1, size=16, classes=3)), size=20)

    def batches(start: int = 0, stop: int | None = None, batch_size: int = 4) -> list[Tensor]:
        given = data.train_batches(
            batch_size=batch_size, augment=augment, seed=0, epoch=1, start=start, stop=stop
        )
        return [x for x, _ in given]

    whole = batches()
    assert [len(x) for x in whole] == [4] * 7 + [2]
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], batches(5), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(whole[2:6], batches(2, 6), strict=True))
    assert torch.equal(torch.cat(whole), torch.cat(batches(batch_size=7)))
    assert batches(8) == batches(3, 3) == []
    again = data.train_batches(batch_size=4, augment=augment, seed=0, epoch=2)
    assert not torch.equal(torch.cat([x for x, _ in again]), torch.cat(whole))


def _noisy(data: MemoryDataset, augment: str, noise: Noise) -> Tensor:
    """The images of an epoch in the order of the dataset, by the names of the streams."""
    given = data.train_batches(batch_size=4, augment=augment, seed=0, epoch=1, noise=noise)
    images = torch.cat([x for x, _ in given])
    order = torch.randperm(len(images), generator=stream(0, f"order{noise.suffix}", 1))
    result = torch.empty_like(images)
    result[order] = images
    return result


@pytest.mark.parametrize("augment", ["crop_flip", "resized_crop_flip"])
def test_a_noise_changes_order_and_augmentation(augment: str) -> None:
    data = _with_options(dataset(30, 1, shape=DataShape(channels=1, size=16, classes=3)), size=16)
    plain = _epoch(data, epoch=1)
    noises = [Noise(copy=1), Noise(round=2), Noise(round=2, copy=1)]
    for noise in noises:  # the same images, each once
        assert torch.equal(_noisy(data, "none", noise), plain)
    shown = [_noisy(data, augment, noise) for noise in [COMMON, *noises]]
    assert torch.equal(shown[0], _epoch(data, augment, epoch=1))
    for first, second in itertools.combinations(shown, 2):
        assert float((first != second).flatten(1).any(1).float().mean()) > 0.5
    assert torch.equal(_noisy(data, augment, noises[0]), shown[1])


def test_labels_follow_their_images() -> None:
    data = dataset(20)
    order = torch.randperm(20, generator=stream(4, "order", 2))
    labels = [y for _, y in data.train_batches(batch_size=6, augment="none", seed=4, epoch=2)]
    assert torch.equal(torch.cat(labels), data.train_labels[order])


def test_an_augmentation_without_meaning_is_refused_at_once() -> None:
    data = dataset()
    info = dataclasses.replace(data.info, augmentations=("none", "resized_crop_flip"))
    with pytest.raises(
        ElthError,
        match="the dataset noise cannot be augmented by crop_flip: set augment of the recipe to "
        "one of none, resized_crop_flip",
    ):
        dataclasses.replace(data, info=info).train_batches(
            batch_size=1, augment="crop_flip", seed=0, epoch=0
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": torch.zeros(9, dtype=torch.int64)}, "10 training .* 10 images and 9 lab"),
        (
            {"test_images": torch.zeros(6, 1, 4, 4).byte()},
            "declares 5 test images, and has 6 images",
        ),
        ({"train_labels": torch.arange(10) - 4}, "3 classes, and training labels from -4 to 5: "),
        ({"test_labels": torch.tensor([1, 2, 3, 3, 3])}, "3 classes, and test labels from 1 to 3"),
    ],
)
def test_what_is_not_as_declared_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ElthError, match=f"the dataset noise .*{message}"):
        dataclasses.replace(dataset(10, 5), **change)


def test_images_are_tested_on_their_middle() -> None:
    """Resized to 256/224 of the size, then cut; augmented ones are not."""
    plain = dataset(4, shape=DataShape(channels=1, size=8, classes=3))
    info = dataclasses.replace(
        plain.info,
        shape=DataShape(channels=1, size=14, classes=3),
        options=(("centre_crop", True), ("size", 14)),
    )
    cropped = dataclasses.replace(plain, info=info)
    images, _ = cropped.sample(torch.arange(4))
    whole = F.interpolate(
        plain.train_images.float(), size=(16, 16), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(images, whole[..., 1:15, 1:15])
    (tested, _), *_ = cropped.test_batches(5)
    assert tested.shape == (5, 1, 14, 14)
    ((trained, _),) = cropped.train_batches(batch_size=4, augment="none", seed=0, epoch=0)
    order = torch.randperm(4, generator=stream(0, "order", 0))
    torch.testing.assert_close(trained, images[order])
    for augment in ("crop_flip", "resized_crop_flip"):
        ((shown, _),) = cropped.train_batches(batch_size=4, augment=augment, seed=0, epoch=0)
        without = dataclasses.replace(cropped, info=dataclasses.replace(info, options=()))
        ((same, _),) = without.train_batches(batch_size=4, augment=augment, seed=0, epoch=0)
        assert torch.equal(shown, same)
