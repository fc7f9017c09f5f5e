"""The end of a run before its end: Ctrl-C, SIGTERM, a batch system's warning, its hours are over.

On the first signal, or once its time is over, trials are told to write a checkpoint and end, and no
more are begun; the run ends once they have, or when they take too long. On the second signal it
ends at once. Either way the same command goes on from what is tracked and saved.

Trials are told by a value in the memory of Ray's head, which any process of the cluster can read.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""SIGUSR1 is what batch systems send before a time limit (``--signal=B:USR1@120`` of SLURM)."""

GRACE_SECONDS = 45.0
"""What trials get to write their checkpoints."""
_LOOK_SECONDS = 2.0
_NAMESPACE = "elth-stop"

Handler = Callable[[int, FrameType | None], Any]


class TimeOverError(KeyboardInterrupt):
    """A run was ended as the time was over that it had been given; it goes on as after Ctrl-C."""


@contextmanager
def restored() -> Iterator[None]:
    """Whatever takes over signals inside, the handlers of before are there again afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that Python did not set cannot be set by it either
                signal.signal(number, handler)


def like_ctrl_c() -> None:
    """Have the other signals do what Ctrl-C does.

    To be called again after Ray was started, which has a handler of its own for SIGTERM. A signal
    that is ignored, as SIGHUP under nohup, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if number != signal.SIGINT and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _as_ctrl_c)


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)  # of a job of Ray's, SIGINT itself is blocked
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:
        raise KeyboardInterrupt


class Stop:
    """What the driver has been asked, and what it has told the trials."""

    def __init__(self, driver: str, until: float | None = None) -> None:
        """Begin with no signal.

        Args:
            driver: whose trials are told.
            until: by ``time.monotonic``, when the run is to end as on a signal; None: never.
        """
        self.driver = driver
        self._until = until
        self.pauses = False
        """Whether trials end only for a while, to make room."""
        self._count = 0
        self._round = 0
        self._since = 0.0
        self._told = False
        self._end: Handler | None = None

    @property
    def name(self) -> str:
        """By which trials are told; another after each pause."""
        return f"{self.driver}/{self._round}"

    @property
    def asked(self) -> bool:
        """Whether a signal has come, or the time is over."""
        return self._count > 0 or self.is_late

    @property
    def is_late(self) -> bool:
        """Whether no signal has come and the time is over."""
        return not self._count and self._until is not None and time.monotonic() >= self._until

    def pause(self) -> None:
        """Have the trials of now write checkpoints and end, and Tune with them."""
        if not self.pauses and self._end is not None:
            self.pauses = True
            self._since = self._since or time.monotonic()

    def resume(self) -> None:
        """Be as new but for signals that have come; another loop of Tune is listened to."""
        self.pauses = False
        self._round += 1
        self._since = 0.0
        self._told = False
        self._end = None

    def listen(self, end: Handler) -> None:
        """Take over the signals; ``end`` is the handler that ends Tune's loop."""
        if self._end is not None or threading.current_thread() is not threading.main_thread():
            return
        self._end = end
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGUSR1:
                signal.signal(number, self._signalled)

    def look(self, *, busy: bool) -> None:
        """Do what is to be done now; called again and again, from the main thread.

        Args:
            busy: whether a trial is still at work.
        """
        if not (self.asked or self.pauses) or self._end is None:
            return
        self._since = self._since or time.monotonic()
        if not self._told:
            self._told = _tell(self.name)
        if not busy or time.monotonic() - self._since > GRACE_SECONDS:
            self._end(signal.SIGINT, None)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self._since = self._since or time.monotonic()
        if self._count == 2 and self._end is not None:
            self._end(number, frame)
        elif self._count > 2:
            raise KeyboardInterrupt


def watch(name: str) -> Callable[[], bool]:
    """For a trial: a function that says whether its driver wants it to end (``Stop.name``)."""
    last = [0.0]

    def asked() -> bool:
        now = time.monotonic()
        if now - last[0] < _LOOK_SECONDS:
            return False
        last[0] = now
        return _is_told(name)

    return asked


def _tell(name: str) -> bool:
    """Tell the trials of a driver to end; whether that was said."""
    import ray
    from ray.experimental import internal_kv

    if not ray.is_initialized():
        return True  # to nobody
    try:
        internal_kv._internal_kv_put(name, b"1", namespace=_NAMESPACE)
    except Exception:  # the head is away for a moment; there is another time
        return False
    return True


def _is_told(name: str) -> bool:
    import ray
    from ray.experimental import internal_kv

    if not ray.is_initialized():
        return False
    try:
        return bool(internal_kv._internal_kv_exists(name, namespace=_NAMESPACE))
    except Exception:  # the head is away for a moment; there is another time
        return False
