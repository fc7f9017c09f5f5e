"""Checkpoints of stages: what a dead process leaves, and who goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from elth import training
from elth.engine import Engine
from elth.training import Training
from orchestrator import plan
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.stage import Stage
from orchestrator.store.address import Store
from orchestrator.store.inflight import InFlight, Stopped
from orchestrator.store.tracker import Tracker
from orchestrator.work.telling import Report
from orchestrator.work.worker import Worker, run_job
from tests.orchestrator.helpers import job_config, tiny

LONGER = {"length": "5ep", "rewind": "1ep", "batch_size": 64, "milestones": ["3ep"]}
"""Five epochs of 21 iterations."""


class Dead(BaseException):
    """The process ends here, with nothing done about it."""


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every fourth iteration."""
    monkeypatch.setattr(training, "_CHECK_EVERY", 4)


def _job(name: str, seed: int) -> tuple[Experiment, list[Stage]]:
    found = tiny(name, recipe=LONGER, seeds=[seed], pruning={"rate": 0.5, "rounds": 1})
    return found, list(plan.build(found).stages.values())


def _run(store: Store, job: tuple[Experiment, list[Stage]], **changes: Any) -> list[Report]:
    found, todo = job
    config = job_config(store, found, todo, checkpoint_minutes=0, **changes)
    return list(run_job(config, Worker()))


def _die_at(monkeypatch: pytest.MonkeyPatch, step: int) -> list[int]:
    """Iterations that are done; at one of them the process dies, once."""
    steps: list[int] = []
    whole = Engine.step

    def counted(self: Any, *args: Any, **named: Any) -> None:
        steps.append(1)
        if len(steps) == step:
            raise Dead
        whole(self, *args, **named)

    monkeypatch.setattr(Engine, "step", counted)
    return steps


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of trainings that nothing stopped."""
    return Store.of(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("step", "seed"), [(19, 51), (64, 52), (100, 53)])
def test_what_was_begun_goes_on_bit_for_bit(
    step: int, seed: int, often: None, whole: Store, store: Store
) -> None:
    """21 iterations of the rewind point, 84 of the dense network, 84 of the first round."""
    job = _job(f"flight-{seed}", seed)
    with pytest.MonkeyPatch.context() as patch:
        all_steps = _die_at(patch, 10_000)
        _run(whole, job)
    with pytest.MonkeyPatch.context() as patch:
        steps = _die_at(patch, step)
        with pytest.raises(Dead):
            _run(store, job)
        reports = _run(store, job)
    assert not any(report.failed or report.note for report in reports)
    assert len(all_steps) < len(steps) <= len(all_steps) + 4, "four are lost at most"
    one, other = Tracker(whole), Tracker(store)
    for stage in job[1]:
        a, b = one.load(stage.key)[1], other.load(stage.key)[1]
        for first, second in ((a.rewind, b.rewind), (a.mask, b.mask), (a.trained, b.trained)):
            assert (first is None) == (second is None)
            assert all(torch.equal(t, (second or {})[name]) for name, t in (first or {}).items())
        runs = [tracker.run_of(stage.key) for tracker in (one, other)]
        histories = [
            [(m.step, m.value) for m in tracker.client.get_metric_history(run.info.run_id, name)]
            for name in ("test_accuracy", "train_loss", "lr")
            for tracker, run in zip((one, other), runs, strict=True)
            if run is not None
        ]
        assert len(histories) == 6
        assert all(a == b for a, b in zip(histories[::2], histories[1::2], strict=True))
    keys = {stage.key for stage in job[1]}
    tracked = [one for one in other.stages() if one.key in keys]
    assert [one.status for one in tracked] == ["finished"] * 3, "no run of the dead is left"
    left = {path.name for path in store.inflight.glob("*")}
    assert not left & keys, "nothing is left of what is tracked"


def _flight(folder: Path, **changes: Any) -> InFlight:
    return InFlight(**{"folder": folder, "key": "k" * 64, "numerics": "n", "seconds": 0, **changes})


def _training() -> Training:
    from elth.data import load
    from elth.networks import build
    from elth.recipes import Recipe, Step
    from elth.streams import stream

    data = load("digits")
    network = build("mlp2(width=4)", data.info.shape, generator=stream(0, "init"))
    recipe = Recipe(length=Step(9, "it"), rewind=Step(0, "ep"))
    return Training(network, data, recipe, seed=0, state=network.state_dict())


def test_a_damaged_one_is_set_aside_and_the_one_before_is_taken(tmp_path: Path) -> None:
    run, flight = _training(), _flight(tmp_path)
    for step in (1, 2, 3):
        run.step = step
        flight.save_if_due(run)
    files = sorted(flight.place.iterdir())
    assert [path.name.partition("-")[2] for path in files] == [
        "000000000002.safetensors",
        "000000000003.safetensors",
    ], "two are kept"
    files[1].write_bytes(files[1].read_bytes()[:-9])
    again = _flight(tmp_path)
    found = again.newest()
    assert found is not None
    assert found.step == 2
    (note,) = again.notes
    assert note.startswith("a checkpoint is set aside and not used: ")
    assert files[1].with_suffix(".bad").exists()
    assert _flight(tmp_path).notes == []
    # Of another stage, whatever its folder says.
    other = _flight(tmp_path, key="j" * 64)
    other.place.mkdir()
    (other.place / files[0].name).write_bytes(files[0].read_bytes())
    assert other.newest() is None
    assert "is of another stage" in other.notes[0]


def test_another_numerics_class_is_told(tmp_path: Path) -> None:
    _flight(tmp_path).save_if_due(_training())
    again = _flight(tmp_path, numerics="m")
    assert again.newest() is not None
    assert again.notes == [
        "stage kkkkkkkkkkkk was begun in the numerics class n and goes on in m: its bits are not "
        "those of either alone"
    ]
    assert again.numerics == "n then m"
    again.clear()
    again.save_if_due(_training())
    third = _flight(tmp_path, numerics="m")
    third.newest()
    assert (third.numerics, third.notes) == ("n then m", [])
    back = _flight(tmp_path, numerics="n")
    back.newest()
    assert back.numerics == "n then m then n"


def test_one_of_a_training_that_began_otherwise_is_not_gone_on_from(tmp_path: Path) -> None:
    _flight(tmp_path, begins="a ticket").save_if_due(_training())
    assert _flight(tmp_path, begins="a ticket").newest() is not None
    again = _flight(tmp_path, begins="another")
    assert again.newest() is None
    (note,) = again.notes
    assert "is set aside and not used: what the stage is made of has come out different" in note
    assert _flight(tmp_path, begins="a ticket").newest() is None, "it is aside"


def test_they_are_as_far_apart_as_asked(tmp_path: Path) -> None:
    flight = _flight(tmp_path, seconds=1000)
    flight.save_if_due(_training())
    assert not tmp_path.joinpath("k" * 64).exists()


def test_where_none_can_be_written_training_goes_on(tmp_path: Path) -> None:
    tmp_path.joinpath("k" * 64).write_text("a file where the folder should be")
    flight = _flight(tmp_path)
    flight.save_if_due(_training())
    (note,) = flight.notes
    assert note.startswith("no checkpoint could be written, training goes on: ")
    assert flight.newest() is None


def test_where_none_can_be_written_at_the_end_of_a_run_that_is_said(tmp_path: Path) -> None:
    tmp_path.joinpath("k" * 64).write_text("a file where the folder should be")
    flight = _flight(tmp_path)
    flight.stop = lambda: True
    with pytest.raises(Stopped, match=r"stage kkkkkkkkkkkk was told to end and could not write"):
        flight.save_if_due(_training())
