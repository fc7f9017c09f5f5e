"""Writing and reading tensors on disk: whole files, and never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from elth.errors import ElthError
from elth.files import write_atomic


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object]
) -> None:
    """Write a safetensors file; metadata is one JSON text under the key ``elth``.

    Tensors that share memory are written each by itself.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen: set[int] = set()
    for name, tensor in plain.items():
        place = tensor.untyped_storage().data_ptr()
        if place in seen:
            plain[name] = tensor.clone()
        seen.add(place)
    write_atomic(path, save(plain, metadata={"elth": json.dumps(metadata, sort_keys=True)}))


def read_tensors(path: Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of ``write_tensors``: its tensors and its metadata.

    Args:
        path: the file.
        kind: what the metadata must say under ``kind``, as ``"ticket"``.

    Raises:
        ElthError: no such file, not a whole safetensors file, or one of another origin or kind.
    """
    if not path.is_file():
        folder = ", which is a folder" if path.is_dir() else ""
        raise ElthError(f"there is no file {path}{folder}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("elth")
            names = file.keys()
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ElthError(
            f"{path} is no whole safetensors file ({error}); it is truncated, damaged or of "
            "another format: make it again"
        ) from error
    try:
        metadata = json.loads(text) if text is not None else None
    except json.JSONDecodeError:
        metadata = None
    if not isinstance(metadata, dict) or metadata.get("kind") != kind:
        raise ElthError(
            f"{path} is a safetensors file but no {kind} of elth: its metadata does not say so"
        )
    return tensors, metadata


def contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies on the CPU in the default memory layout."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
