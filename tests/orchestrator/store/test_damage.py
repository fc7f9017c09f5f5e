"""Damaged files of finished stages: noticed, set aside, done again, with the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.tune.search import Searcher

from elth import masks
from elth.errors import ElthError
from orchestrator import plan
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.graph import Plan
from orchestrator.plan.schedule import Schedule, Snapshot
from orchestrator.store.address import Store
from orchestrator.store.damage import AbsentError, DamagedError
from orchestrator.store.tracker import Tracker
from orchestrator.store.verifying import verify
from orchestrator.work.search import PlanSearch
from orchestrator.work.trials import JobTrial
from orchestrator.work.worker import Worker, run_job
from tests.orchestrator.helpers import (
    TINY,
    artifact,
    begin,
    chain,
    grid_file,
    job_config,
    of_kind,
    rewind_result,
    round_of,
    round_result,
    tiny,
)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(bytes(data))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _remove_all(path: Path) -> None:
    shutil.rmtree(path.parent)


WAYS: dict[str, Callable[[Path], None]] = {"flipped": _flip, "cut": _cut}
GONE: dict[str, Callable[[Path], None]] = {"deleted": Path.unlink, "all deleted": _remove_all}


class Shelf:
    """A store with a chain and what was made of its last round."""

    def __init__(self, store: Store, tracker: Tracker) -> None:
        self.store = store
        self.tracker = tracker
        self.worker = Worker()
        self.experiment: Experiment = tiny(
            "shelf",
            seeds=[80],
            pruning={"rate": 0.5, "rounds": 1},
            grid=[{"method": ["imp", "reinit"], "network": TINY}],
        )
        self.plan: Plan = plan.build(self.experiment)
        self.leaf = of_kind(self.plan, "retraining")[0]
        self.last = round_of(self.plan, TINY, 1, 80)
        self.before = round_of(self.plan, TINY, 0, 80)
        self.start = of_kind(self.plan, "rewind_point")[0]

    def go(self) -> Snapshot:
        """Do what is left, in one process, as Tune would."""
        finished = [t.key for t in self.tracker.stages() if t.status == "finished"]
        schedule = Schedule(self.plan, finished, {}, slots=1)
        search = PlanSearch(schedule)
        common = job_config(self.store, self.experiment, [])
        self.worker.results.clear()
        for number in range(40):
            config = search.suggest(str(number))
            if config == Searcher.FINISHED:
                return schedule.snapshot()
            trial = JobTrial.__new__(JobTrial)
            trial._job = run_job({**common, **config}, self.worker)
            while not (result := trial.step())["done"]:
                search.on_trial_result(str(number), result)
            search.on_trial_complete(str(number), result)
        raise AssertionError("it never ended")

    def forget(self, key: str) -> None:
        """As if a stage had never been done."""
        for run in self.tracker.runs_of(key):
            self.tracker.client.delete_run(run.info.run_id)

    def file(self, key: str, name: str) -> Path:
        run = self.tracker.run_of(key)
        assert run is not None
        return artifact(self.tracker, run.info.run_id, f"result/{name}.safetensors")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of their own: what is damaged is mended again in it."""
    return Store.of(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def tracker(store: Store) -> Tracker:
    """The tracker of ``store``."""
    return Tracker(store)


@pytest.fixture(scope="module")
def shelf(store: Store, tracker: Tracker) -> Shelf:
    made = Shelf(store, tracker)
    assert made.go().failed == {}
    return made


@pytest.mark.parametrize(
    ("name", "way"), [("rewind", "cut"), ("mask", "flipped"), ("trained", "cut")]
)
def test_a_damaged_stage_is_set_aside_and_done_again_within_the_run(
    shelf: Shelf, name: str, way: str
) -> None:
    damaged = {"rewind": shelf.start, "mask": shelf.last, "trained": shelf.before}[name]
    child = shelf.last if name == "trained" else shelf.leaf
    shelf.forget(child.key)
    bad = shelf.tracker.run_of(damaged.key)
    assert bad is not None
    path = shelf.file(damaged.key, name)
    whole = path.read_bytes()
    WAYS[way](path)
    now = shelf.go()
    assert now.failed == {}
    assert now.found + now.done == now.total == 4
    (note,) = now.notes
    assert note.startswith(f"{damaged.title} is done again: ")
    run = shelf.tracker.get(bad.info.run_id)
    assert run.info.status == "KILLED", "it is kept, and counts no more"
    assert run.data.tags["elth.damaged"] in note
    again = shelf.tracker.run_of(damaged.key)
    assert again is not None
    assert again.info.run_id != bad.info.run_id
    assert shelf.file(damaged.key, name).read_bytes() == whole, "the same bits"
    for key in shelf.plan.stages:
        finished = [r for r in shelf.tracker.runs_of(key) if r.info.status == "FINISHED"]
        assert len(finished) == 1
    shelf.tracker.client.delete_run(bad.info.run_id)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["rewind", "mask", "trained"])
def test_every_damage_is_noticed(tracker: Tracker, name: str, way: str) -> None:
    start, _, last, _ = chain("noticed", seeds=[81])
    stage = start if name == "rewind" else last
    log = begin(tracker, stage)
    log.finish(rewind_result() if name == "rewind" else round_result(600), keep_weights=True)
    WAYS[way](artifact(tracker, log.run_id, f"result/{name}.safetensors"))
    with pytest.raises(DamagedError, match=r"\(its run \w{8} is set aside: elth run does it again"):
        tracker.load(stage.key)
    run = tracker.client.get_run(log.run_id)
    assert (run.info.status, run.info.lifecycle_stage) == ("KILLED", "active")
    assert run.data.tags["elth.damaged"]
    with pytest.raises(DamagedError, match="has no finished stage"):
        tracker.load(stage.key)


@pytest.mark.parametrize("way", GONE)
@pytest.mark.parametrize("name", ["rewind", "mask", "trained"])
def test_what_is_absent_is_not_taken_for_damaged(tracker: Tracker, name: str, way: str) -> None:
    start, before, last, _ = chain("absent", seeds=[82])
    stage = start if name == "rewind" else last
    for other in (start, before, last):
        if other is stage:
            continue  # most of the store is there
        others = begin(tracker, other)
        others.finish(rewind_result() if other is start else round_result(600), keep_weights=True)
    log = begin(tracker, stage)
    log.finish(rewind_result() if name == "rewind" else round_result(600), keep_weights=True)
    GONE[way](artifact(tracker, log.run_id, f"result/{name}.safetensors"))
    told = rf"{name}.safetensors.* not there, while those of other .* elth verify --set-aside --abs"
    with pytest.raises(AbsentError, match=told):
        tracker.load(stage.key)
    run = tracker.client.get_run(log.run_id)
    assert run.info.status == "FINISHED"
    assert "elth.damaged" not in run.data.tags
    for one in (start, before, last):
        for run in tracker.runs_of(one.key):
            tracker.client.delete_run(run.info.run_id)


@pytest.mark.parametrize("way", WAYS)
def test_verify_finds_what_no_run_reads(shelf: Shelf, way: str) -> None:
    shelf.tracker.grids.open("shelf", shelf.experiment.resolved(), shelf.plan.stages, "")

    def verified() -> dict[str, bool]:
        found = {one.stage.key: one for one in verify(shelf.tracker, "shelf")}
        for one in found.values():
            if one.state == "damaged":
                shelf.tracker.set_aside(one.run, one.reason)
        return {key: one.state == "damaged" for key, one in found.items()}

    whole = dict.fromkeys(shelf.plan.stages, False)
    assert verified() == whole
    for key in shelf.plan.stages:
        run = shelf.tracker.run_of(key)
        assert run is not None
        names = [f.stem for f in artifact(shelf.tracker, run.info.run_id, "result").iterdir()]
        assert names
        for name in names:
            WAYS[way](shelf.file(key, name))
            assert verified() == {**whole, key: True}
            assert key not in verified(), "it is set aside"
            assert shelf.go().failed == {}
    assert verified() == whole


def test_several_damaged_stages_of_one_chain_are_done_again_in_their_order(shelf: Shelf) -> None:
    shelf.forget(shelf.leaf.key)
    for stage, name in ((shelf.start, "rewind"), (shelf.before, "trained"), (shelf.last, "mask")):
        _cut(shelf.file(stage.key, name))
    now = shelf.go()
    assert (now.failed, len(now.notes)) == ({}, 3)
    assert now.found + now.done == 4


def test_the_index_lists_a_damaged_stage_no_longer_as_finished(shelf: Shelf) -> None:
    keeper = Tracker(shelf.store, keep_index=True)
    keeper.stages()
    run = shelf.tracker.run_of(shelf.leaf.key)
    assert run is not None
    shelf.tracker.set_aside(run, "for a test")
    for tracker in (keeper, shelf.tracker):
        status = {one.run_id: one.status for one in tracker.stages()}
        assert status[run.info.run_id] == "set aside"
    shelf.go()


def test_what_is_only_unreadable_is_not_damaged(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shelf.file(shelf.last.key, "mask")
    whole = Path.open

    def locked(self: Path, *args: object, **words: object) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return whole(self, *args, **words)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", locked)
    with pytest.raises(ElthError, match="are not to be had: .*Permission denied") as caught:
        shelf.tracker.load(shelf.last.key)
    assert not isinstance(caught.value, DamagedError)
    monkeypatch.undo()
    assert shelf.tracker.load(shelf.last.key)[0] == shelf.last


def test_what_was_only_read_badly_is_read_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = masks.digest
    wrong = ["nonsense"]
    monkeypatch.setattr(masks, "digest", lambda mask: wrong.pop() if wrong else whole(mask))
    assert shelf.tracker.load(shelf.last.key)[0] == shelf.last
    assert wrong == []


# A grid's own files


GRID_WAYS: dict[str, Callable[[Path], object]] = {
    **WAYS,
    "deleted": Path.unlink,
    "binary": lambda path: path.write_bytes(b"\xff\xfe\x00"),
}
UNREADABLE = "was never begun to the end, or its files are gone: give elth run with its file again"


@pytest.mark.parametrize("name", ["keys.json", "experiment.yaml"])
@pytest.mark.parametrize("way", ["flipped", "cut", "deleted", "binary"])
def test_a_damaged_file_of_a_grid_is_told_and_mended_by_the_next_run(
    shelf: Shelf, name: str, way: str
) -> None:
    """The other one tells what the grid holds, so that nothing of it is lost."""
    grids = shelf.tracker.grids
    both = shelf.experiment.model_copy(update={"name": "mended", "seeds": (0, 1)})
    one = both.model_copy(update={"seeds": (1,)})
    grids.open("mended", both.resolved(), plan.build(both).stages, "")
    GRID_WAYS[way](grid_file(shelf.tracker, "mended", name))
    with pytest.raises(ElthError, match=UNREADABLE):
        (grids.keys if name == "keys.json" else grids.experiment)("mended")
    grids.extend(one, plan.build(one), grids.change(one, plan.build(one)))
    assert grids.keys("mended").keys() == plan.build(both).stages.keys()
    assert grids.experiment("mended")["seeds"] == [0, 1]


def test_a_grid_whose_files_are_both_gone_is_not_begun_anew_without_being_asked(
    shelf: Shelf,
) -> None:
    grids, found = shelf.tracker.grids, shelf.experiment.model_copy(update={"name": "gone"})
    grids.open("gone", found.resolved(), shelf.plan.stages, "")
    for name in ("keys.json", "experiment.yaml"):
        grid_file(shelf.tracker, "gone", name).unlink()
    with pytest.raises(ElthError, match="what the grid 'gone' in .* put them back, or let it be w"):
        grids.change(found, shelf.plan)
    grids.extend(found, shelf.plan, grids.change(found, shelf.plan, replace=True))
    assert grids.keys("gone").keys() == shelf.plan.stages.keys()


def test_a_damaged_list_of_joined_runs_is_made_again(shelf: Shelf) -> None:
    tracker = shelf.tracker
    tracker.grids.open("damage-joining", "name: x\n", shelf.plan.stages, "")
    done = [t for t in tracker.stages() if t.key in shelf.plan.stages and t.status == "finished"]
    tracker.grids.join_finished(done, "damage-joining")
    grid = tracker.grids.run("damage-joining")
    assert grid is not None
    path = artifact(tracker, grid.info.run_id, "joined.json")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    tracker.grids.join_finished(done, "damage-joining")
    assert path.read_bytes() == whole
