"""What Tune asks while it runs trials, without Tune."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle
from ray.core.generated.common_pb2 import ActorDiedErrorContext  # type: ignore[attr-defined]
from ray.exceptions import ActorDiedError
from ray.tune.search import Searcher

from orchestrator.plan.ending import verdicts
from orchestrator.plan.graph import Plan
from orchestrator.plan.schedule import Schedule
from orchestrator.plan.stage import Stage
from orchestrator.work.deaths import Death, Deaths
from orchestrator.work.reasons import Reasons
from orchestrator.work.search import AsAsked, Beginning, Dying, Forget, PlanSearch, Stopping
from orchestrator.work.stopping import Stop
from orchestrator.work.telling import Report
from orchestrator.work.trials import JobTrial
from tests.orchestrator.helpers import (
    TINY_DEEPER,
    Finished,
    job_config,
)


def _drive(found: Finished, slots: int) -> tuple[Schedule, list[str]]:
    """Let trials run in turn, as Tune would, in one process."""
    schedule = Schedule(found.plan, (), {}, slots=slots)
    search = PlanSearch(schedule)
    common = job_config(found.store, found.experiment, [])
    trials: dict[str, JobTrial] = {}
    order: list[str] = []
    for number in range(1000):
        config = search.suggest(str(number))
        if config == Searcher.FINISHED:
            return schedule, order
        if config is not None:
            order.append(Stage.of(config["stages"][0]).title)
            trial = JobTrial.__new__(JobTrial)
            trial.setup(config, common)
            trials[str(number)] = trial
        for name, running in list(trials.items()):
            result = running.step()
            if result["done"]:
                search.on_trial_complete(name, result)
                del trials[name]
            else:
                search.on_trial_result(name, result)
    raise AssertionError("it never ended")


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("slots", [1, 3])
def test_a_search_walks_through_a_whole_plan(finished: Finished, slots: int) -> None:
    schedule, order = _drive(finished, slots)
    now = schedule.snapshot()
    assert schedule.is_over
    assert (now.done, now.total, now.failed) == (24, 24, {})
    assert len(order) == len(finished.plan.jobs())
    assert order[0] == f"{TINY_DEEPER} rewind point, seed 0"


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("slots", [1, 3])
def test_a_chain_that_ends_early_ends_a_search(stopped: Finished, slots: int) -> None:
    """With nothing known of the store, the workers find what a driver that knows it all decides."""
    schedule, _ = _drive(stopped, slots)
    now = schedule.snapshot()
    assert schedule.is_over
    found = {one.key: one for one in stopped.tracker.stages()}
    last = verdicts(stopped.experiment.pruning.stop, found)
    knowing = Schedule(stopped.plan, found, {}, slots=slots, last=last)
    assert knowing.is_over
    assert now.ended == knowing.snapshot().ended
    assert (now.done, now.failed, now.blocked, len(now.ended)) == (23, {}, 0, 5)


def test_a_search_waits_where_nothing_is_ready(finished: Finished) -> None:
    schedule = Schedule(finished.plan, (), {}, slots=99)
    search = PlanSearch(schedule)
    configs = [search.suggest(str(i)) for i in range(4)]
    assert [len(config["stages"]) for config in configs] == [4, 4, 4, 4]
    assert search.suggest("4") is None
    search.on_trial_result("0", {"report": (1, 0.0, None, "")})
    magnitude = search.suggest("5")
    assert [Stage.of(s).labels["method"] for s in magnitude["stages"]] == ["magnitude"]
    assert search.suggest("6") is None


def test_a_search_passes_on_what_is_to_be_done_again(finished: Finished) -> None:
    keys = list(finished.plan.stages)
    schedule = Schedule(finished.plan, keys, {}, slots=1)
    search = PlanSearch(schedule)
    assert search.suggest("0") == Searcher.FINISHED
    search.on_trial_result("1", {"report": astuple(Report(index=0, again=(keys[3],)))})
    config = search.suggest("2")
    assert [Stage.of(one).key for one in config["stages"]] == [keys[3]]


def test_a_search_is_over_once_the_run_is_to_end(finished: Finished) -> None:
    schedule = Schedule(finished.plan, (), {}, slots=1)
    stop = Stop("driver")
    search = PlanSearch(schedule, stop)
    assert search.suggest("0") is not None
    assert search.suggest("1") is None, "nothing else is ready"
    stop._signalled(signal.SIGTERM, None)
    assert search.suggest("2") == Searcher.FINISHED, "with None Tune would wait for ten minutes"


def test_a_search_notes_that_a_stage_is_lost_again_and_again(finished: Finished) -> None:
    schedule = Schedule(finished.plan, (), {}, slots=1)
    search = PlanSearch(schedule)
    config = search.suggest("a")
    report = Report(index=0, held="alive 1", note="it was taken over twice")
    search.on_trial_complete("a", {"report": astuple(report)})
    now = schedule.snapshot()
    assert (now.elsewhere, now.failed, now.notes) == (1, {}, ("it was taken over twice",))
    assert search.suggest("b")["stages"] != config["stages"], "others go first"


def test_a_search_tells_of_failures(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.plan.schedule._PAUSES", ())
    built: Plan = finished.plan
    schedule = Schedule(built, (), {}, slots=1)
    search = PlanSearch(schedule)
    search.suggest("a")
    search.on_trial_complete("a", {"report": (2, 0.0, None, "not finite")})
    failed = schedule.snapshot().failed
    assert [text.partition(": ")[2] for text in failed.values()] == ["not finite"]
    search.suggest("b")
    search.on_trial_result("b", {"report": (1, 0.5, 10.0, "")})
    search.on_trial_complete("b", error=True)
    assert len(schedule.snapshot().failed) == 1, "Tune tells next what the error was"
    search.died("b", Death("its process fell asleep"))
    search.died("of another loop", Death("no matter"))
    assert [text.partition(": ")[2] for text in schedule.snapshot().failed.values()] == [
        "not finite",
        "its process fell asleep",
    ]


class Kept(Reasons):
    """Reasons that are kept here."""

    def __init__(self) -> None:
        super().__init__(lambda: None, "grid", "me", Path("runs/logs/grid.log"))  # type: ignore[arg-type, return-value]
        self.deaths: list[tuple[str, Death]] = []
        self.failed: list[tuple[str, str, tuple[str, ...]]] = []

    def told(self, title: str, death: Death) -> None:
        self.deaths.append((title, death))

    def add(self, stage: Stage, reason: str, lines: Sequence[str]) -> None:
        self.failed.append((stage.title, reason, tuple(lines)))


def test_the_end_of_a_process_is_told_once_for_each_and_kept_with_the_last(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.plan.schedule._PAUSES", (0.0,))
    schedule = Schedule(finished.plan, (), {}, slots=1)
    kept = Kept()
    search = PlanSearch(schedule, reasons=kept)
    death = Death("its process fell", ("a line",), "/tmp/worker.err", "Ray said\nmuch")
    for trial in "ab":
        search.suggest(trial)
        search.on_trial_complete(trial, error=True)
        search.died(trial, death)
    title = kept.deaths[0][0]
    assert kept.deaths == [(title, death)] * 2
    assert kept.failed == [
        (title, "2 times: its process fell; see runs/logs/grid.log", ("a line",))
    ]
    now = schedule.snapshot()
    assert now.notes == (f"{title} is begun again: its process fell; see runs/logs/grid.log",)
    assert list(now.failed.values()) == [
        f"{title}: 2 times: its process fell; see runs/logs/grid.log"
    ]


def test_an_error_of_which_tune_says_nothing_ends_its_trial_all_the_same(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.plan.schedule._PAUSES", ())
    schedule = Schedule(finished.plan, (), {}, slots=1)
    search = PlanSearch(schedule)
    search.suggest("a")
    search.on_trial_complete("a", error=True)
    Dying(search, Deaths(Path("/nowhere"))).on_step_begin(1, [])
    (reason,) = schedule.snapshot().failed.values()
    assert reason.endswith(": its process died")


@pytest.mark.parametrize("written", ["pickled", "text", "nothing"])
def test_the_error_is_read_where_tune_has_just_written_it(
    finished: Finished, tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.plan.schedule._PAUSES", ())
    said = ActorDiedErrorContext(
        actor_id=bytes(16), pid=1, error_message="Worker exits with an exit code 4."
    )
    error = ActorDiedError(cause=said)  # as Ray makes it of an answer
    (tmp_path / "error.pkl").write_bytes(cloudpickle.dumps(error))
    (tmp_path / "error.txt").write_text("Failure # 1\nsomething is wrong\n")
    trial: Any = SimpleNamespace(
        trial_id="a",
        pickled_error_file=str(tmp_path / "error.pkl") if written == "pickled" else None,
        error_file=str(tmp_path / "error.txt") if written != "nothing" else None,
    )
    schedule = Schedule(finished.plan, (), {}, slots=1)
    search = PlanSearch(schedule)
    search.suggest("a")
    search.on_trial_complete("a", error=True)
    Dying(search, Deaths(tmp_path)).on_trial_error(1, [trial], trial)
    (reason,) = schedule.snapshot().failed.values()
    assert (
        reason.partition(": ")[2]
        == {
            "pickled": "its process ended with exit code 4",
            "text": "something is wrong",
            "nothing": "its process died",
        }[written]
    )


def test_a_group_whose_process_died_is_kept_by_the_driver_and_another_failure_is_not(
    finished: Finished,
) -> None:
    schedule = Schedule(finished.plan, (), {}, slots=2)
    kept = Kept()
    search = PlanSearch(schedule, reasons=kept)
    for trial, log in (("a", ()), ("b", ("/tmp/worker.err", "a line"))):
        search.suggest(trial)
        report = Report(index=0, failed=f"{trial} failed", log=log)
        search.on_trial_complete(trial, {"report": astuple(report)})
    reasons = [text.partition(": ")[2] for text in schedule.snapshot().failed.values()]
    assert reasons == ["a failed", "b failed; see runs/logs/grid.log"]
    assert [one[1:] for one in kept.failed] == [
        ("b failed; see runs/logs/grid.log", ("/tmp/worker.err", "a line"))
    ]


def test_a_group_that_did_not_come_together_is_begun_again_a_few_times(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.plan.schedule._PAUSES", (0.0,))
    schedule = Schedule(finished.plan, (), {}, slots=1)
    kept = Kept()
    search = PlanSearch(schedule, reasons=kept)
    report = Report(index=0, failed="the port was taken", log=("many", "lines"), died=True)
    first = search.suggest("a")
    search.on_trial_complete("a", {"report": astuple(report)})
    now = schedule.snapshot()
    assert (now.failed, len(now.running)) == ({}, 0)
    assert [one.partition(" is begun again: ")[2] for one in now.notes] == [
        "the port was taken; see runs/logs/grid.log"
    ]
    assert search.suggest("b")["stages"] == first["stages"]
    search.on_trial_complete("b", {"report": astuple(report)})
    (reason,) = schedule.snapshot().failed.values()
    assert reason.endswith(": 2 times: the port was taken; see runs/logs/grid.log")
    assert [one[2] for one in kept.failed] == [("many", "lines")]
    assert [death.reason for _, death in kept.deaths] == ["the port was taken"] * 2


class Unread(list[Any]):
    """The trials that Tune keeps: thousands, after a while."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("all trials are gone through at an event")


def test_nothing_goes_through_all_trials_at_each_event(finished: Finished) -> None:
    stop = Stop("driver")
    search = PlanSearch(Schedule(finished.plan, (), {}, slots=1), stop)
    trials = Unread()
    controller = SimpleNamespace(get_trials=lambda: trials)
    AsAsked().choose_trial_to_run(controller)
    dying, stopping = Dying(search, Deaths()), Stopping(stop, search, None)
    for callback in (Forget(), Beginning(search), dying, stopping):
        callback.on_step_begin(0, trials)
        callback.on_step_end(0, trials)
    stop._signalled(signal.SIGTERM, None)
    with pytest.raises(AssertionError, match="gone through"):
        Stopping(stop, search, None).on_step_begin(0, trials)
