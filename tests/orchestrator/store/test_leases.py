"""Leases: one attempt at a time, whoever dies, sleeps or comes late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.plan.stage import Stage
from orchestrator.store import pace, runlog
from orchestrator.store.address import Store
from orchestrator.store.board import BOARDS, ROOT, Board, is_deleted
from orchestrator.store.leases import (
    BEAT,
    SEEN,
    Held,
    Lease,
    LostError,
    _lengths,
    claim,
    last_beat,
    last_seen,
    open_run,
)
from orchestrator.store.tracker import Tracker
from orchestrator.work.telling import Report
from orchestrator.work.worker import Worker, run_job
from tests.orchestrator.helpers import (
    ELSEWHERE,
    GONE,
    begin,
    chain,
    epoch,
    job_config,
    like_this_one,
    rewind_result,
    tiny,
)

ALSO = "third-host.invalid:1:1"


def _board(tracker: Tracker) -> Board:
    """The board as another process sees it."""
    client = MlflowClient(tracker.store.uri)
    return Board(client, tracker._experiment, tracker._artifacts, [])


def _claim(tracker: Tracker, stage: Stage, driver: str, **changes: Any) -> Run | Held | Lease:
    words: dict[str, Any] = {"grid": "one", "since": time.monotonic()}
    return claim(tracker, stage, driver=driver, **(words | changes))


def _lease(tracker: Tracker, stage: Stage, driver: str, **changes: Any) -> Lease:
    lease = _claim(tracker, stage, driver, **changes)
    assert isinstance(lease, Lease)
    return lease


def _held(tracker: Tracker, stage: Stage, driver: str, **changes: Any) -> str:
    held = _claim(tracker, stage, driver, **changes)
    assert isinstance(held, Held)
    return held.token


def _in_threads(count: int, call: Callable[[int], object]) -> None:
    threads = [threading.Thread(target=call, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)  # each look keeps a database of one file from being written


def test_of_many_at_once_one_has_it_and_all_see_one_board(tracker: Tracker) -> None:
    key = "ab" + 62 * "0"
    boards = [_board(tracker) for _ in range(6)]
    won: list[int] = []

    def take(number: int) -> None:
        if boards[number].take(key, 1, f"attempt {number}"):
            won.append(number)

    _in_threads(6, take)
    (winner,) = won
    assert {board.latest(key) for board in boards} == {(1, f"attempt {winner}")}
    assert len({board._boards["ab"] for board in boards}) == 1
    experiment = tracker.client.get_experiment_by_name(BOARDS)
    assert experiment is not None
    names = [run.info.run_name for run in tracker.client.search_runs([experiment.experiment_id])]
    assert (names.count("leases"), names.count("leases of ab...")) == (1, 1)
    root = tracker.client.get_experiment_by_name(ROOT)
    assert root is not None
    assert _board(tracker)._find_root() == (root.tags["elth.root"], 0)


def test_one_answer_names_the_boards_of_all_keys(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [part + 62 * "0" for part in ("aa", "bb", "cc")]
    for key in keys:
        assert _board(tracker).take(key, 1, f"of {key[:2]}")
    late = _board(tracker)
    asked: list[str] = []
    get_run = MlflowClient.get_run

    def counted(self: MlflowClient, run_id: str) -> Run:
        asked.append(run_id)
        return get_run(self, run_id)

    monkeypatch.setattr(MlflowClient, "get_run", counted)
    assert [late.latest(key) for key in keys] == [(1, f"of {key[:2]}") for key in keys]
    assert len(asked) == 1 + len(keys), "the run above the boards once, and each board"


def test_leases_have_numbers_and_the_last_one_counts(tracker: Tracker) -> None:
    key = "cd" + 62 * "0"
    board = _board(tracker)
    assert board.latest(key) == (0, "")
    for number in range(1, 12):
        assert board.take(key, number, f"attempt {number}")
    assert not board.take(key, 11, "late")
    assert board.take(key, 11, "attempt 11"), "a request may be made twice"
    assert board.latest(key) == (11, "attempt 11")
    assert board.latest("cd" + 62 * "1") == (0, "")


def test_a_living_holder_is_left_alone_and_a_silent_one_taken_over(tracker: Tracker) -> None:
    stage = chain("silent", seeds=[60])[0]
    first = _lease(tracker, stage, ELSEWHERE)
    token = _held(tracker, stage, ALSO)
    assert first.run_id in token
    assert _held(tracker, stage, ALSO, watched=(token, 59.0)) == token
    assert _held(tracker, stage, ALSO, watched=("another sign of life", 600.0)) == token
    second = _lease(tracker, stage, ALSO, watched=(token, 60.0))
    assert (first.number, second.number) == (1, 2)
    assert first.is_lost()
    assert not second.is_lost()
    assert {run.info.run_id for run in tracker.runs_of(stage.key)} == {second.run_id}
    first.end()
    second.give_up()
    assert tracker.runs_of(stage.key) == []


def test_who_was_taken_over_publishes_nothing(tracker: Tracker) -> None:
    stage = chain("woken", seeds=[61])[0]
    sleeper = _lease(tracker, stage, ELSEWHERE)
    slow = begin(tracker, stage, driver=ELSEWHERE, lease=sleeper)
    slow.epoch(epoch(1))
    token = _held(tracker, stage, ALSO)
    taker = _lease(tracker, stage, ALSO, watched=(token, 60.0))
    quick = begin(tracker, stage, driver=ALSO, lease=taker)
    with pytest.raises(LostError):
        slow.finish(rewind_result(seed=1), keep_weights=False)
    quick.finish(rewind_result(seed=2), keep_weights=False)
    (run,) = tracker.runs_of(stage.key)
    assert (run.info.run_id, run.info.status) == (quick.run_id, "FINISHED")
    assert sleeper.is_lost()
    found = _claim(tracker, stage, ELSEWHERE)
    assert isinstance(found, Run)
    assert found.info.run_id == quick.run_id
    sleeper.end()
    taker.end()


def test_what_is_published_at_the_last_moment_stays(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a silent holder and its removal it wakes up and publishes."""
    stage = chain("moment", seeds=[62])[0]
    sleeper = _lease(tracker, stage, ELSEWHERE)
    log = begin(tracker, stage, driver=ELSEWHERE, lease=sleeper)
    token = _held(tracker, stage, ALSO)
    delete = tracker.client.delete_run

    def late(run_id: str) -> None:
        if run_id == sleeper.run_id:
            monkeypatch.undo()
            log.lease = None  # it has asked just before
            log.finish(rewind_result(), keep_weights=False)
        delete(run_id)

    monkeypatch.setattr(tracker.client, "delete_run", late)
    found = _claim(tracker, stage, ALSO, watched=(token, 60.0))
    assert isinstance(found, Run)
    assert found.info.run_id == sleeper.run_id
    assert [run.info.run_id for run in tracker.runs_of(stage.key)] == [sleeper.run_id]
    assert tracker.load(stage.key)[0] == stage
    sleeper.end()


@pytest.mark.parametrize("driver", [GONE, ALSO], ids=["gone", "own"])
def test_a_dead_holder_is_taken_over_at_once(tracker: Tracker, driver: str) -> None:
    stage = chain("ended", seeds=[63])[0]
    dead = _lease(tracker, stage, driver)
    dead.end()
    mine = _lease(tracker, stage, ALSO)
    assert mine.number == 2
    assert [run.info.run_id for run in tracker.runs_of(stage.key)] == [mine.run_id]
    mine.give_up()


def test_no_time_counts_in_which_the_store_was_away(tracker: Tracker) -> None:
    stage = chain("outage", seeds=[64])[0]
    holder = _lease(tracker, stage, ELSEWHERE)
    token = _held(tracker, stage, ALSO)
    long = time.monotonic() - 20
    fresh = _held(tracker, stage, ALSO, watched=(token, 600.0), since=long)
    assert fresh != token
    assert _held(tracker, stage, ALSO, watched=(fresh, 600.0)) == token
    holder.give_up()


def test_who_comes_second_in_a_race_leaves_nothing(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = chain("race", seeds=[65])[0]
    won = open_run(tracker, stage, grid="one", driver=ELSEWHERE)
    latest = tracker.board.latest

    def before(key: str) -> tuple[int, str]:
        found = latest(key)
        monkeypatch.undo()
        assert tracker.board.take(key, 1, won)
        return found

    # Neither the search nor the board tells of the other one yet.
    monkeypatch.setattr(tracker.board, "latest", before)
    monkeypatch.setattr(tracker, "runs_of", lambda key: [])
    _held(tracker, stage, ALSO)
    assert [run.info.run_id for run in tracker.runs_of(stage.key)] == [won]
    tracker.client.delete_run(won)


def test_a_holder_tells_that_it_lives_until_its_run_is_gone(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELTH_LEASE_SECONDS", "0.2")
    stage = chain("alive", seeds=[66])[0]
    holder = _lease(tracker, stage, ELSEWHERE)

    def beat() -> str:
        return tracker.client.get_run(holder.run_id).data.tags[BEAT]

    assert beat() == "0 0.2" or int(beat().split()[0]) > 0
    seen = last_seen(tracker.client.get_run(holder.run_id))
    assert seen is not None
    assert abs(time.time() - seen) < 20
    _wait_for(lambda: int(beat().split()[0]) >= 2)
    tracker.client.delete_run(holder.run_id)
    _wait_for(lambda: holder.seems_lost)
    holder._thread.join(20)
    assert not holder._thread.is_alive()
    assert holder.is_lost()


class _Waits:
    """An event that nothing sets, and that ends its thread after so many waits."""

    def __init__(self, count: int) -> None:
        self.count, self.pauses = count, list[float]()

    def wait(self, pause: float) -> bool:
        self.pauses.append(pause)
        return len(self.pauses) > self.count

    def set(self) -> None:
        """As an event is."""


def test_who_has_told_that_it_lives_need_not_tell_it_again(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = _lease(tracker, chain("told", seeds=[70])[0], ELSEWHERE)
    lease.end()
    lease._thread.join()
    sent: list[Any] = []
    monkeypatch.setattr(tracker.client, "log_batch", lambda *_, **words: sent.append(words))
    waits = _Waits(3)
    monkeypatch.setattr(lease, "_over", waits)
    monkeypatch.setattr(lease, "_told", time.monotonic() + 1000)
    lease._live()
    assert not sent
    assert min(waits.pauses[1:]) > 900, "the next is due a quarter of a lease after the last"
    monkeypatch.setattr(lease, "_over", _Waits(3))
    monkeypatch.setattr(lease, "_told", time.monotonic() - 1000)
    lease._live()
    assert len(sent) == 1, "told once, it is not due"


def test_a_sign_of_life_goes_along_with_epochs_if_one_is_due(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runlog, "_FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(pace, "_SHARE", 1e6)  # else a slow core is waited for
    stage = chain("along", seeds=[71])[0]
    lease = _lease(tracker, stage, ELSEWHERE)
    lease.end()
    log = begin(tracker, stage, driver=ELSEWHERE, lease=lease)
    before = last_beat(tracker.client.get_run(log.run_id))[0]
    monkeypatch.setattr(lease, "_told", time.monotonic() + 1000)  # not even on a stalled machine
    log.epoch(epoch(1))
    _wait_for(lambda: "train_loss" in tracker.client.get_run(log.run_id).data.metrics)
    assert last_beat(tracker.client.get_run(log.run_id))[0] == before, "none is due"
    due = time.monotonic()
    monkeypatch.setattr(lease, "_told", due - 1000)
    log.epoch(epoch(2))
    _wait_for(lambda: last_beat(tracker.client.get_run(log.run_id))[0] != before)
    _wait_for(lambda: lease._told > due)  # it hears of it once the store has answered
    log.finish(rewind_result(), keep_weights=False)


def test_a_run_that_a_repeated_request_has_made_is_removed(tracker: Tracker) -> None:
    stage = chain("twice", seeds=[67])[0]
    lease = _lease(tracker, stage, ALSO)
    twin = open_run(tracker, stage, grid="one", driver=ALSO)
    assert not lease.is_lost()
    assert [run.info.run_id for run in tracker.runs_of(stage.key)] == [lease.run_id]
    assert tracker.client.get_run(twin).info.lifecycle_stage == "deleted"
    lease.give_up()


def test_who_waited_for_an_attempt_that_failed_for_good_does_not_repeat_it(
    tracker: Tracker,
) -> None:
    stage = chain("nan", seeds=[74])[0]
    lease = _lease(tracker, stage, ELSEWHERE)
    log = begin(tracker, stage, driver=ELSEWHERE, lease=lease)
    token = _held(tracker, stage, ALSO)
    log.fail("the loss was not finite", final=True, details="")
    known = _claim(tracker, stage, ALSO, watched=(token, 1.0), with_failed=True)
    assert isinstance(known, Run)
    assert (known.info.run_id, known.info.status) == (log.run_id, "FAILED")
    # A driver that begins now, as one that is told to try again what has failed, makes it anew.
    again = _lease(tracker, stage, ALSO, with_failed=True)
    assert tracker.client.get_run(log.run_id).info.lifecycle_stage == "deleted"
    again.give_up()


# Drivers that take each other for dead

A, B = like_this_one(start="2"), like_this_one(start="3")
"""Two that live, as they claim their stages here, and seem to have ended to whoever looks."""


def _silent(tracker: Tracker, stage: Stage, driver: str, seconds: float) -> Lease:
    """Claim once more, after what was told has stayed the same for so many seconds."""
    token = _held(tracker, stage, driver)
    return _lease(tracker, stage, driver, watched=(token, seconds))


def test_who_lost_a_stage_goes_by_signs_of_life_alone(tracker: Tracker) -> None:
    stage = chain("misjudged", seeds=[72])[0]
    first = _lease(tracker, stage, A)
    second = _lease(tracker, stage, B)  # at once, as A seems to have ended
    assert first.is_lost()
    first.give_up(lost=True)
    # So does B to A, which knows better now; it was so for ever, ten times in a minute.
    token = _held(tracker, stage, A)
    assert _held(tracker, stage, A, watched=(token, 59.0)) == token
    for _ in range(5):
        assert _held(tracker, stage, A) == token
    assert not second.is_lost()
    third = _lease(tracker, stage, A, watched=(token, 60.0))
    assert (third.number, second.is_lost()) == (3, True)
    assert _held(tracker, stage, B), "both know now"
    second.end()
    third.give_up()


def test_who_lost_a_stage_twice_says_so_and_waits_longer_each_time(tracker: Tracker) -> None:
    stage = chain("thieves", seeds=[73])[0]
    box = like_this_one(host="box", pid=77, start="4", namespace="4711.1")
    mine = _lease(tracker, stage, A)
    other = _lease(tracker, stage, box)  # at once, as A seems to have ended
    mine.give_up(lost=True)
    waits = []
    for losses in range(1, 5):  # each of both is silent for as long as the other waits
        held = _claim(tracker, stage, A)
        assert isinstance(held, Held)
        wait = 60 * _lengths(losses, f"{A} {stage.key}")
        said = (
            f"{stage.title} was taken over from this driver {losses} times while it was at work, "
            "last by process 77 on box (PID namespace 4711): it is left to that, and taken back "
            f"only after {wait:.0f} s without a sign of life"
        )
        assert held.note == ("" if losses == 1 else said)
        _held(tracker, stage, A, watched=(held.token, wait - 0.1))
        mine = _lease(tracker, stage, A, watched=(held.token, wait))
        other.give_up(lost=True)
        other = _silent(tracker, stage, box, 60 * _lengths(losses, f"{box} {stage.key}"))
        mine.give_up(lost=True)
        waits.append(wait)
    assert waits[0] == 60.0
    assert all(after >= 1.3 * before for before, after in pairwise(waits))
    assert waits[-1] >= 8 * 60
    assert _lengths(3, A) != _lengths(3, B), "two that wait for each other do not keep time"
    other.give_up()


def test_only_what_was_taken_away_counts_as_lost(tracker: Tracker) -> None:
    stage = chain("given", seeds=[74])[0]
    _lease(tracker, stage, A).give_up()  # it could not be prepared, say
    failing = _lease(tracker, stage, A)
    failing.end()
    tracker.client.set_terminated(failing.run_id, "FAILED")
    other = _lease(tracker, stage, B)
    mine = _lease(tracker, stage, A)  # at once: B seems to have ended, and A has lost nothing
    assert mine.number == 4
    again = _lease(tracker, stage, A)  # its own later attempt is no loss, either
    tracker.client.delete_run(again.run_id)
    other.end()
    mine.end()
    again.end()
    assert isinstance(_claim(tracker, stage, A), Lease)
    for run in tracker.runs_of(stage.key):
        tracker.client.delete_run(run.info.run_id)


def test_a_time_that_is_told_is_for_people(tracker: Tracker) -> None:
    stage = chain("clocks", seeds=[75])[0]
    long_ago = {BEAT: "7 60", SEEN: "2001-01-01T00:00:00+00:00"}
    run_id = open_run(tracker, stage, grid="one", driver=ELSEWHERE, tags=long_ago)
    assert _held(tracker, stage, ALSO) == f"{run_id}:7 60"
    assert last_seen(tracker.client.get_run(run_id)) == 978307200.0
    tracker.client.set_tag(run_id, SEEN, "yesterday")
    assert last_seen(tracker.client.get_run(run_id)) is None
    tracker.client.delete_run(run_id)


# Jobs


def test_a_job_tells_that_another_driver_is_at_its_stage(store: Store, tracker: Tracker) -> None:
    found = tiny("shared", seeds=[68], pruning={"rate": 0.5, "rounds": 1})
    todo = list(plan.build(found).stages.values())
    worker = Worker()
    assert not any(r.failed for r in run_job(job_config(store, found, todo[:1]), worker))
    other = _lease(tracker, todo[1], ELSEWHERE)
    config = job_config(store, found, todo)
    *before, last = run_job(config, worker)
    assert before == [Report(index=1)]
    assert (last.index, last.failed, last.is_last) == (1, "", True)
    assert other.run_id in last.held
    other.end()
    # Its sign of life has not changed for a minute: it is taken over, from this one's checkpoints.
    reports = list(run_job({**config, "watched": (last.held, 61.0)}, worker))
    assert [r.index for r in reports if r.fraction == 0] == [1, 2, 3]
    assert not any(r.failed or r.held for r in reports)
    runs = [run for stage in todo for run in tracker.runs_of(stage.key)]
    assert [run.info.status for run in runs] == ["FINISHED"] * 3


def test_a_worker_that_was_stopped_takes_what_another_has_finished_meanwhile(
    store: Store, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tiny("sleeper", seeds=[69], pruning={"rate": 0.5, "rounds": 1})
    (start, *_) = plan.build(found).stages.values()
    config = job_config(store, found, [start])
    steps = run_job({**config, "driver": ELSEWHERE}, Worker())
    assert next(steps).fraction == 1.0  # its only epoch is trained, nothing is published
    (run,) = tracker.runs_of(start.key)
    token = f"{run.info.run_id}:{run.data.tags[BEAT]}"
    taking = list(run_job({**config, "watched": (token, 61.0)}, Worker()))
    assert replace(taking[-1], ended_at=None) == Report(index=1)
    assert [replace(one, ended_at=None) for one in steps] == [Report(index=1)]
    (one,) = tracker.runs_of(start.key)
    assert one.info.run_id != run.info.run_id
    deleted = tracker.client.search_runs(
        [tracker.experiments["elth"]],
        f"tags.`elth.key` = '{start.key}'",
        run_view_type=ViewType.DELETED_ONLY,
    )
    assert [gone.info.run_id for gone in deleted] == [run.info.run_id]


def test_a_worker_whose_driver_took_it_for_dead_ends(store: Store, tracker: Tracker) -> None:
    """Its driver has begun the stage anew, on another node say; to take it back would go on."""
    found = tiny("orphan", seeds=[76], pruning={"rate": 0.5, "rounds": 1})
    (start, *_) = plan.build(found).stages.values()
    orphan = run_job(job_config(store, found, [start]), Worker())
    assert next(orphan).fraction == 1.0
    again = run_job(job_config(store, found, [start]), Worker())
    assert next(again).fraction == 1.0
    assert list(orphan) == [Report(index=0, stopped=True)]
    assert [replace(one, ended_at=None) for one in again] == [Report(index=1)]
    (one,) = tracker.runs_of(start.key)
    assert one.info.status == "FINISHED"
    assert tracker.board.latest(start.key) == (2, one.info.run_id)


def test_a_job_tells_that_its_stage_was_lost_again_and_again(
    store: Store, tracker: Tracker
) -> None:
    found = tiny("robbed", seeds=[77])
    (start, *_) = plan.build(found).stages.values()
    mine = _lease(tracker, start, A)
    taker = _lease(tracker, start, ALSO)  # at once, as A seems to have ended
    again = _silent(tracker, start, A, 60.0)
    last = _silent(tracker, start, ALSO, 60.0)
    for lease in (mine, taker, again, last):
        lease.end()
    (report,) = run_job(job_config(store, found, [start], driver=A), Worker())
    assert report.held
    assert report.note.startswith(f"{start.title} was taken over from this driver 2 times while ")
    assert "last by process 1 on third-host.invalid: it is left to that" in report.note
    tracker.client.delete_run(last.run_id)


def test_what_cannot_be_prepared_leaves_no_run(store: Store, tracker: Tracker) -> None:
    found = tiny("unprepared", seeds=[70])
    stage = list(plan.build(found).stages.values())[1]
    (report,) = run_job(job_config(store, found, [stage]), Worker())
    assert "has no finished stage" in report.failed
    assert report.redo == stage.parents[0]
    assert tracker.runs_of(stage.key) == []


def test_the_length_of_a_lease_is_the_holders(tracker: Tracker) -> None:
    stage = chain("lengths", seeds=[71])[0]
    run_id = open_run(tracker, stage, grid="one", driver=ELSEWHERE, tags={BEAT: "7 5"})
    token = _held(tracker, stage, ALSO)
    assert _held(tracker, stage, ALSO, watched=(token, 4.9)) == token
    _lease(tracker, stage, ALSO, watched=(token, 5.0)).give_up()
    odd = open_run(tracker, stage, grid="one", driver=ELSEWHERE, tags={BEAT: "nonsense"})
    assert last_beat(tracker.client.get_run(odd)) == ("nonsense", 60.0)
    tracker.client.delete_run(odd)
    assert tracker.client.get_run(run_id).info.lifecycle_stage == "deleted"


def test_a_refused_value_is_not_a_deleted_run(tracker: Tracker) -> None:
    client, stage = tracker.client, chain("board-refused")[0]
    run_id = open_run(tracker, stage, grid="g", driver=ELSEWHERE)

    def refused(name: str) -> MlflowException:
        with pytest.raises(MlflowException) as caught:
            client.set_tag(run_id, name, "true")
        return caught.value

    too_long = refused("x" * 300)
    assert too_long.error_code == "INVALID_PARAMETER_VALUE"
    assert not is_deleted(client, run_id, too_long)
    with pytest.raises(MlflowException, match="exceeds the maximum length"):
        tracker.grids.join([run_id], "x" * 300)
    client.delete_run(run_id)
    gone = refused("x")
    assert gone.error_code == "INVALID_PARAMETER_VALUE"
    assert is_deleted(client, run_id, gone)
    with pytest.raises(ElthError, match="has been deleted from the store"):
        tracker.grids.join([run_id], "g")
    assert is_deleted(client, "0" * 32, too_long), "there is no such run at all"
    assert not is_deleted(
        client, run_id, MlflowException("away", error_code=TEMPORARILY_UNAVAILABLE)
    )
