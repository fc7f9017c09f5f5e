"""Image folders: listed, compared with their manifest, decoded, cropped."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from elth import data
from elth.data import FolderDataset, MemoryDataset, folders, make_manifest
from elth.data._augment import ResizedCrops
from elth.data._info import IMAGENET_DEVIATION, IMAGENET_MEAN
from elth.data._sources import CountedSource
from elth.errors import ElthError
from elth.networks import DataShape, build
from elth.recipes import Recipe, Step
from elth.streams import COMMON, Noise, stream
from elth.tickets import state_digest
from elth.training import Training

pytestmark = pytest.mark.anywhere

CLASSES = ("ant", "bee", "cat")
COUNTS = {"train": 4, "val": 2}


def _write(path: Path, height: int, width: int, seed: int, mode: str = "RGB") -> None:
    """A smooth image of one colour to another."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand((1, len(mode), 2, 2), generator=generator) * 255
    pixels = F.interpolate(corners, (height, width), mode="bilinear").round().byte()[0]
    raw = pixels.permute(1, 2, 0).contiguous().numpy().tobytes()
    Image.frombytes(mode, (width, height), raw).save(path, quality=95)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROOT/tiny/{train,val}: 12 and 6 JPEGs of several sizes, one of them grey."""
    root = tmp_path_factory.mktemp("folders")
    seed = 0
    for part, count in COUNTS.items():
        for name in CLASSES:
            folder = root / "tiny" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                size = [(40, 40), (30, 50), (47, 31), (64, 48)][number % 4]
                seed += 1
                mode = "L" if seed == 2 else "RGB"
                _write(folder / f"{number}.JPEG", *size, seed, mode)
    (root / "tiny" / "train" / "ant" / "notes.txt").write_text("no image")
    make_manifest(root / "tiny", "tiny", root / "tiny.json")
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(original, tmp_path / "root"))


def _spec(root: Path, size: int = 16) -> str:
    return f"folder(manifest={root / 'tiny.json'}, size={size})"


def _load(root: Path, size: int = 16, *, full: bool = False) -> FolderDataset:
    found = data.load(_spec(root, size), root, full=full)
    assert isinstance(found, FolderDataset)
    return found


def _all(dataset: data.Dataset, augment: str = "resized_crop_flip", **fields: Any) -> list[Tensor]:
    given: dict[str, Any] = {"batch_size": 5, "seed": 0, "epoch": 0, **fields}
    return [x for x, _ in dataset.train_batches(augment=augment, **given)]


def _pixels(images: Tensor, info: data.DatasetInfo) -> Tensor:
    """Raw pixels of normalised images."""
    mean, deviation = torch.tensor(info.mean), torch.tensor(info.deviation)
    return images * deviation[:, None, None] + mean[:, None, None]


# Manifests.


def test_a_manifest_describes_a_folder(original: Path) -> None:
    manifest = make_manifest(original / "tiny", "tiny")
    assert manifest == json.loads((original / "tiny.json").read_text())
    assert (manifest["name"], manifest["classes"]) == ("tiny", list(CLASSES))
    assert {part: one["images"] for part, one in manifest["parts"].items()} == {
        "train": 12,
        "val": 6,
    }
    files = sorted((original / "tiny" / "val" / "bee").iterdir())
    entry = manifest["parts"]["val"]["classes"]["bee"]
    assert (entry["images"], entry["bytes"]) == (2, sum(f.stat().st_size for f in files))


def test_what_is_known_is_what_the_manifest_tells(original: Path, tmp_path: Path) -> None:
    shutil.copy(original / "tiny.json", tmp_path / "elsewhere.json")
    here, there = (
        data.info(f"folder(size=64, manifest={path})")
        for path in (original / "tiny.json", tmp_path / "elsewhere.json")
    )
    assert here.name == f"folder(manifest={original / 'tiny.json'}, size=64)"
    assert here.title == "tiny(size=64)"
    assert here.shape == DataShape(channels=3, size=64, classes=3)
    assert (here.train_size, here.test_size) == (12, 6)
    identity = here.identity()
    assert identity == there.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert str(tmp_path) not in json.dumps(identity)
    assert len(identity.pop("fingerprint")) == 64
    assert identity == {
        "name": "tiny",
        "mean": list(IMAGENET_MEAN),
        "deviation": list(IMAGENET_DEVIATION),
        "size": 64,
    }
    default = data.info(f"folder(manifest={original / 'tiny.json'})")
    assert default.identity()["size"] == 224


@pytest.mark.parametrize("part", ["train", "val"])
def test_the_fingerprint_is_that_of_the_content(root: Path, part: str) -> None:
    before = data.info(_spec(root)).fingerprint
    make_manifest(root / "tiny", "tiny", root / "tiny.json")
    assert data.info(_spec(root)).fingerprint == before
    file = root / "tiny" / part / "cat" / "1.JPEG"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    make_manifest(root / "tiny", "tiny", root / "tiny.json")
    os.utime(root / "tiny.json", ns=(1, 1))  # a clock may be coarse
    assert data.info(_spec(root)).fingerprint != before


def test_a_bad_manifest(root: Path) -> None:
    for text in ("{", "[]", "{}", '{"format": 1, "name": "x", "classes": [], "parts": {}}'):
        (root / "tiny.json").write_text(text)
        os.utime(root / "tiny.json", ns=(len(text), len(text)))
        with pytest.raises(ElthError, match=r"tiny.json is no manifest of an image folder \(.*mak"):
            data.info(_spec(root))
    (root / "tiny.json").unlink()
    with pytest.raises(ElthError, match=r"no manifest .*No such file.*elth data manifest"):
        data.info(_spec(root))
    with pytest.raises(ElthError, match=r"needs a manifest: write folder\(manifest=PATH\)"):
        data.info("folder(size=16)")


def test_what_no_manifest_can_be_made_of(root: Path) -> None:
    with pytest.raises(ElthError, match="a dataset cannot be called '../x': write letters"):
        make_manifest(root / "tiny", "../x")
    with pytest.raises(ElthError, match=r"the folder .*/nix cannot be listed .*train/CLASS/\*"):
        make_manifest(root / "nix", "nix")
    shutil.copytree(root / "tiny/val/cat", root / "tiny/val/dog")
    with pytest.raises(ElthError, match="part val of .*tiny has the class dog; 3 classes are exp"):
        make_manifest(root / "tiny", "tiny")


# Reading.


def test_a_folder_lies_in_the_root_or_beside_its_manifest(root: Path, tmp_path: Path) -> None:
    assert len(_load(root).train_labels) == 12
    beside = data.load(_spec(root), tmp_path / "nothing")
    assert beside.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    (root / "tiny").rename(root / "other")
    with pytest.raises(
        ElthError, match="the dataset tiny is not in .* and not beside its manifest .*tiny.json; "
        "put it into DIR/tiny and give data.root=DIR",
    ):  # fmt: skip
        _load(root)


def test_a_folder_that_is_not_what_its_manifest_says(root: Path) -> None:
    folder = root / "tiny" / "train" / "bee"
    content = (folder / "2.JPEG").read_bytes()
    (folder / "2.JPEG").rename(folder / "9.JPEG")
    with pytest.raises(ElthError, match="train of .* has files of other names or sizes .* bee "):
        _load(root)
    (folder / "9.JPEG").unlink()
    with pytest.raises(ElthError, match="train of .* has 3 images of the class bee, expected 4; c"):
        _load(root)
    (folder / "2.JPEG").write_bytes(content + b"\0")
    size = sum(file.stat().st_size for file in folder.iterdir())
    with pytest.raises(
        ElthError,
        match=rf"other names or sizes in the class bee \({size:,} bytes, expected {size - 1:,}\)",
    ):
        _load(root)
    (folder / "2.JPEG").write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    _load(root)  # names and sizes are right
    with pytest.raises(ElthError, match="train of .* a file of other content in the class bee; co"):
        _load(root, full=True)
    (folder / "2.JPEG").write_bytes(content)
    _load(root, full=True)
    folder.rename(folder.with_name("wasp"))
    with pytest.raises(ElthError, match="train of .* lacks the class bee; 3 classes are expected"):
        _load(root)


def test_decoding(tmp_path: Path) -> None:
    for mode in ("RGB", "L", "CMYK"):
        _write(tmp_path / f"{mode}.jpg", 20, 30, 1, mode)
        found = folders.decode(str(tmp_path / f"{mode}.jpg"))
        assert (found.shape, found.dtype) == ((3, 20, 30), torch.uint8)
        with Image.open(tmp_path / f"{mode}.jpg") as image:
            raw = bytearray(image.convert("RGB").tobytes())
        expected = torch.frombuffer(raw, dtype=torch.uint8).reshape(20, 30, 3).permute(2, 0, 1)
        assert int((found.int() - expected.int()).abs().max()) <= 4
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(ElthError, match=r"cannot decode the image .*bad.jpg \(.*\); copy it again"):
        folders.decode(str(tmp_path / "bad.jpg"))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 100), (90, 64), (300, 200)])
def test_the_centre_is_cut_out_of_the_resized_image(height: int, width: int) -> None:
    """A ramp of columns and one of rows tell which part of the image is left, and how large."""
    ramp = torch.linspace(0, 255, width).round().byte().expand(height, width)
    fall = torch.linspace(0, 255, height).round().byte()[:, None].expand(height, width)
    found = folders.centre_crop(torch.stack([ramp, fall, ramp]), 56).float()
    assert found.shape == (3, 56, 56)
    # 64 pixels of the shorter side become 56: 7/8 of it, in both directions.
    part = 7 / 8 * min(height, width)
    for values, side in ((found[0].mean(0), width), (found[1].mean(1), height)):
        assert float(values.mean()) == pytest.approx(127.5, abs=3)
        slope = 255 / (side - 1) * part / 56
        assert float(values[-1] - values[0]) == pytest.approx(55 * slope, abs=3)


def test_without_augmentation_training_images_are_prepared_as_test_images(root: Path) -> None:
    dataset = _load(root)
    order = torch.randperm(12, generator=stream(7, "order", 3))
    batches = list(dataset.train_batches(batch_size=5, augment="none", seed=7, epoch=3))
    assert [len(labels) for _, labels in batches] == [5, 5, 2]
    sample, labels = dataset.sample(order)
    assert torch.equal(torch.cat([x for x, _ in batches]), sample)
    assert torch.equal(torch.cat([y for _, y in batches]), labels)
    assert sample.shape == (12, 3, 16, 16)
    assert sample.dtype is torch.float32
    assert sample.is_contiguous(memory_format=torch.channels_last)
    paths = sorted((root / "tiny/train").glob("*/*.JPEG"))
    for image, label, index in zip(sample, labels.tolist(), order.tolist(), strict=True):
        assert paths[index].parent.name == CLASSES[label]
        raw = folders.centre_crop(folders.decode(str(paths[index])), 16)
        torch.testing.assert_close(_pixels(image, dataset.info), raw.float(), rtol=1e-5, atol=1e-3)


def test_samples_come_in_the_batches_that_are_asked_for(root: Path) -> None:
    dataset = _load(root)
    asked = [torch.tensor([7, 2]), torch.tensor([2]), torch.tensor([0, 1, 11])]
    found = list(dataset.samples(asked))
    assert [len(labels) for _, labels in found] == [2, 1, 3]
    for indices, (images, labels) in zip(asked, found, strict=True):
        expected, its_labels = dataset.sample(indices)
        assert torch.equal(images, expected)
        assert torch.equal(labels, its_labels)
    assert list(dataset.samples([])) == []


def test_test_images_come_in_order(root: Path) -> None:
    dataset = _load(root)
    batches = list(dataset.test_batches(4))
    assert torch.cat([y for _, y in batches]).tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(torch.cat([y for _, y in batches]), dataset.test_labels)
    paths = sorted((root / "tiny/val").glob("*/*.JPEG"))
    raw = torch.stack([folders.centre_crop(folders.decode(str(p)), 16) for p in paths]).float()
    found = _pixels(torch.cat([x for x, _ in batches]), dataset.info)
    torch.testing.assert_close(found, raw, rtol=1e-5, atol=1e-3)


def test_resized_crops_against_single_images(root: Path) -> None:
    dataset = _load(root)
    order = torch.randperm(12, generator=stream(0, "order", 1)).tolist()
    flips = torch.randint(0, 2, (12,), generator=stream(0, "flip", 1)).tolist()
    assert set(flips) == {0, 1}
    crops = ResizedCrops.draw(12, 0, 1)
    found = _pixels(torch.cat(_all(dataset, epoch=1)), dataset.info)
    paths = sorted((root / "tiny/train").glob("*/*.JPEG"))
    for image, index in zip(found, order, strict=True):
        whole = folders.decode(str(paths[index])).double()
        top, left, height, width = crops.box(index, *whole.shape[1:])
        cut = whole[None, :, top : top + height, left : left + width]
        (expected,) = F.interpolate(cut, (16, 16), mode="bilinear", antialias=True)
        if flips[index]:
            expected = expected.flip(2)
        # The image is resized as whole numbers.
        assert float((image - expected).abs().max()) < 1.01


def test_draws_depend_on_seed_epoch_and_image_alone(root: Path) -> None:
    dataset = _load(root)
    whole = _all(dataset)
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], _all(dataset, start=1), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(whole[:2], _all(dataset, stop=2), strict=True))
    assert torch.equal(torch.cat(whole), torch.cat(_all(dataset, batch_size=12)))
    assert not torch.equal(torch.cat(whole), torch.cat(_all(dataset, epoch=1)))
    assert not torch.equal(torch.cat(whole), torch.cat(_all(dataset, seed=1)))


def test_a_noise_changes_order_and_augmentation(root: Path) -> None:
    dataset = _load(root)

    def shown(augment: str, noise: Noise) -> Tensor:
        images = torch.cat(_all(dataset, augment, noise=noise))
        order = torch.randperm(12, generator=stream(0, f"order{noise.suffix}"))
        return images[order.argsort()]

    twin = Noise(copy=1)
    assert torch.equal(torch.cat(_all(dataset, noise=COMMON)), torch.cat(_all(dataset)))
    assert torch.equal(shown("none", twin), shown("none", COMMON))
    augmented = shown("resized_crop_flip", twin)
    assert not torch.equal(augmented, shown("resized_crop_flip", COMMON))
    assert torch.equal(augmented, shown("resized_crop_flip", Noise(copy=1)))


def test_the_number_of_threads_plays_no_part(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _load(root)
    one = torch.cat(_all(dataset))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(torch.cat(_all(dataset)), one)


_TEAMS = """
import os
import torch
from elth.data import _stream
torch.set_num_threads(4)
image = torch.randint(0, 256, (300, 300, 3), dtype=torch.uint8).permute(2, 0, 1)

def work(_):
    place = torch.empty((224, 224, 3), dtype=torch.uint8).permute(2, 0, 1)
    place.copy_(_stream.resize(image, 224, 224).flip(2))

before = len(os.listdir("/proc/self/task"))
with _stream.decoders(4) as pool:
    list(pool.map(work, range(40)))
    print(len(os.listdir("/proc/self/task")) - before)
print(torch.get_num_threads())
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_a_thread_that_decodes_begins_no_others() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _TEAMS], check=True, capture_output=True, encoding="utf-8"
    )
    begun, of_the_process = map(int, ran.stdout.split())
    assert begun <= 4
    assert of_the_process == 4


def test_threads_end_with_their_batches(root: Path) -> None:
    def decoding() -> int:
        return sum(thread.name.startswith("decode") for thread in threading.enumerate())

    batches = _load(root).train_batches(batch_size=2, augment="none", seed=0, epoch=0)
    next(batches)
    assert decoding() == 1
    batches.close()
    assert decoding() == 0


def test_crop_flip_is_refused(root: Path) -> None:
    with pytest.raises(
        ElthError,
        match=r"the dataset folder\(.*\) cannot be augmented by crop_flip: set augment of the "
        "recipe to one of none, resized_crop_flip",
    ):
        _training(_load(root), "crop_flip")


def test_a_damaged_image_stops_the_training_and_is_named(root: Path) -> None:
    file = root / "tiny/train/cat/3.JPEG"
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(ElthError, match=r"cannot decode the image .*train/cat/3.JPEG"):
        list(_training(_load(root), "none"))


def _training(dataset: data.Dataset, augment: str, start: int = 0) -> Training:
    recipe = Recipe(
        length=Step(2, "ep"), rewind=Step(0, "ep"), batch_size=5, augment=augment, lr=0.01
    )
    network = build("resnet14(width=2)", dataset.info.shape, generator=stream(0, "init"))
    return Training(network, dataset, recipe, seed=0, state=network.state_dict(), start=start)


def test_training_is_that_of_the_same_images_in_memory(root: Path) -> None:
    """Without augmentation a folder is the dataset of its prepared images."""
    dataset = _load(root)
    parts = {
        part: torch.stack([folders.centre_crop(folders.decode(str(p)), 16) for p in paths])
        for part, paths in (
            (part, sorted((root / "tiny" / part).glob("*/*.JPEG"))) for part in COUNTS
        )
    }
    memory = MemoryDataset(
        info=dataset.info,
        train_images=parts["train"],
        train_labels=dataset.train_labels,
        test_images=parts["val"],
        test_labels=dataset.test_labels,
    )
    runs = [_training(one, "none", start=1) for one in (dataset, memory)]
    assert list(runs[0]) == list(runs[1])
    assert state_digest(runs[0].state()) == state_digest(runs[1].state())


def test_moving_a_folder_moves_its_labels(root: Path) -> None:
    moved = _load(root).to("meta")
    assert moved.device.type == "meta"
    assert moved.train_labels.device.type == moved.test_labels.device.type == "meta"


# ImageNet.


def test_imagenet_is_known_by_its_numbers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = data.info("imagenet")
    assert (info.train_size, info.test_size, info.shape.classes) == (1_281_167, 50_000, 1000)
    assert data.info("imagenet(size=64)").shape == DataShape(channels=3, size=64, classes=1000)
    with pytest.raises(
        ElthError, match=r"the dataset imagenet cannot be listed \(.*\); get ILSVRC2012 from "
        r"image-net.org, lay it out as DIR/imagenet/train/CLASS/\*.JPEG and .* data.root=DIR",
    ):  # fmt: skip
        data.load("imagenet", root)
    (root / "tiny").rename(root / "imagenet")
    with pytest.raises(
        ElthError, match="part train of .*imagenet has 3 classes, expected 1,000; get ILSVRC2012"
    ):
        data.load("imagenet", root)
    small = CountedSource(info=_replaced(info, train=12, test=6))
    monkeypatch.setitem(data.DATASETS, "imagenet", small)
    dataset = data.load("imagenet(size=16)", root)
    assert dataset.sample(torch.tensor([0]))[0].shape == (1, 3, 16, 16)
    (root / "imagenet/val/ant/0.JPEG").unlink()
    with pytest.raises(ElthError, match="part val of .*imagenet has 5 images, expected 6; get ILS"):
        data.load("imagenet", root)


def _replaced(info: data.DatasetInfo, *, train: int, test: int) -> data.DatasetInfo:
    shape = DataShape(channels=3, size=224, classes=3)
    return dataclasses.replace(info, shape=shape, train_size=train, test_size=test)


@pytest.mark.shared
def test_real_images(real_data: Path, tmp_path: Path) -> None:
    if not (real_data / "imagenette224").is_dir():
        pytest.skip("the folder of real datasets has no imagenette224")
    manifest = tmp_path / "imagenette.json"
    make_manifest(real_data / "imagenette224", "imagenette224", manifest)
    dataset = data.load(f"folder(manifest={manifest}, size=32)", real_data)
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (1000, 400)
    assert torch.bincount(dataset.train_labels).tolist() == [100] * 10
    images, _ = dataset.sample(torch.arange(0, 1000, 10))
    # Ten classes of ImageNet have about its statistics.
    assert float(images.mean((0, 2, 3)).abs().max()) < 0.3
    assert float((images.std((0, 2, 3)) - 1).abs().max()) < 0.3
    recipe = Recipe(
        length=Step(1, "ep"),
        rewind=Step(0, "ep"),
        augment="resized_crop_flip",
        batch_size=20,
        lr=0.02,
    )
    network = build("resnet14(width=8)", dataset.info.shape, generator=stream(1, "init"))
    (epoch,) = Training(network, dataset, recipe, seed=1, state=network.state_dict())
    assert epoch.step == 50
    assert epoch.train_loss < math.log(10)
    assert epoch.test_accuracy > 14  # by chance 10, with a deviation of 1.5
