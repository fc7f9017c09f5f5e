"""What is said of processes that do not start, with a clock that is set."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from orchestrator.experiment.sections import Resources
from orchestrator.work.unstarted import Unstarted


class Run:
    """A run whose clock and trials are set by hand."""

    def __init__(self, resources: Resources) -> None:
        self.now = 0.0
        self.notes: list[str] = []
        schedule = SimpleNamespace(note=self.notes.append, take_back=self.notes.remove)
        search: Any = SimpleNamespace(waits=0.0, schedule=schedule)
        self.search = search
        self.callback = Unstarted(search, resources, lambda: self.now)
        self.trials: list[Any] = []

    def trial(self, name: str, status: str = "PENDING") -> Any:
        made = SimpleNamespace(trial_id=name, status=status)
        self.trials.append(made)
        return made

    def pass_(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.callback.on_step_begin(0, self.trials)

    def start(self, trial: Any) -> None:
        trial.status = "RUNNING"
        self.callback.on_trial_start(0, self.trials, trial)

    def end(self, trial: Any) -> None:
        trial.status = "TERMINATED"
        self.callback.on_trial_complete(0, self.trials, trial)


@pytest.fixture(autouse=True)
def groups(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """The placement groups of Ray, of which it has made none yet."""
    groups: dict[str, dict[str, str]] = {"a": {"state": "CREATED"}}
    monkeypatch.setattr(ray.util, "placement_group_table", lambda: groups)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    return groups


def test_of_a_process_that_never_starts_it_is_told_once() -> None:
    run = Run(Resources())
    run.trial("a")
    run.pass_(59)
    assert run.notes == []
    run.pass_(600)
    (note,) = run.notes
    assert note.startswith("no process that computes has been heard of for 60 s; a stage asks for")
    assert "raylet.err" in note
    assert "room" not in note


@pytest.mark.parametrize("state", ["PENDING", "RESCHEDULING"])
def test_where_there_is_no_room_that_is_told(state: str, groups: dict[str, dict[str, str]]) -> None:
    groups["b"] = {"state": state}
    run = Run(Resources(cpus=4, gpus=0.5))
    run.trial("a")
    run.pass_(65)
    (note,) = run.notes
    assert "asks for 4 CPU and 0.5 GPU, and not all that is asked of Ray has room (it has 8" in note


def test_a_ray_that_does_not_answer_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise ConnectionError

    monkeypatch.setattr(ray.util, "placement_group_table", gone)
    run = Run(Resources())
    run.trial("a")
    run.pass_(65)
    assert len(run.notes) == 1


def test_while_one_is_at_work_and_between_two_nothing_is_told() -> None:
    run = Run(Resources())
    first, second = run.trial("a"), run.trial("b")
    run.pass_(50)
    run.start(first)
    run.pass_(1000)
    run.end(first)
    run.pass_(50)
    run.start(second)
    run.pass_(1000)
    run.end(second)
    run.pass_(1000)  # a stage rests, or another driver has it: nothing is pending
    run.now += 1000  # nor does Tune go on then
    third = run.trial("c")
    run.pass_(50)
    assert run.notes == []
    run.pass_(50)
    assert len(run.notes) == 1
    run.start(third)
    run.pass_(10)
    assert run.notes == [], "it holds no longer"


def test_of_a_group_its_workers_count() -> None:
    """The process that launches them is up at once."""
    run = Run(Resources(workers=2, gpus=1))
    run.start(run.trial("a"))
    run.search.waits = 30.0
    run.pass_(30)
    assert run.notes == []
    run.search.waits = 61.0
    run.pass_(30)
    (note,) = run.notes
    assert "a stage asks for 2 workers with 1 CPU and 1 GPU each" in note
