"""When MLflow is away: patience.

A server that is killed, slow or full of errors costs time and nothing else. What has to be known
before a stage begins is asked for again and again; epochs wait in memory; what is finished waits in
the outbox.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Generator
from typing import TypeVar

from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator.store import answers
from orchestrator.store.pace import jitter, lease_seconds

T = TypeVar("T")

CLIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""How MLflow's own client asks again: for seconds and not for minutes, as more comes from here.

And it prints no address when a run ends, for which it would ask the server once more.
"""

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_LONGEST = 120
"""Seconds for which an answer is waited for where the server is known to be busy."""
_OF_A_LEASE = 0.6
"""A worker waits no longer than so much of its lease: one connection may be dead, and no sign of
life goes by another one meanwhile."""


OURS = frozenset(name for name in CLIENT if name not in os.environ)
"""What nobody has said otherwise."""

for _name in OURS:
    os.environ[_name] = CLIENT[_name]


def worker_timeout(lease: float | None = None) -> int:
    """Seconds for which a process that trains waits for an answer; it can wait.

    A busy server does what it was asked also when nobody waits for it any more, and does it again
    when it is asked again: if hundreds give up after 30 s, that soon is all it does.

    Args:
        lease: the length of a lease in seconds; by default that of this process.
    """
    length = lease_seconds() if lease is None else lease
    return int(min(_LONGEST, max(int(CLIENT[TIMEOUT]), _OF_A_LEASE * length)))


def noted(error: BaseException) -> None:
    """Wait longer from now on, in this process, if an error says that no answer came in time."""
    if "timed out" in str(error).lower():
        longer = max(_LONGEST, int(os.environ.get(TIMEOUT, "0")))
        os.environ[TIMEOUT] = str(longer)


def patience() -> float:
    """Seconds for which a store that does not answer is asked again."""
    return float(os.environ.get("ELTH_PATIENCE_SECONDS", "3600"))


class AwayError(ElthError):
    """The store does not answer, or only with errors of its own."""


def is_away(error: BaseException) -> bool:
    """Whether an error says that the store is away, so that asking again may help."""
    return isinstance(error, AwayError) or answers.may_help(error)


def plain(error: BaseException) -> str:
    """What an error of the store or the disk says, for people: without SQL, and with a remedy."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        place = error.filename2 or error.filename
        text = error.strerror + (f": {place}" if place else "")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{text}; {_FULL}"
    elif isinstance(error, MlflowException):
        found = re.search(r"\([\w.]+Error\) (.+?) *(\[SQL|\(Background|$)", text)
        text = f"the database of the store says: {found[1]}" if found else text
        if "is full" in text:
            return f"{text}; {_FULL}"
    return text


_POOL = (
    "for so many workers give the server MLFLOW_SQLALCHEMYSTORE_POOL_SIZE=40 and "
    "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW=40, and its database as many connections (docs/cluster.md)"
)

_FULL = "make room on that disk, and the same command goes on"


def waiting(call: Callable[[], T], what: object) -> Generator[str, None, T]:
    """Call until the store answers; yields once what a person should know, if it does not at once.

    Args:
        call: what to do; it may be done more than once.
        what: the store, for the message.

    Raises:
        AwayError: the store has not answered for too long.
    """
    end = time.monotonic() + patience()
    pause = 1.0
    while True:
        try:
            return call()
        except Exception as error:
            if not is_away(error):
                raise
            noted(error)
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if "queuepool limit" in reason.lower():
                reason += f"; {_POOL}"
            if time.monotonic() + pause > end:
                raise AwayError(
                    f"the store {what} has not answered for {patience():.0f} s ({reason}); give "
                    "the same command again once it does, and nothing is done twice"
                ) from error
            if pause == 1.0:
                yield f"the store {what} does not answer, what is next waits for it: {reason}"
        # Hundreds that wait for one server do not all come back in one moment.
        time.sleep(pause * jitter(0.5, 1.0))
        pause = min(2 * pause, 30.0)


def patiently(call: Callable[[], T], what: object) -> T:
    """Call until the store answers, and tell nobody; as ``waiting``."""
    asking = waiting(call, what)
    while True:
        try:
            next(asking)
        except StopIteration as end:
            answer: T = end.value
            return answer
