"""Checkpoints of stages that are being trained: what a killed process leaves for the next one.

They lie in a folder of the stage's key, named by the attempt that wrote them and the iteration, so
that two attempts never write one file. The next attempt goes on from the newest that is whole, of
whichever attempt; once the stage is tracked the folder is removed. Where: see ``storage``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from elth.checkpoints import Checkpoint
from elth.errors import ElthError
from elth.training import Epoch, Training
from orchestrator.store import classes, storage
from orchestrator.store.storage import Storage

_KEPT = 2
"""Files that an attempt keeps: the newest, and one before it in case that is damaged."""
_SUFFIX = ".safetensors"

History = list[tuple[Epoch, int]]
"""Epochs, each with the time it ended in milliseconds since 1970."""


class Stopped(Exception):
    """A training ends here as its run is to end; another one goes on from its checkpoint.

    Its text is what a person should know: that no checkpoint could be written now.
    """


UNWRITTEN = (
    "stage {key} was told to end and could not write where it is ({error}): it goes on from what "
    "was written of it before, or from its beginning"
)


@dataclass
class InFlight:
    """The checkpoints of one stage, for one attempt at it."""

    folder: str | Path | Storage
    """Where checkpoints of all stages lie, each in a folder of its key: a path or an address."""
    key: str
    numerics: str
    """The numerics class of this attempt; from ``newest`` on with those before it (``classes``)."""
    seconds: float
    """Time between two checkpoints."""
    begins: str = ""
    """Digest of what the stage trains from: another's checkpoints are not gone on from."""
    history: History = field(default_factory=list)
    """What has been measured so far."""
    notes: list[str] = field(default_factory=list)
    """What a person should know; whoever tells it empties the list."""

    earlier: float = 0.0
    """Seconds that earlier attempts spent on what this one goes on from."""
    stop: Callable[[], bool] = lambda: False
    """Whether the run is to end: a last checkpoint is written, and ``Stopped`` raised."""

    def __post_init__(self) -> None:
        """Begin an attempt, with a name that no other has."""
        self._attempt = uuid.uuid4().hex[:8]
        self._began = self._last = time.monotonic()
        self._written: list[str] = []
        self._storage = storage.of(self.folder)

    @property
    def place(self) -> Path:
        """The folder of the stage, of a storage that is a directory."""
        return Path(str(self._storage)) / self.key

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, with ``history`` as it was; None if there is none.

        A damaged one is set aside under another name, and the one before is taken.
        """
        try:
            found = self._storage.names(self.key)
        except OSError as error:
            self.notes.append(f"no checkpoint could be looked for, training begins anew: {error}")
            return None
        files = [name for name in found if name.endswith(_SUFFIX)]
        for name in sorted(files, key=_step, reverse=True):
            try:
                with self._storage.read(self.key, name) as path:
                    checkpoint, about = Checkpoint.read(path)
                history = [(Epoch(**epoch), int(at)) for epoch, at in about["history"]]
                earlier = float(about["seconds"])
                if about["key"] != self.key:
                    raise ElthError(f"{path} is of another stage")
            except OSError as error:  # it may be whole, and is left where it is
                self.notes.append(f"a checkpoint could not be read and is not used: {error}")
                continue
            except (ElthError, KeyError, TypeError, ValueError) as error:
                self._storage.set_aside(self.key, name)
                self.notes.append(f"a checkpoint is set aside and not used: {error}")
                continue
            if about.get("begins", self.begins) != self.begins:
                self._storage.set_aside(self.key, name)
                self.notes.append(
                    f"a checkpoint of stage {self.key[:12]} is set aside and not used: what the "
                    "stage is made of has come out different since"
                )
                continue
            begun = about.get("numerics") or "unknown"
            if (mixed := classes.onwards(begun, self.numerics)) != begun:
                self.notes.append(
                    f"stage {self.key[:12]} was begun in the numerics class {begun} and goes on "
                    f"in {self.numerics}: its bits are not those of either alone"
                )
            self.numerics = mixed
            self.history, self.earlier = history, earlier
            return checkpoint
        return None

    def save_if_due(self, training: Training) -> None:
        """Write a checkpoint if the last one is old enough; a failure to is noted, no error.

        Raises:
            Stopped: the run is to end, and the checkpoint is written.
        """
        stop = self.stop()
        if not stop and time.monotonic() - self._last < self.seconds:
            return
        name = f"{self._attempt}-{training.step:012d}{_SUFFIX}"
        about = {
            "key": self.key,
            "numerics": self.numerics,
            "begins": self.begins,
            "seconds": self.earlier + time.monotonic() - self._began,
            "history": [[asdict(epoch), at] for epoch, at in self.history],
        }
        try:
            checkpoint = training.checkpoint()
            self._storage.write(self.key, name, lambda path: checkpoint.write(path, about))
        except (ElthError, OSError) as error:
            if stop:
                raise Stopped(UNWRITTEN.format(key=self.key[:12], error=error)) from error
            self.notes.append(f"no checkpoint could be written, training goes on: {error}")
        else:
            self._written.append(name)
        for old in self._written[:-_KEPT]:
            self._storage.remove(self.key, old)
        del self._written[:-_KEPT]
        self._last = time.monotonic()
        if stop:
            raise Stopped

    def clear(self) -> None:
        """Remove all checkpoints of the stage, which is tracked now."""
        self._storage.clear(self.key)


def _step(name: str) -> tuple[int, str]:
    attempt, _, step = name.removesuffix(_SUFFIX).partition("-")
    return (int(step) if step.isdigit() else -1), attempt
