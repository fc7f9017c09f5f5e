"""Tickets from elsewhere in a store: put there, used, carried on, and removed by nobody else."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from elth import masks
from elth.data import info
from elth.specs import Spec
from elth.tickets import Ticket
from orchestrator import plan
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.graph import Plan
from orchestrator.plan.imported import imported
from orchestrator.plan.stage import Stage
from orchestrator.report.cells import collect
from orchestrator.report.forms import to_csv, to_json
from orchestrator.report.status import states
from orchestrator.report.why import Reading
from orchestrator.store import imported_tickets, redo, trash
from orchestrator.store.address import Store
from orchestrator.store.bundle import opened
from orchestrator.store.carrying import arrive, bring, check, export
from orchestrator.store.content import Content
from orchestrator.store.leftovers import leftovers
from orchestrator.store.overview import overview
from orchestrator.store.storage import of as storage_of
from orchestrator.store.tracker import Tracker
from orchestrator.store.verifying import verify
from tests.orchestrator.helpers import (
    TINY,
    artifact,
    rewind_result,
    round_result,
    tiny,
    track,
)

KEPT = 5000


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """Of a store of their own, as here tickets are removed."""
    return Tracker(Store.of(tmp_path_factory.mktemp("importing")))


def _ticket(seed: int) -> Ticket:
    rewind, mask = rewind_result(seed=seed).rewind, round_result(KEPT, seed=seed).mask
    assert rewind is not None
    assert mask is not None
    return Ticket(
        network=Spec.parse(TINY),
        shape=info("digits").shape,
        rewind=rewind,
        mask=mask,
        origin={"dataset": info("digits").identity(), "history": []},
    )


def _stage(ticket: Ticket, iteration: int = 21) -> Stage:
    return imported(
        TINY, "digits", sha256=ticket.digest, iteration=iteration, nonzeros=ticket.nonzeros
    )


def _put(tracker: Tracker, ticket: Ticket) -> bool:
    return imported_tickets.put(tracker, _stage(ticket), ticket, {"files": {"w.pt": "ab"}})


def _grid(name: str, ticket: Ticket, **changes: object) -> tuple[Experiment, Plan]:
    given = {"sha256": ticket.digest, "iteration": 21, "nonzeros": ticket.nonzeros}
    grid = [
        {"method": "imp", "network": TINY, "ticket": "theirs", "round": [0, 1]},
        {"method": "imp", "network": TINY, "round": 1},
    ]
    found = tiny(name, tickets={"theirs": given}, grid=grid, **changes)
    return found, plan.build(found)


def _begun(tracker: Tracker, name: str, ticket: Ticket, accuracy: float = 50.0) -> Plan:
    """A grid that starts from a ticket, all of it finished."""
    found, built = _grid(name, ticket)
    tracker.grids.extend(found, built, tracker.grids.change(found, built))
    for stage in built.stages.values():
        if stage.is_given:
            tracker.grids.join([_run_id(tracker, stage)], name)
        elif tracker.run_of(stage.key) is None:
            accuracy += 1
            track(tracker, stage, accuracy, grid=name, experiment=found.resolved())
    return built


def _run_id(tracker: Tracker, stage: Stage) -> str:
    run = tracker.run_of(stage.key)
    assert run is not None
    return str(run.info.run_id)


def test_it_is_a_finished_run_of_no_grid(tracker: Tracker) -> None:
    ticket = _ticket(1)
    assert _put(tracker, ticket)
    stage = _stage(ticket)
    run = tracker.run_of(stage.key)
    assert run is not None
    tags, params = run.data.tags, run.data.params
    assert not [tag for tag in tags if tag.startswith("grid.")]
    assert tags["mlflow.source.name"] == "elth ticket import"
    assert "an imported ticket of" in tags["mlflow.note.content"]
    assert "elth.numerics" not in tags
    assert (params["kind"], params["seed"], params["nonzeros"]) == ("imported", "-", "5000")
    assert not [name for name in params if name.startswith("recipe.")]
    assert tags["elth.mask_sha256"] == masks.digest(ticket.mask)
    about = json.loads(tracker.files.read(run.info.run_id, "origin.json"))
    assert about == {"files": {"w.pt": "ab"}}
    (one,) = [one for one in tracker.stages() if one.key == stage.key]
    assert (one.status, one.nonzeros, one.stage) == ("finished", KEPT, stage)
    assert one.size == sum(json.loads(tags["elth.files"]).values())
    _, result = tracker.load(stage.key)
    assert result.rewind is not None
    assert result.mask is not None
    again = Ticket(
        network=ticket.network, shape=ticket.shape, rewind=result.rewind, mask=result.mask
    )
    assert again.digest == ticket.digest


def test_it_is_there_once(tracker: Tracker) -> None:
    ticket = _ticket(2)
    assert _put(tracker, ticket)
    assert not _put(tracker, ticket)
    assert len(tracker.runs_of(_stage(ticket).key)) == 1


@pytest.mark.parametrize("harm", ["damaged", "absent"])
def test_one_that_is_not_whole_is_put_anew(tracker: Tracker, harm: str) -> None:
    ticket = _ticket(3 if harm == "damaged" else 4)
    _put(tracker, ticket)
    stage = _stage(ticket)
    file = artifact(tracker, _run_id(tracker, stage), "result/rewind.safetensors")
    if harm == "damaged":
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    else:
        file.unlink()
    assert [one.state for one in verify(tracker) if one.stage.key == stage.key] == [harm]
    assert _put(tracker, ticket)
    assert [one.state for one in verify(tracker) if one.stage.key == stage.key] == ["whole"]
    aside = [one for one in tracker.stages() if one.key == stage.key and one.status == "set aside"]
    assert len(aside) == 1


def test_one_whose_files_a_training_has_missed_is_replaced(tracker: Tracker) -> None:
    ticket = _ticket(13)
    _put(tracker, ticket)
    stage = _stage(ticket)
    artifact(tracker, _run_id(tracker, stage), "result/mask.safetensors").unlink()
    redo.mark_lacking(tracker, stage.key)
    (marked,) = redo.marked(tracker)
    assert _put(tracker, ticket)
    assert marked not in {run.info.run_id for run in tracker.runs_of(stage.key)}
    assert stage.key not in redo.waiting(tracker, tracker.stages())
    assert tracker.load(stage.key)[1].mask is not None


def test_a_grid_that_starts_from_it(tracker: Tracker) -> None:
    ticket = _ticket(5)
    found, built = _grid("from5", ticket)
    content = Content.of(found, built)
    (start,) = [stage for stage in built.stages.values() if stage.is_given]
    assert content.seeds == (0,)
    assert start.key in content.keys
    assert start.key not in {key for _, key in content.places}

    (lacks,) = [one for one in states(tracker, content) if one.key == start.key]
    assert lacks.state == "waiting"
    assert "it is not in the store: elth ticket import --network" in lacks.reason
    why = Reading(tracker).why(start, built.stages)
    assert why.state == "to do"
    assert why.reason.startswith(f"the store {tracker.store} lacks the ticket theirs (sha256 ")

    _put(tracker, ticket)
    _begun(tracker, "from5", ticket)
    assert {one.state for one in states(tracker, "from5")} == {"finished"}
    assert Reading(tracker).why(start, built.stages).state == "finished"
    (line,) = [one for one in overview(tracker) if one.name == "from5"]
    assert (line.stages, line.finished) == (len(built.stages), len(built.stages))

    report = collect(tracker, "from5")
    assert report.missing == 0
    names = [(cell.name, cell.round, cell.ticket) for cell in report.cells]
    assert names == [
        ("dense", 0, ""),
        ("IMP from theirs", 0, "theirs"),
        ("IMP", 1, ""),
        ("IMP from theirs", 1, "theirs"),
    ]
    assert [one.get("ticket") for one in json.loads(to_json(report))] == [
        *(None, "theirs", None, "theirs")
    ]
    assert to_csv(report).splitlines()[0].startswith("network,method,source,transform,round,target")
    assert ",ticket," in to_csv(report).splitlines()[0]


def test_seeds_are_added_to_a_grid_that_starts_from_it(tracker: Tracker) -> None:
    ticket = _ticket(6)
    _put(tracker, ticket)
    _begun(tracker, "seeds6", ticket)
    found, built = _grid("seeds6", ticket, seeds=[1])
    change = tracker.grids.change(found, built)
    assert not change.refusal
    assert change.after.seeds == (0, 1)
    assert "seed 1 to seed 0" in change.told
    other, plain = _grid("seeds6", _ticket(7))
    refusal = tracker.grids.change(other, plain).refusal
    assert "would change IMP from theirs on" in refusal
    assert "tickets.theirs.sha256 is" in refusal


def test_who_removes_a_grid_keeps_it(tracker: Tracker) -> None:
    ticket = _ticket(8)
    _put(tracker, ticket)
    built = _begun(tracker, "gone8", ticket)
    stage = _stage(ticket)
    found = trash.look(tracker, "gone8")
    assert stage.key not in found.keys
    assert trash.named(found.others).endswith("whoever imported tickets")
    trash.remove(tracker, found)
    run = tracker.run_of(stage.key)
    assert run is not None
    assert "grid.gone8" not in run.data.tags
    assert stage.key in {one.stage.key for one in imported_tickets.unused(tracker)}
    trash.restore(tracker, "gone8")
    assert {one.state for one in states(tracker, "gone8")} == {"finished"}
    assert "grid.gone8" in tracker.client.get_run(run.info.run_id).data.tags
    assert len(built.stages) == len(collect(tracker, "gone8").cells) + 2


def test_it_is_removed_only_where_that_is_asked_for_and_no_grid_uses_it(
    tracker: Tracker, tmp_path: Path
) -> None:
    used, free = _ticket(9), _ticket(10)
    for ticket in (used, free):
        _put(tracker, ticket)
    _begun(tracker, "uses9", used)
    run_id = _run_id(tracker, _stage(free))
    assert run_id not in {one.name for one in leftovers(tracker, storage_of(str(tmp_path)))}
    unused = [one for one in imported_tickets.unused(tracker) if one.run.info.run_id == run_id]
    assert unused[0].size > 0
    assert _stage(used).key not in {one.stage.key for one in imported_tickets.unused(tracker)}
    assert imported_tickets.remove(tracker, unused) == unused
    gone = tracker.client.get_run(unused[0].run.info.run_id)
    since = trash.time_of(gone)
    assert since is not None, "a server does not tell it, and elth gc goes by it"
    assert abs(time.time() - since) < 60
    assert tracker.run_of(_stage(free).key) is None
    assert _put(tracker, free)


def test_one_that_a_grid_begins_to_use_meanwhile_is_restored(tracker: Tracker) -> None:
    ticket = _ticket(11)
    _put(tracker, ticket)
    unused = [
        one for one in imported_tickets.unused(tracker) if one.stage.key == _stage(ticket).key
    ]
    _begun(tracker, "begun11", ticket)
    assert imported_tickets.remove(tracker, unused) == []
    assert tracker.run_of(_stage(ticket).key) is not None


def test_a_bundle_carries_it(tracker: Tracker, tmp_path: Path) -> None:
    ticket = _ticket(12)
    _put(tracker, ticket)
    _begun(tracker, "carried12", ticket)
    export(tracker, "carried12", tmp_path / "carried.tar")
    other = Tracker(Store.of(tmp_path / "other"))
    with opened(tmp_path / "carried.tar") as bundle:
        bring(other, arrive(other, check(bundle)))
    assert to_json(collect(other, "carried12")) == to_json(collect(tracker, "carried12"))
    assert {one.state for one in verify(other)} == {"whole"}
    assert not _put(other, ticket)
    _, result = other.load(_stage(ticket).key)
    assert result.digests == tracker.load(_stage(ticket).key)[1].digests
