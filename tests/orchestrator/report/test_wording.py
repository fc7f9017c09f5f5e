"""The question and the verdict of a page, in sentences."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from orchestrator.experiment.claims import Claim
from orchestrator.report.analyses import NONE, Analyses, Looked, Measured
from orchestrator.report.cells import Cell, Report
from orchestrator.report.judgement import judge
from orchestrator.report.wording import question, verdict
from tests.orchestrator.report.pages import cell_of, report_of

MOVED: dict[str, Any] = {"source": "resnet14", "transform": "append"}
NEAR, FAR = (0.0, 0.1, 0.25), (-8.0, -8.2, -7.9)


def _at(method: str, above: tuple[float, ...], k: int = 4, **changes: Any) -> Cell:
    """A cell whose seeds are so far from 90, 91 and 89."""
    base = (90.0, 91.0, 89.0)
    accuracy = tuple(one + more for one, more in zip(base, above, strict=True))
    return cell_of(method, k, accuracy=accuracy, **changes)


@pytest.mark.parametrize(
    ("cells", "asked"),
    [
        (
            (cell_of("imp"), cell_of("ett", **MOVED), cell_of("reinit"), cell_of("random")),
            "Does a ticket that IMP finds on resnet14 stay as accurate when ETT moves it to "
            "resnet20 (digits), and does it stay above Reinit and Random of the same sparsity?",
        ),
        (
            (cell_of("dense"), cell_of("imp"), cell_of("imp", network="vgg13"), cell_of("snip")),
            "Does the ticket that IMP finds in resnet20 and vgg13 stay as accurate as the dense "
            "network on digits, and is it above SNIP of the same sparsity?",
        ),
        (
            (cell_of("imp"), cell_of("rigl"), cell_of("set")),
            "Does the ticket that IMP finds in resnet20 stay as accurate as the dense network on "
            "digits, and how does it compare with RigL and SET?",
        ),
        (
            (cell_of("dense"), cell_of("snip")),
            "How accurate are SNIP on resnet20, digits, at which sparsity?",
        ),
    ],
)
def test_questions(cells: tuple[Cell, ...], asked: str) -> None:
    assert question(report_of(*cells), NONE) == asked


def test_of_many_networks_a_question_names_none() -> None:
    networks = [f"resnet{depth}" for depth in (8, 14, 20, 26, 32)]
    cells = [cell_of("ett", network=one, **MOVED) for one in networks]
    assert "moves it to any of 5 networks (digits)?" in question(report_of(*cells), NONE)


def test_a_question_is_of_analyses_too() -> None:
    looked = Looked(method="imp", round=4, seed=0)
    one = Measured(
        measure="histograms",
        network="resnet20",
        dataset="digits",
        settings={},
        looks_at="line",
        of=(looked,),
        result={},
    )
    found = question(report_of(cell_of("imp")), Analyses(found=(one,)))
    assert found.endswith("; and what do histograms show of it?")


def _verdict(*cells: Cell, **changes: Any) -> str:
    report = report_of(*cells, **changes)
    return verdict(report, judge(report))


def test_without_claims_a_verdict_counts_words() -> None:
    cells = (
        *(_at("imp", NEAR), _at("imp", (0.1, 0.2, 0.2), 5)),
        _at("ett", (0.05, 0.12, 0.3), **MOVED),
        *(_at("reinit", FAR), _at("random", FAR, 5)),
    )
    assert _verdict(*cells) == (
        "Against IMP's own ticket of the same sparsity, ETT matches in 1 of 1 cell; a control "
        "loses in 2 of 2 cells."
    )


def test_a_verdict_is_of_the_dense_network_too() -> None:
    told = _verdict(_at("dense", NEAR), _at("imp", FAR), _at("reinit", FAR))
    assert told.endswith("Against the dense network, IMP loses in 1 of 1 cell.")


def test_what_is_not_decided_is_told_with_the_seeds_that_may_decide_it() -> None:
    one = [cell_of(name, seeds=(0,)) for name in ("dense", "imp")]
    assert _verdict(*one) == (
        "With 1 seed nothing is decided. One seed does not tell how far seeds are apart."
    )
    wide = (_at("imp", NEAR), _at("reinit", (-5.0, 2.0, -3.0)), _at("random", (3.0, -5.0, -4.0)))
    told = _verdict(*wide)
    assert told.startswith("With 3 seeds none of 2 comparisons is decided. ")
    assert told.endswith(" more seeds would probably decide one.")
    assert _verdict(cell_of("imp")).startswith("There is nothing to compare")
    empty = Report(grid="tiny", cells=(), missing=1)
    assert verdict(empty, judge(empty)).endswith("no cell is finished.")


def test_claims_are_told_by_what_became_of_them() -> None:
    said = (
        {"imp": "above", "of": "reinit"},
        {"random": "above", "of": "imp"},
        {"ett": "matches", "of": "imp"},
    )
    claims = tuple(Claim.model_validate(one) for one in said)
    cells = (_at("imp", NEAR), _at("reinit", FAR), _at("random", FAR))
    wide = _at("ett", (-4.0, 2.0, 3.0), **MOVED)
    told = _verdict(*cells, wide, claims=claims)
    first = "Of 3 claims of this experiment 1 holds (IMP above Reinit) and 1 does not hold "
    assert told.startswith(first + "(Random above IMP). Undecided: ETT matches IMP")
    alone = _verdict(*cells, claims=claims[:1])
    assert alone == "Of 1 claim of this experiment 1 holds (IMP above Reinit)."


def test_a_claim_of_several_cells_takes_the_seeds_of_a_part_that_looks_false() -> None:
    cells = (_at("imp", NEAR), _at("reinit", (4.0, 1.0, 2.0)), _at("random", (1.0, -3.0, -2.0)))
    claims = (Claim.model_validate({"imp": "above", "of": ["reinit", "random"]}),)
    judged = judge(report_of(*cells, claims=claims))
    by = {part.baseline.method: part.more_seeds for part in judged.claims[0].parts}
    assert (by["random"] or 0) > (by["reinit"] or 0) > 0
    told = _verdict(*cells, claims=claims)
    assert told.endswith(f"; {by['reinit']} more seeds would probably decide one.")


def test_a_claim_of_several_cells_takes_the_seeds_of_its_slowest_part() -> None:
    cells = (_at("imp", NEAR), _at("reinit", (-4.0, -1.0, -2.0)), _at("random", (1.0, -3.0, -2.0)))
    claims = (Claim.model_validate({"imp": "above", "of": ["reinit", "random"]}),)
    report = report_of(*cells, claims=claims)
    judged = judge(report)
    (one,) = judged.claims
    slow, quick = sorted((part.more_seeds or 0 for part in one.parts), reverse=True)
    assert slow > quick > 0
    assert verdict(report, judged).endswith(f"; {slow} more seeds would probably decide one.")
    waiting = dataclasses.replace(one, missing=1)
    told = verdict(report, dataclasses.replace(judged, claims=(waiting,)))
    assert told.endswith("; 1 of these wait for cells.")
