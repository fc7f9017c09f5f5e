"""What Tune waits for, with Ray's futures played by a list of what is ready."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.air.execution._internal import RayActorManager, TrackedActor
from ray.tune.execution import tune_controller

from orchestrator.work import events
from orchestrator.work.events import Events, Lone


class Futures:
    """Futures are numbers; those that are ready have a value."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers = itertools.count()
        self.ready: dict[int, Any] = {}
        self.waits = 0
        monkeypatch.setattr(ray, "wait", self._wait)
        monkeypatch.setattr(ray, "get", lambda future: self.ready[future])

    def _wait(
        self, futures: list[int], num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[int], list[int]]:
        self.waits += 1
        found = [one for one in futures if one in self.ready][:num_returns]
        return found, [one for one in futures if one not in found]


@pytest.fixture
def futures(monkeypatch: pytest.MonkeyPatch) -> Futures:
    return Futures(monkeypatch)


class Trials:
    """Trials that Tune has begun; each goes on after a result, unless it was its last."""

    def __init__(self, kind: type[RayActorManager], futures: Futures, count: int) -> None:
        resources: Any = SimpleNamespace(get_resource_futures=list)
        self.manager = kind(resource_manager=resources)
        self.futures = futures
        self.taken: list[Any] = []
        self.actors = [TrackedActor(number) for number in range(count)]
        self.at: dict[TrackedActor, int] = {}
        for actor in self.actors:
            train = SimpleNamespace(remote=lambda actor=actor: self._begin(actor))
            live: Any = SimpleNamespace(train=train), None
            self.manager._live_actors_to_ray_actors_resources[actor] = live
            self._train(actor)

    def _begin(self, actor: TrackedActor) -> int:
        self.at[actor] = next(self.futures.numbers)
        return self.at[actor]

    def _train(self, actor: TrackedActor) -> None:
        self.manager.schedule_actor_task(actor, "train", on_result=self._on_result)

    def _on_result(self, actor: TrackedActor, result: Any) -> None:
        self.taken.append(result)
        if result != "last":
            self._train(actor)

    def tell(self, results: dict[int, Any]) -> None:
        """Have some trials report."""
        for number, result in results.items():
            self.futures.ready[self.at[self.actors[number]]] = result

    def kept(self) -> int:
        """References to results that the first trial has left."""
        return len(self.manager._tracked_actors_to_task_futures[self.actors[0]])


def test_what_has_come_is_taken_in_one_turn(futures: Futures) -> None:
    trials = Trials(Events, futures, 50)
    trials.tell({number: number for number in range(40)})
    assert trials.manager.next(timeout=0.1)
    assert sorted(trials.taken) == list(range(40))
    assert futures.waits == 2, "not one for each"
    assert not trials.manager.next(timeout=0.1)


def test_a_turn_ends_with_a_trial(futures: Futures) -> None:
    """Tune keeps the process of one trial that has ended, until it has asked for the next job."""
    trials = Trials(Events, futures, 20)
    trials.tell(dict.fromkeys(range(20), "last"))
    for turn in range(1, 21):
        assert trials.manager.next(timeout=0.1)
        assert trials.taken == ["last"] * turn
    trials = Trials(Events, futures, 20)
    trials.tell({number: number if number % 2 else "last" for number in range(20)})
    ends = 0
    while trials.manager.next(timeout=0.1):
        assert trials.taken.count("last") <= ends + 1
        ends = trials.taken.count("last")
    assert len(trials.taken) == 20


def test_results_that_were_taken_are_let_go(futures: Futures) -> None:
    kept = {}
    for kind in (RayActorManager, Events):
        trials = Trials(kind, futures, 1)
        for number in range(100):
            trials.tell({0: number})
            assert trials.manager.next(timeout=0.1)
        assert trials.taken == list(range(100))
        kept[kind] = trials.kept()
    assert kept == {RayActorManager: 101, Events: 1}


def test_tune_takes_them_so_for_as_long_as_a_run_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    with events.together():
        assert vars(tune_controller)["RayActorManager"] is Events
    assert vars(tune_controller)["RayActorManager"] is RayActorManager
    monkeypatch.setattr(events, "_is_as_known", lambda: False)
    with events.together():
        assert vars(tune_controller)["RayActorManager"] is RayActorManager


def test_who_has_waited_longest_is_taken_first(futures: Futures) -> None:
    """Where each turn ends with a trial, nobody is passed over again and again."""
    trials = Trials(Events, futures, 100)
    trials.tell({number: number for number in range(100)})
    trials.tell({50: "last"})
    trials.manager.next(timeout=0.1)
    first, *rest = trials.taken
    if first != "last":
        assert rest == [number for number in range(50) if number != first] + ["last"]


@pytest.mark.parametrize("kind", [Events, Lone])
def test_a_process_that_is_not_up_yet_is_ended_at_once(
    kind: type[Events], futures: Futures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Tune asked of it fails then, and that is the end that it waits for."""
    killed: list[Any] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    trials = Trials(kind, futures, 2)
    starting, up = trials.actors
    manager = trials.manager
    live: dict[TrackedActor, Any] = manager._live_actors_to_ray_actors_resources
    live.update({starting: ("starting", None), up: ("up", None)})
    ready: Any = next(futures.numbers)
    manager._tracked_actors_to_state_futures[starting].add(ready)
    for actor in trials.actors:
        stop: Any = next(futures.numbers)
        assert manager.remove_actor(actor, stop_future=stop)
        assert manager._tracked_actors_to_state_futures[actor] == {stop}
    assert killed == (["starting"] if kind is Lone else [])
