"""Overrides of the command line, by paths."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elth.errors import ElthError
from elth.recipes import RECIPES
from orchestrator.experiment.reading import load
from tests.orchestrator.experiment.helpers import refusal
from tests.orchestrator.helpers import QUICK


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid.0", "cannot read the override 'grid.0': write key=value, as seeds=[0,1]"),
        ("=3", "cannot read the override '=3': write key=value, as seeds=[0,1]"),
        ("seeds=[0", "the value of the override 'seeds=[0' is no valid YAML"),
        ("name=2001-13-45", "the value of the override 'name=2001-13-45': 2001-13-45 is a date"),
        ("seeds.0.x=3", "the override 'seeds.0.x=3' goes below '0', which is a single value"),
        ("dataset.x=3", "the override 'dataset.x=3' goes below 'dataset', which is a single value"),
        (
            "grid.1.method=imp",
            "the override 'grid.1.method=imp' names element '1' of a list of 1, counted from 0",
        ),
        (
            "grid.first.method=imp",
            "the override 'grid.first.method=imp' names element 'first' of a list of 1, counted "
            "from 0",
        ),
        ("seeds.-1=3", "the override 'seeds.-1=3' names element '-1' of a list of 1, counted from"),
    ],
)
def test_an_override_that_cannot_be_followed_is_refused(
    path: Path, override: str, message: str
) -> None:
    assert refusal(path, override).startswith(message)


def test_overrides_of_nested_keys_and_of_list_items(path: Path) -> None:
    found = load(
        path,
        [
            "name=other",
            "seeds=[3, 1]",
            "pruning.rounds=10",
            "grid.0.network=[resnet14, resnet20]",
            "data={root: elsewhere, download: true}",
            "resources.concurrent=",
        ],
    )
    assert found.name == "other"
    assert found.seeds == (1, 3)
    assert found.pruning.rounds == 10
    assert found.grid[0].network == ("resnet14", "resnet20")
    assert (found.data.root, found.data.download) == (Path("elsewhere"), True)
    assert found.resources.concurrent is None
    assert load(path, ["seeds.0=5"]).seeds == (5,)
    assert load(path, ["grid.0={method: dense, network: mlp2}"]).grid[0].method == ("dense",)


def test_overrides_of_names_with_brackets_and_dots(path: Path) -> None:
    name = "digits_shuffled(size=16)"
    words = [f"grid.0.dataset=[digits, '{name}']", f"recipes={{'{name}': digits_resnet}}"]
    assert load(path, [*words, f"recipes.{name}.lr=0.2"]).recipe_for(name).lr == 0.2
    with pytest.raises(ElthError, match="my_lab"):  # there is no such module; it is one name
        load(path, ["criteria.my_lab.scores:by_age.power=3"])
    more = ["variants={v: {recipe.lr: 0.5}}", "grid.0.variant=v", "variants.v.recipe.lr=0.7"]
    assert load(path, more).variants["v"] == {"recipe.lr": 0.7}


def test_the_later_override_wins(path: Path) -> None:
    assert load(path, ["seeds=1", "seeds=2"]).seeds == (2,)


def test_an_override_of_a_field_turns_a_named_recipe_into_its_base(path: Path) -> None:
    found = load(path, ["recipe.lr=1e-4", "recipe.length=3ep"]).recipe
    expected = {**RECIPES["digits_resnet"].full(), "lr": 1e-4, "length": "3ep"}
    assert found.full() == expected


def test_an_override_of_a_field_turns_a_named_recipe_of_a_dataset_into_its_base(
    path: Path,
) -> None:
    words = ["grid.0.dataset=[digits, mnist]", "recipes={digits: mnist_mlp, mnist: mnist_mlp}"]
    found = load(path, [*words, "recipes.mnist.lr=1e-4", "recipes.mnist.length=3ep"])
    expected = {**RECIPES["mnist_mlp"].full(), "lr": 1e-4, "length": "3ep"}
    assert found.recipe_for("mnist").full() == expected
    assert found.recipe_for("digits") == RECIPES["mnist_mlp"]
    # A recipe of fields stays one, and one that is not there yet is made of the fields given.
    words[1] = "recipes={mnist: {base: mnist_mlp, lr: 0.5}}"
    found = load(path, [*words, "recipes.mnist.length=3ep"])
    assert found.recipe_for("mnist").full() == {**expected, "lr": 0.5}
    found = load(path, [words[0], "recipes.mnist.base=mnist_mlp", "recipes.mnist.length=3ep"])
    assert found.recipe_for("mnist").full() == {**expected, "lr": RECIPES["mnist_mlp"].lr}
    # The whole of it is replaced as ever.
    found = load(path, [*words, "recipes.mnist=digits_resnet"])
    assert found.recipe_for("mnist") == RECIPES["digits_resnet"]


def test_a_stretch_is_written_on_the_command_line(path: Path) -> None:
    recipe = load(path).recipe
    assert load(path, ["recipe.stretch=3"]).recipe == recipe.stretched(3)
    message = "in recipe: stretch of a recipe must be a number greater than 0, as 5 or 0.5; is "
    for bad in ("0", "-1", "long", "true"):
        assert message in refusal(path, f"recipe.stretch={bad}")
    assert "did you mean 'stretch'?" in refusal(path, "recipe.strech=3")


KEYS = [
    "name",
    "seeds",
    "seeds.0",
    "recipe",
    "recipe.lr",
    "recipe.length",
    "recipe.base",
    "pruning",
    "pruning.stop",
]


KEYS += ["grid", "grid.0", "grid.0.network", "grid.0.round", "data.root", "resources.gpus", "x.y"]


KEYS += ["scale", "grid.0.sparsity", "grid.0.dataset", "criteria", "criteria.snip", "recipes"]


KEYS += ["recipes.mnist", "paper", "paper.printed"]


@settings(QUICK, max_examples=300)
@given(st.sampled_from(KEYS), st.text(alphabet="013[]{}:,-&*!'\"~?|>%@`. aep\n", max_size=12))
def test_no_override_ends_in_anything_but_a_refusal(key: str, value: str) -> None:
    path = Path(__file__).parents[3] / "tune_configs" / "quickstart.yaml"
    with contextlib.suppress(ElthError):
        load(path, [f"{key}={value}"])
