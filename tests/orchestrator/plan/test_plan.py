"""Stages, keys, jobs and counts: what a plan comes to, and what a key holds."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from elth import elastic
from elth.data import info
from elth.errors import ElthError
from elth.networks import NETWORKS, Anatomy, facts
from elth.recipes import RECIPES, Step
from orchestrator import plan
from orchestrator.experiment.methods import METHODS, SOURCE
from orchestrator.experiment.reading import load
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.graph import Job, Plan
from orchestrator.plan.stage import Stage
from orchestrator.plan.transforming import _check_tensors, _differ_in_depth_only
from tests.orchestrator.helpers import QUICK, experiment, of_kind

CONFIGS = Path(__file__).parents[3] / "tune_configs"

GRID: list[dict[str, Any]] = [
    {"method": "imp", "network": "resnet14"},
    {
        "method": "ett",
        "source": "resnet14",
        "network": "resnet20",
        "transform": "append",
        "round": 10,
    },
    {"method": "magnitude", "network": "resnet20", "round": 10},
    {"method": ["reinit", "random"], "network": "resnet14", "round": 10},
]


def _keys(**changes: Any) -> dict[str, str]:
    """Keys by title, of the stages of ``GRID``."""
    built = plan.build(experiment(**{"grid": GRID, **changes}))
    return {stage.title: key for key, stage in built.stages.items()}


REWIND = "resnet14 rewind point, seed 0"
DENSE = "resnet14 dense round 0, seed 0"
ROUND = "resnet14 round 3, seed 0"
ETT = "resnet20 <- resnet14 append round 10, seed 0"
MAGNITUDE = "resnet20 magnitude round 10, seed 0"

GOLDEN = {
    REWIND: "f8ae608fa6b329d5e6e35ad2cb062e86816b6fe14572d9dbe9eb6d3a10e464bc",
    DENSE: "a303b73f94b82efa2ea0bf42fef4c50ebfa50e63a732be658e8e5c97df65733a",
    ROUND: "9de6328d721b74e3f18bac799195170564768ff20f04ef2f99650791f7d0252b",
    ETT: "16e75ff05e8268c7b1d2d6ace9d8094ebcb883a8e2ce91a8ce945f12df399f7b",
    MAGNITUDE: "b0bad594052f384d982ed321e1faa96a067b79fbf00c4b73ad34fe77bb57f69c",
    "resnet14 reinit round 10, seed 0": (
        "49a509f976e3f381688340ac9bde9ab3a3260c196451afb6592841b1fa417ec1"
    ),
    "resnet14 random round 10, seed 0": (
        "35a3598e62377cf14fccccf2a2c34212f0459def271c23cef8d6f74064893cfb"
    ),
}
"""A changed key orphans every finished stage of every store: change VERSIONS on purpose only."""


@pytest.mark.parametrize("title", GOLDEN)
def test_golden_keys(title: str) -> None:
    assert _keys()[title] == GOLDEN[title]


APPEND = {"transform": [[0, 1, 1, 1, 1]] * 3, "to": "resnet32"}
STRETCH = {"source": "resnet14", "network": "resnet32"}
SNIP = {"snip": {"samples": 256, "at": "init"}}


@pytest.mark.parametrize(
    ("entry", "criteria", "steps", "key"),
    [
        (
            {"method": "snip", "network": "resnet20"},
            {},
            [{"criterion": "snip", "nonzeros": 29_085}],
            "550b244ce8b212c75d289627aa5190944b2e253243c37244dfad03154d07d033",
        ),
        (
            {"method": "snip", "network": "resnet20"},
            SNIP,
            [{"criterion": "snip", "nonzeros": 29_085, "samples": 256, "at": "init"}],
            "59dc2d79deae738502741985ed35887774b5a5df61af3f5ab4fe7f73ba7f613a",
        ),
        (
            {"method": "grasp", "network": "resnet20"},
            {},
            [{"criterion": "grasp", "version": 2, "nonzeros": 29_085}],
            "fd5ffe35ed40c8fda675a49a38bebfe521736ef366d08d34aa26a06bc4c21034",
        ),
        (
            {"method": "grasp_absolute", "network": "resnet20"},
            {"grasp_absolute": {"halves": "disjoint", "at": "rewind"}},  # formerly the default
            [
                {
                    "criterion": "grasp_absolute",
                    "version": 2,
                    "nonzeros": 29_085,
                    "halves": "disjoint",
                }
            ],
            "ad5a720a96dc0ee3c92bb175eba2867d70eacbabac342bd95171753f7a28fcef",
        ),
        (
            {"method": "synflow", "network": "resnet20"},
            {"synflow": {"iterations": 100}},  # the default
            [{"criterion": "synflow", "nonzeros": 29_085}],
            "86bed610d77eaad774b2df9aa4aeabf2cfad9076b4118bb7199271fca2d3afbe",
        ),
        (
            {"method": "random_global", "network": "resnet20"},
            {},
            [{"criterion": "random_global", "nonzeros": 29_085}],
            "697d3aec2b75b73939b8f27987db3270836d8088e601d4cf847c299fd849459b",
        ),
        (
            {"method": "shuffle_global", "network": "resnet20"},
            {},
            [{"shuffle": "global", "version": 2}],
            "c9bc9b0a69db9857d2ced8d82f90534dd750d96c1b033de4fb1b612cb1c4b0c5",
        ),
        (
            {"method": "ett_reinit", **STRETCH},
            {},
            [APPEND, {"reinit": "all"}],
            "6884f180ef4b522dfa843a768592efa03aab55c61944ca98b5c441fe43c1b64a",
        ),
        (
            {"method": "ett_random", **STRETCH},
            {},
            [APPEND, {"shuffle": "layerwise", "version": 2}],
            "3abb170711f627b2f401391f0a633bdddc7d4d017146c7830dd4ec8f3e07f00e",
        ),
        (
            {"method": "ett_reinit_random", **STRETCH},
            {},
            [APPEND, {"reinit": "all"}, {"shuffle": "layerwise", "version": 2}],
            "606d90c222e05ecb8261c886eda0a2f0838d04bf51d650ec1b1ec0521cf58348",
        ),
        (
            {"method": "ett_random_extra", **STRETCH},
            {},
            [APPEND, {"shuffle": "replicated", "version": 2}],
            "ba84276aed11ec5e2a1346d1a3f7b1dc749294612fe384b3ba8b738e54df0070",
        ),
        (
            {"method": "ett_snip_extra", **STRETCH},
            {},
            [APPEND, {"graft": "snip"}],
            "3346cd262f103ca6f5479a093592605aa8f6504e202ebd76ccc6684a018b175c",
        ),
        (
            {"method": "ett_snip_extra", **STRETCH},
            SNIP,  # grafted weights are those of the rewind point, whatever ``at`` says
            [APPEND, {"graft": "snip", "samples": 256}],
            "4688d3ff40810d90dc0e6534c9325bcf0c1e7863ea77452147f4c29e34301076",
        ),
        (
            {
                "method": "ett",
                "source": "resnet20",
                "network": "resnet20(width=32)",
                "transform": "double:gaussian:0.10",
            },
            {},
            [{"width": "double:gaussian", "to": "resnet20(width=32)"}],
            "0a074acf67201c57a4850a312134b6634138af0fbc97071feff6b86105b8203f",
        ),
        (
            {
                "method": "ett",
                "source": "resnet20",
                "source_dataset": "svhn",
                "network": "resnet20",
            },
            {},
            [{"move": "fresh head"}],
            "17385061135e86a31fd4323fca36cdde94ebb6af5f9c885b9066b4a85fc1c9ca",
        ),
        (
            {
                "method": "ett_head",
                "source": "resnet20",
                "source_dataset": "svhn",
                "network": "resnet20",
            },
            {},
            [{"move": "own head"}],
            "0028a26eec9bca87d4b273a985010130e0adcd7371d51280ef1728ceebc5238b",
        ),
        (
            {
                "method": "ett",
                "source": "resnet20",
                "source_dataset": "svhn",
                "network": "resnet32",
            },
            {},
            [
                {"transform": [[0, 1, 2, 1, 2]] * 3, "to": "resnet32"},
                {"move": "fresh head"},
            ],
            "79c84948de09bca3d880e219d5fa2de4362fb22a294eb06f4c9154f7791866ce",
        ),
    ],
    ids=lambda value: value.get("method", "") if isinstance(value, dict) else "",
)
def test_golden_keys_of_retrainings(
    entry: dict[str, Any], criteria: dict[str, Any], steps: list[dict[str, Any]], key: str
) -> None:
    built = plan.build(experiment(grid=[{**entry, "round": 10}], criteria=criteria))
    (stage,) = of_kind(built, "retraining")
    assert stage.params["ticket"] == steps
    assert stage.key == built.asked[0] == key


def test_settings_of_one_criterion_are_in_no_key_of_another() -> None:
    entry = {"method": ["snip", "grasp"], "network": "resnet20", "round": 10}
    plain, changed = (plan.build(experiment(grid=[entry], criteria=c)).asked for c in ({}, SNIP))
    assert plain[0] != changed[0]
    assert plain[1] == changed[1]
    # As in test_golden_keys_of_retrainings.
    assert plain[1] == "fd5ffe35ed40c8fda675a49a38bebfe521736ef366d08d34aa26a06bc4c21034"


def test_no_key_of_the_first_version_of_grasp_is_asked_for() -> None:
    """There both sums were over halves by default, which keys left out, and joint was spelled."""
    settings: list[dict[str, Any]] = [{}, {"halves": "joint"}, {"halves": "disjoint"}]
    keys, former = set(), set()
    for method in ("grasp", "grasp_absolute"):
        grid = [{"method": method, "network": "resnet20", "round": 10}]
        for chosen in settings:
            built = plan.build(experiment(grid=grid, criteria={method: chosen}))
            (stage,) = of_kind(built, "retraining")
            keys.add(stage.key)
            for old in settings[:2]:
                step = {"criterion": method, "nonzeros": 29_085, **old}
                params = {**stage.params, "ticket": [step]}
                former.add(dataclasses.replace(stage, params=params).key)
    assert len(keys) == len(former) == 4
    assert "19a2f8393ae4a6a16da91513c9c93c8b49a6f273c4692299c43c249cc7301bd3" in former
    assert not keys & former


SPARSE = {
    "rigl": "599584a6fbcbd0216337f052dcd1be4d848c49ef179c6e222f53d069002155da",
    "set": "198cac338ac94a3f5fd682f996e6c27501d4b8b3500904b2e1a2850e4b48d3d6",
    "snfs": "ec45b0fbca850c0d016f91a0f6b86071a9c4453fd5dea52c67a01e802ece34cd",
    "static": "2debeb9bb81abf5261be241c6e10fd2bc758b348517060d01c8c9f3eb6411d7f",
    "gmp": "63b95f161ee5f79224c1f436c91c0c250ba1ad3d797e0e5e7f43a54bed508005",
    "dpf": "e58b49cfa4594afb95fd9e397bab6367c0ae65a8bd9d8218a2a15ad8d66c6a44",
}
"""Keys of sparse trainings of ResNet-20 of as many weights as round 10 has."""


@pytest.mark.parametrize("method", SPARSE)
def test_golden_keys_of_sparse_trainings(method: str) -> None:
    built = plan.build(experiment(grid=[{"method": method, "network": "resnet20", "round": 10}]))
    (stage,) = of_kind(built, "sparse_training")
    assert stage.key == built.asked[0] == SPARSE[method]


def test_the_golden_key_of_a_sparse_training_from_the_rewind_point() -> None:
    grid = [{"method": "rigl", "network": "resnet20", "round": 10}]
    criteria = {"rigl": {"every": "50it", "at": "rewind"}}
    (stage,) = of_kind(plan.build(experiment(grid=grid, criteria=criteria)), "sparse_training")
    assert stage.key == ("5e9846bdf3a6231e8c99fec427eb37cb1ecafb2c4f1dd400d2b187e4af2b1717")


def test_every_method_has_a_golden_key() -> None:
    marks = test_golden_keys_of_retrainings.pytestmark
    tried = {entry["method"] for entry, *_ in marks[0].args[1]}
    tried |= {"dense", "imp", "ett", "reinit", "random", "magnitude"}  # those of ``GOLDEN``
    tried |= {"random_layerwise"}  # as other criteria
    tried |= SPARSE.keys()
    assert tried == set(METHODS)


@pytest.mark.parametrize(
    ("sparsity", "before", "kept", "key"),
    [
        # 10 % of 270,896 is 27,089.6, between 29,085 of round 10 and 23,268 of round 11.
        (0.9, 10, 27_089, "275c7142834ca444d7fb01041d65cd433c3ac225eb0f69c63e7bd68f9081c4a5"),
        # 5 % is 13,544.8, between 14,891 of round 13 and 11,912 of round 14.
        (0.95, 13, 13_544, "f92162868711bca5530e39cfbca3e298acf512c8944c736dcc69228be4cef0df"),
    ],
)
def test_an_exact_sparsity_is_reached_by_a_last_smaller_round(
    sparsity: float, before: int, kept: int, key: str
) -> None:
    entry = {"network": "resnet20", "sparsity": sparsity}
    built = plan.build(experiment(grid=[{"method": ["imp", "snip", "reinit"], **entry}]))
    last, snip, reinit = (built.stages[asked] for asked in built.asked)
    rounds = of_kind(built, "round")
    assert [stage.labels["round"] for stage in rounds] == [*range(before + 1), before + 1]
    assert (last.key, last.params["keep"]) == (key, kept)
    assert "rate" not in last.params
    assert last.parents == (of_kind(built, "rewind_point")[0].key, rounds[before].key)
    assert (last.labels["round"], last.labels["target"]) == (before + 1, str(sparsity))
    assert last.title == f"resnet20 at {round(100 * sparsity)} %, seed 0"
    # What is matched to it has the same count, and what is made of it waits for it.
    assert snip.params["ticket"] == [{"criterion": "snip", "nonzeros": kept}]
    assert reinit.parents == (last.key,)
    assert snip.labels["target"] == reinit.labels["target"] == str(sparsity)


def test_an_exact_sparsity_is_a_level_of_its_own_where_a_round_reaches_it_too() -> None:
    # A fifth of 174,128 is no whole number: rounds keep 139,302 and 111,441, as 20 % and 36 % do.
    entry = {"network": "resnet14", "round": [1, 2], "sparsity": [0.2, 0.36]}
    built = plan.build(experiment(grid=[{"method": ["imp", "snip"], **entry}]))
    asked = [built.stages[key] for key in built.asked]
    first, second, at_20, at_36 = asked[:4]
    assert [stage.kind for stage in asked[:4]] == ["round"] * 4
    assert (at_20.params["keep"], at_36.params["keep"]) == (139_302, 111_441)
    assert [s.labels.get("target", "") for s in asked[:4]] == ["", "", "0.2", "0.36"]
    assert [s.labels["round"] for s in asked[:4]] == [1, 2, 1, 2]
    assert [s.title for s in (at_20, at_36)] == [
        *("resnet14 at 20 %, seed 0", "resnet14 at 36 %, seed 0"),
    ]
    # It is pruned from the same round as the whole one.
    assert (at_20.parents, at_36.parents) == (first.parents, second.parents)
    # A criterion prunes to a count, and so it is trained once, with the label that came first.
    assert [s.params["ticket"][0]["nonzeros"] for s in asked[4:]] == [139_302, 111_441]
    assert "target" not in asked[4].labels


def test_an_exact_sparsity_may_be_that_of_the_last_round() -> None:
    # 1 - 0.8^2: two rounds are needed, and the second is the last.
    entry = {"method": "imp", "network": "resnet14", "sparsity": 0.36}
    built = plan.build(experiment(grid=[entry], pruning={"rounds": 2}))
    (stage,) = (built.stages[key] for key in built.asked)
    assert (stage.labels["round"], stage.labels["target"]) == (2, "0.36")
    assert [s.labels["round"] for s in of_kind(built, "round")] == [0, 1, 2]


def test_an_exact_sparsity_of_a_moved_ticket_is_that_of_its_source() -> None:
    entry = {"method": "ett", "source": "resnet20", "network": "resnet32", "sparsity": 0.95}
    built = plan.build(experiment(grid=[entry]))
    (moved,) = of_kind(built, "retraining")
    source = built.stages[moved.parents[0]]
    assert (source.labels["network"], source.params["keep"]) == ("resnet20", 13_544)
    assert moved.title == "resnet32 <- resnet20 append at 95 %, seed 0"


def test_an_exact_sparsity_may_come_before_the_first_round_or_after_the_last() -> None:
    # 90 % and 15 % of 270,896 are 243,806.4 and 40,634.4; after 8 rounds 45,447 are left.
    entry = {"method": "imp", "network": "resnet20", "sparsity": [0.1, 0.85]}
    built = plan.build(experiment(grid=[entry], pruning={"rate": 0.2, "rounds": 8}))
    first, last = (built.stages[key] for key in built.asked)
    assert (first.params["keep"], first.labels["round"]) == (243_806, 1)
    assert (last.params["keep"], last.labels["round"]) == (40_634, 9)
    assert built.stages[first.parents[1]].labels["round"] == 0
    assert built.stages[last.parents[1]].labels["round"] == 8


def test_a_key_is_the_hash_of_the_canonical_description() -> None:
    stage = of_kind(plan.build(experiment(grid=GRID)), "rewind_point")[0]
    text = (
        '{"kind":"rewind_point","params":{"dataset":'
        + json.dumps(stage.params["dataset"], sort_keys=True, separators=(",", ":"))
        + ',"network":"resnet14","recipe":{"augment":"crop_flip","length":"160ep",'
        '"milestones":["80ep","120ep"],"rewind":"1000it"},"seed":0},"parents":[],"version":1}'
    )
    assert stage.key == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"root": "/elsewhere", "download": True}},
        {"resources": {"cpus": 4, "gpus": 0.5, "concurrent": 3}},
        {"name": "other", "description": "something else"},
        {"pruning": {"rate": 0.2, "rounds": 20}},
        {"grid": GRID[::-1]},
        {"seeds": [1, 0]},
        {"recipe": RECIPES["cifar10_resnet"].full()},
        {"recipe": {"base": "cifar10_resnet", "momentum": 0.9}},
    ],
    ids=", ".join,
)
def test_what_is_in_no_key(change: dict[str, Any]) -> None:
    changed = _keys(**change)
    assert {title: changed[title] for title in GOLDEN} == GOLDEN


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [1]},
        {"dataset": "mnist", "recipe": {"base": "cifar10_resnet", "rewind": "100it"}},
        *(
            {"recipe": {"base": "cifar10_resnet", **field}}
            for field in (
                {"length": "121ep"},
                {"rewind": "2ep"},
                {"batch_size": 64},
                {"optimiser": "adam"},
                {"lr": 0.05},
                {"momentum": 0.8},
                {"weight_decay": 0.0},
                {"schedule": "cosine"},
                {"milestones": ["80ep"]},
                {"gamma": 0.5},
                {"warmup": "1ep"},
                {"augment": "none"},
                {"precision": "bf16"},
                {"batch_norm_group": 32},
                {"nesterov": True},
                {"label_smoothing": 0.1},
                {"decay": "kernels"},
            )
        ),
    ],
    ids=str,
)
def test_what_is_in_every_key(change: dict[str, Any]) -> None:
    assert not set(_keys(**change).values()) & set(_keys().values())


def test_every_field_of_a_recipe_is_tried_above() -> None:
    marks = test_what_is_in_every_key.pytestmark
    tried = {field for change in marks[0].args[1] for field in change.get("recipe", {})}
    assert tried == {"base", *RECIPES["cifar10_resnet"].full()}


def test_the_rate_is_in_the_keys_of_rounds_but_not_of_the_dense_one() -> None:
    before, after = _keys(), _keys(pruning={"rate": 0.3})
    same = {title for title in before if before[title] == after[title]}
    assert same == {REWIND, DENSE, REWIND.replace("14", "20")}


def test_the_rate_of_a_key_is_its_shortest_decimal() -> None:
    assert _keys(pruning={"rate": "0.20"}) == _keys(pruning={"rate": 2e-1}) == _keys()


def _ett(source: str, network: str, transform: str, **changes: Any) -> Plan:
    entry = {"method": "ett", "source": source, "network": network, "transform": transform}
    return plan.build(experiment(grid=[{**entry, "round": 2}], **changes))


def test_two_ways_to_write_one_plan_are_one_stage() -> None:
    append = _ett("resnet14", "resnet20", "append")
    assert append.stages.keys() == _ett("resnet14", "resnet20", "interpolate").stages.keys()
    assert append.stages.keys() == _ett("resnet14", "resnet20", "0 1 1").stages.keys()
    assert append.stages.keys() == _ett("resnet14(width=16)", "resnet20", "auto").stages.keys()
    deeper = _ett("resnet20", "resnet32", "append")
    assert deeper.stages.keys() != _ett("resnet20", "resnet32", "interpolate").stages.keys()


def test_both_ways_in_one_grid_are_done_once() -> None:
    entry = {"method": "ett", "source": "resnet14", "network": "resnet20", "round": 2}
    both = experiment(grid=[{**entry, "transform": ["interpolate", "append", "auto"]}])
    assert list(plan.build(both).stages) == list(_ett("resnet14", "resnet20", "append").stages)


def test_the_identity_is_the_stage_of_imp_itself() -> None:
    found = _ett("resnet14", "resnet14", "identity")
    imp = experiment(grid=[{"method": "imp", "network": "resnet14", "round": 2}])
    assert found.stages == plan.build(imp).stages
    assert plan.count_kinds(found.stages.values())["retraining"] == 0
    assert found.stages == _ett("resnet14", "resnet14", "auto").stages


def test_dropping_only_is_no_identity() -> None:
    found = of_kind(_ett("resnet20", "resnet14", "drop"), "retraining")
    assert [stage.title for stage in found] == ["resnet14 <- resnet20 drop round 2, seed 0"]
    assert found[0].params["ticket"] == [{"transform": [[0, 1]] * 3, "to": "resnet14"}]


@pytest.mark.parametrize(
    ("k", "count"), [(6, 71_012), (10, 29_085), (13, 14_891)], ids=["73.79", "89.26", "94.50"]
)
def test_magnitude_waits_for_the_rewind_point_only(k: int, count: int) -> None:
    entry = {"method": "magnitude", "network": "resnet20", "round": k}
    built = plan.build(experiment(grid=[entry]))
    start, retraining = built.stages.values()
    assert start.kind == "rewind_point"
    assert retraining.parents == (start.key,)
    assert retraining.params["ticket"] == [{"criterion": "magnitude", "nonzeros": count}]


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if m.base == "rewind"])
def test_a_criterion_waits_for_no_round(method: str) -> None:
    entry = {"method": method, "network": "resnet20", "round": [10, 6]}
    start, *found = plan.build(experiment(grid=[entry])).stages.values()
    assert start.kind == "rewind_point"
    assert [stage.parents for stage in found] == [(start.key,), (start.key,)]
    assert [stage.params["ticket"][0]["nonzeros"] for stage in found] == [29_085, 71_012]


def test_a_graft_waits_for_the_round_of_the_source_and_the_rewind_point_of_the_target() -> None:
    entry = {"method": "ett_snip_extra", **STRETCH, "round": 2}
    built = plan.build(experiment(grid=[entry]))
    (stage,) = of_kind(built, "retraining")
    assert [built.stages[key].title for key in stage.parents] == [
        "resnet14 round 2, seed 0",
        "resnet32 rewind point, seed 0",
    ]
    assert plan.count_kinds(built.stages.values()) == {
        "rewind_point": 2,
        "round": 3,
        "retraining": 1,
    }


def test_each_dataset_has_its_recipe_and_its_rewind_points() -> None:
    grid = [{"method": "imp", "network": "resnet20", "dataset": ["svhn", "cifar10"], "round": 1}]
    built = plan.build(experiment(grid=grid, recipes={"svhn": {"base": "cifar10_vgg", "lr": 0.2}}))
    svhn, cifar = of_kind(built, "rewind_point")
    assert (plan.dataset_of(svhn), plan.dataset_of(cifar)) == ("svhn", "cifar10")
    assert svhn.recipe.lr == 0.2
    assert (plan.iterations(svhn), plan.iterations(cifar)) == ((0, 200), (0, 1000))
    assert [stage.params["dataset"]["name"] for stage in of_kind(built, "round")] == [
        *("svhn", "svhn"),
        *("cifar10", "cifar10"),
    ]
    alone = experiment(grid=[{"method": "imp", "network": "resnet20", "round": 1}])
    assert set(plan.build(alone).stages) < set(built.stages)  # its keys know nothing of the other


def test_a_ticket_moved_to_another_dataset_is_trained_from_the_beginning() -> None:
    entry = {"method": "ett", "source": "resnet20", "source_dataset": "svhn", "round": 1}
    built = plan.build(experiment(grid=[{**entry, "network": ["resnet20", "resnet32"]}]))
    for stage in of_kind(built, "retraining"):
        assert plan.dataset_of(stage) == "cifar10"
        assert stage.labels["source"] == "resnet20@svhn"
        assert plan.iterations(stage) == (0, 62_560)
    assert [plan.dataset_of(stage) for stage in of_kind(built, "round")] == ["svhn", "svhn"]
    # 73,257 images make 573 iterations an epoch.
    assert plan.iterations(of_kind(built, "round")[0]) == (1000, 160 * 573)


def test_the_head_may_have_another_number_of_classes() -> None:
    entry = {"method": "ett", "source": "resnet26", "source_dataset": "imagenet", "round": 1}
    grid = [{**entry, "network": "resnet18", "dataset": "cifar10(size=224)"}]
    built = plan.build(experiment(grid=grid, recipes={"imagenet": "imagenet_resnet"}))
    (stage,) = of_kind(built, "retraining")
    assert [next(iter(step)) for step in stage.params["ticket"]] == ["transform", "move"]


def test_reinit_and_random_wait_for_their_round() -> None:
    entry = {"method": ["reinit", "random"], "network": "resnet20", "round": 2}
    built = plan.build(experiment(grid=[entry]))
    rounds = of_kind(built, "round")
    found = of_kind(built, "retraining")
    assert [stage.params["ticket"] for stage in found] == [
        [{"reinit": "all"}],
        [{"shuffle": "layerwise", "version": 2}],
    ]
    assert all(stage.parents == (rounds[-1].key,) for stage in found)


def test_a_chain_stage_by_stage() -> None:
    entry = {"method": "imp", "network": "resnet20", "round": 2}
    start, dense, first, second = plan.build(experiment(grid=[entry])).stages.values()
    assert (start.kind, start.parents) == ("rewind_point", ())
    assert dense.parents == (start.key,)
    assert "rate" not in dense.params
    assert first.parents == (start.key, dense.key)
    assert second.parents == (start.key, first.key)
    assert (first.params["rate"], second.params["rate"]) == ("0.2", "0.2")
    assert first.params == second.params
    assert [stage.labels["method"] for stage in (start, dense, first)] == ["rewind", "dense", "imp"]
    assert second.labels == {
        "network": "resnet20",
        "method": "imp",
        "source": "",
        "transform": "",
        "round": 2,
        "seed": 0,
        "dataset": "cifar10",
    }


def test_titles() -> None:
    assert list(_keys()) == [
        REWIND,
        DENSE,
        *(f"resnet14 round {k}, seed 0" for k in range(1, 14)),
        ETT,
        "resnet20 rewind point, seed 0",
        MAGNITUDE,
        "resnet14 reinit round 10, seed 0",
        "resnet14 random round 10, seed 0",
    ]


def test_a_description_becomes_the_same_stage_again() -> None:
    for stage in plan.build(experiment(grid=GRID)).stages.values():
        again = Stage.of(json.loads(json.dumps(stage.describe())))
        assert again == stage
        assert again.key == stage.key
        assert again.labels == stage.labels
        assert again.title == stage.title


# Refusals


MOVES_TO_ITSELF: list[dict[str, Any]] = [
    {"network": "resnet20"},
    {"network": "resnet20(width=16)", "transform": "identity"},
    {"network": ["resnet32", "resnet20"], "transform": "auto", "round": 3},
]
"""Of ResNet-20."""


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"method": "ett", "source": "mlp2", "network": "resnet20", "round": 3},
            "a ticket moves within one family of networks: found mlp with 1 stages and "
            "cifar-resnet with 3",
        ),
        (
            {"method": "ett", "source": "resnet14(width=8)", "network": "resnet20"},
            r"a ticket of resnet14\(width=8\) does not fit resnet20: 'conv1.weight' has shape "
            r"\(16, 3, 3, 3\), 'conv1.weight' of the source \(8, 3, 3, 3\); between widths in the "
            "ratio of two, transform is double or halve",
        ),
        (
            {
                "method": "ett",
                "source": "resnet20",
                "source_dataset": "digits",
                "network": "resnet20",
            },
            r"a ticket of resnet20 does not fit resnet20: 'conv1.weight' has shape \(16, 3, 3, 3\)"
            r", 'conv1.weight' of the source \(16, 1, 3, 3\)$",
        ),
        (
            {
                "method": "ett",
                "source": "mlp1",
                "source_dataset": "svhn",
                "network": "mlp1",
                "dataset": "cifar10(size=16)",
                "round": 3,
            },
            r"a ticket of mlp1 does not fit mlp1: 'stem.weight' has shape \(300, 768\), 'stem",
        ),
        (
            {
                "method": "ett",
                "source": "resnet20",
                "source_dataset": "digits",
                "network": "resnet20(width=32)",
                "transform": "double",
            },
            "conv1.weight",
        ),
        (
            {
                "method": "ett",
                "source": "resnet20",
                "network": "resnet20(width=64)",
                "transform": "double",
            },
            r"'conv1.weight' has shape \(16, 3, 3, 3\) in resnet20 and \(64, 3, 3, 3\) in resnet20"
            r"\(width=64\): double needs a target of twice the width",
        ),
        (
            {
                "method": "ett",
                "source": "resnet20",
                "network": "resnet20(width=32)",
                "transform": "double:gausian",
            },
            "unknown way to double 'gausian'; did you mean 'gaussian'?",
        ),
        *(
            (
                {
                    "method": method,
                    "source": source,
                    "network": network,
                    "transform": transform,
                    "round": 1,
                },
                f"method {method} is about replicated units, and '{transform}' from {source} to "
                f"{re.escape(network)} has none: give a plan that stretches",
            )
            for method in ("ett_random_extra", "ett_snip_extra")
            for source, network, transform in [
                ("resnet20", "resnet14", "drop"),
                ("resnet20", "resnet20(width=32)", "double"),
            ]
        ),
        *(
            (
                {"method": method, "source": "resnet20", **entry},
                f"method {method} from resnet20 to itself changes no unit: use reinit or random, "
                "which are the same, or leave this pair out",
            )
            for method, m in METHODS.items()
            if m.base == SOURCE and m.steps
            for entry in MOVES_TO_ITSELF
        ),
        (
            {
                "method": "ett_snip_extra",
                "source": "resnet14",
                "source_dataset": "svhn",
                "network": "resnet20",
            },
            "method ett_snip_extra is about replicated units, and 'auto' from resnet14 to resnet20",
        ),
        (
            {"method": ["magnitude", "imp"], "network": "resnet20", "sparsity": 0.99999},
            r"a sparsity of 0.99999 on resnet20 needs a smaller round after round 49, and "
            r"pruning.rounds is 40 \(99.99 %\)",
        ),
        (
            # 0.05 % of 3,072 x 300 + 300 x 100 + 100 x 10.
            {"method": "snip", "network": "mlp1", "sparsity": 0.9995},
            r"a sparsity of 0.9995 on mlp1 would keep 476 weights, and 1,000 in head.weight are "
            r"never pruned: ask for 0.99895 at most, which keeps 1,000",
        ),
        (
            {"method": "ett", "source": "resnet14", "network": "resnet20", "transform": "apend"},
            "unknown plan 'apend'; did you mean 'append'?",
        ),
        (
            {"method": "ett", "source": "resnet14", "network": "resnet20", "transform": "drop"},
            "stage layer1: 'drop' can only squeeze; 2 units are to fill 3",
        ),
        (
            {"method": ["imp", "magnitude"], "network": "mlp1", "round": 31},
            "round 31 of mlp1 would keep 941 weights, and 1,000 in head.weight are never pruned: "
            r"round 30 is the last that keeps as many \(1,177\), where each prunes 0.2 of",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_spent(
    entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(ElthError, match=message):
        plan.build(experiment(grid=[entry], pruning={"rounds": 40}))


@pytest.mark.parametrize(
    "changes",
    [{"network": "resnet20", "transform": "0 2 1"}, {"network": "resnet20", "dataset": "svhn"}],
    ids=str,
)
def test_a_control_within_a_network_that_changes_something_is_planned(
    changes: dict[str, str],
) -> None:
    """Units may change places, and the head changes with the dataset."""
    entry = {"method": "ett_reinit", "source": "resnet20", "round": 1, **changes}
    (stage,) = of_kind(plan.build(experiment(grid=[entry])), "retraining")
    assert len(stage.params["ticket"]) == 2
    assert stage.params["ticket"][-1] == {"reinit": "all"}


def test_an_exact_sparsity_beyond_the_last_round_is_refused() -> None:
    entry = {"method": "imp", "network": "resnet20", "sparsity": 0.9}
    # 29,085 are left after round 10, 36,357 after round 9: 27,089 needs ten rounds and a smaller.
    plan.build(experiment(grid=[entry], pruning={"rounds": 10}))
    message = (
        r"a sparsity of 0.9 on resnet20 needs a smaller round after round 10, and pruning.rounds "
        r"is 9 \(86.58 %\)"
    )
    with pytest.raises(ElthError, match=message):
        plan.build(experiment(grid=[entry], pruning={"rounds": 9}))


def test_a_rewind_point_behind_the_end_is_refused() -> None:
    recipe = {"base": "cifar10_resnet", "length": "2ep", "milestones": []}
    with pytest.raises(ElthError, match=r"rewind point 1000it \(iteration 1000\) must come before"):
        plan.build(experiment(recipe=recipe))


SHORT = {"base": "cifar10_resnet", "length": "5ep", "milestones": []}
"""Of 391 iterations each."""


def _planned(recipe: dict[str, Any], **changes: Any) -> Plan:
    return plan.build(experiment(recipe={**SHORT, **recipe}, **changes))


@pytest.mark.parametrize(
    "recipe",
    [
        {"milestones": ["4ep"]},
        {"milestones": ["1954it"]},  # of 5 x 391 = 1,955
        {"milestones": ["5ep", "9ep"], "schedule": "constant"},  # which has none
        {"milestones": ["5ep"], "schedule": "cosine"},
        {"warmup": "4ep"},
        {"warmup": "1954it", "schedule": "cosine"},
    ],
    ids=str,
)
def test_a_schedule_of_which_every_part_is_reached(recipe: dict[str, Any]) -> None:
    assert len(_planned(recipe).stages) == 15


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            {"milestones": ["5ep"]},
            "the learning rate is to drop at 5ep, and the training ends at 5ep: give milestones "
            "that lie before, or none",
        ),
        ({"milestones": ["3ep", "1955it"]}, "is to drop at 1955it, and the training ends at 5ep:"),
        ({"milestones": ["9ep", "7ep"]}, "is to drop at 9ep, and the training ends at 5ep:"),
        (
            {"length": "1200it", "milestones": ["4ep"]},
            "is to drop at 4ep, and the training ends at 1200it:",
        ),
        (
            {"warmup": "5ep"},
            "the warm-up ends at 5ep, and the training at 5ep: shorten the warm-up",
        ),
        ({"warmup": "1955it", "schedule": "constant"}, "the warm-up ends at 1955it, and the train"),
        ({"warmup": "6ep", "schedule": "cosine"}, "the warm-up ends at 6ep, and the training at 5"),
    ],
    ids=str,
)
def test_a_schedule_of_which_a_part_is_never_reached_is_refused(
    recipe: dict[str, Any], message: str
) -> None:
    with pytest.raises(ElthError, match=message):
        _planned(recipe)


def test_the_schedule_of_each_dataset_is_looked_at_with_its_own_epochs() -> None:
    # 2,000 iterations are 5.1 epochs of CIFAR-10 and 3.5 of SVHN.
    recipe = {**SHORT, "length": "2000it", "milestones": ["4ep"]}
    entry = {"method": "imp", "network": "resnet20"}
    plan.build(experiment(grid=[entry], recipe=recipe))
    with pytest.raises(ElthError, match="is to drop at 4ep, and the training ends at 2000it"):
        plan.build(experiment(grid=[{**entry, "dataset": "svhn"}], recipe=recipe))
    plan.build(
        experiment(grid=[{**entry, "dataset": "svhn"}], recipe=recipe, recipes={"svhn": SHORT})
    )
    late = {**SHORT, "milestones": ["5ep"]}
    grid = [{**entry, "dataset": ["cifar10", "svhn"]}]
    with pytest.raises(ElthError, match="is to drop at 5ep, and the training ends at 5ep"):
        plan.build(experiment(grid=grid, recipe=SHORT, recipes={"svhn": late}))


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("snip", {"samples": 50_000}),
        ("snip", {"samples": 0}),  # all there are
        ("grasp", {"samples_per_class": 5000}),
        ("grasp", {"samples_per_class": 100, "batches": 50}),
        ("grasp_absolute", {"samples_per_class": 1, "batches": 5000}),
    ],
    ids=str,
)
def test_a_criterion_may_ask_for_every_training_image(
    method: str, settings: dict[str, int]
) -> None:
    entry = {"method": method, "network": "resnet20", "round": 1}
    plan.build(experiment(grid=[entry], criteria={method: settings}))


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (
            "snip",
            {"samples": 50_001},
            "criterion snip asks for 50,001 training images, and cifar10 has 50,000: lower "
            "criteria.snip",
        ),
        (
            "grasp",  # of each of ten classes
            {"samples_per_class": 5001},
            "criterion grasp asks for 50,010 training images, and cifar10 has 50,000: lower "
            "criteria.grasp",
        ),
        (
            "grasp_absolute",  # 10 x 501 x 10
            {"batches": 501},
            "criterion grasp_absolute asks for 50,100 training images, and cifar10 has 50,000: "
            "lower criteria.grasp_absolute",
        ),
    ],
)
def test_a_criterion_that_asks_for_more_images_than_there_are_is_refused(
    method: str, settings: dict[str, int], message: str
) -> None:
    entry = {"method": method, "network": "resnet20", "round": 1}
    with pytest.raises(ElthError, match=f"^{message}$"):
        plan.build(experiment(grid=[entry], criteria={method: settings}))


def test_images_are_counted_on_the_dataset_of_the_cell() -> None:
    entry = {"method": "snip", "network": "resnet20", "round": 1}
    settings = {"snip": {"samples": 60_000}}
    plan.build(experiment(grid=[{**entry, "dataset": "svhn"}], criteria=settings))  # 73,257
    message = "criterion snip asks for 60,000 training images, and cifar10 has 50,000"
    with pytest.raises(ElthError, match=message):
        plan.build(experiment(grid=[{**entry, "dataset": ["svhn", "cifar10"]}], criteria=settings))
    # 1,297 digits: 128 of SNIP's default are there, 130 of each class are not.
    small = experiment(
        grid=[{**entry, "method": ["snip", "grasp"]}],
        dataset="digits",
        recipe="digits_resnet",
        criteria={"grasp": {"samples_per_class": 130}},
    )
    message = "criterion grasp asks for 1,300 training images, and digits has 1,297: lower"
    with pytest.raises(ElthError, match=message):
        plan.build(small)


def test_a_graft_that_asks_for_more_images_than_there_are_is_refused() -> None:
    entry = {"method": "ett_snip_extra", **STRETCH, "round": 1}
    found = experiment(grid=[entry], criteria={"snip": {"samples": 50_001}})
    with pytest.raises(ElthError, match="criterion snip asks for 50,001 training images"):
        plan.build(found)


# Jobs


def test_a_chain_is_one_job_with_its_rewind_point() -> None:
    built = plan.build(experiment(grid=GRID))
    jobs = built.jobs()
    assert [[stage.title for stage in job.stages] for job in jobs] == [
        [REWIND, DENSE, *(f"resnet14 round {k}, seed 0" for k in range(1, 14))],
        [ETT],
        ["resnet20 rewind point, seed 0"],
        [MAGNITUDE],
        ["resnet14 reinit round 10, seed 0"],
        ["resnet14 random round 10, seed 0"],
    ]
    assert jobs[0].key == jobs[0].stages[-1].key


def test_what_is_finished_is_left_out_and_a_chain_goes_on() -> None:
    built = plan.build(experiment(grid=GRID))
    keys = _keys()
    finished = {keys[REWIND], keys[DENSE], keys["resnet14 round 1, seed 0"], keys[ETT]}
    jobs = built.jobs(finished)
    assert [job.stages[0].title for job in jobs] == [
        "resnet14 round 2, seed 0",
        "resnet20 rewind point, seed 0",
        MAGNITUDE,
        "resnet14 reinit round 10, seed 0",
        "resnet14 random round 10, seed 0",
    ]
    assert [len(job.stages) for job in jobs] == [12, 1, 1, 1, 1]
    assert built.jobs(built.stages) == []


def test_a_hole_in_a_chain_makes_two_jobs() -> None:
    built = plan.build(experiment(grid=[{"method": "imp", "network": "resnet14", "round": 4}]))
    stages = list(built.stages.values())
    jobs = built.jobs({stage.key for stage in stages} - {stages[2].key, stages[4].key})
    assert [[s.labels["round"] for s in job.stages] for job in jobs] == [[1], [3]]


def test_a_last_smaller_round_is_a_job_of_its_own_and_breaks_no_chain() -> None:
    entry = {"method": "imp", "network": "resnet14", "round": [1, 2, 3], "sparsity": [0.3, 0.4]}
    built = plan.build(experiment(grid=[entry]))
    jobs = built.jobs()
    assert [[stage.title for stage in job.stages] for job in jobs] == [
        [REWIND, DENSE, *(f"resnet14 round {k}, seed 0" for k in (1, 2, 3))],
        ["resnet14 at 30 %, seed 0"],
        ["resnet14 at 40 %, seed 0"],
    ]
    # Asked for first, it stands before later rounds of the chain, which goes on all the same.
    entries = [{**entry, "round": [], "sparsity": 0.3}, {**entry, "sparsity": []}]
    jobs = plan.build(experiment(grid=entries)).jobs()
    assert [len(job.stages) for job in jobs] == [5, 1]
    assert jobs[1].stages[0].title == "resnet14 at 30 %, seed 0"


# Sharing


def test_what_each_line_and_each_cell_would_take_alone() -> None:
    grid = [
        {"method": ["dense", "imp"], "network": "resnet14"},
        {"method": "ett", "source": "resnet14", "network": "resnet20", "round": "all"},
        {"method": ["magnitude", "reinit"], "network": "resnet14", "round": 2},
    ]
    built = plan.build(experiment(grid=grid, pruning={"rounds": 2}))
    trainings = len(of_kind(built, "round")) + len(of_kind(built, "retraining"))
    assert trainings == 3 + 2 + 1 + 1
    # Lines: IMP with the dense network 3; ETT 3 + 2; Magnitude 1; Reinit 3 + 1.
    # Cells: dense 1, IMP 2 and 3; ETT 2 + 1 and 3 + 1; Magnitude 1; Reinit 3 + 1.
    assert built.alone() == (3 + 5 + 1 + 4, 1 + 2 + 3 + 3 + 4 + 1 + 4)
    twice = plan.build(experiment(grid=grid, pruning={"rounds": 2}, seeds=[0, 1]))
    assert twice.alone() == (26, 36)


def test_lines_of_two_datasets_and_plans_are_apart() -> None:
    entry = {"method": "ett", "source": "resnet20", "network": "resnet32", "round": 1}
    built = plan.build(experiment(grid=[{**entry, "transform": ["append", "interpolate"]}]))
    assert built.alone() == (6, 6)  # dense, round 1 and the ticket, twice
    moved = {**entry, "dataset": ["cifar10", "svhn"]}
    assert plan.build(experiment(grid=[moved])).alone() == (6, 6)


def test_the_longest_path_goes_down_the_chain() -> None:
    built = plan.build(experiment(grid=[{"method": "imp", "network": "resnet14", "round": 2}]))
    start, dense, first, second = built.stages.values()
    path = built.remaining_path()
    assert path[second.key] == plan.work(second)
    assert path[first.key] == pytest.approx(plan.work(first) + path[second.key])
    assert path[dense.key] == pytest.approx(plan.work(dense) + path[first.key])
    assert path[start.key] == pytest.approx(plan.work(start) + path[dense.key])


def test_children_are_parents_the_other_way_round() -> None:
    built = plan.build(experiment(grid=GRID))
    children = built.children()
    assert set(children) == set(built.stages)
    pairs = {(parent, key) for key, s in built.stages.items() for parent in s.parents}
    assert pairs == {(parent, key) for parent, found in children.items() for key in found}


# Lengths


def test_iterations_are_those_of_the_paper() -> None:
    built = plan.build(experiment(grid=GRID))
    assert plan.iterations(of_kind(built, "rewind_point")[0]) == (0, 1000)
    assert plan.iterations(of_kind(built, "round")[0]) == (1000, 62_560)
    assert plan.iterations(of_kind(built, "retraining")[0]) == (1000, 62_560)


def test_work_grows_with_network_and_length() -> None:
    def of(network: str, **recipe: Any) -> float:
        found = experiment(
            grid=[{"method": "dense", "network": network}],
            recipe={"base": "cifar10_resnet", **recipe},
        )
        return plan.work(of_kind(plan.build(found), "round")[0])

    assert of("resnet14") < of("resnet20") < of("resnet56")
    assert of("resnet14", length="130ep") < of("resnet14")


def test_stored_bytes() -> None:
    built = plan.build(experiment(grid=GRID))
    start, dense, *rounds = of_kind(built, "rewind_point")[:1] + of_kind(built, "round")
    retraining = of_kind(built, "retraining")[0]
    overhead = 60_000
    assert plan.stored_bytes(start) == overhead + 4 * 174_128
    assert plan.stored_bytes(dense) == overhead + 174_128 // 8 + 4 * 174_128
    assert plan.stored_bytes(rounds[2]) == overhead + 174_128 // 8 + 4 * 89_152
    assert plan.stored_bytes(retraining) == overhead + 270_896 // 8
    entry = {"method": "imp", "network": "resnet14", "sparsity": 0.5}
    last = of_kind(plan.build(experiment(grid=[entry])), "round")[-1]
    assert plan.stored_bytes(last) == overhead + 174_128 // 8 + 4 * 87_064


def test_makespan_of_one_chain_is_its_length_whatever_the_slots() -> None:
    built = plan.build(experiment(grid=[{"method": "imp", "network": "resnet14", "round": 2}]))
    total = sum(plan.work(stage) for stage in built.stages.values())
    assert plan.makespan(built.jobs(), 1) == pytest.approx(total)
    assert plan.makespan(built.jobs(), 8) == pytest.approx(total)


def test_makespan_of_equal_chains_is_shared_by_the_slots() -> None:
    entry = {"method": "imp", "network": "resnet14", "round": 2}
    built = plan.build(experiment(grid=[entry], seeds=[0, 1, 2, 3]))
    total = sum(plan.work(stage) for stage in built.stages.values())
    assert plan.makespan(built.jobs(), 2) == pytest.approx(total / 2)
    assert plan.makespan(built.jobs(), 100) == pytest.approx(total / 4)
    finished = [key for key, stage in built.stages.items() if stage.labels["seed"] < 2]
    assert plan.makespan(built.jobs(), 2, finished) == pytest.approx(total / 4)
    assert plan.makespan([], 2) == 0


# The configurations that come with the project


@pytest.mark.parametrize(
    ("name", "counts", "jobs"),
    [
        # Six seeds; chains of ResNet-14 and 20 of six rounds. ETT 14->20 at three rounds, 20->14 at
        # three, 20->32 at three, ResNet-32 dense; three controls at three.
        ("quickstart", {"rewind_point": 18, "round": 90, "retraining": 108}, 126),
        ("mnist_mlp", {"rewind_point": 9, "round": 99, "retraining": 18}, 27),
        ("cifar10_short", {"rewind_point": 1, "round": 2, "retraining": 1}, 2),
        # Two chains of four rounds, two twins, three of weights drawn anew, ETT and its twin.
        (
            "inside_resnet20",
            {"rewind_point": 2, "round": 10, "retraining": 5, "analysis": 32},
            2 + 2 + 5 + 32,
        ),
        (
            "inside_conv4",
            {"rewind_point": 1, "round": 5, "retraining": 2, "analysis": 28},
            1 + 1 + 2 + 28,
        ),
        # Three seeds; ResNet-14, 20 and 32 to round 13, each with last smaller rounds to 90 and to
        # 95 %, two tickets of each, and ResNet-56 dense.
        # DPF by a recipe of its own, with a dense network each.
        (
            "table3_dpf",
            {
                "rewind_point": 12 + 9,
                "round": 3 * (3 * 16 + 1) + 9,
                "retraining": 18,
                "sparse_training": 18,
            },
            48 + 9 + 18,
        ),
        # RigL in four ways and four more methods, at two sparsities on three networks.
        (
            "rigl_cifar",
            {"rewind_point": 9, "round": 144, "retraining": 18, "sparse_training": 3 * 3 * 2 * 8},
            9 + 18 + 18 + 144,
        ),
        (
            "table2_rigl",
            {"rewind_point": 3, "round": 9, "retraining": 2, "sparse_training": 9},
            3 + 2 + 9,
        ),
    ],
)
def test_configurations(name: str, counts: dict[str, int], jobs: int) -> None:
    built = plan.build(load(CONFIGS / f"{name}.yaml"))
    assert plan.count_kinds(built.stages.values()) == counts
    assert len(built.jobs()) == jobs


def test_the_grid_of_figure_6() -> None:
    """Five ResNets and three seeds: 13 rounds each, between all pairs, and five baselines."""
    built = plan.build(load(CONFIGS / "fig6_cifar_resnets.yaml"))
    assert plan.count_kinds(built.stages.values()) == {
        "rewind_point": 5 * 3,
        "round": 5 * 14 * 3,
        "retraining": 20 * 13 * 3 + 5 * 5 * 13 * 3,
    }
    assert 5 * 14 * 3 + 20 * 13 * 3 + 5 * 5 * 13 * 3 == 1965
    # Alone: a chain of 14; ETT, Reinit and Random a chain and 13 tickets, the criteria 13.
    lines = 5 * 14 + (20 + 2 * 5) * (14 + 13) + 3 * 5 * 13
    # Alone, to round k: k + 1 of a chain, one more for a ticket that is made of it.
    cells = sum(5 * (k + 1) + (20 + 2 * 5) * (k + 2) + 3 * 5 for k in range(1, 14))
    assert built.alone() == (3 * lines, 3 * cells)


def _trainings(name: str) -> dict[str, str]:
    """The trainings of a configuration: networks by key."""
    stages = plan.build(load(CONFIGS / f"{name}.yaml")).stages
    kinds = ("round", "retraining")
    return {key: one.labels["network"] for key, one in stages.items() if one.kind in kinds}


def test_the_configurations_of_maene_et_al_share_what_they_have_in_common() -> None:
    """Of 3,496 trainings the figures have 2,947; the paper's own 2,747 have one seed of some."""
    trained: dict[str, int] = {}
    found: dict[str, str] = {}
    for path in sorted(CONFIGS.glob("maene_*.yaml")):
        own = _trainings(path.stem)
        trained[path.stem] = len(own)
        found |= own
    assert trained == {
        "maene_fig1_stability": 2 * 12 * 3 * 25 + 6 * 3 * 3,
        "maene_fig3_repulsion": 2 * 2 * 3 * 25 + 2 * 2 * 3 * 24,
        "maene_fig5_histograms": 2 * (11 + 1),
        "maene_fig7_weight_decay": 2 * 3 * 25,
        "maene_fig8_barriers": 2 * 3 * 25,
        "maene_conv4": 3 * (2 * 25 + 2 * 24 + 4 * 25),
        "maene_lenet": 33 + 30 + 2 * 24 + 23,
        "maene_resnet50": 2,
    }
    assert Counter(name.partition("(")[0] for name in found.values()) == {
        "resnet20": 1854 + 288 + 75,
        "conv4": 394 + 2 * 4 * 25,  # the unstable chains with three seeds
        "lenet_300_100": 134,
        "resnet50": 2,
    }


def test_figure_8_and_the_further_plans_share_the_chains_of_figure_6() -> None:
    names = ("fig6_cifar_resnets", "fig8_connectivity", "v1_fig9_13_plans")
    six, eight, further = (_trainings(name).keys() for name in names)
    assert len(eight - six) == 9  # the twins
    assert six < further


def _scales(path: Path) -> list[str]:
    return ["full", *yaml.safe_load(path.read_text(encoding="utf-8")).get("scales", {})]


@pytest.mark.parametrize(
    ("path", "scale"),
    [(path, scale) for path in sorted(CONFIGS.glob("*.yaml")) for scale in _scales(path)],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_every_configuration_can_be_planned_at_every_scale(path: Path, scale: str) -> None:
    loaded = load(path, [f"scale={scale}"])
    assert loaded.name == (path.stem if scale == "full" else f"{path.stem}-{scale}")
    assert loaded.description
    built = plan.build(loaded)
    assert len(built.asked) <= len(built.stages)
    if scale == "smoke":  # without a GPU, a download or many minutes
        assert {plan.dataset_of(stage).partition("(")[0] for stage in built.stages.values()} == {
            "digits"
        }
        assert (loaded.resources.cpus, loaded.resources.gpus) == (1, 0)
        assert loaded.seeds == (0,)


def test_the_configurations_of_the_papers_have_a_smoke_scale() -> None:
    papers = [path for path in CONFIGS.glob("*.yaml") if load(path).paper is not None]
    assert len(papers) >= 10
    assert all("smoke" in _scales(path) for path in papers)


# Networks that differ in depth only


def _pairs() -> list[tuple[str, str, str, str]]:
    """Source, target, and their datasets: all pairs for which tensors are not compared."""
    return [
        (source, target, here, there)
        for here, there in (("cifar10", "svhn"), ("imagenet", "cifar10(size=224)"))
        for source, target in product(NETWORKS, repeat=2)
        if _differ_in_depth_only(source, target, info(here).shape, info(there).shape)
        and (here == "cifar10" or "imagenet" in facts(source, info(here).shape).anatomy.family)
    ]


def _plans(source: Anatomy, target: Anatomy) -> Iterator[elastic.Plan]:
    """The usual plan, if there is one, and one that fills free places as wildly as it may."""
    with contextlib.suppress(ElthError):
        yield elastic.resolve("auto", source, target)
    if all(s.free or not t.free for s, t in zip(source.stages, target.stages, strict=True)):
        yield elastic.Plan(
            tuple(
                tuple(
                    i if i in t.fixed else s.free[(5 * i + 2) % len(s.free)]
                    for i in range(len(t.units))
                )
                for s, t in zip(source.stages, target.stages, strict=True)
            )
        )


def test_between_networks_that_differ_in_depth_only_every_tensor_fits() -> None:
    tried = 0
    for source, target, here, there in _pairs():
        anatomies = [facts(n, info(d).shape).anatomy for n, d in ((source, here), (target, there))]
        for found in _plans(anatomies[0], anatomies[1]):
            elastic.plans.check(found, anatomies[0], anatomies[1])
            _check_tensors(found, source, target, here, there)
            tried += 1
    assert tried > 100


@pytest.mark.parametrize(
    ("source", "target", "here", "there"),
    [
        ("resnet14", "resnet20(width=32)", "cifar10", "cifar10"),
        ("resnet20", "resnet20(bn_affine=false)", "cifar10", "cifar10"),
        ("mlp1", "lenet_300_100", "mnist", "mnist"),  # of another initial law
        ("resnet14", "vgg13", "cifar10", "cifar10"),
        ("resnet34", "resnet50", "cifar10", "cifar10"),
        ("mlp1", "mlp2", "mnist", "mnist(size=32)"),
        ("resnet14", "resnet20", "mnist(channels=3)", "mnist"),
    ],
)
def test_between_others_tensors_are_compared(
    source: str, target: str, here: str, there: str
) -> None:
    assert not _differ_in_depth_only(source, target, info(here).shape, info(there).shape)


def test_a_plan_is_made_without_torch_and_what_else_is_slow_to_import() -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli.main import main\n"
        "main()\n"
        "slow = {'torch', 'torchvision', 'mlflow', 'ray', 'sklearn', 'scipy', 'matplotlib'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    config = CONFIGS / "fig6_cifar_resnets.yaml"
    words = ["plan", str(config), "resources.gpus=0", "--store", "none"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    # As counted in test_the_grid_of_figure_6.
    assert re.findall(r"\d+(?= │ +0 │)", done.stdout) == ["15", "210", "1755", "1980"]
    assert "Trainings: 1,965. Each line of the figure by itself would take 3,225" in done.stdout


# Any grid


@st.composite
def _experiments(draw: st.DrawFn) -> Experiment:
    networks = ["resnet14", "resnet20", "resnet32"]
    datasets = st.sampled_from(["digits", "digits(size=16)"])
    rounds = draw(st.integers(1, 4))
    grid = []
    for _ in range(draw(st.integers(1, 4))):
        some = ["dense", "imp", "ett", "ett_reinit", "reinit", "shuffle_global", "magnitude"]
        method = draw(st.sampled_from(some))
        entry: dict[str, Any] = {"method": method}
        entry["dataset"] = draw(st.lists(datasets, min_size=1, max_size=2))
        entry["network"] = draw(st.lists(st.sampled_from(networks), min_size=1, max_size=3))
        if METHODS[method].base == SOURCE:
            entry["source_dataset"] = draw(datasets)
            sources = networks
            if METHODS[method].steps and entry["source_dataset"] in entry["dataset"]:
                entry["network"] = entry["network"][:2]  # a control is of another network
                sources = [name for name in networks if name not in entry["network"]]
            entry["source"] = draw(st.lists(st.sampled_from(sources), min_size=1, max_size=2))
        if method != "dense":
            entry["round"] = draw(st.lists(st.integers(1, rounds), max_size=3))
            entry["sparsity"] = draw(st.lists(st.sampled_from([0.1, 0.2, 0.3]), max_size=2))
        grid.append(entry)
    seeds = draw(st.sets(st.integers(0, 9), min_size=1, max_size=2))
    return experiment(
        grid=grid,
        seeds=sorted(seeds),
        dataset="digits",
        recipe="digits_resnet",
        pruning={"rounds": rounds},
    )


@QUICK
@given(_experiments(), st.data())
def test_any_plan(found: Experiment, data: st.DataObject) -> None:
    built = plan.build(found)
    seen: set[str] = set()
    for key, stage in built.stages.items():
        assert stage.key == key
        assert set(stage.parents) <= seen  # in the plan, and before their children
        seen.add(key)
    assert {cell.network for cell in found.cells()} <= {
        stage.params["network"] for stage in built.stages.values()
    }
    finished = data.draw(st.sets(st.sampled_from(sorted(built.stages))))
    jobs = built.jobs(finished)
    stages = [stage.key for job in jobs for stage in job.stages]
    assert sorted(stages) == sorted(set(built.stages) - finished)  # each once
    for job in jobs:
        _check_job(job, built, finished)
    total = sum(plan.work(built.stages[key]) for key in stages)
    for slots in (1, 3):
        bound = plan.makespan(jobs, slots, finished)
        assert total / slots - 1e-9 <= bound <= total + 1e-9
    kinds = plan.count_kinds(built.stages.values())
    lines, cells = built.alone()
    assert kinds["round"] + kinds["retraining"] <= lines <= cells


def _check_job(job: Job, built: Plan, finished: set[str]) -> None:
    """After its first stage a job waits for nothing outside itself that may still be missing."""
    inside: set[str] = set()
    for stage in job.stages:
        if inside:
            assert stage.kind == "round"
            assert "keep" not in stage.params
            assert stage.parents[-1] in inside
            start = stage.parents[0]
            first = job.stages[0]
            assert start in inside or start in finished or start in first.parents
        inside.add(stage.key)
        assert stage.params["network"] == job.stages[0].params["network"]
        assert stage.params["seed"] == job.stages[0].params["seed"]


@QUICK
@given(_experiments(), st.randoms(use_true_random=False))
def test_the_order_of_a_grid_changes_no_stage(found: Experiment, random: Any) -> None:
    entries = list(found.grid)
    random.shuffle(entries)
    shuffled = found.model_copy(update={"grid": tuple(entries)})
    assert set(plan.build(shuffled).stages) == set(plan.build(found).stages)


def test_recipe_of_a_stage_is_that_of_the_experiment() -> None:
    found = experiment(recipe={**SHORT, "length": "3ep", "rewind": "5it"})
    stage = next(iter(plan.build(found).stages.values()))
    assert stage.recipe == found.recipe
    assert stage.recipe.length == Step(3, "ep")


def test_a_last_batch_of_one_image_is_refused_by_the_plan() -> None:
    """Where one value is left to batch normalisation: 1,297 digits in batches of 16."""
    recipe = {"base": "digits_resnet", "batch_size": 16}
    grid = [{"method": "imp", "network": "resnet14", "round": 1}]
    plan.build(experiment(grid=grid, dataset="digits", recipe=recipe))  # 2x2 pixels are left
    with pytest.raises(
        ElthError, match=r"1,297 images .* of 16\).* of resnet18: .* size of 15 or 17"
    ):
        plan.build(
            experiment(
                grid=[{**grid[0], "network": "resnet18"}],
                dataset="digits(size=32)",
                recipe=recipe,
            )
        )


def test_a_head_is_carried_to_another_dataset_only() -> None:
    entry = {"method": "ett_head", "source": "resnet20", "network": "resnet32", "round": 1}
    with pytest.raises(ElthError, match="carries a head to another dataset, and this ticket stays"):
        plan.build(experiment(grid=[entry]))
