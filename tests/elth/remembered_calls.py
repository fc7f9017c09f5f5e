"""What test_remembered asks of another process."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def count(place: str, more: int) -> list[Any]:
    """How often this was asked: a fact, but for the tests that see whether it is asked again."""
    path = Path(place)
    times = 1 + (int(path.read_text(encoding="utf-8")) if path.exists() else 0)
    path.write_text(str(times), encoding="utf-8")
    return [times, {"more": more + 1}]
