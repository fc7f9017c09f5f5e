"""What is in the key of a stage, and what is not: golden keys of every kind."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from elth.recipes import RECIPES
from orchestrator import plan
from orchestrator.experiment.methods import METHODS
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import Stage
from tests.orchestrator.helpers import experiment, of_kind
from tests.orchestrator.plan.helpers import (
    DENSE,
    ETT,
    GRID,
    MAGNITUDE,
    REWIND,
    ROUND,
    STRETCH,
    grid_keys,
)

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
    assert grid_keys()[title] == GOLDEN[title]


APPEND = {"transform": [[0, 1, 1, 1, 1]] * 3, "to": "resnet32"}
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
    changed = grid_keys(**change)
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
    assert not set(grid_keys(**change).values()) & set(grid_keys().values())


def test_every_field_of_a_recipe_is_tried_above() -> None:
    marks = test_what_is_in_every_key.pytestmark
    tried = {field for change in marks[0].args[1] for field in change.get("recipe", {})}
    assert tried == {"base", *RECIPES["cifar10_resnet"].full()}


def test_the_rate_is_in_the_keys_of_rounds_but_not_of_the_dense_one() -> None:
    before, after = grid_keys(), grid_keys(pruning={"rate": 0.3})
    same = {title for title in before if before[title] == after[title]}
    assert same == {REWIND, DENSE, REWIND.replace("14", "20")}


def test_the_rate_of_a_key_is_its_shortest_decimal() -> None:
    assert grid_keys(pruning={"rate": "0.20"}) == grid_keys(pruning={"rate": 2e-1}) == grid_keys()


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


def test_a_graft_scores_the_weights_that_it_takes_and_it_is_told() -> None:
    grid = [{"method": "ett_snip_extra", **STRETCH, "round": 2}]
    asked = plan.build(experiment(grid=grid, criteria={"snip": {"at": "init"}}))
    plain = plan.build(experiment(grid=grid))
    assert asked.stages.keys() == plain.stages.keys()
    assert plain.notes == ()
    assert asked.notes == (
        "ett_snip_extra scores the weights that it takes, which are the rewind point's: "
        "criteria.snip.at=init is of snip by itself",
    )


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
    assert list(grid_keys()) == [
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
