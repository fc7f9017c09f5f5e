"""The writing side of a run: every epoch once, and failures with their reasons."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from elth.errors import ElthError
from orchestrator.store import pace, runlog
from orchestrator.store.away import AwayError
from orchestrator.store.leases import Lease, claim
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import ELSEWHERE, artifact, begin, chain, epoch, rewind_result


def _history(tracker: Tracker, run_id: str, name: str) -> list[Metric]:
    return list(tracker.client.get_metric_history(run_id, name))


def test_an_epoch_is_there_once_even_if_sending_fails_at_first(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runlog, "_FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(pace, "_SHARE", 1e6)  # else a slow core is waited for
    start = chain("flaky", seeds=[23])[0]
    log = begin(tracker, start)
    send, failures = tracker.client.log_batch, [MlflowException("gone for a moment")]
    failed = threading.Event()
    sent: list[Metric] = []

    def flaky(*args: Any, **kwargs: Any) -> Any:
        if failures:
            failed.set()
            raise failures.pop()
        sent.extend(kwargs["metrics"])
        return send(*args, **kwargs)

    monkeypatch.setattr(tracker.client, "log_batch", flaky)
    log.epoch(epoch(1))
    assert failed.wait(10)
    log.epoch(epoch(2))
    log.finish(rewind_result(), keep_weights=False)
    history = _history(tracker, log.run_id, "train_loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5)]
    assert len(sent) == 2 * len(runlog.METRICS)  # what was taken is not sent again


def test_to_begin_a_run_twice_tells_its_numbers_once(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = chain("begun", seeds=[29])[0]
    lease = claim(tracker, start, grid="begun", driver=ELSEWHERE, since=0.0)
    assert isinstance(lease, Lease)
    send = tracker.client.log_batch

    def lost(*args: Any, **kwargs: Any) -> None:
        send(*args, **kwargs)
        raise MlflowException("the answer was lost", TEMPORARILY_UNAVAILABLE)

    with monkeypatch.context() as patch:
        patch.setattr(tracker.client, "log_batch", lost)
        with pytest.raises(MlflowException, match="the answer was lost"):
            begin(tracker, start, lease=lease)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3)
    log = begin(tracker, start, lease=lease)
    assert [point.value for point in _history(tracker, log.run_id, "seed")] == [29]
    log.finish(rewind_result(), keep_weights=False)
    lease.end()


def test_a_store_that_takes_no_metrics_is_an_error(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = chain("deaf", seeds=[24])[0]
    log = begin(tracker, start)

    def deaf(*_: Any, **__: Any) -> None:
        raise MlflowException("the disk is full")

    monkeypatch.setattr(tracker.client, "log_batch", deaf)
    log.epoch(epoch(1))
    message = f"cannot write the results of run {log.run_id}: the disk is full"
    with pytest.raises(ElthError, match=message):
        log.finish(rewind_result(), keep_weights=False)
    log.fail(message, final=False, details="")
    assert tracker.get(log.run_id).info.status == "FAILED"


def test_a_store_that_goes_away_while_it_refuses_is_away(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was trained then goes to the outbox, as ``deliver`` has it."""
    stage = chain("both", seeds=[28])[0]
    lease = claim(tracker, stage, grid="one", driver=ELSEWHERE, since=time.monotonic())
    assert isinstance(lease, Lease)
    log = begin(tracker, stage, driver=ELSEWHERE, lease=lease)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def gone() -> bool:
        raise MlflowException("nobody answers", TEMPORARILY_UNAVAILABLE)

    monkeypatch.setattr(log.files, "add", full)
    monkeypatch.setattr(lease, "is_lost", gone)
    with pytest.raises(AwayError, match="No space left on device"):
        log.finish(rewind_result(), keep_weights=False)
    lease.give_up()


def test_a_failure_is_told_with_its_reason(tracker: Tracker) -> None:
    start, dense = chain("failing", seeds=[25])[:2]
    for stage, final in ((start, False), (dense, True)):
        log = begin(tracker, stage, grid="failing")
        log.epoch(epoch(1))
        log.fail("it broke " + "x" * 600, final=final, details="the whole story")
        assert artifact(tracker, log.run_id, "traceback.txt").read_text() == "the whole story"
    first, second = tracker.stages("failing")
    assert (first.status, first.is_final) == ("failed", False)
    assert (second.status, second.is_final) == ("failed", True)
    assert first.reason.startswith("it broke x")
    assert len(first.reason) == 500
    assert first.accuracy == 50.0
    with pytest.raises(ElthError, match=f"has no finished stage {start.key[:12]}"):
        tracker.load(start.key)
