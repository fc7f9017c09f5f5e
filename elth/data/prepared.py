"""Prepared stores: an image folder made small once, packed, and read without being unpacked.

A store is a folder of shards and ``manifest.json``, which is written last: without it there is no
store, only one that is being made. A shard is a safetensors file with ``bytes``, the JPEG files of
its images one after the other, and columns of what is known of them (``_COLUMNS``; ``names`` and
``source_sha256`` of the files they were made from). Shards are mapped into memory: an image is
decoded from where it lies.

The shorter side of an image has at most ``short`` pixels, as resizing for a centre crop gives them
(``resized_to``). An image that is small enough is never enlarged; a JPEG file that is, is kept byte
for byte.
"""

from __future__ import annotations

import bisect
import fcntl
import hashlib
import itertools
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

from elth.data._header import JPEG, Trait
from elth.data._images import Unfit, decode_bytes, read_bytes, reason_of, shown
from elth.data._info import DatasetInfo
from elth.data._listing import Part, Tell, list_folder
from elth.data._looking import (
    ImagesError,
    Progress,
    processors,
    refuse_shared,
    tell_copies,
    tell_traits,
)
from elth.data._manifests import (
    PARTS,
    PREPARED,
    check_name,
    digest,
    folder_fingerprint,
    manifest_path,
    read_manifest,
)
from elth.data._stream import FolderDataset, resize, resized_to
from elth.errors import ElthError
from elth.files import expanded, write_atomic
from elth.tensors import write_tensors

__all__ = ["MANIFEST", "Shards", "load_prepared", "prepare"]

MANIFEST = "manifest.json"
"""The file in a store that makes it one."""
_SETTINGS = "preparation.json"
_LOCK = ".lock"
_PER_SHARD = 1024
_AHEAD = 2
_COLUMNS = {
    "offset": torch.int64,  # of the image's first byte in ``bytes``
    "length": torch.int64,  # in bytes
    "label": torch.int64,
    "height": torch.int32,
    "width": torch.int32,
    "source_size": torch.int64,  # bytes of the file that it was made from
}
_PLACE = ("offset", "length", "height", "width")
_REPAIR = "copy the store again, or give the command elth data prepare again that made it"


# Shards.


@dataclass(frozen=True, eq=False)
class _Shard:
    """What one file holds; ``bytes`` are read when they are needed."""

    path: Path
    tensors: Mapping[str, Tensor]
    sha256: str
    """What the file says of itself."""

    @staticmethod
    def open(path: Path) -> _Shard:
        """Map a shard and check that its columns fit each other and its bytes.

        Raises:
            ElthError: no such file, or not a whole shard.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {}).get("elth", "{}"))
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
            shard = _Shard(path, tensors, str(metadata["sha256"]))
            whole = metadata["kind"] == "shard" and shard._fits()
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ElthError(
                f"{path} is no whole shard of a prepared store ({error}); {_REPAIR}"
            ) from error
        if not whole:
            raise ElthError(
                f"{path} is no shard of a prepared store, or its index does not fit its bytes; "
                f"{_REPAIR}"
            )
        return shard

    def _fits(self) -> bool:
        columns = {name: self.tensors[name] for name in _COLUMNS}
        data, count = self.tensors["bytes"], len(columns["offset"])
        if not (
            count > 0
            and data.dim() == 1
            and data.dtype is torch.uint8
            and all(
                column.shape == (count,) and column.dtype is _COLUMNS[name]
                for name, column in columns.items()
            )
            and self.tensors["names"].dtype is torch.uint8
            and self.tensors["source_sha256"].shape == (count, 32)
        ):
            return False
        ends = columns["offset"] + columns["length"]
        return bool(
            (columns["offset"][0] == 0)
            & (columns["offset"][1:] == ends[:-1]).all()
            & ((columns["length"] > 0) & (columns["length"] <= len(data))).all()
            & (ends[-1] == len(data))
            & (columns["height"] > 0).all()
            & (columns["width"] > 0).all()
            & (columns["label"] >= 0).all()
        )

    def verify(self) -> bool:
        """Whether all bytes are those of the checksum. Reads the whole file."""
        return _checksum(self.tensors) == self.sha256

    def is_of(self, job: _Job) -> bool:
        """Whether it was made of these images of a folder: names, sizes of files and labels."""
        try:
            sizes = [os.stat(path).st_size for path in job.part.paths[job.start : job.stop]]
        except OSError:  # it is told of when it is to be read
            return False
        return (
            _unpack(self.tensors["names"]) == _names(job)
            and self.tensors["source_size"].tolist() == sizes
            and torch.equal(self.tensors["label"], job.part.labels[job.start : job.stop])
        )

    def lines(self) -> list[str]:
        """What a manifest of the original folder digests of these images."""
        tensors = self.tensors
        return [
            f"{name}\t{size}\t{bytes(sha).hex()}"
            for name, size, sha in zip(
                _unpack(tensors["names"]),
                tensors["source_size"].tolist(),
                tensors["source_sha256"].tolist(),
                strict=True,
            )
        ]


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _pack(names: Sequence[str]) -> Tensor:
    joined = "\0".join(names).encode(errors="surrogateescape")
    return torch.frombuffer(bytearray(joined), dtype=torch.uint8)


def _unpack(names: Tensor) -> list[str]:
    return names.numpy().tobytes().decode(errors="surrogateescape").split("\0")


def _names(job: _Job) -> list[str]:
    return [job.part.name(number) for number in range(job.start, job.stop)]


# Reading.


class Shards:
    """The images of one part of a prepared store."""

    def __init__(self, shards: Sequence[_Shard]) -> None:
        """Keep the index in memory; the bytes stay where they are."""
        self._shards = shards
        self._bytes = [shard.tensors["bytes"] for shard in shards]
        counts = [len(shard.tensors["label"]) for shard in shards]
        self._firsts = [0, *itertools.accumulate(counts)]
        self.labels = torch.cat([shard.tensors["label"] for shard in shards])
        places = [
            torch.stack([shard.tensors[name].to(torch.int64) for name in _PLACE], 1)
            for shard in shards
        ]
        self._places = torch.cat(places)

    def decode(self, index: int) -> Tensor:
        """Decode image ``index`` to (3, H, W) as uint8.

        Raises:
            ElthError: its bytes are damaged.
        """
        number = bisect.bisect_right(self._firsts, index) - 1
        offset, length, *size = self._places[index].tolist()
        data = self._bytes[number][offset : offset + length]
        try:
            image: Tensor = decode_jpeg(data, mode=ImageReadMode.RGB)
        except RuntimeError as error:
            raise self._damaged(index, reason_of(error)) from error
        if list(image.shape[1:]) != size:
            reason = "it is {}x{}, the index says {}x{}".format(*image.shape[1:], *size)
            raise self._damaged(index, reason)
        return image

    def _damaged(self, index: int, reason: str) -> ElthError:
        return ElthError(f"cannot decode the image {self.where(index)} ({reason}); {_REPAIR}")

    def where(self, index: int) -> str:
        """Image ``index`` for a message: its first name, and its shard."""
        number = bisect.bisect_right(self._firsts, index) - 1
        shard = self._shards[number]
        name = _unpack(shard.tensors["names"])[index - self._firsts[number]]
        return f"{shown(name)} in {shard.path}"


def load_prepared(info: DatasetInfo, root: Path, *, full: bool) -> FolderDataset:
    """Open a store and compare names and sizes of its files, or all bytes, with its manifest.

    Raises:
        ElthError: it is not there, or is another one, with the first difference.
    """
    path = manifest_path(info)
    manifest = read_manifest(path)
    places = [root / info.known_as, path.parent / info.known_as, path.parent]
    folder = next((place for place in places if (place / MANIFEST).is_file()), None)
    if folder is None:
        raise ElthError(
            f"the prepared dataset {info.known_as} is not in {root} and not beside its manifest "
            f"{path}; {info.how_to_get}"
        )
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        parts = {}
        for part, one in manifest["parts"].items():
            shards = list(pool.map(lambda entry: _compared(folder, entry, full), one["shards"]))
            parts[part] = Shards(shards)
            top = int(parts[part].labels.max())
            if top >= len(manifest["classes"]) or len(parts[part].labels) != one["images"]:
                raise ElthError(
                    f"part {part} of {folder} has {len(parts[part].labels):,} images of at least "
                    f"{top + 1:,} classes, its manifest says {one['images']:,} of "
                    f"{len(manifest['classes']):,}; {_REPAIR}"
                )
    return FolderDataset(info, parts["train"], parts["val"])


def _compared(folder: Path, entry: Mapping[str, Any], full: bool) -> _Shard:
    """A shard that is the one of the manifest."""
    path = folder / entry["file"]
    if not path.is_file():
        raise ElthError(f"the shard {path} is missing; {_REPAIR}")
    found = path.stat().st_size
    if found != entry["bytes"]:
        raise ElthError(
            f"the shard {path} has {found:,} bytes, expected {entry['bytes']:,}; {_REPAIR}"
        )
    shard = _Shard.open(path)
    if shard.sha256 != entry["sha256"] or len(shard.tensors["label"]) != entry["images"]:
        raise ElthError(f"{path} is another shard than its manifest says; {_REPAIR}")
    if full and not shard.verify():
        raise ElthError(f"the bytes of the shard {path} are not those of its checksum; {_REPAIR}")
    return shard


# Making.


def prepare(
    source: str | Path,
    destination: str | Path,
    *,
    name: str | None = None,
    short: int = 256,
    quality: int = 95,
    allow_shared: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Make a store of an image folder, or go on making it; the same call makes the same bytes.

    A shard that is finished is verified and kept. Once all are, the manifest is written; if an
    image cannot be read, or is in both parts, it is not. Which images are read is what
    ``make_manifest`` reads.

    Args:
        source: holds ``train/CLASS/*`` and ``val/CLASS/*``.
        destination: the folder of the store; made if it is not there.
        name: what the dataset is called; the destination's name when None.
        short: pixels of the shorter side of an image, at most.
        quality: of the JPEG files, 1 to 100.
        allow_shared: whether images of ``val`` may be in ``train`` too, byte for byte.
        threads: how many images are worked on at a time; as many as there are processors when None.
        progress: is told of every image that is done.
        tell: is told, in lines, what is left out and which images are shown in an unusual way.

    Returns:
        The manifest: ``name``, ``classes``, ``preprocessing``, the fingerprint that ``source`` has
        as a dataset and, for each part, its number of images and its shards (file, bytes, images
        and checksum).

    Raises:
        ImagesError: images that cannot be read, or that are in both parts.
        ElthError: another folder or other settings than those it was begun with, something else in
            the destination, or another process at work there.
    """
    source, destination = expanded(source), expanded(destination)
    preprocessing = _preprocessing(short, quality)
    settings = {
        "format": PREPARED,
        "name": check_name(destination.absolute().name if name is None else name),
        "preprocessing": preprocessing,
    }
    parts = list_folder(source, tell)
    jobs = [
        _Job(destination / f"{name}-{number:05d}.safetensors", name, part, start, stop)
        for name, part in parts.items()
        for number, (start, stop) in enumerate(_cuts(len(part.paths)))
    ]
    with _claimed(destination, settings):
        done = _Count(sum(len(part.paths) for part in parts.values()), progress)
        traits = {name: np.zeros(len(part.paths), np.uint8) for name, part in parts.items()}
        shards, bad = _make_all(jobs, preprocessing, threads, done, traits)
        if bad:
            raise ImagesError(
                f"{len(bad):,} of {done.total:,} images cannot be read",
                bad,
                "Repair or remove them and give the same command again: what is finished is kept",
            )
        made = list(zip(jobs, shards, strict=True))
        sha256 = {name: _source_sha256(made, name) for name in parts}
        # What is published already stays so.
        if not allow_shared and not (destination / MANIFEST).is_file():
            refuse_shared(parts, sha256)
        if tell is not None:
            tell_traits(parts, traits, tell)
            tell_copies(parts, sha256, tell)
        return _publish(destination, parts["train"].classes, settings, made)


def _source_sha256(made: Sequence[tuple[_Job, _Shard]], name: str) -> npt.NDArray[np.uint8]:
    """Checksums of the files that a part was made from (N, 32)."""
    mine = [shard.tensors["source_sha256"] for job, shard in made if job.name == name]
    return torch.cat(mine).numpy()


def _cuts(count: int) -> list[tuple[int, int]]:
    return [(start, min(start + _PER_SHARD, count)) for start in range(0, count, _PER_SHARD)]


def _preprocessing(short: int, quality: int) -> dict[str, int]:
    if short < 1:
        raise ElthError(f"the shorter side must have at least 1 pixel, not {short}")
    if not 1 <= quality <= 100:
        raise ElthError(f"the quality of a JPEG file is 1 to 100, not {quality}")
    return {"short": short, "quality": quality}


@contextmanager
def _claimed(destination: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Hold a destination that is new, or that was begun with these settings."""
    noted = destination / _SETTINGS
    if destination.exists() and not noted.is_file():
        others = [path.name for path in destination.iterdir() if not path.name.startswith(".")]
        if others:
            raise ElthError(
                f"{destination} is no prepared store and not empty (it holds {min(others)}); give "
                "a folder that is not there yet"
            )
    try:
        destination.mkdir(parents=True, exist_ok=True)
        lock = (destination / _LOCK).open("wb")
    except OSError as error:
        raise ElthError(f"cannot write into {destination}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ElthError(
                f"another process is preparing {destination}; wait for it, or give another folder"
            ) from None
        for left in destination.glob(".*.tmp"):  # of a process that was killed as it wrote
            left.unlink()
        text = json.dumps(settings, indent=1) + "\n"
        if not noted.is_file():
            write_atomic(noted, text.encode())
        elif (found := noted.read_text(encoding="utf-8")) != text:
            raise ElthError(
                f"{destination} was begun with other settings: {_told(found)}, now "
                f"{_told(text)}; give the same ones, or another folder"
            )
        yield


def _told(text: str) -> str:
    try:
        settings = json.loads(text)
        told = {"name": settings["name"], **settings["preprocessing"]}
    except (ValueError, KeyError, TypeError):
        return "a file that cannot be read"
    return ", ".join(f"{key} {value}" for key, value in told.items())


class _Count:
    """Counts images, for whoever shows it."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self._done, self._progress = total, 0, progress

    def add(self, images: int) -> None:
        self._done += images
        if self._progress is not None:
            self._progress(self._done, self.total)


@dataclass(frozen=True)
class _Image:
    """An image on its way into a shard."""

    data: Tensor
    height: int
    width: int
    source_sha256: bytes
    source_size: int
    traits: Trait


@dataclass(frozen=True)
class _Job:
    """A shard that is to be: the images from ``start`` on and before ``stop`` of a part."""

    path: Path
    name: str
    part: Part
    start: int
    stop: int


_Traits = Mapping[str, npt.NDArray[np.uint8]]
"""``Trait`` of the images of each part (N,), filled in as they are converted."""


def _make_all(
    jobs: Sequence[_Job],
    preprocessing: Mapping[str, int],
    threads: int | None,
    done: _Count,
    traits: _Traits,
) -> tuple[list[_Shard], list[str]]:
    """Verify or make every shard: the shards, and what is wrong with which images."""
    pool = ThreadPoolExecutor(threads or processors(), "prepare")
    try:
        kept = []
        for job, shard in zip(jobs, pool.map(_kept, jobs), strict=True):
            kept.append(shard)
            if shard is not None:
                done.add(job.stop - job.start)
        missing = (job for job, shard in zip(jobs, kept, strict=True) if shard is None)
        bad: list[str] = []
        made = _made(missing, pool, preprocessing, bad, done, traits)
        shards = [shard or next(made) for shard in kept]
        return [shard for shard in shards if shard], bad
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _kept(job: _Job) -> _Shard | None:
    """The shard if it is there, whole, and made of these images."""
    if not job.path.is_file():
        return None
    try:
        shard = _Shard.open(job.path)
    except ElthError:
        return None
    if not shard.verify():
        return None
    if shard.is_of(job):
        return shard
    if (manifest := job.path.with_name(MANIFEST)).is_file():
        raise ElthError(
            f"{manifest.parent} is finished and was made of another source: images of "
            f"{job.part.root} changed since. Give another folder"
        )
    return None


def _made(
    jobs: Iterator[_Job],
    pool: ThreadPoolExecutor,
    preprocessing: Mapping[str, int],
    bad: list[str],
    done: _Count,
    traits: _Traits,
) -> Iterator[_Shard | None]:
    """Make shards in their order, each while the images of the next ones are converted.

    One that has a bad image is not written; the images are added to ``bad``.
    """
    waiting: deque[tuple[_Job, list[Future[_Image]]]] = deque()
    while True:
        while len(waiting) <= _AHEAD and (job := next(jobs, None)) is not None:
            paths = job.part.paths[job.start : job.stop]
            waiting.append((job, [pool.submit(_convert, path, **preprocessing) for path in paths]))
        if not waiting:
            return
        job, futures = waiting.popleft()
        images, before = [], len(bad)
        for number, future in enumerate(futures, job.start):
            try:
                images.append(image := future.result())
                traits[job.name][number] = image.traits
            except Unfit as error:
                bad.append(f"{job.part.where(number)} ({error})")
            done.add(1)
        yield _write(job, images) if len(bad) == before else None


def _convert(path: str, *, short: int, quality: int) -> _Image:
    """Decode a file, make it small and encode it.

    Raises:
        Unfit: it cannot be read.
    """
    source = read_bytes(path)
    image, header = decode_bytes(source)
    height, width = image.shape[1:]
    try:
        if min(height, width) > short:
            height, width = resized_to(height, width, short)
            data = encode_jpeg(resize(image, height, width), quality=quality)
        elif source.startswith(JPEG):
            data = torch.frombuffer(bytearray(source), dtype=torch.uint8)
        else:
            data = encode_jpeg(image, quality=quality)
    except RuntimeError as error:
        raise Unfit(reason_of(error)) from error
    sha256 = hashlib.sha256(source).digest()
    return _Image(data, height, width, sha256, len(source), header.traits)


def _write(job: _Job, images: Sequence[_Image]) -> _Shard:
    """Write a shard and open it."""
    lengths = torch.tensor([len(image.data) for image in images])
    tensors = {
        "bytes": torch.cat([image.data for image in images]),
        "offset": lengths.cumsum(0) - lengths,
        "length": lengths,
        "label": job.part.labels[job.start : job.stop].clone(),
        "height": torch.tensor([image.height for image in images], dtype=torch.int32),
        "width": torch.tensor([image.width for image in images], dtype=torch.int32),
        "source_size": torch.tensor([image.source_size for image in images]),
        "source_sha256": torch.tensor(
            [list(image.source_sha256) for image in images], dtype=torch.uint8
        ),
        "names": _pack(_names(job)),
    }
    write_tensors(job.path, tensors, {"kind": "shard", "sha256": _checksum(tensors)})
    return _Shard.open(job.path)


def _publish(
    destination: Path,
    classes: Sequence[str],
    settings: Mapping[str, Any],
    made: Sequence[tuple[_Job, _Shard]],
) -> dict[str, Any]:
    """Write the manifest of a store that is whole."""
    parts: dict[str, Any] = {}
    sources = {}
    for part in PARTS:
        mine = [(job, shard) for job, shard in made if job.name == part]
        images = sum(job.stop - job.start for job, _ in mine)
        parts[part] = {
            "images": images,
            "shards": [
                {
                    "file": job.path.name,
                    "bytes": job.path.stat().st_size,
                    "images": job.stop - job.start,
                    "sha256": shard.sha256,
                }
                for job, shard in mine
            ],
        }
        lines = itertools.chain.from_iterable(shard.lines() for _, shard in mine)
        sources[part] = (images, digest(lines))
    manifest = {
        **settings,
        "classes": list(classes),
        "source": {"fingerprint": folder_fingerprint(classes, sources)},
        "parts": parts,
    }
    path, data = destination / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode()
    if path.is_file() and path.read_bytes() != data:
        raise ElthError(
            f"shards of {destination} were made again and are not those of its manifest: another "
            "version of torchvision made it, or the manifest was changed. Remove the folder and "
            "make it anew"
        )
    for other in destination.glob("*.safetensors"):  # of a source that had more images
        if all(job.path != other for job, _ in made):
            other.unlink()
    if not path.is_file():
        write_atomic(path, data)
    return manifest
