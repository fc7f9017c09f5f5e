"""Keeps why stages failed whose process died: in the store, in its place, and in the run's log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator.plan.stage import Stage
from orchestrator.store.runlog import fail_for_the_dead
from orchestrator.store.tracker import Tracker
from orchestrator.work.deaths import Death

_PAUSE_SECONDS = 60.0
"""After the store has not answered; while it is asked no result of any trial is taken."""


class Reasons:
    """The reasons of a run."""

    def __init__(self, tracker: Callable[[], Tracker], grid: str, driver: str, log: Path) -> None:
        """Begin with none.

        Args:
            tracker: gives that of the store, once it is needed.
            grid: the grid that is run.
            driver: who runs it.
            log: the file of the run that takes what Ray and its processes write.
        """
        self.log = log
        self._tracker = tracker
        self._grid = grid
        self._driver = driver
        self._left: list[tuple[Stage, str, str]] = []
        self._due = 0.0

    def told(self, title: str, death: Death) -> None:
        """Write all that is known of the death of a stage's process into the log."""
        self._write(f"{title}: {death.reason}", death.told.splitlines(), death.log, death.lines)

    def add(self, stage: Stage, reason: str, lines: Sequence[str]) -> None:
        """Keep why a stage has failed, with the last lines of its log."""
        self._write(f"{stage.title} has failed: {reason}", lines)
        self._left.append((stage, reason, "\n".join(lines)))
        began = time.monotonic()
        if began >= self._due and not self.try_again():
            self._due = time.monotonic() + _PAUSE_SECONDS

    def try_again(self) -> bool:
        """Give the store what it has not taken yet; returns whether it has all now."""
        try:
            tracker = self._tracker() if self._left else None
            while self._left and tracker is not None:
                stage, reason, details = self._left[0]
                words = {"grid": self._grid, "driver": self._driver}
                fail_for_the_dead(tracker, stage, **words, reason=reason, details=details)
                del self._left[0]
        except (ElthError, MlflowException, OSError):  # away: it is in the log at any rate
            return False
        return True

    def _write(self, title: str, *parts: Sequence[str] | str) -> None:
        lines = [f"{time.strftime('%Y-%m-%d %H:%M:%S')} {title}"]
        for part in parts:
            lines += [f"    {line}" for line in ([part] if isinstance(part, str) else part) if line]
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
