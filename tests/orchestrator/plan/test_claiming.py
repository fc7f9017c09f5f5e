"""A claim of what a grid does not hold is refused before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest

from elth.errors import ElthError
from orchestrator import plan
from tests.orchestrator.helpers import TINY, TINY_DEEPER, tiny

GRID = [
    {"method": ["imp", "reinit"], "network": [TINY, TINY_DEEPER], "round": "all"},
    {"method": "ett", "source": TINY, "network": TINY_DEEPER, "transform": "auto", "round": 2},
    {"method": "snip", "network": TINY, "sparsity": 0.6},
]
PRUNING = {"rate": 0.5, "rounds": 3}


def _built(*claims: dict[str, Any]) -> plan.Plan:
    return plan.build(tiny("g", grid=GRID, pruning=PRUNING, claims=list(claims)))


@pytest.mark.parametrize(
    "claim",
    [
        {"imp": "above", "of": "reinit"},
        {"imp": "reaches", "of": "dense", "round": [1, 3]},
        {"dense": "above", "of": "imp", "round": 3},
        {"ett": "matches", "of": ["imp", "reinit"], "round": 2, "source": TINY},
        {"ett": "above", "of": "imp", "transform": "append"},  # what auto comes to
        {"imp": "above", "of": {"method": "ett", "transform": "append"}, "network": TINY_DEEPER},
        {"snip": "below", "of": "dense", "sparsity": 0.6},
    ],
    ids=str,
)
def test_claims_of_what_is_there_change_no_stage(claim: dict[str, Any]) -> None:
    assert _built(claim).stages == _built().stages


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ({"grasp": "above", "of": "imp"}, "no cell of the grid is GraSP: it has no grasp"),
        ({"imp": "above", "of": "grasp"}, "nothing beside it that is GraSP, at the same network"),
        ({"ett": "above", "of": "imp", "round": 3}, "ETT at round 3 has nothing beside it that is"),
        ({"ett": "above", "of": "imp", "network": TINY}, f"no cell of the grid is ETT on {TINY}"),
        (
            {"imp": "above", "of": "reinit", "round": [1, 4]},
            "no cell that it compares with Reinit has round 4",
        ),
        ({"ett": "above", "of": "imp", "transform": "drop"}, "it has ett <- resnet14(width=4) app"),
        ({"snip": "above", "of": "dense", "sparsity": 0.7}, "nothing beside it that is dense"),
        ({"imp": "above", "of": "reinit", "variant": "long"}, "no cell of the grid is IMP, long"),
        ({"imp": "above", "of": "imp"}, "nothing beside it that is IMP"),
        (
            {"imp": "above", "of": "reinit", "noise": [0, 7]},
            "no cell that it compares with Reinit has noise 7",
        ),
        (
            {"imp": "above", "of": "reinit", "ticket": ["none", "typo"]},
            "no cell that it compares with Reinit has ticket typo",
        ),
        (
            {"imp": "above", "of": {"method": "ett", "transform": ["append", "typo"]}},
            "no cell of ETT append, typo that it is compared with has transform typo",
        ),
    ],
    ids=str,
)
def test_claims_of_what_is_not_there_are_refused(claim: dict[str, Any], told: str) -> None:
    with pytest.raises(ElthError) as refused:
        _built({"imp": "above", "of": "reinit"}, claim)
    assert str(refused.value).startswith("in claims.1: ")
    assert told in str(refused.value)
    assert "claims=[] makes none" in str(refused.value)
