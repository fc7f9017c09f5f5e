"""Which cells an analysis of a config looks at, and what it is told that selects none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.experiment.complaints import first as complaint
from tests.orchestrator.helpers import TINY, TINY_DEEPER, tiny

ETT = {"method": "ett", "source": TINY, "network": TINY_DEEPER, "transform": "append", "round": 2}


def _looked_at(*analyses: dict[str, Any], **changes: Any) -> list[tuple[str, ...]]:
    """The trainings that each stage of some analyses looks at, by what distinguishes them."""
    grid = [
        {"method": "imp", "network": [TINY, TINY_DEEPER]},
        {"method": "imp", "network": TINY, "round": 1, "noise": [0, 1, 2]},
        {"method": "reinit", "network": TINY, "round": [1, 2]},
        {"method": "snip", "network": TINY, "round": 1, "sparsity": 0.4},
        ETT,
    ]
    built = plan.build(tiny("a", **{"grid": grid, "analyses": analyses, **changes}))
    return [tuple(map(_short, _parents(built, key))) for key in built.analyses]


def _parents(built: plan.Plan, key: str) -> Sequence[plan.Stage]:
    return [built.stages[parent] for parent in built.stages[key].parents]


def _short(stage: plan.Stage) -> str:
    told = stage.labels
    noise = f"~{told['noise']}" if told.get("noise") else ""
    return f"{told['method']} {told['round']}{noise}, {told['seed']}"


ON_TINY = {"network": TINY}


@pytest.mark.parametrize(
    ("analysis", "found"),
    [
        (
            {"measure": "distances", "of": ON_TINY | {"method": "imp"}},
            [("dense 0", "imp 1", "imp 2")],
        ),
        (
            {"measure": "distances", "of": ON_TINY | {"method": "reinit"}},
            [("reinit 1", "reinit 2")],
        ),
        (
            {"measure": "signs", "between": "rounds", "of": ON_TINY | {"method": "imp"}},
            [("dense 0", "imp 1"), ("imp 1", "imp 2")],
        ),
        (
            {"measure": "signs", "between": "twins", "of": {"round": 1}},
            [("imp 1", "imp 1~1"), ("imp 1", "imp 1~2"), ("imp 1~1", "imp 1~2")],
        ),
        # Matched by round: IMP has a round 0 more.
        (
            {"measure": "signs", "between": [{"method": "imp"}, {"method": "reinit"}]},
            [("imp 1", "reinit 1"), ("imp 2", "reinit 2")],
        ),
        (
            {
                "measure": "signs",
                "between": [{"method": "imp", "round": 2}, {"method": "reinit", "round": 1}],
            },
            [("imp 2", "reinit 1")],
        ),
        (
            {
                "measure": "signs",
                "between": [
                    {"method": "ett", "source": TINY, "transform": "append"},
                    {"method": "imp"},
                ],
            },
            [("ett 2", "imp 2")],
        ),
        # Twins are for who names them, wherever that is.
        (
            {
                "measure": "signs",
                "between": [{"method": "imp", "noise": 1}, {"method": "reinit", "noise": 0}],
            },
            [("imp 1~1", "reinit 1")],
        ),
        (
            {
                "measure": "signs",
                "between": [{"method": "imp", "noise": [1, 2]}, {"method": "reinit"}],
            },
            [("imp 1~1", "reinit 1"), ("imp 1~2", "reinit 1")],
        ),
        ({"measure": "effective", "of": ON_TINY | {"round": 1, "method": "imp"}}, [("imp 1",)]),
        ({"measure": "effective", "of": ON_TINY | {"round": 1, "noise": 2}}, [("imp 1~2",)]),
        # What has an exact sparsity is of no whole round.
        ({"measure": "curvature", "of": {"method": "snip", "round": 1}}, [("snip 1",)]),
    ],
    ids=str,
)
def test_an_analysis_is_of_the_cells_that_it_selects(
    analysis: dict[str, Any], found: list[tuple[str, ...]]
) -> None:
    assert _looked_at(analysis) == [tuple(f"{name}, 0" for name in group) for group in found]


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ({"metod": "imp"}, "unknown key 'analyses.0.between.0.metod'; did you mean 'method'?"),
        ({"round": "0-1"}, r"analyses.0.between.0.round.0: .*found '0-1': write \[0, 1\]"),
    ],
    ids=str,
)
def test_a_slip_in_a_selection_of_two_is_told(first: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        tiny("a", analyses=[{"measure": "signs", "between": [first, {"method": "imp"}]}])
    assert re.search(told, complaint(refused.value))


def test_seeds_may_be_given_one_after_the_other() -> None:
    signs = {"measure": "effective", "of": {"method": "reinit", "round": 1, "seed": [0, 1]}}
    assert _looked_at(signs) == [("reinit 1, 0",)]


def test_a_round_and_a_sparsity_are_both_selected_as_in_an_entry_of_the_grid() -> None:
    snip: dict[str, Any] = {"method": "snip", "sparsity": 0.4}
    assert _looked_at({"measure": "curvature", "of": snip}) == [("snip 1, 0",)]
    assert _looked_at({"measure": "curvature", "of": snip | {"round": 1}}) == [("snip 1, 0",)] * 2
    with pytest.raises(ElthError, match="no cell of the grid has round 9"):
        _looked_at({"measure": "curvature", "of": snip | {"round": [1, 9]}})


def test_seeds_are_kept_apart_unless_they_are_what_is_compared() -> None:
    signs: dict[str, Any] = {"measure": "signs", "of": {"method": "reinit", "round": 1}}
    assert _looked_at(signs | {"between": "seeds"}, seeds=[3, 5]) == [
        ("reinit 1, 3", "reinit 1, 5")
    ]
    pair = {"measure": "signs", "between": [{"method": "imp", "round": 2}, {"method": "reinit"}]}
    assert _looked_at(pair, seeds=[3, 5]) == [
        (f"imp 2, {seed}", f"reinit {round_}, {seed}") for seed in (3, 5) for round_ in (1, 2)
    ]


def test_what_two_entries_name_is_one_stage() -> None:
    signs: dict[str, Any] = {"measure": "signs", "between": "rounds"}
    all_of_it = signs | {"of": ON_TINY | {"method": "imp"}}
    assert len(_looked_at(all_of_it, all_of_it, signs | {"of": ON_TINY | {"round": [0, 1]}})) == 2


@pytest.mark.parametrize(
    ("analysis", "told"),
    [
        (
            {
                "measure": "distances",
                "of": {"method": ["imp", "snip"], "variant": "none", "round": 7},
            },
            r"no cell of the grid has method imp or snip, round 7, variant none: see elth plan",
        ),
        (
            {"measure": "effective", "of": {"sparsity": 0.9}},
            r"no cell of the grid has sparsity 0\.9:",
        ),
        (
            {"measure": "signs", "between": [{"method": "imp"}, {"method": "synflow"}]},
            "no cell of the grid has method synflow: see elth plan",
        ),
        (
            {
                "measure": "signs",
                "of": ON_TINY,
                "between": [{"method": "imp"}, {"network": TINY_DEEPER}],
            },
            rf"no cell of the grid has network {TINY_DEEPER.replace('(', '.').replace(')', '.')}:",
        ),
        (
            {"measure": "effective", "of": {"round": [1, 99], "method": "imp"}},
            r"no cell of the grid has round 99 \(there is: 0, 1, 2\)",
        ),
        (
            {"measure": "signs", "between": [{"method": "imp"}, {"method": ["reinit", "grasp"]}]},
            r"no cell of the grid has method grasp \(there is: dense, imp, reinit",
        ),
        (
            {"measure": "effective", "of": {"noise": [0, 7], "variant": "none"}},
            r"no cell of the grid has noise 7 \(there is: 0, 1, 2\)",
        ),
        (
            {"measure": "histograms", "of": {"sparsity": 0.4}},
            "histograms is of whole rounds, and these have exact sparsities",
        ),
        ({"measure": "signs", "between": "seeds"}, "give at least two seeds"),
        (
            {"measure": "signs", "between": "twins", "of": {"method": "ett"}},
            "ask for twins in the grid",
        ),
        (
            {"measure": "signs", "between": "rounds", "of": {"method": "ett"}},
            "a line needs two rounds at least",
        ),
        (
            {"measure": "signs", "between": [{"method": "imp"}, {"method": "ett"}]},
            "that both leave open: they differ in source and transform at least; name that in one",
        ),
        (
            {
                "measure": "signs",
                "between": [
                    {"method": "imp", "round": 1},
                    {"method": "imp", "network": TINY_DEEPER},
                ],
            },
            "are of different networks, which nothing compares",
        ),
    ],
    ids=str,
)
def test_what_selects_nothing_is_told_why(analysis: dict[str, Any], told: str) -> None:
    with pytest.raises(ElthError, match=rf"in analyses\.0: .*{told}"):
        _looked_at(analysis)
