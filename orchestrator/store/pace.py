"""How often a worker sends: as often as its server bears, found by asking.

As of senders that share a line (additive increase, multiplicative decrease): each answer that comes
soon lets the next batch go a little earlier, a slow one or an error halves the rate. Hundreds of
workers so come to share what one server takes, whatever that is. What waits is merged, not dropped.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

SHORTEST = 5.0
"""Seconds between two batches of a stage's epochs, while the server answers at once."""
BEATS = 4
"""Signs of life within the length of a lease."""
CALLS = 14
"""Of a stage when it begins and ends, its first and last batch among them: to claim it, to begin
its run, four files, to look whether the lease is still its own (``make bench ARGS=tracker``)."""
SLOW = 2.0
"""Seconds from which on an answer says that the server has enough to do."""
_LONGEST = 120.0
_STEP = 1 / 60
"""Batches a second by which the rate grows with each answer."""
_SHARE = 0.005
"""Of a core, for sending."""

jitter = random.Random().uniform
"""A number between two, by a generator of its own: that of the process may be what a dataset or a
module of the user's draws from, while a thread sends."""


def lease_seconds() -> float:
    """Seconds without a sign of life after which a stage is taken over."""
    return float(os.environ.get("ELTH_LEASE_SECONDS", "60"))


class Pace:
    """Seconds between two batches of one worker.

    Args:
        shortest: what they come to while the server answers at once.
        draw: jitter, so that workers that began together part.
    """

    def __init__(self, shortest: float, draw: Callable[[float, float], float] = jitter) -> None:
        self._shortest, self._draw = shortest, draw
        self._between = shortest

    def answered(self, took: float, spent: float) -> None:
        """Note an answer.

        Args:
            took: seconds until it came.
            spent: seconds of this process's core that sending took.
        """
        if took >= SLOW:
            self.failed()
        else:
            self._between = max(self._shortest, self._between / (1 + self._between * _STEP))
        self._between = max(self._between, spent / _SHARE)

    def failed(self) -> None:
        """Note that none came, or an error."""
        longest = max(_LONGEST, self._shortest, self._between)
        self._between = min(2 * self._between, longest)

    def pause(self) -> float:
        """Seconds until the next batch."""
        return self._between * self._draw(0.75, 1.25)
