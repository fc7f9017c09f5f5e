"""Profiles of another size in a file: what they change, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from elth.recipes import RECIPES
from orchestrator.experiment.reading import load
from tests.orchestrator.experiment.helpers import BASE, refusal
from tests.orchestrator.helpers import write_yaml

SCALED: dict[str, Any] = {
    "name": "big",
    "description": "On large images.",
    "paper": {
        "title": "A paper, Table 1",
        "round": 6,
        "note": "of note",
        "printed": [{"method": "imp", "network": "resnet20", "dataset": "svhn", "accuracy": 91.0}],
    },
    "dataset": "cifar10",
    "seeds": [0, 1, 2],
    "recipe": "cifar10_resnet",
    "recipes": {"svhn": {"base": "cifar10_resnet", "lr": 0.2}},
    "pruning": {"rate": 0.3, "rounds": 6},
    "criteria": {"snip": {"samples": 256}, "grasp": {"temperature": 100}},
    "grid": [
        {"method": "imp", "network": ["resnet20", "resnet14"], "dataset": "svhn"},
        {"method": "ett", "source": "resnet14", "source_dataset": "svhn", "network": "resnet20"},
        {"method": ["snip", "grasp"], "network": "resnet20"},
    ],
    "scales": {
        "smoke": {
            "dataset": "digits",
            "seeds": [0],
            "recipe": {"base": "digits_resnet", "length": "2ep", "milestones": []},
            "pruning": {"rounds": 2},
            "criteria": {"grasp": {"samples_per_class": 2}},
            "replace": {
                "svhn": "digits(size=16)",
                "resnet14": "resnet20",  # both at once, not one after the other
                "resnet20": "resnet20(width=4)",
            },
        },
        "one-seed": {"seeds": 7},
        "as-it-is": None,
    },
}


@pytest.fixture
def scaled(tmp_path: Path) -> Path:
    """A file with profiles of other sizes."""
    return write_yaml(tmp_path / "big.yaml", SCALED)


def test_the_full_scale_is_the_file_itself(scaled: Path, tmp_path: Path) -> None:
    plain = {key: value for key, value in SCALED.items() if key != "scales"}
    expected = load(write_yaml(tmp_path / "plain.yaml", plain))
    assert load(scaled) == load(scaled, ["scale=full"]) == expected
    assert expected.paper is not None
    assert (expected.name, expected.paper.round) == ("big", 6)
    assert len(expected.paper.printed) == 1


def test_a_scale_is_merged_into_the_rest(scaled: Path) -> None:
    found = load(scaled, ["scale=smoke"])
    assert found.name == "big-smoke"
    assert found.description == "On large images."
    assert (found.dataset, found.seeds) == ("digits", (0,))
    # A mapping key by key, a recipe as a whole.
    assert (found.pruning.rate, found.pruning.rounds) == (0.3, 2)
    assert found.criteria == {"snip": {"samples": 256}, "grasp": {"samples_per_class": 2}}
    expected = {**RECIPES["digits_resnet"].full(), "length": "2ep", "milestones": []}
    assert found.recipe.full() == expected


def test_a_scale_replaces_networks_and_datasets_wherever_they_are_named(scaled: Path) -> None:
    found = load(scaled, ["scale=smoke"])
    assert [entry.model_dump(mode="json", exclude_unset=True) for entry in found.grid] == [
        {
            "method": ["imp"],
            "network": ["resnet20(width=4)", "resnet20"],
            "dataset": ["digits(size=16)"],
        },
        {
            "method": ["ett"],
            "network": ["resnet20(width=4)"],
            "source": ["resnet20"],
            "source_dataset": ["digits(size=16)"],
        },
        {"method": ["snip", "grasp"], "network": ["resnet20(width=4)"]},
    ]
    assert list(found.recipes) == ["digits(size=16)"]
    assert found.recipe_for("digits(size=16)").lr == 0.2


def test_what_a_paper_prints_belongs_to_its_own_scale(scaled: Path) -> None:
    paper = load(scaled, ["scale=smoke"]).paper
    assert paper is not None
    assert paper.title == "A paper, Table 1, at scale smoke"
    assert (paper.note, paper.printed) == ("of note", ())
    assert paper.round is None  # its own last one


def test_a_scale_may_name_a_round_of_its_own(tmp_path: Path) -> None:
    smoke = {**SCALED["scales"]["smoke"], "paper": {"round": 1}}
    path = write_yaml(tmp_path / "big.yaml", {**SCALED, "scales": {"smoke": smoke}})
    paper = load(path, ["scale=smoke"]).paper
    assert paper is not None
    assert (paper.title, paper.round) == ("A paper, Table 1, at scale smoke", 1)


def test_a_scale_may_change_little_or_nothing(scaled: Path) -> None:
    full = load(scaled)
    found = load(scaled, ["scale=one-seed"])
    assert (found.name, found.seeds) == ("big-one-seed", (7,))
    assert (found.grid, found.recipe, found.criteria) == (full.grid, full.recipe, full.criteria)
    same = load(scaled, ["scale=as-it-is"])
    assert (same.name, same.seeds, same.grid) == ("big-as-it-is", full.seeds, full.grid)


def test_other_overrides_come_after_the_scale(scaled: Path) -> None:
    found = load(scaled, ["seeds=[3]", "pruning.rounds=4", "name=mine", "scale=smoke"])
    assert (found.seeds, found.name) == ((3,), "mine")
    assert (found.pruning.rate, found.pruning.rounds) == (0.3, 4)
    assert load(scaled, ["recipe.lr=0.5", "scale=smoke"]).recipe.lr == 0.5
    assert load(scaled, ["scale=smoke", "scale=one-seed"]).name == "big-one-seed"  # the later


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("smok", "'smok'; did you mean 'smoke'? (there is: full, smoke, one-seed, as-it-is)"),
        ("", "'' (there is: full, smoke, one-seed, as-it-is)"),
    ],
)
def test_an_unknown_scale_is_refused(scaled: Path, scale: str, message: str) -> None:
    assert refusal(scaled, f"scale={scale}") == f"unknown scale of {scaled} {message}"


def test_a_file_without_scales_has_the_full_one(path: Path) -> None:
    assert load(path, ["scale=full"]).name == "exp"
    message = f"unknown scale of {path} 'smoke' (there is: full)"
    assert refusal(path, "scale=smoke") == message


@pytest.mark.parametrize(
    "scales",
    [
        3,
        [1],
        ["smoke"],
        {"smoke": 3},
        {"smoke": "words"},
        {"smoke": [1]},
        {"smoke": {"replace": 3}},
        {"smoke": {"replace": ["resnet14"]}},
        {"smoke": {"replace": {"resnet14": 3}}},
        {"smoke": {"replace": {"digits": ["mnist"]}}},
        {"smoke": {"sede": 1}},
    ],
    ids=str,
)
def test_scales_that_make_no_sense_are_refused(tmp_path: Path, scales: Any) -> None:
    fields = {**BASE, "recipes": {"digits": "mnist_mlp"}, "scales": scales}
    path = write_yaml(tmp_path / "exp.yaml", fields)
    assert str(path) in refusal(path, "scale=smoke")


def test_a_whole_experiment_survives_its_own_yaml(scaled: Path, tmp_path: Path) -> None:
    for scale in ("full", "smoke"):
        found = load(scaled, [f"scale={scale}", "criteria.snip.at=init"])
        again = tmp_path / "again.yaml"
        again.write_text(found.resolved(), encoding="utf-8")
        assert load(again) == found
        assert load(again).resolved() == found.resolved()
