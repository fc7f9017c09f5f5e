"""How many trials find room on some machines: no worker lies across two of them."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from orchestrator.experiment.sections import Resources


def workers_on(want: Resources, *, cpus: int | None, gpus: int) -> int:
    """How many workers of trials a machine has room for.

    Args:
        want: what a worker takes.
        cpus: cores of the machine; None where they are taken to be enough.
        gpus: its GPUs. A worker takes one or a part of one, and each GPU is divided by itself.

    Raises:
        ValueError: nothing bounds them, as cores are not known and no GPU is asked for.
    """
    if cpus is None and not want.gpus:
        raise ValueError("a worker takes cores alone, and it is not said how many there are")
    counts = [] if cpus is None else [cpus // want.cpus]
    if want.gpus:
        counts.append(gpus * int(1 / want.gpus))
    return min(counts)


def trials_on(want: Resources, room: Sequence[int]) -> int:
    """How many trials find room at a time.

    Args:
        want: how many workers a trial has, and how they have to lie.
        room: of each machine, how many workers fit on it.
    """
    if want.placement == "strict_pack":
        return sum(one // want.workers for one in room)
    count = sum(room) // want.workers
    if want.placement != "strict_spread":
        return count

    def is_too_many(trials: int) -> bool:  # each machine has one worker of a trial at most
        return sum(min(one, trials) for one in room) < trials * want.workers

    return bisect.bisect_left(range(1, count + 1), True, key=is_too_many)
