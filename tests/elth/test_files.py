"""Files are whole or absent, and hold tensors and text only."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from elth.errors import ElthError
from elth.files import contiguous, read_tensors, write_atomic, write_tensors


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


def test_tensors_round_trip(tmp_path: Path) -> None:
    strange = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    tensors = {
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "strange": strange.requires_grad_(),
        "bytes": torch.arange(5, dtype=torch.uint8),
    }
    path = tmp_path / "x.safetensors"
    write_tensors(path, tensors, {"kind": "thing", "list": [1, "ä"]})
    found, metadata = read_tensors(path, kind="thing")
    assert metadata == {"kind": "thing", "list": [1, "ä"]}
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype is tensor.dtype
        assert torch.equal(found[name], tensor)


def test_a_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "no.safetensors", tmp_path):
        with pytest.raises(ElthError, match=f"there is no file {path}"):
            read_tensors(path, kind="thing")


@pytest.mark.parametrize("size", [0, 7, 20, 200, -1])
def test_a_truncated_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"w": torch.zeros(100)}, {"kind": "thing"})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ElthError, match=r"x.safetensors is no whole safetensors file .*truncated"):
        read_tensors(path, kind="thing")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"other": "text"},
        {"elth": "no json"},
        {"elth": "[1]"},
        {"elth": "{}"},
        {"elth": json.dumps({"kind": "other thing"})},
    ],
)
def test_a_file_of_another_origin_or_kind(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"w": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(ElthError, match="is a safetensors file but no thing of elth"):
        read_tensors(path, kind="thing")


class _Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_no_pickle_is_read(tmp_path: Path) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "x.safetensors"
    path.write_bytes(pickle.dumps(_Trap(sprung)))
    with pytest.raises(ElthError, match="no whole safetensors file"):
        read_tensors(path, kind="thing")
    torch.save({"w": _Trap(sprung)}, path)
    with pytest.raises(ElthError, match="no whole safetensors file"):
        read_tensors(path, kind="thing")
    assert not sprung.exists()


def test_contiguous_copies() -> None:
    weight = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    copy = contiguous({"w": weight})["w"]
    assert copy.is_contiguous()
    assert not copy.requires_grad
    assert torch.equal(copy, weight)
    copy.zero_()
    assert bool(weight.any())
    plain = torch.ones(3)
    contiguous({"w": plain})["w"].zero_()
    assert plain.tolist() == [1, 1, 1]
