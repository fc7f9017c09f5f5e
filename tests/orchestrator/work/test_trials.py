"""Trials, without Tune: what they tell of a job."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import pytest
from ray.train import ControllerError, WorkerGroupError
from ray.util.queue import Empty

from orchestrator.work.telling import Report
from orchestrator.work.trials import GroupTrial, JobTrial, pause_after


def test_a_trial_steps_to_the_end_of_a_stage_or_for_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports = [
        Report(index=0, fraction=0.3),
        Report(index=0, fraction=0.6),
        Report(index=0, fraction=1.0),
        Report(index=1),
        Report(index=1, fraction=0.5),
        Report(index=1, failed="no"),
    ]
    monkeypatch.setattr("orchestrator.work.worker.run_job", lambda config: iter(reports))
    trial = JobTrial.__new__(JobTrial)
    trial.setup({}, {})
    assert trial.step() == {"report": astuple(Report(index=1)), "done": False}
    assert trial.step() == {"report": astuple(reports[-1]), "done": True}
    monkeypatch.setattr("orchestrator.work.trials.pause_after", lambda *_: -1.0)
    assert trial.reset_config({})
    assert [trial.step()["report"][1] for _ in range(3)] == [0.3, 0.6, 1.0]
    monkeypatch.setattr("orchestrator.work.worker.run_job", lambda config: iter(()))
    assert trial.reset_config({})
    assert trial.step() == {"report": None, "done": True}


def test_a_job_does_not_come_back_with_each_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.work.worker.run_job", lambda config: iter(()))
    given = {"stages": ["many"]}
    trial: Any = JobTrial(given)
    assert "stages" not in trial.train()["config"]
    assert trial.reset({"stages": ["others"]})
    assert "stages" not in trial.train()["config"]


def test_a_trial_that_stands_still_tells_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("orchestrator.work.trials.time.monotonic", lambda: now[0])

    def epochs(config: object) -> Iterator[Report]:
        for epoch in range(1, 1000):
            now[0] += 0.5
            yield Report(index=0, fraction=epoch / 1000)

    monkeypatch.setattr("orchestrator.work.worker.run_job", epochs)
    trial = JobTrial.__new__(JobTrial)
    trial.setup({}, {})
    lengths = []
    for stood in (0.0, 0.25, 0.0, 0.0, 9.0, 0.0):
        now[0] += stood
        began = now[0]
        trial.step()
        lengths.append(now[0] - began)
    assert lengths == [1.5, 5.5, 4.5, 3.5, 30.5, 24.5], "until the epoch in which a pause is over"
    now[0] += 100.0
    assert trial.reset_config({})
    began = now[0]
    trial.step()
    assert now[0] - began < 24.5, "between two jobs it does not wait for the driver"


def test_pauses_settle_where_a_driver_keeps_up() -> None:
    """Trials that tell in turn to a driver that takes a hundred results a second."""
    count, takes = 500, 0.01
    pauses, due, free = [1.0] * count, [number / count for number in range(count)], 0.0
    stood = worked = 0.0
    for _ in range(20_000):
        first = min(range(count), key=due.__getitem__)
        free = max(free, due[first]) + takes
        still = free - due[first]
        pauses[first] = pause_after(still, pauses[first])
        due[first] = free + pauses[first]
        if free > 60:
            stood, worked = stood + still, worked + pauses[first]
    assert stood / worked < 0.06


class Reports(queue.Queue[Any]):
    """As Ray's queue, in this process."""

    def __init__(self, **_: Any) -> None:
        super().__init__()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return super().get(block, timeout)
        except queue.Empty:
            raise Empty from None

    def shutdown(self, immediate: bool = False) -> None:
        """Nothing is to be ended."""


@pytest.mark.parametrize("reports", [[], [Report(index=1)]])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ControllerError(RuntimeError("code: -98\nname: EADDRINUSE")), "name: EADDRINUSE"),
        (OSError("the storage is away"), "the storage is away"),
        (
            WorkerGroupError("worker 1:\nValueError: no", {1: ValueError("no")}),
            "ValueError: no",
        ),
    ],
)
def test_a_group_that_died_or_did_not_come_together_is_begun_again(
    error: Exception,
    reason: str,
    reports: list[Report],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the schedule, which knows how far each stage was."""

    def fit(config: object, to: Reports, environment: object) -> None:
        for report in reports:
            to.put(astuple(report))
        raise error

    monkeypatch.setattr("orchestrator.work.distributed.fit", fit)
    monkeypatch.setattr("orchestrator.work.trials.Queue", Reports)
    trial = GroupTrial.__new__(GroupTrial)
    trial.setup({}, {})
    result = trial.step()
    while not result["done"]:
        result = trial.step()
    report = Report(*result["report"])
    assert report.index == len(reports)
    assert (report.failed, report.died) == (reason, True)
    trial.cleanup()
