"""Files of tensors are whole, of a known kind, and hold tensors and text only."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from elth.errors import ElthError
from elth.tensors import contiguous, read_tensors, write_tensors


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
    for path, more in ((tmp_path / "no.safetensors", ""), (tmp_path, ", which is a folder")):
        with pytest.raises(ElthError, match=f"there is no file {path}{more}$"):
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
