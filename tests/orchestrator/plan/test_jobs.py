"""Jobs of a plan, what is shared, and how long it takes."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import plan
from tests.orchestrator.helpers import experiment, of_kind
from tests.orchestrator.plan.helpers import DENSE, ETT, GRID, MAGNITUDE, REWIND, grid_keys


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
    keys = grid_keys()
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
