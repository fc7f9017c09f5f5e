"""A store that is away: what waits, for how long, and that nothing is lost or doubled."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    BAD_REQUEST,
    PERMISSION_DENIED,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.cluster.machines import publish_left
from orchestrator.store import away
from orchestrator.store.address import Store
from orchestrator.store.away import AwayError, is_away, patiently, plain, waiting
from orchestrator.store.leases import Lease, LostError, claim
from orchestrator.store.outbox import deliver, publish, publish_all
from orchestrator.store.result import Result
from orchestrator.store.runlog import METRICS, RunLog
from orchestrator.store.tracker import Tracker
from orchestrator.work.telling import Report
from orchestrator.work.worker import Worker, run_job
from tests.orchestrator.helpers import (
    ELSEWHERE,
    begin,
    chain,
    epoch,
    job_config,
    rewind_result,
    tiny,
)

ALSO = "third-host.invalid:1:1"


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No time is spent on waiting; what would have been."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def _answer(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("x", response=response)


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (MlflowException("API request failed with exception"), True),
        (MlflowException("database is locked", TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("database or disk is full", TEMPORARILY_UNAVAILABLE), False),
        (MlflowException("attempt to write a readonly database", TEMPORARILY_UNAVAILABLE), False),
        (MlflowException("no such run", RESOURCE_DOES_NOT_EXIST), False),
        (MlflowException("not yours", PERMISSION_DENIED), False),
        (requests.ConnectionError("refused"), True),
        (_answer(503), True),
        (_answer(429), True),
        (_answer(404), False),
        (AwayError("away"), True),
        (ElthError("wrong"), False),
        (ValueError("wrong"), False),
    ],
)
def test_what_waiting_may_mend(error: Exception, away: bool) -> None:
    assert is_away(error) is away


FULL = (
    "(raised as a result of Query-invoked autoflush) (sqlite3.OperationalError) database or disk "
    "is full [SQL: INSERT INTO runs (a) VALUES (?)] [parameters: ('x',)] (Background on this ...)"
)
ROOM = "; make room on that disk, and the same command goes on"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MlflowException(FULL), f"the database of the store says: database or disk is full{ROOM}"),
        (MlflowException("no such run"), "no such run"),
        (OSError(errno.ENOSPC, "No space left", "x/y"), f"No space left: x/y{ROOM}"),
        (OSError(errno.EACCES, "Permission denied", "a", None, "b"), "Permission denied: b"),
        (ValueError("two\n lines"), "two lines"),
        (ValueError(), "ValueError"),
    ],
)
def test_errors_are_told_without_sql_and_with_a_remedy(error: Exception, text: str) -> None:
    assert plain(error) == text


def _call(failures: list[Exception]) -> str:
    if failures:
        raise failures.pop()
    return "answer"


def test_waiting_is_told_once_and_ends_with_the_answer(sleeps: list[float]) -> None:
    failures: list[Exception] = [MlflowException("refused\nand more") for _ in range(7)]
    asking = waiting(lambda: _call(failures), "http://host")
    assert next(asking) == (
        "the store http://host does not answer, what is next waits for it: refused"
    )
    with pytest.raises(StopIteration) as end:
        next(asking)
    assert end.value.value == "answer"
    longest = [1, 2, 4, 8, 16, 30, 30]
    assert all(most / 2 <= slept <= most for slept, most in zip(sleeps, longest, strict=True))
    assert sleeps != longest, "hundreds that wait do not all come back in one moment"


def test_a_pool_that_is_too_small_is_told_with_its_settings(sleeps: list[float]) -> None:
    said = "QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00"
    failures: list[Exception] = [MlflowException(said, BAD_REQUEST)]
    told = next(waiting(lambda: _call(failures), "http://host"))
    assert told.endswith("overflow 10 reached, connection timed out, timeout 30.00; " + away._POOL)


def test_who_has_waited_in_vain_waits_longer(
    sleeps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy server does what it was asked also when nobody waits any more."""
    monkeypatch.setenv(away.TIMEOUT, "36")
    refused: list[Exception] = [MlflowException("API request failed with exception: refused")]
    patiently(lambda: _call(refused), "x")
    assert os.environ[away.TIMEOUT] == "36", "it is not there, which is told at once"
    late = MlflowException("API request failed with exception: Read timed out. (read timeout=36)")
    once: list[Exception] = [late]
    patiently(lambda: _call(once), "x")
    assert os.environ[away.TIMEOUT] == "120"
    monkeypatch.setenv(away.TIMEOUT, "300")
    more: list[Exception] = [late]
    patiently(lambda: _call(more), "x")
    assert os.environ[away.TIMEOUT] == "300"


def test_patience_ends(sleeps: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELTH_PATIENCE_SECONDS", "0")
    with pytest.raises(AwayError, match=r"http://host has not answered for 0 s \(refused\); give"):
        patiently(lambda: _call([MlflowException("refused")]), "http://host")
    with pytest.raises(ValueError, match="wrong"):
        patiently(lambda: _call([ValueError("wrong")]), "http://host")
    assert sleeps == []


# Finished stages


class Away:
    """Some calls to a store fail for a while."""

    def __init__(self, tracker: Tracker, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.left = 0
        for name in names:
            owner = tracker.files if name == "add" else tracker.client
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, call: Any) -> Any:
        def wrapped(*args: Any, **words: Any) -> Any:
            if self.left:
                self.left -= 1
                raise MlflowException("API request failed with exception: refused")
            return call(*args, **words)

        return wrapped


def _begun(tracker: Tracker, seed: int, driver: str = ALSO) -> tuple[str, RunLog, Lease, Result]:
    stage = chain("outbox", seeds=[seed])[0]
    lease = claim(tracker, stage, grid="outbox", driver=driver, since=0.0)
    assert isinstance(lease, Lease)
    log = begin(tracker, stage, driver=driver, lease=lease)
    log.epoch(epoch(1), at=1_000)
    log.epoch(epoch(2), at=2_000)
    return stage.key, log, lease, rewind_result()


def _waiting(
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    outbox: Path,
    seed: int,
    at: str = "add",
    driver: str = ALSO,
) -> tuple[str, RunLog, Lease, Iterator[str]]:
    """A finished stage that waits in an outbox; the last goes on with its delivery."""
    key, log, lease, result = _begun(tracker, seed, driver)
    Away(tracker, monkeypatch, at).left = 1
    steps = deliver(tracker, log, key, result, outbox, keep_weights=False)
    next(steps)
    return key, log, lease, steps


def _check(tracker: Tracker, key: str, log: RunLog) -> None:
    """It is published once, with every point once."""
    (run,) = tracker.runs_of(key)
    assert (run.info.run_id, run.info.status) == (log.run_id, "FINISHED")
    assert run.info.end_time == log.ended
    for name in METRICS:
        points = tracker.client.get_metric_history(log.run_id, name)
        assert [(point.step, point.timestamp) for point in points] == [(1, 1_000), (2, 2_000)]
    assert len(tracker.client.get_metric_history(log.run_id, "seed")) == 1
    assert run.inputs is not None
    assert len(run.inputs.dataset_inputs) == 2
    assert float(run.data.tags["elth.seconds"]) >= 0
    assert tracker.load(key)[1].rewind is not None
    assert set(tracker.files.sizes(log.run_id)) == {"experiment.yaml", "result"}


@pytest.mark.parametrize("at", ["add", "log_batch", "set_terminated"])
def test_a_stage_that_ends_while_the_store_is_away_is_published_once(
    tracker: Tracker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sleeps: list[float],
    at: str,
) -> None:
    key, log, lease, result = _begun(tracker, 130 + len(at))
    away = Away(tracker, monkeypatch, at)
    away.left = 4
    steps = deliver(tracker, log, key, result, tmp_path, keep_weights=False)
    note = next(steps)
    assert f"a finished stage waits in {tmp_path / log.run_id}: cannot write the results of" in note
    assert tracker.run_of(key) is None
    assert (tmp_path / log.run_id / "entry.json").exists()
    rest = list(steps)
    assert len(rest) == (1 if away.left == 0 and sleeps else 0)
    _check(tracker, key, log)
    assert list(tmp_path.iterdir()) == []
    lease.end()


def test_what_a_dead_process_left_is_published_by_the_next(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, log, lease, _ = _waiting(tracker, monkeypatch, tmp_path, 110, "set_terminated")
    lease.end()
    other = Tracker(tracker.store)
    assert publish_all(other, tmp_path) == 1
    _check(tracker, key, log)
    assert publish_all(other, tmp_path) == 0


def test_what_waits_on_the_disk_of_a_node_is_published(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, place = str(tracker.store), str(tmp_path)
    assert publish_left(store, place) == 0
    key, log, lease, _ = _waiting(tracker, monkeypatch, tmp_path, 115)
    lease.end()
    assert publish_left(store, place) == 1
    _check(tracker, key, log)
    assert publish_left(store, place) == 0


def test_publishing_twice_does_no_harm(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, log, lease, _ = _waiting(tracker, monkeypatch, tmp_path, 111)
    place = tmp_path / log.run_id
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    entry = (place / "entry.json").read_bytes()
    publish(tracker, place)
    plain = {name: one for name, one in json.loads(entry).items() if name != "inputs"}
    for content in (entry, json.dumps(plain).encode()):  # an earlier version knew no inputs
        (place / "entry.json").write_bytes(content)
        publish(tracker, place)
    assert not (place / "entry.json").exists()
    _check(tracker, key, log)
    lease.end()


def test_two_may_publish_an_entry_at_once(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, log, lease, steps = _waiting(tracker, monkeypatch, tmp_path, 117)
    add = tracker.files.add

    def meanwhile(run_id: str, folder: Path) -> None:
        monkeypatch.setattr(tracker.files, "add", add)
        publish(Tracker(tracker.store), folder.parent)
        add(run_id, folder)

    monkeypatch.setattr(tracker.files, "add", meanwhile)
    list(steps)
    log.fail("its files are gone", final=False, details="")
    _check(tracker, key, log)
    assert list(tmp_path.iterdir()) == []
    lease.end()


def test_an_entry_that_cannot_be_read_now_stays(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, log, lease, _ = _waiting(tracker, monkeypatch, tmp_path, 114)
    lease.end()

    def broken(_: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", broken)
        with pytest.raises(ElthError, match=r"cannot be read \(Input/output error\): see to that"):
            publish_all(tracker, tmp_path)
    assert publish_all(tracker, tmp_path) == 1
    _check(tracker, key, log)


def test_what_another_has_taken_over_is_not_published(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, log, lease, steps = _waiting(tracker, monkeypatch, tmp_path, 112, driver=ELSEWHERE)
    stage = chain("outbox", seeds=[112])[0]
    token = f"{log.run_id}:0 60"
    taker = claim(
        tracker,
        stage,
        grid="outbox",
        driver=ALSO,
        since=1e12,
        watched=(token, 61.0),
    )
    assert isinstance(taker, Lease)
    with pytest.raises(LostError, match="another attempt has taken over what waits in"):
        list(steps)
    assert (tmp_path / log.run_id / "entry.json").exists(), "kept until that is done"
    publish_all(tracker, tmp_path)
    assert (tmp_path / log.run_id / "entry.json").exists()
    quick = begin(tracker, stage, driver=ALSO, lease=taker)
    quick.finish(rewind_result(), keep_weights=False)
    publish_all(tracker, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert [run.info.run_id for run in tracker.runs_of(key)] == [quick.run_id]
    lease.end()
    taker.end()


def test_what_another_has_finished_meanwhile_is_lost_and_not_kept_as_the_result(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, log, lease, steps = _waiting(tracker, monkeypatch, tmp_path, 119, driver=ELSEWHERE)
    stage = chain("outbox", seeds=[119])[0]
    watched = (f"{log.run_id}:0 60", 61.0)
    taker = claim(tracker, stage, grid="outbox", driver=ALSO, since=1e12, watched=watched)
    assert isinstance(taker, Lease)
    begin(tracker, stage, driver=ALSO, lease=taker).finish(rewind_result(), keep_weights=False)
    with pytest.raises(LostError, match="another attempt has finished what waited in"):
        list(steps)
    assert list(tmp_path.iterdir()) == []
    assert [run.info.run_id for run in tracker.runs_of(key)] == [taker.run_id]
    lease.end()
    taker.end()


def test_an_entry_of_another_store_is_left_alone(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, log, lease, _ = _waiting(tracker, monkeypatch, tmp_path, 113)
    path = tmp_path / log.run_id / "entry.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"store": "http://elsewhere"}))
    assert publish_all(tracker, tmp_path) == 0
    assert path.exists()
    lease.give_up()
    assert tracker.run_of(key) is None


@pytest.mark.parametrize("way", ["moved", "copied"])
def test_what_waits_for_a_directory_is_published_where_that_lies_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    first, second = Store.of(tmp_path / "first"), Store.of(tmp_path / "second")
    tracker = Tracker(first)
    key, log, lease, result = _begun(tracker, 116)
    away = Away(tracker, monkeypatch, "add")
    away.left = 1
    next(deliver(tracker, log, key, result, first.outbox, keep_weights=False))
    lease.end()
    for thread in (lease._thread, log._thread):  # nothing may write to what is copied
        thread.join()
    of_server = first.outbox / ("0" * 32)
    (of_server / "files").mkdir(parents=True)
    entry = json.loads((first.outbox / log.run_id / "entry.json").read_text())
    entry |= {"store": "http://elsewhere", "run_id": of_server.name, "files": {}}
    (of_server / "entry.json").write_text(json.dumps(entry))
    (shutil.move if way == "moved" else shutil.copytree)(tmp_path / "first", tmp_path / "second")
    other = Tracker(second)
    assert publish_all(other, second.outbox) == 1
    _check(other, key, log)
    assert [path.name for path in second.outbox.iterdir()] == [of_server.name]
    if way == "copied":
        assert tracker.run_of(key) is None, "the other one's waits there"


def test_an_entry_whose_files_are_not_whole_is_set_aside(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, log, lease, _ = _waiting(tracker, monkeypatch, tmp_path, 114)
    path = tmp_path / log.run_id / "files/result/rewind.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert publish_all(tracker, tmp_path) == 0
    assert (tmp_path / log.run_id / "entry.bad").exists()
    assert tracker.run_of(key) is None
    lease.give_up()


def test_an_outbox_that_cannot_be_written_is_an_error_with_both_reasons(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, log, lease, result = _begun(tracker, 115)
    away = Away(tracker, monkeypatch, "add")
    away.left = 1
    (tmp_path / "file").touch()
    with pytest.raises(ElthError, match="cannot write the results .* and the outbox .* cannot be"):
        next(deliver(tracker, log, key, result, tmp_path / "file", keep_weights=False))
    lease.give_up()


# Jobs


def test_a_job_waits_for_the_store_and_tells_so(
    store: Store, tracker: Tracker, monkeypatch: pytest.MonkeyPatch, sleeps: list[float]
) -> None:
    found = tiny("patient", seeds=[120], pruning={"rate": 0.5, "rounds": 1})
    todo = list(plan.build(found).stages.values())
    worker = Worker()
    mine = worker.tracker(str(store))
    away = Away(mine, monkeypatch, "search_runs", "create_run", "log_batch", "set_terminated")
    reports: list[Report] = []
    for report in run_job(job_config(store, found, todo), worker):
        assert not report.failed, report.failed
        reports.append(report)
        if len(reports) % 2:
            away.left = 3
    assert {r.note.split(",")[0] for r in reports if "does not answer" in r.note} == {
        f"the store {store} does not answer"
    }
    runs = [run for stage in todo for run in tracker.runs_of(stage.key)]
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    for run in runs:
        for name in METRICS:
            steps = [p.step for p in tracker.client.get_metric_history(run.info.run_id, name)]
            assert len(steps) == len(set(steps)) > 0
    assert not store.outbox.exists() or list(store.outbox.iterdir()) == []


def test_a_job_gives_up_after_a_while_and_the_next_command_publishes(
    store: Store, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELTH_PATIENCE_SECONDS", "0")
    found = tiny("impatient", seeds=[121])
    (start, *_) = plan.build(found).stages.values()
    worker = Worker()
    mine = worker.tracker(str(store))
    away = Away(mine, monkeypatch, "add", "search_runs")
    reports = run_job(job_config(store, found, [start]), worker)
    assert next(reports).fraction == 1.0
    away.left = 99
    *notes, last = reports
    assert notes[0].note.startswith("a finished stage waits in ")
    assert "has not answered for 0 s" in last.failed
    assert tracker.run_of(start.key) is None
    monkeypatch.undo()
    assert publish_all(tracker, store.outbox) == 1
    assert tracker.run_of(start.key) is not None
    assert [run.info.status for run in tracker.runs_of(start.key)] == ["FINISHED"]


def test_no_password_of_a_database_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELTH_PATIENCE_SECONDS", "0")
    found = tiny("secret", seeds=[122])
    todo = list(plan.build(found).stages.values())[:1]

    def refused(*_: object) -> Tracker:
        raise MlflowException("connection refused")

    monkeypatch.setattr(Worker, "tracker", refused)
    place = "postgresql://lab:s3cret@db.invalid/elth"
    (last,) = run_job(job_config(store, found, todo) | {"store": place}, Worker())
    assert "the store postgresql://db.invalid/elth has not answered for 0 s" in last.failed
