"""Prepared stores: made, gone on with, refused, compared with their manifest, read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import decode_jpeg, encode_jpeg, write_jpeg, write_png

from elth import data
from elth.data import FolderDataset, _stream, folders, make_manifest, prepare, prepared
from elth.data._augment import ResizedCrops
from elth.errors import ElthError
from elth.networks import build
from elth.recipes import Recipe, Step
from elth.streams import stream
from elth.tensors import write_tensors
from elth.tickets import state_digest
from elth.training import Training

pytestmark = pytest.mark.anywhere

SHORT = 32
SIZES = [(64, 48), (40, 90), (24, 30), (33, 32)]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few images make several."""
    monkeypatch.setattr(prepared, "_PER_SHARD", 3)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 and 4 images of two classes: JPEG files of several sizes, one grey, and a PNG."""
    folder = tmp_path_factory.mktemp("prepared") / "flowers"
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 4), ("val", 2)):
        for name in ("daisy", "rose"):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                channels = 1 if (name, number) == ("rose", 1) else 3
                coarse = torch.rand((1, channels, 4, 4), generator=generator) * 255
                (image,) = F.interpolate(coarse, SIZES[number], mode="bilinear").round().byte()
                path = str(folder / part / name / f"{number}.JPEG")
                if (name, number) == ("daisy", 3):
                    write_png(image, path.replace("JPEG", "png"))
                else:
                    write_jpeg(image, path, quality=90)
    return folder


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(original, tmp_path / "flowers"))


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    """A store made of it."""
    prepare(original, tmp_path / "small", short=SHORT)
    return tmp_path / "small"


def _load(store: Path, size: int = 16, *, full: bool = False) -> FolderDataset:
    name = f"folder(manifest={store / 'manifest.json'}, size={size})"
    found = data.load(name, store.parent / "nothing", full=full)
    assert isinstance(found, FolderDataset)
    return found


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _paths(folder: Path, part: str) -> list[Path]:
    return sorted((folder / part).glob("*/*"))


def _all(dataset: FolderDataset, augment: str = "resized_crop_flip", **fields: int) -> list[Tensor]:
    given: dict[str, Any] = {"batch_size": 3, "seed": 0, "epoch": 0, **fields}
    return [x for x, _ in dataset.train_batches(augment=augment, **given)]


def _open(store: Path, part: str) -> prepared.Shards:
    shards = [prepared._Shard.open(path) for path in sorted(store.glob(f"{part}-*"))]
    return prepared.Shards(shards)


# What is in a store.


@pytest.mark.parametrize("part", ["train", "val"])
def test_images_are_made_small_and_small_files_are_kept(
    original: Path, store: Path, part: str
) -> None:
    shards, paths = _open(store, part), _paths(original, part)
    half = len(paths) // 2
    assert shards.labels.tolist() == [0] * half + [1] * half
    columns = [shard.tensors for shard in shards._shards]
    raw = [
        one["bytes"][offset : offset + length]
        for one in columns
        for offset, length in zip(one["offset"].tolist(), one["length"].tolist(), strict=True)
    ]
    assert len(raw) == len(paths)
    for index, (path, found) in enumerate(zip(paths, raw, strict=True)):
        whole = folders.decode(str(path))
        height, width = whole.shape[1:]
        if min(height, width) <= SHORT:
            assert path.suffix == ".png" or bytes(found.tolist()) == path.read_bytes()
            expected = (height, width)
        else:
            expected = _stream.resized_to(height, width, SHORT)
            assert min(expected) == SHORT
            small = F.interpolate(whole[None], expected, mode="bilinear", antialias=True)[0]
            assert torch.equal(found, encode_jpeg(small, quality=95))
        image = shards.decode(index)
        assert (image.dtype, image.shape) == (torch.uint8, (3, *expected))
        if path.suffix != ".png":
            continue
        assert torch.equal(image, decode_jpeg(encode_jpeg(whole, quality=95)))
    sizes = {tuple(size) for one in columns for size in zip(*_sizes(one), strict=True)}
    assert sizes == {(42, 32), (32, 72)} | ({(24, 30), (33, 32)} if part == "train" else set())


def _sizes(columns: Mapping[str, Tensor]) -> tuple[list[int], list[int]]:
    return columns["height"].tolist(), columns["width"].tolist()


def test_its_identity_is_its_own(original: Path, store: Path, tmp_path: Path) -> None:
    make_manifest(original, "flowers", tmp_path / "flowers.json")
    folder = data.info(f"folder(manifest={tmp_path / 'flowers.json'})")
    made = data.info(f"folder(manifest={store / 'manifest.json'})")
    manifest = json.loads((store / "manifest.json").read_text())
    assert manifest["source"] == {"fingerprint": folder.fingerprint}
    assert manifest["preprocessing"] == {"short": SHORT, "quality": 95}
    assert (made.train_size, made.test_size, made.shape) == (8, 4, folder.shape)
    identity = made.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert (identity["name"], identity["preprocessing"]) == ("small", "quality=95 short=32")
    assert "preprocessing" not in folder.identity()
    prints = {folder.fingerprint, made.fingerprint}
    for number, (short, quality) in enumerate([(31, 95), (32, 90)]):
        place = tmp_path / f"other{number}"
        prepare(original, place, name="small", short=short, quality=quality)
        prints.add(data.info(f"folder(manifest={place / 'manifest.json'})").fingerprint)
    assert len(prints) == 4


def test_the_same_bytes_again(original: Path, store: Path, tmp_path: Path) -> None:
    before = _bytes(store)
    assert sorted(before) == [
        ".lock", "manifest.json", "preparation.json", "train-00000.safetensors",
        "train-00001.safetensors", "train-00002.safetensors", "val-00000.safetensors",
        "val-00001.safetensors",
    ]  # fmt: skip
    prepare(original, tmp_path / "again", name="small", short=SHORT, threads=3)
    assert _bytes(tmp_path / "again") == before
    times = {path: path.stat().st_mtime_ns for path in store.glob("[!.]*")}
    told: list[tuple[int, int]] = []
    prepare(original, store, short=SHORT, progress=lambda *counts: told.append(counts))
    assert {path: path.stat().st_mtime_ns for path in store.glob("[!.]*")} == times
    assert told[-1] == (12, 12)


# Going on.


def _stop_after(images: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == images:
            raise KeyboardInterrupt

    return progress


def test_what_is_finished_is_kept(original: Path, store: Path, tmp_path: Path) -> None:
    place = tmp_path / "half"
    words: dict[str, Any] = {"name": "small", "short": SHORT}
    with pytest.raises(KeyboardInterrupt):
        prepare(original, place, progress=_stop_after(7), **words)
    kept = sorted(place.glob("*.safetensors"))
    assert [path.name for path in kept] == ["train-00000.safetensors", "train-00001.safetensors"]
    (place / ".train-00002.safetensors.1.tmp").write_bytes(b"half of it")
    damaged = bytearray(kept[1].read_bytes())
    damaged[-100] ^= 1
    kept[1].write_bytes(damaged)
    for path in kept:
        os.utime(path, ns=(1, 1))
    prepare(original, place, **words)
    assert _bytes(place) == _bytes(store)
    assert [path.stat().st_mtime_ns == 1 for path in kept] == [True, False]


_KILLED = """
import os, sys, time
from elth import files
from elth.data import prepare, prepared
prepared._PER_SHARD = 3
count = 0
def fsync(file):
    global count
    count += 1
    if count == 3:  # the settings, the first shard, the second
        print("half", flush=True)
        time.sleep(600)
files.os.fsync = fsync
prepare(sys.argv[1], sys.argv[2], name="small", short=32)
"""


def test_killed_within_a_shard(original: Path, store: Path, tmp_path: Path) -> None:
    place = tmp_path / "killed"
    words = [sys.executable, "-c", _KILLED, str(original), str(place)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        with pytest.raises(ElthError, match="another process is preparing .*killed; wait for it, "):
            prepare(original, place, name="small", short=SHORT)
        process.kill()
    assert [path.name for path in place.glob("*.safetensors")] == ["train-00000.safetensors"]
    assert len(list(place.glob(".*.tmp"))) == 1
    first = (place / "train-00000.safetensors").stat().st_mtime_ns
    prepare(original, place, name="small", short=SHORT)
    assert (place / "train-00000.safetensors").stat().st_mtime_ns == first
    assert _bytes(place) == _bytes(store)


def test_bad_images_are_all_named_and_nothing_is_published(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "small"
    bad = [source / "train/rose/0.JPEG", source / "val/daisy/1.JPEG", source / "val/rose/0.JPEG"]
    whole = [path.read_bytes() for path in bad]
    bad[0].write_bytes(whole[0][: len(whole[0]) // 2])
    bad[1].write_bytes(b"no image")
    bad[2].write_bytes(b"")
    with pytest.raises(ElthError) as caught:
        prepare(source, place, short=SHORT)
    message = str(caught.value)
    assert message.startswith("3 of 12 images cannot be read: ")
    assert message.endswith(
        "Repair or remove them and give the same command again: what is finished is kept"
    )
    assert "\n" not in message
    assert all(str(path) in message for path in bad)
    assert sorted(path.name for path in place.glob("[!.]*")) == [
        "preparation.json", "train-00000.safetensors", "train-00002.safetensors",
        "val-00001.safetensors",
    ]  # fmt: skip
    for path, content in zip(bad, whole, strict=True):
        path.write_bytes(content)
    prepare(source, place, short=SHORT)
    prepare(source, tmp_path / "fresh", name="small", short=SHORT)
    assert _bytes(place) == _bytes(tmp_path / "fresh")


def test_images_that_are_left_out_afterwards(source: Path, tmp_path: Path) -> None:
    """The shards from there on are made again, and one that is too many goes."""
    place = tmp_path / "small"
    (source / "val/rose/1.JPEG").write_bytes(b"no image")
    with pytest.raises(ElthError, match="1 of 12 images cannot be read: .*val/rose/1.JPEG"):
        prepare(source, place, short=SHORT)
    for path in (source / "val/rose/1.JPEG", *source.glob("train/*/0.JPEG")):
        path.unlink()
    manifest = prepare(source, place, short=SHORT)
    assert [part["images"] for part in manifest["parts"].values()] == [6, 3]
    prepare(source, tmp_path / "fresh", name="small", short=SHORT)
    assert _bytes(place) == _bytes(tmp_path / "fresh")


# What is refused.


def test_other_settings_in_the_same_place(original: Path, store: Path) -> None:
    before = _bytes(store)
    for words in ({"short": 31}, {"quality": 90}, {"name": "other"}):
        with pytest.raises(
            ElthError,
            match="small was begun with other settings: name small, short 32, quality 95, now name "
            ".*; give the same ones, or another folder",
        ):
            prepare(original, store, **{"short": SHORT, **words})  # type: ignore[arg-type]
    assert _bytes(store) == before
    (store / "preparation.json").write_text("{")
    with pytest.raises(ElthError, match="other settings: a file that cannot be read, now name"):
        prepare(original, store, short=SHORT)


def test_what_no_store_can_be_made_of(original: Path, tmp_path: Path) -> None:
    for words, message in (
        ({"short": 0}, "the shorter side must have at least 1 pixel, not 0"),
        ({"quality": 101}, "the quality of a JPEG file is 1 to 100, not 101"),
        ({"name": "../x"}, "a dataset cannot be called '../x'"),
    ):
        with pytest.raises(ElthError, match=message):
            prepare(original, tmp_path / "small", **words)
    assert not (tmp_path / "small").exists()
    with pytest.raises(ElthError, match=r"the folder .*nix cannot be listed"):
        prepare(tmp_path / "nix", tmp_path / "small")
    with pytest.raises(
        ElthError, match=r"flowers is no prepared store and not empty \(it holds tr"
    ):
        prepare(original, original)
    (tmp_path / "file").write_text("")
    with pytest.raises(ElthError, match="cannot write into .*file/small: Not a directory"):
        prepare(original, tmp_path / "file" / "small")


def test_a_finished_store_stays_that_of_its_source(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "small"
    prepare(source, place, short=SHORT)
    before = _bytes(place)
    shutil.copy(source / "train/rose/3.JPEG", source / "train/rose/2.JPEG")
    with pytest.raises(ElthError, match="small is finished and was made of another source: images"):
        prepare(source, place, short=SHORT)
    assert _bytes(place) == before


# Reading.


def _damage(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_store_lies_in_the_root_or_holds_its_manifest(store: Path, tmp_path: Path) -> None:
    assert len(_load(store).train_labels) == 8
    shutil.copy(store / "manifest.json", tmp_path / "elsewhere.json")
    name = f"folder(manifest={tmp_path / 'elsewhere.json'}, size=16)"
    assert len(data.load(name, tmp_path).test_labels) == 4
    store.rename(tmp_path / "gone")
    with pytest.raises(
        ElthError, match="the prepared dataset small is not in .* and not beside its manifest .*; "
        "put it into DIR/small and give data.root=DIR",
    ):  # fmt: skip
        data.load(name, tmp_path)


def test_a_store_that_is_not_what_its_manifest_says(store: Path, tmp_path: Path) -> None:
    shard = store / "train-00001.safetensors"
    content = shard.read_bytes()
    _damage(shard, -100)
    _load(store)  # names and sizes are right
    with pytest.raises(
        ElthError, match="the bytes of the shard .*train-00001.safet.* not those of"
    ):
        _load(store, full=True)
    size = len(content)
    shard.write_bytes(content + b"\0")
    with pytest.raises(
        ElthError, match=f"train-00001.* has {size + 1:,} bytes, expected {size:,}; copy the store"
    ):
        _load(store)
    shard.write_bytes(b"\xff" * size)
    with pytest.raises(ElthError, match=r"train-00001.* is no whole shard of a prepared store \("):
        _load(store)
    shard.unlink()
    with pytest.raises(ElthError, match="the shard .*train-00001.safetensors is missing; copy the"):
        _load(store)
    shutil.copy(store / "train-00000.safetensors", shard)
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["parts"]["train"]["shards"][1]["bytes"] = shard.stat().st_size
    (store / "other.json").write_text(json.dumps(manifest))
    with pytest.raises(ElthError, match="train-00001.* is another shard than its manifest says; c"):
        data.load(f"folder(manifest={store / 'other.json'}, size=16)")
    shard.write_bytes(content)
    _load(store, full=True)


def _changed(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    shard = prepared._Shard.open(path)
    tensors = {name: tensor.clone() for name, tensor in shard.tensors.items()}
    change(tensors)
    write_tensors(path, tensors, {"kind": "shard", "sha256": shard.sha256})


@pytest.mark.parametrize(
    ("column", "value"),
    [("offset", 5), ("length", 10**9), ("length", 0), ("label", -1), ("height", 0)],
)
def test_an_index_that_does_not_fit(store: Path, column: str, value: int) -> None:
    shard = store / "train-00000.safetensors"
    _changed(shard, lambda tensors: tensors[column].__setitem__(0, value))
    with pytest.raises(ElthError, match="train-00000.* or its index does not fit its bytes; copy"):
        _load(store)


def test_an_index_that_does_not_fit_its_manifest(store: Path) -> None:
    shard = store / "train-00000.safetensors"
    _changed(shard, lambda tensors: tensors["label"].fill_(7))
    with pytest.raises(
        ElthError, match="part train of .*small has 8 images of at least 8 classes, its manifest s"
    ):
        _load(store)


def test_a_manifest_names_no_file_outside_its_store(store: Path) -> None:
    path = store / "manifest.json"
    manifest = json.loads(path.read_text())
    for number, (key, value) in enumerate(
        [
            ("file", "../train-00000.safetensors"),
            ("file", "/train-00000.safetensors"),
            ("file", "val-00000.safetensors"),
            ("bytes", "1"),
            ("images", 1),
        ]
    ):
        changed = json.loads(json.dumps(manifest))
        changed["parts"]["train"]["shards"][0][key] = value
        path.write_text(json.dumps(changed))
        os.utime(path, ns=(number, number))
        with pytest.raises(ElthError, match=r"is no manifest .* \(it has another format\)"):
            _load(store)


def test_a_damaged_image_is_named(store: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        end = int(tensors["length"][0])
        tensors["bytes"][end : end + 50] = 0
        tensors["height"][2] += 1

    _changed(store / "train-00000.safetensors", change)
    dataset = _load(store)
    with pytest.raises(
        ElthError,
        match=r"cannot decode the image daisy/1.JPEG in .*train-00000.safetensors \(.*\); copy the",
    ):
        dataset.sample(torch.tensor([1]))
    with pytest.raises(ElthError, match=r"image daisy/2.JPEG .* \(it is 24x30, the index says 25x"):
        dataset.sample(torch.tensor([2]))


# Batches.


def test_resized_crops_against_single_images(store: Path) -> None:
    dataset, shards = _load(store), _open(store, "train")
    order = torch.randperm(8, generator=stream(0, "order", 1))
    flips = torch.randint(0, 2, (8,), generator=stream(0, "flip", 1))
    crops = ResizedCrops.draw(8, 0, 1)
    expected = []
    for index in order.tolist():
        image = shards.decode(index)
        top, left, height, width = crops.box(index, *image.shape[1:])
        cut = image[:, top : top + height, left : left + width].contiguous()
        (resized,) = F.interpolate(cut[None], (16, 16), mode="bilinear", antialias=True)
        expected.append(resized.flip(2) if flips[index] else resized)
    mean, deviation = torch.tensor(dataset.info.mean), torch.tensor(dataset.info.deviation)
    found = torch.cat(_all(dataset, epoch=1)) * deviation[:, None, None] + mean[:, None, None]
    assert torch.equal(found.round().byte(), torch.stack(expected))


def test_any_number_of_threads_and_any_start(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _load(store)
    whole = _all(dataset)
    assert [len(batch) for batch in whole] == [3, 3, 2]
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], _all(dataset, start=1), strict=True))
    for threads in (2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        monkeypatch.setattr(_stream, "_CHUNK", threads)
        again = _all(dataset)
        assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_a_store_of_small_files_is_trained_on_as_its_folder(original: Path, tmp_path: Path) -> None:
    """A store that had nothing to shrink has the pixels of the folder."""
    source = Path(shutil.copytree(original, tmp_path / "flowers"))
    for path in source.glob("*/*/*.png"):
        path.unlink()
    make_manifest(source, "flowers", tmp_path / "flowers.json")
    prepare(source, tmp_path / "small", short=100)
    digests = set()
    for manifest in (tmp_path / "flowers.json", tmp_path / "small" / "manifest.json"):
        dataset = data.load(f"folder(manifest={manifest}, size=16)", tmp_path)
        recipe = Recipe(
            length=Step(1, "ep"),
            rewind=Step(0, "ep"),
            batch_size=3,
            augment="resized_crop_flip",
            lr=0.01,
        )
        network = build("resnet14(width=2)", dataset.info.shape, generator=stream(0, "init"))
        training = Training(network, dataset, recipe, seed=0, state=network.state_dict())
        assert len(list(training)) == 1
        digests.add(state_digest(training.state()))
    assert len(digests) == 1
