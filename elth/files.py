"""Writing and reading tensors on disk: never half a file, never a pickle."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from elth.errors import ElthError


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside the place, sync, then rename: a reader sees the old file or the new one.

    Raises:
        ElthError: the file cannot be written, with the system's reason.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "; make room on that disk and do it again" if full else ""
        raise ElthError(f"cannot write {path}: {error.strerror or error}{remedy}") from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object]
) -> None:
    """Write a safetensors file; metadata is one JSON text under the key ``elth``."""
    data = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        metadata={"elth": json.dumps(metadata, sort_keys=True)},
    )
    write_atomic(path, data)


def read_tensors(path: Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of ``write_tensors``: its tensors and its metadata.

    Args:
        path: the file.
        kind: what the metadata must say under ``kind``, as ``"ticket"``.

    Raises:
        ElthError: no such file, not a whole safetensors file, or one of another origin or kind.
    """
    if not path.is_file():
        raise ElthError(f"there is no file {path}")
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
