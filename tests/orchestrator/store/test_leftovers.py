"""What is of no use in a store, by kind, and that nothing else goes."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from pathlib import Path

import pytest
from pyarrow import fs

from orchestrator.store import redo, storage, trash
from orchestrator.store.address import Store
from orchestrator.store.files import folder_of
from orchestrator.store.leases import open_run
from orchestrator.store.leftovers import Leftover, clean, leftovers
from orchestrator.store.marks import ASKED
from orchestrator.store.processes import owner
from orchestrator.store.storage import ObjectStore
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import (
    begin,
    chain,
    rewind_result,
    round_result,
    tiny,
)

WEEK = 7 * 86400.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a grid of which two stages are finished."""
    folder = tmp_path_factory.mktemp("whole") / "runs"
    tracker = Tracker(Store.of(folder))
    stages = chain("one")
    plan = {one.key: one for one in stages}
    tracker.grids.open("one", tiny("one").resolved(), plan, "")
    begin(tracker, stages[0]).finish(rewind_result(), keep_weights=False)
    begin(tracker, stages[1]).finish(round_result(900), keep_weights=True)
    return folder


@pytest.fixture
def tracker(whole: Path, tmp_path: Path) -> Tracker:
    """A copy of it."""
    shutil.copytree(whole, tmp_path / "runs")
    return Tracker(Store.of(tmp_path / "runs"))


def _found(tracker: Tracker) -> list[Leftover]:
    return list(leftovers(tracker, storage.of(tracker.store.inflight)))


def _folder(tracker: Tracker, run_id: str) -> Path:
    assert tracker.store.folder is not None
    return folder_of(tracker.store.folder, run_id) / "result"


def _age(place: Path, seconds: float = 8 * 86400) -> None:
    then = time.time() - seconds
    for path in (*place.rglob("*"), place):
        os.utime(path, (then, then))


def _later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + seconds)


def _all_is_read(tracker: Tracker) -> None:
    for stage in chain("one")[:2]:
        tracker.load(stage.key)


def test_a_store_in_use_has_none(tracker: Tracker) -> None:
    stages = chain("one")
    at_work = open_run(tracker, stages[2], grid="one", driver=owner())
    for key in (stages[2].key, stages[3].key):  # one at work, one that is only asked for
        place = tracker.store.inflight / key
        place.mkdir(parents=True)
        (place / "a-000000000007.safetensors").write_bytes(b"x")
    _age(tracker.store.inflight)
    found = _found(tracker)
    assert [(one.kind, one.name) for one in found] == [
        ("in flight", key) for key in sorted((stages[2].key, stages[3].key))
    ]
    assert not any(one.is_due(0) for one in found)
    assert {one.why for one in found} == {"a stage that is to do, or may be, goes on from it"}
    assert tracker.client.get_run(at_work).info.status == "RUNNING"


def test_files_of_deleted_runs_go_by_the_time_of_the_deletion(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tracker.run_of(chain("one")[1].key)
    assert run is not None
    folder = _folder(tracker, run.info.run_id)
    tracker.client.delete_run(run.info.run_id)  # in MLflow's pages
    (one,) = _found(tracker)
    assert (one.kind, one.name, one.is_due(WEEK)) == ("trash", run.info.run_id, False)
    assert one.size >= sum(path.stat().st_size for path in folder.iterdir())
    _later(monkeypatch, WEEK + 60)
    (one,) = _found(tracker)
    assert one.is_due(WEEK)
    tracker.client.restore_run(run.info.run_id)
    assert clean(one) == ""
    assert folder.is_dir(), "it was restored between"
    tracker.client.delete_run(run.info.run_id)
    assert clean(one) == ""
    assert not folder.exists()
    assert _found(tracker) == []


def test_of_a_database_that_does_not_tell_only_what_elth_removed_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = Tracker(Store.of(f"sqlite:///{tmp_path}/x.db"))
    stages = chain("one")
    tracker.grids.open("one", tiny("one").resolved(), {stages[0].key: stages[0]}, "")
    log = begin(tracker, stages[0])
    log.finish(rewind_result(), keep_weights=False)
    other = begin(tracker, stages[1], grid="other")
    other.finish(round_result(900), keep_weights=True)
    tracker.client.delete_run(other.run_id)
    trash.remove(tracker, trash.look(tracker, "one"))
    _later(monkeypatch, WEEK + 60)
    found = {one.name: one for one in _found(tracker)}
    assert {name: one.is_due(WEEK) for name, one in found.items()} == {
        log.run_id: True,
        other.run_id: False,
    }
    assert "a server does not tell since when" in found[other.run_id].why
    assert clean(found[log.run_id]) == ""
    assert tracker.files.sizes(log.run_id, "result") == {}
    assert tracker.files.sizes(other.run_id, "result") != {}


def test_what_was_set_aside_goes_once_it_is_done_again(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = chain("one")[1]
    run = tracker.run_of(stage.key)
    assert run is not None
    tracker.set_aside(run, "for a test")
    _later(monkeypatch, WEEK + 60)
    (one,) = _found(tracker)
    assert (one.kind, one.is_due(0)) == ("set aside", False)
    assert one.why == "not done again yet: elth verify --restore may take it back"
    monkeypatch.undo()
    begin(tracker, stage).finish(round_result(900), keep_weights=True)
    (one,) = _found(tracker)
    assert not one.is_due(0)
    assert one.why == "not compared yet with what took its place: elth run does that"
    redo.settle(tracker, stage, "one")
    (one,) = _found(tracker)
    assert not one.is_due(WEEK), "it was done again just now"
    _later(monkeypatch, WEEK + 60)
    (one,) = _found(tracker)
    assert one.is_due(WEEK)
    assert clean(one) == ""
    assert not _folder(tracker, run.info.run_id).exists()
    _all_is_read(tracker)


def test_of_the_outbox_what_is_not_whole_or_is_in_the_store_goes(tracker: Tracker) -> None:
    stages = chain("one")
    outbox = tracker.store.outbox

    def put(store: object, key: str, name: str = "entry.json", run: str = "") -> str:
        place = outbox / (run or uuid.uuid4().hex)
        (place / "files").mkdir(parents=True)
        (place / name).write_text(json.dumps({"store": str(store), "key": key}))
        return place.name

    bad = put(tracker.store, stages[2].key, "entry.bad")
    run = tracker.run_of(stages[1].key)
    assert run is not None
    done = put("http://of-this-store:5000", stages[1].key, run=run.info.run_id)
    also = put("http://elsewhere:5000", stages[1].key)  # finished here, and there it waits
    attempts = []
    for stage in (stages[2], chain("strange", seeds=[9])[0]):
        attempts.append(begin(tracker, stage).run_id)
        tracker.client.delete_run(attempts[-1])
        put(tracker.store, stage.key, run=attempts[-1])
    lost, useless = attempts
    waits = put("http://elsewhere:5000", stages[2].key)
    ours = put(tracker.store, stages[3].key)
    moved = put("/where/it/was", stages[3].key)
    young = put(tracker.store, stages[2].key, "entry.bad")
    for name in (bad, done, also, lost, useless, waits, ours, moved):
        _age(outbox / name)
    found = {one.name: one for one in _found(tracker) if one.kind == "outbox"}
    assert {name for name, one in found.items() if one.is_due(WEEK)} == {bad, done, useless}
    assert found[young].is_due(0)
    for name in (waits, also):
        assert "waits for another store, http://elsewhere:5000" in found[name].why
    assert found[lost].why == (
        "its run was taken over or deleted, so that nothing publishes it; its stage is yet to do"
    )
    for name in (ours, moved):
        assert found[name].why == "it waits for this store: the next elth run publishes it"
    assert clean(found[bad]) == clean(found[done]) == clean(found[bad]) == ""
    left = {path.name for path in outbox.iterdir()}
    assert left == {waits, also, lost, useless, ours, moved, young}


def test_checkpoints_of_what_is_finished_or_unknown_go(tracker: Tracker) -> None:
    stages = chain("one")
    unknown = "ab" * 32
    for key in (stages[0].key, stages[2].key, unknown):
        place = tracker.store.inflight / key
        place.mkdir(parents=True)
        (place / "a-000000000007.safetensors").write_bytes(b"1234")
    assert not any(one.is_due(WEEK) for one in _found(tracker)), "they may be written now"
    _age(tracker.store.inflight)
    due = {one.name: one for one in _found(tracker) if one.is_due(WEEK)}
    assert due.keys() == {stages[0].key, unknown}
    assert [one.size for one in due.values()] == [4, 4]
    run = tracker.grids.run("one")
    assert run is not None
    (keys,) = _folder(tracker, run.info.run_id).parent.rglob("keys.json")
    keys.unlink()
    due = {one.name: one for one in _found(tracker) if one.is_due(WEEK)}
    assert due.keys() == {stages[0].key}, "the grid that cannot be read may ask for the other"
    assert clean(due[stages[0].key]) == ""
    left = {path.name for path in tracker.store.inflight.iterdir()}
    assert left == {stages[2].key, unknown}


def test_in_a_place_that_stores_may_share_what_is_unknown_stays(
    tracker: Tracker, tmp_path: Path
) -> None:
    done, unknown = chain("one")[0].key, "ab" * 32
    for key in (done, unknown):
        (tmp_path / "shared" / key).mkdir(parents=True)
    _age(tmp_path / "shared", 2 * WEEK)
    found = {one.name: one for one in leftovers(tracker, storage.of(tmp_path / "shared"))}
    assert found[done].is_due(WEEK)
    assert not found[unknown].is_due(WEEK)
    assert found[unknown].why == "this store knows nothing of it, and another one may go on from it"


def test_a_stage_that_is_done_again_keeps_its_checkpoint(tracker: Tracker) -> None:
    stage = chain("one")[1]
    run = tracker.run_of(stage.key)
    assert run is not None
    place = tracker.store.inflight / stage.key
    place.mkdir(parents=True)
    _age(tracker.store.inflight, 2 * WEEK)
    assert [one.is_due(WEEK) for one in _found(tracker) if one.name == stage.key] == [True]
    tracker.client.set_tag(run.info.run_id, ASKED, "a person asks for it")
    tracker.forget()
    assert [one.is_due(WEEK) for one in _found(tracker) if one.name == stage.key] == [False]


def test_checkpoints_in_an_object_store(tmp_path: Path) -> None:
    place = ObjectStore(fs.LocalFileSystem(), str(tmp_path), "s3://a/b")
    key = "ab" * 32
    before = time.time()

    def save(path: Path) -> None:
        path.write_bytes(b"1234")

    place.write(key, "a-1.safetensors", save)
    size, at = place.about(key)
    assert size > 4, "and its marker"
    assert at is not None
    assert at > before - 5
    assert place.about("cd" * 32) == (0, None)


def test_folders_whose_run_the_database_does_not_have_go(tracker: Tracker) -> None:
    folder = tracker.store.folder
    assert folder is not None
    lost = folder / "artifacts" / uuid.uuid4().hex
    (lost / "artifacts").mkdir(parents=True)
    (lost / "artifacts" / "x").write_bytes(b"12345")
    (one,) = _found(tracker)
    assert (one.kind, one.name, one.size, one.is_due(WEEK)) == ("orphaned", lost.name, 5, False)
    _age(lost)
    (one,) = _found(tracker)
    assert one.is_due(WEEK)
    assert clean(one) == ""
    assert not lost.exists()
    _all_is_read(tracker)


def test_where_the_database_lacks_most_of_them_it_is_a_misunderstanding(
    tracker: Tracker, tmp_path: Path
) -> None:
    """A database of another store, or of a time long ago, beside these files."""
    other = Tracker(Store.of(tmp_path / "other"))
    assert other.store.folder is not None
    assert tracker.store.folder is not None
    shutil.rmtree(other.store.folder / "artifacts")
    shutil.copytree(tracker.store.folder / "artifacts", other.store.folder / "artifacts")
    _age(other.store.folder / "artifacts")
    found = _found(other)
    assert len(found) > 1
    assert {one.kind for one in found} == {"orphaned"}
    assert not any(one.is_due(0) for one in found)
    assert "is mlflow.db the one that belongs to these files?" in found[0].why
