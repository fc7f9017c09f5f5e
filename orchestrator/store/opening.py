"""To open a store: its database alone, or a server that answers at once."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import sqlite3
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from elth.errors import ElthError
from orchestrator.store.away import AwayError

STAGES = "elth"

MARK = "elth.experiment"
"""The tag of each of our experiments: the name that it is known by."""

NOTE = "mlflow.note.content"
"""The tag that MLflow's pages show as the description of an experiment or a run."""

_ALONE_SECONDS = 120.0
_ANSWER_SECONDS = 10.0
_OF_PROXIES = (403, 407, 502, 503, 504)
"""What a proxy answers that does not reach a server, or does not want to."""


def check_reachable(uri: str) -> None:
    """Refuse a server that does not answer at once; MLflow would try again for minutes.

    Raises:
        AwayError: it does not answer.
        ElthError: it is this machine, and a proxy would be asked for it.
    """
    if not uri.startswith("http"):
        return
    check_proxy(uri)
    proxy = proxy_of(uri)
    hint = f" (asked by way of the proxy of {proxy}: NO_PROXY names hosts that need none)"
    try:
        # With the proxies of now: urlopen has those of its first call in this process.
        ask = urllib.request.build_opener().open
        ask(f"{uri.rstrip('/')}/health", timeout=_ANSWER_SECONDS).close()
    except urllib.error.HTTPError as error:  # it answers; it may ask for a password
        error.close()
        if proxy and error.code in _OF_PROXIES:
            raise AwayError(
                f"cannot reach the MLflow server {uri}: {error.code} {error.reason}{hint}"
            ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # MLflow has settings of its own for certificates
            why = getattr(reason, "strerror", None) or reason
            raise AwayError(
                f"cannot reach the MLflow server {uri}: {why}{hint * bool(proxy)}; is it running, "
                "and is the address right?"
            ) from error


def proxy_of(uri: str) -> str:
    """The variable whose proxy requests to a server go to; empty if they go there themselves."""
    parts = urlsplit(uri)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    names = (f"{parts.scheme}_proxy", "all_proxy")
    found = (name for low in names for name in (low, low.upper()) if os.environ.get(name))
    return next(found, "")


def check_proxy(uri: str) -> None:
    """Refuse to ask a proxy for a server of this machine.

    Raises:
        ElthError: with the variable that says so, and the one that mends it.
    """
    host = urlsplit(uri).hostname or ""
    variable = proxy_of(uri)
    if variable and (host in ("localhost", "::1") or host.startswith("127.")):
        before = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        raise ElthError(
            f"{variable} is set, and a proxy cannot reach {uri}, which is this machine: set "
            f"NO_PROXY={before + ',' if before else ''}{host}"
        )


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
