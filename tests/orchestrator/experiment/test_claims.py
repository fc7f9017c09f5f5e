"""Claims of a file: what they say, what they are refused for, and which cells they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from elth.errors import ElthError
from orchestrator.experiment.analyses import Selection
from orchestrator.experiment.axes import Axes
from orchestrator.experiment.claims import MARGIN, Claim
from orchestrator.experiment.reading import load
from orchestrator.experiment.sections import Experiment
from tests.orchestrator.helpers import TINY, TINY_DEEPER, experiment, write_yaml


def _file(folder: Path, *claims: Any, **changes: Any) -> Path:
    fields = {
        "dataset": "digits",
        "seeds": [0],
        "recipe": "digits_resnet",
        "grid": [{"method": ["imp", "reinit"], "network": "resnet14"}],
        "claims": list(claims),
    }
    return write_yaml(folder / "one.yaml", fields | changes)


def test_a_claim_says_one_thing_of_one_method() -> None:
    claim = Claim.model_validate(
        {
            "ett": "above",
            "of": ["reinit", {"method": "ett", "source": "resnet14"}],
            "network": "resnet20",
            "round": [4, 8],
            "transform": "append",
        }
    )
    assert (claim.method, claim.relation) == ("ett", "above")
    assert [one.method for one in claim.of] == ["reinit", "ett"]
    assert claim.text == ("ETT append above Reinit, ETT <- resnet14: resnet20, round 4, 8")
    assert Claim.stored(claim.plain()) == claim


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ({"of": "imp"}, "expected one method and what is claimed of it, as ett: above (above, bel"),
        ({"imp": "abov", "of": "dense"}, "unknown relation of imp 'abov'; did you mean 'above'?"),
        ({"imq": "above", "of": "dense"}, "unknown method 'imq'; did you mean 'imp'?"),
        ({"imp": "above", "reinit": "above", "of": "dense"}, "found imp: above, reinit: above"),
        ({"imp": "above", "of": "dense", "netwrk": "x"}, "unknown key 'netwrk'; did you mean 'net"),
        ({"imp": "above"}, "key 'claims.0.of' is missing"),
        ({"imp": "above", "of": []}, "claims.0.of: list should have at least 1 item"),
        ({"imp": "above", "of": "dens"}, "in claims.0.of.0.method: unknown method 'dens'"),
        ({"imp": "above", "of": {"method": "dense", "sorce": "x"}}, "did you mean 'source'?"),
        ({"imp": "above", "of": "dense", "round": "1"}, "claims.0.round.0: input should be a vali"),
        ({"imp": "above", "of": "dense", "network": "resnet1"}, "in claims.0.network: "),
        ("imp above dense", "claims.0: expected a mapping of keys to values"),
    ],
    ids=str,
)
def test_a_claim_that_says_nothing_is_refused(tmp_path: Path, claim: Any, told: str) -> None:
    with pytest.raises(ElthError) as refused:
        load(_file(tmp_path, claim))
    assert told in str(refused.value)
    assert "(line " in str(refused.value)


def test_the_margin_is_half_a_point_unless_it_is_given(tmp_path: Path) -> None:
    assert load(_file(tmp_path)).margin == MARGIN == 0.5
    assert load(_file(tmp_path), ["margin=1"]).margin == 1
    for wrong in ("0", "-1", ".nan", ".inf", "true", "half"):
        with pytest.raises(ElthError, match="margin: "):
            load(_file(tmp_path), [f"margin={wrong}"])


def test_claims_and_margin_are_resolved_and_read_again() -> None:
    claims = [{"imp": "reaches", "of": "dense", "round": 4}]
    found = experiment(claims=claims, margin=0.25)
    plain = yaml.safe_load(found.resolved())
    assert (plain["claims"][0]["imp"], plain["margin"]) == ("reaches", 0.25)
    assert Experiment.model_validate(plain) == found
    usual = yaml.safe_load(experiment().resolved())
    assert not {"claims", "margin"} & usual.keys(), "what stores hold of before stays as it is"


def test_a_profile_has_claims_of_its_own_or_none(tmp_path: Path) -> None:
    own = {"imp": "above", "of": "reinit"}
    scales = {"smoke": {"pruning": {"rounds": 1}}, "short": {"claims": [own]}}
    path = _file(tmp_path, {"imp": "reaches", "of": "dense", "round": 8}, scales=scales)
    assert [one.relation for one in load(path).claims] == ["reaches"]
    assert load(path, ["scale=smoke"]).claims == ()
    assert [one.relation for one in load(path, ["scale=short"]).claims] == ["above"]
    assert load(path, ["claims=[]"]).claims == ()


def test_what_a_store_holds_needs_no_code_from_outside() -> None:
    plain = {"my_lab:way": "above", "of": [{"method": "gone:method"}], "network": ["gone:net"]}
    claim = Claim.stored(plain)
    assert (claim.method, claim.of[0].method, claim.network) == (
        "my_lab:way",
        "gone:method",
        ("gone:net",),
    )


def _axes(method: str, **changes: Any) -> Axes:
    fields = {"dataset": "digits", "network": TINY, "method": method, "round": 2}
    return Axes(**{**fields, **changes})


def test_what_the_baseline_has_no_variant_of_is_compared_with_the_experiment_itself() -> None:
    """RigL for longer stands beside the IMP that there is; on another network beside its own."""
    cells = [
        _axes("imp"),
        _axes("rigl"),
        _axes("rigl", variant="x5"),
        _axes("rigl", network=TINY_DEEPER),
        _axes("rigl", network=TINY_DEEPER, variant="x5"),
        _axes("imp", network=TINY_DEEPER, variant="x5"),
    ]

    def pairs(of: Any) -> list[tuple[int, int]]:
        claim = Claim.model_validate({"rigl": "above", "of": of})
        return [
            (cells.index(cell), cells.index(other))
            for cell, other in claim.pairs(cells, claim.of[0])
        ]

    assert pairs("imp") == [(1, 0), (2, 0), (4, 5)]
    assert pairs({"method": "imp", "variant": ["none", "x5"]}) == [(1, 0), (2, 0), (3, 5), (4, 5)]


def test_pairs_stand_at_one_network_level_and_variant() -> None:
    cells = [
        _axes("imp"),
        _axes("imp", round=1),
        _axes("imp", variant="long"),
        _axes("imp", network=TINY_DEEPER),
        _axes("imp", target="0.8"),
        _axes("reinit"),
        _axes("reinit", round=1),
        _axes("reinit", variant="long"),
        _axes("reinit", network=TINY_DEEPER),
        _axes("reinit", target="0.8"),
        _axes("reinit", dataset="mnist"),
        _axes("dense", round=0),
    ]

    def pairs(**fields: Any) -> list[tuple[int, int]]:
        claim = Claim.model_validate({"imp": "above", "of": "reinit"} | fields)
        found = claim.pairs(cells, claim.of[0])
        return [(cells.index(one), cells.index(other)) for one, other in found]

    assert pairs() == [(0, 5), (1, 6), (2, 7), (4, 9), (3, 8)]
    assert pairs(round=2, network=TINY) == [(0, 5), (2, 7)]
    assert pairs(sparsity=0.8) == [(4, 9)]
    assert pairs(round=1, sparsity=0.8) == [(1, 6), (4, 9)]
    assert pairs(variant="none", round=2) == [(0, 5), (3, 8)]
    assert pairs(variant="long", of={"method": "reinit", "variant": "none"}) == [(2, 5)]
    assert pairs(of="dense", network=TINY, variant="none") == [(0, 11), (1, 11), (4, 11)]
    assert pairs(ticket="theirs") == pairs(noise=1) == []


def test_fields_stand_in_the_order_in_which_stores_have_them() -> None:
    """The text of a grid that is there is compared with that of its file."""
    given = {"seed": 0, "noise": 1, "network": "resnet20", "method": "imp", "round": 1}
    assert list(Selection.model_validate(given).model_dump(exclude_unset=True)) == [
        *("method", "network", "round", "noise", "seed")
    ]
    plain = {"variant": "none", "network": "resnet20", "of": "imp", "ett": "above"}
    claim = Claim.model_validate(plain)
    assert list(claim.plain()) == ["ett", "of", "network", "variant"]
