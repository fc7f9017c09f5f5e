"""One MLflow server and hundreds of workers: what it takes, how late it is, that nothing is lost.

    python -m benchmarks.tracker [--workers 8 64] [--seconds 300] [--stage 60] [--epoch 1]
        [--server default recommended] [--fault server|database|answers]

A real MLflow server on a real PostgreSQL (the programs of Debian's ``postgresql``, the driver
``psycopg2-binary``), both on the loopback address. Workers are simulated: each is a thread of one of
a few processes with a tracker of its own, claims a stage, begins its run, notes epochs, delivers
files and metrics and takes the next stage, by the code that real workers use (``leases.claim``,
``runlog.begin_run``, ``outbox.deliver``). Nothing is trained: an epoch is a pause. Server, database
and workers share this machine's cores, which a cluster's do not.

At the end the database itself is asked, not the workers: whether each stage is finished once, with
every point of every epoch once, and no lease was taken over.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")

import psutil

from benchmarks import servers
from benchmarks.rows import Row, row, show

WORKERS = (8, 64, 256, 512)
_PROCESSES = 4
"""Of the simulated workers; each of its threads is a worker."""


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
    calls: Counter[str] = field(default_factory=Counter)
    took: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    gaps: list[float] = field(default_factory=list)
    """Seconds between two signs of life of one stage that the server has answered."""
    opened: list[float] = field(default_factory=list)
    """Seconds until a worker's tracker was there."""
    delivered: list[float] = field(default_factory=list)
    """Seconds from the end of a stage's last epoch to its delivery."""
    ended: float = 0.0
    """Seconds that the last worker was late."""
    memory: float = 0.0
    """Bytes of the process for each of its workers, beside what it had before them."""
    processor: float = 0.0
    """Seconds of a core."""


# A process of workers


def _watch(told: Told, lock: threading.Lock) -> None:
    """Count the calls of MLflow's client by what they ask for."""
    from mlflow.utils import rest_utils

    ask = rest_utils.http_request

    def counted(host_creds: Any, endpoint: str, method: str, *args: Any, **words: Any) -> Any:
        name = f"{method} {endpoint.rpartition('/mlflow/')[2] or endpoint}"
        if "artifacts" in endpoint:
            name = f"{method} an artifact"
        began = time.monotonic()
        try:
            answer = ask(host_creds, endpoint, method, *args, **words)
        except Exception as error:
            with lock:
                told.errors[f"{name}: {str(error)[:120]}"] += 1
            raise
        with lock:
            told.calls[name] += 1
            told.took.setdefault(name, []).append(time.monotonic() - began)
            if answer.status_code >= 400:
                told.errors[f"{name}: {answer.status_code} {answer.text[:120]}"] += 1
        return answer

    for module in list(sys.modules.values()):
        if getattr(module, "http_request", None) is ask:
            module.http_request = counted  # type: ignore[attr-defined]


def _watch_beats(told: Told, lock: threading.Lock) -> None:
    """Note when the signs of life of a run were answered."""
    from mlflow import MlflowClient

    from orchestrator.store.leases import BEAT

    log_batch, last = MlflowClient.log_batch, {}

    def noted(self: MlflowClient, run_id: str, *args: Any, **words: Any) -> Any:
        answer = log_batch(self, run_id, *args, **words)
        now = time.monotonic()
        if any(tag.key == BEAT for tag in words.get("tags") or ()):
            with lock:
                if run_id in last:
                    told.gaps.append(now - last[run_id])
                last[run_id] = now
        return answer

    MlflowClient.log_batch = noted  # type: ignore[method-assign]


def _work(
    uri: str,
    load: Load,
    number: int,
    chain: Sequence[Any],
    until: float,
    told: Told,
    lock: threading.Lock,
    made: Any,
) -> None:
    """What one worker does."""
    from mlflow.exceptions import MlflowException

    from elth.training import Epoch
    from orchestrator.store.address import Store
    from orchestrator.store.away import patiently
    from orchestrator.store.leases import Held, Lease, LostError, claim
    from orchestrator.store.outbox import deliver
    from orchestrator.store.runlog import begin_run
    from orchestrator.store.tracker import Tracker

    experiment, ticket, result, outbox = made
    store = Store.of(uri)
    driver = f"benchmark/1/1/{os.getpid()}/1/{number}"
    began = time.monotonic()
    tracker = patiently(lambda: Tracker(store), store)
    with lock:
        told.opened.append(time.monotonic() - began)
    time.sleep(random.uniform(0, load.epoch))  # real ones do not end their epochs together
    for stage in chain:
        if time.time() >= until:
            break
        try:
            lease = patiently(
                lambda stage=stage: claim(  # type: ignore[misc]
                    tracker, stage, grid=experiment.name, driver=driver, since=time.monotonic()
                ),
                store,
            )
            if isinstance(lease, Held) or not isinstance(lease, Lease):
                with lock:
                    told.lost += 1
                continue
            log = patiently(
                lambda stage=stage, lease=lease: begin_run(  # type: ignore[misc]
                    tracker,
                    stage,
                    ticket,
                    grid=experiment.name,
                    experiment=experiment.resolved(),
                    driver=driver,
                    numerics="benchmark",
                    lease=lease,
                ),
                store,
            )
            for epoch in range(1, load.epochs + 1):
                time.sleep(load.epoch)
                log.epoch(
                    Epoch(
                        epoch=epoch,
                        step=epoch,
                        lr=0.1,
                        train_loss=1.0,
                        test_loss=1.0,
                        test_accuracy=50.0,
                    )
                )
                if lease.seems_lost and lease.is_lost():
                    raise LostError("while it trained")
            ended = time.monotonic()
            for note in deliver(tracker, log, stage.key, result, outbox, keep_weights=True):
                with lock:
                    told.notes[note.partition(": ")[2][:100]] += 1
            lease.end()
            with lock:
                told.finished[stage.key] = log.run_id
                told.epochs[stage.key] = load.epochs
                told.delivered.append(time.monotonic() - ended)
        except LostError:
            with lock:
                told.lost += 1
        except (MlflowException, Exception) as error:  # each is one too many, and is told
            with lock:
                told.failed.append(f"{stage.title}: {type(error).__name__}: {str(error)[:200]}")


def _made(load: Load, first: int, count: int) -> tuple[Any, list[list[Any]], Any, Any]:
    """The experiment, the chains of some workers, a ticket and what each stage leaves: 60 kB."""
    from elth import data, masks
    from elth.networks import build
    from elth.specs import Spec
    from elth.streams import stream
    from elth.tickets import Ticket
    from orchestrator import plan as plans
    from orchestrator.experiment.sections import Experiment
    from orchestrator.store.result import Result

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
    chains: dict[str, list[Any]] = {}
    for stage in plans.build(experiment).stages.values():
        if stage.kind == "round":
            chains.setdefault(str(stage.labels["seed"]), []).append(stage)
    shape = data.info("digits").shape
    weights = build(network, shape, generator=stream(0, "init"))
    mask = masks.ones(weights)
    ticket = Ticket(
        network=Spec.parse(network), shape=shape, rewind=weights.state_dict(), mask=mask
    )
    return (
        experiment,
        list(chains.values()),
        ticket,
        Result(mask=mask, trained=weights.state_dict()),
    )


def work(given: Mapping[str, Any]) -> Told:
    """Let some workers work in this process, until the time is over and all is delivered."""
    import torch

    torch.set_num_threads(1)
    load = Load(**given["load"])
    told, lock = Told(), threading.Lock()
    experiment, chains, ticket, result = _made(load, given["first"], given["count"])
    outbox = Path(given["folder"]) / "outbox"

    _watch(told, lock)
    _watch_beats(told, lock)
    own = psutil.Process()
    before = own.memory_info().rss
    while time.time() < given["begin"]:
        time.sleep(0.05)
    spent, until = own.cpu_times(), given["begin"] + load.seconds
    made = (experiment, ticket, result, outbox)
    threads = [
        threading.Thread(
            target=_work,
            args=(given["uri"], load, given["first"] + n, chain, until, told, lock, made),
        )
        for n, chain in enumerate(chains)
    ]
    for thread in threads:
        thread.start()
    peak = before
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.5)
        peak = max(peak, own.memory_info().rss)
    now = own.cpu_times()
    told.processor = now.user + now.system - spent.user - spent.system
    told.memory = (peak - before) / len(threads)
    told.ended = time.time() - until
    return told


# The whole


@dataclass
class Outcome:
    """What one load on one server came to."""

    told: list[Told]
    load: Load
    wall: float
    server: float
    """Seconds of a core that the server took."""
    database: float
    """And the database."""
    memory: float
    """Bytes of the server at its most."""
    faults: list[str]
    """What is wrong in the database; nothing where each stage is there once, and each point."""
    served: Counter[str] = field(default_factory=Counter)


def measure(folder: Path, load: Load, settings: servers.Settings, fault: str = "") -> Outcome:
    """Let a load work on a server of its own."""
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(servers.postgres(folder / "database", settings))
        server = stack.enter_context(servers.mlflow(folder / "server", database.uri, settings))
        uri = server.uri
        if fault == "answers":
            uri = stack.enter_context(servers.dropping(uri, every=10))
        _prepared(uri)
        processes = min(_PROCESSES, load.workers)
        counts = [len(range(n, load.workers, processes)) for n in range(processes)]
        begin = time.time() + 15 + 2 * processes
        clients, first = [], 0
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MLFLOW_HTTP_POOL_MAXSIZE": "1000",
        }
        for number, count in enumerate(counts):
            given = {
                "uri": uri,
                "load": asdict(load),
                "first": first,
                "count": count,
                "begin": begin,
                "folder": str(folder / f"client-{number}"),
                "output": str(folder / f"client-{number}.json"),
            }
            first += count
            with (folder / f"client-{number}.log").open("w", encoding="utf-8") as log:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.tracker",
                    "--client",
                    json.dumps(given),
                ]
                clients.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        while time.time() < begin:
            time.sleep(0.1)
        spent = server.spent(), database.spent()
        began, memory, harmed = time.monotonic(), 0.0, False
        while any(client.poll() is None for client in clients):
            time.sleep(1)
            memory = max(memory, server.memory())
            if (
                not harmed
                and fault in ("server", "database")
                and time.monotonic() - began > load.seconds / 2
            ):
                (server if fault == "server" else database).restart(pause=20.0)
                harmed = True
        wall = time.monotonic() - began
        told = [_read(folder / f"client-{number}.json") for number in range(len(counts))]
        used = server.spent() - spent[0], database.spent() - spent[1]
        faults = _faults(database, told)
        return Outcome(told, load, wall, *used, memory, faults)


def _prepared(uri: str) -> None:
    """A store as the driver leaves it before its first trial, in use for some time: it has boards.

    Each board of leases is made once in the life of a store, which takes ten calls.
    """
    from orchestrator.store.address import Store
    from orchestrator.store.tracker import Tracker

    tracker = Tracker(Store.of(uri))
    tracker.tend()
    for number in range(256):
        tracker.board.latest(f"{number:02x}" + 62 * "0")


def _read(path: Path) -> Told:
    if not path.exists():
        log = path.with_suffix(".log").read_text(encoding="utf-8")
        raise RuntimeError(f"a process of workers has died:\n{log[-2000:]}")
    found = json.loads(path.read_text(encoding="utf-8"))
    for name in ("notes", "calls", "errors"):
        found[name] = Counter(found[name])
    return Told(**found)


def _faults(database: servers.Postgres, told: Sequence[Told]) -> list[str]:
    """What the database has otherwise than the workers were told."""
    found = []
    finished = {key: run for one in told for key, run in one.finished.items()}
    epochs = {key: count for one in told for key, count in one.epochs.items()}
    runs = database.ask(
        "SELECT tags.value, runs.run_uuid FROM runs JOIN tags USING (run_uuid) "
        "WHERE tags.key = 'elth.key' AND runs.status = 'FINISHED' "
        "AND runs.lifecycle_stage = 'active'"
    )
    there = Counter(key for key, _ in runs)
    found += [f"{key[:12]} is finished {count} times" for key, count in there.items() if count > 1]
    found += [f"{key[:12]} was delivered and is not there" for key in finished if key not in there]
    found += [f"{key[:12]} is there and was not delivered" for key in there if key not in finished]
    for name in ("test_accuracy", "train_loss"):
        points = dict(
            database.ask(
                f"SELECT run_uuid, count(*) FROM metrics WHERE key = '{name}' GROUP BY run_uuid"
            )
        )
        found += [
            f"{key[:12]} has {points.get(run, 0)} points of {name} and not {epochs[key]}"
            for key, run in finished.items()
            if points.get(run, 0) != epochs[key]
        ]
    again = database.ask(
        "SELECT key FROM params WHERE key LIKE 'lease/%' AND key NOT LIKE 'lease/%/1'"
    )
    found += [f"a lease was taken over: {key[:24]}" for (key,) in again]
    return found


def _part(values: Sequence[float], part: float) -> float:
    """A quantile; nan of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


def rows_of(outcome: Outcome, name: str) -> list[Row]:
    """One load's numbers."""
    told, load = outcome.told, outcome.load
    calls: Counter[str] = sum((one.calls for one in told), Counter())
    finished = sum(len(one.finished) for one in told)
    gaps = [gap for one in told for gap in one.gaps]
    took = [seconds for one in told for found in one.took.values() for seconds in found]
    delivered = [one for each in told for one in each.delivered]
    failed = [one for each in told for one in each.failed]
    lost = sum(one.lost for one in told)
    words = f"{load.workers} workers, {name}"
    ended = max(one.ended for one in told)
    return [
        row(
            f"{words}: stages a second", "/s", [finished / outcome.wall], note=f"{finished} of them"
        ),
        row(f"{words}: calls a second", "/s", [calls.total() / outcome.wall]),
        row(f"{words}: calls for a stage", "", [calls.total() / max(1, finished)]),
        row(f"{words}: log_batch a second", "/s", [calls["POST runs/log-batch"] / outcome.wall]),
        row(f"{words}: an answer, 50th percentile", "s", [_part(took, 0.5)]),
        row(f"{words}: an answer, 99th percentile", "s", [_part(took, 0.99)]),
        row(f"{words}: between signs of life, 99th percentile", "s", [_part(gaps, 0.99)]),
        row(f"{words}: between signs of life, longest", "s", [max(gaps, default=float("nan"))]),
        row(f"{words}: delivery of a stage, 50th percentile", "s", [_part(delivered, 0.5)]),
        row(f"{words}: delivery of a stage, longest", "s", [max(delivered, default=float("nan"))]),
        row(
            f"{words}: all in the store after the end",
            "s",
            [ended],
            note="with the last stage's own time",
        ),
        row(f"{words}: cores of the server", "", [outcome.server / outcome.wall]),
        row(f"{words}: cores of the database", "", [outcome.database / outcome.wall]),
        row(f"{words}: cores of the workers", "", [sum(o.processor for o in told) / outcome.wall]),
        row(f"{words}: memory of the server", "MB", [outcome.memory / 1e6]),
        row(
            f"{words}: memory of a worker's tracking",
            "MB",
            [_part([o.memory for o in told], 0.5) / 1e6],
        ),
        row(
            f"{words}: lost, failed, wrong in the database",
            "",
            [lost + len(failed) + len(outcome.faults)],
            "< 1",
            note="; ".join([*failed[:2], *outcome.faults[:3]]),
        ),
    ]


def details(outcome: Outcome) -> str:
    """Calls by what they ask for, and errors."""
    told = outcome.told
    finished = max(1, sum(len(one.finished) for one in told))
    calls: Counter[str] = sum((one.calls for one in told), Counter())
    errors: Counter[str] = sum((one.errors for one in told), Counter())
    notes: Counter[str] = sum((one.notes for one in told), Counter())
    lines = []
    for name, count in calls.most_common():
        took = [s for one in told for s in one.took.get(name, ())]
        lines.append(
            f"  {name:50} {count:7} {count / finished:7.2f} a stage "
            f"{1000 * _part(took, 0.5):8.0f} ms {1000 * _part(took, 0.99):8.0f} ms"
        )
    lines += [f"  error {count:5} x {text}" for text, count in errors.most_common(12)]
    lines += [f"  note {count:5} x {text}" for text, count in notes.most_common(5)]
    return "\n".join(lines)


def rows(
    workers: Sequence[int] = WORKERS,
    *,
    seconds: float = 300.0,
    stage: float = 60.0,
    epoch: float = 1.0,
    server: Sequence[str] = ("default", "recommended"),
    fault: str = "",
) -> Iterator[Row]:
    """Measure each number of workers on each kind of server."""
    for name in server:
        for count in workers:
            load = Load(workers=count, seconds=seconds, stage=stage, epoch=epoch)
            with tempfile.TemporaryDirectory(prefix="elth-tracker-") as place:
                folder = Path(place)
                folder.chmod(0o755)  # the database runs as a user of its own
                outcome = measure(folder, load, servers.SETTINGS[name], fault)
                print(
                    f"{count} workers, {name} settings{', ' + fault if fault else ''}:\n{details(outcome)}",
                    flush=True,
                )
            yield from rows_of(outcome, name + (f", {fault}" if fault else ""))


def main() -> None:
    """Measure and print; or be a process of workers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracker", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--seconds", type=float, default=300.0, help="for which stages are begun")
    parser.add_argument("--stage", type=float, default=60.0, help="seconds of a stage")
    parser.add_argument("--epoch", type=float, default=1.0, help="seconds of an epoch")
    parser.add_argument(
        "--server", nargs="+", choices=tuple(servers.SETTINGS), default=tuple(servers.SETTINGS)
    )
    parser.add_argument("--fault", choices=("server", "database", "answers"), default="")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        words = json.loads(given.client)
        told = work(words)
        Path(words["output"]).write_text(json.dumps(vars(told)), encoding="utf-8")
        return
    found = list(
        rows(
            given.workers,
            seconds=given.seconds,
            stage=given.stage,
            epoch=given.epoch,
            server=given.server,
            fault=given.fault,
        )
    )
    show("one tracker, many workers", found)


if __name__ == "__main__":
    main()
