"""What tidy people do in MLflow's pages: taken back by itself, or told in one line."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import LifecycleStage, ViewType
from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator.plan.stage import Stage
from orchestrator.store import experiments
from orchestrator.store.address import Store
from orchestrator.store.board import BOARDS, ROOT
from orchestrator.store.grids import GRIDS, KEEP, REMOVED
from orchestrator.store.leases import Lease, claim
from orchestrator.store.listing import INDEX
from orchestrator.store.opening import MARK, NOTE, STAGES
from orchestrator.store.processes import owner
from orchestrator.store.tracker import Tracker, deleted
from orchestrator.work.worker import Worker, run_job
from tests.orchestrator.helpers import begin, chain, job_config, rewind_result, tiny

START, OTHER = (chain("tidied", seeds=[seed])[0] for seed in (8060, 8061))
DRIVERS = iter(f"{owner()}/{number}" for number in range(1000))


def lease(tracker: Tracker, stage: Stage, driver: str = "") -> Lease:
    """The lease of a stage that nobody is at."""
    found = claim(
        tracker, stage, grid="one", driver=driver or next(DRIVERS), since=time.monotonic()
    )
    assert isinstance(found, Lease)
    return found


def done(tracker: Tracker, stage: Stage) -> str:
    """Do a stage; returns its run."""
    held = lease(tracker, stage)
    begin(tracker, stage, lease=held).finish(rewind_result(), keep_weights=False)
    held.end()
    return held.run_id


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a grid, a stage and an index, which tests copy."""
    folder = tmp_path_factory.mktemp("made") / "runs"
    tracker = Tracker(Store.of(folder))
    tracker.grids.open("one", "a: 1\n", {START.key: START}, "A grid.")
    done(tracker, START)
    tracker._experiment(INDEX)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    shutil.copytree(made, tmp_path / "runs")
    return Store.of(tmp_path / "runs")


def opened(store: Store) -> Tracker:
    """The tracker of a command that writes."""
    tracker = Tracker(store)
    tracker.tend()
    return tracker


def delete(tracker: Tracker, name: str) -> None:
    found = tracker.client.get_experiment_by_name(name)
    assert found is not None
    tracker.client.delete_experiment(found.experiment_id)


def rename(tracker: Tracker, name: str) -> None:
    found = tracker.client.get_experiment_by_name(name)
    assert found is not None
    tracker.client.rename_experiment(found.experiment_id, f"my {name}")


WAYS: dict[str, tuple[Callable[[Tracker, str], None], str]] = {
    "deleted": (delete, "is deleted"),
    "renamed": (rename, "is called 'my {}'"),
}


def digest(store: Store) -> str:
    assert store.folder is not None
    return hashlib.sha256((store.folder / "mlflow.db").read_bytes()).hexdigest()


def purge(tracker: Tracker, *runs: str) -> None:
    """What ``mlflow gc`` does."""
    for run in runs:
        tracker.client._tracking_client.store._hard_delete_run(run)


def boards(tracker: Tracker) -> dict[str, str]:
    """The runs of the board, by their names."""
    found = tracker.client.get_experiment_by_name(BOARDS)
    assert found is not None
    runs = tracker.client.search_runs([found.experiment_id], run_view_type=ViewType.ALL)
    return {str(run.info.run_name): str(run.info.run_id) for run in runs}


def board_of(tracker: Tracker, stage: Stage) -> str:
    return boards(tracker)[f"leases of {stage.key[:2]}..."]


# Experiments


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [GRIDS, BOARDS, ROOT, INDEX])
def test_what_only_helps_is_taken_back_by_itself_and_told_once(
    store: Store, name: str, way: str
) -> None:
    act, words = WAYS[way]
    act(Tracker(store), name)
    before = digest(store)
    (lost,) = deleted(store)
    assert lost.what == f"the experiment '{name}' of the store {store} {words.format(name)}"
    assert lost.do.startswith("the next elth run takes it back by itself, or now elth doctor --res")
    if name == GRIDS:
        with pytest.raises(ElthError, match=re.escape(lost.told)):
            Tracker(store, reading=True)
    else:
        assert len(Tracker(store, reading=True).stages("one")) == 1
    assert digest(store) == before, "who only reads writes nothing"
    tracker = opened(store)
    assert tracker.notes == [f"{lost.what}: it is taken back"]
    assert opened(store).notes == []
    assert deleted(store) == []
    assert list(tracker.grids.keys("one")) == [START.key]
    assert tracker.board.latest(START.key)[0] == 1
    done(tracker, OTHER)


@pytest.mark.parametrize("way", WAYS)
def test_the_experiment_with_the_stages_is_taken_back_by_a_command(store: Store, way: str) -> None:
    act, words = WAYS[way]
    tracker = Tracker(store)
    run_id = tracker.stages()[0].run_id
    act(tracker, STAGES)
    before = digest(store)
    message = (
        f"the experiment 'elth' of the store {store} {words.format(STAGES)} (in MLflow's pages?), "
        f"and nothing is lost: elth doctor --restore --store {store} takes it back; to begin anew, "
        "name another store by --store"
    )
    for reading in (True, False):
        with pytest.raises(ElthError) as refused:
            Tracker(store, reading=reading)
        assert str(refused.value) == message
    assert [one.told for one in deleted(store)] == [message]
    assert digest(store) == before
    tracker = Tracker(store, restore=True)
    tracker.tend()
    assert len(tracker.notes) == 1
    assert [(one.run_id, one.status) for one in opened(store).stages()] == [(run_id, "finished")]


def test_a_stage_is_not_begun_once_its_experiment_is_deleted(store: Store) -> None:
    tracker = opened(store)
    delete(tracker, STAGES)
    with pytest.raises(ElthError, match=r"the experiment 'elth' of .+ is deleted .+doctor --rest"):
        claim(tracker, OTHER, grid="one", driver=owner(), since=time.monotonic())


def test_what_was_deleted_before_its_experiment_stays_deleted(store: Store) -> None:
    """MLflow restores all runs of an experiment, and does not keep which were deleted before it."""
    tracker = opened(store)
    first = tracker.stages()[0].run_id
    tracker.client.delete_run(first)  # to have it done again
    again = done(tracker, START)
    dead = lease(tracker, OTHER, driver := next(DRIVERS))
    dead.end()
    taken = lease(tracker, OTHER, driver)  # fences the dead attempt off
    taken.end()
    third, fourth = (chain("tidied", seeds=[seed])[0] for seed in (62, 63))
    unwanted, known = done(tracker, third), done(tracker, fourth)
    tracker.client.delete_run(unwanted)  # not done again, but seen by the next elth run
    Tracker(store, keep_index=True).stages()
    delete(tracker, STAGES)
    tracker.client.restore_experiment(tracker.experiments[STAGES])
    everything = {one.run_id for one in tracker.stages()}
    assert everything == {first, again, dead.run_id, taken.run_id, unwanted, known}
    delete(tracker, STAGES)
    tracker = Tracker(store, restore=True)
    tracker.tend()
    assert tracker.notes[1:] == ["3 runs had been deleted before that, and are again"]
    assert {one.run_id for one in tracker.stages()} == {again, taken.run_id, known}


def test_a_renamed_experiment_loses_nothing(store: Store) -> None:
    """Of several runs of a stage none was deleted then."""
    tracker = opened(store)
    (first,) = tracker.stages()
    second = tracker.create_run(
        tags={"elth.key": START.key, "elth.stage": json.dumps(START.describe())}
    )
    rename(tracker, STAGES)
    found = {one.run_id for one in Tracker(store, restore=True).stages()}
    assert found == {first.run_id, second.info.run_id}


def test_two_take_an_experiment_back_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = opened(store)
    delete(tracker, GRIDS)
    restore = tracker.client.restore_experiment

    def twice(experiment: str) -> None:
        restore(experiment)
        restore(experiment)

    monkeypatch.setattr(tracker.client, "restore_experiment", twice)
    (lost,) = deleted(store)
    assert experiments.take_back(tracker.client, lost) == f"{lost.what}: it is taken back"
    assert deleted(store) == []


def test_a_grid_that_was_begun_anew_is_what_it_was_last(store: Store) -> None:
    tracker = opened(store)
    run = tracker.grids.run("one")
    assert run is not None
    tracker.client.delete_run(run.info.run_id)
    last = tracker.grids.open("one", "a: 2\n", {OTHER.key: OTHER}, "")
    gone = tracker.grids.open("two", "a: 2\n", {OTHER.key: OTHER}, "")
    tracker.client.set_tag(gone, REMOVED, "true")
    tracker.client.delete_run(gone)
    delete(tracker, GRIDS)
    tracker = Tracker(store)
    assert tracker.notes[1:] == ["2 runs had been deleted before that, and are again"]
    found = tracker.client.search_runs([tracker.experiments[GRIDS]])
    assert [run.info.run_id for run in found] == [last]
    assert list(tracker.grids.keys("one")) == [OTHER.key]


def test_what_was_published_stays_though_another_held_the_last_lease(store: Store) -> None:
    """Whoever takes a stage over and finds it published leaves it."""
    tracker = opened(store)
    run_id = tracker.stages()[0].run_id
    late = tracker.create_run(tags={"elth.key": START.key, "elth.stage": "{}"})
    assert tracker.board.take(START.key, 2, late.info.run_id)
    tracker.client.delete_run(late.info.run_id)
    delete(tracker, STAGES)
    tracker = Tracker(store, restore=True)
    tracker.tend()
    assert [one.run_id for one in tracker.stages()] == [run_id]


def test_experiments_and_the_runs_of_those_that_help_describe_themselves(store: Store) -> None:
    tracker = opened(store)
    for name, note in experiments.NOTES.items():
        found = tracker.client.get_experiment_by_name(name)
        assert found is not None
        assert (found.tags[MARK], found.tags[NOTE]) == (name, note)
        assert "not" in note
        assert "delete" in note
    for run_id in boards(tracker).values():
        note = tracker.client.get_run(run_id).data.tags[NOTE]
        assert note == experiments.NOTES[BOARDS]


@pytest.fixture
def old(tmp_path: Path) -> Store:
    """A store that an earlier version made."""
    with tarfile.open(Path(__file__).parents[2] / "data" / "store_645568c.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    return Store.of(tmp_path / "runs")


def test_a_store_of_before_is_described_once(old: Store) -> None:
    tracker = opened(old)
    for name in (STAGES, GRIDS, BOARDS, ROOT):
        found = tracker.client.get_experiment_by_name(name)
        assert found is not None
        assert (found.tags[MARK], found.tags[NOTE]) == (name, experiments.NOTES[name])
    (grid,) = tracker.client.search_runs([tracker.experiments[GRIDS]])
    assert grid.data.tags[NOTE].endswith(KEEP)
    assert grid.data.tags[NOTE].count(KEEP) == 1
    run_id = next(iter(boards(tracker).values()))
    assert tracker.client.get_run(run_id).data.tags[NOTE] == experiments.NOTES[BOARDS]
    found = tracker.client.get_experiment_by_name(STAGES)
    assert found is not None
    tracker.client.set_experiment_tag(found.experiment_id, NOTE, "mine")
    opened(old)
    assert tracker.client.get_experiment(found.experiment_id).tags[NOTE] == "mine"


@pytest.mark.parametrize("name", [STAGES, GRIDS, ROOT])
def test_a_store_of_before_is_known_by_its_runs_under_another_name(old: Store, name: str) -> None:
    rename(Tracker(old), name)
    assert [(one.name, one.now) for one in deleted(old)] == [(name, f"my {name}")]


# Runs


@pytest.mark.parametrize("which", ["board", "root"])
def test_a_run_of_the_board_that_was_deleted_is_restored(store: Store, which: str) -> None:
    tracker = opened(store)
    run_id = board_of(tracker, START) if which == "board" else boards(tracker)["leases"]
    tracker.client.delete_run(run_id)
    (lost,) = deleted(store)
    assert lost.what.startswith(f"1 runs of the experiment '{BOARDS}'")
    told = [f"a run of the experiment '{BOARDS}', which elth needs, was deleted: it is restored"]
    # Met by a process that has the store open.
    tracker.client.delete_run(tracker.stages()[0].run_id)
    assert lease(tracker, START).number == 2
    done(tracker, OTHER)
    assert tracker.notes == told
    # And by one that opens it.
    tracker.client.delete_run(run_id)
    assert opened(store).notes == told
    assert tracker.client.get_run(run_id).info.lifecycle_stage == LifecycleStage.ACTIVE


def test_a_worker_tells_what_it_has_restored(store: Store) -> None:
    tracker = opened(store)
    tracker.client.delete_run(boards(tracker)["leases"])
    found = tiny("tidied", seeds=[8061])
    worker = Worker()
    config = job_config(store, found, [OTHER])
    told = [report.note for report in run_job(config, worker) if report.note]
    assert told == [
        f"a run of the experiment '{BOARDS}', which elth needs, was deleted: it is restored"
    ]
    assert {one.status for one in tracker.stages()} == {"finished"}


def test_a_grid_whose_run_was_deleted_is_taken_back_by_the_next_run(store: Store) -> None:
    tracker = opened(store)
    run = tracker.grids.run("one")
    assert run is not None
    assert tracker.grids.take_back("one") == ""
    tracker.client.delete_run(run.info.run_id)
    with pytest.raises(ElthError, match=r"the run of the grid 'one' .+ is deleted .+ elth run wi"):
        Tracker(store, reading=True).grids.keys("one")
    assert tracker.grids.take_back("one").startswith("the run of the grid 'one', with what the gr")
    assert list(tracker.grids.keys("one")) == [START.key]
    tracker.client.set_tag(run.info.run_id, REMOVED, "true")
    tracker.client.delete_run(run.info.run_id)
    assert tracker.grids.take_back("one") == "", "elth was told to"
    with pytest.raises(ElthError, match="has no grid 'one'"):
        tracker.grids.keys("one")


def test_the_run_of_the_index_is_restored(store: Store) -> None:
    tracker = Tracker(store, keep_index=True)
    tracker.client.delete_run(tracker.stages()[0].run_id)
    tracker.stages()
    found = tracker.client.get_experiment_by_name(INDEX)
    assert found is not None
    (home,) = tracker.client.search_runs([found.experiment_id])
    assert home.data.tags[NOTE] == experiments.NOTES[INDEX]
    tracker.client.delete_run(home.info.run_id)
    done(tracker, START)
    tracker.client.delete_run(tracker.stages()[0].run_id)
    assert tracker.stages() == []
    (again,) = tracker.client.search_runs([found.experiment_id])
    assert again.info.run_id == home.info.run_id


# Removed for good


def test_a_board_that_was_removed_has_one_successor_whose_numbers_begin_above(
    store: Store,
) -> None:
    """Two processes that both know the one before it agree, and no lease has the number of one."""
    one, two = opened(store), opened(store)
    held = lease(one, OTHER)
    assert two.board.latest(OTHER.key) == (1, held.run_id)
    purge(one, board_of(one, OTHER))
    assert two.board.latest(OTHER.key) == (1_000_000, "")
    assert not held.is_lost(), "it takes a lease anew, as nobody has"
    assert two.board.latest(OTHER.key) == (1_000_001, held.run_id)
    assert not two.board.take(OTHER.key, 1_000_001, "another")
    assert two.board.take(OTHER.key, 1_000_002, "another")
    assert held.is_lost(), "another has taken the stage over"
    held.end()
    assert one.notes == [
        f"a run of the experiment '{BOARDS}' was removed for good: another takes its place"
    ]
    purge(one, board_of(one, OTHER))
    assert opened(store).board.latest(OTHER.key) == (2_000_000, "")


def test_who_slept_while_the_board_was_removed_and_lost_its_stage_finds_it_so(
    store: Store,
) -> None:
    tracker = opened(store)
    asleep = lease(tracker, OTHER, driver := next(DRIVERS))
    purge(tracker, *boards(tracker).values())
    other = lease(opened(store), OTHER, driver)
    assert other.number > asleep.number
    assert asleep.is_lost()
    assert not other.is_lost()
    for one in (asleep, other):
        one.end()


def test_boards_are_found_again_if_what_names_them_was_removed(store: Store) -> None:
    """Else a process that knows them would go by other numbers than one that comes new."""
    tracker = opened(store)
    board = board_of(tracker, START)
    purge(tracker, boards(tracker)["leases"])
    new = opened(store)
    assert new.board.latest(START.key)[0] == 1
    assert board_of(new, START) == board
    found = new.client.get_experiment_by_name(f"{ROOT}-2")
    assert found is not None
    assert found.tags[MARK] == f"{ROOT}-2"
    assert opened(store).board.latest(START.key)[0] == 1
    assert deleted(store) == []


def test_the_experiment_that_names_them_was_removed(store: Store) -> None:
    tracker = opened(store)
    root = boards(tracker)["leases"]
    delete(tracker, ROOT)
    found = tracker.client.get_experiment_by_name(ROOT)
    assert found is not None
    tracker.client._tracking_client.store._hard_delete_experiment(found.experiment_id)
    new = opened(store)
    assert new.board.latest(START.key)[0] == 1
    again = new.client.get_experiment_by_name(ROOT)
    assert again is not None
    assert again.tags["elth.root"] == root


def test_all_leases_were_removed(store: Store) -> None:
    tracker = opened(store)
    tracker.board.latest(START.key)
    for name in (BOARDS, ROOT):
        found = tracker.client.get_experiment_by_name(name)
        assert found is not None
        runs = tracker.client.search_runs([found.experiment_id])
        tracker.client.delete_experiment(found.experiment_id)
        purge(tracker, *(run.info.run_id for run in runs))
        tracker.client._tracking_client.store._hard_delete_experiment(found.experiment_id)
    assert opened(store).board.latest(START.key)[1] == ""
    assert tracker.board.latest(START.key)[1] == "", "of a process that knew them, too"
    done(tracker, OTHER)


def test_that_a_board_is_not_there_is_not_believed_a_proxy(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = opened(store)
    tracker.board.latest(START.key)
    get = tracker.client.get_run

    def missing(*_: Any) -> None:
        raise error

    error = MlflowException("404 Not Found")
    error.error_code = "RESOURCE_DOES_NOT_EXIST"
    monkeypatch.setattr(tracker.client, "get_run", missing)
    with pytest.raises(MlflowException, match="404"):
        tracker.board.latest(START.key)
    monkeypatch.setattr(tracker.client, "get_run", get)
    assert tracker.board.latest(START.key)[0] == 1
    assert tracker.notes == []


def test_stages_that_were_removed_are_done_again(store: Store) -> None:
    tracker = opened(store)
    (one,) = tracker.stages()
    delete(tracker, STAGES)
    purge(tracker, one.run_id)
    tracker.client._tracking_client.store._hard_delete_experiment(tracker.experiments[STAGES])
    new = Tracker(store, keep_index=True)
    assert new.stages() == []
    done(new, START)
    assert [one.status for one in new.stages()] == ["finished"]
