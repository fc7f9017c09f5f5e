"""Damage: a finished stage whose files are not what was written, or are not there."""

from __future__ import annotations

from elth.errors import ElthError


class DamagedError(ElthError):
    """The result of a stage cannot be used, and the stage has to be done again."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key
        """The key of the stage."""
