"""What a setting of a criterion may be, where the type of its parameter does not say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AtLeast:
    """The smallest whole number that a setting may be, where it is not 1."""

    value: int
