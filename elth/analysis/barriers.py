"""Barriers: how far the error, or the loss, rises on the straight path between two networks.

Three definitions are in use, and they answer different questions where the ends differ. All are
taken from one stored curve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from elth.analysis._numbers import number
from elth.errors import ElthError


@dataclass(frozen=True, kw_only=True)
class Barriers:
    """The barriers of a path from a = 0 to a = 1, in the unit of its values.

    ``0 <= worse <= chord``, and ``mean = worse + |first - last| / 2``: the three are equal where
    the ends are. All are NaN where a value between the ends could not be measured.
    """

    mean: float
    """max E(a) - (E(0) + E(1)) / 2: linear interpolation instability, of twins (Frankle et al.
    2020; Maene et al. 2021, Figure 2). It is above 0 wherever the ends differ."""
    worse: float
    """max E(a) - max(E(0), E(1)): Maene et al. 2021, Figures 8, 20 and 23."""
    chord: float
    """max [E(a) - (1 - a) E(0) - a E(1)] (Entezari et al. 2022)."""
    first: float
    """E(0)."""
    last: float
    """E(1)."""
    top: float
    """max E(a), the ends among them; not a number where a value could not be measured."""
    top_at: float
    """The first a at which it is."""

    def plain(self) -> dict[str, float | None]:
        """All fields as JSON values; None for what is not a number."""
        return {field.name: number(getattr(self, field.name)) for field in fields(self)}


def barrier(at: Sequence[float], values: Sequence[float]) -> Barriers:
    """Measure the barriers of a curve.

    Args:
        at: abscissae a in any order, 0 and 1 among them; those outside of [0, 1] are passed over.
        values: E(a) at each of them, an error or a loss; NaN where it could not be measured.

    Example:
        >>> found = barrier([0, 0.5, 1], [10, 40, 20])
        >>> found.mean, found.worse, found.chord
        (25.0, 20, 25.0)

    Raises:
        ElthError: an end is missing, or there are more or fewer values than abscissae.
    """
    if len(at) != len(values):
        raise ElthError(f"a curve has a value at each point, found {len(values)} at {len(at)}")
    for end in (0, 1):
        if end not in at:
            raise ElthError(
                f"a barrier is measured between a = 0 and a = 1, and the curve has no point at "
                f"{end}: take points that include both ends"
            )
    inside = [(a, value) for a, value in sorted(zip(at, values, strict=True)) if 0 <= a <= 1]
    (_, first), (_, last) = inside[0], inside[-1]
    if any(math.isnan(value) for _, value in inside):
        nan = math.nan
        return Barriers(mean=nan, worse=nan, chord=nan, first=first, last=last, top=nan, top_at=nan)
    top_at, top = max(inside, key=lambda point: point[1])
    return Barriers(
        mean=top - (first + last) / 2,
        worse=top - max(first, last),
        # Written so that a curve that is level is exactly so.
        chord=max(value - (first + a * (last - first)) for a, value in inside if a < 1),
        first=first,
        last=last,
        top=top,
        top_at=top_at,
    )
