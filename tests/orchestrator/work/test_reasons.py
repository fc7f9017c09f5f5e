"""Why stages failed whose process died: in the store, in its place, and in a log."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from orchestrator import plan
from orchestrator.report import status
from orchestrator.store.leases import Lease, claim
from orchestrator.store.marks import ASKED
from orchestrator.store.processes import owner
from orchestrator.store.tracker import Tracker
from orchestrator.work.deaths import Death
from orchestrator.work.reasons import Reasons
from tests.orchestrator.helpers import ELSEWHERE, GONE, artifact, begin, chain, rewind_result, tiny


@pytest.fixture
def reasons(tracker: Tracker, tmp_path: Path) -> Reasons:
    """Those of a run of the grid ``dying`` by this driver."""
    return Reasons(lambda: tracker, "dying", owner(), tmp_path / "dying.log")


def test_a_reason_is_in_the_store_and_the_next_run_does_the_stage_again(
    tracker: Tracker, reasons: Reasons
) -> None:
    found = tiny("dying", seeds=[901])
    built = plan.build(found)
    tracker.grids.open("dying", found.resolved(), built.stages, "")
    stage = next(iter(built.stages.values()))
    log = begin(tracker, stage, grid="dying")
    reasons.add(stage, "4 times: it fell", ["one", "two", "three", "four"])
    (known,) = tracker.stages("dying")
    assert (known.run_id, known.status, known.is_final) == (log.run_id, "failed", False)
    shown = {one.key: one for one in status.states(tracker, "dying")}
    assert shown[stage.key].state == "failed"
    assert shown[stage.key].reason == "4 times: it fell (the next elth run does it again)"
    assert shown[stage.key].log == ("two", "three", "four")
    assert artifact(tracker, log.run_id, "traceback.txt").read_text() == "one\ntwo\nthree\nfour"
    lease = claim(tracker, stage, grid="dying", driver=owner(), since=0.0)
    assert isinstance(lease, Lease)
    lease.give_up()


def test_a_process_that_had_not_come_so_far_gets_a_run(
    tracker: Tracker, reasons: Reasons, tmp_path: Path
) -> None:
    stage = chain("early", seeds=[902])[0]
    earlier = Reasons(lambda: tracker, "dying", GONE, tmp_path / "dying.log")
    earlier.add(stage, "it never began", [])
    reasons.add(stage, "nor again", [])
    (run,) = tracker.runs_of(stage.key)
    assert run.info.status == "FAILED"
    assert run.data.tags["elth.reason"] == "nor again"
    assert run.data.tags["grid.dying"] == "true"


def test_what_a_worker_has_written_of_its_failure_stays(tracker: Tracker, reasons: Reasons) -> None:
    stage = chain("worker", seeds=[906])[0]
    log = begin(tracker, stage)
    log.fail("ValueError: no", final=False, details="the whole story")
    reasons.add(stage, "its group fell", ["less"])
    (run,) = tracker.runs_of(stage.key)
    assert (run.info.run_id, run.data.tags["elth.reason"]) == (log.run_id, "ValueError: no")


@pytest.mark.parametrize("state", ["finished", "another driver's"])
def test_what_others_have_done_or_are_at_stays(
    tracker: Tracker, reasons: Reasons, state: str
) -> None:
    stage = chain("others", seeds=[903 if state == "finished" else 904])[0]
    log = begin(tracker, stage, driver=ELSEWHERE)
    if state == "finished":
        log.finish(rewind_result(), keep_weights=False)
    before = tracker.get(log.run_id).info.status
    reasons.add(stage, "it fell", [])
    (run,) = tracker.runs_of(stage.key)
    assert (run.info.run_id, run.info.status) == (log.run_id, before)
    assert "elth.reason" not in run.data.tags


def test_a_stage_that_is_finished_and_to_be_done_again_keeps_it_too(
    tracker: Tracker, reasons: Reasons
) -> None:
    stage = chain("again", seeds=[907])[0]
    done = begin(tracker, stage)
    done.finish(rewind_result(), keep_weights=False)
    tracker.client.set_tag(done.run_id, ASKED, "request")
    lease = claim(tracker, stage, grid="dying", driver=owner(), since=0.0)
    assert isinstance(lease, Lease)
    lease.end()
    reasons.add(stage, "it fell", ["a line"])
    runs = {run.info.run_id: run for run in tracker.runs_of(stage.key)}
    assert runs[lease.run_id].data.tags["elth.reason"] == "it fell"
    assert [runs[name].info.status for name in (done.run_id, lease.run_id)] == [
        "FINISHED",
        "FAILED",
    ]


def test_a_store_that_is_away_gets_it_later(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = True
    asked = 0

    def there() -> Tracker:
        nonlocal asked
        asked += 1
        if away:
            raise MlflowException("nobody answers")
        return tracker

    stage = chain("away", seeds=[905])[0]
    reasons = Reasons(there, "dying", owner(), tmp_path / "dying.log")
    reasons.add(stage, "it fell", ["a line"])
    other = chain("away", seeds=[906])[0]
    reasons.add(other, "it fell, too", [])
    assert asked == 1, "no trial goes on while the store is asked, so it is left in peace"
    assert not reasons.try_again()
    assert "has failed: it fell" in (tmp_path / "dying.log").read_text()
    away = False
    assert reasons.try_again()
    (run,) = tracker.runs_of(stage.key)
    assert run.data.tags["elth.reason"] == "it fell"
    (run,) = tracker.runs_of(other.key)
    assert run.data.tags["elth.reason"] == "it fell, too"


def test_all_that_is_known_of_a_death_is_in_the_log(reasons: Reasons) -> None:
    death = Death("it fell", ("a line",), "/tmp/worker.err", "Ray said\nmuch")
    reasons.told("some stage", death)
    lines = reasons.log.read_text().splitlines()
    assert lines[0].endswith(" some stage: it fell")
    assert lines[1:] == ["    Ray said", "    much", "    /tmp/worker.err", "    a line"]
