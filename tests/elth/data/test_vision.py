"""MNIST, CIFAR-10 and SVHN: what is said when they are absent, and what is read."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from torchvision.datasets import SVHN

from elth import data
from elth.data import MemoryDataset, vision
from elth.errors import ElthError


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_an_absent_dataset_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        ElthError,
        match=f"the dataset {name} is not in {tmp_path} .*; give its folder with data.root=DIR "
        r"\(laid out as torchvision does\), or let it be downloaded with data.download=true$",
    ):
        data.load(name, tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_what_is_known_without_reading() -> None:
    mnist, cifar = data.info("mnist"), data.info("cifar10")
    assert (mnist.train_size, mnist.test_size) == (60_000, 10_000)
    assert (cifar.train_size, cifar.test_size) == (50_000, 10_000)
    svhn = data.info("svhn")
    assert (svhn.train_size, svhn.test_size) == (73_257, 26_032)
    assert svhn.shape == cifar.shape
    assert [round(m / 255, 6) for m in svhn.mean] == [0.438, 0.444, 0.473]
    assert [round(d / 255, 6) for d in svhn.deviation] == [0.198, 0.201, 0.197]
    assert (mnist.shape.channels, mnist.shape.size, mnist.shape.classes) == (1, 28, 10)
    assert (cifar.shape.channels, cifar.shape.size, cifar.shape.classes) == (3, 32, 10)
    # ImageNet's statistics, as in the experiments of E-LTH.
    assert [round(m / 255, 6) for m in cifar.mean] == [0.485, 0.456, 0.406]
    assert [round(d / 255, 6) for d in cifar.deviation] == [0.229, 0.224, 0.225]


@pytest.mark.shared
def test_real_mnist(real_data: Path) -> None:
    mnist = data.load("mnist", real_data)
    assert isinstance(mnist, MemoryDataset)
    assert mnist.train_images.shape == (60_000, 1, 28, 28)
    assert mnist.test_images.shape == (10_000, 1, 28, 28)
    assert mnist.train_images.dtype is torch.uint8
    assert mnist.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert torch.bincount(mnist.test_labels)[:3].tolist() == [980, 1135, 1032]
    pixels = mnist.train_images.float()
    assert float(pixels.mean()) == pytest.approx(mnist.info.mean[0], rel=1e-3)
    assert float(pixels.std()) == pytest.approx(mnist.info.deviation[0], rel=1e-3)


@pytest.mark.shared
def test_real_cifar10(real_data: Path) -> None:
    cifar = data.load("cifar10", real_data)
    assert isinstance(cifar, MemoryDataset)
    assert cifar.train_images.shape == (50_000, 3, 32, 32)
    assert cifar.test_images.shape == (10_000, 3, 32, 32)
    assert cifar.train_images.dtype is torch.uint8
    assert cifar.train_images.is_contiguous()
    assert cifar.train_labels.dtype is torch.int64
    assert cifar.train_labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert torch.bincount(cifar.train_labels).tolist() == [5000] * 10
    # Channels first, red before blue: the first pixel of the first training image, a frog.
    assert cifar.train_images[0, :, 0, 0].tolist() == [59, 62, 63]
    own = data.info("cifar10(statistics=own)")
    pixels = cifar.train_images.double()
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(own.mean, rel=1e-3)
    assert pixels.std((0, 2, 3)).tolist() == pytest.approx(own.deviation, rel=1e-3)
    with pytest.raises(
        ElthError, match="unknown statistics of dataset cifar10 'none'.*imagenet, own"
    ):
        data.info("cifar10(statistics=none)")


def _fake_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Files in SVHN's format, taken for the published ones; returns images (N, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    images, sums = {}, {}
    for split, labels in (("train", [1, 10, 5, 10]), ("test", [9, 10])):
        count = len(labels)
        images[split] = torch.randint(0, 256, (count, 3, 32, 32), generator=generator).byte()
        file = root / f"{split}_32x32.mat"
        content = {
            "X": images[split].permute(2, 3, 1, 0).numpy(),
            "y": np.array(labels, dtype=np.uint8)[:, None],
        }
        scipy.io.savemat(file, content)
        sums[split] = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setattr(vision, "SVHN_MD5", sums)
    known = {s: [url, name, sums.get(s, md5)] for s, (url, name, md5) in SVHN.split_list.items()}
    monkeypatch.setattr(SVHN, "split_list", known)
    declared = dataclasses.replace(vision.SVHN.info, train_size=4, test_size=2)
    source = dataclasses.replace(vision.SVHN, info=declared)
    monkeypatch.setitem(data.DATASETS, "svhn", source)
    return images


def test_svhn_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = _fake_svhn(tmp_path, monkeypatch)
    svhn = data.load("svhn", tmp_path)
    assert isinstance(svhn, MemoryDataset)
    assert torch.equal(svhn.train_images, images["train"])
    assert torch.equal(svhn.test_images, images["test"])
    assert svhn.train_images.is_contiguous()
    # The files call the digit 0 by 10.
    assert svhn.train_labels.tolist() == [1, 0, 5, 0]
    assert svhn.test_labels.tolist() == [9, 0]
    assert svhn.train_labels.dtype is torch.int64


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_svhn_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    _fake_svhn(tmp_path, monkeypatch)
    file = tmp_path / f"{split}_32x32.mat"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ElthError, match="the dataset svhn is not in .*corrupted.* data.root=DIR"):
        data.load("svhn", tmp_path)


def test_the_sums_of_svhn_are_those_that_torchvision_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {split: SVHN.split_list[split][2] for split in ("train", "test")} == vision.SVHN_MD5
    _fake_svhn(tmp_path, monkeypatch)
    monkeypatch.undo()
    monkeypatch.setattr(vision, "SVHN_MD5", {"train": "0" * 32, "test": "1" * 32})
    with pytest.raises(ElthError, match="torchvision knows another SVHN: expected md5 0000"):
        data.load("svhn", tmp_path)


def _link(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file.resolve())


@pytest.mark.shared
def test_a_damaged_mnist_is_refused(real_data: Path, tmp_path: Path) -> None:
    _link(real_data / "MNIST", tmp_path / "MNIST")
    labels = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-1] ^= 1
    labels.unlink()
    labels.write_bytes(content)
    with pytest.raises(ElthError, match="mnist in .* is not the published one: its fingerprint is"):
        data.load("mnist", tmp_path)
    labels.write_bytes(content[:-1])
    with pytest.raises(ElthError, match="the dataset mnist"):
        data.load("mnist", tmp_path)


class _Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.shared
def test_a_damaged_cifar10_is_refused_unread(real_data: Path, tmp_path: Path) -> None:
    folder = "cifar-10-batches-py"
    _link(real_data / folder, tmp_path / folder)
    (tmp_path / folder / "data_batch_3").unlink()
    (tmp_path / folder / "data_batch_3").write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))
    with pytest.raises(
        ElthError, match="the dataset cifar10 is not in .*corrupted.* data.root=DIR"
    ):
        data.load("cifar10", tmp_path)
    assert not (tmp_path / "sprung").exists()
