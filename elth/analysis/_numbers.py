"""Numbers as JSON has them, in which there is none for what is not defined."""

from __future__ import annotations

import math

from torch import Tensor


def number(value: float) -> float | None:
    """The number, or None for what is not one."""
    return value if math.isfinite(value) else None


def read(value: float | None) -> float:
    """Undo ``number``."""
    return math.nan if value is None else float(value)


def rows(matrix: Tensor) -> list[list[float | None]]:
    """The rows of a matrix; None where it is not defined."""
    return [[number(value) for value in row] for row in matrix.tolist()]


def ratio(part: float, whole: float) -> float:
    """Part / whole; not a number where the whole is nothing."""
    return part / whole if whole else math.nan
