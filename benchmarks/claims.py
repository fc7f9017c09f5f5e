"""What a claim costs with many stages on the boards: calls, bytes of their answers, time.

    python -m benchmarks.claims

On a real MLflow server and PostgreSQL (``benchmarks.servers``). The leases of stages that are on
the boards before are written by SQL; what is measured are claims of others, as workers make them.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import calls, servers
from benchmarks.crowd import Load, prepared
from benchmarks.rows import Row, row, show
from benchmarks.tracker import prepare
from orchestrator.plan.stage import Stage
from orchestrator.store.address import Store
from orchestrator.store.leases import Lease, claim
from orchestrator.store.tracker import Tracker

COUNTS = (0, 10_000, 100_000)
_CLAIMS = 25
_ROWS = 5_000
"""Of a statement."""


def rows() -> Iterator[Row]:
    """Claims with each number of stages on the boards."""
    if lacks := servers.lacking():
        yield {"name": "all", "note": f"left out: {lacks}"}
        return
    settings = servers.SETTINGS["recommended"]
    with tempfile.TemporaryDirectory(prefix="elth-claims-") as place:
        folder = Path(place)
        folder.chmod(0o755)  # the database has a user of its own
        with (
            servers.postgres(folder / "database", settings) as database,
            servers.mlflow(folder / "server", database.uri, settings) as server,
        ):
            prepare(server.uri)
            yield from _rows(Tracker(Store.of(server.uri)), database)


def _rows(tracker: Tracker, database: servers.Postgres) -> Iterator[Row]:
    sizes: list[int] = []
    calls.watch(lambda _name, _took, answer: sizes.append(len(answer.content)))
    load = Load(workers=1, seconds=1, stage=1, epoch=1)
    _, chains, _, _ = prepared(load, 0, len(COUNTS) * _CLAIMS)
    stages = iter([stage for chain in chains for stage in chain])
    done = 0
    for count in COUNTS:
        _fill(tracker, database, done, count)
        done = count
        asked, size, took = [], [], []
        for _ in range(_CLAIMS):
            sizes.clear()
            began = time.perf_counter()
            _claim(tracker, next(stages))
            took.append(1000 * (time.perf_counter() - began))
            asked.append(float(len(sizes)))
            size.append(sum(sizes) / 1000)
        words = f"a claim, {count:,} stages on the boards"
        yield row(f"{words}: calls", "", asked)
        yield row(f"{words}: answers", "kB", size)
        yield row(words, "ms", took)


def _claim(tracker: Tracker, stage: Stage) -> None:
    lease = claim(tracker, stage, grid="claims", driver="benchmark", since=time.monotonic())
    if not isinstance(lease, Lease):
        raise RuntimeError(f"{stage.title} was not to be had: {lease}")
    lease.end()


def _fill(tracker: Tracker, database: servers.Postgres, begin: int, end: int) -> None:
    """Write leases of stages that are not there."""
    boards: dict[str, str] = {}
    for first in range(begin, end, _ROWS):
        values = []
        for number in range(first, min(end, first + _ROWS)):
            key = hashlib.sha256(str(number).encode()).hexdigest()
            if key[:2] not in boards:
                boards[key[:2]] = tracker.board.on(key)
            run_id = hashlib.sha256(f"run {number}".encode()).hexdigest()[:32]
            values.append(f"('lease/{key}/1', '{run_id}', '{boards[key[:2]]}')")
        database.ask(f"INSERT INTO params (key, value, run_uuid) VALUES {', '.join(values)}")
    database.ask("ANALYZE")


if __name__ == "__main__":
    show("claims", list(rows()))
