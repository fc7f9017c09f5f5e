"""The JSON schema of a config: what is right is right by it, what is wrong is wrong by both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from elth.errors import ElthError
from orchestrator.experiment import schema
from orchestrator.experiment.claims import RELATIONS
from orchestrator.experiment.notation import parse
from orchestrator.experiment.reading import load
from orchestrator.experiment.recipes import RECIPE_MODEL
from orchestrator.experiment.sections import Experiment
from orchestrator.experiment.shipped import shipped

WHOLE: dict[str, Any] = {
    "dataset": "digits",
    "seeds": [0, 1],
    "recipe": "digits_resnet",
    "grid": [
        {"method": ["imp", "snip"], "network": "resnet14(width=4)", "round": "all"},
        {"method": "ett", "source": "resnet14", "network": ["resnet20"], "round": [1, 2]},
    ],
    "pruning": {"rate": 0.5, "rounds": 2, "stop": "collapsed"},
    "criteria": {"snip": {"samples": 64}},
}


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    found = schema.schema()
    Draft7Validator.check_schema(found)
    return Draft7Validator(found)


def _both(validator: Draft7Validator, tmp_path: Path, config: dict[str, Any]) -> tuple[bool, bool]:
    """Whether a config is valid by the schema, and whether it can be loaded."""
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    try:
        load(path)
        loaded = True
    except ElthError:
        loaded = False
    return validator.is_valid(config), loaded


@pytest.mark.parametrize("name", shipped())
def test_every_config_that_comes_with_the_package_is_valid(
    validator: Draft7Validator, name: str
) -> None:
    path = shipped()[name]
    config = parse(path.read_text(encoding="utf-8"), name).value
    assert [error.message for error in validator.iter_errors(config)] == []
    resolved = yaml.safe_load(load(name).resolved())  # as a store has it
    assert [error.message for error in validator.iter_errors(resolved)] == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "mine"},
        {"seeds": 0},
        {"criteria": {"snip": {"samples": 0, "mode": "train"}}},
        {
            "criteria": {"grasp": {"halves": "disjoint", "temperature": 1}},
            "grid": [{"method": "grasp", "network": "resnet14"}],
        },
        {"recipe": {"base": "digits_resnet", "length": "3ep", "milestones": ["2ep"]}},
        {"recipe": {"length": "3ep", "rewind": "10it", "lr": "1e-2"}},
        {"recipe": {"base": "digits_resnet", "stretch": 2}},
        {"recipes": {"digits": "digits_resnet"}},
        {"pruning": {"stop": {"accuracy_below": 12}}},
        {"pruning": {"weights": "finetune", "finetune": "2ep", "rounds": 2}, "criteria": {}}
        | {"grid": [{"method": "imp", "network": "resnet14"}]},
        {"analyses": [{"measure": "barrier", "between": "rounds", "points": 5, "images": None}]},
        {"analyses": [{"measure": "signs", "between": [{"method": "imp"}, {"method": "snip"}]}]},
        {"analyses": [{"measure": "curvature", "images": 10}]},
        {"claims": [{"ett": "above", "of": ["imp", {"method": "snip"}], "round": 2}], "margin": 1},
        {"resources": {"gpus": 0.5, "compile": True, "storage": "/x"}, "data": {"root": "/y"}},
        {"scales": {"smoke": {"seeds": [0], "replace": {"resnet14": "resnet20"}}}},
        {
            "variants": {"b": {"recipe.batch_size": 64}, "c": {"pruning": {"rate": 0.4}}},
            "grid": [{"method": "imp", "network": "resnet14", "variant": ["none", "b", "c"]}],
            "criteria": {},
        },
        {
            "tickets": {"t": {"sha256": "0" * 64, "iteration": 0, "nonzeros": 9000}},
            "grid": [{"method": "imp", "network": "resnet14", "ticket": "t", "round": 0}],
            "criteria": {},
        },
        {
            "variants": {"u": {"criteria.rigl.distribution": "uniform"}},
            "grid": [{"method": "rigl", "network": "resnet14", "variant": "u", "sparsity": 0.5}],
            "criteria": {"rigl": {"every": "5it"}},
        },
    ],
    ids=str,
)
def test_what_is_right(validator: Draft7Validator, tmp_path: Path, changes: dict[str, Any]) -> None:
    assert _both(validator, tmp_path, WHOLE | changes) == (True, True)


ONE = {"method": "imp", "network": "resnet14"}


@pytest.mark.parametrize(
    "changes",
    [
        {"sedes": [0]},
        {"seeds": "all"},
        {"seeds": [0.5]},
        {"seeds": []},
        {"grid": []},
        {"grid": ONE},
        {"grid": [{"method": "imp"}]},
        {"grid": [{**ONE, "netwrk": "x"}]},
        {"grid": [{**ONE, "round": "some"}]},
        {"grid": [{**ONE, "round": [1.5]}]},
        {"grid": [{**ONE, "sparsity": "high"}]},
        {"grid": [{**ONE, "keep": "masks"}]},
        {"grid": [{**ONE, "method": "impp"}]},
        {"grid": [{**ONE, "method": ["imp", "snipp"]}]},
        {"grid": [{**ONE, "network": "resnet15"}]},
        {"grid": [{**ONE, "network": "resnet15(width=4)"}]},
        {"grid": [{**ONE, "dataset": "cifar"}]},
        {"dataset": "cifar"},
        {"dataset": None},
        {"recipe": "digits"},
        {"recipe": {"base": "digits"}},
        {"recipe": {"lr": 0.1}},
        {"recipe": {"base": "digits_resnet", "length": "3 epochs"}},
        {"recipe": {"base": "digits_resnet", "optimiser": "lion"}},
        {"recipe": {"base": "digits_resnet", "learning_rate": 0.1}},
        {"recipe": {"base": "digits_resnet", "nesterov": "never"}},
        {"pruning": {"rate": 1}},
        {"pruning": {"rounds": 0}},
        {"pruning": {"rounds": "3"}},
        {"pruning": {"stop": "soon"}},
        {"pruning": {"stop": {"accuracy_below": 0}}},
        {"criteria": {"snip": {"sample": 3}}},
        {"criteria": {"snip": {"samples": "many"}}},
        {"criteria": {"snap": {}}},
        {"criteria": {"snip": {"at": "end"}}},
        {"criteria": {"snip": {"mode": "trian"}}},
        {"criteria": {"snip": {"samples": -1}}},
        {"criteria": {"grasp": {"halves": "both"}}},
        {"criteria": {"rigl": {"distribution": "even"}}},
        {"criteria": {"rigl": {"every": "2 epochs"}}},
        {"criteria": {"rigl": {"batches": 0}}},
        {"variants": {"b": {"seeds": [1]}}},
        {"variants": {"b": {"pruning.stop": "collapsed"}}},
        {"variants": {"b c": {"recipe.lr": 1}}},
        {"tickets": {"t": {"sha256": "0", "iteration": 0, "nonzeros": 1}}},
        {"analyses": [{"measure": "barriers", "between": "rounds"}]},
        {"analyses": [{"measure": "barrier"}]},
        {"analyses": [{"measure": "distances", "between": "rounds"}]},
        {"analyses": [{"measure": "distances", "points": 3}]},
        {"analyses": [{"measure": "barrier", "between": "rounds", "data": "all"}]},
        {"analyses": [{"measure": "barrier", "between": "all"}]},
        {"analyses": [{"measure": "barrier", "between": [{"method": "imp"}]}]},
        {"claims": [{"ett": "over", "of": "imp"}]},
        {"claims": [{"ett": "above"}]},
        {"claims": [{"ett": "above", "of": "imp", "netwrk": "resnet20"}]},
        {"claims": [{"ett": "above", "of": {"methd": "imp"}}]},
        {"data": {"root": 3}},
        {"resources": {"gpus": 2}},
        {"resources": {"cpus": 1.5}},
        {"resources": {"placement": "near"}},
        {"scales": {"smoke": {"sedes": [0]}}},
        {"name": "a b"},
        {"paper": {}},
        {"paper": {"title": "x", "layout": "pie"}},
    ],
    ids=str,
)
def test_what_is_wrong(validator: Draft7Validator, tmp_path: Path, changes: dict[str, Any]) -> None:
    valid, loaded = _both(validator, tmp_path, WHOLE | changes)
    assert not valid
    assert not loaded or "scales" in changes  # a profile is read where it is asked for


def test_with_plugins_names_may_be_theirs(validator: Draft7Validator) -> None:
    grid = [{"method": "mine", "network": "wide(k=2)", "dataset": "cells"}]
    config = {**WHOLE, "grid": grid, "recipe": "brief", "criteria": {}}
    assert not validator.is_valid(config)
    assert validator.is_valid({**config, "plugins": ["./lab.py"]})
    named = [{"method": "lab:mine", "network": "lab:wide(k=2)", "dataset": "lab:cells"}]
    assert validator.is_valid({**config, "grid": named, "recipe": "lab:brief"})


def test_what_a_validator_takes_is_known() -> None:
    told = "say in _FORMS of schema.py, or by json_schema_input_type, what it takes"
    assert schema.untold() == set(), told


def test_every_key_says_what_it_is() -> None:
    found = schema.schema()
    sections = {"file": found, **found["$defs"]}
    del sections["Names"]
    silent = {
        f"{name}.{key}"
        for name, section in sections.items()
        for key, value in section.get("properties", {}).items()
        if "description" not in value and name not in ("Variant", "Scale")
    }
    settings = {key for one in sections["Analysis"]["allOf"] for key in one["then"]["properties"]}
    assert silent == {f"Analysis.{key}" for key in settings}
    assert all(
        "description" in value
        for one in sections["Analysis"]["allOf"]
        for value in one["then"]["properties"].values()
    )


def test_every_setting_of_a_criterion_says_what_it_is() -> None:
    known = schema.schema()["properties"]["criteria"]["properties"]
    assert {"snip", "grasp", "synflow", "rigl", "dpf"} < known.keys()
    silent = [
        f"{name}.{key}"
        for name, section in known.items()
        for key, value in section["properties"].items()
        if not value["description"]
    ]
    assert silent == []


def test_a_claim_says_what_its_relations_mean() -> None:
    claim = schema.schema()["$defs"]["Claim"]
    told = claim["properties"]["ett"]["description"]
    assert all(f"`{name}`, it {text}" in told for name, text in RELATIONS.items())


def test_the_keys_are_those_of_the_classes() -> None:
    found = schema.schema()
    assert found["properties"].keys() == Experiment.model_fields.keys() | {"scales"}
    recipe = found["$defs"]["RecipeSection"]["properties"]
    assert recipe.keys() == RECIPE_MODEL.model_fields.keys() | {"base", "stretch"}


def test_a_schema_is_made_without_torch() -> None:
    code = (
        "import json, sys\n"
        "from orchestrator.experiment.schema import schema\n"
        "print(json.dumps(schema()))\n"
        "slow = {'torch', 'mlflow', 'ray', 'scipy', 'matplotlib'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(schema.schema()))
