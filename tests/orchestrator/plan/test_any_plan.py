"""Networks that differ in depth only, and what holds of any plan."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elth import elastic
from elth.data import info
from elth.errors import ElthError
from elth.networks import NETWORKS, Anatomy, facts
from elth.recipes import Step
from orchestrator import plan
from orchestrator.experiment.methods import METHODS, SOURCE
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.graph import Job, Plan
from orchestrator.plan.transforming import _check_tensors, _differ_in_depth_only
from tests.orchestrator.helpers import QUICK, experiment
from tests.orchestrator.plan.helpers import CONFIGS, SHORT


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
