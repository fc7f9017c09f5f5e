"""Image folders in the layout of ImageNet: ``FOLDER/train/CLASS/*`` and ``FOLDER/val/CLASS/*``.

Which images a folder must hold is fixed by a manifest, a JSON file that is made once
(``make_manifest``), when every image is looked at; for ImageNet itself by its numbers of classes
and images.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from elth.data._images import decode, shown
from elth.data._info import DatasetInfo
from elth.data._listing import (
    Part,
    Tell,
    list_folder,
    list_part,
    list_parts,
    same_classes,
)
from elth.data._looking import (
    ImagesError,
    Progress,
    look,
    refuse_bad,
    refuse_shared,
    tell_copies,
    tell_traits,
)
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
    "ImagesError",
    "Part",
    "centre_crop",
    "decode",
    "list_part",
    "load_counted",
    "load_described",
    "make_manifest",
    "read_manifest",
]


# Manifests.


def make_manifest(
    folder: str | Path,
    name: str,
    write_to: str | Path | None = None,
    *,
    decode: bool = True,
    allow_shared: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Describe a folder of images, so that others can be compared with it. Reads every file.

    Args:
        folder: holds ``train/CLASS/*`` and ``val/CLASS/*``.
        name: what the dataset is called from now on: letters, digits, ``_`` and ``-``.
        write_to: a JSON file to write.
        decode: whether every image is decoded, so that none stops a training later.
        allow_shared: whether images of ``val`` may be in ``train`` too, byte for byte.
        threads: how many images are worked on at a time; as many as there are processors when None.
        progress: is told how many images are done.
        tell: is told, in lines, what is left out and which images are shown in an unusual way.

    Returns:
        ``name``, ``classes`` (sorted), whether the images were ``decoded`` and ``hidden`` ones are
        of it (False; they were in manifests that do not say), and, for each part, the number of
        images, one sha256 over the sorted (relative path, size, sha256 of the bytes) and, for each
        class, the number of images, their bytes, and digests of the names and sizes and of the
        content.

    Raises:
        ImagesError: images that cannot be read, or that are in both parts; nothing is written.
        ElthError: the folder has another layout or fewer than two classes, or the name another
            form.
    """
    check_name(name)
    place = None if write_to is None else expanded(write_to)
    if place is not None:
        _check_writable(place)
    parts = list_folder(expanded(folder), tell)
    looks = look(parts, decode=decode, threads=threads, progress=progress)
    refuse_bad(parts, looks, "Repair or remove them; nothing was written")
    sha256 = {part: one.sha256 for part, one in looks.items()}
    if not allow_shared:
        refuse_shared(parts, sha256)
    if tell is not None:
        tell_traits(parts, {part: one.traits for part, one in looks.items()}, tell)
        tell_copies(parts, sha256, tell)
    manifest = {
        "format": FORMAT,
        "name": name,
        "decoded": decode,
        "hidden": False,
        "classes": list(parts["train"].classes),
        "parts": {
            part: _describe(one, looks[part].sizes, sha256[part]) for part, one in parts.items()
        },
    }
    if place is not None:
        write_atomic(place, (json.dumps(manifest, indent=1) + "\n").encode())
    return manifest


def _check_writable(path: Path) -> None:
    """Refuse a place that cannot be written before an hour is spent on what is to be written."""
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK) or path.is_dir():
        raise ElthError(f"cannot write {path}: give a file in a folder that is there and writable")


def _describe(
    part: Part, sizes: npt.NDArray[np.int64], sha256: npt.NDArray[np.uint8] | None
) -> dict[str, Any]:
    """What a manifest says of a part; without digests of the content if ``sha256`` is None."""
    lines = [f"{part.name(number)}\t{size}" for number, size in enumerate(sizes.tolist())]
    ends = np.searchsorted(part.labels.numpy(), np.arange(len(part.classes) + 1)).tolist()
    members = [slice(start, end) for start, end in itertools.pairwise(ends)]
    classes: dict[str, dict[str, Any]] = {
        name: {
            "images": mine.stop - mine.start,
            "bytes": int(sizes[mine].sum()),
            "listing": digest(lines[mine])[:16],
        }
        for name, mine in zip(part.classes, members, strict=True)
    }
    described: dict[str, Any] = {"images": len(lines), "classes": classes}
    if sha256 is not None:
        for number, one in enumerate(sha256):
            lines[number] = f"{lines[number]}\t{one.tobytes().hex()}"
        described["sha256"] = digest(lines)
        for mine, entry in zip(members, classes.values(), strict=True):
            entry["content"] = digest(lines[mine])[:16]
    return described


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
    hidden = bool(manifest.get("hidden", True))
    parts = list_parts(folder, f"the dataset {info.known_as}", info.how_to_get, hidden=hidden)
    for part, one in parts.items():
        same_classes(f"part {part} of {folder}", one.classes, manifest["classes"])
    described = manifest["parts"]
    for part, one in parts.items():
        found = _describe(one, _sizes(one), None)
        _compare(f"part {part} of {folder}", found, described[part], info.known_as)
    if full:
        looks = look(parts, decode=False, threads=torch.get_num_threads())
        refuse_bad(parts, looks, f"Copy the folder of {info.known_as} again")
        for part, one in parts.items():
            found = _describe(one, looks[part].sizes, looks[part].sha256)
            _compare(f"part {part} of {folder}", found, described[part], info.known_as)
    return FolderDataset(info, parts["train"], parts["val"])


def _sizes(part: Part) -> npt.NDArray[np.int64]:
    """Bytes of each file (N,).

    Raises:
        ElthError: one is not there, as where a link leads nowhere.
    """
    sizes = np.zeros(len(part.paths), np.int64)
    for number, path in enumerate(part.paths):
        try:
            sizes[number] = os.stat(path).st_size
        except OSError as error:
            raise ElthError(
                f"cannot read the image {shown(path)} ({error.strerror}); copy it again"
            ) from error
    return sizes


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
    parts = list_parts(folder, f"the dataset {name}", info.how_to_get)
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
    same_classes(f"part val of {folder}", parts["val"].classes, parts["train"].classes)
    return FolderDataset(info, parts["train"], parts["val"])
