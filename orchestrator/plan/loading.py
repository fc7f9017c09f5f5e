"""What the tracker must take while a plan is walked: stages, epochs, calls and bytes a second."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.plan.costs import stored_bytes
from orchestrator.plan.estimating import epochs
from orchestrator.plan.summing import Piece, Spread
from orchestrator.plan.walking import Course, Walk

_NAMES = ("stages", "epochs", "batches", "beats", "calls", "bytes")
_WINDOW = 60.0
_MOST_WINDOWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How much of something comes, and how fast."""

    total: float
    mean: float | None
    """A second, over the whole time; None where no time is known."""
    peak: float | None
    """A second, in the busiest window."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What comes to the tracker."""

    window: float | None
    """Seconds over which a peak is taken: a minute, but no longer than all takes; more of a plan
    that takes weeks. None where no time is known."""
    rates: Mapping[str, Rate]
    """Of ``stages``, ``epochs`` and ``bytes``; where times are known also of ``batches``, ``beats``
    and ``calls``: what a stage asks when it begins and ends, its batches, and signs of life where
    batches are too rare to take them along."""


def untimed(course: Course, kept: Iterable[str]) -> Load:
    """What comes in all, where no time is known.

    Args:
        course: what is to be done.
        kept: keys of the stages whose trained weights are kept.
    """
    kept, stages = frozenset(kept), course.stages
    totals = {
        "stages": len(stages),
        "epochs": sum(epochs(stage) for stage in stages),
        "bytes": sum(stored_bytes(stage, stage.key in kept) for stage in stages),
    }
    rates = {name: Rate(total=one, mean=None, peak=None) for name, one in totals.items()}
    return Load(window=None, rates=rates)


def load_of(walk: Walk, kept: Iterable[str], *, between: float, beat: float, calls: float) -> Load:
    """What a walk sends, whose costs are seconds.

    Args:
        walk: which stage begins and ends when.
        kept: keys of the stages whose trained weights are kept.
        between: seconds between two batches of a stage's epochs, while the server answers at once.
        beat: seconds between two signs of life of a stage.
        calls: of a stage when it begins and ends, its first and last batch among them.
    """
    kept = frozenset(kept)
    window = max(min(_WINDOW, walk.wall), walk.wall / _MOST_WINDOWS)
    count = math.ceil(walk.wall / window - 1e-9) if window else 0
    pieces: dict[str, list[Piece]] = {name: [] for name in _NAMES}
    for stage, begin, end in zip(walk.course.stages, walk.begins, walk.ends, strict=True):
        trained = epochs(stage)
        batches = min(trained, math.ceil((end - begin) / between)) if between else trained
        pieces["stages"].append((end, end, 1))
        pieces["epochs"].append((begin, end, trained))
        beats = (end - begin) / beat
        own = [(begin, begin, 1.0), (end, end, 1.0)]  # what it is, and how it ended
        pieces["batches"] += [(begin, end, batches), *own]
        pieces["beats"].append((begin, end, beats))
        each = [(begin, begin, calls / 2), (end, end, calls / 2)]
        pieces["calls"] += [(begin, end, max(batches, beats)), *each]
        pieces["bytes"].append((end, end, stored_bytes(stage, stage.key in kept)))
    return Load(
        window=window,
        rates={name: _rate(some, walk.wall, window, count) for name, some in pieces.items()},
    )


def _rate(pieces: list[tuple[float, float, float]], wall: float, window: float, count: int) -> Rate:
    spread = Spread(pieces)
    if not wall:
        return Rate(total=spread.total, mean=0.0, peak=0.0)
    mean = spread.total / wall
    peak = max(mean, spread.most(window, count) / window)  # the last window may be cut short
    return Rate(total=spread.total, mean=mean, peak=peak)
