"""A few iterations are timed: those that a stage would train, in as many processes as trials."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.plan.estimating import known_steps, seconds_of, trained
from orchestrator.store.tracker import Tracker
from orchestrator.work import timing
from orchestrator.work.timing import timed
from tests.orchestrator.helpers import INFINITE, do, of_kind, tiny


class Here:
    """Processes that are none: what they are given is done here."""

    counts: list[int]

    def __init__(self, count: int, **_: Any) -> None:
        self.counts.append(count)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, call: Callable[[Any], Any], tasks: Iterable[Any]) -> list[Any]:
        return [call(task) for task in tasks]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many processes there would have been."""
    found: list[int] = []
    monkeypatch.setattr(Here, "counts", found, raising=False)
    monkeypatch.setattr(timing, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(timing, "_SECONDS", 0.2)
    return found


def test_what_is_timed_is_what_a_stage_then_takes(counts: list[int], tracker: Tracker) -> None:
    """Approximate: this machine may be at work on other things during one of the two."""
    found = tiny("timing", seeds=[70], recipe={"length": "5ep", "rewind": "1ep", "batch_size": 64})
    built = plan.build(found)
    stages = list(built.stages.values())
    (what,) = trained(stages)
    times = timed(found, stages, 1)
    assert counts == [1]
    assert known_steps(stages, threads=1, device="cpu", compiled={}) == times
    do(found, built, tracker)
    took = {one.key: one.seconds for one in tracker.stages("timing")}
    rounds = of_kind(built, "round")
    real = sum(took[stage.key] or 0.0 for stage in rounds)
    told = sum(seconds_of(stage, times[what]) for stage in rounds)
    assert told == pytest.approx(real, rel=3.0), (told, real)
    assert real == pytest.approx(told, rel=3.0), (told, real)


def test_as_many_processes_as_trials_up_to_some(counts: list[int]) -> None:
    found = tiny("timing")
    stages = list(plan.build(found).stages.values())[:1]
    for asked in (1, 2, 100):
        assert timed(found, stages, asked).keys() == trained(stages).keys()
    assert counts == [1, 2, 8]
    assert timed(found, [], 2) == {}


def test_each_process_has_a_gpu_and_a_time_is_that_of_its_kind(
    counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[dict[str, Any]] = []

    def measure(task: dict[str, Any]) -> list[float]:
        tasks.append(task)
        return [0.5] * len(task["stages"])

    def places(asked: int, gpus: float) -> list[str]:
        tasks.clear()
        sharing = tiny("timing", resources={"gpus": gpus})
        assert set(timed(sharing, stages, asked).values()) == {0.5}
        return [task["gpu"] for task in tasks]

    monkeypatch.setattr(timing, "_measure", measure)
    monkeypatch.setattr(timing, "gpus_here", lambda: 3)
    monkeypatch.setattr(timing, "kind_here", lambda: "NVIDIA H100")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = tiny("timing", resources={"gpus": 0.4})
    stages = list(plan.build(found).stages.values())
    assert timing.known(found, stages) == {}
    assert places(2, 1) == ["0", "1"]
    assert places(100, 1) == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-aa,MIG-bb,7")
    assert places(100, 0.4) == ["4", "4", "GPU-aa", "GPU-aa", "MIG-bb", "MIG-bb"]
    assert counts == [2, 3, 6]
    assert set(timing.known(found, stages).values()) == {0.5}
    monkeypatch.setattr(timing, "kind_here", lambda: "NVIDIA A100")
    assert timing.known(found, stages) == {}


def test_a_process_sees_its_own_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-aa")
    task = {"stages": [], "threads": 1, "device": "cuda", "compile": False, "plugins": []}
    assert timing._measure({**task, "gpu": "GPU-aa"}) == []
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-aa"


def test_what_cannot_be_timed_is_told_in_a_line(
    counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tiny("timing", recipe=INFINITE)
    stages = list(plan.build(found).stages.values())
    with pytest.raises(ElthError, match="could not be timed: the training loss was not finite"):
        timed(found, stages, 1)
    several = found.model_copy(
        update={"resources": found.resources.model_copy(update={"workers": 2})}
    )
    with pytest.raises(ElthError, match=r"time it with resources\.workers=1"):
        timed(several, stages, 1)

    def broken(self: Here, *_: Any) -> Future[Any]:
        raise BrokenProcessPool

    monkeypatch.setattr(Here, "map", broken)
    with pytest.raises(ElthError, match="is there too little memory"):
        timed(found, stages, 1)


def test_a_dataset_that_is_not_there_is_told(counts: list[int]) -> None:
    found = tiny(
        "timing",
        dataset="mnist",
        recipe="mnist_mlp",
        grid=[{"method": "imp", "network": "lenet_300_100"}],
    )
    stages = list(plan.build(found).stages.values())
    with pytest.raises(ElthError, match="mnist"):
        timed(found, stages, 1)
