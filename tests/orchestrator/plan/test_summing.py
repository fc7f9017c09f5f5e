"""Amounts spread over time, added up over windows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.summing import Spread
from tests.orchestrator.helpers import QUICK


def test_what_is_spread_is_shared_by_the_windows_that_it_lies_in() -> None:
    found = Spread([(0, 4, 8), (1, 3, 1)])
    assert found.total == 9
    assert found.within(2, 2) == pytest.approx([4.5, 4.5])
    assert found.within(1, 4) == pytest.approx([2, 2.5, 2.5, 2])
    assert found.within(2, 4) == pytest.approx([4.5, 4.5, 0, 0])


def test_what_comes_at_once_is_of_the_window_that_ends_with_it() -> None:
    found = Spread([(2, 2, 5), (0, 0, 1), (4, 4, 3)])
    assert found.within(2, 2) == [6, 3]
    assert found.within(1, 4) == [1, 5, 0, 3]


def test_the_most_is_found_across_the_borders_of_windows() -> None:
    found = Spread([(59, 59, 50), (61, 61, 51)])
    assert max(found.within(60, 2)) == 51
    assert found.most(60, 2) == 101
    assert Spread([(0, 120, 120)]).most(60, 2) == pytest.approx(60)
    assert found.most(200, 1) == 101


def test_nothing_is_nothing() -> None:
    assert Spread([]).within(1, 3) == [0, 0, 0]
    assert Spread([]).most(1, 3) == 0


_PIECES = st.lists(
    st.tuples(st.floats(0, 50), st.floats(0, 20), st.integers(0, 9)).map(
        lambda one: (one[0], one[0] + one[1], one[2])
    )
)


@QUICK
@given(_PIECES, st.floats(0.5, 30), st.integers(1, 20))
def test_windows_hold_all_that_there_is(
    pieces: list[tuple[float, float, int]], width: float, count: int
) -> None:
    assert sum(Spread(pieces).within(width, count)) == pytest.approx(
        sum(amount for _, _, amount in pieces), abs=1e-4
    )
