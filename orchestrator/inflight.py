"""Checkpoints of stages that are being trained: what a killed process leaves for the next one.

They lie in a folder of the stage's key, named by the attempt that wrote them and the iteration, so
that two attempts never write one file. The next attempt goes on from the newest that is whole, of
whichever attempt; once the stage is tracked the folder is removed.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

from elth.checkpoints import Checkpoint
from elth.errors import ElthError
from elth.training import Epoch, Training

_KEPT = 2
"""Files that an attempt keeps: the newest, and one before it in case that is damaged."""
_SUFFIX = ".safetensors"

History = list[tuple[Epoch, int]]
"""Epochs, each with the time it ended in milliseconds since 1970."""


@dataclass
class InFlight:
    """The checkpoints of one stage, for one attempt at it."""

    folder: Path
    """Where checkpoints of all stages lie, each in a folder of its key."""
    key: str
    numerics: str
    """The numerics class of this attempt."""
    seconds: float
    """Time between two checkpoints."""
    history: History = field(default_factory=list)
    """What has been measured so far."""
    notes: list[str] = field(default_factory=list)
    """What a person should know; whoever tells it empties the list."""

    earlier: float = 0.0
    """Seconds that earlier attempts spent on what this one goes on from."""

    def __post_init__(self) -> None:
        """Begin an attempt, with a name that no other has."""
        self._attempt = uuid.uuid4().hex[:8]
        self._began = self._last = time.monotonic()
        self._written: list[Path] = []

    @property
    def place(self) -> Path:
        """The folder of the stage."""
        return self.folder / self.key

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, with ``history`` as it was; None if there is none.

        A damaged one is set aside under another name, and the one before is taken.
        """
        files = sorted(self.place.glob(f"*{_SUFFIX}"), key=_step, reverse=True)
        for path in files:
            try:
                checkpoint, about = Checkpoint.read(path)
                history = [(Epoch(**epoch), int(at)) for epoch, at in about["history"]]
                earlier = float(about["seconds"])
                if about["key"] != self.key:
                    raise ElthError(f"{path} is of another stage")
            except (ElthError, KeyError, TypeError, ValueError) as error:
                with contextlib.suppress(OSError):
                    path.rename(path.with_suffix(".bad"))
                self.notes.append(f"a checkpoint is set aside and not used: {error}")
                continue
            if about.get("numerics") != self.numerics:
                self.notes.append(
                    f"stage {self.key[:12]} was begun in the numerics class "
                    f"{about.get('numerics')} and goes on in {self.numerics}: its bits are not "
                    "those of either alone"
                )
            self.history, self.earlier = history, earlier
            return checkpoint
        return None

    def save_if_due(self, training: Training) -> None:
        """Write a checkpoint if the last one is old enough; a failure to is noted, no error."""
        if time.monotonic() - self._last < self.seconds:
            return
        path = self.place / f"{self._attempt}-{training.step:012d}{_SUFFIX}"
        about = {
            "key": self.key,
            "numerics": self.numerics,
            "seconds": self.earlier + time.monotonic() - self._began,
            "history": [[asdict(epoch), at] for epoch, at in self.history],
        }
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            training.checkpoint().write(path, about)
        except (ElthError, OSError) as error:
            self.notes.append(f"no checkpoint could be written, training goes on: {error}")
        else:
            self._written.append(path)
        for old in self._written[:-_KEPT]:
            old.unlink(missing_ok=True)
        del self._written[:-_KEPT]
        self._last = time.monotonic()

    def clear(self) -> None:
        """Remove all checkpoints of the stage, which is tracked now."""
        shutil.rmtree(self.place, ignore_errors=True)


def _step(path: Path) -> tuple[int, str]:
    attempt, _, step = path.stem.partition("-")
    return (int(step) if step.isdigit() else -1), attempt
