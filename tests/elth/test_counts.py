"""Counts that leave something, and those that leave nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elth.counts import (
    check_round,
    check_sparsity,
    kept_after,
    kept_at,
    largest_sparsity,
    last_round,
)
from elth.errors import ElthError


def test_the_last_round_that_leaves_a_weight() -> None:
    assert [kept_after(0.9, k, 43_656) for k in range(7)] == [43_656, 4_365, 436, 43, 4, 0, 0]
    assert last_round(0.9, 43_656) == 4
    assert last_round(0.9, 43_656, least=43) == 3
    assert last_round(0.9, 43_656, least=44) == 2
    assert last_round(0.9, 9) == 0
    assert kept_after(0.5, 10**9, 4) == 0, "rounds of nothing are not counted one by one"


@given(st.sampled_from([0.1, 0.2, 0.5, 0.9, 0.99]), st.integers(1, 10**6), st.integers(1, 40))
def test_after_the_last_round_there_is_too_little(rate: float, total: int, least: int) -> None:
    last = last_round(rate, max(total, least), least)
    assert kept_after(rate, last, max(total, least)) >= least
    assert kept_after(rate, last + 1, max(total, least)) < least


@given(st.integers(2, 10**8), st.integers(1, 1000))
def test_the_largest_sparsity_leaves_just_enough(total: int, least: int) -> None:
    least = min(least, total // 2)
    assert least <= kept_at(largest_sparsity(total, least), total) <= least + 1


def test_a_round_that_leaves_nothing_is_refused_with_the_last_that_does_not() -> None:
    check_round(4, 0.9, 43_656)
    with pytest.raises(ElthError) as caught:
        check_round(6, 0.9, 43_656, of="resnet14")
    assert str(caught.value) == (
        "round 6 of resnet14 would keep none of 43,656 weights: round 4 is the last that keeps any "
        "(4), where each prunes 0.9 of what is left"
    )
    with pytest.raises(ElthError, match="round 1 would keep none of 9 weights: no round does, whe"):
        check_round(1, 0.9, 9)
    check_round(2, 0.5, 40, whole=10, unpruned=["head"])
    with pytest.raises(
        ElthError,
        match=r"round 3 would keep 5 weights, and 10 in head are never pruned: round 2 is the last "
        r"that keeps as many \(10\), where each prunes 0.5",
    ):
        check_round(3, 0.5, 40, whole=10, unpruned=["head"])


def test_a_sparsity_that_leaves_nothing_is_refused_with_the_largest_that_does_not() -> None:
    assert check_sparsity(0.9, 43_656) == 4365
    assert check_sparsity("0.99997", 43_656) == 1
    with pytest.raises(ElthError) as caught:
        check_sparsity(0.99999, 43_656, of="resnet14")
    assert str(caught.value) == (
        "a sparsity of 0.99999 on resnet14 would keep none of 43,656 weights: ask for 0.99997 at "
        "most, which keeps 1"
    )
    with pytest.raises(ElthError, match=r"and 10 in head are never pruned: ask for 0.75 at most"):
        check_sparsity(0.9, 40, whole=10, unpruned=["head"])
