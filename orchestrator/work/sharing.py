"""Several drivers on one cluster: small trials make room for a job of several workers, in turns.

Ray places what fits. A job that wants many devices at once never does while the small trials of
another driver follow each other on them. So a driver whose job has waited for a *turn* says so in
the memory of Ray's head. Drivers of trials of one process, which read it, have theirs write
checkpoints and end, and go on once the job is placed, or a turn later if it cannot be. Between two
such ends they have a turn at least, so neither kind waits for ever.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable

_NAMESPACE = "elth-turns"
_LOOK_SECONDS = 2.0
_SILENT_SECONDS = 60.0
"""Without a change for so long a request is one of a driver that has died."""


def turn() -> float:
    """Seconds that a job waits before others make room, and that those then have at least."""
    return float(os.environ.get("ELTH_TURN_SECONDS", "300"))


class Turns:
    """What a driver asks of the others on its cluster, and what they ask of it."""

    def __init__(self, driver: str, *, yields: bool) -> None:
        """Prepare.

        Args:
            driver: whose turns these are.
            yields: whether its trials make room for jobs of several workers.
        """
        self._driver = driver
        self._yields = yields
        self._looked = 0.0
        self._since = time.monotonic()
        self._count = 0
        self._seen: dict[str, tuple[str, float]] = {}

    def look(self, waits: float) -> bool:
        """Ask or stop asking for room; whether to make room for others. Called again and again.

        Args:
            waits: for how many seconds a job of this driver has not had its workers.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return False
        self._looked = now
        try:
            if not self._yields:
                self._ask(wanted=waits > turn())
                return False
            return self._others_wait() and now - self._since > turn()
        except Exception:  # Ray's, of many kinds: the head is away for a moment
            return False

    def wait(self, over: Callable[[], bool]) -> None:
        """Wait until what was asked for is placed, a turn at most, or until ``over`` says so."""
        end = time.monotonic() + turn()
        while self._others_wait() and time.monotonic() < end and not over():
            time.sleep(0.5)
        self._since = time.monotonic()

    def end(self) -> None:
        """Ask for nothing any more."""
        self._ask(wanted=False)

    def _ask(self, *, wanted: bool) -> None:
        if wanted:
            self._count += 1
            _put(self._driver, json.dumps({"beat": self._count}))
        elif self._count:
            self._count = 0
            _delete(self._driver)

    def _others_wait(self) -> bool:
        now, requests = time.monotonic(), _requests()
        self._seen = {driver: seen for driver, seen in self._seen.items() if driver in requests}
        for driver, text in requests.items():
            before = self._seen.get(driver)
            if before is None:  # it may be of a driver that died long ago: wait for a change
                self._seen[driver] = text, -math.inf
            elif before[0] != text:
                self._seen[driver] = text, now
        return any(now - changed < _SILENT_SECONDS for _, changed in self._seen.values())


def _put(driver: str, text: str) -> None:
    from ray.experimental import internal_kv

    internal_kv._internal_kv_put(driver, text, namespace=_NAMESPACE)


def _delete(driver: str) -> None:
    from ray.experimental import internal_kv

    internal_kv._internal_kv_del(driver, namespace=_NAMESPACE)


def _requests() -> dict[str, str]:
    """What drivers have put, by driver."""
    from ray.experimental import internal_kv

    found = {}
    for name in internal_kv._internal_kv_list("", namespace=_NAMESPACE):
        text = internal_kv._internal_kv_get(name, namespace=_NAMESPACE)
        if text is not None:  # else withdrawn meanwhile
            found[name.decode()] = text.decode()
    return found
