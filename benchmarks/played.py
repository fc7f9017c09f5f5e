"""A driver over hundreds of trials that are played, in a process that holds nothing else.

    python -m benchmarks.played LOAD.json FOUND.json

Real are the plan, the schedule, the search, the callbacks, the live display, Tune's controller
with its snapshots, Ray's placement groups, and of a trial the class that Tune runs, with each
result on its way through Ray. Stood in for are the processes of the trials and what they compute:
a trial is a thread in one of a few processes, its epochs are sleeps, and one look for a signal
serves a process. So it tells nothing of hundreds of connections and processes, nor of the store.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from orchestrator import plan as plans
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.schedule import Schedule
from orchestrator.store.address import Store
from orchestrator.work import stopping
from orchestrator.work.progress import Progress
from orchestrator.work.telling import Report
from orchestrator.work.trials import JobTrial

TRIALS = 500
_PLAYERS = 2
_LOAD = "ELTH_BENCH_LOAD"
_WARM_SECONDS = 10.0
_ROUNDS = 7


@dataclass(frozen=True)
class Load:
    """What the trials of a measurement do."""

    trials: int = TRIALS
    epoch: float = 1.0
    """Seconds."""
    epochs: int = 24
    """Of a stage, on the average: half as many to half as many again."""
    pause: float | None = None
    """Seconds between two results of a trial; as in earnest where that is None."""
    seconds: float = 120.0
    """For how long is measured, once all trials are there."""


def experiment(seeds: int, trials: int) -> Experiment:
    """Chains of a small network, as many as there are seeds, and retrainings of their rounds."""
    return Experiment.model_validate(
        {
            "name": "hundreds",
            "dataset": "digits",
            "seeds": list(range(seeds)),
            "recipe": {"base": "digits_resnet", "length": "2it", "rewind": "1it", "milestones": []},
            "pruning": {"rate": 0.2, "rounds": _ROUNDS},
            "grid": [
                {"method": "imp", "network": "mlp2"},
                {"method": ["random", "magnitude"], "network": "mlp2", "round": "all"},
            ],
            "resources": {"cpus": 1, "gpus": 0, "concurrent": trials},
        }
    )


class StandIn(JobTrial):
    """A trial whose job sleeps."""

    def begin(self, config: Mapping[str, Any]) -> None:
        """Begin a job of as many stages as it has."""
        self._job = _job(len(config["stages"]), config["stop"], _load())


def _load() -> Load:
    return Load(**json.loads(os.environ[_LOAD]))


def _job(stages: int, stop: str, load: Load) -> Iterator[Report]:
    for index in range(stages):
        epochs = random.randint(load.epochs // 2, load.epochs + load.epochs // 2)
        for epoch in range(1, epochs + 1):
            time.sleep(load.epoch)
            if _is_asked(stop):
                yield Report(index=index, stopped=True)
                return
            yield Report(index=index, fraction=epoch / epochs, accuracy=50.0)
        yield Report(index=index + 1)


_WATCHES: dict[str, Any] = {}
_TOLD: set[str] = set()


def _is_asked(stop: str) -> bool:
    """Whether the run is to end, by one look for all trials of a process."""
    watch = _WATCHES.setdefault(stop, stopping.watch(stop))
    if stop not in _TOLD and watch():
        _TOLD.add(stop)
    return stop in _TOLD


class Players:
    """Plays many trials in one process, a thread each; notes how long each of them stood still."""

    def __init__(self, load: str) -> None:
        from orchestrator.work import trials

        os.environ[_LOAD] = load
        pause = _load().pause
        if pause is not None:
            vars(trials).update(REPORT_SECONDS=pause, pause_after=lambda *_: pause)
        self._trials: dict[int, Any] = {}
        self._ends: dict[int, tuple[float, bool]] = {}
        self._still: list[float] = []
        self._turned: list[float] = []

    def begin(self, number: int, kind: Any, config: Any, storage: Any) -> None:
        """Begin a trial, as Ray begins an actor."""
        self._trials[number] = kind(config=config, storage=storage)

    def train(self, number: int) -> Any:
        """One result of a trial."""
        if number in self._ends:
            end, over = self._ends.pop(number)
            (self._turned if over else self._still).append(time.monotonic() - end)
        result = self._trials[number].train()
        self._ends[number] = time.monotonic(), result["done"]
        return result

    def reset(self, number: int, config: Any, storage: Any) -> Any:
        """Give a trial another job."""
        return self._trials[number].reset(config, storage=storage)

    def get_auto_filled_metrics(self, number: int, **words: Any) -> Any:
        """What Tune asks of a trial that begins."""
        return self._trials[number].get_auto_filled_metrics(**words)

    def stop(self, number: int) -> None:
        """End a trial."""
        self._trials.pop(number).stop()

    def measured(self) -> tuple[list[float], list[float]]:
        """Seconds from result to next step, and from the end of a job to the next; then none."""
        found = self._still, self._turned
        self._still, self._turned = [], []
        return found


class _Method:
    def __init__(self, method: Any, number: int) -> None:
        self._method, self._number = method, number

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        return self._method.remote(self._number, *args, **kwargs)


class _Handle:
    """Of a trial that is played: what Tune calls of an actor."""

    def __init__(self, player: Any, number: int, ready: Any) -> None:
        self._ready = ready
        for name in ("train", "reset", "stop", "get_auto_filled_metrics"):
            setattr(self, name, _Method(getattr(player, name), number))

    @property
    def __ray_ready__(self) -> Any:
        return self

    def remote(self) -> Any:
        """When it has begun."""
        return self._ready


class _Kind:
    """Stands for the class of an actor, with the resources that it would take."""

    def __init__(self, players: list[Any], kind: Any) -> None:
        self._players, self._kind = players, kind

    def remote(self, config: Any, storage: Any) -> _Handle:
        """Begin a trial."""
        number = next(_NUMBERS)
        player = self._players[number % len(self._players)]
        return _Handle(player, number, player.begin.remote(number, self._kind, config, storage))


_NUMBERS = itertools.count()


def _stand_in(players: list[Any]) -> None:
    """Have Tune begin trials that are played, in placement groups as ever."""
    from ray.air.execution.resources import placement_group
    from ray.tune.execution import tune_controller

    from orchestrator.work import runner

    class Acquired(placement_group.PlacementGroupAcquiredResources):
        def annotate_remote_entities(self, entities: Any) -> Any:
            return [_Kind(players, entities[0].__ray_metadata__.modified_class)]

    class Manager(placement_group.PlacementGroupResourceManager):
        _resource_cls: Any = Acquired

    vars(tune_controller)["PlacementGroupResourceManager"] = Manager
    vars(runner)["JobTrial"] = StandIn


def play(load: Load, folder: Path) -> dict[str, Any]:
    """Run a driver over a plan for some time; what it took."""
    import ray
    from ray.tune.execution.tune_controller import TuneController

    from orchestrator.work import local, runner, search

    text = json.dumps(asdict(load))
    given = experiment(load.trials, load.trials)
    plan = plans.build(given)
    local.keep_token()
    ray.init(
        address="local",
        num_cpus=load.trials,
        include_dashboard=False,
        object_store_memory=128 * 2**20,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _system_config={  # or it would start a process for each of so many cores
            "prestart_worker_first_driver": False,
            "worker_maximum_startup_concurrency": 2,
        },
    )
    kind: Any = ray.remote(Players)
    kind = kind.options(num_cpus=0, max_concurrency=load.trials + 8)
    players = [kind.remote(text) for _ in range(_PLAYERS)]
    _stand_in(players)
    count: Counter[str] = Counter()
    on_result = search.PlanSearch.on_trial_result

    def counted(self: Any, trial_id: str, result: Any) -> None:
        count["results"] += 1
        if count["trials"] < load.trials and result["training_iteration"] == 1:
            count["trials"] += 1
        on_result(self, trial_id, result)

    search.PlanSearch.on_trial_result = counted  # type: ignore[method-assign]
    snapshots: list[tuple[int, float]] = []
    save = TuneController.save_to_dir

    def saved(self: Any) -> None:
        began = time.monotonic()
        save(self)  # type: ignore[no-untyped-call]
        snapshots.append((len(self._trials), time.monotonic() - began))

    TuneController.save_to_dir = saved  # type: ignore[method-assign]
    chains = [key for key, stage in plan.stages.items() if stage.kind != "retraining"]
    schedule = Schedule(plan, chains, {}, slots=load.trials)
    sampler = _Sampler(schedule, count, load, lambda: [p.measured.remote() for p in players])
    ray_shutdown = ray.shutdown

    def ended() -> None:  # by the runner, which leaves no Ray behind
        sampler.end()
        ray_shutdown()

    ray.shutdown = ended
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(file=nowhere, force_terminal=True, width=120, height=50)
        with suppress(KeyboardInterrupt), Progress(schedule, console, given.name):
            runner.run(schedule, given, Store.of(folder), load.trials)
    return {"stages": len(plan.stages), "snapshots": snapshots, **sampler.found}


class _Sampler:
    """Looks at this process every second; ends the run once enough was seen."""

    def __init__(self, schedule: Schedule, count: Counter[str], load: Load, ask: Any) -> None:
        self._schedule, self._count, self._load, self._ask = schedule, count, load, ask
        self._main = threading.get_native_id()
        self._over = threading.Event()
        self._process = psutil.Process()
        self.found: dict[str, Any] = {"samples": [], "still": [], "turned": []}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        import ray

        while self._count["trials"] < self._load.trials:
            if self._over.wait(0.5):
                return
        self._over.wait(_WARM_SECONDS)
        ray.get(self._ask())
        began = time.monotonic()
        while not self._over.wait(1.0) and time.monotonic() - began < self._load.seconds:
            self.found["samples"].append(self._sample(time.monotonic() - began))
        for still, turned in ray.get(self._ask()):
            self.found["still"] += still
            self.found["turned"] += turned
        signal.raise_signal(signal.SIGUSR1)  # as from a batch system

    def _sample(self, at: float) -> dict[str, float]:
        spent = self._process.cpu_times()
        mine = {one.id: one.user_time + one.system_time for one in self._process.threads()}
        return {
            "at": at,
            "results": self._count["results"],
            "stages": len(self._schedule._finished),
            "cpu": spent.user + spent.system,
            "loop": mine.get(self._main, 0.0),
            "rss": self._process.memory_info().rss,
        }


def main() -> None:
    """Measure, and write what was found."""
    load, found = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="elth-bench-") as place:
        seen = play(Load(**json.loads(load.read_text(encoding="utf-8"))), Path(place))
    found.write_text(json.dumps(seen), encoding="utf-8")


if __name__ == "__main__":
    main()
