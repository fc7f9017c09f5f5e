"""What is in an image folder, and what is left out of it and told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torchvision.datasets import ImageFolder

from elth import data
from elth.data import folders, make_manifest
from elth.data._images import SUFFIXES
from elth.data._listing import list_folder, list_part
from elth.data._looking import look
from elth.errors import ElthError
from tests.elth.data.files import folder, jpeg

pytestmark = pytest.mark.anywhere

JUNK = {
    "train/ant/.ipynb_checkpoints/0-checkpoint.jpg": "left behind by a notebook",
    "train/ant/._0.jpg": "of a disk that macOS wrote to",
    "train/.git/x.jpg": "a folder that looks like a class",
    "train/__MACOSX/ant/._0.jpg": "of an archive made on macOS",
    "val/@eaDir/x.jpg": "of a server by Synology",
    "val/bee/.DS_Store": "",
    "val/bee/Thumbs.db": "",
    "__MACOSX/x.jpg": "",
}


def _told(source: Path) -> list[str]:
    told: list[str] = []
    list_folder(source, told.append)
    return told


def test_classes_and_order_are_those_of_torchvision(tmp_path: Path) -> None:
    more = {
        f"train/{path}": jpeg(9)
        for path in ("ant/B.JPG", "ant/a-b/1.Jpeg", "ant/a/1.png", "Cow/1.WEBP", "ant/a.b.jpg")
    }
    source = folder(tmp_path / "some", {**more, "train/ant/a/x.txt": b"", "train/x.csv": b""})
    part = list_part(source / "train")
    theirs = ImageFolder(
        str(source / "train"), is_valid_file=lambda path: path.lower().endswith(SUFFIXES)
    )
    assert list(part.classes) == theirs.classes == ["Cow", "ant", "bee"]
    assert [*zip(part.paths, part.labels.tolist(), strict=True)] == theirs.samples
    assert len(part.paths) == 11
    assert [part.name(number) for number in (0, 1)] == ["Cow/1.WEBP", "ant/0.jpg"]
    with_slash = list_part(Path(f"{source}/train/"))
    assert with_slash.name(0) == "Cow/1.WEBP"


def test_upper_case_suffixes_are_images(tmp_path: Path) -> None:
    source = folder(tmp_path / "some")
    for path in [*source.glob("*/*/*.jpg")]:
        path.rename(path.with_suffix(".JPG"))
    manifest = make_manifest(source, "some")
    assert [part["images"] for part in manifest["parts"].values()] == [6, 4]


def test_what_is_hidden_is_left_out_and_told(tmp_path: Path) -> None:
    clean = make_manifest(folder(tmp_path / "clean"), "some")
    source = folder(tmp_path / "some", dict.fromkeys(JUNK, b"no image"))
    told: list[str] = []
    assert make_manifest(source, "some", tmp_path / "some.json", tell=told.append) == clean
    (source / "train/bee/.._late.jpg").write_bytes(b"")
    data.load(f"folder(manifest={tmp_path / 'some.json'}, size=16)", tmp_path)
    assert told == [
        "left out beside train and val: __MACOSX",
        f"left out of train: hidden files and folders (4, as {source}/train/.git)",
        f"left out of val: hidden files and folders (2, as {source}/val/@eaDir)",
        "left out of val: files that are not .jpg .jpeg .png .webp (1 .db)",
    ]


def test_other_suffixes_are_counted_and_told(tmp_path: Path) -> None:
    other = ("a.gif", "b.GIF", "c.tif", "notes.txt", "Makefile", "d.jpg.part")
    source = folder(tmp_path / "some", {f"train/ant/{name}": b"" for name in other})
    assert _told(source) == [
        "left out of train: files that are not .jpg .jpeg .png .webp (2 .gif, 1 without suffix, 1 "
        ".part, 1 .tif, 1 .txt)"
    ]


def test_images_of_no_class_are_told(tmp_path: Path) -> None:
    source = folder(tmp_path / "some", {"val/x.jpg": b"", "test/a/x.jpg": b"", "README": b""})
    assert _told(source) == [
        "left out beside train and val: README, test",
        f"left out of val: images in no class folder (1, as {source}/val/x.jpg)",
    ]


def test_images_that_lie_deeper_are_of_the_class_above(tmp_path: Path) -> None:
    """As in Tiny ImageNet; ``ImageFolder`` does the same."""
    source = folder(tmp_path / "some", {"train/bee/images/wild/9.jpg": jpeg(99)})
    part = list_folder(source)["train"]
    assert part.name(6) == "bee/images/wild/9.jpg"
    assert part.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert _told(source) == [
        f"in train: images deeper than CLASS/ (1, as {source}/train/bee/images/wild/9.jpg) are of "
        "the class that is the folder in train, here bee"
    ]


def _one_class(source: Path) -> None:
    for path in [*source.glob("*/bee/*")]:
        path.unlink()
    for path in [*source.glob("*/bee")]:
        path.rmdir()


def _no_class(source: Path) -> None:
    for path in [*source.glob("val/*/*")]:
        path.rename(source / "val" / f"{path.parent.name}{path.name}")
    for path in [*source.glob("val/*/")]:
        path.rmdir()


def _empty(source: Path) -> None:
    for path in [*source.glob("val/bee/*")]:
        path.rename(path.with_suffix(".gif"))
    (source / "val/cow/.hidden").mkdir(parents=True)


def _other_classes(source: Path) -> None:
    (source / "val/bee").rename(source / "val/wasp")


def _no_val(source: Path) -> None:
    (source / "val").rename(source / "test")


def _circle(source: Path) -> None:
    (source / "train/ant/all").symlink_to(source)


def _small_circle(source: Path) -> None:
    (source / "train/ant/all").symlink_to(".")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_one_class, r"some has one class, ant; at least 2 are expected: lay it out as train/CL"),
        (_no_class, r"some/val holds no class folder; it holds 4 images itself: lay it out as tr"),
        (_empty, r"the class folder .*some/val/bee holds no image \(and 1 more hold none\): "),
        (_other_classes, "part val of .*some lacks the class bee; 2 classes are expected"),
        (
            _no_val,
            r"some cannot be listed \(No such file or directory: .*some/val\); lay it out as",
        ),
        (_circle, r"some/train/ant/all is a link to .*some, in which it lies: remove it"),
        (_small_circle, r"some/train/ant/all is a link to .*some/train/ant, in which it lies: rem"),
    ],
)
def test_a_layout_that_is_refused(
    spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    source = folder(tmp_path / "some")
    spoil(source)
    with pytest.raises(ElthError, match=message):
        make_manifest(source, "some", tmp_path / "some.json")
    with pytest.raises(ElthError, match=message):
        data.prepare(source, tmp_path / "store")
    assert not (tmp_path / "some.json").exists()
    assert not (tmp_path / "store").exists()


def test_links_are_followed(tmp_path: Path) -> None:
    plain = make_manifest(folder(tmp_path / "plain"), "some")
    source = tmp_path / "some"
    (source / "train").mkdir(parents=True)
    (source / "val").symlink_to(tmp_path / "plain/val")
    (source / "train/ant").symlink_to(tmp_path / "plain/train/ant")
    (source / "train/bee").mkdir()
    for path in (tmp_path / "plain/train/bee").iterdir():
        (source / "train/bee" / path.name).symlink_to(path)
    assert make_manifest(source, "some") == plain


def test_a_folder_that_must_not_be_listed_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "some", {"train/ant/deep/1.jpg": jpeg(99)})
    scan = os.scandir

    def refusing(path: Any = ".") -> Any:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)  # root may read everything
    with pytest.raises(ElthError, match=r"listed \(Permission denied: .*train/ant/deep\); lay it"):
        make_manifest(source, "some")


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    source = folder(tmp_path / "some")
    for part in ("train", "val"):
        (source / part / "bee").rename(os.fsdecode(os.fsencode(source / part) + b"/caf\xe9"))
    manifest = make_manifest(source, "some", tmp_path / "some.json")
    assert manifest["classes"] == ["ant", "caf\udce9"]
    loaded = data.load(f"folder(manifest={tmp_path / 'some.json'}, size=16)", tmp_path, full=True)
    assert loaded.info.shape.classes == 2
    store = data.prepare(source, tmp_path / "store")
    assert store["classes"] == manifest["classes"]
    assert store["source"] == {"fingerprint": loaded.info.fingerprint}
    os.rename(os.fsencode(source / "val") + b"/caf\xe9", os.fsencode(source / "val") + b"/caf\xe8")
    with pytest.raises(ElthError, match=r"lacks the class caf\\xe9; 2 classes are expected"):
        make_manifest(source, "some")


# What was described when hidden files and folders were part of a folder.


def test_a_manifest_of_that_time_is_read_by_what_it_says(tmp_path: Path) -> None:
    more = {"train/ant/._9.jpg": jpeg(98), "train/bee/.old/9.jpg": jpeg(99)}
    source = folder(tmp_path / "some", {**more, "train/.cow/1.jpg": jpeg(97)})
    (source / "val/.cow").mkdir()
    (source / "val/.cow/1.jpg").write_bytes(jpeg(96))
    parts = {part: list_part(source / part, hidden=True) for part in ("train", "val")}
    assert parts["train"].classes == parts["val"].classes == (".cow", "ant", "bee")
    looks = look(parts, decode=False)
    described = {
        "format": 1,
        "name": "some",
        "classes": [".cow", "ant", "bee"],
        "parts": {
            part: folders._describe(one, looks[part].sizes, looks[part].sha256)
            for part, one in parts.items()
        },
    }
    (tmp_path / "some.json").write_text(json.dumps(described), encoding="utf-8")
    name = f"folder(manifest={tmp_path / 'some.json'}, size=16)"
    loaded = data.load(name, tmp_path, full=True)
    assert loaded.train_labels.tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    (source / "train/ant/._9.jpg").unlink()
    with pytest.raises(ElthError, match="train of .* has 3 images of the class ant, expected 4"):
        data.load(name, tmp_path)


def test_a_fingerprint_stays_what_it_was(tmp_path: Path) -> None:
    """That of the version before folders were looked at."""
    source = tmp_path / "some"
    for part in ("train", "val"):
        for number, path in enumerate(("ant/1.JPG", "ant/a-b/1.jpg", "ant-b/2.png", "bee/x.webp")):
            (source / part / path).parent.mkdir(parents=True, exist_ok=True)
            (source / part / path).write_bytes(f"{part} {number}".encode() * (1 + number))
    make_manifest(source, "some", tmp_path / "some.json", decode=False)
    info = data.info(f"folder(manifest={tmp_path / 'some.json'}, size=16)")
    assert info.fingerprint == "168273998874c18965b34a984e9fd2583fcf73a63057c49faecb15259fa8ac4d"
