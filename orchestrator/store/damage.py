"""What can be amiss with a finished stage: its files are wrong, or they are not there."""

from __future__ import annotations

from elth.errors import ElthError


class DamagedError(ElthError):
    """The files of a stage are not what was written; it has to be done again."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key
        """The key of the stage."""


class AbsentError(ElthError):
    """Files of a stage are not there, and nothing is known to be wrong with them.

    A disk may not be mounted, a folder left behind, or weights tidied away.
    """

    def __init__(self, key: str, message: str, *, lacks_weights: bool = False) -> None:
        super().__init__(message)
        self.key = key
        """The key of the stage."""
        self.lacks_weights = lacks_weights
        """Whether it is trained weights, which may never have been kept."""
