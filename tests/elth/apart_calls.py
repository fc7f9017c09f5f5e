"""What test_apart calls in another process."""

from __future__ import annotations

import os
import time

from elth.errors import ElthError


def talk(number: int) -> list[int]:
    """Print, and return."""
    print(number, "words", flush=True)
    return [number, number]


def version(name: str, *, digits: bool) -> str:
    """The version of torch, with its name unless only the digits are asked for."""
    import torch

    number = torch.__version__.partition("+")[0]
    return number if digits else f"{name} {number}"


def refuse(what: str, *, because: str) -> None:
    """Fail with what users are meant to read."""
    raise ElthError(f"{what} is {because}")


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
