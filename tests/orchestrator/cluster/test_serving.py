"""What is told of a server: measured by what workers do, and nothing of it stays."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from orchestrator.cluster import doctor, serving
from orchestrator.cluster.serving import PROBES, Serving, measure
from orchestrator.store.tracker import Tracker

FULL = "BAD_REQUEST: QueuePool limit of size 5 overflow 10 reached, connection timed out"


def _probes(tracker: Tracker, view: int) -> int:
    experiment = tracker.client.get_experiment_by_name(PROBES)
    assert experiment is not None
    return len(tracker.client.search_runs([experiment.experiment_id], run_view_type=view))


def test_what_is_written_to_measure_is_deleted(tracker: Tracker) -> None:
    found = measure(tracker, 0.2)
    assert found.alone > 0
    assert found.late > 0
    assert found.rate > 0
    assert _probes(tracker, ViewType.ACTIVE_ONLY) == 0
    assert _probes(tracker, ViewType.DELETED_ONLY) == 1
    assert not tracker.stages()


def test_probes_that_were_deleted_are_taken_back(tracker: Tracker) -> None:
    measure(tracker, 0.0)
    experiment = tracker.client.get_experiment_by_name(PROBES)
    assert experiment is not None
    tracker.client.delete_experiment(experiment.experiment_id)
    measure(tracker, 0.0)
    assert _probes(tracker, ViewType.DELETED_ONLY) == 2


def test_errors_are_counted_and_the_run_is_deleted_all_the_same(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_batch, calls = MlflowClient.log_batch, [0]

    def busy(self: MlflowClient, *args: Any, **words: Any) -> Any:
        calls[0] += 1
        if calls[0] > serving._ALONE and calls[0] % 2:
            raise MlflowException(FULL)
        return log_batch(self, *args, **words)

    monkeypatch.setattr(MlflowClient, "log_batch", busy)
    found = measure(tracker, 0.3)
    assert found.errors[FULL] > 0
    assert _probes(tracker, ViewType.ACTIVE_ONLY) == 0


def test_workers_are_what_fits_into_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Serving(alone=0.01, late=0.1, rate=100.0)
    # A stage of 140 s asks 14 times, .1 a second; batches every 5 s ask for .2 more.
    assert found.workers(between=5.0, stage=140.0) == int(0.7 * 100 / 0.3)
    # Where batches are rare, signs of life are sent by themselves: four in a lease of a minute.
    assert found.workers(between=120.0, stage=140.0) == int(0.7 * 100 / (4 / 60 + 0.1))
    monkeypatch.setenv("ELTH_LEASE_SECONDS", "240")
    assert found.workers(between=120.0, stage=140.0) == int(0.7 * 100 / (4 / 240 + 0.1))


@pytest.mark.parametrize(
    ("measured", "about", "do"),
    [
        (Serving(alone=0.01, late=0.1, rate=100.0), "", ""),
        (
            Serving(alone=0.01, late=2.5, rate=100.0),
            "one of twenty answers took 2.5 s or more",
            "settings",
        ),
        (
            Serving(alone=0.01, late=31.0, rate=0.6, errors=Counter({FULL: 9, "reset": 1})),
            f"to 10 more it gave errors, 9 times: {FULL}",
            "pool of connections",
        ),
    ],
    ids=["well", "slow", "busy"],
)
def test_a_server_is_told_by_its_answers(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, measured: Serving, about: str, do: str
) -> None:
    monkeypatch.setattr(serving, "measure", lambda _: measured)
    (finding,) = doctor.check_serving(tracker)
    assert finding.is_well == (not do)
    assert "answers in 10 ms" in finding.what
    assert about in finding.what
    assert do in finding.do


def test_a_server_that_takes_nothing_is_told(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(_: Tracker) -> Serving:
        raise MlflowException("PERMISSION_DENIED")

    monkeypatch.setattr(serving, "measure", measure)
    (finding,) = doctor.check_serving(tracker)
    assert (finding.about, finding.what) == ("server", "PERMISSION_DENIED")
