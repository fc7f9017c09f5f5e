"""The list of stages by its index is the one without, whatever has become of the runs."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator.plan.stage import Stage
from orchestrator.store import listing
from orchestrator.store.listing import INDEX, POINTER, Listing, Tracked, pages, tracked
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import QUICK, artifact, chain

_STAGES = chain("listing", pruning={"rate": 0.5, "rounds": 1})


class Shelf:
    """An experiment with runs of its own, a keeper and a reader of its index, and a clock."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker, self.client = tracker, tracker.client
        self.experiment = str(self.client.create_experiment(f"shelf-{uuid.uuid4().hex}"))
        self.keeper, self.reader = self.listing(keep=True), self.listing(keep=False)
        self.clock = 1_000_000
        self.runs: list[str] = []

    def listing(self, *, keep: bool) -> Listing:
        files, make = self.tracker.files, self.tracker._experiment
        return Listing(self.client, files, self.experiment, make, keep=keep)

    def begin(self, stage: Stage | None = None) -> str:
        self.clock += 10
        stage = stage or _STAGES[self.clock // 10 % len(_STAGES)]
        tags = {"elth.key": stage.key, "elth.stage": json.dumps(stage.describe()), "grid.a": "true"}
        tags |= {"elth.seconds": "1.5", "elth.numerics": "cpu", "elth.collapsed": "fc.weight, b"}
        run = self.client.create_run(self.experiment, start_time=self.clock, tags=tags)
        run_id = str(run.info.run_id)
        self.client.log_metric(run_id, "test_accuracy", self.clock / 7)
        self.runs.append(run_id)
        return run_id

    def end(self, run_id: str, status: str = "FINISHED", late: int = 0) -> None:
        self.clock += 10
        self.client.set_terminated(run_id, status, end_time=self.clock - 10 * late)

    def finish(self, count: int = 1) -> None:
        for _ in range(count):
            self.end(self.begin())

    def purge(self, run_id: str) -> None:
        """As ``mlflow gc`` does."""
        self.client.delete_run(run_id)
        self.client._tracking_client.store._hard_delete_run(run_id)
        self.runs.remove(run_id)

    def full(self) -> list[Tracked]:
        """All runs, as MLflow lists them."""
        found = (run for page in pages(self.client, self.experiment) for run in page)
        return [tracked(run) for run in found if "elth.key" in run.data.tags]

    def place(self) -> dict[str, str]:
        text = self.keeper._pointer()
        return dict(json.loads(text)) if text else {}

    def file(self) -> Path:
        place = self.place()
        return artifact(self.tracker, place["run"], place["file"])

    def point(self, text: str) -> None:
        experiment = self.tracker._experiment(INDEX)
        self.client.set_experiment_tag(experiment, POINTER, text)

    def check(self) -> None:
        assert self.reader.read() == self.keeper.read() == self.full()


@pytest.fixture
def shelf(tracker: Tracker, small_pages: None) -> Shelf:
    return Shelf(tracker)


@pytest.fixture(scope="module")
def small_pages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "PAGE", 3)
        yield


class Reads:
    """Counts what is asked of MLflow."""

    def __init__(self, client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.searches = self.runs = 0
        search = client.search_runs

        def counted(*words: Any, **options: Any) -> Any:
            found = search(*words, **options)
            self.searches += 1
            self.runs += len(found)
            return found

        monkeypatch.setattr(client, "search_runs", counted)


@pytest.fixture
def reads(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(tracker.client, monkeypatch)


_ACTIONS = ["finish", "finish", "finish", "late", "fail", "begin", "end", "again", "stranger"]
_ACTIONS += ["delete", "delete", "restore", "purge", "missing", "truncated", "nothing"]


def _act(shelf: Shelf, what: str, run_id: str, number: int) -> None:
    client = shelf.client
    run = client.get_run(run_id).info
    deleted = run.lifecycle_stage == "deleted"
    if what == "finish":
        shelf.finish(number)
    elif what == "late":
        shelf.end(shelf.begin(), late=5 * number)
    elif what == "fail":
        shelf.end(shelf.begin(), "FAILED")
    elif what == "begin":
        shelf.begin()
    elif what == "end" and not deleted and run.status == "RUNNING":
        shelf.end(run_id)
    elif what == "again" and not deleted:
        client.update_run(run_id, "RUNNING")
    elif what == "stranger":
        shelf.end(str(client.create_run(shelf.experiment, start_time=shelf.clock).info.run_id))
    elif what == "delete" and not deleted:
        client.delete_run(run_id)
    elif what == "restore" and deleted:
        client.restore_run(run_id)
    elif what == "purge" and not deleted and len(shelf.runs) > 1:
        shelf.purge(run_id)
    elif what == "missing" and shelf.place():
        shelf.file().unlink()
    elif what == "truncated" and shelf.place():
        shelf.file().write_bytes(shelf.file().read_bytes()[: -10 * number])


@pytest.mark.usefixtures("small_pages")
@hypothesis.settings(
    QUICK,
    max_examples=3,  # of real runs; each takes a second
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],  # as a shelf is new
)
@given(
    st.lists(
        st.tuples(st.sampled_from(_ACTIONS), st.integers(), st.integers(1, 5)),
        min_size=8,
        max_size=12,
    )
)
def test_the_list_is_always_that_of_the_store(
    tracker: Tracker, actions: list[tuple[str, int, int]]
) -> None:
    shelf = Shelf(tracker)
    shelf.finish(8)
    shelf.check()
    for what, which, number in actions:
        _act(shelf, what, shelf.runs[which % len(shelf.runs)], number)
        shelf.check()


def test_with_an_index_only_what_is_new_is_read(shelf: Shelf, reads: Reads) -> None:
    shelf.finish(31)
    shelf.check()
    assert shelf.place()
    reads.searches = reads.runs = 0
    assert len(shelf.reader.read()) == 31
    assert (reads.searches, reads.runs) == (3, 1)  # unfinished, finished after 30, deleted
    shelf.finish(1)
    shelf.begin()
    shelf.client.delete_run(shelf.runs[2])
    reads.searches = reads.runs = 0
    assert len(shelf.reader.read()) == 32
    assert (reads.searches, reads.runs) == (3, 4)


def test_only_a_keeper_writes_and_only_when_a_page_is_new(shelf: Shelf) -> None:
    shelf.point("")
    shelf.finish(10)
    shelf.reader.read()
    assert not shelf.place()
    shelf.keeper.read()
    first = shelf.place()
    shelf.finish(2)
    shelf.keeper.read()
    assert shelf.place() == first
    shelf.finish(1)
    shelf.keeper.read()
    assert shelf.place()["file"] != first["file"]
    shelf.check()


def test_the_index_before_is_removed(shelf: Shelf) -> None:
    shelf.finish(4)
    shelf.keeper.read()
    before = shelf.file()
    shelf.finish(3)
    shelf.keeper.read()
    assert shelf.file().exists()
    assert not before.exists()


def test_what_ended_just_now_waits_for_clocks_that_are_behind(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.point("")
    monkeypatch.setattr(time, "time", lambda: (shelf.clock + 299_000) / 1000)
    shelf.finish(7)
    shelf.check()
    assert not shelf.place()
    monkeypatch.setattr(time, "time", lambda: (shelf.clock + 301_000) / 1000)
    shelf.check()
    assert shelf.place()


def test_an_old_index_serves_up_to_what_has_changed(shelf: Shelf, reads: Reads) -> None:
    shelf.finish(33)
    shelf.keeper.read()
    shelf.purge(shelf.runs[30])
    reads.runs = 0
    assert shelf.reader.read() == shelf.full()
    assert reads.runs < 32 + 22  # the reference reads all 32


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        lambda data: b"",
    ],
    ids=["cut", "flipped", "empty"],
)
def test_a_damaged_index_is_not_used_and_replaced(
    shelf: Shelf, reads: Reads, damage: Callable[[bytes], bytes]
) -> None:
    shelf.finish(10)
    shelf.keeper.read()
    file = shelf.file()
    file.write_bytes(damage(file.read_bytes()))
    reads.runs = 0
    assert len(shelf.reader.read()) == reads.runs == 10
    shelf.check()
    assert shelf.file() != file
    shelf.check()


def _forge(shelf: Shelf, change: Callable[[dict[str, Any]], object]) -> None:
    """Replace the index by one of other content and a true checksum."""
    content = json.loads(gzip.decompress(shelf.file().read_bytes()))
    change(content)
    data = gzip.compress(json.dumps(content).encode())
    shelf.file().write_bytes(data)
    shelf.point(json.dumps({**shelf.place(), "sha256": hashlib.sha256(data).hexdigest()}))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(format=["0"]),
        lambda content: content.update(experiment="of another store"),
        lambda content: content.pop("marks"),
        lambda content: content["stages"][0].update(of_the_future=1),
        lambda content: content["stages"][0].pop("accuracy"),
        lambda content: content.update(stages=[None]),
        lambda content: content["marks"].__setitem__(-1, ["no token", "no run", 3]),
        lambda content: content["marks"].__setitem__(-1, [content["marks"][0][0], "no run", 3]),
    ],
    ids=["version", "store", "marks", "field", "lacking", "form", "token", "run"],
)
def test_an_index_of_another_kind_is_not_used_and_replaced(
    shelf: Shelf, change: Callable[[dict[str, Any]], object]
) -> None:
    shelf.finish(10)
    shelf.keeper.read()
    _forge(shelf, change)
    before = shelf.place()
    shelf.check()
    assert shelf.place()["file"] != before["file"]
    shelf.check()


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"run": "0", "file": "x"}', "null"])
def test_a_tag_that_names_no_index_is_passed_over(shelf: Shelf, text: str) -> None:
    shelf.finish(5)
    shelf.point(text)
    assert shelf.reader.read() == shelf.full()
    shelf.check()
    assert shelf.place()["file"]


def test_an_index_that_is_replaced_while_it_is_read_is_read_again(
    shelf: Shelf, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.finish(10)
    shelf.keeper.read()
    files = shelf.tracker.files
    read = files.read

    def late(*words: Any) -> bytes:
        monkeypatch.setattr(files, "read", read)
        shelf.finish(3)
        shelf.keeper.read()  # another process, which also removes the file
        reads.runs = 0
        return read(*words)

    monkeypatch.setattr(files, "read", late)
    assert len(shelf.reader.read()) == 13
    assert reads.runs == 1


def test_two_keepers_at_once_leave_a_true_index(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.finish(10)
    shelf.keeper.read()
    shelf.finish(3)
    files, other = shelf.tracker.files, shelf.listing(keep=True)
    write = files.write

    def overtaken(*words: Any) -> None:
        monkeypatch.setattr(files, "write", write)
        shelf.finish(3)
        other.read()
        write(*words)

    monkeypatch.setattr(files, "write", overtaken)
    assert len(shelf.keeper.read()) == 13
    shelf.check()
    assert len(shelf.full()) == 16


def test_a_store_that_takes_no_index_is_told_and_listed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise MlflowException("no space")

    monkeypatch.setattr(shelf.tracker.files, "write", refuse)
    shelf.finish(5)
    with caplog.at_level(logging.WARNING):
        assert shelf.keeper.read() == shelf.full()
    assert "the index of finished runs could not be written: no space" in caplog.text


def test_an_index_can_be_set_aside(shelf: Shelf, reads: Reads) -> None:
    shelf.finish(10)
    shelf.keeper.read()
    shelf.reader.forget()
    assert not shelf.place()
    reads.runs = 0
    assert len(shelf.reader.read()) == reads.runs == 10
    shelf.keeper.read()
    assert shelf.place()


def test_an_index_of_runs_that_are_all_gone_is_forgotten(shelf: Shelf) -> None:
    shelf.finish(5)
    shelf.keeper.read()
    for run_id in list(shelf.runs):
        shelf.purge(run_id)
    assert shelf.keeper.read() == []
    assert not shelf.place()


def test_a_stage_that_was_listed_and_is_gone_sets_the_index_aside(
    shelf: Shelf, tracker: Tracker
) -> None:
    shelf.finish(5)
    shelf.keeper.read()
    with pytest.raises(ElthError, match="has no finished stage 0123"):
        tracker.load("0123")
    assert not shelf.place()


def test_joining_a_grid_is_done_once(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, calls = Shelf(tracker), []
    shelf.finish(5)
    found = shelf.full()
    set_tag = tracker.client.set_tag

    def counted(run_id: str, name: str, value: str) -> None:
        if name.startswith("grid."):  # a lease of another test may tell that it lives
            calls.append(run_id)
        set_tag(run_id, name, value)

    tracker.grids.open("once", "", {}, "")
    monkeypatch.setattr(tracker.client, "set_tag", counted)
    tracker.grids.join_finished(found, "a")
    assert calls == []
    tracker.grids.join_finished(found[:3], "once")
    tracker.grids.join_finished(found, "once")  # its tags are as an old index has them
    tracker.grids.join_finished(found, "once")
    assert calls == [one.run_id for one in found]
    assert all("once" in one.grids for one in shelf.full())


def test_joining_a_run_that_was_deleted_says_what_to_do(shelf: Shelf) -> None:
    shelf.finish(5)
    found = shelf.keeper.read()
    shelf.client.delete_run(found[0].run_id)
    shelf.tracker.grids.open("late", "", {}, "")
    message = f"run {found[0].run_id} has been deleted from the store .* meanwhile: give the same"
    with pytest.raises(ElthError, match=message):
        shelf.tracker.grids.join_finished(found, "late")
    assert not shelf.place()


def test_every_field_of_a_stage_is_in_the_index(shelf: Shelf) -> None:
    shelf.finish(4)
    shelf.keeper.read()
    fields = [one.name for one in dataclasses.fields(Tracked)]
    for one, other in zip(shelf.reader.read(), shelf.full(), strict=True):
        assert [getattr(one, name) for name in fields] == [getattr(other, name) for name in fields]
        assert one.stage.labels == other.stage.labels
        assert one.stage.key == other.stage.key
