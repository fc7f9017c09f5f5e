"""Barriers, by hand."""

from __future__ import annotations

import json
import math

import pytest

from elth.analysis import Barriers, barrier
from elth.errors import ElthError


def _three(found: Barriers) -> tuple[float, float, float]:
    return found.mean, found.worse, found.chord


@pytest.mark.parametrize(
    ("at", "errors", "expected"),
    [
        ((0, 0.5, 1), (10, 40, 20), (25, 20, 25)),
        ((0, 0.25, 0.5, 0.75, 1), (10, 12.5, 15, 17.5, 20), (5, 0, 0)),
        ((0, 1 / 3, 2 / 3, 1), (0, 12, 10, 30), (15, 0, 2)),
        ((0, 0.5, 1), (10, 5, 10), (0, 0, 0)),
        ((0, 1), (3, 7), (2, 0, 0)),
    ],
    ids=["a hill", "a slope", "asymmetric", "a valley", "ends alone"],
)
def test_oracles(
    at: tuple[float, ...], errors: tuple[float, ...], expected: tuple[float, float, float]
) -> None:
    found = barrier(at, errors)
    assert _three(found) == pytest.approx(expected, abs=1e-12)
    assert found.mean == pytest.approx(found.worse + abs(found.first - found.last) / 2)
    backwards = barrier([1 - a for a in reversed(at)], errors[::-1])
    assert _three(backwards) == pytest.approx(expected, abs=1e-12)


def test_where_the_top_is() -> None:
    found = barrier((1, 0.75, 0.25, 0), (1, 9, 9, 2))
    assert (found.first, found.last, found.top, found.top_at) == (2, 1, 9, 0.25)


def test_a_level_curve_has_none_at_all() -> None:
    """To the last bit, whatever the number is."""
    for level in (100 * wrong / 37 for wrong in range(38)):
        found = barrier([i / 19 for i in range(20)], [level] * 20)
        assert _three(found) == (0.0, 0.0, 0.0)


def test_what_lies_outside_of_the_ends_plays_no_part() -> None:
    inside = barrier((0, 0.5, 1), (10, 40, 20))
    assert barrier((-0.2, 0, 0.5, 1, 1.2), (99, 10, 40, 20, math.nan)) == inside


def test_where_a_value_is_missing_there_is_no_barrier() -> None:
    found = barrier((0, 0.5, 1), (10, math.nan, 20))
    assert all(math.isnan(value) for value in (*_three(found), found.top, found.top_at))
    plain = {"mean": None, "worse": None, "chord": None, "top": None, "top_at": None}
    assert json.loads(json.dumps(found.plain())) == {"first": 10, "last": 20, **plain}


def test_plain_numbers() -> None:
    plain = barrier((0, 0.5, 1), (10, 40, 20)).plain()
    assert json.loads(json.dumps(plain)) == {
        "mean": 25,
        "worse": 20,
        "chord": 25,
        "first": 10,
        "last": 20,
        "top": 40,
        "top_at": 0.5,
    }


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ((0.1, 0.5, 1), "between a = 0 and a = 1, and the curve has no point at 0: take points t"),
        ((0, 0.5, 0.9), "the curve has no point at 1"),
        ((0, 1), "a curve has a value at each point, found 3 at 2"),
    ],
)
def test_curves_without_an_end_are_refused(at: tuple[float, ...], message: str) -> None:
    with pytest.raises(ElthError, match=message):
        barrier(at, (1, 2, 3))
