"""Sparse trainings from plan to store: what is tracked, read back, gone on with and looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import elth
from elth import masks
from elth.engine import Engine
from orchestrator import plan
from orchestrator.cli.main import cli
from orchestrator.plan.stage import SPARSE, Stage
from orchestrator.report.cells import collect
from orchestrator.store.address import Store
from orchestrator.store.counting import FLOPS, flops_of
from orchestrator.store.tracker import Tracker
from orchestrator.work import adhoc
from orchestrator.work.tickets import ticket_of, tracked_ticket, trained_ticket
from orchestrator.work.worker import Worker, run_job
from tests.orchestrator.helpers import TINY, Finished, do, job_config, of_kind, tiny

SETTINGS: dict[str, dict[str, Any]] = {
    "rigl": {"every": "5it"},
    "set": {"every": "5it", "at": "rewind"},
    "gmp": {"every": "5it"},
    "dpf": {"every": "5it"},
}
METHODS = ["rigl", "set", "snfs", "static", "gmp", "dpf"]


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    found = tiny(
        "sparse",
        seeds=[0],
        criteria=SETTINGS,
        grid=[
            {"method": METHODS, "network": TINY, "round": 2, "keep": "weights"},
            {"method": "imp", "network": TINY, "round": 2},
        ],
    )
    built = plan.build(found)
    store = Store.of(tmp_path_factory.mktemp("sparse"))
    tracker = Tracker(store)
    do(found, built, tracker)
    return Finished(store=store, tracker=tracker, experiment=found, plan=built)


def _stage(sparse: Finished, name: str) -> Stage:
    (found,) = (s for s in of_kind(sparse.plan, SPARSE) if s.params["method"] == name)
    return found


def _equal(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", METHODS)
def test_the_system_trains_as_the_library_does(name: str, sparse: Finished) -> None:
    stage = _stage(sparse, name)
    _, result = sparse.tracker.load(stage.key)
    assert result.mask is not None
    assert result.trained is not None
    assert masks.nonzeros(result.mask) == 2_753
    data = elth.load_dataset("digits")
    given: dict[str, Any] = {k: v for k, v in SETTINGS.get(name, {}).items() if k != "at"}
    if name == "set":
        start = sparse.tracker.load(stage.parents[0])[1].rewind
        given |= {"state": start, "start": 21}
    torch.set_num_threads(1)
    run = elth.train_sparse(TINY, data, stage.recipe, name, kept=2_753, **given)
    last = run.run(lambda _: None)
    assert run.evolution is not None
    assert _equal(run.evolution.mask, result.mask)
    assert _equal(run.state(), result.trained)
    (cell,) = (c for c in collect(sparse.tracker, "sparse").cells if c.method == name)
    assert cell.accuracy == (last.test_accuracy,)
    assert cell.nonzeros == (2_753,)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_tracked(name: str, sparse: Finished, tmp_path: Path) -> None:
    (run,) = sparse.tracker.runs_of(_stage(sparse, name).key)
    told, numbers = run.data.params, run.data.metrics
    assert told["kind"] == "sparse_training"
    assert told["method"] == name
    assert (told["nonzeros"], told["sparsity"]) == ("2753", "75.00")
    assert told[f"criteria.{name}.at"] == ("rewind" if name == "set" else "init")
    if name == "rigl":
        assert told["criteria.rigl.every"] == "5it"
        assert told["criteria.rigl.fraction"] == "0.3"
    assert 0 < numbers["exploration"] <= 1
    assert numbers["changed"] >= 0
    mask = sparse.tracker.load(_stage(sparse, name).key)[1].mask
    assert mask is not None
    assert run.data.tags["elth.mask_sha256"] == masks.digest(mask)
    found = {n: numbers[f"density/{n}"] for n in mask}
    assert found == pytest.approx({n: float(m.float().mean()) for n, m in mask.items()}, abs=1e-6)
    assert {n: numbers[n] for n in FLOPS} == flops_of(_stage(sparse, name), mask)
    layers = json.loads(sparse.tracker.files.read(run.info.run_id, "layers.json"))
    assert layers == pytest.approx(masks.layer_sparsity(mask))


def _said(*words: object) -> str:
    done = CliRunner().invoke(cli, ["ticket", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    ("name", "point", "begins"),
    [
        ("rigl", "at initialisation", "training starts at initialisation\n"),
        ("set", "at the rewind point", ""),
    ],
)
def test_it_is_told_of_which_point_a_ticket_is(
    name: str, point: str, begins: str, sparse: Finished, tmp_path: Path
) -> None:
    file = tmp_path / "t.safetensors"
    told = _said("export", _stage(sparse, name).key, "-o", file, "--store", sparse.store)
    assert f"a ticket, with the weights {point}\n" in told
    shown = _said("show", file)
    assert begins in shown
    assert ("training starts" in shown) == bool(begins)


@pytest.mark.parametrize("name", ["rigl", "set", "dpf"])
def test_its_ticket_is_what_it_began_with_and_the_mask_of_its_end(
    name: str, sparse: Finished
) -> None:
    stage = _stage(sparse, name)
    (run,) = sparse.tracker.runs_of(stage.key)
    mask, trained = (
        getattr(sparse.tracker.load(stage.key)[1], part) for part in ("mask", "trained")
    )
    ticket = tracked_ticket(sparse.tracker, run.info.run_id)
    assert masks.digest(ticket.mask) == masks.digest(mask)
    assert _equal(trained_ticket(sparse.tracker, run.info.run_id).rewind, trained)
    assert ticket.origin["history"][-1]["sparse"] == name
    again = elth.train_ticket(ticket, elth.load_dataset("digits"), stage.recipe)
    assert (again.step, again.stop) == ((21, 42) if name == "set" else (0, 42))
    first = ticket_of(stage, sparse.tracker.load)
    assert _equal(first.rewind, ticket.rewind)
    if name == "dpf":
        assert masks.sparsity(first.mask) == 0


def test_a_measure_looks_at_it(sparse: Finished) -> None:
    runs = [
        sparse.tracker.runs_of(_stage(sparse, name).key)[0].info.run_id
        for name in ("rigl", "static")
    ]
    found = adhoc.inquire(sparse.tracker, "overlap", runs, {})
    assert len(found.looks) == 2


class Dead(BaseException):
    """The process ends here, with nothing done about it."""


@pytest.mark.parametrize("name", ["rigl", "dpf"])
@pytest.mark.parametrize("ends", [25, 26, 28])
def test_it_goes_on_where_its_process_ended(
    name: str, ends: int, sparse: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At an update of the mask, right after it, or between two: with the same bits."""
    tracker, stage = Tracker(Store.of(tmp_path)), _stage(sparse, name)
    given = {"keep": [stage.key], "checkpoint_minutes": 0}
    config = job_config(tracker.store, sparse.experiment, [stage], **given)
    monkeypatch.setattr("elth.training._CHECK_EVERY", 1)
    whole, steps = Engine.step, [0]

    def counted(self: Engine, *args: Any, **named: Any) -> None:
        steps[0] += 1
        if steps[0] == ends + 1:
            raise Dead
        whole(self, *args, **named)

    monkeypatch.setattr(Engine, "step", counted)
    with pytest.raises(Dead):
        list(run_job(config, Worker()))
    assert not any(report.failed or report.note for report in run_job(config, Worker()))
    assert steps[0] <= 42 + 2, "it went on, and did not begin again"
    tracker.forget()
    one, other = (at.load(stage.key)[1] for at in (tracker, sparse.tracker))
    assert _equal(one.mask, other.mask)
    assert _equal(one.trained, other.trained)
