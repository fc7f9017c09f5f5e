"""To open a store: its database alone, or a server that answers at once."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import sqlite3
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from orchestrator.store.away import AwayError

STAGES = "elth"
_ALONE_SECONDS = 120.0
_ANSWER_SECONDS = 10.0


def check_reachable(uri: str) -> None:
    """Refuse a server that does not answer at once; MLflow would try again for minutes."""
    if not uri.startswith("http"):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_ANSWER_SECONDS).close()
    except urllib.error.HTTPError as error:  # it answers; it may ask for a password
        error.close()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # MLflow has settings of its own for certificates
            why = getattr(reason, "strerror", None) or reason
            raise AwayError(
                f"cannot reach the MLflow server {uri}: {why}; is it running, and is the address "
                "right?"
            ) from error


@contextlib.contextmanager
def alone(folder: Path | None, *, reading: bool = False) -> Iterator[None]:
    """Open a store's database alone: of several that create it at once, all but one fail.

    Whoever holds the lock for long is asleep and not waited for. Who only reads makes no lock.
    """
    lock = folder / ".opening" if folder is not None else None
    if lock is None or (reading and not lock.exists()):
        yield
        return
    with lock.open("rb" if reading else "ab") as file:
        end = time.monotonic() + _ALONE_SECONDS
        while time.monotonic() < end:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:  # a file system without locks
                break
        yield


def index_tags(database: Path) -> None:
    """Let the runs of a key be found without reading the keys of all runs.

    MLflow's own index is of names of tags alone. Without this one everything works, and each stage
    takes longer with the number of runs: 40 ms at 10,000 (docs/performance.md).
    """
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database)) as base:
        base.execute("CREATE INDEX IF NOT EXISTS elth_tags ON tags (key, value)")
        base.commit()
