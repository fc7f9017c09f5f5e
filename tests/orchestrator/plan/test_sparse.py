"""Sparse trainings in a plan: what a key holds of them, and what is refused before any begins."""

from __future__ import annotations

from typing import Any

import pytest

from elth import dynamic
from elth.errors import ElthError
from orchestrator import plan
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import SPARSE, Stage, iterations
from tests.orchestrator.helpers import TINY, of_kind, tiny

SIX = ["rigl", "set", "snfs", "static", "gmp", "dpf"]


LONG = {"length": "20ep", "rewind": "1ep", "batch_size": 64, "milestones": ["10ep"]}
"""420 iterations, in which defaults do something, but those of GMP."""


def _built(*grid: dict[str, Any], **changes: Any) -> Plan:
    own = {"gmp": {"every": "50it"}} if any("gmp" in one["method"] for one in grid) else {}
    criteria = {**own, **changes.pop("criteria", {})}
    given = {"recipe": LONG, "criteria": criteria, "grid": list(grid), **changes}
    return plan.build(tiny("sparse", **given))


def _one(*grid: dict[str, Any], **changes: Any) -> Stage:
    (found,) = of_kind(_built(*grid, **changes), SPARSE)
    return found


def _rigl(**settings: Any) -> Stage:
    return _one(
        {"method": "rigl", "network": TINY},
        **({"criteria": {"rigl": settings}} if settings else {}),
    )


def test_it_needs_nothing_and_is_of_as_many_weights_as_the_round() -> None:
    built = _built({"method": SIX, "network": TINY, "round": 2})
    assert len(built.stages) == 6
    assert plan.count_kinds(built.stages.values()) == {
        "rewind_point": 0,
        "round": 0,
        "retraining": 0,
        SPARSE: 6,
    }
    for stage in built.stages.values():
        assert stage.parents == ()
        assert stage.params["keep"] == 2_753
        assert iterations(stage) == (0, 420)
        assert stage.params.get("settings", {}).keys() <= {"every"}
    assert {stage.params["method"] for stage in built.stages.values()} == set(SIX)
    assert {s.title for s in built.stages.values()} >= {f"{TINY} rigl round 2, seed 0"}


def test_an_exact_sparsity_needs_no_round() -> None:
    stage = _one({"method": "rigl", "network": TINY, "sparsity": 0.97})
    assert stage.params["keep"] == 330
    assert stage.title == f"{TINY} rigl at 97 %, seed 0"


def test_from_the_rewind_point() -> None:
    built = _built({"method": "dpf", "network": TINY}, criteria={"dpf": {"at": "rewind"}})
    (start,), (stage,) = of_kind(built, "rewind_point"), of_kind(built, SPARSE)
    assert stage.parents == (start.key,)
    assert iterations(stage) == (21, 420)


def test_a_rewind_point_at_iteration_0_is_initialisation() -> None:
    """In the key as well, and no rewind point is trained for it."""
    recipe = LONG | {"rewind": "0it"}
    entry = {"method": "dpf", "network": TINY}
    rewound = _built(entry, recipe=recipe, criteria={"dpf": {"at": "rewind"}})
    initial = _built(entry, recipe=recipe)
    assert list(rewound.stages) == list(initial.stages)
    (stage,) = rewound.stages.values()
    assert stage.parents == ()
    assert iterations(stage) == (0, 420)
    assert _rigl(at="rewind").parents != ()


def test_settings_are_in_keys_where_they_differ() -> None:
    keys = {_rigl(**settings).key for settings in ({}, {"every": "100it"}, {"at": "init"})}
    assert len(keys) == 1
    changed: list[dict[str, Any]] = [
        {"every": "1ep"},
        {"fraction": 0.2},
        {"end": 0.5},
        {"distribution": "uniform"},
        {"distribution": "uniform", "dense_first": False},
        {"at_start": True},
        {"batches": 4},
    ]
    keys |= {_rigl(**settings).key for settings in changed}
    assert len(keys) == 1 + len(changed)
    assert _rigl(every="1ep").params["settings"] == {"every": "1ep"}


def test_lengths_and_settings_by_a_variant() -> None:
    """E-LTH's RigL-5x beside RigL, and both distributions."""
    built = _built(
        {"method": ["imp", "rigl"], "network": TINY, "variant": ["none", "long", "even"]},
        variants={
            "long": {"recipe.stretch": 5},
            "even": {"criteria.rigl.distribution": "uniform"},
        },
    )
    sparse = {stage.labels.get("variant", ""): stage for stage in of_kind(built, SPARSE)}
    assert iterations(sparse["long"]) == (0, 2100)
    assert sparse["even"].params["settings"] == {"distribution": "uniform"}
    assert len(of_kind(built, "rewind_point")) == 2, "an even one has the same chain"


def test_a_twin_has_other_noise() -> None:
    built = _built({"method": "set", "network": TINY, "noise": [0, 1]})
    one, twin = of_kind(built, SPARSE)
    assert twin.params == {**one.params, "noise": {"copy": 1}}


@pytest.mark.parametrize(
    ("entry", "changes", "message"),
    [
        ({"method": "rigl", "ticket": "theirs"}, {}, "method rigl takes no ticket: it has a mask"),
        ({"method": "rigl", "source": "resnet20"}, {}, "method rigl takes no source"),
        (
            {"method": "rigl"},
            {"criteria": {"rigl": {"fraction": 2}}},
            "setting fraction of method rigl is a fraction between 0 and 1, is 2",
        ),
        (
            {"method": "rigl"},
            {"criteria": {"rigl": {"every": "2it", "batches": 3}}},
            "setting batches of method rigl is 3, more than the 2 iterations",
        ),
        (
            {"method": "rigl"},
            {"criteria": {"set": {"every": "2it"}}},
            "criteria has settings of set, and no method of the grid uses it",
        ),
        (
            {"method": "rigl"},
            {"criteria": {"rigl": {"at": "end"}}},
            "at of method rigl is rewind or init, found 'end'",
        ),
        (
            {"method": "rigl"},
            {"criteria": {"rigl": {"samples": 3}}},
            "unknown setting of method rigl 'samples'",
        ),
        (
            {"method": "gmp", "sparsity": 0.997},
            {},
            r"resnet14\(width=4\): method gmp cannot keep 33 weights .*: 36 are in .*conv1.weight",
        ),
        (
            {"method": "rigl"},
            {"criteria": {"rigl": {"every": "400it"}}},
            "method rigl would never change its mask, .* every 400 iterations between 0 and 315",
        ),
        (
            {"method": "rigl"},
            {"criteria": {"rigl": {"fraction": 0.001}}},
            r"resnet14\(width=4\): method rigl would never change its mask: its first update, at",
        ),
        (
            {"method": "snfs"},
            {"recipe": {"length": "4ep", "rewind": "1ep", "optimiser": "adam", "lr": 0.01}},
            "method snfs goes by the momentum of SGD: .* found adam",
        ),
    ],
)
def test_what_is_refused(entry: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ElthError, ValueError), match=message):
        _built({"network": TINY, **entry}, **changes)


def test_the_list_of_methods_is_that_of_elth() -> None:
    assert list(dynamic.METHODS) == SIX
