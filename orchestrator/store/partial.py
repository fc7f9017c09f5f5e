"""What an analysis has so far: what a killed process leaves for the next one.

As with checkpoints of trainings (``inflight``), files lie in a folder of the key, each named
by the attempt that wrote it, and the newest that is whole is gone on from.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elth.files import write_atomic
from orchestrator.store import classes, storage
from orchestrator.store.inflight import UNWRITTEN, Stopped
from orchestrator.store.storage import Storage

_SUFFIX = ".json"


@dataclass
class Partial:
    """What one stage has so far, for one attempt at it."""

    folder: str | Path | Storage
    """Where those of all stages lie: a path or an address."""
    key: str
    numerics: str
    """The numerics class of this attempt; from ``newest`` on with those before it (``classes``)."""
    seconds: float
    """Time between two files."""
    begins: str
    """Digest of what the stage looks at: what was measured of others is not gone on from."""
    stop: Callable[[], bool] = lambda: False
    """Whether the run is to end: a last file is written, and ``Stopped`` raised."""
    notes: list[str] = field(default_factory=list)
    """What a person should know; whoever tells it empties the list."""

    def __post_init__(self) -> None:
        """Begin an attempt, with a name that no other has."""
        self._attempt = uuid.uuid4().hex[:8]
        self._began = self._last = time.monotonic()
        self._count = 0
        self.earlier = 0.0
        self._storage = storage.of(self.folder)

    def newest(self) -> dict[str, Any]:
        """What there is, of whichever attempt has come furthest; nothing if there is none."""
        best: dict[str, Any] = {"count": 0, "seconds": 0.0, "so_far": {}}
        try:
            names = [name for name in self._storage.names(self.key) if name.endswith(_SUFFIX)]
        except OSError as error:
            self.notes.append(f"what was measured so far cannot be looked for: {error}")
            return {}
        for name in names:
            try:
                with self._storage.read(self.key, name) as path:
                    plain = json.loads(path.read_bytes())
                if plain["sha256"] != _digest(plain["so_far"]):
                    raise ValueError("its checksum is not that of its content")
                if plain["begins"] == self.begins and plain["count"] > best["count"]:
                    best = plain
            except OSError as error:  # it may be whole, and is left where it is
                self.notes.append(f"what was measured so far could not be read: {error}")
            except (ValueError, KeyError, TypeError) as error:
                self._storage.set_aside(self.key, name)
                self.notes.append(f"what was measured so far is set aside and not used: {error}")
        begun = best.get("numerics", self.numerics)
        if (mixed := classes.onwards(begun, self.numerics)) != begun:
            self.notes.append(
                f"the analysis {self.key[:12]} was begun in the numerics class {begun} and goes "
                f"on in {self.numerics}: its bits are not those of either alone"
            )
        self.numerics = mixed
        self._count, self.earlier = int(best["count"]), float(best["seconds"])
        return dict(best["so_far"])

    def save_if_due(self, so_far: Mapping[str, Any]) -> None:
        """Write a file if the last one is old enough; a failure to is noted, no error.

        Raises:
            Stopped: the run is to end, and the file is written.
        """
        self._count += 1
        stop = self.stop()
        if not stop and time.monotonic() - self._last < self.seconds:
            return
        text = json.dumps(
            {
                "begins": self.begins,
                "numerics": self.numerics,
                "count": self._count,
                "seconds": self.earlier + time.monotonic() - self._began,
                "so_far": so_far,
                "sha256": _digest(so_far),
            }
        )
        try:
            name = f"{self._attempt}{_SUFFIX}"
            self._storage.write(self.key, name, lambda path: _write(path, text))
        except OSError as error:
            if stop:
                raise Stopped(UNWRITTEN.format(key=self.key[:12], error=error)) from error
            self.notes.append(f"what was measured so far could not be written: {error}")
        self._last = time.monotonic()
        if stop:
            raise Stopped

    def clear(self) -> None:
        """Remove all files of the stage, which is tracked now."""
        self._storage.clear(self.key)


def _write(path: Path, text: str) -> None:
    write_atomic(path, text.encode())  # a kill in the middle leaves what was measured before


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
