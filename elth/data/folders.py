"""Image folders in the layout of ImageNet: ``FOLDER/train/CLASS/*`` and ``FOLDER/val/CLASS/*``.

Which images a folder must hold is fixed by a manifest, a JSON file that is made once
(``make_manifest``); for ImageNet itself by its numbers of classes and images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elth.data._info import DatasetInfo
from elth.data._manifests import (
    FORMAT,
    PARTS,
    check_name,
    digest,
    manifest_path,
    read_manifest,
)
from elth.data._stream import FolderDataset, centre_crop
from elth.errors import ElthError
from elth.files import expanded, write_atomic

__all__ = [
    "FolderDataset",
    "Part",
    "centre_crop",
    "decode",
    "list_part",
    "load_counted",
    "load_described",
    "make_manifest",
    "read_manifest",
]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""Endings of the files that count as images, in either case."""


# One image.


def decode(path: str) -> Tensor:
    """Decode an image file to (3, H, W) as uint8; grey and CMYK become RGB.

    Raises:
        ElthError: the file cannot be read.
    """
    from torchvision.io import ImageReadMode, decode_image

    try:
        return decode_image(path, mode=ImageReadMode.RGB)
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ElthError(
            f"cannot decode the image {path} ({reason}); copy it again, or convert it to one of "
            f"{' '.join(SUFFIXES)}"
        ) from error


# Listing.


@dataclass(frozen=True)
class Part:
    """The images of one part of a folder, by class and then by path."""

    root: Path
    classes: tuple[str, ...]
    paths: Sequence[str]
    labels: Tensor
    """Number of each image's class (N,), as int64 on the CPU."""

    def decode(self, index: int) -> Tensor:
        """Decode image ``index`` to (3, H, W) as uint8.

        Raises:
            ElthError: the file cannot be read.
        """
        return decode(self.paths[index])


def list_part(root: Path) -> Part:
    """List ``root/CLASS/*``.

    Raises:
        FileNotFoundError: there is no such folder, or a class without an image.
    """
    from torchvision.datasets import ImageFolder

    found: Any = ImageFolder(str(root), is_valid_file=lambda path: path.lower().endswith(SUFFIXES))
    return Part(
        root=root,
        classes=tuple(found.classes),
        paths=[path for path, _ in found.samples],
        labels=torch.tensor(found.targets, dtype=torch.int64),
    )


# Manifests.


def make_manifest(
    folder: str | Path, name: str, write_to: str | Path | None = None
) -> dict[str, Any]:
    """Describe a folder of images, so that others can be compared with it. Reads every file.

    Args:
        folder: holds ``train/CLASS/*`` and ``val/CLASS/*``.
        name: what the dataset is called from now on: letters, digits, ``_`` and ``-``.
        write_to: a JSON file to write.

    Returns:
        ``name``, ``classes`` (sorted) and, for each part, the number of images, one sha256 over
        the sorted (relative path, size, sha256 of the bytes) and, for each class, the number of
        images, their bytes, and digests of the names and sizes and of the content.

    Raises:
        ElthError: the folder has another layout, or the name another form.
    """
    check_name(name)
    parts = list_folder(expanded(folder))
    manifest = {
        "format": FORMAT,
        "name": name,
        "classes": list(parts["train"].classes),
        "parts": {part: _describe(one, full=True) for part, one in parts.items()},
    }
    if write_to is not None:
        write_atomic(expanded(write_to), (json.dumps(manifest, indent=1) + "\n").encode())
    return manifest


def list_folder(folder: Path) -> dict[str, Part]:
    """List the parts of a folder that is to become a dataset.

    Raises:
        ElthError: it has another layout, or its parts have different classes.
    """
    parts = _list(folder, f"the folder {folder}", "lay it out as train/CLASS/*, val/CLASS/*")
    for part, one in parts.items():
        _same_classes(f"part {part} of {folder}", one.classes, parts["train"].classes)
    return parts


def _list(folder: Path, what: str, advice: str) -> dict[str, Part]:
    try:
        return {part: list_part(folder / part) for part in PARTS}
    except OSError as error:
        raise ElthError(f"{what} cannot be listed ({error}); {advice}") from error


def _same_classes(what: str, found: Sequence[str], expected: Sequence[str]) -> None:
    for word, names in (
        ("lacks", sorted(set(expected) - set(found))),
        ("has", sorted(set(found) - set(expected))),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ElthError(
                f"{what} {word} the class {names[0]}{more}; {len(expected)} classes are expected"
            )


def _describe(part: Part, *, full: bool) -> dict[str, Any]:
    """What a manifest says of a part; without digests of the content unless ``full``."""
    paths = [Path(path) for path in part.paths]
    names = [path.relative_to(part.root).as_posix() for path in paths]
    sizes = [path.stat().st_size for path in paths]
    lines = [f"{name}\t{size}" for name, size in zip(names, sizes, strict=True)]
    by_class: list[list[int]] = [[] for _ in part.classes]
    for number, label in enumerate(part.labels.tolist()):
        by_class[label].append(number)
    classes: dict[str, dict[str, Any]] = {
        name: {
            "images": len(members),
            "bytes": sum(sizes[i] for i in members),
            "listing": digest(lines[i] for i in members)[:16],
        }
        for name, members in zip(part.classes, by_class, strict=True)
    }
    described: dict[str, Any] = {"images": len(paths), "classes": classes}
    if full:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            hashes = pool.map(_file_digest, paths)
            lines = [f"{line}\t{sha}" for line, sha in zip(lines, hashes, strict=True)]
        described["sha256"] = digest(lines)
        for members, entry in zip(by_class, classes.values(), strict=True):
            entry["content"] = digest(lines[i] for i in members)[:16]
    return described


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Folders that are compared with what is known of them.


def load_described(info: DatasetInfo, root: Path, *, full: bool) -> FolderDataset:
    """List a folder and compare names and sizes, or all bytes, with its manifest.

    Raises:
        ElthError: it is not there, or is another one, with the first difference.
    """
    path = manifest_path(info)
    manifest = read_manifest(path)
    places = [root / info.known_as, path.parent / info.known_as]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise ElthError(
            f"the dataset {info.known_as} is not in {root} and not beside its manifest {path}; "
            f"{info.how_to_get}"
        )
    parts = _list(folder, f"the dataset {info.known_as}", info.how_to_get)
    for part, one in parts.items():
        what = f"part {part} of {folder}"
        _same_classes(what, one.classes, manifest["classes"])
        _compare(what, _describe(one, full=full), manifest["parts"][part], info.known_as)
    return FolderDataset(info, parts["train"], parts["val"])


def _compare(what: str, found: Mapping[str, Any], expected: Mapping[str, Any], name: str) -> None:
    advice = f"copy the folder again, or make another manifest than that of {name}"
    for word, have in found["classes"].items():
        want = expected["classes"][word]
        if have["images"] != want["images"]:
            raise ElthError(
                f"{what} has {have['images']:,} images of the class {word}, expected "
                f"{want['images']:,}; {advice}"
            )
        if have["listing"] != want["listing"]:
            raise ElthError(
                f"{what} has files of other names or sizes in the class {word} ({have['bytes']:,} "
                f"bytes, expected {want['bytes']:,}); {advice}"
            )
        if have.get("content", want["content"]) != want["content"]:
            raise ElthError(f"{what} has a file of other content in the class {word}; {advice}")
    if found.get("sha256", expected["sha256"]) != expected["sha256"]:
        raise ElthError(f"{what} is not what its manifest says; {advice}")


def load_counted(info: DatasetInfo, root: Path) -> FolderDataset:
    """List a folder that is known by its numbers of classes and images, and count.

    Raises:
        ElthError: it is not there, or the numbers are others.
    """
    name = info.known_as or info.name
    folder = root / name
    parts = _list(folder, f"the dataset {name}", info.how_to_get)
    for part, images in zip(PARTS, (info.train_size, info.test_size), strict=True):
        one = parts[part]
        for count, expected, word in (
            (len(one.classes), info.shape.classes, "classes"),
            (len(one.paths), images, "images"),
        ):
            if count != expected:
                raise ElthError(
                    f"part {part} of {folder} has {count:,} {word}, expected {expected:,}; "
                    f"{info.how_to_get}"
                )
    _same_classes(f"part val of {folder}", parts["val"].classes, parts["train"].classes)
    return FolderDataset(info, parts["train"], parts["val"])
