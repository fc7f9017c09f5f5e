"""What a machine can run at a time."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import torch

from elth import arithmetic
from elth.errors import ElthError
from orchestrator import plan
from orchestrator.plan.outside import Outside
from orchestrator.store.address import Store
from orchestrator.work import quotas, resources
from orchestrator.work.driver import ThisMachine
from orchestrator.work.resources import check_recipes, compiles, local_slots, numerics
from tests.orchestrator.helpers import tiny


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, as an affinity mask, and three GPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(quotas, "memory", lambda: quotas.Memory(free=64 * 10**9, told="64 GB free"))
    monkeypatch.setattr(resources, "_may_have_gpus", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.parametrize(
    ("wanted", "slots"),
    [
        ({}, 8),
        ({"cpus": 3}, 2),
        ({"cpus": 8}, 1),
        ({"concurrent": 5}, 5),
        ({"concurrent": 50}, 8),
        ({"cpus": 1, "gpus": 1}, 3),
        ({"cpus": 1, "gpus": 0.5}, 6),
        ({"cpus": 1, "gpus": 0.4}, 6),  # two on each, as no trial lies across two GPUs
        ({"cpus": 4, "gpus": 0.5}, 2),
        ({"cpus": 1, "gpus": 1, "workers": 3}, 1),
        ({"cpus": 1, "gpus": 1, "workers": 2}, 1),  # and one GPU left over
    ],
)
def test_slots(wanted: dict[str, Any], slots: int) -> None:
    assert local_slots(tiny("slots", resources=wanted)).count == slots


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({}, "8 trials at a time, by cores (8 of this machine)"),
        ({"concurrent": 5}, "5 trials at a time, by resources.concurrent"),
        ({"concurrent": 1}, "1 trial at a time, by resources.concurrent"),
        ({"gpus": 1}, "3 trials at a time, by GPUs (3 of this machine)"),
    ],
)
def test_what_bounds_the_slots_is_told(wanted: dict[str, Any], told: str) -> None:
    assert str(local_slots(tiny("slots", resources=wanted))) == told


def test_memory_bounds_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    def free(much: float) -> None:
        found = quotas.Memory(free=int(much * 10**9), told=f"{much} GB free")
        monkeypatch.setattr(quotas, "memory", lambda: found)

    free(2.5)
    told = "3 trials at a time, by memory (2.5 GB free, and a trial takes 0.7 GB or more)"
    assert str(local_slots(tiny("slots"))) == told
    assert ThisMachine().check(tiny("slots"), Store.of("runs"), [], Outside()) == [told]
    assert local_slots(tiny("slots", resources={"workers": 2})).count == 1
    cifar = tiny("slots", dataset="cifar10(size=224)")  # kept as they are, 184 MB
    assert local_slots(cifar).bound == "memory (2.5 GB free, and a trial takes 0.8 GB or more)"
    free(8)
    told = "2 trials at a time, by memory (8 GB free, and a trial takes 3.0 GB or more)"
    assert str(local_slots(tiny("slots", resources={"gpus": 0.25}))) == told
    free(0.1)
    assert local_slots(tiny("slots")).count == 1  # it may be enough
    free(64)
    assert ThisMachine().check(tiny("slots"), Store.of("runs"), [], Outside()) == []


def test_a_machine_that_is_too_small_is_refused_with_the_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = "a trial asks for 9 cpus and 0 gpus, and this machine has 8 cpus and 0 gpus: lower"
    with pytest.raises(ElthError, match=message):
        local_slots(tiny("slots", resources={"cpus": 9}))
    monkeypatch.setattr(quotas, "cores", lambda: quotas.Cores(count=2, told="cgroup quota of 2.5"))
    message = "this machine has 2 cpus (cgroup quota of 2.5) and 0 gpus"
    with pytest.raises(ElthError, match=re.escape(message)):
        local_slots(tiny("slots", resources={"cpus": 3}))
    monkeypatch.undo()
    monkeypatch.setattr(resources, "_may_have_gpus", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    message = "asks for 1 cpus and 0.5 gpus, and this machine has .+ and 0 gpus"
    with pytest.raises(ElthError, match=message):
        local_slots(tiny("slots", resources={"gpus": 0.5}))


def test_the_kind_of_gpu_is_its_name_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "H")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resources.kind_here() == "H"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resources.kind_here() == ""
    monkeypatch.setattr(resources, "_may_have_gpus", lambda: False)
    assert (resources.kind_here(), resources.gpus_here()) == ("", 0)


def test_batches_that_cannot_be_divided_among_the_workers_are_refused() -> None:
    recipe = {"base": "digits_resnet", "batch_norm_group": 32}
    check_recipes(tiny("short", recipe=recipe, resources={"workers": 4}))
    with pytest.raises(ElthError, match="groups of 32 images, and 8 workers have 16 .* most 4"):
        check_recipes(tiny("short", recipe=recipe, resources={"workers": 8}))


def test_a_precision_that_the_trials_lack_is_refused() -> None:
    recipe = {"base": "digits_resnet", "precision": "tf32"}
    message = "the recipe's precision is tf32, one of GPUs, and resources.gpus is 0: give"
    with pytest.raises(ElthError, match=message):
        check_recipes(tiny("short", recipe=recipe))
    with pytest.raises(ElthError, match=message):
        check_recipes(tiny("short", recipes={"digits": recipe}))
    check_recipes(tiny("short", recipe=recipe, resources={"gpus": 0.5}))
    check_recipes(tiny("short", recipe={**recipe, "precision": "bf16"}))


def test_numerics_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, _, rest = numerics(2, 0, "eager").partition("/")
    assert cpu == f"cpu-{arithmetic.processor()}"
    version = arithmetic.NUMBER
    assert rest == f"torch-{torch.__version__}/threads-2/workers-1/eager/elth-{version}"
    many = [numerics(1, 0, "eager", count).rpartition("/")[2] for count in (1, 2, 3)]
    assert many == [f"elth-{version}", f"elth-{version}", f"elth-{version + 1}"]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "H")
    assert numerics(1, 0.5, "eager").startswith("H/torch-")
    assert numerics(1, 1, "eager", 2) == numerics(1, 1, "eager", 2, "H")
    assert numerics(1, 1, "eager", 2, "A+H").startswith("A+H/torch-")
    assert len({numerics(t, 0, w) for t in (1, 2) for w in ("eager", "compiled")}) == 4


@pytest.mark.parametrize(
    ("recipe", "device", "expected"),
    [
        ("cifar10_resnet", "cpu", True),
        ("cifar10_resnet", "cuda", True),
        ({"base": "cifar10_resnet", "length": "40it", "rewind": "9it", "milestones": []}, "cpu", 0),
        (
            {"base": "cifar10_resnet", "length": "40it", "rewind": "9it", "milestones": []},
            "cuda",
            0,
        ),
        ({"base": "cifar10_resnet", "length": "9ep", "milestones": []}, "cuda", True),
    ],
)
def test_long_trainings_are_compiled(recipe: Any, device: str, expected: bool) -> None:
    grid = [{"method": "imp", "network": "resnet20"}]
    experiment = tiny("long", dataset="cifar10", recipe=recipe, grid=grid)
    stages = list(plan.build(experiment).stages.values())
    assert {compiles(stage, "auto", device) for stage in stages} == {bool(expected)}
    for choice in (True, False):
        assert {compiles(stage, choice, device) for stage in stages} == {choice}
