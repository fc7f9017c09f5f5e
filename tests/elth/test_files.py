"""Files are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from elth.errors import ElthError
from elth.files import expanded, write_atomic


def test_write_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.bin"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ElthError, match=r"cannot write .*x.bin: No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_it_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append("synced")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        done.append("renamed")
        assert self.parent == target.parent
        assert self.read_bytes() == b"whole"
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_atomic(tmp_path / "x.bin", b"whole")
    assert done == ["synced", "renamed"]


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(ElthError, match=r"cannot write .*x.bin: No such file or directory"):
        write_atomic(tmp_path / "missing" / "x.bin", b"")
    (tmp_path / "file").touch()
    with pytest.raises(ElthError, match=r"cannot write .*x.bin: Not a directory"):
        write_atomic(tmp_path / "file" / "x.bin", b"")


def test_home_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~") == tmp_path
    assert expanded(Path("~/a,b")) == tmp_path / "a,b"
    assert expanded("a/~") == Path("a/~")
    assert expanded("./~") == Path("~")
    with pytest.raises(ElthError, match=r"which folder ~nobody-9/x is: ~nobody-9 is nobody's home"):
        expanded("~nobody-9/x")
