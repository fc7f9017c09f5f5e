"""Trials, without Tune: what they tell of a job."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from orchestrator.work.telling import Report
from orchestrator.work.trials import JobTrial


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
    monkeypatch.setattr("orchestrator.work.trials.REPORT_SECONDS", -1.0)
    assert trial.reset_config({})
    assert [trial.step()["report"][1] for _ in range(3)] == [0.3, 0.6, 1.0]
    monkeypatch.setattr("orchestrator.work.worker.run_job", lambda config: iter(()))
    assert trial.reset_config({})
    assert trial.step() == {"report": None, "done": True}
