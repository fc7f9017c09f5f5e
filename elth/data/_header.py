"""What the header of an image file says of it; its pixels are not touched.

PNG: https://www.w3.org/TR/png-3. WebP: https://developers.google.com/speed/webp/docs/riff_container.
JPEG: ITU-T T.81 (markers), CIPA DC-008 (EXIF) and DC-007 (several pictures in a file).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass

JPEG = b"\xff\xd8\xff"
"""The first bytes of a JPEG file."""


class Trait(enum.IntFlag):
    """What an image has that is not shown."""

    NONE = 0
    TURNED = 1
    """An EXIF orientation that turns or mirrors it."""
    TRANSPARENT = 2
    """A channel or a colour of transparency."""
    OTHERS = 4
    """Other pictures in its file, beside the still one: an APNG, or a JPEG of several pictures."""


@dataclass(frozen=True)
class Header:
    """Of a file that begins as an image."""

    width: int
    """In pixels; 0 where it is not found, as in a file that is cut off."""
    height: int
    traits: Trait = Trait.NONE
    animated: bool = False
    """A WebP animation, which has no still picture."""


def read_header(data: bytes) -> Header | None:
    """What the first bytes of a JPEG, PNG, WebP or GIF file say; None of any other."""
    try:
        if data.startswith(JPEG):
            return _jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return Header(*struct.unpack_from("<HH", data, 6))
    except struct.error:  # cut off within the header
        return Header(0, 0)
    return None


_NOT_FRAMES = (0xC4, 0xC8, 0xCC)
"""Markers among those of frames that begin none: tables, and one that is reserved."""


def _jpeg(data: bytes) -> Header:
    place, traits = 2, Trait.NONE
    while True:
        place = data.find(b"\xff", place)  # decoders pass over what is no marker, too
        marker, length = struct.unpack_from(">BH", data, place + 1 if place > 0 else len(data))
        if marker in (0xD9, 0xDA):  # the end, or pixels
            return Header(0, 0, traits)
        if marker == 0xFF:  # filling
            place += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without content
            place += 2
        elif 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return Header(width, height, traits)
        else:
            if marker == 0xE1:
                traits |= _turned(data[place + 4 : place + 2 + length])
            elif marker == 0xE2 and data.startswith(b"MPF\0", place + 4):
                traits |= Trait.OTHERS
            place += 2 + length


def _png(data: bytes) -> Header:
    width, height, _, colour = struct.unpack_from(">IIBB", data, 16)
    traits = Trait.TRANSPARENT if colour in (4, 6) else Trait.NONE
    place = 8
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IDAT":
            break
        if kind == b"tRNS":
            traits |= Trait.TRANSPARENT
        elif kind == b"acTL":
            traits |= Trait.OTHERS
        elif kind == b"eXIf":
            traits |= _turned(data[place + 8 : place + 8 + length])
        place += 12 + length
    return Header(width, height, traits)


def _webp(data: bytes) -> Header:
    traits = Trait.NONE
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header(width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        if bits >> 28 & 1:
            traits |= Trait.TRANSPARENT
        return Header((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, traits)
    if kind != b"VP8X":
        return Header(0, 0)
    flags, *sides = struct.unpack_from("<B3xHBHB", data, 20)  # sides of 24 bits, less one
    width, height = (1 + low + (high << 16) for low, high in (sides[:2], sides[2:]))
    if flags & 0x10:
        traits |= Trait.TRANSPARENT
    if flags & 0x08:
        for name, body in _riff(data):
            if name == b"EXIF":
                traits |= _turned(body)
    return Header(width, height, traits, animated=bool(flags & 0x02))


def _riff(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a WebP file, by name."""
    place = 12
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        yield name, data[place + 8 : place + 8 + length]
        place += 8 + length + length % 2


def _turned(exif: bytes) -> Trait:
    """Whether an EXIF block asks for another orientation than the stored one (tag 0x112)."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return Trait.NONE
    try:
        (place,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, place)
        for number in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, place + 2 + 12 * number)
            if tag == 0x112:
                return Trait.TURNED if 2 <= value <= 8 else Trait.NONE
    except struct.error:  # a damaged block, which is of no weight for the pixels
        pass
    return Trait.NONE
