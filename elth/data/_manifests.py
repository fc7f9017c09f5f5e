"""What an image folder or a prepared store is known by: its manifest, a JSON file."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from elth.data._info import DatasetInfo
from elth.errors import ElthError
from elth.files import expanded
from elth.specs import Spec

PARTS = ("train", "val")
"""The two parts of an image folder."""
FORMAT = 1
"""The format of manifests of folders."""
PREPARED = 2
"""The format of manifests of prepared stores."""


def check_name(name: str) -> str:
    """Return the name of a dataset that is made of a folder.

    Raises:
        ElthError: it has another form.
    """
    if re.fullmatch(r"[A-Za-z][\w-]*", name) is None:
        raise ElthError(
            f"a dataset cannot be called '{name}': write letters, digits, _ and -, letter first"
        )
    return name


def digest(lines: Iterable[str]) -> str:
    """sha256 over the sorted lines."""
    text = "".join(f"{line}\n" for line in sorted(lines))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def folder_fingerprint(classes: Sequence[str], parts: Mapping[str, tuple[int, str]]) -> str:
    """What an image folder is known by: its classes and, of each part, images and sha256."""
    return digest(
        [
            f"{FORMAT}",
            *(f"{number}\t{name}" for number, name in enumerate(classes)),
            *(f"{part}\t{images}\t{sha256}" for part, (images, sha256) in parts.items()),
        ]
    )


def _prepared_fingerprint(manifest: Mapping[str, Any]) -> str:
    """What a prepared store is known by: preprocessing, classes and the checksums of its shards."""
    return digest(
        [
            f"prepared {PREPARED}",
            json.dumps(manifest["preprocessing"], sort_keys=True),
            *(f"{number}\t{name}" for number, name in enumerate(manifest["classes"])),
            *(
                f"{part}\t{number}\t{shard['images']}\t{shard['sha256']}"
                for part in PARTS
                for number, shard in enumerate(manifest["parts"][part]["shards"])
            ),
        ]
    )


def _is_prepared(manifest: Mapping[str, Any]) -> bool:
    """Whether the manifest of a store has the right form, and names no file outside it."""
    short, quality = (manifest["preprocessing"][key] for key in ("short", "quality"))
    shards = [(part, shard) for part in PARTS for shard in manifest["parts"][part]["shards"]]
    return (
        isinstance(short, int)
        and isinstance(quality, int)
        and {part for part, _ in shards} == set(PARTS)
        and all(
            re.fullmatch(rf"{part}-\d{{5,}}\.safetensors", shard["file"]) is not None
            and all(isinstance(shard[key], int) for key in ("bytes", "images"))
            and isinstance(shard["sha256"], str)
            for part, shard in shards
        )
        and all(
            one["images"] == sum(shard["images"] for shard in one["shards"])
            for one in (manifest["parts"][part] for part in PARTS)
        )
    )


@functools.lru_cache(maxsize=16)
def _read_manifest(path: Path, state: tuple[int, ...]) -> dict[str, Any]:
    """A manifest and its fingerprint; ``state`` tells one file of this path from the next."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        described = {part: manifest["parts"][part] for part in PARTS}
        if manifest["format"] == PREPARED:
            whole = _is_prepared(manifest)
            manifest["fingerprint"] = _prepared_fingerprint(manifest)
        else:
            whole = manifest["format"] == FORMAT and all(
                list(one["classes"]) == manifest["classes"] for one in described.values()
            )
            manifest["fingerprint"] = folder_fingerprint(
                manifest["classes"],
                {part: (one["images"], one["sha256"]) for part, one in described.items()},
            )
        check_name(manifest["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ElthError(_no_manifest(path, f"{type(error).__name__}: {error}")) from error
    if not whole:
        raise ElthError(_no_manifest(path, "it has another format"))
    return manifest


def _no_manifest(path: Path, reason: str) -> str:
    return (
        f"{path} is no manifest of an image folder ({reason}); make one by elth "
        "data manifest FOLDER, and name it from the current directory on, or by its whole path"
    )


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read a file of ``make_manifest``; a ``fingerprint`` is added.

    Raises:
        ElthError: no such file, or one of another format.
    """
    path = expanded(path).absolute()
    try:
        found = path.stat()
    except OSError as error:
        raise ElthError(_no_manifest(path, str(error.strerror))) from error
    # A file that is copied with its times is known by the time of the change itself.
    state = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return _read_manifest(path, state)


def manifest_path(info: DatasetInfo) -> Path:
    """The manifest of a described folder or store."""
    return expanded(str(dict(Spec.parse(info.name).options)["manifest"]))
