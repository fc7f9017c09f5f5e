"""Variants, twins and ways of IMP in a file: what each comes to, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from elth.errors import ElthError
from elth.recipes import RECIPES, Step
from orchestrator.experiment.reading import load
from orchestrator.experiment.sections import Experiment
from orchestrator.experiment.variants import patched, paths
from tests.orchestrator.helpers import write_yaml

BASE: dict[str, Any] = {
    "dataset": "digits",
    "seeds": [0],
    "recipe": "digits_resnet",
    "pruning": {"rate": 0.5, "rounds": 3},
    "variants": {
        "b64": {"recipe.batch_size": 64},
        "slow": {"recipe": {"lr": 0.01}, "pruning.rounds": 5},
        "other": {"recipe": {"base": "mnist_mlp", "length": "2ep"}},
    },
    "grid": [
        {"method": "imp", "network": "mlp2", "variant": ["none", "b64"]},
        {"method": ["dense", "snip"], "network": "mlp2", "variant": ["slow", "other"]},
    ],
}


def _load(tmp_path: Path, **changes: Any) -> Experiment:
    return load(write_yaml(tmp_path / "exp.yaml", {**BASE, **changes}))


def _refusal(tmp_path: Path, **changes: Any) -> str:
    with pytest.raises(ElthError) as caught:
        _load(tmp_path, **changes)
    text = str(caught.value)
    assert "\n" not in text
    return text.partition(".yaml: ")[2]


def test_a_variant_is_the_experiment_with_some_values_of_its_own(tmp_path: Path) -> None:
    found = _load(tmp_path)
    assert found.variant("") is found
    assert found.variant("b64").recipe.batch_size == 64
    assert found.variant("b64").pruning == found.pruning
    slow = found.variant("slow")
    assert (slow.recipe.lr, slow.recipe.milestones) == (0.01, found.recipe.milestones)
    assert (slow.pruning.rounds, slow.pruning.rate) == (5, 0.5)


def test_a_recipe_with_a_base_takes_the_place_of_the_whole(tmp_path: Path) -> None:
    other = _load(tmp_path).variant("other").recipe
    expected = {**RECIPES["mnist_mlp"].full(), "length": "2ep"}
    assert other.full() == expected


def test_cells_are_a_product_with_variants_and_twins(tmp_path: Path) -> None:
    grid = [
        {"method": "dense", "network": "mlp2"},
        {"method": "imp", "network": "mlp2", "variant": ["none", "b64"], "round": 2},
        {"method": "imp", "network": "mlp2", "variant": "b64", "round": 2, "noise": [1, 2]},
    ]
    variants = {"b64": {"recipe.batch_size": 64}}
    found = _load(tmp_path, grid=grid, variants=variants).cells()
    assert [(c.method, c.variant, c.noise) for c in found] == [
        ("dense", "", 0),
        ("imp", "", 0),
        ("imp", "b64", 0),
        ("imp", "b64", 1),
        ("imp", "b64", 2),
    ]


def test_the_rounds_of_a_variant_are_its_own(tmp_path: Path) -> None:
    grid = [{"method": "imp", "network": "mlp2", "variant": ["none", "slow"]}]
    variants = {"slow": {"pruning.rounds": 5}}
    found = _load(tmp_path, grid=grid, variants=variants).cells()
    assert [(c.variant, c.round) for c in found] == [
        *(("", k) for k in range(1, 4)),
        *(("slow", k) for k in range(1, 6)),
    ]


def test_the_resolved_text_loads_as_an_equal_experiment(tmp_path: Path) -> None:
    pruning = {"rate": 0.5, "rounds": 3, "weights": "finetune", "finetune": "2ep", "noise": "round"}
    variants = {**BASE["variants"], "repel": {"pruning": {"weights": "rewind", "finetune": None}}}
    grid = [*BASE["grid"], {"method": "imp", "network": "mlp2", "variant": "repel"}]
    found = _load(tmp_path, pruning=pruning, variants=variants, grid=grid)
    assert found.pruning.finetune == Step(2, "ep")
    assert found.variant("repel").pruning.finetune is None
    again = tmp_path / "again.yaml"
    again.write_text(found.resolved(), encoding="utf-8")
    assert load(again).resolved() == found.resolved()
    assert list(load(again).cells()) == list(found.cells())
    assert load(again).variant("slow").recipe == found.variant("slow").recipe


def test_a_text_without_variants_or_ways_says_nothing_of_them(tmp_path: Path) -> None:
    grid = [{"method": "imp", "network": "mlp2"}]
    found = _load(tmp_path, grid=grid, variants={}).resolved()
    for word in ("variant", "weights", "finetune", "one_shot", "repel", "noise", "stretch"):
        assert word not in found


def test_settings_of_a_criterion_are_those_of_the_variant(tmp_path: Path) -> None:
    grid = [{"method": "snip", "network": "mlp2", "variant": ["none", "few"]}]
    found = _load(tmp_path, grid=grid, variants={"few": {"criteria.snip.samples": 32}})
    assert (found.criteria, found.variant("few").criteria) == ({}, {"snip": {"samples": 32}})


def test_a_criterion_from_outside_is_one_name() -> None:
    changes = paths({"criteria": {"my_lab.scores:by_age": {"power": 3}}})
    assert patched({"criteria": {}}, changes) == {
        "criteria": {"my_lab.scores:by_age": {"power": 3}}
    }


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"b64": {}}, "in variants: b64: expected what differs, as {recipe.batch_size: 512}"),
        ({"b64": 3}, "in variants: b64: expected what differs, as {recipe.batch_size: 512}"),
        ({"none": {"recipe.lr": 1.0}}, "in variants: a variant is named by letters, digits, - and"),
        ({"a b": {"recipe.lr": 1.0}}, "in variants: a variant is named by letters, digits, - and"),
        ({"b64": {"seeds": [1]}}, "in variants: b64: unknown part of an experiment that a variant"),
        (
            {"b64": {"recipe.lr": 1.0, "recipe": {"lr": 2.0}}},
            "in variants: b64: recipe.lr is given twice: keep one of them",
        ),
        (
            {"b64": {"recipe.lr": 1.0, "recipe": {"base": "mnist_mlp"}}},
            "in variants: b64: recipe is given whole, and recipe.lr besides: write that into what",
        ),
        (
            {"b64": {"pruning.stop": "collapsed"}},
            "in variants: b64: pruning.stop cannot be of a variant: say what of pruning differs, "
            "and pruning.stop for the whole experiment",
        ),
        (
            {"b64": {"recipe.batchsize": 64}},
            "in variants.b64: unknown key 'recipe.batchsize'; did you mean 'recipe.batch_size'?",
        ),
        (
            {"b64": {"pruning.rat": 0.5}},
            "in variants.b64: unknown key 'pruning.rat'; did you mean 'pruning.rate'?",
        ),
        ({"b64": {"recipe.lr": "fast"}}, "in variants.b64: recipe.lr: "),
        ({"b64": {"recipe.lr": -1.0}}, "in variants.b64: recipe: lr of a recipe must be"),
        ({"b64": {"pruning.rate": 1.5}}, "in variants.b64: pruning.rate: "),
        ({"b64": {"recipe.lr.x": 1.5}}, "in variants.b64: recipe.lr.x goes below 'lr'"),
        ({"b64": {"recipe.base": "x"}}, "in variants.b64: a recipe with another base is given"),
        (
            {"b64": {"criteria.snip.samples": 32}},
            "in variants.b64: criteria has settings of snip, and no method of the grid uses it",
        ),
        (
            {"b64": {"pruning.rounds": 2}},
            "round 3 of method imp is beyond the last one: pruning.rounds of variant b64 is 2",
        ),
        (
            {"b64": {"recipe.lr": 1.0}, "idle": {"recipe.lr": 2.0}},
            "variants has idle, and no entry of the grid names it",
        ),
        ({"b46": {"recipe.lr": 1.0}}, "unknown variant 'b64'; did you mean 'b46'?"),
    ],
)
def test_what_a_variant_cannot_be_is_refused(
    tmp_path: Path, variants: dict[str, Any], message: str
) -> None:
    grid = [{"method": "imp", "network": "mlp2", "variant": "b64", "round": [1, 3]}]
    assert _refusal(tmp_path, grid=grid, variants=variants).startswith(message)


@pytest.mark.parametrize(
    ("pruning", "message"),
    [
        ({"weights": "finetune"}, "in pruning: finetune is how long weights: finetune trains each"),
        ({"finetune": "2ep"}, "in pruning: finetune is how long weights: finetune trains each"),
        ({"repel_from": "previous"}, "in pruning: repel_from says what repel is from"),
        ({"repel": 1.0, "one_shot": True}, "in pruning: repel is from earlier rounds, and"),
        ({"repel": "inf"}, "pruning.repel: "),
        ({"repel": True}, "pruning.repel: "),
        ({"weights": "late"}, "pruning.weights: "),
    ],
)
def test_a_way_that_is_none_is_refused(
    tmp_path: Path, pruning: dict[str, Any], message: str
) -> None:
    grid = [{"method": "imp", "network": "mlp2"}]
    found = _refusal(tmp_path, grid=grid, variants={}, pruning=pruning)
    assert found.startswith(message), found


@pytest.mark.parametrize("method", ["random", "shuffle_global"])
@pytest.mark.parametrize("weights", ["init", "trained"])
def test_a_method_that_needs_rewound_weights_is_refused(
    tmp_path: Path, method: str, weights: str
) -> None:
    grid: list[dict[str, Any]] = [{"method": method, "network": "mlp2", "variant": "late"}]
    variants = {"late": {"pruning.weights": weights}}
    assert _refusal(tmp_path, grid=grid, variants=variants).startswith(
        f"method {method} starts from the weights of the rewind point, and pruning.weights of "
        f"variant late is {weights}"
    )
    # Without the variant, and for masks alone, it has a meaning.
    grid = [
        {"method": method, "network": "mlp2"},
        {"method": ["imp", "reinit", "magnitude"], "network": "mlp2", "variant": "late"},
    ]
    _load(tmp_path, grid=grid, variants=variants)


def test_reinit_may_be_of_the_dense_network_and_imp_may_not(tmp_path: Path) -> None:
    def of(method: Any) -> list[dict[str, Any]]:
        return [{"method": method, "network": "mlp2", "round": [0, 1]}]

    cells = _load(tmp_path, grid=of("reinit"), variants={}).cells()
    assert [cell.round for cell in cells] == [0, 1]
    for method in ("imp", ["reinit", "random"]):
        assert "round counts prunings from 1" in _refusal(tmp_path, grid=of(method), variants={})


def test_twins_are_counted_from_one(tmp_path: Path) -> None:
    grid = [{"method": "imp", "network": "mlp2", "noise": [-1]}]
    assert "noise counts twins from 1; found [-1]" in _refusal(tmp_path, grid=grid, variants={})
    grid = [{"method": "imp", "network": "mlp2", "noise": ["a"]}]
    assert "grid.0.noise" in _refusal(tmp_path, grid=grid, variants={})


def test_a_dataset_with_dots_in_its_name_is_one_part_of_a_path() -> None:
    plain = {"recipes": {"folder(manifest=/data/a.b.json)": {"lr": 0.1}}, "recipe": {}}
    changes = paths({"recipes": {"folder(manifest=/data/a.b.json)": {"lr": 0.2}}})
    found = patched(plain, changes)
    assert found["recipes"] == {"folder(manifest=/data/a.b.json)": {"lr": 0.2}}
    assert plain["recipes"]["folder(manifest=/data/a.b.json)"] == {"lr": 0.1}
    assert patched({"recipes": {}}, {"recipes.mnist.lr": 1.0}) == {
        "recipes": {"mnist": {"lr": 1.0}}
    }


def test_a_stretched_variant_is_longer_and_rewinds_to_the_same_point(tmp_path: Path) -> None:
    grid = [{"method": "imp", "network": "mlp2", "variant": "long"}]
    found = _load(tmp_path, grid=grid, variants={"long": {"recipe.stretch": 5}})
    own = found.variant("long").recipe
    assert (str(own.length), [str(m) for m in own.milestones]) == ("100ep", ["50ep", "75ep"])
    assert own.rewind == found.recipe.rewind
