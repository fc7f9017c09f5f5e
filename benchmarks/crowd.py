"""A process of simulated workers on one tracker: each is a thread, and trains nothing.

    python -m benchmarks.crowd JSON

They do what real workers do, by the same code: ``leases.claim``, ``runlog.begin_run``,
``outbox.deliver``. What they have seen is written as JSON: deliveries, calls, waits, errors.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")

import psutil
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from benchmarks import calls, fill
from elth import data, masks
from elth.errors import ElthError
from elth.networks import build
from elth.specs import Spec
from elth.streams import stream
from elth.tickets import Ticket
from orchestrator import plan as plans
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.stage import Stage
from orchestrator.store.address import Store
from orchestrator.store.away import patiently
from orchestrator.store.leases import BEAT, Lease, LostError, claim
from orchestrator.store.outbox import deliver
from orchestrator.store.result import Result
from orchestrator.store.runlog import RunLog, begin_run
from orchestrator.store.tracker import Tracker


@dataclass(frozen=True, kw_only=True)
class Load:
    """What each worker does."""

    workers: int
    seconds: float
    """For how long stages are begun."""
    stage: float
    """Seconds of a stage."""
    epoch: float
    """Seconds of an epoch."""

    @property
    def epochs(self) -> int:
        return max(1, round(self.stage / self.epoch))

    @property
    def rounds(self) -> int:
        """Stages of a worker's chain: more than it can do."""
        return max(2, round(2 * self.seconds / self.stage) + 2)


@dataclass
class Told:
    """What a process of workers has seen."""

    finished: dict[str, str] = field(default_factory=dict)
    """The run of each stage that was delivered."""
    epochs: dict[str, int] = field(default_factory=dict)
    """How many epochs each of them had."""
    lost: int = 0
    failed: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    took: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of each call, by what it asks for."""
    errors: Counter[str] = field(default_factory=Counter)
    gaps: list[float] = field(default_factory=list)
    """Seconds between two signs of life of one stage that the server has answered."""
    opened: list[float] = field(default_factory=list)
    """Seconds until a worker's tracker was there."""
    begun: list[float] = field(default_factory=list)
    """Seconds until a stage was claimed and its run begun."""
    delivered: list[float] = field(default_factory=list)
    """Seconds from the end of a stage's last epoch to its delivery."""
    ended: float = 0.0
    """Seconds that the last worker was late."""
    memory: float = 0.0
    """Bytes of the process for each of its workers, beside what it had before them."""
    processor: float = 0.0
    """Seconds of a core."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What all workers of a process have."""

    uri: str
    load: Load
    until: float
    """When no stage is begun any more, as ``time.time`` tells."""
    experiment: Experiment
    ticket: Ticket
    result: Result
    """What each stage leaves: 60 kB."""
    outbox: Path


class Crowd:
    """The workers of a process, and what they have seen."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.told = Told()
        self._lock = threading.Lock()

    def run(self, chains: Sequence[Sequence[Stage]], first: int) -> None:
        """Let a worker do the stages of each chain, until the time is over and all is delivered."""
        own = psutil.Process()
        before, spent = own.memory_info().rss, own.cpu_times()
        threads = [
            threading.Thread(target=self._work, args=(first + number, chain))
            for number, chain in enumerate(chains)
        ]
        for thread in threads:
            thread.start()
        peak = before
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.5)
            peak = max(peak, own.memory_info().rss)
        now = own.cpu_times()
        self.told.processor = now.user + now.system - spent.user - spent.system
        self.told.memory = (peak - before) / len(threads)
        self.told.ended = time.time() - self.work.until

    def _work(self, number: int, chain: Sequence[Stage]) -> None:
        try:
            self._work_on(number, chain)
        except Exception as error:  # each is one too many, and is told
            with self._lock:
                self.told.failed.append(f"worker {number}: {type(error).__name__}: {error}"[:300])

    def _work_on(self, number: int, chain: Sequence[Stage]) -> None:
        store = Store.of(self.work.uri)
        began = time.monotonic()
        tracker = patiently(lambda: Tracker(store), store)
        with self._lock:
            self.told.opened.append(time.monotonic() - began)
        driver = f"benchmark/1/1/{os.getpid()}/1/{number}"
        time.sleep(random.uniform(0, self.work.load.epoch))  # real ones do not end epochs together
        for stage in chain:
            if time.time() >= self.work.until:
                return
            try:
                self._do(tracker, stage, driver)
            except LostError:
                with self._lock:
                    self.told.lost += 1
            except (MlflowException, ElthError) as error:
                with self._lock:
                    self.told.failed.append(f"{stage.title}: {error}"[:300])

    def _do(self, tracker: Tracker, stage: Stage, driver: str) -> None:
        """Claim a stage, note its epochs and deliver it."""
        began = time.monotonic()
        grid, store = self.work.experiment.name, tracker.store
        lease = patiently(
            lambda: claim(tracker, stage, grid=grid, driver=driver, since=time.monotonic()), store
        )
        if not isinstance(lease, Lease):
            raise LostError(f"another has it: {lease}")
        log = patiently(lambda: self._begin(tracker, stage, lease, driver), store)
        with self._lock:
            self.told.begun.append(time.monotonic() - began)
        load = self.work.load
        for number in range(1, load.epochs + 1):
            time.sleep(load.epoch)
            log.epoch(fill.epoch(number))
            if lease.seems_lost and lease.is_lost():
                raise LostError("while it trained")
        ended = time.monotonic()
        outbox, result = self.work.outbox, self.work.result
        for note in deliver(tracker, log, stage.key, result, outbox, keep_weights=True):
            with self._lock:
                self.told.notes[note.partition(": ")[2][:100]] += 1
        lease.end()
        with self._lock:
            self.told.finished[stage.key] = log.run_id
            self.told.epochs[stage.key] = load.epochs
            self.told.delivered.append(time.monotonic() - ended)

    def _begin(self, tracker: Tracker, stage: Stage, lease: Lease, driver: str) -> RunLog:
        return begin_run(
            tracker,
            stage,
            self.work.ticket,
            grid=self.work.experiment.name,
            experiment=self.work.experiment.resolved(),
            driver=driver,
            numerics="benchmark",
            lease=lease,
        )

    # What is seen of MLflow's client

    def watch(self) -> None:
        """Count its calls by what they ask for, and note when signs of life were answered."""
        calls.watch(self._note)
        self._watch_beats()

    def _note(self, name: str, took: float, answer: Any) -> None:
        """Note an answer of the server, or the error in its place."""
        with self._lock:
            if isinstance(answer, Exception):
                self.told.errors[f"{name}: {str(answer)[:120]}"] += 1
                return
            self.told.took.setdefault(name, []).append(took)
            if answer.status_code >= 400:
                self.told.errors[f"{name}: {answer.status_code} {answer.text[:120]}"] += 1

    def _watch_beats(self) -> None:
        log_batch: Any = MlflowClient.log_batch
        last: dict[str, float] = {}
        told, lock = self.told, self._lock

        def noted(itself: MlflowClient, run_id: str, *args: Any, **words: Any) -> Any:
            answer = log_batch(itself, run_id, *args, **words)
            now = time.monotonic()
            if any(tag.key == BEAT for tag in words.get("tags") or ()):
                with lock:
                    if run_id in last:
                        told.gaps.append(now - last[run_id])
                    last[run_id] = now
            return answer

        client: Any = MlflowClient
        client.log_batch = noted


def prepared(
    load: Load, first: int, count: int
) -> tuple[Experiment, list[list[Stage]], Ticket, Result]:
    """An experiment, the chains of some workers, a ticket, and what each stage leaves."""
    network = "mlp2(width=96)"
    experiment = Experiment.model_validate(
        {
            "name": "tracker",
            "dataset": "digits",
            "seeds": list(range(first, first + count)),
            "recipe": {"length": "1ep", "batch_size": 64, "lr": 0.1, "rewind": "0it"},
            "pruning": {"rate": 0.01, "rounds": load.rounds},
            "grid": [{"method": "imp", "network": network}],
        }
    )
    chains: dict[object, list[Stage]] = {}
    for stage in plans.build(experiment).stages.values():
        if stage.kind == "round":
            chains.setdefault(stage.labels["seed"], []).append(stage)
    shape = data.info("digits").shape
    made = build(network, shape, generator=stream(0, "init"))
    mask, state = masks.ones(made), made.state_dict()
    ticket = Ticket(network=Spec.parse(network), shape=shape, rewind=state, mask=mask)
    return experiment, list(chains.values()), ticket, Result(mask=mask, trained=state)


def main() -> None:
    """Wait for the beginning, work, and write what was seen."""
    torch.set_num_threads(1)
    given = json.loads(sys.argv[1])
    load = Load(**given["load"])
    experiment, chains, ticket, result = prepared(load, given["first"], given["count"])
    work = Work(
        uri=given["uri"],
        load=load,
        until=given["begin"] + load.seconds,
        experiment=experiment,
        ticket=ticket,
        result=result,
        outbox=Path(given["outbox"]),
    )
    crowd = Crowd(work)
    crowd.watch()
    while time.time() < given["begin"]:
        time.sleep(0.05)
    crowd.run(chains, given["first"])
    Path(given["output"]).write_text(json.dumps(vars(crowd.told)), encoding="utf-8")


if __name__ == "__main__":
    main()
