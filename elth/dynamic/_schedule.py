"""When a mask changes, and by how much; known without importing torch."""

from __future__ import annotations

import math
from fractions import Fraction


def fraction_at(step: int, end: int, fraction: float, least: float = 0.0) -> float:
    """Of a layer's weights, how many are moved (Evci et al. 2020, section 3, 2).

    Half a cosine from ``fraction`` at iteration 0 to ``least`` at ``end``.

    Example:
        >>> [round(fraction_at(t, 25_000, 0.3), 6) for t in (0, 6_250, 12_500, 18_750, 25_000)]
        [0.3, 0.256066, 0.15, 0.043934, 0.0]
    """
    return least + (fraction - least) / 2 * (1 + math.cos(math.pi * step / end))


def ramp(step: int, begin: int, end: int) -> Fraction:
    """How much of the final number of zeros there is: cubic from 0 to 1 (Zhu & Gupta 2017).

    Example:
        >>> [round(0.8 * float(ramp(t, 0, 5)), 4) for t in range(6)]
        [0.0, 0.3904, 0.6272, 0.7488, 0.7936, 0.8]
    """
    if step >= end:
        return Fraction(1)
    left = 1 - max(Fraction(0), Fraction(step - begin, end - begin))
    return 1 - left**3
