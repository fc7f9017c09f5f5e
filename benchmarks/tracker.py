"""One MLflow server and hundreds of workers: what it takes, how late it is, that nothing is lost.

    python -m benchmarks.tracker [--workers 8 64] [--seconds 300] [--stage 60] [--epoch 1]
        [--server default recommended] [--fault server|database|answers]

A real MLflow server on a real PostgreSQL (the programs of Debian's ``postgresql``; the driver
``psycopg[binary]``), both on the loopback address. Workers are simulated (``benchmarks.crowd``):
each is a thread of one of a few processes, claims a stage, begins its run, notes epochs, delivers
files and metrics and takes the next stage, by the code that real workers use. Nothing is trained:
an epoch is a pause. Server, database and workers share this machine's cores, which a cluster's do
not.

At the end the database itself is asked, not the workers: whether each stage is finished once, with
every point of every epoch once, and no lease was taken over.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import servers
from benchmarks.crowd import Load, Told
from benchmarks.rows import Row, row, show
from orchestrator.store import away
from orchestrator.store.address import Store
from orchestrator.store.pace import lease_seconds
from orchestrator.store.tracker import Tracker

WORKERS = (8, 64, 256, 512)
_PROCESSES = 4
"""Of the simulated workers."""
_AT_ONCE = 8
"""Boards that are made at a time, before anything is measured."""
_POINTS = ("test_accuracy", "train_loss")
"""Metrics that are counted in the database."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one load on one server came to."""

    load: Load
    told: list[Told]
    wall: float
    server: float
    """Seconds of a core that the server took."""
    database: float
    """And the database."""
    memory: float
    """Bytes of the server at its most."""
    faults: list[str]
    """What is wrong in the database; nothing where each stage is there once, and each point."""

    def all_of(self, name: str) -> list[float]:
        """Numbers of all processes."""
        return [number for one in self.told for number in getattr(one, name)]

    def count(self, name: str) -> Counter[str]:
        """Counts of all processes."""
        return sum((getattr(one, name) for one in self.told), Counter())

    @property
    def took(self) -> dict[str, list[float]]:
        """Seconds of each call, by what it asks for; most first."""
        found: dict[str, list[float]] = {}
        for one in self.told:
            for name, seconds in one.took.items():
                found.setdefault(name, []).extend(seconds)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    @property
    def finished(self) -> int:
        """How many stages were delivered."""
        return sum(len(one.finished) for one in self.told)


def measure(folder: Path, load: Load, settings: servers.Settings, fault: str = "") -> Outcome:
    """Let a load work on a server of its own.

    Args:
        folder: for all that is written; a user of the database's own has to get into it.
        load: what the workers do.
        settings: of the server and its database.
        fault: ``server`` or ``database`` is killed in the middle and started again 20 s later; of
            ``answers`` every tenth is lost after the server has worked.
    """
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(servers.postgres(folder / "database", settings))
        server = stack.enter_context(servers.mlflow(folder / "server", database.uri, settings))
        prepare(server.uri)
        uri = server.uri
        if fault == "answers":
            uri = stack.enter_context(servers.dropping(uri, every=10))
        counts = [len(range(n, load.workers, _PROCESSES)) for n in range(_PROCESSES)]
        begin = time.time() + 25
        clients = [
            _start(folder, uri, load, number, sum(counts[:number]), count, begin, settings.workers)
            for number, count in enumerate(counts)
            if count
        ]
        time.sleep(max(0.0, begin - time.time()))
        spent = server.spent(), database.spent()
        began, memory = time.monotonic(), 0.0
        harmed = {"server": server, "database": database}.get(fault)
        try:
            while any(client.poll() is None for client in clients):
                time.sleep(1)
                memory = max(memory, server.memory())
                if harmed is not None and time.monotonic() - began > load.seconds / 2:
                    harmed.restart(pause=20.0)
                    harmed = None
        finally:
            for client in clients:  # where somebody has seen enough
                client.kill()
        wall = time.monotonic() - began
        told = [_read(folder / f"crowd-{number}.json") for number in range(len(clients))]
        return Outcome(
            load=load,
            told=told,
            wall=wall,
            server=server.spent() - spent[0],
            database=database.spent() - spent[1],
            memory=memory,
            faults=_faults(database, told),
        )


def prepare(uri: str) -> None:
    """A store as the driver leaves it before its first trial, in use for some time: it has boards.

    Each of its 256 boards of leases is made once in the life of a store, which takes ten calls.
    """
    store = Store.of(uri)
    Tracker(store).tend()

    def make(first: int) -> None:
        tracker = Tracker(store)
        for number in range(first, 256, _AT_ONCE):
            tracker.board.latest(f"{number:02x}" + 62 * "0")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(make, range(_AT_ONCE)))


def _start(
    folder: Path,
    uri: str,
    load: Load,
    number: int,
    first: int,
    count: int,
    begin: float,
    environment: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    given = {
        "uri": uri,
        "load": asdict(load),
        "first": first,
        "count": count,
        "begin": begin,
        "outbox": str(folder / f"outbox-{number}"),
        "output": str(folder / f"crowd-{number}.json"),
    }
    # A process for each worker has connections of its own; threads share those of theirs.
    more = {"OMP_NUM_THREADS": "1", "MLFLOW_HTTP_POOL_MAXSIZE": "1000"}
    lease = float(environment.get("ELTH_LEASE_SECONDS", lease_seconds()))
    more |= {away.TIMEOUT: str(away.worker_timeout(lease)), **environment}
    with (folder / f"crowd-{number}.log").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "benchmarks.crowd", json.dumps(given)]
        return subprocess.Popen(command, env={**os.environ, **more}, stdout=log, stderr=log)


def _read(path: Path) -> Told:
    if not path.exists():
        log = path.with_suffix(".log").read_text(encoding="utf-8")
        raise RuntimeError(f"a process of workers has died:\n{log[-2000:]}")
    found = json.loads(path.read_text(encoding="utf-8"))
    return Told(**found | {name: Counter(found[name]) for name in ("notes", "errors")})


def _faults(database: servers.Postgres, told: Sequence[Told]) -> list[str]:
    """What the database has otherwise than the workers were told."""
    finished = {key: run for one in told for key, run in one.finished.items()}
    epochs = {key: count for one in told for key, count in one.epochs.items()}
    there = Counter(
        key
        for (key,) in database.ask(
            "SELECT tags.value FROM runs JOIN tags USING (run_uuid) WHERE tags.key = 'elth.key' "
            "AND runs.status = 'FINISHED' AND runs.lifecycle_stage = 'active'"
        )
    )
    found = [f"{key[:12]} is finished {count} times" for key, count in there.items() if count > 1]
    found += [f"{key[:12]} was delivered and is not there" for key in finished if key not in there]
    found += [f"{key[:12]} is there and was not delivered" for key in there if key not in finished]
    for name in _POINTS:
        text = f"SELECT run_uuid, count(*) FROM metrics WHERE key = '{name}' GROUP BY run_uuid"
        points = dict(database.ask(text))
        found += [
            f"{key[:12]} has {points.get(run, 0)} points of {name} and not {epochs[key]}"
            for key, run in finished.items()
            if points.get(run, 0) != epochs[key]
        ]
    # A worker whose own request was answered to nobody takes its lease anew, as the next number.
    text = (
        "SELECT params.key, tags.value FROM params LEFT JOIN tags ON tags.run_uuid = params.value "
        "AND tags.key = 'elth.owner' WHERE params.key LIKE 'lease/%'"
    )
    holders: dict[str, set[str | None]] = {}
    for key, owner in database.ask(text):
        holders.setdefault(key.rpartition("/")[0], set()).add(owner)
    taken = (key for key, owners in holders.items() if len(owners) > 1)
    return found + [f"a lease was taken over: {key[:24]}" for key in taken]


def _part(values: Sequence[float], part: float) -> float:
    """A quantile; nan of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


def rows_of(outcome: Outcome, name: str) -> list[Row]:
    """One load's numbers."""
    wall, finished = outcome.wall, outcome.finished
    words = f"{outcome.load.workers} workers, {name}: "
    took = outcome.took
    every = [seconds for found in took.values() for seconds in found]
    failed = [one for each in outcome.told for one in each.failed]
    lost = sum(one.lost for one in outcome.told)
    wrong = [*failed, *outcome.faults]
    numbers = {
        "stages a second": ("/s", finished / wall),
        "calls a second": ("/s", len(every) / wall),
        "calls for a stage": ("", len(every) / max(1, finished)),
        "batches a second": ("/s", len(took.get("POST runs/log-batch", ())) / wall),
        "an answer, 50th percentile": ("s", _part(every, 0.5)),
        "an answer, 99th percentile": ("s", _part(every, 0.99)),
        "between signs of life, 99th percentile": ("s", _part(outcome.all_of("gaps"), 0.99)),
        "between signs of life, longest": ("s", _part(outcome.all_of("gaps"), 1)),
        "a stage begun, 50th percentile": ("s", _part(outcome.all_of("begun"), 0.5)),
        "a stage begun, longest": ("s", _part(outcome.all_of("begun"), 1)),
        "a stage delivered, 50th percentile": ("s", _part(outcome.all_of("delivered"), 0.5)),
        "a stage delivered, longest": ("s", _part(outcome.all_of("delivered"), 1)),
        "all in the store after the end": ("s", max(one.ended for one in outcome.told)),
        "cores of the server": ("", outcome.server / wall),
        "cores of the database": ("", outcome.database / wall),
        "cores of the workers": ("", sum(one.processor for one in outcome.told) / wall),
        "memory of the server": ("MB", outcome.memory / 1e6),
        "memory of a worker's tracking": (
            "MB",
            _part([one.memory for one in outcome.told], 0.5) / 1e6,
        ),
    }
    found = [row(words + what, unit, [value]) for what, (unit, value) in numbers.items()]
    found[0]["note"] = f"{finished} in {wall:.0f} s"
    what = f"{words}lost, failed, or wrong in the database"
    return [*found, row(what, "", [lost + len(wrong)], "< 1", "; ".join(wrong[:4]))]


def details(outcome: Outcome) -> str:
    """Calls by what they ask for, errors and notes."""
    finished = max(1, outcome.finished)
    lines = [
        f"  {name:36} {len(took):7} {len(took) / finished:7.2f} a stage "
        f"{1000 * _part(took, 0.5):8.0f} ms {1000 * _part(took, 0.99):8.0f} ms"
        for name, took in outcome.took.items()
    ]
    for what in ("errors", "notes"):
        lines += [f"  {n:5} {what}: {text}" for text, n in outcome.count(what).most_common(8)]
    return "\n".join(lines)


def rows(
    workers: Sequence[int] = WORKERS,
    *,
    seconds: float = 300.0,
    stage: float = 60.0,
    epoch: float = 1.0,
    server: Sequence[str] = tuple(servers.SETTINGS),
    fault: str = "",
) -> Iterator[Row]:
    """Measure each number of workers on each kind of server."""
    if lacks := servers.lacking():
        yield {"name": "all", "note": f"left out: {lacks}"}
        return
    for name in server:
        for count in workers:
            load = Load(workers=count, seconds=seconds, stage=stage, epoch=epoch)
            with tempfile.TemporaryDirectory(prefix="elth-tracker-") as place:
                folder = Path(place)
                folder.chmod(0o755)
                outcome = measure(folder, load, servers.SETTINGS[name], fault)
            words = name + (f", {fault} fail" if fault else "")
            print(f"{count} workers, {words}:\n{details(outcome)}", flush=True)
            yield from rows_of(outcome, words)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracker", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--seconds", type=float, default=300.0, help="for which stages are begun")
    parser.add_argument("--stage", type=float, default=60.0, help="seconds of a stage")
    parser.add_argument("--epoch", type=float, default=1.0, help="seconds of an epoch")
    names = tuple(servers.SETTINGS)
    parser.add_argument("--server", nargs="+", choices=names, default=names)
    parser.add_argument("--fault", choices=("server", "database", "answers"), default="")
    given = vars(parser.parse_args())
    show("one tracker, many workers", list(rows(given.pop("workers"), **given)))


if __name__ == "__main__":
    main()
