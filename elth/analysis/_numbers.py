"""Numbers as JSON has them."""

from __future__ import annotations

import math


def number(value: float) -> float | None:
    """The number, or None for what is not one: JSON has no NaN."""
    return None if math.isnan(value) else value


def read(value: float | None) -> float:
    """Undo ``number``."""
    return math.nan if value is None else float(value)
