"""Places of files as people give them, and writing: never half of a file."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from elth.errors import ElthError


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside the place, sync, then rename: a reader sees the old file or the new one.

    Raises:
        ElthError: the file cannot be written, with the system's reason.
    """
    with replacing(path) as file:
        try:
            file.write(data)
        except OSError as error:
            raise _unwritten(path, error) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of one when the block ends, as a whole; if it fails, none does.

    Raises:
        ElthError: it cannot be opened, synced or renamed, with the system's reason. What the block
            raises is passed on.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        try:
            file = beside.open("wb")
        except OSError as error:
            raise _unwritten(path, error) from error
        with file:
            yield file
            try:
                file.flush()
                os.fsync(file.fileno())
                beside.replace(path)
            except OSError as error:
                raise _unwritten(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # renamed, or never made
            beside.unlink()


def _unwritten(path: Path, error: OSError) -> ElthError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "; make room on that disk and do it again" if full else ""
    return ElthError(f"cannot write {path}: {error.strerror or error}{remedy}")


def expanded(place: str | Path) -> Path:
    """A path as a person gives it, where ``~`` and ``~NAME`` are home folders.

    A folder that is called so is given as ``./~``.

    Raises:
        ElthError: there is no such home folder.
    """
    found = Path(os.path.expanduser(place))  # pathlib takes ./~ for ~
    name = found.parts[0] if found.parts else ""
    if name.startswith("~") and str(place).startswith("~"):
        raise ElthError(
            f"cannot tell which folder {place} is: {name} is nobody's home here; give the whole "
            f"path, or ./{place} if it is called so"
        )
    return found


def cache_folder(name: str) -> Path:
    """Where something may be kept on this machine from run to run: ``~/.cache/elth/NAME``."""
    place = expanded(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return place / "elth" / name
