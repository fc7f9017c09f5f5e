"""Stages, keys, jobs and counts: what a plan comes to, and what a key holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elth.errors import ElthError
from elth.recipes import RECIPES, Step
from orchestrator import plan
from orchestrator.experiment import Experiment, load
from orchestrator.plan import Job, Plan, Stage
from tests.orchestrator.helpers import QUICK, experiment, of_kind

CONFIGS = Path(__file__).parents[2] / "tune_configs"

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
        "0104aa74f77765ac9ad00ce9185fca3d7ebb2c8a49402d19a620dbbe3eeae6c9"
    ),
}
"""A changed key orphans every finished stage of every store: change VERSIONS on purpose only."""


@pytest.mark.parametrize("title", GOLDEN)
def test_golden_keys(title: str) -> None:
    assert _keys()[title] == GOLDEN[title]


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
                {"length": "80ep"},
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


def test_reinit_and_random_wait_for_their_round() -> None:
    entry = {"method": ["reinit", "random"], "network": "resnet20", "round": 2}
    built = plan.build(experiment(grid=[entry]))
    rounds = of_kind(built, "round")
    found = of_kind(built, "retraining")
    assert [stage.params["ticket"] for stage in found] == [
        [{"reinit": "all"}],
        [{"shuffle": "layerwise"}],
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


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"method": "ett", "source": "mlp2", "network": "resnet20"},
            "a ticket moves within one family of networks: found mlp with 1 stages and "
            "cifar-resnet with 3",
        ),
        (
            {"method": "ett", "source": "resnet14(width=8)", "network": "resnet20"},
            r"a ticket of resnet14\(width=8\) does not fit resnet20: 'conv1.weight' has shape "
            r"\(16, 3, 3, 3\), 'conv1.weight' of the source \(8, 3, 3, 3\)",
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
            "ask for fewer rounds",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_spent(
    entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(ElthError, match=message):
        plan.build(experiment(grid=[entry], pruning={"rounds": 40}))


def test_a_rewind_point_behind_the_end_is_refused() -> None:
    recipe = {"base": "cifar10_resnet", "length": "2ep"}
    with pytest.raises(ElthError, match=r"rewind point 1000it \(iteration 1000\) must come before"):
        plan.build(experiment(recipe=recipe))


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
    assert of("resnet14", length="80ep") < of("resnet14")


def test_stored_bytes() -> None:
    built = plan.build(experiment(grid=GRID))
    start, dense, *rounds = of_kind(built, "rewind_point")[:1] + of_kind(built, "round")
    retraining = of_kind(built, "retraining")[0]
    overhead = 60_000
    assert plan.stored_bytes(start) == overhead + 4 * 174_128
    assert plan.stored_bytes(dense) == overhead + 174_128 // 8 + 4 * 174_128
    assert plan.stored_bytes(rounds[2]) == overhead + 174_128 // 8 + 4 * 89_152
    assert plan.stored_bytes(retraining) == overhead + 270_896 // 8


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
        # Two seeds; chains of ResNet-14 and 20 of eight rounds. ETT 14->20 at three rounds (append
        # is interpolate there), 20->14 at three, 20->32 by two plans; three controls at three.
        ("quickstart", {"rewind_point": 4, "round": 36, "retraining": 34}, 38),
        ("mnist_mlp", {"rewind_point": 9, "round": 99, "retraining": 18}, 27),
        ("cifar10_short", {"rewind_point": 1, "round": 2, "retraining": 1}, 2),
    ],
)
def test_configurations(name: str, counts: dict[str, int], jobs: int) -> None:
    built = plan.build(load(CONFIGS / f"{name}.yaml"))
    assert plan.count_kinds(built.stages.values()) == counts
    assert len(built.jobs()) == jobs


def test_every_configuration_is_named_as_its_file_and_can_be_planned() -> None:
    found = sorted(CONFIGS.glob("*.yaml"))
    assert found
    for path in found:
        loaded = load(path)
        assert loaded.name == path.stem
        assert loaded.description
        assert plan.build(loaded).stages


# Any grid


@st.composite
def _experiments(draw: st.DrawFn) -> Experiment:
    networks = ["resnet14", "resnet20", "resnet32"]
    rounds = draw(st.integers(1, 4))
    grid = []
    for _ in range(draw(st.integers(1, 4))):
        method = draw(st.sampled_from(["dense", "imp", "ett", "reinit", "random", "magnitude"]))
        entry: dict[str, Any] = {"method": method}
        entry["network"] = draw(st.lists(st.sampled_from(networks), min_size=1, max_size=3))
        if method == "ett":
            entry["source"] = draw(st.lists(st.sampled_from(networks), min_size=1, max_size=2))
        if method != "dense":
            entry["round"] = draw(st.lists(st.integers(1, rounds), min_size=1, max_size=3))
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


def _check_job(job: Job, built: Plan, finished: set[str]) -> None:
    """After its first stage a job waits for nothing outside itself that may still be missing."""
    inside: set[str] = set()
    for stage in job.stages:
        if inside:
            assert stage.kind == "round"
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
    found = experiment(recipe={"base": "cifar10_resnet", "length": "3ep", "rewind": "5it"})
    stage = next(iter(plan.build(found).stages.values()))
    assert plan.recipe_of(stage) == found.recipe
    assert plan.recipe_of(stage).length == Step(3, "ep")
