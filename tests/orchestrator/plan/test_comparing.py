"""What differs between stages and between experiments."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.plan.comparing import (
    ABSENT,
    Comparison,
    Difference,
    Side,
    compare,
    compare_experiments,
    differing,
    fields,
    shown,
)
from orchestrator.plan.graph import Plan
from orchestrator.plan.naming import find
from orchestrator.plan.stage import Stage
from tests.orchestrator.helpers import TINY, TINY_DEEPER, of_kind, round_of, tiny

ENTRIES = [
    {"method": "imp", "network": TINY},
    {"method": ["reinit", "magnitude"], "network": TINY},
]


def _built(**changes: Any) -> Plan:
    return plan.build(tiny("one", **{"grid": ENTRIES, **changes}))


def _compared(a: Plan, b: Plan, kind: str, number: int = 0) -> list[tuple[str, Any, Any, str]]:
    one, other = of_kind(a, kind)[number], of_kind(b, kind)[number]
    found = compare(one, other, a.stages.get, b.stages.get)
    return [(d.path, d.a, d.b, d.where) for d in found]


def _nothing(_: str) -> Stage | None:
    return None


def _recipe(**changes: Any) -> dict[str, Any]:
    usual = {"length": "2ep", "rewind": "1ep", "batch_size": 64, "milestones": ["1ep"]}
    return {**usual, **changes}


def test_fields_are_single_values_by_dotted_paths() -> None:
    value = {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": 2}, {"f": []}], "g": {}}
    assert fields(value) == {"a.b": 1, "a.c": [1, 2], "d.0.e": 2, "d.1.f": [], "g": {}}
    found = differing({"a": 1, "b": [{"c": 1}]}, {"a": 2, "b": [{"c": 1}, {"c": 2}], "d": None})
    assert found == [
        Difference(path="a", a=1, b=2),
        Difference(path="b.1.c", a=ABSENT, b=2),
        Difference(path="d", a=ABSENT, b=None),
    ]


def test_a_field_of_a_stage_and_of_all_before_it_is_told_once() -> None:
    a, b = _built(), _built(recipe=_recipe(lr=0.05))
    assert _compared(a, b, "round", 2) == [("recipe.lr", 0.1, 0.05, "")]


def test_a_default_that_keys_leave_out_is_told_by_its_value() -> None:
    a, b = _built(), _built(recipe=_recipe(gamma=0.2))
    assert "gamma" not in of_kind(a, "round")[0].params["recipe"]
    assert _compared(a, b, "round") == [("recipe.gamma", 0.1, 0.2, "")]


def test_a_difference_that_only_a_parent_has_is_told_of_that() -> None:
    a, b = _built(), _built(pruning={"rate": 0.4, "rounds": 2})
    reinit = "resnet14(width=4) round 2, seed 0"
    assert _compared(a, b, "retraining") == [("rate", "0.5", "0.4", reinit)]
    # by magnitude the parent is the same rewind point, and the count is its own
    found = _compared(a, b, "retraining", 1)
    assert [path for path, *_ in found] == ["ticket.0.nonzeros"]


def test_a_parent_that_is_not_known_is_told_by_its_key() -> None:
    a, b = _built(), _built(pruning={"rate": 0.4, "rounds": 2})
    one, other = of_kind(a, "retraining")[0], of_kind(b, "retraining")[0]
    (found,) = compare(one, other, _nothing, b.stages.get)
    assert (found.path, found.a, found.b) == ("parent", one.parents[0][:12], other.parents[0][:12])


def test_a_dataset_and_a_version_are_fields_as_any_other() -> None:
    one = of_kind(_built(), "rewind_point")[0]
    params = json.loads(json.dumps(dict(one.params)))
    params["dataset"]["sha256"] = "0" * 64
    other = dataclasses.replace(one, params={**params, "network_version": "2"})
    found = {d.path: d for d in compare(one, other, _nothing, _nothing)}
    assert set(found) == {"dataset.sha256", "network_version"}
    assert found["network_version"].a == ABSENT


def test_stages_that_say_the_same_differ_in_the_version_of_their_kind() -> None:
    one = of_kind(_built(), "round")[0]
    (found,) = compare(one, one, _nothing, _nothing)
    assert (found.path, found.a, found.b) == ("version of the kind round", "another", 1)


def test_long_values_are_cut() -> None:
    assert shown("x" * 60) == "x" * 60
    assert shown("x" * 61) == "x" * 57 + "..."
    assert shown("") == "''"


# Experiments


def _sides(a: dict[str, Any], b: dict[str, Any]) -> Comparison:
    experiments = [tiny("one", **{"grid": ENTRIES, **changes}) for changes in (a, b)]
    sides = (Side(name="", experiment=e, plan=plan.build(e)) for e in experiments)
    return compare_experiments(*sides)


def test_what_is_in_no_key_changes_nothing() -> None:
    found = _sides({}, {"description": "else", "data": {"root": "x"}, "resources": {"cpus": 2}})
    assert found.stages == {
        "rewind_point": (1, 0, 0),
        "round": (3, 0, 0),
        "retraining": (2, 0, 0),
    }
    assert {(f.path, f.lost, f.new) for f in found.fields} == {
        ("description", 0, 0),
        ("data.root", 0, 0),
        ("resources.cpus", 0, 0),
    }
    assert (found.only_a, found.only_b, found.other, found.same) == ((), (), (), 4)


def test_each_field_tells_what_it_does_alone() -> None:
    found = _sides({}, {"seeds": [0, 1], "recipe": _recipe(lr=0.05)})
    does = {f.path: (f.a, f.b, f.lost, f.new) for f in found.fields}
    assert does == {"seeds": ([0], [0, 1], 0, 6), "recipe.lr": (0.1, 0.05, 6, 6)}
    assert {(c.title, c.seeds) for c in found.only_b} == {
        ("resnet14(width=4) round 1 on digits", (1,)),
        ("resnet14(width=4) round 2 on digits", (1,)),
        ("resnet14(width=4) reinit round 2 on digits", (1,)),
        ("resnet14(width=4) magnitude round 2 on digits", (1,)),
    }
    assert found.only_a == ()
    assert {c.seeds for c in found.other} == {(0,)}
    assert {why.path for c in found.other for why in c.why} == {"recipe.lr"}


def test_a_key_with_dots_is_one() -> None:
    """What a variant changes is named by a path, which is one key of it."""
    entries = [{"method": "imp", "network": TINY, "variant": "fast"}]
    sides = [{"grid": entries, "variants": {"fast": {"recipe.lr": lr}}} for lr in (0.5, 0.6)]
    (field,) = _sides(*sides).fields
    assert (field.path, field.a, field.b) == ("variants.fast.recipe.lr", 0.5, 0.6)
    assert field.lost == field.new
    assert field.lost


def test_an_entry_more_adds_stages_and_takes_none_away() -> None:
    more = [*ENTRIES, {"method": "imp", "network": TINY_DEEPER}]
    found = _sides({}, {"grid": more})
    assert {(f.path, f.a, f.lost) for f in found.fields} == {
        ("grid.2.method", ABSENT, 0),
        ("grid.2.network", ABSENT, 0),
    }
    assert found.stages["round"] == (3, 0, 3)
    back = _sides({"grid": more}, {})
    assert back.stages["round"] == (3, 3, 0)
    assert {(f.lost, f.new) for f in back.fields} == {(4, 0)}


def test_a_stage_that_several_cells_have_in_common_is_compared_as_each() -> None:
    snip = {"method": "snip", "network": TINY, "round": 1}
    same = {"method": "snip", "network": TINY, "sparsity": 0.5}
    found = _sides({"grid": [snip]}, {"grid": [snip, same]})
    assert (found.same, found.only_a, len(found.only_b)) == (1, (), 1)
    assert found.only_b[0].title == "resnet14(width=4) snip at 50 % on digits"
    named = [snip, {**snip, "variant": "as_it_is"}]
    variants = {"as_it_is": {"recipe.lr": 0.1}}
    found = _sides({"grid": [snip]}, {"grid": named, "variants": variants})
    assert found.only_b[0].title == "resnet14(width=4) snip round 1, as_it_is on digits"
    assert found.stages["retraining"] == (1, 0, 0)


def test_a_field_that_alone_makes_no_experiment_is_told_as_such() -> None:
    entries = [{"method": "snip", "network": TINY}]
    found = _sides({}, {"grid": entries, "criteria": {"snip": {"samples": 64}}})
    alone = {f.path: (f.lost, f.new) for f in found.fields}
    assert alone["criteria.snip.samples"] == (None, None)


# Names


def test_a_stage_is_found_by_title_key_and_run() -> None:
    built = _built()
    stage = round_of(built, TINY, 1)
    runs = {"ab" * 16: stage.key}
    for text in (stage.title, f" {stage.title} ", stage.key, stage.key[:8], "ab" * 4):
        assert find(text, built.stages, runs, "one") is stage
    for text in (stage.key[:5], "ffffffff", "round 1"):
        with pytest.raises(ElthError, match=f"'{text}' is no stage of one"):
            find(text, built.stages, runs, "one")
    with pytest.raises(ElthError, match=r"did you mean 'resnet14\(width=4\) round 1, seed 0'"):
        find(stage.title.replace("round", "rund"), built.stages, runs, "one")


def test_a_name_of_several_stages_is_refused_with_their_keys() -> None:
    stages: dict[str, Stage] = {}
    for lr in (0.1, 0.05):
        stages |= _built(recipe=_recipe(lr=lr)).stages
    one, other = (s for s in stages.values() if s.title == "resnet14(width=4) round 1, seed 0")
    with pytest.raises(ElthError, match="names 2 stages of one: give more of the key") as error:
        find(one.title, stages, {}, "one")
    assert one.key[:12] in str(error.value)
    assert other.key[:12] in str(error.value)
