"""Image files of all sorts, for the tests of folders: Pillow writes them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

WIDTH, HEIGHT = 40, 24


def picture(seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Any:
    """A smooth picture, another one for every seed; its right and left differ, and top and bottom.

    That of a mode with transparency is transparent in places.
    """
    width, height = size
    rows = [
        bytes([(5 * x + 37 * seed) % 256, 9 * y % 256, (3 * x + 2 * y + 11 * seed) % 256])
        for y in range(height)
        for x in range(width)
    ]
    found = Image.frombytes("RGB", size, b"".join(rows))
    if mode == "P":
        return found.quantize(64)
    found = found.convert(mode)
    if mode in ("LA", "RGBA"):
        found.putalpha(Image.frombytes("L", size, bytes(n % 256 for n in range(width * height))))
    return found


def encoded(picture: Any, kind: str, **options: Any) -> bytes:
    """The bytes of a file of this kind."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def jpeg(seed: int = 0, **options: Any) -> bytes:
    """A JPEG file, another one for every seed."""
    return encoded(picture(seed), "JPEG", quality=95, **options)


def turned(kind: str, orientation: int = 6, seed: int = 0) -> bytes:
    """A file with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x10F] = "a camera"  # an entry before it
    exif[0x112] = orientation
    return encoded(picture(seed), kind, exif=exif)


def animation(kind: str) -> bytes:
    """A file of three pictures."""
    return encoded(picture(1), kind, save_all=True, append_images=[picture(2), picture(3)])


def png(width: int, height: int, *, bits: int = 8, colour: int = 2, pixels: bytes = b"") -> bytes:
    """A PNG file, chunk by chunk."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def deep_png(colour: int = 0) -> bytes:
    """A PNG file of 16 bits a channel."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    row = b"\0" + bytes(range(2 * channels * 5))
    return png(5, 3, bits=16, colour=colour, pixels=row * 3)


def folder(root: Path, files: Mapping[str, bytes] | None = None) -> Path:
    """``root/{train,val}/{ant,bee}`` with 3 and 2 JPEG files each, and other files beside."""
    seed = 0
    for part, count in (("train", 3), ("val", 2)):
        for name in ("ant", "bee"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                seed += 1
                (root / part / name / f"{number}.jpg").write_bytes(jpeg(seed))
    for path, content in (files or {}).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root
