"""Grids in the store: begun, continued and added to, by one driver or by several at once."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.experiment.sections import Experiment
from orchestrator.report.cells import collect
from orchestrator.store.address import Store
from orchestrator.store.content import Change
from orchestrator.store.grids import Grids, _checked
from orchestrator.store.processes import owner
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import RECIPE, begin, grid_file, tiny


def _extend(grids: Grids, found: Experiment, *, replace: bool = False) -> Change:
    built = plan.build(found)
    return grids.extend(found, built, grids.change(found, built, replace=replace))


def _keys(found: Experiment) -> set[str]:
    return set(plan.build(found).stages)


def _versions(tracker: Tracker, grid: str) -> int:
    run = tracker.grids.run(grid)
    assert run is not None
    return sum(name.startswith("content/") for name in run.data.params)


def _runs(tracker: Tracker, grid: str) -> int:
    experiment = [tracker.experiments["elth-grids"]]
    return len(tracker.client.search_runs(experiment, f"tags.`elth.grid` = '{grid}'"))


def _old(tracker: Tracker, found: Experiment, files: Iterable[str], *, tags: bool = True) -> str:
    """A grid as 645568c wrote it: two files of its run, and the tags of their checksums."""
    run = tracker.client.create_run(
        tracker.experiments["elth-grids"], run_name=found.name, tags={"elth.grid": found.name}
    )
    labels = {key: dict(stage.labels) for key, stage in plan.build(found).stages.items()}
    texts = {"experiment.yaml": found.resolved(), "keys.json": json.dumps(labels)}
    for name in files:
        if tags:
            tracker.client.set_tag(run.info.run_id, _checked(name, texts[name]), "true")
        tracker.client.log_text(run.info.run_id, texts[name], name)
    return str(run.info.run_id)


BOTH = ("experiment.yaml", "keys.json")


# One driver


def test_a_grid_goes_on_by_rounds_and_seeds(tracker: Tracker) -> None:
    grids, found = tracker.grids, tiny("going-on")
    assert _extend(grids, found).before is None
    assert grids.keys("going-on").keys() == _keys(found)
    longer = tiny("going-on", seeds=[1], pruning={"rate": 0.5, "rounds": 3})
    _extend(grids, longer)
    whole = longer.model_copy(update={"seeds": (0, 1)})
    content = grids.content("going-on")
    assert content.keys.keys() == _keys(whole)
    assert content.text == whole.resolved()
    assert grids.experiment("going-on") == content.experiment
    run = grids.run("going-on")
    assert run is not None
    assert run.info.status == "FINISHED"


def test_what_changes_nothing_writes_nothing(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = tiny("unchanged", seeds=[0, 1])
    _extend(tracker.grids, both)
    monkeypatch.setattr(tracker.files, "write", None)
    for name in ("set_tag", "log_param", "create_run"):
        monkeypatch.setattr(tracker.client, name, None)
    _extend(tracker.grids, both)
    _extend(tracker.grids, tiny("unchanged", seeds=[1]))


@pytest.mark.parametrize("is_old", [False, True])
def test_what_is_refused_writes_nothing(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    grids, found = tracker.grids, tiny(f"refused-{is_old}")
    if is_old:
        _old(tracker, found, BOTH)
    else:
        _extend(grids, found)
    fewer = tiny(found.name, pruning={"rate": 0.5, "rounds": 1})
    before = grids.content(found.name)
    monkeypatch.setattr(tracker.files, "write", None)
    for name in ("set_tag", "log_param", "create_run"):
        monkeypatch.setattr(tracker.client, name, None)
    with pytest.raises(
        ElthError, match=r"would drop IMP on .* \(pruning.rounds is 2 there and 1 h"
    ):
        _extend(grids, fewer)
    assert grids.content(found.name) == before


def test_a_grid_is_replaced_and_no_run_is_deleted(tracker: Tracker) -> None:
    grids, found = tracker.grids, tiny("replaced", seeds=[60])
    _extend(grids, found)
    stage = list(plan.build(found).stages.values())[-1]
    log = begin(tracker, stage, grid="replaced")
    log.fail("", final=False, details="")
    other = tiny("replaced", seeds=[60], pruning={"rate": 0.25, "rounds": 1})
    change = _extend(grids, other, replace=True)
    assert "2 stages that it held besides stay in the store" in change.told
    assert grids.keys("replaced").keys() == _keys(other)
    assert tracker.client.get_run(log.run_id).info.lifecycle_stage == "active"
    # What it was is still there, as an earlier version.
    assert _versions(tracker, "replaced") == 2


def test_what_has_failed_and_was_mended_is_no_loss(tracker: Tracker) -> None:
    """The same command after a slip in the network, whose mending gives all stages new keys."""
    grids, found = tracker.grids, tiny("mended", seeds=[61])
    _extend(grids, found)
    first, *_, last = plan.build(found).stages.values()
    other = tiny("mended", seeds=[61], recipe={**RECIPE, "lr": 0.05})
    assert "would change" in grids.change(other, plan.build(other)).refusal
    begin(tracker, first, grid="mended").fail("KeyError", final=True, details="")
    tracker.forget()
    fewer = tiny("mended", seeds=[61], pruning={"rate": 0.5, "rounds": 1})
    assert "would drop" in grids.change(fewer, plan.build(fewer)).refusal
    with grids.driven("mended", owner()):
        assert "would change" in grids.change(other, plan.build(other)).refusal
    change = _extend(grids, other)
    assert "4 stages that it held besides, of which none was finished, are left out" in change.told
    assert grids.keys("mended").keys() == _keys(other)
    _extend(grids, found, replace=True)
    log = begin(tracker, last, grid="mended")
    tracker.forget()
    assert "would change" in grids.change(other, plan.build(other)).refusal
    log.fail("", final=False, details="")


# Several at once


def test_seeds_that_two_drivers_begin_at_once_are_both_kept(tracker: Tracker) -> None:
    """Each has looked before the other wrote: with a file that is overwritten one is lost."""
    grids = tracker.grids
    ones = [tiny("at-once", seeds=[seed]) for seed in (0, 1)]
    looked = [(one, plan.build(one)) for one in ones]
    changes = [grids.change(one, built) for one, built in looked]
    assert [change.before for change in changes] == [None, None]
    for (one, built), change in zip(looked, changes, strict=True):
        grids.extend(one, built, change)
    assert grids.keys("at-once").keys() == _keys(tiny("at-once", seeds=[0, 1]))
    assert grids.experiment("at-once")["seeds"] == [0, 1]


def test_two_different_grids_of_one_name_at_once_one_is_refused(tracker: Tracker) -> None:
    grids = tracker.grids
    one, other = tiny("a-name"), tiny("a-name", pruning={"rate": 0.25, "rounds": 2})
    built = plan.build(other)
    looked = grids.change(other, built)
    assert looked.refusal == ""
    _extend(grids, one)
    with pytest.raises(ElthError, match="the grid 'a-name' in .* would change IMP on"):
        grids.extend(other, built, looked)
    assert grids.keys("a-name").keys() == _keys(one)


@pytest.mark.parametrize("place", ["log_param", "set_tag", "write", "create_run"])
def test_a_driver_that_comes_between_any_two_steps_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """While one begins a grid, at each of its writings another one begins it, to the end."""
    name = f"between-{place.replace('_', '-')}"
    one, two = Tracker(store), Tracker(store)
    target = one.files if place == "write" else one.client
    real = getattr(target, place)
    others = iter(range(1, 100))
    seeds = {0}

    def step(*args: Any, **given: Any) -> Any:
        if len(seeds) < 4:
            seed = next(others)
            seeds.add(seed)
            _extend(two.grids, tiny(name, seeds=[seed]))
        return real(*args, **given)

    monkeypatch.setattr(target, place, step)
    _extend(one.grids, tiny(name))
    assert len(seeds) > 1
    whole = tiny(name, seeds=sorted(seeds))
    for tracker in (one, two):
        assert tracker.grids.keys(name).keys() == _keys(whole)
        assert tracker.grids.experiment(name)["seeds"] == sorted(seeds)
    assert _runs(one, name) == 1, "of the runs that were made for it one is left"


def test_many_drivers_at_once(store: Store, tracker: Tracker) -> None:
    trackers = [Tracker(store) for _ in range(4)]
    ones = [tiny("many", seeds=[seed]) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: _extend(trackers[i].grids, ones[i]), range(4)))
    assert tracker.grids.keys("many").keys() == _keys(tiny("many", seeds=[0, 1, 2, 3]))
    assert _runs(tracker, "many") == 1


def test_a_tag_that_another_driver_inserts_at_the_same_moment_is_set_again(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tracker.client.set_tag
    inserted: set[tuple[str, str]] = set()

    def set_tag(run_id: str, name: str, value: str) -> None:
        first = (run_id, name) not in inserted and name.startswith(("elth.grid.", "elth.sha256."))
        inserted.add((run_id, name))
        real(run_id, name, value)
        if first:
            raise MlflowException("UNIQUE constraint failed: tags.key", BAD_REQUEST)

    monkeypatch.setattr(tracker.client, "set_tag", set_tag)
    _extend(tracker.grids, tiny("tagged"))
    names = {name.rpartition(".")[0] for _, name in inserted}
    assert {"elth.grid"} < names, "and the checksums of its files"
    assert _versions(tracker, "tagged") == 1


# Runs that are deleted, and come back


def test_a_grid_whose_run_was_deleted_is_begun_anew(tracker: Tracker) -> None:
    grids, found = tracker.grids, tiny("deleted")
    _extend(grids, found)
    first = grids.run("deleted")
    assert first is not None
    tracker.client.delete_run(first.info.run_id)
    other = tiny("deleted", pruning={"rate": 0.25, "rounds": 1})
    _extend(grids, other)
    assert grids.keys("deleted").keys() == _keys(other)
    # Restored, it is not taken for the one that was begun since, by nobody.
    tracker.client.restore_run(first.info.run_id)
    assert grids.keys("deleted").keys() == _keys(other)
    both = other.model_copy(update={"seeds": (0, 1)})
    _extend(Tracker(tracker.store).grids, both)
    assert grids.keys("deleted").keys() == _keys(both)


# Grids of before


@pytest.mark.parametrize("tags", [True, False])
def test_an_old_grid_is_read_as_it_is_and_goes_on(tracker: Tracker, tags: bool) -> None:
    grids, found = tracker.grids, tiny(f"old-{tags}")
    run_id = _old(tracker, found, BOTH, tags=tags)
    assert grids.content(found.name).text == found.resolved()
    assert grids.keys(found.name).keys() == _keys(found)
    assert _versions(tracker, found.name) == 0
    assert _extend(grids, found).before is not None
    assert _versions(tracker, found.name) == 0, "nothing is written as nothing is new"
    _extend(grids, tiny(found.name, seeds=[1]))
    both = tiny(found.name, seeds=[0, 1])
    assert grids.keys(found.name).keys() == _keys(both)
    run = grids.run(found.name)
    assert run is not None
    assert run.info.run_id == run_id
    assert grid_file(tracker, found.name, "experiment.yaml").read_text("utf-8") == both.resolved()


@pytest.mark.parametrize("files", [(), ("experiment.yaml",)])
def test_an_old_grid_that_was_never_begun_to_the_end_is_begun(
    tracker: Tracker, files: tuple[str, ...]
) -> None:
    found = tiny(f"never-begun-{len(files)}")
    _old(tracker, tiny(found.name, seeds=[8]), files)
    assert _extend(tracker.grids, found).refusal == ""
    # Where its experiment tells what it held, that stays.
    assert found.seeds[0] in tracker.grids.experiment(found.name)["seeds"]


def test_the_grid_of_a_store_that_645568c_made_goes_on(tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).parents[2] / "data" / "store_645568c.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    tracker = Tracker(Store.of(tmp_path / "runs"))
    (name,) = tracker.grids.names()
    before = tracker.grids.content(name)
    found = Experiment.model_validate(before.experiment)
    other = found.model_copy(update={"seeds": (77,)})
    change = _extend(tracker.grids, other)
    # Version 2 of Random makes other masks; all else is what it was.
    ((place, _),) = before.places - tracker.grids.content(name).places
    assert "random" in place
    assert change.told == (
        f"The grid small in {tmp_path}/runs goes on; what another version made in another way is "
        "done again: Random on resnet14(width=2), digits, round 2, seed 0, and 6 stages are added."
    )
    assert len(change.after.keys) == 2 * len(before.keys)
    assert tracker.grids.experiment(name)["seeds"] == [*found.seeds, 77]
    # What is finished of it is in its report still.
    assert len(collect(tracker, name).cells) == len(collect(tracker, name, before).cells) - 1 == 4


def test_a_grid_is_small_to_read(tmp_path: Path, tracker: Tracker) -> None:
    """However often it has grown, what it consists of is two files."""
    for seed in range(3):
        _extend(tracker.grids, tiny("small-to-read", seeds=[seed]))
    run = tracker.grids.run("small-to-read")
    assert run is not None
    latest = run.data.params["content/3"]
    listed = tracker.client.list_artifacts(run.info.run_id, latest.rstrip("/"))
    assert [Path(one.path).name for one in listed] == ["experiment.yaml", "keys.json"]
    assert len(json.loads(grid_file(tracker, "small-to-read", "keys.json").read_text())) == 12
