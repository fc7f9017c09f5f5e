"""Trained weights: kept where an entry says so, exported, and never trained again unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from pydantic import ValidationError

from elth.errors import ElthError
from elth.networks import build
from elth.streams import stream
from elth.tickets import Ticket
from orchestrator import plan as plans
from orchestrator.cli.main import cli
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import Stage
from orchestrator.store.address import Store
from orchestrator.store.files import TRAINED
from orchestrator.store.keeping import Weightless, note_of, weightless
from orchestrator.store.tracker import Tracker
from orchestrator.work.worker import Worker, run_job
from tests.orchestrator.helpers import RECIPE, TINY, job_config, of_kind, tiny, write_yaml

ENTRIES: list[dict[str, Any]] = [
    {"method": "reinit", "network": TINY, "round": [1]},
    {"method": "random", "network": TINY, "round": [1]},
]
KEPT = [ENTRIES[0] | {"keep": "weights"}, ENTRIES[1]]
ONE = {"rate": 0.5, "rounds": 1}


def elth(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def by_method(built: Plan, method: str) -> Stage:
    return next(stage for stage in of_kind(built, "retraining") if stage.labels["method"] == method)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tracker, Plan]:
    """A store with a chain of one round, Reinit with its weights and Random without."""
    found = tiny("keep", pruning=ONE, grid=KEPT)
    built = plans.build(found)
    store = Store.of(tmp_path_factory.mktemp("keep"))
    tracker, worker = Tracker(store), Worker()
    tracker.grids.extend(found, built, tracker.grids.change(found, built))
    for job in built.jobs():
        config = job_config(store, found, job.stages, keep=sorted(built.kept))
        for report in run_job(config, worker):
            assert not report.failed, report.failed
    return tracker, built


def test_what_is_kept_is_in_no_key_and_in_no_label() -> None:
    plain, kept = (plans.build(tiny("keep", pruning=ONE, grid=grid)) for grid in (ENTRIES, KEPT))
    assert list(plain.stages) == list(kept.stages)
    assert [one.describe() for one in plain.stages.values()] == [
        one.describe() for one in kept.stages.values()
    ]
    assert plain.kept == frozenset()
    assert kept.kept == {by_method(kept, "reinit").key}
    assert "keep: weights" not in tiny("keep", grid=ENTRIES).resolved()
    assert "keep: weights" in tiny("keep", grid=KEPT).resolved()


def test_one_of_two_entries_of_a_cell_is_enough() -> None:
    for grid in ([*ENTRIES, KEPT[0]], [KEPT[0], *ENTRIES]):
        built = plans.build(tiny("keep", pruning=ONE, grid=grid))
        assert built.kept == {by_method(built, "reinit").key}


def test_keep_is_weights_or_not_there() -> None:
    for wrong in ("all", True, ["weights"]):
        with pytest.raises(ValidationError):
            tiny("keep", grid=[ENTRIES[0] | {"keep": wrong}])


def test_a_plan_counts_what_is_kept(tmp_path: Path) -> None:
    built = plans.build(tiny("keep", pruning=ONE, grid=KEPT))
    stage = by_method(built, "reinit")
    assert plans.stored_bytes(stage, True) > plans.stored_bytes(stage) + 40_000


def test_trained_weights_of_a_retraining_are_kept_where_an_entry_says_so(
    done: tuple[Tracker, Plan],
) -> None:
    tracker, built = done
    for method, kept in (("reinit", True), ("random", False)):
        run = tracker.run_of(by_method(built, method).key)
        assert run is not None
        assert (TRAINED in tracker.files.sizes(run.info.run_id, "result")) == kept
        assert "elth.trained_sha256" in run.data.tags


@pytest.mark.parametrize("weights", ["rewind", "trained"])
def test_a_state_dict_is_what_pytorch_loads_with_the_mask_applied(
    done: tuple[Tracker, Plan], tmp_path: Path, weights: str
) -> None:
    tracker, built = done
    stage, result = tracker.load(by_method(built, "reinit").key)
    words = ["--weights", weights, "--store", tracker.store]
    told = elth("ticket", "export", stage.key, "-o", tmp_path / "t.safetensors", *words)
    which = "at the rewind point" if weights == "rewind" else "after the training"
    assert f"a ticket, with the weights {which}\nwrote {tmp_path}" in told.output
    told = elth("ticket", "export", stage.key, "--format", "torch", "-o", tmp_path / "t.pt", *words)
    assert f"a PyTorch state dict, masked, with the weights {which}" in told.output
    state = torch.load(tmp_path / "t.pt", weights_only=True)
    ticket = Ticket.load(tmp_path / "t.safetensors")
    network = build(TINY, ticket.shape, generator=stream(1, "init"))
    network.load_state_dict(state)
    assert result.mask is not None
    assert result.trained is not None
    for name, mask in result.mask.items():
        assert not state[name][~mask].any()
        assert ticket.mask[name].equal(mask)
    if weights == "trained":
        assert all(state[name].equal(tensor) for name, tensor in result.trained.items())
        assert all(ticket.rewind[name].equal(t) for name, t in result.trained.items())
        assert ticket.origin["start"] == 42
        shown = elth("ticket", "show", tmp_path / "t.safetensors").output
        assert "weights after the training, at iteration 42" in shown
    else:
        assert all(state[name].equal(t) for name, t in ticket.weights().items())
        assert any(not state[name].equal(tensor) for name, tensor in result.trained.items())


def test_default_names_tell_which(
    done: tuple[Tracker, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, built = done
    monkeypatch.chdir(tmp_path)
    key = by_method(built, "reinit").key
    words = ["--weights", "trained", "--format", "torch", "--store", tracker.store]
    assert elth("ticket", "export", key, *words).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == [f"resnet14-width-4-{key[:8]}-trained.pt"]


def test_weights_that_were_not_kept_are_told_with_the_way_to_have_them(
    done: tuple[Tracker, Plan], tmp_path: Path
) -> None:
    tracker, built = done
    stage = by_method(built, "random")
    told = elth("ticket", "export", stage.key, "--weights", "trained", "--store", tracker.store)
    assert isinstance(told.exception, ElthError)
    assert "was finished without keeping its trained weights" in str(told.exception)
    assert "says keep: weights" in str(told.exception)
    assert f"--redo '{stage.title}'" in str(told.exception)
    start = of_kind(built, "rewind_point")[0]
    told = elth("ticket", "export", start.key, "--weights", "trained", "--store", tracker.store)
    assert "is a rewind point, which has no mask" in str(told.exception)


def test_what_was_finished_without_its_weights_is_named_and_not_to_do(
    done: tuple[Tracker, Plan], tmp_path: Path
) -> None:
    tracker, built = done
    both = [entry | {"keep": "weights"} for entry in ENTRIES]
    wanted = plans.build(tiny("keep", pruning=ONE, grid=both))
    finished = {one.key: one for one in tracker.stages()}
    lacking = weightless(tracker, wanted, finished).asked
    assert [stage.title for stage in lacking] == [by_method(built, "random").title]
    assert weightless(tracker, built, finished) == Weightless()
    assert note_of([]) == []
    config = write_yaml(
        tmp_path / "keep.yaml",
        {"dataset": "digits", "seeds": [0], "recipe": RECIPE, "pruning": ONE, "grid": both},
    )
    told = elth("plan", config, "--store", tracker.store)
    assert "note: 1 stages were finished without the trained weights that keep: " in told.output
    assert f"elth run CONFIG --redo '{lacking[0].title}'" in told.output
    assert "Nothing to do: every stage is finished" in told.output
