"""What paired differences say, in numbers: intervals, Holm's correction, power.

Every function takes arrays over comparisons, and distributions are scipy's. What the numbers are
used for, and why so, is in ``docs/judging.md``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]

ERROR = 0.05
"""How often something false may be said: of an interval, and of a family of comparisons."""
POWER = 0.8
"""How probable a decision has to be for a number of seeds to be enough."""
MOST = 100
"""How many more seeds are looked at."""

_SAME = 1e-6
"""Points of accuracy below which differences are equal: one of a million images is more."""
_NODES = 32
_ROWS = 256
"""Comparisons whose power is computed at a time: they share an array of some ten megabytes."""


@dataclass(frozen=True)
class Samples:
    """Paired differences of several comparisons: their number, mean and standard deviation."""

    n: Array
    mean: Array
    """Not a number where there is no difference."""
    deviation: Array
    """With n - 1. Not a number where it cannot be told: of one, or of equal ones. Equal differences
    come of a test set of few images, and not of a spread of none."""

    @staticmethod
    def of(differences: Sequence[Sequence[float]]) -> Samples:
        """Of the differences of each comparison, in points of accuracy."""
        found = np.full((3, len(differences)), np.nan)
        for place, given in enumerate(differences):
            values = np.asarray(given, dtype=np.float64)
            found[0, place] = len(values)
            if len(values):
                found[1, place] = values.mean()
            if len(values) > 1 and np.ptp(values) > _SAME:
                found[2, place] = values.std(ddof=1)
        return Samples(*found)

    def __getitem__(self, places: NDArray[np.intp] | NDArray[np.bool_]) -> Samples:
        """Some of the comparisons."""
        return Samples(self.n[places], self.mean[places], self.deviation[places])

    @property
    def error(self) -> Array:
        """Standard error of the mean."""
        return np.asarray(self.deviation / np.sqrt(self.n))

    def interval(self, error: float | Array) -> tuple[Array, Array]:
        """Student's t interval of the mean, which misses the truth with probability ``error``.

        Not a number where the deviation cannot be told.
        """
        with np.errstate(invalid="ignore"):
            half = stats.t.isf(np.asarray(error) / 2, self.n - 1) * self.error
        return self.mean - half, self.mean + half

    def p(self, relation: str, margin: float) -> Array:
        """The largest ``error`` at which the interval shows a relation, as a p value.

        So an interval at ``error`` lies where the relation says if and only if p is below it: these
        are tests of one side, or of two, at half of that on each side.

        Args:
            relation: one of ``differs``, ``above``, ``below``, ``matches`` and ``reaches``.
            margin: points of accuracy within which two count as equal.

        Returns:
            p values; 1 where the deviation cannot be told.
        """
        sides = {
            "above": [self.mean],
            "below": [-self.mean],
            "differs": [np.abs(self.mean)],
            "reaches": [self.mean + margin],
            "matches": [self.mean + margin, margin - self.mean],
        }[relation]
        with np.errstate(invalid="ignore"):
            found = [2 * stats.t.sf(side / self.error, self.n - 1) for side in sides]
        return np.nan_to_num(np.minimum(np.max(found, axis=0), 1.0), nan=1.0)


def holm(p: Array, size: int, error: float = ERROR) -> tuple[Array, Array]:
    """Holm's correction (1979) of the p values of a family.

    Sorted, the first is tested at ``error / size``, the next at ``error / (size - 1)``, and so on
    until one is not rejected; from there none is.

    Args:
        p: p values.
        size: of the family, which may have members of which no p value is known yet.
        error: the probability of rejecting any true hypothesis.

    Returns:
        corrected p values, which are at most ``error`` for what is rejected; and the level at which
        each was decided: of what is not rejected that at which the procedure ended.
    """
    order = np.argsort(p, kind="stable")
    factors = np.arange(size, size - len(p), -1, dtype=np.float64)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    rejected = int(np.sum(corrected <= error))
    level = np.empty(len(p))
    level[order] = error / np.maximum(factors, size - rejected)
    return corrected, level


def seeds_needed(
    samples: Samples,
    *,
    centre: float,
    margin: float | None,
    differs: Array,
    within: Array,
    outside: bool = False,
) -> Array:
    """How many more seeds would decide each comparison with a probability of ``POWER``.

    It takes the mean and deviation so far for true. A mean x, whose interval is x ± h, is undecided
    where lo <= |x - centre| <= h: with a margin lo is what h leaves of it. The probability of that
    is exact given the deviation of the larger sample, over whose distribution (chi) it is
    integrated by Gauss and Legendre's rule.

    Args:
        samples: what there is.
        centre: the difference from which the interval has to be away.
        margin: within which of it the interval would decide as well; None if it would not.
        differs: the error level of each interval that has to be away from the centre.
        within: and of each that has to be within the margin.
        outside: whether it has to be away from the margin instead, on one of its sides.

    Returns:
        numbers; ``MOST + 1`` for more than that, 0 where the deviation cannot be told.
    """
    found = np.zeros(len(samples.n))
    (places,) = np.nonzero(~np.isnan(samples.deviation))
    nodes = np.polynomial.legendre.leggauss(_NODES)
    weights = nodes[1] / 2
    for begin in range(0, len(places), _ROWS):
        some = places[begin : begin + _ROWS]
        one = samples[some]
        totals = (one.n[:, None] + np.arange(1, MOST + 1)).astype(np.intp)
        scale = one.deviation[:, None] / np.sqrt(totals)
        spread = _spread(int(totals.max()))[totals] * scale[:, :, None]
        away = _quantiles(differs[some], totals)[:, :, None] * spread
        high = away + (margin if outside and margin is not None else 0.0)
        low = np.zeros_like(high)
        if margin is not None:
            low = np.maximum(margin - _quantiles(within[some], totals)[:, :, None] * spread, 0.0)
        high = np.maximum(high, low)
        mean, error = one.mean[:, None, None], scale[:, :, None]
        undecided = sum(
            special.ndtr((centre + to - mean) / error) - special.ndtr((centre + at - mean) / error)
            for at, to in ((low, high), (-high, -low))
        )
        enough = 1 - undecided @ weights >= POWER
        found[some] = np.where(enough.any(axis=1), enough.argmax(axis=1), MOST) + 1
    return found


@functools.lru_cache(maxsize=8)
def _spread(most: int) -> Array:
    """By number of seeds and node: a sample's deviation, in units of the true one."""
    places = (np.polynomial.legendre.leggauss(_NODES)[0] + 1) / 2
    freedom = np.maximum(np.arange(most + 1) - 1, 1)[:, None]
    return np.asarray(np.sqrt(stats.chi2.ppf(places, freedom) / freedom))


def _quantiles(levels: Array, totals: NDArray[np.intp]) -> Array:
    """Student's t for each comparison's level and each number of seeds."""
    given, most = levels.tolist(), int(totals.max())
    tables = {level: _quantile(level, most) for level in set(given)}
    return np.stack([tables[level][row] for level, row in zip(given, totals, strict=True)])


@functools.lru_cache(maxsize=64)
def _quantile(level: float, most: int) -> Array:
    return np.asarray(stats.t.isf(level / 2, np.maximum(np.arange(most + 1) - 1, 1)))
