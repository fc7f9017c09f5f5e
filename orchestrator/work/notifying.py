"""To tell somebody outside how a run goes: a command, at the first failure and at the end.

The command is a line for the shell. What there is to tell it finds in its environment:

* ``ELTH_EVENT``: ``failed`` at the first failure, which ends nothing; at the end ``finished``, also
  where stages failed, or ``stopped``, where something is left to do;
* ``ELTH_MESSAGE``: a line for people;
* ``ELTH_GRID``, ``ELTH_STORE``: which grid, and where;
* ``ELTH_DONE``, ``ELTH_FAILED``, ``ELTH_TOTAL``: stages, as numbers.

A run never waits for it but at its own end, and there for no longer than a limit. One that fails or
hangs is a warning.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from orchestrator.plan.costs import duration
from orchestrator.plan.schedule import Schedule
from orchestrator.work.stopping import TimeOverError

FAILED, FINISHED, STOPPED = "failed", "finished", "stopped"
"""What is told."""
SECONDS = 30.0
"""What a command may take."""

_LOOK_SECONDS = 1.0
_LINE = 200


class Notifier:
    """Runs the command at the first failure, and at the end of its block; a context manager."""

    def __init__(
        self, command: str, *, grid: str, store: str, warn: Callable[[str], object]
    ) -> None:
        """Prepare.

        Args:
            command: a line for the shell.
            grid: the grid that is run.
            store: where.
            warn: is told what is wrong with the command; from any thread.
        """
        self._command = command
        self._about = {"ELTH_GRID": grid, "ELTH_STORE": store}
        self._grid = grid
        self._warn = warn
        self._began = time.monotonic()
        self._schedule: Schedule | None = None
        self._at_work: list[threading.Thread] = []

    def __enter__(self) -> Notifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        took = f"after {duration(time.monotonic() - self._began)}"
        if error is None:
            message = f"{self._grid}: finished {took}: {self._counts()}"
        else:
            message = f"{self._grid}: stopped {took}, {_why(error)}: {self._counts()}"
        self._tell(FINISHED if error is None else STOPPED, message)
        for thread in self._at_work:
            thread.join()  # each has its limit

    @contextlib.contextmanager
    def watching(self, schedule: Schedule) -> Iterator[None]:
        """Look for the first failure for as long as the block lasts.

        What failed in an earlier run is no news.
        """
        self._schedule = schedule
        over, before = threading.Event(), set(schedule.failed)

        def look() -> None:
            is_last = False
            while not is_last:
                is_last = over.wait(_LOOK_SECONDS)
                for reason in (why for key, why in schedule.failed.items() if key not in before):
                    self._tell(FAILED, f"{self._grid}: failed: {reason}")
                    return

        thread = threading.Thread(target=look, daemon=True, name="elth-notify")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _counts(self) -> str:
        done, failed, total = self._numbers()
        return f"{done} of {total} stages done" + (f", {failed} failed" if failed else "")

    def _numbers(self) -> tuple[int, int, int]:
        if self._schedule is None:
            return 0, 0, 0
        now = self._schedule.snapshot()
        return now.found + now.done, len(now.failed), now.total

    def _tell(self, event: str, message: str) -> None:
        done, failed, total = self._numbers()
        told = {
            **self._about,
            "ELTH_EVENT": event,
            "ELTH_MESSAGE": " ".join(message.replace("\0", "").split()),
            "ELTH_DONE": str(done),
            "ELTH_FAILED": str(failed),
            "ELTH_TOTAL": str(total),
        }
        thread = threading.Thread(target=self._run, args=(told,), daemon=True, name="elth-notify")
        thread.start()
        self._at_work.append(thread)

    def _run(self, told: dict[str, str]) -> None:
        what = f"the command of --notify, of '{told['ELTH_EVENT']}',"
        try:
            self._run_it(told, what)
        except OSError as error:  # as of no room for what it prints
            self._warn(f"{what} could not be run: {error.strerror or error}")

    def _run_it(self, told: dict[str, str], what: str) -> None:
        with tempfile.TemporaryFile() as output:
            try:
                process = subprocess.Popen(
                    self._command,
                    shell=True,
                    env={**os.environ, **told},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # so that all of it can be ended
                )
                code = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                self._warn(f"{what} did not end within {SECONDS:g} s, and was ended")
                return
            if code:
                output.seek(0)
                lines = output.read().decode(errors="replace").split("\n")
                last = next((line for line in reversed(lines) if line.strip()), "")[:_LINE]
                self._warn(f"{what} ended with {code}{f': {last}' if last else ''}")


def _why(error: BaseException) -> str:
    if isinstance(error, TimeOverError):
        return "as its hours are over"
    return "by a signal" if isinstance(error, KeyboardInterrupt) else str(error)
