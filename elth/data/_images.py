"""One image file: which are read, with what pixels, and why others are not.

This is decided here alone, for describing a folder, for reading it and for preparing a store:

* JPEG, PNG and WebP, whatever the suffix says; GIF with one frame. Grey, palettes and CMYK become
  RGB.
* The pixels are shown as they are stored. An EXIF orientation is not followed, as torchvision's
  ``ImageFolder``, and with it the usual training on ImageNet, does not follow it.
* Transparency is left out: the colours below it are shown, as Pillow's ``convert("RGB")`` does.
* Of an APNG the still picture is shown, of a JPEG of several pictures (MPO) the first.
* More than 8 bits a channel are refused, since a range that would make 8 of them is not known.
* Animations (GIF, WebP) are refused, since which of their frames is meant is not known.
* So is what would need an absurd amount of memory: by pixels, as Pillow does, or by its sides.
"""

from __future__ import annotations

import os
import re
import stat

import torch
from torch import Tensor

from elth.data._header import Header, read_header
from elth.errors import ElthError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""Endings of the files that count as images, in either case."""
MOST_PIXELS = 178_956_970
"""An image with more is refused: Pillow's limit for a decompression bomb."""
MOST_BYTES = 6 * MOST_PIXELS
"""A file that is larger is none of an image with so many pixels."""
MOST_RATIO = 1000
"""An image with a side so many times the other is refused: resizing the short one makes it huge."""

_FRAMES = "it is an animation of several frames: keep the one that is meant"


class Unfit(Exception):
    """A file cannot be shown as an image; the message is the reason, without its name."""


def shown(path: str) -> str:
    """A path as it can be printed anywhere, if its name is no UTF-8 or has unprintable letters."""
    if path.isprintable():
        return path
    known = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in known)


def read_bytes(path: str) -> bytes:
    """The content of an image file.

    Raises:
        Unfit: it cannot be read, or is no file.
    """
    try:
        # A pipe would be waited for, without O_NONBLOCK.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as f:
            found = os.fstat(f.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise Unfit("it is no regular file")
            if found.st_size > MOST_BYTES:
                raise Unfit(f"it has {found.st_size:,} bytes; at most {MOST_BYTES:,} are read")
            return f.read()
    except OSError as error:
        raise Unfit(str(error.strerror or error)) from error


def decode_bytes(data: bytes) -> tuple[Tensor, Header]:
    """Decode the content of an image file: (3, H, W) as uint8, and what its header says.

    Raises:
        Unfit: it is not one of the images that are read.
    """
    from torchvision.io import ImageReadMode, decode_image

    header = _admitted(data)
    try:
        image = decode_image(
            torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB
        )
    except (RuntimeError, ValueError) as error:
        raise Unfit(reason_of(error)) from error
    if image.dtype is not torch.uint8:
        raise Unfit("it has 16 bits a channel: make 8 of them, by the range that its values have")
    if image.dim() != 3:
        raise Unfit(_FRAMES)
    return image, header


def _admitted(data: bytes) -> Header:
    if not data:
        raise Unfit("the file is empty")
    header = read_header(data)
    if header is None:
        raise Unfit(f"it is no JPEG, PNG, WebP or GIF file: it begins with {data[:24]!r}")
    if header.animated:
        raise Unfit(_FRAMES)
    sides = header.width, header.height
    if header.width * header.height > MOST_PIXELS:
        raise Unfit(
            f"it has {header.width:,}x{header.height:,} pixels; at most {MOST_PIXELS:,} are read"
        )
    if max(sides) > MOST_RATIO * max(1, min(sides)):
        raise Unfit(
            f"it has {header.width:,}x{header.height:,} pixels; at most {MOST_RATIO:,} times the "
            "shorter side are read"
        )
    return header


def reason_of(error: Exception) -> str:
    """What torchvision says, without the line of its code that says it."""
    return re.sub(r"^.*\.cpp:\d+, ", "", str(error).partition("\n")[0])


def decode(path: str) -> Tensor:
    """Decode an image file to (3, H, W) as uint8; see the head of this file.

    Raises:
        ElthError: the file cannot be read, or is not one of the images that are.
    """
    try:
        return decode_bytes(read_bytes(path))[0]
    except Unfit as error:
        raise ElthError(
            f"cannot decode the image {shown(path)} ({error}); copy it again, or convert it to one "
            f"of {' '.join(SUFFIXES)}"
        ) from error
