"""The file in which a grid is carried from one store to another: a tar of one form only.

::

    bundle.json                 the form's number and the grid's name
    grid/experiment.yaml        the resolved experiment
    grid/keys.json              the keys of all its stages, each with what it is in this grid
    grid/links.json             what each needs, if chains may end early
    grid/report/...             its last report
    stages/KEY/files/...        the files of the run of each finished stage
    stages/KEY/run.json         its parameters, tags, metrics of all epochs and times
    SHA256SUMS                  sha256 of each, for ``sha256sum --check`` as well

Members are sorted, and without times, owners and modes, so that one grid is one file whoever writes
it. Reading takes nothing else: whatever is not byte for byte as ``Writer`` writes it, padding
included, is refused with the member's name, and with it links, devices, sparse files, names that
lead out of a folder, and a second member of one name.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import hashlib
import io
import itertools
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from elth.errors import ElthError

FORMAT = 1
ABOUT = "bundle.json"
EXPERIMENT = "grid/experiment.yaml"
KEYS = "grid/keys.json"
LINKS = "grid/links.json"
REPORT = "grid/report/"
SUMS = "SHA256SUMS"

_CHUNK = 2**20
_LARGEST_TEXT = 2**28
"""Bytes of a member that is read into memory: the keys of a grid of a million stages."""
_TOLD = 5

T = TypeVar("T")


def files_at(key: str) -> str:
    """The folder of a stage's files."""
    return f"stages/{key}/files/"


def run_at(key: str) -> str:
    """The member with what the run of a stage says."""
    return f"stages/{key}/run.json"


def check_name(name: str) -> None:
    """Refuse a name that is none of a file below a folder.

    Raises:
        ElthError: with the name.
    """
    plain = PurePosixPath(name)
    if not name.isprintable() or str(plain) != name or plain.is_absolute() or ".." in plain.parts:
        raise ElthError(f"{name!a} is no name of a file in a bundle")


class Writer:
    """Writes a bundle to a file, member after member; nothing of them is kept in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)
        self._sums: list[tuple[str, str]] = []

    def text(self, name: str, content: bytes) -> None:
        """Add a member."""
        self.add(name, io.BytesIO(content), len(content))

    def add(self, name: str, source: BinaryIO, size: int) -> None:
        """Add a member from a file of so many bytes.

        Raises:
            ElthError: the name cannot be in a bundle, or does not follow the one before.
            OSError: the file has fewer bytes, or cannot be read or written.
        """
        check_name(name)
        if self._sums and name <= self._sums[-1][0]:
            raise ElthError(f"{name} does not follow {self._sums[-1][0]} in the order of names")
        passing = _Passing(source)
        self._tar.addfile(_member(name, size), passing)
        self._sums.append((name, passing.sha.hexdigest()))

    def close(self) -> str:
        """Add the checksums, and end; returns the sha256 of those: what the bundle is known by."""
        lines = "".join(f"{digest}  {name}\n" for name, digest in self._sums).encode()
        self._tar.addfile(_member(SUMS, len(lines)), io.BytesIO(lines))
        self._tar.close()
        return hashlib.sha256(lines).hexdigest()


class Bundle:
    """A bundle that is read; see ``opened``."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """Read the list of members and their checksums; ``check`` compares them.

        Raises:
            ElthError: it is no bundle, or is not whole.
        """
        self.path = path
        self._file = file
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                members = tar.getmembers()
        except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError) as error:
            raise self._refused(f"it is no whole tar ({error})") from error
        for member in members:
            self._check_member(member)
        if not members or members[-1].name != SUMS:
            last = f"after {members[-1].name} " if members else ""
            raise self._refused(f"{last}its end is missing, with {SUMS}")
        names = [member.name for member in members[:-1]]
        if names != sorted(set(names)):
            raise self._refused("its members are not sorted, or one is there twice")
        self._members = {member.name: member for member in members}
        self._sums = self._read_sums()
        self.sha256 = hashlib.sha256(self._bytes(SUMS)).hexdigest()
        """What the bundle is known by."""

    def _check_member(self, member: tarfile.TarInfo) -> None:
        try:
            check_name(member.name)
            tarfile.data_filter(member, "/nowhere")
        except (tarfile.FilterError, ValueError, ElthError) as error:
            raise self._refused(str(error)) from error
        raw = self._raw(member.offset, member.offset_data - member.offset)
        if raw != _header(_member(member.name, member.size)):
            raise self._refused(
                f"{member.name} is not as elth export writes it (a link, another kind of file, or "
                "packed again by another program)"
            )

    def _raw(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)

    def _read_sums(self) -> dict[str, str]:
        try:
            lines = self._bytes(SUMS).decode().splitlines()
        except UnicodeDecodeError as error:
            raise self._refused(f"{SUMS} is damaged") from error
        sums: dict[str, str] = {}
        for line in lines:
            found = re.fullmatch("([0-9a-f]{64})  (.+)", line)
            if found is None:
                raise self._refused(f"{SUMS} is damaged: '{line[:80]}' is no checksum and name")
            sums[found[2]] = found[1]
        differs = sums.keys() ^ (self._members.keys() - {SUMS})
        if differs:
            some = ", ".join(sorted(differs)[:_TOLD])
            raise self._refused(f"{SUMS} does not name the members that are there: {some}")
        return sums

    def _refused(self, why: str) -> ElthError:
        return ElthError(
            f"{self.path} is no whole bundle of elth export: {why}; nothing was imported. Copy it "
            "again, or export it again"
        )

    # Reading

    def check(self) -> None:
        """Read all of the file.

        Raises:
            ElthError: a byte of it is not what was written; members are named.
        """
        wrong = [name for name in self._sums if not self._is_whole(name)]
        if wrong:
            more = f" and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
            some = ", ".join(wrong[:_TOLD])
            raise self._refused(f"{some}{more} is damaged: its checksum is not that in {SUMS}")
        last = self._members[SUMS]
        if not self._is_padded(last):
            raise self._refused(f"{SUMS} is damaged")
        end = _whole(last)
        self._file.seek(end)
        size = end
        while chunk := self._file.read(_CHUNK):
            size += len(chunk)
            if chunk.strip(b"\0"):
                raise self._refused("something follows its end")
        if size != -(-(end + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE:
            raise self._refused("its last block is cut off, or something follows it")

    def _is_whole(self, name: str) -> bool:
        sha = hashlib.sha256()
        for chunk in self._chunks(name):
            sha.update(chunk)
        return sha.hexdigest() == self._sums[name] and self._is_padded(self._members[name])

    def _is_padded(self, member: tarfile.TarInfo) -> bool:
        end = member.offset_data + member.size
        return not self._raw(end, _whole(member) - end).strip(b"\0")

    def _chunks(self, name: str) -> Iterator[bytes]:
        member = self._members[name]
        self._file.seek(member.offset_data)
        left = member.size
        while left:
            chunk = self._file.read(min(left, _CHUNK))
            if not chunk:
                raise self._refused(f"{name} is cut off")
            left -= len(chunk)
            yield chunk

    def _bytes(self, name: str) -> bytes:
        if name not in self._members:
            raise self._refused(f"it has no {name}")
        if self._members[name].size > _LARGEST_TEXT:
            size = self._members[name].size
            raise self._refused(f"{name} has {size:,} bytes, more than any text of a bundle")
        return b"".join(self._chunks(name))

    def text(self, name: str, read: Callable[[bytes], T]) -> T:
        """What a member says, by a function that reads it.

        Raises:
            ElthError: it is not there, or the function cannot read it.
        """
        try:
            return read(self._bytes(name))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._refused(f"{name} does not say what it should ({error!r})") from error

    def json(self, name: str) -> dict[str, Any]:
        """What a member says as a mapping; as ``text``."""
        return self.text(name, lambda content: dict(json.loads(content)))

    def below(self, folder: str) -> list[str]:
        """Names of the members below a folder."""
        first = bisect.bisect_left(self._names, folder)
        some = itertools.islice(self._names, first, None)
        return list(itertools.takewhile(lambda name: name.startswith(folder), some))

    @functools.cached_property
    def _names(self) -> list[str]:
        return sorted(self._sums)

    def stages(self) -> list[str]:
        """Keys of the stages that it holds, sorted."""
        found = (re.fullmatch("stages/([0-9a-f]{64})/run.json", name) for name in self._sums)
        return [one[1] for one in found if one is not None]

    def extract(self, folder: str, place: Path) -> int:
        """Write what is below a folder as files below a place; returns how many bytes.

        Raises:
            ElthError: one of them is not what was written.
            OSError: they cannot be written.
        """
        size = 0
        for name in self.below(folder):
            path = place / name.removeprefix(folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            sha = hashlib.sha256()
            with path.open("wb") as file:
                for chunk in self._chunks(name):
                    sha.update(chunk)
                    size += file.write(chunk)
            if sha.hexdigest() != self._sums[name]:
                raise self._refused(f"{name} is damaged: its checksum is not that in {SUMS}")
        return size


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """A bundle, read from its file as it is asked for.

    Raises:
        ElthError: there is no such file, or it is no bundle.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise ElthError(f"cannot read {path}: {error.strerror}") from error
    with file:
        yield Bundle(path, file)


def dumped(value: Any) -> bytes:
    """A value as JSON, in one form."""
    return (json.dumps(value, sort_keys=True, indent=1) + "\n").encode()


def listed(folder: Path) -> Iterable[tuple[str, Path]]:
    """The files below a folder, by their names relative to it, in the order of names."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted((path.relative_to(folder).as_posix(), path) for path in found)


class _Passing(io.RawIOBase):
    """Passes what is read of a file on, and keeps its checksum."""

    def __init__(self, source: BinaryIO) -> None:
        self.sha = hashlib.sha256()
        self._source = source

    def read(self, size: int = -1) -> bytes:
        found = self._source.read(size)
        self.sha.update(found)
        return found


def _member(name: str, size: int) -> tarfile.TarInfo:
    """A member without time, owner and mode of its own."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _header(member: tarfile.TarInfo) -> bytes:
    return member.tobuf(tarfile.PAX_FORMAT, tarfile.ENCODING, "surrogateescape")


def _whole(member: tarfile.TarInfo) -> int:
    """Where the blocks of a member end."""
    blocks = -(-member.size // tarfile.BLOCKSIZE)
    return member.offset_data + blocks * tarfile.BLOCKSIZE
