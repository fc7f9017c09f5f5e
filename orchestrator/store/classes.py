"""Numerics classes of what was begun in one and went on in another.

Its bits are those of neither alone, nor does the next one that changes so have the same.
"""

from __future__ import annotations

import re

_THEN = " then "


def onwards(before: str, now: str) -> str:
    """The class of what was done in ``before``, which may be several, and goes on in ``now``.

    Example:
        >>> onwards("a", "b")
        'a then b'
        >>> onwards("a then b", "b")
        'a then b'
    """
    return before if parts(before)[-1] == now else f"{before}{_THEN}{now}"


def parts(name: str) -> list[str]:
    """The classes, in the order of their times; one where it did not change."""
    return name.split(_THEN)


def takes_as_long(name: str, *, gpus: float, workers: int) -> bool:
    """Whether what was done in a class tells how long things take on trials of this kind.

    Both on a GPU or both on a CPU, and by as many workers; a class that does not say counts.
    """
    for one in parts(name):
        on_cpu, said = one.startswith("cpu"), re.search(r"/workers-(\d+)/", one)
        if one and on_cpu == bool(gpus):
            return False
        if said is not None and int(said[1]) != workers:
            return False
    return True


def is_mixed(name: str) -> bool:
    """Whether it changed on the way, so that not even the same classes give the same bits."""
    return _THEN in name
