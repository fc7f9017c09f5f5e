"""A bundle: one form only, read in full before anything is believed."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from elth.errors import ElthError
from orchestrator.store.bundle import Bundle, Writer, opened

MEMBERS = {"a/b.txt": b"text", "a/long" + "g" * 150: b"", "b.bin": bytes(range(256)) * 9}


def written(path: Path) -> Path:
    with path.open("wb") as file:
        writer = Writer(file)
        for name, content in sorted(MEMBERS.items()):
            writer.text(name, content)
        writer.close()
    return path


def read(path: Path) -> None:
    with opened(path) as bundle:
        bundle.check()


def test_a_bundle_is_a_tar_that_others_read_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    path = written(tmp_path / "one.tar")
    assert written(tmp_path / "two.tar").read_bytes() == path.read_bytes()
    with opened(path) as bundle:
        bundle.check()
        assert bundle.below("a/") == ["a/b.txt", "a/long" + "g" * 150]
        assert bundle.extract("a/", tmp_path / "out") == 4
        assert bundle.text("b.bin", bytes) == MEMBERS["b.bin"]
    assert (tmp_path / "out" / "b.txt").read_bytes() == b"text"
    (tmp_path / "all").mkdir()
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "all", filter="data")
    words = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert subprocess.run(words, cwd=tmp_path / "all", check=False).returncode == 0


def test_each_byte_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "one.tar")
    whole = path.read_bytes()
    for at in [*range(0, len(whole), 97), *range(2048), len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ElthError, match="no whole bundle of elth export"):
            read(path)
    for length in (0, 1, 512, 700, len(whole) - 512, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ElthError, match="no whole bundle"):
            read(path)
    path.write_bytes(whole + bytes(512))
    with pytest.raises(ElthError, match="or something follows it"):
        read(path)


def test_a_byte_that_is_flipped_is_told_with_the_name_of_its_member(tmp_path: Path) -> None:
    path = written(tmp_path / "one.tar")
    whole = bytearray(path.read_bytes())
    whole[whole.index(MEMBERS["b.bin"]) + 700] ^= 4
    path.write_bytes(whole)
    with pytest.raises(ElthError, match=r"bundle of elth export: b\.bin is damaged"):
        read(path)


def odd(member: Callable[[tarfile.TarInfo], None], content: bytes = b"") -> bytes:
    """A tar of one member that no one of ours has written."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("grid/keys.json")
        info.size = len(content)
        member(info)
        tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _link(kind: bytes, target: str) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname = kind, target

    return change


def _named(name: str) -> Callable[[tarfile.TarInfo], None]:
    return lambda info: setattr(info, "name", name)


@pytest.mark.parametrize(
    ("member", "told"),
    [
        (_named("../../etc/passwd"), "no name of a file"),
        (_named("a/../../b"), "no name of a file"),
        (_named("a/../b"), "no name of a file"),
        (_named("/etc/passwd"), "no name of a file"),
        (_named("a//b"), "no name of a file"),
        (_named("a\nb"), "no name of a file"),
        (_link(tarfile.SYMTYPE, "/etc/passwd"), "absolute path"),
        (_link(tarfile.SYMTYPE, "../../../etc"), "outside the destination"),
        (_link(tarfile.SYMTYPE, "keys.json"), "a link, another kind of file"),
        (_link(tarfile.LNKTYPE, "grid/other"), "a link, another kind of file"),
        (_link(tarfile.CHRTYPE, ""), "special file"),
        (_link(tarfile.FIFOTYPE, ""), "special file"),
        (_link(tarfile.DIRTYPE, ""), "is not as elth export writes it"),
        (lambda info: setattr(info, "mtime", 1), "packed again by another program"),
        (lambda info: setattr(info, "pax_headers", {"GNU.sparse.size": "9" * 15}), "no whole"),
    ],
)
def test_a_hostile_tar_is_refused(
    tmp_path: Path, member: Callable[[tarfile.TarInfo], None], told: str
) -> None:
    path = tmp_path / "hostile.tar"
    path.write_bytes(odd(member))
    with pytest.raises(ElthError, match=re.escape(told)):
        read(path)


def test_a_member_that_is_said_to_be_huge_is_refused_by_the_size_of_the_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "huge.tar"
    info = tarfile.TarInfo("grid/keys.json")
    info.size = 2**50
    path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(10240))
    with pytest.raises(ElthError, match="no whole tar"):
        read(path)


def test_a_text_that_is_too_large_for_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.tar"
    with path.open("wb") as file:
        writer = Writer(file)
        with Path("/dev/zero").open("rb") as zeros:
            writer.add("grid/keys.json", zeros, 2**28 + 1)
        writer.close()
    with opened(path) as bundle, pytest.raises(ElthError, match="more than any text of a bundle"):
        bundle.json("grid/keys.json")


def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    for content in (b"", b"no tar\n" * 200, b"PK\3\4" + bytes(2000)):
        path = tmp_path / "x.tar"
        path.write_bytes(content)
        with pytest.raises(ElthError, match="no whole bundle of elth export"):
            read(path)
    with pytest.raises(ElthError, match="cannot read .*: No such file"):
        read(tmp_path / "none.tar")


def test_members_come_in_order_and_once(tmp_path: Path) -> None:
    with (tmp_path / "x.tar").open("wb") as file:
        writer = Writer(file)
        writer.text("b", b"")
        for name in ("a", "b"):
            with pytest.raises(ElthError, match="does not follow b"):
                writer.text(name, b"")
        with pytest.raises(ElthError, match="no name of a file"):
            writer.text("../c", b"")


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "one.tar")
    whole = path.read_bytes()
    path.write_bytes(whole[:1024] + whole)
    with path.open("rb") as file, pytest.raises(ElthError, match="one is there twice"):
        Bundle(path, file)
