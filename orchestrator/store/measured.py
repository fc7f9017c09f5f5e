"""The file with what an analysis came to: written and read without torch, so a report reads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elth.errors import ElthError

MEASURED = "analysis.json"
"""Its name: it holds what was measured, and the checksum of that."""


def digest(measured: Mapping[str, Any]) -> str:
    """sha256 of what was measured, in hexadecimal."""
    return hashlib.sha256(_json(measured)).hexdigest()


def write_measured(measured: Mapping[str, Any], folder: Path) -> None:
    """Write the file into a folder."""
    (folder / MEASURED).write_bytes(_json({"sha256": digest(measured), "measured": measured}))


def read_measured(path: Path) -> dict[str, Any]:
    """Read what ``write_measured`` wrote.

    Raises:
        ElthError: it is damaged.
        OSError: it is not there, or cannot be read.
    """
    try:
        found = json.loads(path.read_bytes())
        measured, sha256 = found["measured"], found["sha256"]
        if digest(measured) != sha256:
            raise ValueError("its checksum is not that of its content")
        return dict(measured)
    except (ValueError, TypeError, KeyError) as error:
        raise ElthError(f"{path} is damaged: {error}") from error


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
