"""Where checkpoints of trainings in progress lie: a directory, or an object store by its address.

In a directory a file is written beside its place, synced and renamed. An object store has no
rename: there a file has a name that no other writer takes, and a small *marker* after it, of its
size, says that it is whole; a file without its marker is not looked at.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from elth.errors import ElthError
from elth.files import expanded
from orchestrator.store.address import Store

if TYPE_CHECKING:
    from pyarrow import fs

BAD = ".bad"
"""What is set aside is called so."""
_MARKER = ".whole.json"
_COPY = 2**20


class Storage(Protocol):
    """A place with folders, and files in them."""

    is_local: bool
    """Whether it is a directory of this machine, which another may not see."""

    def folders(self) -> list[str]:
        """The names of all folders."""

    def names(self, folder: str) -> list[str]:
        """The names of the whole files in a folder."""

    def write(self, folder: str, name: str, save: Callable[[Path], None]) -> None:
        """Have ``save`` write a file, which is then there as a whole or not at all.

        Raises:
            OSError, ElthError: it cannot be written.
        """

    def read(self, folder: str, name: str) -> contextlib.AbstractContextManager[Path]:
        """A file, as one on this machine.

        Raises:
            OSError: it cannot be read.
        """

    def set_aside(self, folder: str, name: str) -> None:
        """Give a file another name, under which it is not looked at."""

    def remove(self, folder: str, name: str) -> None:
        """Remove a file, if it is there."""

    def clear(self, folder: str) -> None:
        """Remove a folder with everything in it, if it is there."""

    def about(self, folder: str) -> tuple[int, float | None]:
        """Bytes of all files in a folder, and when the last was written, in seconds since 1970."""

    def check(self) -> None:
        """Write, read and remove a file.

        Raises:
            ElthError: one of that is not possible, with the reason.
        """


def of(place: str | Path | Storage) -> Storage:
    """The storage at a path or an address, as ``s3://BUCKET/PATH`` or ``gs://BUCKET/PATH``.

    Raises:
        ElthError: the address is of a kind that is not known.
    """
    if not isinstance(place, str | Path):
        return place
    text = str(place)
    if text.startswith("file:"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise ElthError(f"the storage {text} names a machine: give a directory as this one's")
        text = unquote(parts.path)
    if not re.match(r"^[a-z][a-z0-9+.-]+://", text):
        return Directory(expanded(text).absolute())
    if "@" in text.split("://")[1].split("/")[0]:
        raise ElthError(
            "the address of the storage holds credentials, which logs would show: give them by "
            "the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what your store has)"
        )
    from pyarrow import ArrowInvalid, fs

    try:
        system, path = fs.FileSystem.from_uri(text)
    except (ArrowInvalid, OSError) as error:
        first = str(error).splitlines()[0]
        raise ElthError(
            f"cannot use the storage {text}: {first}; give a directory, s3://BUCKET/PATH or "
            "gs://BUCKET/PATH"
        ) from error
    return ObjectStore(system, path.rstrip("/"), text)


def place(given: str | None, store: Store) -> str:
    """The path or address that was given (``resources.storage``), else one beside the store."""
    if given is None:
        return str(store.inflight)
    return str(of(given))


@dataclass(frozen=True)
class Directory:
    """A directory."""

    path: Path
    is_local = True

    def __str__(self) -> str:
        return str(self.path)

    def folders(self) -> list[str]:
        """The names of all folders."""
        return sorted(path.name for path in self.path.glob("*") if path.is_dir())

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder; those being written begin with a dot."""
        place = self.path / folder
        return sorted(path.name for path in place.glob("*") if not path.name.startswith("."))

    def write(self, folder: str, name: str, save: Callable[[Path], None]) -> None:
        """Have ``save`` write a file; it writes beside the place and renames."""
        (self.path / folder).mkdir(parents=True, exist_ok=True)
        save(self.path / folder / name)

    @contextlib.contextmanager
    def read(self, folder: str, name: str) -> Iterator[Path]:
        """The file itself."""
        yield self.path / folder / name

    def set_aside(self, folder: str, name: str) -> None:
        """Rename a file."""
        path = self.path / folder / name
        with contextlib.suppress(OSError):
            path.rename(path.with_suffix(BAD))

    def remove(self, folder: str, name: str) -> None:
        """Remove a file, if it is there."""
        (self.path / folder / name).unlink(missing_ok=True)

    def clear(self, folder: str) -> None:
        """Remove a folder, if it is there."""
        shutil.rmtree(self.path / folder, ignore_errors=True)

    def about(self, folder: str) -> tuple[int, float | None]:
        """Bytes and the last time of writing, also of files that are set aside or half written."""
        found = []
        for path in (self.path / folder).rglob("*"):
            with contextlib.suppress(OSError):  # gone meanwhile
                found.append(path.stat())
        times = [one.st_mtime for one in found]
        return sum(one.st_size for one in found if stat.S_ISREG(one.st_mode)), max(times, default=0)

    def check(self) -> None:
        """Write and remove a file."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ElthError(
                f"cannot write the storage {self}: {error.strerror}; give another by --storage or "
                "resources.storage"
            ) from error


@dataclass(frozen=True)
class ObjectStore:
    """A file system of pyarrow, of which no more is asked than of an object store."""

    system: fs.FileSystem
    path: str
    address: str
    is_local = False

    def __str__(self) -> str:
        return self.address

    def folders(self) -> list[str]:
        """The names of all folders."""
        return sorted({path.split("/")[0] for path in self._files("") if "/" in path})

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder that have their marker."""
        found = set(self._files(folder))
        names = {name for name in found if not name.endswith(_MARKER)}
        return sorted(name for name in names if name + _MARKER in found or name.endswith(BAD))

    def write(self, folder: str, name: str, save: Callable[[Path], None]) -> None:
        """Have ``save`` write a file here, send it, and then its marker."""
        with tempfile.TemporaryDirectory(prefix="elth-") as here:
            path = Path(here) / name
            save(path)
            self.system.create_dir(f"{self.path}/{folder}", recursive=True)
            self._send(path, f"{folder}/{name}")
            marker = Path(here) / "marker"
            marker.write_text(json.dumps({"bytes": path.stat().st_size}), "utf-8")
            self._send(marker, f"{folder}/{name}{_MARKER}")

    @contextlib.contextmanager
    def read(self, folder: str, name: str) -> Iterator[Path]:
        """A copy, until the block ends."""
        with tempfile.TemporaryDirectory(prefix="elth-") as here:
            path = Path(here) / name
            self._fetch(f"{folder}/{name}", path)
            yield path

    def set_aside(self, folder: str, name: str) -> None:
        """Copy a file to its other name, and remove it."""
        with contextlib.suppress(OSError), tempfile.TemporaryDirectory(prefix="elth-") as here:
            self._fetch(f"{folder}/{name}", Path(here) / name)
            self._send(Path(here) / name, f"{folder}/{Path(name).with_suffix(BAD)}")
        self.remove(folder, name)

    def remove(self, folder: str, name: str) -> None:
        """Remove a file, its marker first."""
        for one in (name + _MARKER, name):
            with contextlib.suppress(OSError):
                self.system.delete_file(f"{self.path}/{folder}/{one}")

    def clear(self, folder: str) -> None:
        """Remove a folder, if it is there."""
        with contextlib.suppress(OSError):
            self.system.delete_dir(f"{self.path}/{folder}")

    def about(self, folder: str) -> tuple[int, float | None]:
        """Bytes and the last time of writing, if the store tells that."""
        names = [f"{self.path}/{folder}/{name}" for name in self._files(folder)]
        found = self.system.get_file_info(names) if names else []
        times = [one.mtime.timestamp() for one in found if one.mtime is not None]
        return sum(one.size or 0 for one in found), max(times, default=None)

    def check(self) -> None:
        """Write, read and remove a file."""
        folder, name = "check", uuid.uuid4().hex
        try:
            self.write(folder, name, _touch)
            with self.read(folder, name) as path:
                path.read_bytes()
            self.remove(folder, name)
        except OSError as error:
            first = str(error).splitlines()[0]
            raise ElthError(
                f"cannot use the storage {self}: {first}; are its address and credentials right?"
            ) from error

    def _files(self, folder: str) -> list[str]:
        from pyarrow import fs

        base = f"{self.path}/{folder}" if folder else self.path
        chosen = fs.FileSelector(base, recursive=True, allow_not_found=True)
        found = self.system.get_file_info(chosen)
        return [
            one.path.removeprefix(base).lstrip("/") for one in found if one.type == fs.FileType.File
        ]

    def _send(self, path: Path, name: str) -> None:
        with path.open("rb") as source:
            sink: Any = self.system.open_output_stream(f"{self.path}/{name}")
            with sink:
                shutil.copyfileobj(source, sink, _COPY)

    def _fetch(self, name: str, path: Path) -> None:
        source: Any = self.system.open_input_stream(f"{self.path}/{name}")
        with source, path.open("wb") as target:
            shutil.copyfileobj(source, target, _COPY)


def _touch(path: Path) -> None:
    path.write_bytes(b"elth")
