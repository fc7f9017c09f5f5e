"""How far weights travel, by hand."""

from __future__ import annotations

import math

import pytest

from elth.analysis import angular, distance_travelled, l2_shared, similarity_to_end
from tests.elth.analysis.helpers import drawn, drawn_mask, keeps, one


def test_by_hand() -> None:
    found = distance_travelled(one(3, 0, 7), one(3, -3, 9), keeps(1, 1, 0))
    assert found.plain() == pytest.approx(
        {
            "angular": 0.5,
            "cosine": math.sqrt(0.5),
            "l2": 3.0,
            "start_norm": 3.0,
            "end_norm": math.sqrt(18),
            "start_sum": 3.0,
            "end_sum": 6.0,
        }
    )


def test_it_is_the_distance_under_the_mask() -> None:
    start, end, mask = drawn(0), drawn(1), drawn_mask(0, 0.5)
    found = distance_travelled(start, end, mask)
    assert found.angular == angular(start, mask, end, mask)
    assert found.l2 == l2_shared(start, mask, end, mask)


def test_of_nothing_there_is_no_direction() -> None:
    found = distance_travelled(one(1, 2), one(3, 4), keeps(0, 0)).plain()
    assert found == {
        "angular": None,
        "cosine": None,
        "l2": None,
        "start_norm": 0,
        "end_norm": 0,
        "start_sum": 0,
        "end_sum": 0,
    }


def test_the_way_to_the_end() -> None:
    way = [one(1, 0), one(1, 1), one(0, 2)]
    found = similarity_to_end(way, keeps(1, 1))
    assert found == pytest.approx((0, math.sqrt(0.5), 1))
