"""Grids that are removed: what goes with them, what stays, and the way back."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from elth.data import info
from elth.errors import ElthError
from elth.specs import Spec
from elth.tickets import Ticket
from orchestrator.plan.stage import Stage
from orchestrator.report.cells import collect
from orchestrator.report.forms import to_json
from orchestrator.store import storage, trash, users
from orchestrator.store.address import Store
from orchestrator.store.grids import REMOVED
from orchestrator.store.leases import BEAT, open_run
from orchestrator.store.listing import DAMAGED
from orchestrator.store.processes import owner
from orchestrator.store.tracker import Tracker
from orchestrator.store.trash import Removal
from tests.orchestrator.helpers import (
    ELSEWHERE,
    GONE,
    TINY,
    artifact,
    begin,
    chain,
    epoch,
    grid_file,
    rewind_result,
    round_result,
    tiny,
)


def _text(name: str) -> str:
    return tiny(name).resolved()


def _open(tracker: Tracker, name: str, stages: list[Stage]) -> None:
    """A grid of some stages; what is not finished yet is done."""
    tracker.grids.open(name, _text(name), {one.key: one for one in stages}, "")
    for number, stage in enumerate(stages):
        if tracker.run_of(stage.key) is None:
            _do(tracker, stage, number, name)
    tracker.grids.join_finished(
        [one for one in tracker.stages() if one.key in {stage.key for stage in stages}], name
    )


def _do(tracker: Tracker, stage: Stage, number: int, grid: str) -> str:
    result, ticket = rewind_result(), None
    if stage.kind != "rewind_point":
        rewind, result = result.rewind, round_result(900 - number)
        assert rewind is not None
        assert result.mask is not None
        shape = info("digits").shape
        ticket = Ticket(network=Spec.parse(TINY), shape=shape, rewind=rewind, mask=result.mask)
    log = begin(tracker, stage, ticket, grid=grid)
    log.epoch(epoch(1))
    log.finish(result, keep_weights=stage.kind == "round")
    return log.run_id


def _report(tracker: Tracker, grid: str) -> str:
    return to_json(collect(tracker, grid), provenance=True)


def _there(tracker: Tracker, stages: list[Stage]) -> list[bool]:
    return [tracker.run_of(stage.key) is not None for stage in stages]


def _remove(tracker: Tracker, grid: str) -> Removal:
    return trash.remove(tracker, trash.look(tracker, grid))


@pytest.fixture
def shared(tracker: Tracker, request: pytest.FixtureRequest) -> tuple[str, str, list[Stage]]:
    """Two grids of one chain: the second has two rounds more."""
    seed = 500 + sum(map(ord, request.node.name)) % 100_000
    stages = chain("x", seeds=[seed])
    names = f"short-{seed}", f"long-{seed}"
    _open(tracker, names[0], stages[:2])
    _open(tracker, names[1], stages)
    return *names, stages


def test_of_two_grids_that_share_a_chain_one_goes_and_comes_back(
    tracker: Tracker, shared: tuple[str, str, list[Stage]]
) -> None:
    short, long, stages = shared
    before = {name: _report(tracker, name) for name in (short, long)}
    done = _remove(tracker, long)
    assert len(done.runs) == 2
    assert done.others == (short,)
    assert _there(tracker, stages) == [True, True, False, False]
    assert _report(tracker, short) == before[short], "byte for byte"
    assert tracker.grids.keys(short).keys() == {one.key for one in stages[:2]}
    with pytest.raises(ElthError, match="has no grid"):
        tracker.grids.keys(long)
    assert all(f"grid.{long}" not in run.data.tags for run in tracker.runs_of(stages[0].key))
    back = trash.restore(tracker, long)
    assert (back.runs, back.again, back.purged) == (2, 0, 0)
    assert {name: _report(tracker, name) for name in (short, long)} == before
    for stage in stages:
        (run,) = tracker.runs_of(stage.key)
        assert run.data.tags[f"grid.{long}"] == "true"
        assert not [tag for tag in run.data.tags if tag.startswith(("elth.removed", "elth.left"))]
    with pytest.raises(ElthError, match="no grid .* was removed"):
        trash.restore(tracker, long)


def test_the_ancestors_of_what_a_third_grid_uses_stay(
    tracker: Tracker, shared: tuple[str, str, list[Stage]]
) -> None:
    short, long, stages = shared
    third = f"third-{short}"
    tracker.grids.open(third, _text(third), {stages[2].key: stages[2]}, "")  # its key alone
    done = _remove(tracker, long)
    assert done.others == (short, third)
    assert _there(tracker, stages) == [True, True, True, False]
    _remove(tracker, short)
    assert _there(tracker, stages) == [True, True, True, False], "what round 1 was made of"
    _remove(tracker, third)
    assert _there(tracker, stages) == [False] * 4


def test_a_run_that_is_only_tagged_is_used_by_that_grid(
    tracker: Tracker, shared: tuple[str, str, list[Stage]]
) -> None:
    short, long, stages = shared
    last = tracker.run_of(stages[3].key)
    assert last is not None
    tag = f"tag-{short}"
    tracker.grids.join([last.info.run_id], tag)
    assert _remove(tracker, long).others == (short, tag)
    assert _there(tracker, stages) == [True] * 4
    _remove(tracker, short)
    assert _there(tracker, stages) == [True] * 4
    done = _remove(tracker, tag)  # a grid whose own run is gone
    assert len(done.runs) == 4
    assert _there(tracker, stages) == [False] * 4
    assert trash.restore(tracker, tag).runs == 4


def test_what_is_in_no_grid_is_never_touched_nor_what_it_was_made_of(
    tracker: Tracker, shared: tuple[str, str, list[Stage]]
) -> None:
    short, long, stages = shared
    free = tracker.run_of(stages[2].key)
    assert free is not None
    tracker.client.delete_tag(free.info.run_id, f"grid.{long}")
    rest = {one.key: one for one in (stages[0], stages[1], stages[3])}
    tracker.grids.open(long, _text(long), rest, "")
    # Its child is in a grid, so it is used by that as an ancestor, until the child is gone.
    child = tracker.run_of(stages[3].key)
    assert child is not None
    tracker.client.delete_run(child.info.run_id)
    _remove(tracker, long)
    found = trash.look(tracker, short)
    assert (found.runs, found.others) == ((), ("",))
    _remove(tracker, short)
    assert _there(tracker, stages) == [True, True, True, False]
    run = tracker.client.get_run(free.info.run_id)
    assert REMOVED not in run.data.tags
    assert run.data.tags == {k: v for k, v in free.data.tags.items() if k != f"grid.{long}"}


def _between(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something once all is deleted and nothing was looked at again."""
    whole = users.users

    def look(tracker: Tracker, removed: str, trash: str = "") -> users.Users:
        if trash:
            act()
        return whole(tracker, removed, trash)

    monkeypatch.setattr("orchestrator.store.trash.users", look)


def test_a_grid_that_is_opened_between_has_what_it_uses_restored(
    tracker: Tracker, shared: tuple[str, str, list[Stage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long, stages = shared
    new = f"new-{short}"
    some = {one.key: one for one in stages[:3]}
    _between(monkeypatch, lambda: tracker.grids.open(new, _text(new), some, ""))
    before = tracker.run_of(stages[2].key)
    done = _remove(tracker, long)
    assert (len(done.runs), done.restored, done.others) == (1, 1, (new, short))
    assert _there(tracker, stages) == [True, True, True, False]
    after = tracker.run_of(stages[2].key)
    assert before is not None
    assert after is not None
    assert after.info.run_id == before.info.run_id
    assert REMOVED not in after.data.tags
    assert f"grid.{long}" not in after.data.tags


def test_a_driver_that_begins_the_grid_itself_between_has_all_restored(
    tracker: Tracker, shared: tuple[str, str, list[Stage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, long, _ = shared
    before = _report(tracker, long)
    (grid,) = tracker.grids.runs(long)

    def begun() -> None:
        tracker.client.set_tag(grid.info.run_id, "elth.driver.0", owner())

    _between(monkeypatch, begun)
    with pytest.raises(ElthError, match=rf"{long} cannot be removed now: the grid {long} is being"):
        _remove(tracker, long)
    assert _report(tracker, long) == before
    assert REMOVED not in tracker.grids.runs(long)[0].data.tags
    tracker.client.delete_tag(grid.info.run_id, "elth.driver.0")


def test_a_grid_opened_later_finds_that_its_runs_are_deleted(
    tracker: Tracker, shared: tuple[str, str, list[Stage]]
) -> None:
    """Its driver has listed them before, and writes what the grid holds after the second look."""
    _, long, stages = shared
    listed = [one for one in tracker.stages() if one.key == stages[3].key]
    _remove(tracker, long)
    late = f"late-{long}"
    tracker.grids.open(late, _text(late), {stages[3].key: stages[3]}, "")
    with pytest.raises(ElthError, match="has been deleted .* meanwhile: give the same command"):
        tracker.grids.join_finished(listed, late)


@pytest.mark.parametrize("way", ["driver", "here", "elsewhere"])
def test_what_a_live_driver_is_at_is_not_removed(
    tracker: Tracker,
    shared: tuple[str, str, list[Stage]],
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, long, stages = shared
    run = tracker.run_of(stages[3].key)
    assert run is not None
    tracker.client.delete_run(run.info.run_id)
    beats = [0]
    whole = MlflowClient.get_run

    def lives(self: MlflowClient, run_id: str) -> Run:
        beats[0] += 1
        if way == "elsewhere" and run_id == mine:
            self.set_tag(run_id, BEAT, f"{beats[0]} 60")
        return whole(self, run_id)

    mine = ""
    if way == "driver":
        with tracker.grids.driven(long, owner()), pytest.raises(ElthError, match="is being run by"):
            trash.look(tracker, long)
    else:
        who = owner() if way == "here" else ELSEWHERE
        mine = open_run(tracker, stages[3], grid=long, driver=who, tags={BEAT: "0 60"})
        monkeypatch.setattr(MlflowClient, "get_run", lives)
        title = re.escape(stages[3].title)
        with pytest.raises(ElthError, match=rf"{title} is being done by process .*; stop it first"):
            trash.look(tracker, long)
    assert _there(tracker, stages[:3]) == [True] * 3


@pytest.mark.parametrize("who", [GONE, ELSEWHERE], ids=["gone", "elsewhere"])
def test_what_a_dead_driver_left_goes_with_its_checkpoints(
    tracker: Tracker, shared: tuple[str, str, list[Stage]], who: str
) -> None:
    """One elsewhere is dead if it gives no sign of life for its lease's length."""
    short, long, stages = shared
    run = tracker.run_of(stages[3].key)
    assert run is not None
    tracker.client.delete_run(run.info.run_id)
    left = open_run(tracker, stages[3], grid=long, driver=who, tags={BEAT: "3 0.1"})
    for stage in (stages[0], stages[3]):
        place = tracker.store.inflight / stage.key
        place.mkdir(parents=True)
        (place / "a-000000000007.safetensors").write_bytes(b"x")
    _remove(tracker, long)
    assert tracker.client.get_run(left).info.lifecycle_stage == "deleted"
    assert not (tracker.store.inflight / stages[3].key).exists()
    assert (tracker.store.inflight / stages[0].key).exists(), f"{short} uses it"


def test_young_checkpoints_in_a_place_that_stores_share_stay(
    tracker: Tracker,
    shared: tuple[str, str, list[Stage]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The same stage may be trained for another store, by the same key."""
    _, long, stages = shared
    place = storage.Directory(tmp_path / "inflight")
    monkeypatch.setattr(trash, "_storage", lambda *_: (place, ()))
    for stage, age in ((stages[2], 30 * 60), (stages[3], 90 * 60)):
        file = place.path / stage.key / "a-000000000007.safetensors"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
        os.utime(file, (time.time() - age,) * 2)
        os.utime(file.parent, (time.time() - age,) * 2)
    done = _remove(tracker, long)
    assert place.folders() == [stages[2].key]
    (note,) = done.notes
    assert note.startswith(f"checkpoints of 1 stages in {place} stay")


def test_cut_off_in_the_middle_it_goes_on_and_comes_back_whole(
    tracker: Tracker, shared: tuple[str, str, list[Stage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, long, stages = shared
    before = _report(tracker, long)

    class Killed(BaseException):
        pass

    def cut() -> None:
        raise Killed

    def remove_and_be_killed() -> None:
        with monkeypatch.context() as patch:
            _between(patch, cut)
            _remove(tracker, long)

    with pytest.raises(Killed):
        remove_and_be_killed()
    assert _there(tracker, stages) == [True, True, False, False]
    assert trash.restore(tracker, long).runs == 2
    assert _report(tracker, long) == before
    with pytest.raises(Killed):
        remove_and_be_killed()
    _remove(tracker, long)
    assert trash.restore(tracker, long).runs == 2
    assert _report(tracker, long) == before


def _cut_off(tracker: Tracker, grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal that ends in its middle."""

    class Killed(BaseException):
        pass

    def cut() -> None:
        raise Killed

    def remove() -> None:
        with monkeypatch.context() as patch:
            _between(patch, cut)
            _remove(tracker, grid)

    with pytest.raises(Killed):
        remove()


def test_who_runs_a_grid_takes_back_what_was_removed_when_that_was_cut_off(
    tracker: Tracker, shared: tuple[str, str, list[Stage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, long, stages = shared
    assert trash.undo(tracker, long) == ""
    _cut_off(tracker, long, monkeypatch)
    assert _there(tracker, stages) == [True, True, False, False]
    assert trash.undo(tracker, long) == (
        f"elth rm {long} was cut off before its end: 2 runs that it had removed are restored"
    )
    assert all(_there(tracker, stages))
    (own,) = tracker.grids.runs(long)
    assert not {"elth.removed", "elth.removed.at", "elth.removed.grid"} & own.data.tags.keys()


def test_what_is_removed_by_a_command_that_goes_on_is_as_old_as_that(
    tracker: Tracker, shared: tuple[str, str, list[Stage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, long, stages = shared
    with monkeypatch.context() as patch:
        patch.setattr(trash, "_now", lambda: "2020-01-01T00:00:00Z")
        _cut_off(tracker, long, monkeypatch)
    _do(tracker, stages[2], 2, long)
    done = _remove(tracker, long)
    assert done.name.startswith("2020-01-01T")
    times = {run.info.run_id: run.data.tags["elth.removed.at"] for run in done.runs}
    (new,) = (run_id for run_id, at in times.items() if not at.startswith("2020"))
    purged = trash.purge(tracker, long, 86400)
    assert tracker.files.sizes(new, "result"), "it was removed just now"
    assert purged.runs == 2, "those of the first time"


def test_the_way_back_goes_on_wherever_it_was_cut_off(
    tracker: Tracker, shared: tuple[str, str, list[Stage]]
) -> None:
    _, long, _ = shared
    before = _report(tracker, long)
    done = _remove(tracker, long)
    first = done.runs[0].info.run_id
    tracker.client.restore_run(first)
    tracker.client.delete_tag(first, "elth.removed")  # and then it ended
    assert trash.restore(tracker, long).runs == 1
    assert _report(tracker, long) == before
    assert "elth.removed.grid" not in tracker.client.get_run(first).data.tags
    (own,) = tracker.grids.runs(long)
    tracker.client.set_tag(own.info.run_id, "elth.removed.grid", long)  # at its very end
    assert trash.restore(tracker, long) == trash.Restored(name="", runs=1, again=0, purged=0)
    with pytest.raises(ElthError, match="no grid 'long-.*' was removed"):
        trash.restore(tracker, long)


def test_of_two_removals_of_a_name_each_has_its_own_way_back(
    tracker: Tracker, shared: tuple[str, str, list[Stage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, long, stages = shared
    with monkeypatch.context() as patch:
        patch.setattr(trash, "_now", lambda: "2100-01-01T00:00:00Z")  # by a clock that is ahead
        _remove(tracker, long)
    _open(tracker, long, stages)
    _cut_off(tracker, long, monkeypatch)
    assert "2 runs that it had removed are restored" in trash.undo(tracker, long)
    assert all(_there(tracker, stages))
    (own,) = tracker.grids.runs(long)
    tracker.client.set_tag(own.info.run_id, "elth.removed.grid", long)  # a way back that was cut
    assert trash.restore(tracker, long).name == ""
    assert len(tracker.grids.runs(long)) == 1


def test_a_tag_that_a_server_does_not_take_off_is_an_error(
    tracker: Tracker, shared: tuple[str, str, list[Stage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, long, _ = shared
    _remove(tracker, long)
    delete_tag, left = tracker.client.delete_tag, [1]

    def away(*words: str) -> None:
        if left:
            left.pop()
            raise MlflowException("away", TEMPORARILY_UNAVAILABLE)
        delete_tag(*words)

    monkeypatch.setattr(tracker.client, "delete_tag", away)
    with pytest.raises(MlflowException, match="away"):
        trash.restore(tracker, long)
    trash.restore(tracker, long)
    left_over = tracker.search("tags.`elth.removed` LIKE '%'")
    assert not list(left_over)


def test_what_was_done_again_meanwhile_stays_in_the_trash(
    tracker: Tracker, shared: tuple[str, str, list[Stage]]
) -> None:
    _, long, stages = shared
    _remove(tracker, long)
    again = _do(tracker, stages[2], 2, "other")
    back = trash.restore(tracker, long)
    assert (back.runs, back.again) == (1, 1)
    run = tracker.run_of(stages[2].key)
    assert run is not None
    assert run.info.run_id == again
    assert all(_there(tracker, stages))


def test_a_grid_that_was_begun_again_is_not_restored_over(
    tracker: Tracker, shared: tuple[str, str, list[Stage]]
) -> None:
    _, long, stages = shared
    _remove(tracker, long)
    _open(tracker, long, stages)
    with pytest.raises(ElthError, match="again, begun since that one was removed"):
        trash.restore(tracker, long)


def test_set_aside_and_failed_runs_go_and_come_back_as_they_are(tmp_path: Path) -> None:
    tracker = Tracker(Store.of(tmp_path / "runs"))
    start, dense, *_ = stages = chain("x")
    _open(tracker, "one", stages[:2])
    aside = tracker.run_of(start.key)
    assert aside is not None
    tracker.set_aside(aside, "for a test")
    begin(tracker, stages[2], grid="one").fail("it broke", final=True, details="")
    assert len(_remove(tracker, "one").runs) == 3
    assert tracker.stages() == []
    assert trash.restore(tracker, "one").runs == 3
    status = {one.key: one.status for one in tracker.stages()}
    assert status == {start.key: "set aside", dense.key: "finished", stages[2].key: "failed"}
    assert tracker.client.get_run(aside.info.run_id).data.tags[DAMAGED] == "for a test"


def test_what_was_removed_stays_so_when_its_experiment_is_taken_back(tmp_path: Path) -> None:
    store = Store.of(tmp_path / "runs")
    tracker = Tracker(store)
    stages = chain("x")
    _open(tracker, "short", stages[:1])
    _open(tracker, "long", stages[:3])
    _remove(tracker, "long")
    tracker.client.delete_experiment(tracker.experiments["elth"])  # in MLflow's pages
    again = Tracker(store, restore=True)
    again.tend()
    assert _there(again, stages) == [True, False, False, False]
    assert trash.restore(again, "long").runs == 2


def test_where_it_cannot_be_told_what_a_grid_uses_nothing_is_removed(tmp_path: Path) -> None:
    tracker = Tracker(Store.of(tmp_path / "runs"))
    stages = chain("x")
    _open(tracker, "one", stages[:2])
    tracker.grids.open("two", _text("two"), {}, "")
    grid_file(tracker, "two", "keys.json").unlink()
    with pytest.raises(ElthError, match="it cannot be told what the grid two uses: "):
        trash.look(tracker, "one")
    assert _remove(tracker, "two").runs == (), "it can go itself: its tags tell what it uses"
    assert len(trash.look(tracker, "one").runs) == 2
    with pytest.raises(ElthError, match=r"has no grid 'three' \(it has: one\)"):
        trash.look(tracker, "three")


# For good


@pytest.mark.parametrize("kind", ["directory", "database"])
def test_purge_removes_the_files_of_what_is_in_the_trash_for_long(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = str(tmp_path / "runs") if kind == "directory" else f"sqlite:///{tmp_path}/x.db"
    tracker = Tracker(Store.of(place))
    stages = chain("x")
    _open(tracker, "short", stages[:2])
    _open(tracker, "long", stages)
    other = begin(tracker, chain("y", seeds=[9])[0], grid="other")
    other.finish(rewind_result(), keep_weights=False)
    tracker.client.delete_run(other.run_id)  # in MLflow's pages: not ours
    whole = _report(tracker, "short")
    done = _remove(tracker, "long")
    folders = [artifact(tracker, run.info.run_id, "result") for run in done.runs]
    young = trash.purge(tracker, None, 7 * 86400)
    assert (young.runs, young.size, young.young) == (0, 0, 3)
    assert all(folder.is_dir() for folder in folders)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 8 * 86400)
    would = trash.purge(tracker, None, 7 * 86400, dry=True)
    assert all(folder.is_dir() for folder in folders)
    purged = trash.purge(tracker, "long", 7 * 86400)
    assert purged == would
    assert (purged.runs, purged.young) == (3, 0)
    assert not any(folder.exists() for folder in folders)
    assert trash.purge(tracker, None, 0).runs == 0, "nothing is left of it"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert _report(tracker, "short") == whole
    assert artifact(tracker, other.run_id, "result").is_dir()
    with pytest.raises(ElthError, match="the files of the grid 'long' were removed for good"):
        trash.restore(tracker, "long")


def test_single_runs_whose_files_are_gone_stay_in_the_trash(tmp_path: Path) -> None:
    tracker = Tracker(Store.of(tmp_path / "runs"))
    stages = chain("x")
    _open(tracker, "one", stages)
    done = _remove(tracker, "one")
    tracker.files.remove_all(done.runs[2].info.run_id)
    back = trash.restore(tracker, "one")
    assert (back.runs, back.purged) == (3, 1)
    assert _there(tracker, stages) == [True, True, False, True]


def test_a_run_that_is_restored_meanwhile_keeps_its_files(tmp_path: Path) -> None:
    tracker = Tracker(Store.of(tmp_path / "runs"))
    stages = chain("x")
    _open(tracker, "one", stages[:1])
    (run,) = _remove(tracker, "one").runs
    tracker.client.restore_run(run.info.run_id)
    assert not trash.remove_files(tracker, run)
    assert tracker.load(stages[0].key)[1].rewind is not None
    deleted = tracker.client.search_runs(
        [tracker.experiments["elth"]], run_view_type=ViewType.DELETED_ONLY
    )
    assert list(deleted) == []
