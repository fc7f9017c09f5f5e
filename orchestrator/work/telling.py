"""What a job tells while it runs, and its signs of life."""

from __future__ import annotations

from dataclasses import dataclass

SIGN_SECONDS = 10.0
"""Time between two signs of life of a group of workers."""


@dataclass(frozen=True)
class Report:
    """What a job tells while it runs."""

    index: int
    """Number of stages of the job that are finished."""
    fraction: float = 0.0
    """How far the next one is."""
    accuracy: float | None = None
    failed: str = ""
    """Why the stage failed, if it did; nothing follows."""
    note: str = ""
    """What a person should know once: that something could not be had."""
    stopped: bool = False
    """Whether it ends here because the run is to end; nothing follows."""
    held: str = ""
    """The last sign of life of another driver that is at the stage; nothing follows."""
    redo: str = ""
    """The key of a stage that is needed and no longer finished; nothing follows."""
    last: str = ""
    """The key of a finished round that is the last of its chain; nothing follows."""
    because: str = ""
    """Why it is the last."""

    log: tuple[str, ...] = ()
    """Of a process that died, so that the stage failed: where its log lies, and its last lines."""
    died: bool = False
    """Whether it failed as the death of a process does, after which it is begun again."""
    again: tuple[str, ...] = ()
    """Keys of finished stages that are to be done again, as what they are made of is another."""
    ended_at: float | None = None
    """Test accuracy after the last epoch of the stage that has just ended; None of one that was
    finished before, or has none."""

    @property
    def is_last(self) -> bool:
        """Whether the job ends with it, before its end."""
        return bool(self.failed or self.stopped or self.held or self.redo or self.last)
