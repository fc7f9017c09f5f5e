"""What test_apart calls in another process."""

from __future__ import annotations

import os
import time


def talk(number: int) -> list[int]:
    """Print, and return."""
    print(number, "words", flush=True)
    return [number, number]


def process() -> int:
    """Which process this is."""
    return os.getpid()


def wait(seconds: float) -> None:
    """Do nothing for a while."""
    print(os.getpid(), flush=True)
    time.sleep(seconds)


def end(code: int) -> None:
    """End without a word; below 0 by a signal."""
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


def fail() -> None:
    """Fail as only a mistake in the code does."""
    raise ZeroDivisionError("by nothing")


class OddError(Exception):
    """Cannot be made of its text alone."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def odd() -> None:
    """Fail with what cannot be sent."""
    raise OddError(1, 2)
