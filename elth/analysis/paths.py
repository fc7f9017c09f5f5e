"""Straight paths between two networks, in the space of all their weights.

theta(a) = (1 - a) theta_1 + a theta_2 (Frankle et al. 2020; Maene et al. 2021, section 4.3).
Weights, biases, and scale, shift and running statistics of batch normalisation are interpolated
alike. Pruned weights are zeros at their end, and there is no mask on the path: a weight that one
end has pruned goes to zero linearly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elth.analysis._numbers import number, read
from elth.analysis.barriers import Barriers, barrier
from elth.analysis.evaluator import NotMeasurableError
from elth.errors import ElthError

State = Mapping[str, Tensor]

Measure = Callable[[State], Mapping[str, float]]
"""From a state to named numbers; raises ``NotMeasurableError`` where there are none."""

_COUNTER = "num_batches_tracked"
"""Batches that a batch normalisation has seen: a count, which evaluation does not look at."""


def interpolate(first: State, second: State, a: float) -> dict[str, Tensor]:
    """The state (1 - a) first + a second, on the device and in the type of the ends.

    It is computed so that a = 0 and a = 1 give the ends bit for bit, and so do all points between
    two tensors that are equal. Outside of [0, 1] it is extrapolated. Counters of batches are those
    of ``first``.

    Raises:
        ElthError: the states are of two networks, or differ in whole numbers, as of a table, which
            have nothing between them; the message names the tensor.
    """
    _check_ends(first, second)
    if a in (0, 1):
        return {name: tensor.clone() for name, tensor in (second if a else first).items()}
    return {
        name: _between(x, second[name], a) if x.is_floating_point() else x.clone()
        for name, x in first.items()
    }


def _between(x: Tensor, y: Tensor, a: float) -> Tensor:
    """From the nearer end, each operation rounded by itself: the same bits on every machine."""
    difference = y - x
    line = x + difference * a if abs(a) < 0.5 else y - difference * (1 - a)
    return torch.where(x == y, x, line)  # a pruned weight may be the zero of either sign


def _check_ends(first: State, second: State) -> None:
    for name in first.keys() | second.keys():
        if name not in first or name not in second:
            raise ElthError(
                f"the ends of a path must be of one network: one of them has no '{name}'"
            )
    for name, x in first.items():
        y = second[name]
        if x.shape != y.shape or x.dtype != y.dtype:
            raise ElthError(
                f"the ends of a path must be of one network: '{name}' is {x.dtype} "
                f"{tuple(x.shape)} at one and {y.dtype} {tuple(y.shape)} at the other"
            )
        counts = name.rpartition(".")[2] == _COUNTER
        if not counts and not x.is_floating_point() and not torch.equal(x, y):
            raise ElthError(
                f"'{name}' holds {x.dtype}, and differs at the ends of the path: there is nothing "
                "between whole numbers"
            )


@dataclass(frozen=True, kw_only=True)
class Point:
    """What was measured at a point of a path."""

    at: float
    """a: 0 is the first end, 1 the second."""
    values: Mapping[str, float]
    """What was measured by name, as ``train_error``; empty where nothing could be."""
    unmeasured: str = ""
    """Why nothing could be measured."""

    def plain(self) -> dict[str, Any]:
        """JSON values, which ``of`` reads."""
        values = {name: number(value) for name, value in self.values.items()}
        reason = {"unmeasured": self.unmeasured} if self.unmeasured else {}
        return {"at": self.at, **values, **reason}

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Point:
        """Read what ``plain`` gave."""
        values = {n: read(v) for n, v in plain.items() if n not in ("at", "unmeasured")}
        return Point(at=float(plain["at"]), values=values, unmeasured=plain.get("unmeasured", ""))


def along(first: State, second: State, at: Iterable[float], measure: Measure) -> Iterator[Point]:
    """Measure the path from one state to another, point by point.

    Each point depends on the ends and its a alone. So a path that was stopped goes on with the
    points that its curve lacks (``Curve.left``), and comes to the same bits.

    Args:
        first: the state at a = 0, pruned weights zero.
        second: the state at a = 1.
        at: the points a, as of ``abscissae``.
        measure: what is measured, as an ``Evaluator``.

    Yields:
        Each point as it is measured; one that cannot be has a reason and no values.

    Raises:
        ElthError: while iterating, as ``interpolate`` and what is measured.
    """
    for a in at:
        try:
            yield Point(at=a, values=dict(measure(interpolate(first, second, a))))
        except NotMeasurableError as error:
            yield Point(at=a, values={}, unmeasured=str(error))


@dataclass(frozen=True)
class Curve:
    """The points of a path, in the order of a; of two at the same place the later one is kept."""

    points: tuple[Point, ...] = ()

    def __post_init__(self) -> None:
        """Put them in order."""
        found = {point.at: point for point in self.points}
        object.__setattr__(self, "points", tuple(found[a] for a in sorted(found)))

    @property
    def at(self) -> tuple[float, ...]:
        """The points a."""
        return tuple(point.at for point in self.points)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what was measured."""
        return tuple(dict.fromkeys(name for point in self.points for name in point.values))

    def values(self, name: str) -> tuple[float, ...]:
        """What was measured at each point, as ``train_error``; NaN where nothing could be."""
        return tuple(point.values.get(name, math.nan) for point in self.points)

    def left(self, at: Iterable[float]) -> tuple[float, ...]:
        """Those of the points a that are not here yet."""
        here = set(self.at)
        return tuple(a for a in at if a not in here)

    def barriers(self) -> dict[str, Barriers]:
        """The barriers of each name.

        Raises:
            ElthError: an end was not looked at.
        """
        return {name: barrier(self.at, self.values(name)) for name in self.names}

    def plain(self) -> list[dict[str, Any]]:
        """The points as JSON values, which ``of`` reads."""
        return [point.plain() for point in self.points]

    @staticmethod
    def of(plain: Iterable[Mapping[str, Any]]) -> Curve:
        """Read what ``plain`` gave."""
        return Curve(tuple(Point.of(point) for point in plain))
