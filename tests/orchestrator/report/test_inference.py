"""Intervals, Holm's correction and power, against scipy's own tests, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.report.inference import ERROR, MOST, Samples, holm, seeds_needed
from tests.orchestrator.helpers import QUICK

FIVE = [0.4, 0.1, 0.7, 0.3, 0.2]


def test_an_interval_is_that_of_a_paired_t_test() -> None:
    ours, theirs = np.array([95.1, 94.8, 96.0]), np.array([94.0, 94.9, 94.4])
    samples = Samples.of([(ours - theirs).tolist()])
    paired = stats.ttest_rel(ours, theirs)
    for level in (0.95, 0.999):
        found = samples.interval(1 - level)
        assert np.ravel(found) == pytest.approx([*paired.confidence_interval(level)])
    assert samples.p("differs", 0.5)[0] == pytest.approx(paired.pvalue)


def test_an_interval_by_hand() -> None:
    # Mean .34, deviation .2302; t of 4 degrees of freedom at 97.5 % is 2.776.
    low, high = Samples.of([FIVE]).interval(0.05)
    half = 2.7764 * 0.230217 / 5**0.5
    assert (low[0], high[0]) == (
        pytest.approx(0.34 - half, abs=1e-4),
        pytest.approx(0.34 + half, abs=1e-4),
    )


@pytest.mark.parametrize(
    "values", [[], [1.0], [0.2, 0.2], [0.2, 0.2 + 3e-15, 0.2], [0.0] * 10], ids=str
)
def test_without_a_spread_there_is_no_interval(values: list[float]) -> None:
    """Equal differences come of few test images: that of two seeds they are is no certainty."""
    samples = Samples.of([values])
    assert np.isnan(samples.interval(0.05)).all()
    for relation in ("differs", "above", "below", "matches", "reaches"):
        assert samples.p(relation, 0.5).tolist() == [1.0]


def test_one_sided_and_equivalence_p_values_are_scipys_doubled() -> None:
    samples = Samples.of([FIVE])

    def one_sided(about: float, side: str) -> float:
        return float(stats.ttest_1samp(FIVE, about, alternative=side).pvalue)

    assert samples.p("above", 0.5)[0] == pytest.approx(2 * one_sided(0, "greater"))
    assert samples.p("below", 0.5)[0] == 1.0
    assert samples.p("reaches", 0.5)[0] == pytest.approx(2 * one_sided(-0.5, "greater"))
    both = max(one_sided(-0.5, "greater"), one_sided(0.5, "less"))  # two one-sided tests
    assert samples.p("matches", 0.5)[0] == pytest.approx(2 * both)


@QUICK
@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=6),
    st.floats(1e-4, 0.9),
    st.sampled_from(["differs", "above", "below", "matches", "reaches"]),
)
def test_a_relation_is_shown_by_an_interval_if_and_only_if_p_is_below_its_error(
    values: list[float], error: float, relation: str
) -> None:
    samples = Samples.of([values])
    if np.isnan(samples.deviation[0]):
        return
    low, high = (float(end[0]) for end in samples.interval(error))
    p = float(samples.p(relation, 0.5)[0])
    shown = {
        "differs": low > 0 or high < 0,
        "above": low > 0,
        "below": high < 0,
        "matches": low > -0.5 and high < 0.5,
        "reaches": low > -0.5,
    }[relation]
    if abs(p - error) > 1e-9:
        assert shown == (p < error)


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04: times 4, 3, 2, 1 and never falling .02 .03 .06 .06.
    corrected, level = holm(np.array([0.01, 0.04, 0.03, 0.005]), 4)
    assert corrected == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # The procedure ends at the third, which is tested at .05 / 2; so it is for what comes after.
    assert level == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])


def test_holm_counts_what_is_not_known_yet() -> None:
    corrected, level = holm(np.array([0.01, 0.02]), 5)
    assert corrected == pytest.approx([0.05, 0.08])
    assert level == pytest.approx([0.05 / 5, 0.05 / 4])


def test_holm_where_all_is_rejected_and_where_nothing_is() -> None:
    corrected, level = holm(np.array([0.001, 0.002]), 2)
    assert corrected == pytest.approx([0.002, 0.002])
    assert level == pytest.approx([0.025, 0.05])
    corrected, level = holm(np.array([0.6, 0.9]), 2)
    assert corrected == pytest.approx([1.0, 1.0])
    assert level == pytest.approx([0.025, 0.025])
    assert [found.tolist() for found in holm(np.array([]), 3)] == [[], []]


@QUICK
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(0, 3))
def test_what_holm_rejects_is_below_its_level(values: list[float], unknown: int) -> None:
    p, size = np.array(values), len(values) + unknown
    corrected, level = holm(p, size)
    rejected = corrected <= ERROR
    # As its definition has it: one after the other, until one is not below its level.
    expected = np.zeros(len(p), dtype=bool)
    for step, place in enumerate(np.argsort(p, kind="stable")):
        if p[place] * (size - step) > ERROR:
            break
        expected[place] = True
    assert rejected.tolist() == expected.tolist()
    slack = 1 + 1e-12
    assert (p[rejected] <= level[rejected] * slack).all()
    assert (p[~rejected] * slack > level[~rejected]).all()
    assert (level <= ERROR * slack).all()
    assert (level * slack >= ERROR / size).all()


def _drawn(mean: float, deviation: float, n: int, count: int) -> Samples:
    rng = np.random.default_rng(0)
    return Samples.of(rng.normal(mean, deviation, (count, n)).tolist())


@pytest.mark.parametrize("mean", [0.0, 0.3, 0.6])
def test_seeds_needed_against_a_simulation(mean: float) -> None:
    """So many seeds decide it in at least 80 of 100 cases, and one less does not."""
    spread = 0.7
    values = np.array([-1.0, 1.0, 0.0])
    so_far = Samples.of([(mean + spread * values).tolist()])  # of just this mean and deviation
    assert so_far.deviation[0] == pytest.approx(spread)
    differs, within = np.array([0.01]), np.array([0.005])
    (more,) = seeds_needed(so_far, centre=0.0, margin=0.5, differs=differs, within=within)
    powers = []
    for n in (3 + int(more) - 1, 3 + int(more)):
        samples = _drawn(mean, spread, n, 4000)
        low, high = samples.interval(0.01)
        inner, outer = samples.interval(0.005)
        powers.append(np.mean((low > 0) | (high < 0) | ((inner > -0.5) & (outer < 0.5))))
    error = 3 * (0.8 * 0.2 / 4000) ** 0.5
    assert powers[0] < 0.8 + error
    assert powers[1] > 0.8 - error


def test_seeds_needed_of_claims() -> None:
    """To be 80 % sure that .5 ± .5 is above 0 takes more than to see that it is above -.5."""
    samples = Samples.of([[0.0, 0.5, 1.0]])
    one = np.array([0.05])
    above, reaches = (
        seeds_needed(samples, centre=centre, margin=None, differs=one, within=one)[0]
        for centre in (0.0, -0.5)
    )
    matches = seeds_needed(samples, centre=0.0, margin=0.5, differs=one, within=one, outside=True)[
        0
    ]
    assert (above, reaches) == (7, 2)
    assert matches == MOST + 1, "a mean just at the margin is on neither side of it"


def test_power_of_a_t_test_is_that_of_the_noncentral_t() -> None:
    samples = Samples.of([[0.0, 0.5, 1.0]])
    one = np.array([0.05])
    (more,) = seeds_needed(samples, centre=0.0, margin=None, differs=one, within=one)

    def power(n: int) -> float:
        bound, shift = stats.t.isf(0.025, n - 1), n**0.5  # mean and deviation are both .5
        return float(stats.nct.sf(bound, n - 1, shift) + stats.nct.cdf(-bound, n - 1, shift))

    assert power(3 + int(more) - 1) < 0.8 <= power(3 + int(more))


def test_seeds_that_cannot_be_told_or_are_too_many() -> None:
    samples = Samples.of([[1.0], [0.2, 0.2], [0.001, -9.0, 9.0]])
    levels = np.full(3, 0.05)
    found = seeds_needed(samples, centre=0.0, margin=0.5, differs=levels, within=levels)
    assert found.tolist() == [0, 0, MOST + 1]
