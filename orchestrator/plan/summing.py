"""Amounts that come evenly over stretches of time, added up over equal windows."""

from __future__ import annotations

from collections.abc import Iterable

Piece = tuple[float, float, float]
"""Begin, end and amount."""
_AT_ONCE = 1e-6
"""What takes less comes at once; a slope as steep would drown the others in rounding."""

_PARTS = 4
"""Of a window, by which another may begin later."""


class Spread:
    """Amounts, each spread evenly between two times; at once where both are about the same.

    Args:
        pieces: the amounts.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        slopes: dict[float, float] = {}
        jumps: dict[float, float] = {}
        total = 0.0
        for begin, end, amount in pieces:
            total += amount
            if end - begin > _AT_ONCE:
                slope = amount / (end - begin)
                slopes[begin] = slopes.get(begin, 0.0) + slope
                slopes[end] = slopes.get(end, 0.0) - slope
            else:
                jumps[end] = jumps.get(end, 0.0) + amount
        self.total = total
        self._changes = [
            (time, slopes.get(time, 0.0), jumps.get(time, 0.0))
            for time in sorted({*slopes, *jumps})
        ]

    def most(self, width: float, count: int) -> float:
        """The largest amount within a width, wherever that begins, to a quarter of the width.

        Args:
            width: of what is looked at.
            count: how many of them all takes.
        """
        parts = self.within(width / _PARTS, _PARTS * count)
        return max(sum(parts[i : i + _PARTS]) for i in range(max(1, len(parts) - _PARTS + 1)))

    def within(self, width: float, count: int) -> list[float]:
        """The amounts in each of ``count`` windows of a width, the first of which begins at 0.

        What comes at the end of a window is the window's; what comes after the last one is the
        last one's.
        """
        found, so_far = [], 0.0
        at, slope, level, index = 0.0, 0.0, 0.0, 0
        for number in range(1, count + 1):
            stop = number * width if number < count else float("inf")
            while index < len(self._changes) and self._changes[index][0] <= stop:
                time, more, jump = self._changes[index]
                level += slope * (time - at) + jump
                slope += more
                at, index = time, index + 1
            if number < count:
                level += slope * (stop - at)
                at = stop
            found.append(max(level - so_far, 0.0))
            so_far = level
        return found
