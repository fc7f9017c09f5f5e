"""Words and claims, by hand; and that no interval that is shown contradicts its word."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.judgement import KINDS, simulate
from elth.errors import ElthError
from orchestrator.experiment.axes import Axes
from orchestrator.experiment.claims import Claim
from orchestrator.report.cells import Cell, Report
from orchestrator.report.inference import ERROR, MOST
from orchestrator.report.judgement import Comparison, Judgement, Part, judge, word_of
from orchestrator.report.verdicts import verdicts_json
from tests.orchestrator.helpers import QUICK

NETWORK = "resnet20"


def cell(
    method: str, accuracy: Sequence[float], *, seeds: Sequence[int] = (), k: int = 2, **changes: Any
) -> Cell:
    """A cell of ResNet-20 at round 2, or a dense one at round 0."""
    moved = {"source": "resnet14", "transform": "append"} if method == "ett" else {}
    fields: dict[str, Any] = {
        "network": NETWORK,
        "method": method,
        **({"source": "", "transform": ""} | moved),
        "round": 0 if method == "dense" else k,
        "dataset": "digits",
        "sparsity": 0.75,
        "seeds": tuple(seeds) or tuple(range(len(accuracy))),
        "nonzeros": (250,) * len(accuracy),
        "accuracy": tuple(accuracy),
        "runs": ("",) * len(accuracy),
        "numerics": ("",) * len(accuracy),
        "seconds": (1.0,) * len(accuracy),
    }
    return Cell(**fields | changes)


IMP = cell("imp", [90.0, 91.0, 90.5, 90.2])


def off(method: str, *gaps: float, k: int = 2, **changes: Any) -> Cell:
    """A cell that is so far from IMP, seed by seed."""
    values = [a + gap for a, gap in zip(IMP.accuracy, gaps, strict=True)]
    return cell(method, values, k=k, **changes)


def of(*cells: Cell, claims: Sequence[dict[str, Any]] = (), **changes: Any) -> Report:
    found = tuple(Claim.model_validate(one) for one in claims)
    return Report(grid="hand", cells=cells, missing=0, claims=found, **changes)


def against_imp(*cells: Cell, **changes: Any) -> dict[str, Comparison]:
    judged = judge(of(IMP, *cells, **changes), ["imp"])
    return {one.cell.method: one for one in judged.comparisons}


# One comparison


def test_the_words() -> None:
    """Each alone in its family, so that the interval is that of 95 %."""
    for word, gaps in {
        "wins": (0.3, 0.4, 0.35, 0.3),
        "matches": (-0.1, 0.1, 0.2, 0.0),
        "loses": (-1.3, -1.4, -1.2, -1.3),
        "undecided": (-3.0, 2.0, 1.0, 0.5),
    }.items():
        (one,) = against_imp(off("ett", *gaps)).values()
        assert one.word == word
        assert one.values == pytest.approx(gaps)
        expected = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
        assert one.interval == one.alone == pytest.approx([*expected])
        assert (one.n, one.family) == (4, "IMP")
        assert one.confidence == pytest.approx(0.95)
        assert (one.more_seeds is not None) == (word == "undecided")


def test_what_is_below_but_within_the_margin_matches() -> None:
    one = against_imp(off("ett", -0.1, -0.15, -0.12, -0.1))["ett"]
    assert one.interval is not None
    assert one.interval[1] < 0
    assert one.word == "matches"
    assert against_imp(off("ett", -0.1, -0.15, -0.12, -0.1), margin=0.1)["ett"].word == "loses"
    above = against_imp(off("ett", 0.1, 0.15, 0.12, 0.1))["ett"]
    assert above.word == "wins", "winning comes first"


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        ((0.01, 0.02), "wins"),
        ((0.0, 0.5), "matches"),
        ((-0.5, -0.1), "matches"),
        ((-0.51, -0.1), "loses"),
        ((-0.51, 0.1), "undecided"),
        ((-0.1, 0.51), "undecided"),
        ((float("nan"), float("nan")), "undecided"),
    ],
    ids=str,
)
def test_the_words_at_their_bounds(interval: tuple[float, float], word: str) -> None:
    assert word_of(*interval, 0.5) == word


def test_pairs_are_of_the_seeds_that_both_have() -> None:
    ours = cell("ett", [91.0, 50.0, 92.0], seeds=[0, 1, 2])
    theirs = cell("imp", [90.0, 93.0, 99.0], seeds=[0, 2, 3])
    (one,) = judge(of(theirs, ours), ["imp"]).comparisons
    assert (one.seeds, one.values, one.mean) == ((0, 2), (1.0, -1.0), 0.0)
    apart = cell("ett", [91.0], seeds=[7])
    (one,) = judge(of(theirs, apart), ["imp"]).comparisons
    assert (one.n, one.mean, one.interval, one.why) == (0, None, None, "no common seed")
    assert (one.word, one.more_seeds) == ("undecided", None)


def test_one_seed_and_equal_differences_decide_nothing() -> None:
    (one,) = judge(of(cell("imp", [90.0]), cell("ett", [99.0])), ["imp"]).comparisons
    assert (one.word, one.interval, one.why, one.more_seeds) == (
        "undecided",
        None,
        "one seed",
        None,
    )
    assert one.mean == 9.0
    equal = against_imp(off("ett", 5.0, 5.0, 5.0, 5.0))["ett"]
    assert (equal.word, equal.interval, equal.why) == ("undecided", None, "4 equal differences")
    same = against_imp(off("ett", 0.0, 0.0, 0.0, 0.0))["ett"]
    assert same.word == "undecided"
    plain = same.plain()
    assert (plain["p"], plain["interval"], plain["difference"]) == (None, None, 0.0)


def test_more_seeds_are_told_in_words() -> None:
    one = against_imp(off("ett", -0.8, 0.9, 0.4, 0.6))["ett"]
    assert one.more_seeds is not None
    assert 1 < one.more_seeds <= MOST
    assert one.more_spelled() == f"{one.more_seeds} more seeds"
    many = against_imp(off("ett", -30.0, 30.0, 31.0, -31.0))["ett"]
    assert many.more_spelled() == "more than 100 more seeds"
    assert (many.plain()["more_seeds"], many.plain()["more_seeds_over"]) == (None, 100)
    judged = judge(of(IMP, off("ett", -0.8, 0.9, 0.4, 0.6)), ["imp"], estimate=False)
    assert judged.comparisons[0].more_seeds is None


def test_non_zeros_are_set_beside_those_of_the_baseline() -> None:
    one = against_imp(off("ett", 0.1, 0.2, 0.3, 0.4, nonzeros=(300, 200, 200, 200)))["ett"]
    assert one.kept == pytest.approx(0.9)


# What is compared with what


def places(judged: Judgement) -> list[tuple[str, int, str]]:
    return [(one.cell.method, one.cell.round, one.baseline.method) for one in judged.comparisons]


def test_every_cell_is_compared_with_dense_and_with_imp_of_its_level() -> None:
    report = of(
        cell("dense", [95.0, 96.0]),
        cell("imp", [90.0, 91.0], k=1),
        cell("imp", [80.0, 81.0], k=2),
        cell("random", [70.0, 71.0], k=2),
        cell("random", [60.0, 61.0], k=3),
        cell("imp", [1.0, 2.0], k=2, network="resnet32"),
        cell("ett", [1.0, 2.0], k=2, network="resnet32"),
    )
    assert places(judge(report)) == [
        ("imp", 1, "dense"),
        ("imp", 2, "dense"),
        ("random", 2, "dense"),
        ("random", 2, "imp"),
        ("random", 3, "dense"),
        ("ett", 2, "imp"),
    ]
    judged = judge(report)
    assert judged.families == {"dense": 4, "IMP": 2}
    found = judged.against("imp", report.cells[3])
    assert found is not None
    assert found.mean == -10.0
    assert judged.against("imp", report.cells[4]) is None


def test_variants_exact_sparsities_and_imported_tickets_are_apart() -> None:
    report = of(
        cell("dense", [95.0, 96.0]),
        cell("dense", [95.0, 96.0], variant="long"),
        cell("imp", [90.0, 91.0], variant="long"),
        cell("imp", [90.0, 91.0], target="0.8"),
        cell("imp", [90.0, 91.0], ticket="theirs"),
        cell("imp", [90.0, 91.0], noise=1),
        cell("random", [90.0, 91.0]),
        cell("random", [90.0, 91.0], variant="long"),
        cell("random", [90.0, 91.0], target="0.8"),
        cell("random", [90.0, 91.0], ticket="theirs"),
    )
    judged = judge(report)
    own = [one for one in judged.comparisons if one.cell.method == "random"]
    assert [(Axes.of(one.cell)[6:], one.baseline.method) for one in own] == [
        (("", "", "", 0), "dense"),
        (("", "", "long", 0), "dense"),
        (("", "", "long", 0), "imp"),
        (("0.8", "", "", 0), "dense"),
        (("0.8", "", "", 0), "imp"),
        (("", "theirs", "", 0), "dense"),
        (("", "theirs", "", 0), "imp"),
    ]
    assert all(one.cell.variant == one.baseline.variant for one in judged.comparisons)
    assert not any(one.cell.noise for one in judged.comparisons), "twins are compared where asked"


def test_any_line_can_be_the_baseline() -> None:
    report = of(
        IMP,
        off("ett", 0.1, 0.2, -1.1, 0.3),
        off("ett", 0.4, 0.2, 0.1, 0.3, transform="interpolate"),
        off("reinit", -3, -4, -3, -5),
    )
    judged = judge(report, [{"method": "ett", "transform": "append"}])
    assert judged.families == {"ETT append": 3}
    assert [one.cell.name for one in judged.comparisons] == [
        "IMP",
        "ETT <- resnet14 interpolate",
        "Reinit",
    ]
    assert {one.baseline.transform for one in judged.comparisons} == {"append"}
    assert [one.word for one in judged.comparisons] == ["undecided", "undecided", "loses"]
    with pytest.raises(Exception, match="did you mean 'imp'"):
        judge(report, ["imq"])


def test_a_baseline_that_is_named_twice_is_one() -> None:
    report = of(IMP, off("reinit", -2.0, -2.4, -2.1, -2.2))
    once, twice = judge(report, ["imp"]), judge(report, ["imp", {"method": "imp"}])
    assert (once.families, once.comparisons) == (twice.families, twice.comparisons)


def test_cells_that_are_only_on_the_way_are_not_compared() -> None:
    way = [cell(m, [90.0, 91.0], network="resnet14") for m in ("dense", "imp")]
    asked = frozenset({("digits", NETWORK)})
    judged = judge(of(*way, cell("dense", [95.0, 96.0]), IMP, asked=asked))
    assert places(judged) == [("imp", 2, "dense")]
    assert judged.comparisons[0].cell.network == NETWORK


def test_what_is_not_finished_counts_in_its_family() -> None:
    """Else what comes first would be judged less strictly."""
    ours = off("ett", 0.1, 0.9, 0.3, 0.4)
    planned = [Axes.of(IMP), Axes.of(ours), *(Axes.of(off(m, 0, 0, 0, 0)) for m in METHODS)]
    whole, alone = (
        judge(of(IMP, ours, planned=tuple(given)), ["imp"]) for given in (planned, planned[:2])
    )
    assert (whole.families, alone.families) == ({"IMP": 4}, {"IMP": 1})
    assert whole.comparisons[0].confidence == pytest.approx(1 - 0.05 / 4)
    assert whole.comparisons[0].corrected == pytest.approx(4 * alone.comparisons[0].corrected)


def test_a_hypothesis_is_counted_once_whichever_of_its_cells_is_the_baseline() -> None:
    one = off("ett", 0.1, 0.9, 0.3, 0.4)
    other = off("ett", 0.2, 0.5, 0.1, 0.7, transform="interpolate")
    judged = judge(of(IMP, one, other), ["ett"])
    assert judged.families == {"ETT": 3}, "IMP against both, and these two against each other"
    assert len(judged.comparisons) == 3


METHODS = ("reinit", "random", "magnitude")


def test_a_part_of_a_grid_is_judged_as_in_the_whole() -> None:
    """Showing less finds no more; and what is compared with need not be shown."""
    cells = (IMP, off("ett", 0.1, 0.9, 0.3, 0.4), *(off(m, 0, 1, 2, 3) for m in METHODS))
    whole = judge(of(*cells), ["imp"])
    part = judge(of(cells[1], whole=cells, only="method=ett"), ["imp"])
    assert part.families == whole.families == {"IMP": 4}
    assert part.comparisons == whole.comparisons[:1]


# A family


def test_a_family_is_corrected_by_holm_by_hand() -> None:
    """Two lines that are far off give the third its full 5 %, and the word with it."""
    close = (0.3, 0.6, 0.9, 1.2)
    alone = float(stats.ttest_1samp(close, 0).pvalue)
    assert 0.05 / 3 < alone < 0.05 / 1
    far = [(-3.0, -3.1, -3.0, -3.2), (-5.0, -5.1, -5.2, -5.0)]
    found = against_imp(off("ett", *close), off("reinit", *far[0]), off("random", *far[1]))
    one = found["ett"]
    assert one.word == "wins"
    assert one.confidence == pytest.approx(0.95)
    assert one.corrected == pytest.approx(alone)
    assert found["random"].confidence == pytest.approx(1 - 0.05 / 3)
    # With two that are close nothing is decided of them, at the level at which it ended.
    again = (0.3, 0.6, 0.9, 1.25)
    found = against_imp(off("ett", *close), off("reinit", *again), off("random", *far[1]))
    assert [one.word for one in found.values()] == ["undecided", "undecided", "loses"]
    assert found["reinit"].corrected == found["ett"].corrected > 1.9 * alone


def test_matching_is_held_to_the_level_of_all_of_the_family() -> None:
    """Holm's procedure does not bound how often something is falsely said to match."""
    near = (-0.3, 0.2, 0.25, 0.0)
    assert against_imp(off("ett", *near))["ett"].word == "matches"
    far = [(-3.0, -3.1, -3.0, -3.2), (-5.0, -5.1, -5.2, -5.0)]
    found = against_imp(off("ett", *near), off("reinit", *far[0]), off("random", *far[1]))
    assert found["ett"].word == "undecided"
    assert found["ett"].confidence == pytest.approx(1 - 0.05 / 3)


def test_a_win_is_asked_for_before_a_match() -> None:
    """By Holm's level above 0; by that of all of the family around it, within the margin."""
    near = (0.05, 0.1, 0.15, 0.2)
    far = [(-3.0, -3.1, -3.0, -3.2), (-5.0, -5.1, -5.2, -5.0)]
    found = against_imp(off("ett", *near), off("reinit", *far[0]), off("random", *far[1]))["ett"]
    assert found.word == "wins"
    assert found.corrected < 0.05
    assert found.interval is not None
    assert found.interval[0] > 0
    below = [-gap for gap in near]
    found = against_imp(off("ett", *below), off("reinit", *far[0]), off("random", *far[1]))["ett"]
    assert found.word == "matches", "it is below, and matches"


_GAPS = st.lists(st.floats(-2, 2), min_size=3, max_size=3)
_RELATIONS = st.sampled_from(["above", "below", "matches", "reaches"])


@QUICK
@given(st.lists(_GAPS, min_size=1, max_size=5), st.lists(_RELATIONS, max_size=3), st.booleans())
def test_no_interval_that_is_shown_contradicts_its_word(
    gaps: list[list[float]], relations: list[str], turned: bool
) -> None:
    imp = cell("imp", [90.0, 91.0, 90.5])
    lines = [
        cell(method, [a + gap for a, gap in zip(imp.accuracy, given, strict=True)])
        for method, given in zip(
            ("ett", "reinit", "random", "magnitude", "snip"), gaps, strict=False
        )
    ]
    claims = [
        {"imp": relation, "of": one.method} if turned else {one.method: relation, "of": "imp"}
        for relation, one in zip(relations, lines, strict=False)
    ]
    judged = judge(of(imp, *lines, claims=claims), ["imp"])
    for one in judged.comparisons:
        if one.interval is None:
            assert one.word == "undecided"
            continue
        assert one.word == word_of(*one.interval, 0.5)
        assert one.error <= ERROR * (1 + 1e-9)
        assert one.alone is not None
        assert one.interval[0] <= one.alone[0] + 1e-9, "never narrower than by itself"
        if one.word == "wins":
            assert one.corrected <= ERROR
    for claim in judged.claims:
        for part in claim.parts:
            assert part.interval is None or part.verdict == _verdict(part)


def _verdict(part: Part) -> str:
    """What the interval that is shown says of a claim."""
    assert part.interval is not None
    low, high = part.interval
    holds = {
        "above": low > 0,
        "below": high < 0,
        "matches": low > -0.5 and high < 0.5,
        "reaches": low > -0.5,
    }[part.relation]
    fails = {
        "above": high < 0,
        "below": low > 0,
        "matches": low > 0.5 or high < -0.5,
        "reaches": high < -0.5,
    }[part.relation]
    return "holds" if holds else "does not hold" if fails else "undecided"


# Claims

ETT = off("ett", 0.6, 0.7, 0.65, 0.62)
REINIT = off("reinit", -2.0, -2.4, -2.1, -2.2)
RANDOM = off("random", -3.0, -3.1, -2.5, -3.3)


def test_claims_are_one_family() -> None:
    claims: list[dict[str, Any]] = [
        {"ett": "above", "of": ["reinit", "random"], "network": NETWORK, "round": 2},
        {"imp": "below", "of": "ett"},
        {"ett": "matches", "of": "imp"},
        {"reinit": "reaches", "of": "imp"},
    ]
    judged = judge(of(IMP, ETT, REINIT, RANDOM, claims=claims))
    assert judged.families["claims"] == 5
    verdicts = [one.verdict for one in judged.claims]
    assert verdicts == ["holds", "holds", "does not hold", "does not hold"]
    assert [len(one.parts) for one in judged.claims] == [2, 1, 1, 1]
    part = judged.claims[0].parts[1]
    assert (part.baseline.method, part.verdict, part.n) == ("random", "holds", 4)
    values = [a - b for a, b in zip(ETT.accuracy, RANDOM.accuracy, strict=True)]
    assert part.p == pytest.approx(float(stats.ttest_1samp(values, 0).pvalue))
    refuted = judged.claims[3].parts[0]
    assert refuted.confidence == pytest.approx(1 - 0.05 / 5), "of all, by Bonferroni"
    # Their p values by Holm: the three that hold are the least.
    p = sorted(one.p for claim in judged.claims for one in claim.parts)
    corrected = sorted(one.corrected for claim in judged.claims for one in claim.parts)
    assert corrected[:3] == pytest.approx(
        [5 * p[0], max(5 * p[0], 4 * p[1]), max(4 * p[1], 3 * p[2])]
    )


def test_a_pair_that_something_is_claimed_of_is_in_no_other_family() -> None:
    """Seen from either side, and with the same outcome."""
    report = of(IMP, ETT, REINIT, RANDOM, claims=[{"imp": "above", "of": "reinit"}])
    judged = judge(report, ["imp"])
    assert judged.families == {"claims": 1, "IMP": 2}
    found = {one.cell.method: one for one in judged.comparisons}
    assert {m: one.family for m, one in found.items()} == {
        "ett": "IMP",
        "reinit": "claims",
        "random": "IMP",
    }
    part, one = judged.claims[0].parts[0], found["reinit"]
    assert (part.verdict, one.word) == ("holds", "loses")
    assert part.interval is not None
    assert one.interval == pytest.approx((-part.interval[1], -part.interval[0]))
    assert one.confidence == part.confidence
    assert one.corrected == pytest.approx(part.corrected)


def test_a_claim_of_what_is_not_finished_is_undecided() -> None:
    claims = [{"ett": "above", "of": ["reinit", "random"]}]
    planned = tuple(map(Axes.of, (IMP, ETT, REINIT, RANDOM)))
    (one,) = judge(of(IMP, ETT, REINIT, claims=claims, planned=planned)).claims
    assert ([p.verdict for p in one.parts], one.missing, one.verdict) == (["holds"], 1, "undecided")
    assert one.parts[0].confidence == pytest.approx(1 - 0.05 / 2)
    worse = [{"imp": "above", "of": ["ett", "random"]}]
    (one,) = judge(of(IMP, ETT, claims=worse, planned=planned)).claims
    assert (one.missing, one.verdict) == (1, "does not hold"), "whatever else comes"


def test_the_level_of_a_claim_of_dense_is_that_of_the_other() -> None:
    dense = cell("dense", [95.0, 95.4, 95.1, 95.3])
    claims: list[dict[str, Any]] = [
        {"dense": "above", "of": "imp", "round": 2},
        {"imp": "reaches", "of": "dense"},
    ]
    other = dataclasses.replace(IMP, round=3)
    above, reaches = judge(of(dense, IMP, other, claims=claims)).claims
    assert [part.baseline.round for part in above.parts] == [2]
    assert [part.cell.round for part in reaches.parts] == [2, 3]
    assert (above.verdict, reaches.verdict) == ("holds", "does not hold")


def test_twins_are_compared_where_a_claim_names_them() -> None:
    twin = off("imp", 0.1, -0.1, 0.05, 0.0, noise=1)
    claim = {"imp": "matches", "of": {"method": "imp", "noise": 0}, "noise": 1}
    (one,) = judge(of(IMP, twin, claims=[claim])).claims
    assert [(part.cell.noise, part.baseline.noise) for part in one.parts] == [(1, 0)]


def test_a_word_goes_by_the_claim_that_says_the_most() -> None:
    """Whichever of two that hold is named first."""
    gaps = (-1.5, -1.0, -0.6, -0.3, -0.1, 0.1, 0.3, 0.6, 1.0, 1.5)
    imp, near = cell("imp", [95.0] * 10), cell("ett", [95.2 + 0.2 * gap for gap in gaps])
    claims = [{"ett": "matches", "of": "imp"}, {"ett": "above", "of": "imp"}]
    judged = judge(of(imp, near, claims=claims), ["imp"])
    assert [one.verdict for one in judged.claims] == ["holds", "holds"]
    (found,), above = judged.comparisons, judged.claims[1].parts[0]
    assert (found.word, found.corrected) == ("wins", above.corrected)
    assert judge(of(imp, near, claims=claims[::-1]), ["imp"]).comparisons == judged.comparisons


def test_a_variant_can_be_compared_with_the_experiment_itself() -> None:
    long = off("imp", 1.1, 1.2, 1.0, 1.05, variant="long")
    claim = {"imp": "above", "of": {"method": "imp", "variant": "none"}, "variant": "long"}
    (one,) = judge(of(IMP, long, claims=[claim])).claims
    assert [(p.cell.variant, p.baseline.variant, p.verdict) for p in one.parts] == [
        ("long", "", "holds")
    ]


def test_an_empty_report_says_nothing() -> None:
    judged = judge(of())
    assert (judged.comparisons, judged.claims) == ((), ())
    assert json.loads(verdicts_json(judged))["comparisons"] == []


def test_a_judgement_is_equal_for_two_honest_runs() -> None:
    claims = [{"ett": "above", "of": ["reinit", "random"]}]
    one, other = (
        judge(
            of(
                *(dataclasses.replace(c, runs=(run,) * 4) for c in (IMP, ETT, REINIT, RANDOM)),
                claims=claims,
            )
        )
        for run in "ab"
    )
    assert verdicts_json(one) == verdicts_json(other)
    assert "Infinity" not in verdicts_json(one)
    assert "NaN" not in verdicts_json(one)


# Against the truth


@pytest.mark.parametrize("n", [2, 5])
def test_intervals_and_families_by_simulation(n: int) -> None:
    """Of what ships; 10,000 grids of each number of seeds are in docs/judging.md."""
    tally = simulate(500, n, seed=11)
    rate = tally.covering / tally.intervals
    # Intervals of a grid have a baseline in common: their error is that of about 500 grids of 4.
    assert abs(rate - 0.95) < 3 * (0.05 * 0.95 / 2000) ** 0.5
    for kind in KINDS:
        for name in (kind, f"{kind}, claims"):
            bound = 0.05 + 3 * (0.05 * 0.95 / tally.families[name]) ** 0.5
            assert tally.differs[name] / tally.families[name] <= bound, name
    said = {word: tally.right[word] + tally.wrong[word] for word in ("wins", "loses", "holds")}
    assert min(said.values()) > 20, "it says something at all"
    assert all(tally.wrong[word] < 0.15 * count for word, count in said.items())


def test_the_simulation_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Holm's correction far more families say something false."""
    from orchestrator.report import judgement

    def uncorrected(p: Any, size: int) -> Any:
        return p, p * 0 + ERROR

    monkeypatch.setattr(judgement, "holm", uncorrected)
    tally = simulate(200, 5, seed=11)
    assert tally.differs[KINDS[0]] / tally.families[KINDS[0]] > 0.15


def test_a_baseline_that_is_none_is_refused() -> None:
    with pytest.raises((ElthError, ValueError), match="unknown method"):
        judge(of(IMP), ["nothing"])
