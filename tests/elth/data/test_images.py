"""Which image files are read, with what pixels, and why others are not: the same in every path."""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from elth import data
from elth.data import _images, make_manifest, prepare, prepared
from elth.data._images import Unfit, decode, decode_bytes, read_bytes, shown
from elth.data._listing import list_part
from elth.errors import ElthError
from tests.elth.data.files import (
    animation,
    deep_png,
    encoded,
    folder,
    jpeg,
    picture,
    png,
    turned,
)

READ: dict[str, tuple[bytes, int]] = {
    # How far pixels may be from Pillow's, which decodes with another library.
    "jpeg": (jpeg(), 4),
    "progressive jpeg": (jpeg(progressive=True), 4),
    "grey jpeg": (encoded(picture(mode="L"), "JPEG"), 4),
    "cmyk jpeg": (encoded(picture(mode="CMYK"), "JPEG"), 4),
    "turned jpeg": (turned("JPEG"), 4),
    "mirrored jpeg": (turned("JPEG", 2), 4),
    "jpeg of several pictures": (animation("MPO"), 4),
    "png": (encoded(picture(), "PNG"), 0),
    "black and white png": (encoded(picture(mode="1"), "PNG"), 0),
    "grey png": (encoded(picture(mode="L"), "PNG"), 0),
    "palette": (encoded(picture(mode="P"), "PNG"), 0),
    "palette of 16 colours": (encoded(picture().quantize(16), "PNG", bits=4), 0),
    "palette with transparency": (encoded(picture(mode="P"), "PNG", transparency=3), 0),
    "one transparent colour": (encoded(picture(), "PNG", transparency=(1, 2, 3)), 0),
    "rgba": (encoded(picture(mode="RGBA"), "PNG"), 0),
    "grey and alpha": (encoded(picture(mode="LA"), "PNG"), 0),
    "turned png": (turned("PNG"), 0),
    "apng": (animation("PNG"), 0),
    "webp": (encoded(picture(), "WEBP"), 4),
    "webp with alpha": (encoded(picture(mode="RGBA"), "WEBP", lossless=True), 0),
    "turned webp": (turned("WEBP"), 4),
    "gif of one frame": (encoded(picture(mode="P"), "GIF"), 0),
}

REFUSED = {
    "empty": (b"", "the file is empty"),
    "html": (b"<!DOCTYPE html>\n", r"it is no JPEG, PNG, WebP or GIF file: it begins with b'<!DO"),
    "lfs": (b"version https://git-lfs\n", "it is no .* it begins with b'version https://git-lfs"),
    "tiff": (encoded(picture(), "TIFF"), r"it is no .* it begins with b'II\*"),
    "tiff of several": (animation("TIFF"), r"it is no .* it begins with b'II\*"),
    "bmp": (encoded(picture(), "BMP"), "it is no .* it begins with b'BM"),
    "avif": (encoded(picture(), "AVIF"), "it is no .* it begins with .*ftypavif"),
    "cut jpeg": (jpeg()[:-40], "Image is incomplete or truncated"),
    "cut header": (jpeg()[:15], "."),
    "cut png": (encoded(picture(), "PNG")[:-40], ".*the input image is corrupted"),
    "gif": (animation("GIF"), "it is an animation of several frames: keep the one that is meant"),
    "webp": (animation("WEBP"), "it is an animation of several frames: keep the one that is meant"),
    **{
        f"16 bits, colour {colour}": (
            deep_png(colour),
            "it has 16 bits a channel: make 8 of them, by the range that its values have",
        )
        for colour in (0, 2, 4, 6)
    },
    "bomb": (png(100_000, 90_000), "it has 100,000x90,000 pixels; at most 178,956,970 are read"),
    "strip": (png(1, 1001, pixels=b"\0abc" * 1001), "it has 1x1,001 pixels; at most 1,000 times"),
}


def _pillow(content: bytes) -> Tensor:
    """What the usual pipelines make of it: the first frame as RGB, (3, H, W)."""
    with Image.open(io.BytesIO(content)) as image:
        # By way of RGBA a palette with transparency gives the same, without Pillow's warning.
        told = image.mode == "P" and "transparency" in image.info
        colours = (image.convert("RGBA") if told else image).convert("RGB")
    raw, (width, height) = bytearray(colours.tobytes()), colours.size
    return torch.frombuffer(raw, dtype=torch.uint8).reshape(height, width, 3).permute(2, 0, 1)


def _distance(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


@pytest.mark.parametrize("name", READ)
def test_an_image_is_shown_as_pillow_shows_it(name: str, tmp_path: Path) -> None:
    """In every path: alone, from a folder that was described, and from a store made of it."""
    content, most = READ[name]
    expected = _pillow(content)
    found = decode_bytes(content)[0]
    assert (found.dtype, found.shape) == (torch.uint8, expected.shape)
    assert _distance(found, expected) <= most
    source = folder(tmp_path / "some", {"train/bee/0.jpg": content})
    manifest = make_manifest(source, "some", tmp_path / "some.json")
    assert manifest["decoded"] is True
    part = list_part(source / "train")
    assert part.name(3) == "bee/0.jpg"
    assert torch.equal(part.decode(3), found)
    dataset = data.load(f"folder(manifest={tmp_path / 'some.json'}, size=16)", tmp_path)
    shown = dataset.sample(torch.tensor([3]))[0]
    prepare(source, tmp_path / "store", short=100)
    shards = prepared.Shards(
        [prepared._Shard.open(path) for path in (tmp_path / "store").glob("train-*")]
    )
    kept = shards.decode(3)
    assert kept.shape == found.shape
    if content.startswith(b"\xff\xd8"):
        assert torch.equal(kept, found)
        name = f"folder(manifest={tmp_path / 'store/manifest.json'}, size=16)"
        again = data.load(name, tmp_path).sample(torch.tensor([3]))[0]
        assert torch.equal(again, shown)
    else:  # it became a JPEG file
        assert float((kept.float() - found.float()).abs().mean()) < 12


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_is_refused_in_every_path(name: str, tmp_path: Path) -> None:
    content, reason = REFUSED[name]
    source = folder(tmp_path / "some", {"train/bee/0.jpg": content})
    path = re.escape(str(source / "train/bee/0.jpg"))
    with pytest.raises(Unfit, match=f"^{reason}") as alone:
        decode_bytes(content)
    exactly = re.escape(str(alone.value))
    message = rf"1 of 10 images cannot be read: {path} \({exactly}\)\. Repair or remove them"
    with pytest.raises(ElthError, match=message):
        make_manifest(source, "some", tmp_path / "some.json")
    assert not (tmp_path / "some.json").exists()
    with pytest.raises(ElthError, match=message):
        prepare(source, tmp_path / "store")
    assert not (tmp_path / "store/manifest.json").exists()
    make_manifest(source, "some", tmp_path / "some.json", decode=False)
    dataset = data.load(f"folder(manifest={tmp_path / 'some.json'}, size=16)", tmp_path)
    with pytest.raises(ElthError, match=rf"^cannot decode the image {path} \({exactly}\); copy it"):
        dataset.sample(torch.tensor([0, 3]))


def test_the_cases_that_were_described_and_then_stopped_a_training() -> None:
    cases = Path(__file__).parents[4] / "shared" / "cases"
    if not cases.is_dir():
        pytest.skip("the cases are not here")
    with pytest.raises(Unfit, match="Image is incomplete or truncated"):
        decode_bytes((cases / "cut.jpg").read_bytes())
    with pytest.raises(Unfit, match="it has 16 bits a channel"):
        decode_bytes((cases / "grey16.png").read_bytes())


def test_what_is_too_large_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_images, "MOST_PIXELS", 40 * 24)
    decode_bytes(jpeg())
    monkeypatch.setattr(_images, "MOST_PIXELS", 40 * 24 - 1)
    for content, _ in READ.values():
        with pytest.raises(Unfit, match="it has 40x24 pixels; at most 959 are read"):
            decode_bytes(content)


def test_a_damaged_block_of_exif_is_of_no_weight() -> None:
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 60_000) + b"\1\x12"
    content = jpeg()
    content = content[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + content[2:]
    assert torch.equal(decode_bytes(content)[0], decode_bytes(jpeg())[0])


# Files.


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def _forbidden(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(jpeg())
    opened = os.open

    def refusing(name: Any, *words: Any, **more: Any) -> int:
        if str(name) == str(path):
            raise PermissionError(13, "Permission denied", name)
        return opened(name, *words, **more)

    monkeypatch.setattr(os, "open", refusing)  # root may read everything


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_pipe, "it is no regular file"),
        (_link_to_nothing, "No such file or directory"),
        (_link_to_itself, "Too many levels of symbolic links"),
        (Path.mkdir, "Is a directory"),
    ],
)
def test_what_is_no_file(make: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    make(tmp_path / "x.jpg")
    with pytest.raises(Unfit, match=f"^{reason}$"):
        read_bytes(str(tmp_path / "x.jpg"))


def test_what_must_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _forbidden(tmp_path / "x.jpg", monkeypatch)
    with pytest.raises(Unfit, match="^Permission denied$"):
        read_bytes(str(tmp_path / "x.jpg"))


def test_a_file_that_is_larger_than_any_image(tmp_path: Path) -> None:
    with (tmp_path / "x.jpg").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Unfit, match="it has 1,099,511,627,776 bytes; at most 1,073,741,820 are"):
        read_bytes(str(tmp_path / "x.jpg"))


def test_a_name_that_is_no_utf8_is_read_and_can_be_printed(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.jpg")
    with open(path, "wb") as file:
        file.write(jpeg())
    assert decode(path).shape == (3, 24, 40)
    assert shown(path) == f"{tmp_path}/caf\\xe9\\n.jpg"
    assert shown("café 図.jpg") == "café 図.jpg"
    with open(path, "wb") as file:
        file.write(b"no image")
    with pytest.raises(ElthError, match=r"caf\\xe9\\n.jpg \(it is no JPEG") as caught:
        decode(path)
    str(caught.value).encode()
