"""Headers of image files, against those that Pillow reads."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from elth.data._header import Trait, read_header
from tests.elth.data.files import animation, encoded, jpeg, picture, png, turned

FILES = {
    "jpeg": jpeg(),
    "progressive": jpeg(progressive=True),
    "grey": encoded(picture(mode="L"), "JPEG"),
    "cmyk": encoded(picture(mode="CMYK"), "JPEG"),
    "comment": jpeg(comment=b"\xff" * 999),
    "jpeg turned": turned("JPEG"),
    "jpeg upright": turned("JPEG", 1),
    "several": animation("MPO"),
    "png": encoded(picture(), "PNG"),
    "palette": encoded(picture(mode="P"), "PNG"),
    "palette, transparent": encoded(picture(mode="P"), "PNG", transparency=3),
    "png, one colour transparent": encoded(picture(), "PNG", transparency=(1, 2, 3)),
    "rgba": encoded(picture(mode="RGBA"), "PNG"),
    "grey and alpha": encoded(picture(mode="LA"), "PNG"),
    "png turned": turned("PNG", 8),
    "apng": animation("PNG"),
    "webp": encoded(picture(), "WEBP"),
    "webp, lossless": encoded(picture(), "WEBP", lossless=True),
    "webp, alpha": encoded(picture(mode="RGBA"), "WEBP"),
    "webp, lossless, alpha": encoded(picture(mode="RGBA"), "WEBP", lossless=True),
    "webp turned": turned("WEBP", 3),
    "webp, animated": animation("WEBP"),
    "gif": encoded(picture(), "GIF"),
}


def _pillow(data: bytes) -> tuple[tuple[int, int], Trait, bool]:
    """What Pillow says: size, traits, and whether it is an animation without a still picture."""
    with Image.open(io.BytesIO(data)) as image:
        traits = Trait.NONE
        if 2 <= image.getexif().get(0x112, 1) <= 8:
            traits |= Trait.TURNED
        if image.has_transparency_data:
            traits |= Trait.TRANSPARENT
        several = getattr(image, "n_frames", 1) > 1
        if several and image.format in ("PNG", "MPO"):
            traits |= Trait.OTHERS
        return image.size, traits, several and image.format == "WEBP"


@pytest.mark.parametrize("name", FILES)
def test_size_and_traits_are_those_that_pillow_reads(name: str) -> None:
    header = read_header(FILES[name])
    assert header is not None
    found = ((header.width, header.height), header.traits, header.animated)
    assert found == _pillow(FILES[name])


def test_every_trait_is_among_the_files() -> None:
    found = {trait for data in FILES.values() for trait in _pillow(data)[1]}
    assert found == {Trait.TURNED, Trait.TRANSPARENT, Trait.OTHERS}


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("order", [b"MM", b"II"])
def test_which_orientations_turn(orientation: int, order: bytes) -> None:
    exif: Any = Image.Exif()
    exif.endian = ">" if order == b"MM" else "<"
    exif[0x112] = orientation
    assert exif.tobytes()[6:8] == order
    header = read_header(jpeg(exif=exif))
    assert header is not None
    assert header.traits == (Trait.TURNED if 2 <= orientation <= 8 else Trait.NONE)


def test_bytes_between_the_segments_are_passed_over() -> None:
    data = jpeg()
    header = read_header(data[:2] + b"\xff\xff\xff" + data[2:20] + b"junk" + data[20:])
    assert header is not None
    assert (header.width, header.height) == picture().size


def test_what_is_no_image() -> None:
    for data in (b"", b"\xff\xd8", b"<!DOCTYPE html>", b"RIFF\0\0\0\0WAVE", b"II*\0", b"BM"):
        assert read_header(data) is None


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_anywhere(name: str) -> None:
    for length in range(3, len(FILES[name])):
        header = read_header(FILES[name][:length])
        assert header is None or min(header.width, header.height) >= 0


@given(st.sampled_from(sorted(FILES)), st.data())
def test_a_damaged_file_is_read_to_some_end(name: str, data: st.DataObject) -> None:
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings(action="error"):
        read_header(bytes(content))


def test_a_size_is_read_that_no_memory_holds() -> None:
    header = read_header(png(100_000, 90_000))
    assert header is not None
    assert (header.width, header.height) == (100_000, 90_000)
