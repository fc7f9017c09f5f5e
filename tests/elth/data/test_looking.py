"""Every image of a folder is looked at: what is refused, what is told, how it is done."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from elth import data
from elth.data import ImagesError, _looking, make_manifest, prepare
from elth.data._header import Trait
from elth.data._listing import list_folder
from elth.data._looking import in_order, look, processors
from elth.errors import ElthError
from tests.elth.data.files import animation, deep_png, encoded, folder, jpeg, picture, turned

pytestmark = pytest.mark.anywhere

Told = list[str]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """10 images of two classes."""
    return folder(tmp_path / "some")


# What is seen.


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
def test_sizes_checksums_and_traits(
    source: Path, decode: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_looking, "_CHUNK", 2)
    (source / "train/bee/1.jpg").write_bytes(turned("JPEG"))
    parts = list_folder(source)
    told: list[tuple[int, int]] = []
    looks = look(
        parts, decode=decode, threads=threads, progress=lambda *counts: told.append(counts)
    )
    assert told == [(2, 10), (4, 10), (6, 10), (8, 10), (10, 10)]
    for part, seen in looks.items():
        contents = [Path(path).read_bytes() for path in parts[part].paths]
        assert seen.sizes.tolist() == [len(content) for content in contents]
        assert [bytes(sha) for sha in seen.sha256] == [hashlib.sha256(c).digest() for c in contents]
        assert seen.bad == {}
    assert looks["train"].traits.tolist() == [0, 0, 0, 0, Trait.TURNED, 0]


def test_the_processors_are_those_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if hasattr(os, "sched_getaffinity"):
        assert processors() == len(os.sched_getaffinity(0))
        monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert processors() == os.cpu_count()


def test_few_images_are_under_way_at_a_time() -> None:
    """Else a million of them would be handed over before the first is done."""
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        found = in_order(pool, lambda number: -number, items(), 8)
        for number in range(50):
            assert next(found) == -number
            assert len(taken) <= number + 8
        assert [*found] == [-number for number in range(50, 100)]


def test_threads_end_where_it_is_stopped(source: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_manifest(source, "some", progress=stop)
    assert not any(thread.name.startswith("look") for thread in threading.enumerate())


# What is refused.


def test_all_that_cannot_be_read_are_named(source: Path, tmp_path: Path) -> None:
    contents = [b"", b"no image", jpeg()[:-40], deep_png(), animation("GIF"), animation("WEBP")]
    bad = [*sorted(source.glob("train/*/*"))[:4], *sorted(source.glob("val/*/*"))[:2]]
    for path, content in zip(bad, contents, strict=True):
        path.write_bytes(content)
    (source / "val/bee/9.jpg").symlink_to("nothing")
    with pytest.raises(ImagesError) as caught:
        make_manifest(source, "some", tmp_path / "some.json")
    named = [image.partition(" (") for image in caught.value.images]
    assert [name for name, _, _ in named] == [*map(str, bad), f"{source}/val/bee/9.jpg"]
    assert [reason for _, _, reason in named][:2] == [
        "the file is empty)",
        "it is no JPEG, PNG, WebP or GIF file: it begins with b'no image')",
    ]
    message = str(caught.value)
    assert message == (
        f"7 of 11 images cannot be read: {'; '.join(caught.value.images[:5])}; and 2 more. Repair "
        "or remove them; nothing was written"
    )
    assert not caught.value.all_named
    assert not (tmp_path / "some.json").exists()


def test_a_place_that_cannot_be_written_is_refused_before_images_are_read(source: Path) -> None:
    def told(done: int, total: int) -> None:
        raise AssertionError

    for place in (source / "nothing/some.json", source):
        with pytest.raises(ElthError, match=f"cannot write {place}: give a file in a folder that"):
            make_manifest(source, "some", place, progress=told)


def test_the_same_image_in_both_parts(source: Path, tmp_path: Path) -> None:
    """Whatever its name and class are in each."""
    shutil.copy(source / "train/ant/2.jpg", source / "val/bee/other.JPEG")
    shutil.copy(source / "train/ant/2.jpg", source / "val/ant/again.jpg")
    shutil.copy(source / "train/ant/2.jpg", source / "train/ant/3.jpg")
    message = (
        r"^train and val hold the same images, byte for byte \(2 of the 6 of val\): "
        rf"{source}/val/ant/again.jpg is {source}/train/ant/2.jpg; "
        rf"{source}/val/bee/other.JPEG is {source}/train/ant/2.jpg. A test on images of the "
        "training says little: remove them from one part, or allow it by --allow-shared"
    )
    for decode in (True, False):
        with pytest.raises(ImagesError, match=message):
            make_manifest(source, "some", tmp_path / "some.json", decode=decode)
    assert not (tmp_path / "some.json").exists()
    with pytest.raises(ImagesError, match=message):
        prepare(source, tmp_path / "store")
    assert not (tmp_path / "store/manifest.json").exists()
    make_manifest(source, "some", tmp_path / "some.json", allow_shared=True)
    prepare(source, tmp_path / "store", allow_shared=True)
    prepare(source, tmp_path / "store")  # what is published stays so
    for manifest in ("some.json", "store/manifest.json"):
        loaded = data.load(f"folder(manifest={tmp_path / manifest}, size=16)", tmp_path, full=True)
        assert len(loaded.test_labels) == 6


def test_without_decoding_files_are_read_only(source: Path) -> None:
    (source / "train/ant/0.jpg").write_bytes(b"no image")
    assert make_manifest(source, "some", decode=False)["decoded"] is False
    (source / "train/ant/0.jpg").unlink()
    (source / "train/ant/0.jpg").symlink_to("nothing")
    with pytest.raises(ElthError, match=r"train/ant/0.jpg \(No such file or directory\)\. Repair"):
        make_manifest(source, "some", decode=False)


# What is told.


@pytest.mark.parametrize("way", ["manifest", "prepare"])
def test_unusual_images_are_told(source: Path, tmp_path: Path, way: str) -> None:
    for path, content in {
        "train/ant/a.jpg": turned("JPEG", seed=51),
        "train/ant/b.png": turned("PNG", seed=52),
        "train/ant/c.png": encoded(picture(53, "RGBA"), "PNG"),
        "val/ant/d.png": animation("PNG"),
        "val/bee/e.jpg": animation("MPO"),
    }.items():
        (source / path).write_bytes(content)
    shutil.copy(source / "train/ant/1.jpg", source / "train/ant/z.jpg")
    shutil.copy(source / "train/ant/2.jpg", source / "train/bee/z.jpg")
    told: Told = []
    if way == "manifest":
        make_manifest(source, "some", tell=told.append)
    else:
        prepare(source, tmp_path / "store", tell=told.append)
    assert told == [
        f"in train: images that EXIF asks to turn or mirror (2, as {source}/train/ant/a.jpg) are "
        "shown as they are stored, as is usual for ImageNet",
        f"in train: images with transparency (1, as {source}/train/ant/c.png) are shown without "
        "it, in the colours below it",
        f"in val: files of more than one picture (2, as {source}/val/ant/d.png) show the first, or "
        "the still one",
        "in train: images that are there more than once, byte for byte "
        f"(1, as {source}/train/ant/1.jpg is {source}/train/ant/z.jpg)",
        "in train: images that are in more than one class, byte for byte "
        f"(1, as {source}/train/ant/2.jpg is {source}/train/bee/z.jpg)",
    ]


def test_nothing_is_told_of_a_plain_folder(source: Path, tmp_path: Path) -> None:
    told: Told = []
    make_manifest(source, "some", tell=told.append)
    prepare(source, tmp_path / "store", tell=told.append)
    assert told == []


def test_checksums_that_begin_alike_are_not_the_same(source: Path) -> None:
    part = list_folder(source)["train"]
    sha256 = np.zeros((6, 32), np.uint8)
    sha256[:, 31] = [0, 1, 2, 3, 4, 4]
    copies, classes = _looking._copies(part, sha256)
    assert (copies.count, classes.count) == (1, 0)


# A folder that changes after it was described.


def test_an_image_that_is_replaced_or_goes_is_named_when_it_is_needed(
    source: Path, tmp_path: Path
) -> None:
    make_manifest(source, "some", tmp_path / "some.json")
    name = f"folder(manifest={tmp_path / 'some.json'}, size=16)"
    loaded = data.load(name, tmp_path)
    path = source / "train/ant/1.jpg"
    size = path.stat().st_size
    path.write_bytes(deep_png().ljust(size, b"\0"))
    with pytest.raises(ElthError, match=r"image .*train/ant/1.jpg \(it has 16 bits a channel: "):
        loaded.sample(torch.tensor([0, 1]))
    assert len(data.load(name, tmp_path).train_labels) == 6  # names and sizes are right
    with pytest.raises(ElthError, match="train of .* has a file of other content in the class ant"):
        data.load(name, tmp_path, full=True)
    path.unlink()
    with pytest.raises(ElthError, match=r"image .*train/ant/1.jpg \(No such file or directory\); "):
        loaded.sample(torch.tensor([0, 1]))
    path.symlink_to("nothing")
    for full in (False, True):
        with pytest.raises(ElthError, match=r"image .*train/ant/1.jpg \(No such file or directory"):
            data.load(name, tmp_path, full=full)


def test_an_image_that_cannot_be_resized_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_manifest(source, "some", tmp_path / "some.json")
    loaded = data.load(f"folder(manifest={tmp_path / 'some.json'}, size=16)", tmp_path)
    prepare(source, tmp_path / "store")
    store = data.load(f"folder(manifest={tmp_path / 'store/manifest.json'}, size=16)", tmp_path)

    def fail(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("can't allocate memory\nhere")

    monkeypatch.setattr(torch.nn.functional, "interpolate", fail)
    message = r"cannot crop and resize the image {} \(can't allocate memory\)$"
    with pytest.raises(ElthError, match=message.format(f"{source}/train/bee/1.jpg")):
        loaded.sample(torch.tensor([4]))
    with pytest.raises(ElthError, match=message.format("bee/1.jpg in .*train-00000.safetensors")):
        store.sample(torch.tensor([4]))
