"""A job in this process: everything that a trial does, without Ray's processes."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import sys
import weakref
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from mlflow.entities import Run
from ray.exceptions import RayTaskError
from torchvision.io import write_png

import elth
from elth import masks
from elth.checkpoints import Checkpoint
from elth.data import Dataset, make_manifest
from elth.engine import Engine
from elth.errors import ElthError
from elth.parallel import Group
from elth.tickets import Ticket, state_digest
from elth.training import Training
from orchestrator import plan
from orchestrator.experiment.pruning import Pruning
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.schedule import Schedule
from orchestrator.plan.stage import Stage
from orchestrator.store.address import Store
from orchestrator.store.away import AwayError
from orchestrator.store.inflight import InFlight
from orchestrator.store.marks import REDONE, is_finished
from orchestrator.store.runlog import begin_run
from orchestrator.store.tracker import Tracker
from orchestrator.work import training
from orchestrator.work import worker as worker_module
from orchestrator.work.deaths import Deaths, LostGpuError
from orchestrator.work.resources import numerics
from orchestrator.work.search import PlanSearch
from orchestrator.work.telling import Report
from orchestrator.work.tickets import ticket_of
from orchestrator.work.worker import Worker, follow, run_job
from tests.orchestrator.helpers import (
    INFINITE,
    RECIPE,
    TINY,
    Finished,
    artifact,
    job_config,
    of_kind,
    rewind_result,
    round_of,
    tiny,
)


@pytest.fixture(scope="module")
def worker() -> Worker:
    """A process that goes from job to job."""
    return Worker()


def _reports(
    store: Store, found: Experiment, todo: Sequence[Stage], worker: Worker, **changes: Any
) -> list[Report]:
    return list(run_job(job_config(store, found, todo, **changes), worker))


def _runs(tracker: Tracker, grid: str) -> list[Run]:
    return list(tracker.search(f"tags.`grid.{grid}` = 'true'"))


def test_every_stage_of_a_grid_is_tracked(finished: Finished) -> None:
    found = finished.tracker.stages("done")
    assert {one.key for one in found} == set(finished.plan.stages)
    assert {one.status for one in found} == {"finished"}
    assert len(found) == len(finished.plan.stages) == 24
    rounds = {k: masks.kept_after(0.5, k, 11_012) for k in (0, 1, 2)}
    for one in found:
        assert "done" in one.grids
        assert one.seconds is not None
        assert one.accuracy is not None
        assert one.numerics.startswith("cpu-")
        if one.stage.kind == "round" and one.stage.labels["network"] == TINY:
            assert (one.nonzeros, one.prunable) == (rounds[one.stage.labels["round"]], 11_012)


def test_a_tracked_run_holds_what_its_stage_left(finished: Finished) -> None:
    stage = round_of(finished.plan, TINY, 2)
    again, result = finished.tracker.load(stage.key)
    assert again == stage
    assert result.mask is not None
    assert result.trained is not None
    assert masks.nonzeros(result.mask) == 11_012 // 4
    assert all(not result.trained[n][~m].any() for n, m in result.mask.items())
    run = finished.tracker.run_of(stage.key)
    assert run is not None
    files = {f.path for f in finished.tracker.client.list_artifacts(run.info.run_id)}
    assert files == {"experiment.yaml", "layers.json", "result"}
    kept = {f.path for f in finished.tracker.client.list_artifacts(run.info.run_id, "result")}
    assert kept == {"result/mask.safetensors", "result/trained.safetensors"}


def test_a_notebook_finds_the_tickets_of_the_system(finished: Finished) -> None:
    """``elth.imp`` takes the same seeds and steps: mask, weights and accuracy are the same bits."""
    data = elth.load_dataset("digits")
    recipe = round_of(finished.plan, TINY, 0, 1).recipe
    tracked = {one.key: one for one in finished.tracker.stages("done")}
    for found in elth.imp(TINY, data, recipe, seed=1, rate=0.5, rounds=2):
        stage = round_of(finished.plan, TINY, found.number, 1)
        ticket = ticket_of(stage, finished.tracker.load)
        assert masks.digest(found.mask) == masks.digest(ticket.mask)
        assert state_digest(found.rewind) == state_digest(ticket.rewind)
        assert found.ticket.origin == ticket.origin
        assert found.accuracy == tracked[stage.key].accuracy
        _, result = finished.tracker.load(stage.key)
        assert result.trained is not None
        assert all(torch.equal(found.trained[n], t) for n, t in result.trained.items())


def test_of_retrainings_the_weights_are_not_kept(finished: Finished) -> None:
    for stage in of_kind(finished.plan, "retraining")[:2]:
        run = finished.tracker.run_of(stage.key)
        assert run is not None
        kept = {f.path for f in finished.tracker.client.list_artifacts(run.info.run_id, "result")}
        assert kept == {"result/mask.safetensors"}


def test_every_kind_of_step_is_trained_and_its_ticket_can_be_made_again(
    store: Store, tracker: Tracker, worker: Worker
) -> None:
    """On one pruning: criteria, controls of moved tickets, width, datasets, an exact sparsity."""
    moved = {"source": TINY, "network": "resnet20(width=4)"}
    found = tiny(
        "steps",
        recipe={**RECIPE, "length": "1ep", "rewind": "2it", "milestones": []},
        pruning={"rate": 0.5, "rounds": 1},
        grid=[
            {"method": ["snip", "grasp", "synflow", "shuffle_global"], "network": TINY},
            {"method": ["ett_random_extra", "ett_snip_extra"], **moved},
            {"method": "ett", **moved, "network": "resnet14(width=8)", "transform": "double"},
            {"method": "ett", **moved, "source_dataset": "digits", "dataset": "digits(size=16)"},
            {"method": "imp", "network": TINY, "sparsity": 0.6},
        ],
    )
    built = plan.build(found)
    for job in built.jobs():
        assert not any(report.failed for report in _reports(store, found, job.stages, worker))
    kept = {}
    for stage in of_kind(built, "retraining"):
        _, result = tracker.load(stage.key)
        assert result.mask is not None
        ticket = ticket_of(stage, tracker.load, known=result.mask)
        assert masks.digest(ticket.mask) == masks.digest(result.mask)
        kept[stage.labels["method"], stage.labels["network"], stage.labels["dataset"]] = (
            ticket.nonzeros
        )
    for method in ("snip", "grasp", "synflow", "shuffle_global"):
        assert kept[method, TINY, "digits"] == 11_012 // 2
    extra = {
        kept[f"ett_{name}_extra", "resnet20(width=4)", "digits"] for name in ("random", "snip")
    }
    assert len(extra) == 1  # both have the count of the moved ticket
    (last,) = (stage for stage in of_kind(built, "round") if "keep" in stage.params)
    _, result = tracker.load(last.key)
    assert result.mask is not None
    assert masks.nonzeros(result.mask) == 4404  # 40 % of 11,012
    tracked = tracker.stages("steps")
    assert {one.key for one in tracked if one.status == "finished"} == set(built.stages)


def test_reports_tell_every_epoch_and_every_end(
    store: Store, tracker: Tracker, worker: Worker
) -> None:
    recipe = {**RECIPE, "length": "3ep"}
    found = tiny("reports", recipe=recipe, grid=[{"method": "dense", "network": TINY}])
    start, dense = plan.build(found).stages.values()
    reports = _reports(store, found, [start, dense], worker)
    assert [(r.index, r.fraction, r.failed) for r in reports] == [
        (0, 1.0, ""),
        (1, 0.0, ""),
        (1, 0.5, ""),
        (1, 1.0, ""),
        (2, 0.0, ""),
    ]
    tracked = {one.key: one for one in tracker.stages("reports")}
    assert reports[3].accuracy == tracked[dense.key].accuracy
    assert reports[0].accuracy == tracked[start.key].accuracy
    assert reports[1].accuracy is None


@pytest.mark.usefixtures("no_training")
def test_what_is_finished_is_not_done_again(finished: Finished) -> None:
    before = {run.info.run_id for run in _runs(finished.tracker, "done")}
    for job in finished.plan.jobs():
        reports = _reports(finished.store, finished.experiment, job.stages, Worker())
        count = len(job.stages)
        assert reports == [Report(index=i + 1) for i in range(count)]
    assert {run.info.run_id for run in _runs(finished.tracker, "done")} == before


@pytest.mark.usefixtures("no_training")
def test_a_stage_that_another_grid_has_finished_meanwhile_joins(finished: Finished) -> None:
    other = tiny("latecomer", grid=[{"method": "imp", "network": TINY}])
    built = plan.build(other)
    assert set(built.stages) < set(finished.plan.stages)
    _reports(finished.store, other, list(built.stages.values()), Worker())
    assert {one.key for one in finished.tracker.stages("latecomer")} == set(built.stages)


def test_the_same_job_twice_gives_the_same_bits(
    store: Store, tracker: Tracker, finished: Finished
) -> None:
    found = tiny("again", grid=[{"method": "imp", "network": TINY, "round": 1}])
    todo = list(plan.build(found).stages.values())
    assert not any(report.failed for report in _reports(store, found, todo, Worker()))
    accuracy = {one.key: one.accuracy for one in finished.tracker.stages()}
    for stage in todo:
        _, left = tracker.load(stage.key)
        _, right = finished.tracker.load(stage.key)
        for one, two in ((left.rewind, right.rewind), (left.trained, right.trained)):
            assert (one is None) == (two is None)
            for name, tensor in (one or {}).items():
                assert tensor.equal((two or {})[name])
    again = {one.key: one.accuracy for one in tracker.stages("again")}
    assert len(again) == 3
    assert again.items() <= accuracy.items()


def test_a_loss_that_is_not_finite_stops_its_stage_only(
    store: Store, tracker: Tracker, worker: Worker
) -> None:
    found = tiny("infinite", recipe=INFINITE)
    built = plan.build(found)
    (job,) = built.jobs()
    *before, last = _reports(store, found, job.stages, worker)
    assert [report.index for report in before] == [0, 1]  # one step from finite weights is finite
    assert last.index == 1
    assert last.failed.startswith("the training loss was not finite at iteration ")
    tracked = tracker.stages("infinite")
    assert [(one.stage.kind, one.status) for one in tracked] == [
        ("rewind_point", "finished"),
        ("round", "failed"),
    ]
    assert (tracked[1].reason, tracked[1].is_final) == (last.failed, True)
    run = tracker.get(tracked[1].run_id)
    assert run.info.status == "FAILED"
    artifacts = {f.path for f in tracker.client.list_artifacts(run.info.run_id)}
    assert artifacts == {"traceback.txt"}
    with pytest.raises(ValueError, match="has no finished stage"):
        tracker.load(tracked[1].key)
    # The process goes on with another job, and nothing of the failure clings to its network.
    healthy = tiny("healthy", seeds=[7], grid=[{"method": "dense", "network": TINY}])
    todo = list(plan.build(healthy).stages.values())
    assert not any(report.failed for report in _reports(store, healthy, todo, worker))
    fresh = _reports(store, healthy, todo, Worker())
    assert [report.index for report in fresh] == [1, 2]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "CUDA out of"),
        (RuntimeError("CUDA error: out of memory\nSearch for `cudaError"), "CUDA error: out of"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "cuDNN error: CUDNN_STATUS_ALLOC"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "[enforce fail] DefaultCPUAllocator: can't",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
    ],
    ids=repr,
)
def test_a_lack_of_memory_is_named_with_what_would_help(error: Exception, said: str) -> None:
    reason = worker_module._reason(error)
    assert reason.startswith(f"memory ran out ({said}")
    assert "fewer trials at a time (resources.concurrent)" in reason
    assert "\n" not in reason


def test_a_reason_is_no_longer_than_people_read() -> None:
    assert worker_module._reason(ElthError("no " * 300)).endswith("no no")
    long = worker_module._reason(ValueError("no " * 3000))
    assert len(long) < 1100
    assert long.startswith("ValueError: no no")
    assert long.endswith(" ... (the whole is in traceback.txt of its run)")


def test_a_failure_of_another_kind_is_not_final(
    store: Store, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object, **__: object) -> Iterator[object]:
        raise ZeroDivisionError("no room\nfor it")

    found = tiny("memory", seeds=[11])
    todo = list(plan.build(found).stages.values())
    monkeypatch.setattr(training, "train", train)
    assert _reports(store, found, todo, Worker()) == [
        Report(index=0, failed="ZeroDivisionError: no room for it")
    ]
    (tracked,) = tracker.stages("memory")
    assert (tracked.status, tracked.is_final) == ("failed", False)
    assert tracked.reason == "ZeroDivisionError: no room for it"
    monkeypatch.undo()
    assert not any(report.failed for report in _reports(store, found, todo[:1], Worker()))
    (again,) = tracker.stages("memory")  # the run of the failure is gone
    assert again.status == "finished"


def test_a_process_whose_gpu_failed_ends_and_another_does_its_stage(
    store: Store, tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "CUDA error: an illegal memory access was encountered"

    def train(*_: object, **__: object) -> Iterator[object]:
        raise torch.AcceleratorError(f"{said}\nCUDA kernel errors might be reported later")

    found = tiny("illegal", seeds=[15])
    built = plan.build(found)
    schedule = Schedule(built, (), {}, slots=1)
    search = PlanSearch(schedule)
    todo = list(map(Stage.of, search.suggest("a")["stages"]))
    monkeypatch.setattr(training, "train", train)
    with pytest.raises(LostGpuError) as raised:
        _reports(store, found, todo, Worker())
    assert str(raised.value) == said
    (tracked,) = tracker.stages("illegal")
    assert (tracked.status, tracked.is_final) == ("failed", False)
    assert said in str(tracked.reason)
    search.on_trial_complete("a", error=True)
    answer = RayTaskError("f", "Traceback", raised.value).as_instanceof_cause()
    search.died("a", Deaths(tmp_path).look(answer))
    now = schedule.snapshot()
    told = f"{todo[0].title} is begun again: the GPU failed and its process was ended ({said})"
    assert (now.failed, now.blocked, now.notes) == ({}, 0, (told,))
    monkeypatch.undo()
    assert not any(report.failed for report in _reports(store, found, todo[:1], Worker()))
    (again,) = tracker.stages("illegal")
    assert again.status == "finished"


def test_a_process_that_finds_no_gpu_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: float) -> None:
        raise RuntimeError("No CUDA GPUs are available")

    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", refuse)
    with pytest.raises(LostGpuError, match="No CUDA GPUs are available"):
        _reports(store, tiny("none"), [], Worker(), gpus=0.5)


def _no_room() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_a_stage_without_room_goes_on_once_its_process_has_let_go_of_all_else(
    store: Store, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training.train
    kept: list[weakref.ref[Any]] = []
    emptied, went_on = [], []

    def train(
        stage: Stage,
        ticket: Ticket | None,
        data: Dataset,
        engine: Engine,
        *,
        saved: Checkpoint | None = None,
        **more: Any,
    ) -> Generator[Any, None, Any]:
        went_on.append(saved is not None)
        training_ = real(stage, ticket, data, engine, saved=saved, **more)
        if stage.kind == "round" and not kept:
            yield next(training_)
            kept.extend([weakref.ref(data), weakref.ref(engine)])
            yield next(training_)  # the checkpoint of the first is written
            raise _no_room()
        return (yield from training_)

    def empty() -> None:
        assert [one() for one in kept] == [None, None]
        emptied.append(True)

    found = tiny("room", seeds=[16], recipe={**RECIPE, "length": "4ep"})
    todo = list(plan.build(found).stages.values())[:2]
    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty)
    reports = _reports(store, found, todo, Worker(), checkpoint_minutes=0)
    assert emptied == [True]
    assert went_on == [False, False, True]
    assert not any(report.failed for report in reports)
    (note,) = {report.note for report in reports} - {""}
    assert note.startswith(
        f"{todo[1].title} is tried once more, with nothing else of its process on the GPU: "
        "memory ran out (CUDA out of memory. Tried"
    )
    assert [one.status for one in tracker.stages("room")] == ["finished", "finished"]


def test_a_stage_without_room_for_its_engine_is_tried_twice(
    store: Store, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def make(*_: object, **__: object) -> object:
        tried.append(True)
        raise _no_room()

    found = tiny("no-room", seeds=[17])
    todo = list(plan.build(found).stages.values())
    monkeypatch.setattr(training, "engine_for", make)
    first, second = _reports(store, found, todo, Worker())
    assert len(tried) == 2
    assert first.note.startswith(f"{todo[0].title} is tried once more")
    assert second.failed.startswith("memory ran out (CUDA out of memory. Tried")
    monkeypatch.undo()
    assert not any(report.failed for report in _reports(store, found, todo[:1], Worker()))
    assert [one.status for one in tracker.stages("no-room")] == ["finished"]


def test_a_missing_dataset_is_a_failure_with_how_to_get_it(
    store: Store, tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe = {"base": "mnist_mlp", "length": "1ep"}
    found = tiny(
        "nodata", dataset="mnist", recipe=recipe, grid=[{"method": "imp", "network": "mlp1"}]
    )
    place = {"root": str(tmp_path_factory.mktemp("empty")), "download": False}
    todo = list(plan.build(found).stages.values())
    (report,) = _reports(store, found, todo, Worker(), data=place)
    assert report.failed.startswith(f"the dataset mnist is not in {place['root']} (")
    (run,) = Tracker(store).stages("nodata")
    assert (run.status, run.is_final) == ("failed", False)
    assert run.reason.startswith("the dataset mnist is not in ")


def _unready(patch: pytest.MonkeyPatch, error: Exception) -> None:
    """No stage can be begun, by an error."""

    def prepare(*_: object) -> object:
        raise error

    patch.setattr(worker_module, "_prepare", prepare)


def test_what_cannot_be_begun_is_a_failed_run_with_the_traceback(
    store: Store, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a criterion from outside fails: whoever wrote it needs to see where."""
    found = tiny("unready", seeds=[14])
    todo = list(plan.build(found).stages.values())
    with monkeypatch.context() as patch:
        _unready(patch, ZeroDivisionError("in the midst of a criterion"))
        (report,) = _reports(store, found, todo[:1], Worker())
    assert report.failed == "ZeroDivisionError: in the midst of a criterion"
    (run,) = tracker.stages("unready")
    assert (run.status, run.is_final, run.reason) == ("failed", False, report.failed)
    details = artifact(tracker, run.run_id, "traceback.txt").read_text(encoding="utf-8")
    assert "in prepare" in details
    assert not any(one.failed for one in _reports(store, found, todo[:1], Worker()))
    assert [one.status for one in tracker.stages("unready")] == ["finished"]


def test_what_is_no_fault_of_a_stage_leaves_no_run_of_it(
    store: Store, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tiny("away", seeds=[15])
    todo = list(plan.build(found).stages.values())
    _unready(monkeypatch, AwayError("the store is away"))
    (report,) = _reports(store, found, todo[:1], Worker())
    assert report.failed
    assert tracker.stages("away") == []


def test_a_job_without_its_parents_fails_and_says_so(store: Store, worker: Worker) -> None:
    found = tiny("orphan", seeds=[12])
    stage = of_kind(plan.build(found), "round")[1]
    (report,) = _reports(store, found, [stage], worker)
    assert "has no finished stage" in report.failed


def test_layer_sparsities_are_tracked(finished: Finished) -> None:
    stage = round_of(finished.plan, TINY, 2)
    run = finished.tracker.run_of(stage.key)
    assert run is not None
    layers = json.loads(artifact(finished.tracker, run.info.run_id, "layers.json").read_text())
    _, result = finished.tracker.load(stage.key)
    assert result.mask is not None
    assert layers == masks.layer_sparsity(result.mask)


# Chains that end before their last round


@pytest.mark.usefixtures("no_training")
def test_a_job_ends_with_the_last_round_of_its_chain(stopped: Finished) -> None:
    job = next(job for job in stopped.plan.jobs() if len(job.stages) == 6)
    assert [stage.labels["round"] for stage in job.stages] == [0, 0, 1, 2, 3, 4]
    *before, last = _reports(stopped.store, stopped.experiment, job.stages, Worker())
    assert before == [Report(index=i) for i in (1, 2, 3)]
    why = f"{TINY} round 2, seed 0 has 11.2 % < 12 %"
    assert last == Report(index=4, last=job.stages[3].key, because=why)
    assert last.is_last


@pytest.mark.usefixtures("no_training")
def test_a_job_that_begins_after_the_last_round_does_nothing(stopped: Finished) -> None:
    """The report that told of it is lost where its process died: what the store holds decides."""
    job = next(job for job in stopped.plan.jobs() if len(job.stages) == 6)
    (only,) = _reports(stopped.store, stopped.experiment, job.stages[4:], Worker())
    assert (only.index, only.last, only.failed) == (0, job.stages[3].key, "")
    assert only.is_last


def test_without_a_stop_nothing_is_asked(
    stopped: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.work.worker.verdict", None)
    found = stopped.experiment.model_copy(update={"pruning": Pruning(rate=0.5, rounds=2)})
    stages = list(plan.build(found).stages.values())[:4]
    reports = _reports(stopped.store, found, stages, Worker())
    assert reports == [Report(index=i) for i in (1, 2, 3, 4)]


def test_a_round_that_is_trained_now_may_be_the_last(
    store: Store, tracker: Tracker, worker: Worker
) -> None:
    stop = {"accuracy_below": 100}
    found = tiny("hopeless", seeds=[31], pruning={"rate": 0.5, "rounds": 2, "stop": stop})
    stages = list(plan.build(found).stages.values())
    last = _reports(store, found, stages, worker)[-1]
    assert (last.index, last.last) == (2, stages[1].key)
    assert last.because.startswith(f"{TINY} dense round 0, seed 31 has ")
    assert last.because.endswith(" % < 100 %, before any pruning")
    assert [one.key for one in tracker.stages("hopeless")] == [stage.key for stage in stages[:2]]


# What a process keeps


def test_a_worker_keeps_a_few_large_results_the_latest_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = of_kind(plan.build(tiny("kept")), "rewind_point")[0]
    worker = Worker()
    for number in range(12):
        worker.keep(str(number), (stage, rewind_result()))
    assert len(worker.results) == 12  # all of them are small
    size = rewind_result().nbytes
    assert 4 * 11_012 < size < 5 * 11_012
    monkeypatch.setattr("orchestrator.work.worker._KEPT_BYTES", 9 * size)
    worker.keep("9", (stage, rewind_result()))
    assert list(worker.results) == ["3", "4", "5", "6", "7", "8", "10", "11", "9"]
    monkeypatch.setattr("orchestrator.work.worker._KEPT_BYTES", 0)
    worker.keep("11", (stage, rewind_result()))
    assert list(worker.results) == ["4", "5", "6", "7", "8", "10", "9", "11"]


def test_a_worker_reads_a_result_once(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    tracker = worker.tracker(str(finished.store))
    assert worker.tracker(str(finished.store)) is tracker
    key = next(iter(finished.plan.stages))
    first = worker.load(tracker, key)
    monkeypatch.setattr(Tracker, "load", None)
    assert worker.load(tracker, key) is first


def test_a_worker_forgets_what_it_read_once_a_result_has_been_replaced(
    finished: Finished, tracker: Tracker
) -> None:
    worker, key = Worker(), next(iter(finished.plan.stages))
    worker.refresh(tracker)
    first = worker.load(finished.tracker, key)
    worker.refresh(tracker)
    assert worker.load(finished.tracker, key) is first
    tracker.client.set_experiment_tag(tracker.experiments["elth"], REDONE, "of now")
    worker.refresh(tracker)
    assert worker.load(finished.tracker, key) is not first


_PLACE = {"root": "data", "download": False}


def test_a_worker_reads_a_dataset_once(finished: Finished) -> None:
    worker, stage = Worker(), round_of(finished.plan, TINY, 2)
    data = worker.dataset(stage, _PLACE, "cpu")
    assert worker.dataset(stage, _PLACE, "cpu") is data


def test_images_that_were_replaced_since_the_plan_are_not_trained_on(
    tmp_path: Path, store: Store, tracker: Tracker
) -> None:
    images, manifest = tmp_path / "blots", tmp_path / "blots.json"
    draw = torch.Generator().manual_seed(0)

    def images_of(count: int) -> None:
        for part, word in itertools.product(("train", "val"), ("ink", "oil")):
            (images / part / word).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = torch.randint(0, 256, (3, 16, 16), generator=draw, dtype=torch.uint8)
                write_png(pixels, str(images / part / word / f"{number}.png"))
        make_manifest(images, "blots", manifest)

    images_of(2)
    changes = {"dataset": f"folder(manifest={manifest},size=16)", "seeds": [14]}
    found = tiny("blots", **changes)
    todo, worker = list(plan.build(found).stages.values())[:1], Worker()
    worker.dataset(todo[0], _PLACE, "cpu")
    images_of(3)
    (new, *_) = plan.build(found).stages.values()
    assert new.key != todo[0].key, "a plan goes by the manifest as it is now"
    assert len(worker.dataset(new, _PLACE, "cpu").train_labels) == 6
    (report,) = _reports(store, found, todo, worker)
    assert "the dataset blots(size=16) is another now than when the plan of" in report.failed
    assert "(fingerprint " in report.failed
    assert report.failed.endswith("give the command again, which plans with what is there now")
    assert not any(map(is_finished, tracker.runs_of(todo[0].key)))


def test_where_compiling_fails_it_is_told_once_and_the_class_says_so(
    store: Store, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(function: object, **_: object) -> object:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", broken)
    found = tiny("slow", seeds=[12])
    built = plan.build(found)
    with pytest.warns(UserWarning, match="compiling CifarResNet failed"):
        reports = _reports(store, found, list(built.stages.values()), Worker(), compile=True)
    assert not any(report.failed for report in reports)
    assert {one.numerics for one in tracker.stages("slow")} == {numerics(1, 0, "eager")}
    schedule = Schedule(built, {}, {}, slots=1)
    search = PlanSearch(schedule)
    search.suggest("a")
    for report in reports:
        search.on_trial_result("a", {"report": dataclasses.astuple(report)})
    (note,) = schedule.snapshot().notes
    assert note.startswith("compiling CifarResNet failed, and it is trained operation by operation")


def test_of_a_shared_gpu_a_trial_takes_its_share_of_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    for gpus in (0, 0.25, 1):
        _reports(store, tiny("shared"), [], Worker(), gpus=gpus)
    assert shares == [0.25]


def test_the_class_of_a_group_has_what_all_its_workers_compute_on(
    store: Store, tracker: Tracker, worker: Worker
) -> None:
    found = tiny("unlike", seeds=[15])
    todo = of_kind(plan.build(found), "rewind_point")
    assert not any(one.failed for one in _reports(store, found, todo, worker, device="A+H"))
    (tracked,) = tracker.stages("unlike")
    assert tracked.numerics == numerics(1, 0, "eager", 1, "A+H")
    assert tracked.numerics.startswith("A+H/torch-")


def test_workers_meet_wherever_the_first_one_may_have_waited_for_the_storage(
    store: Store, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at the same iterations, or they would wait for ever."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    alone = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=alone, rank=0, world_size=1)
    group, tasks, met = Group(0, 1, torch.device("cpu")), list[Any](), list[str]()
    saved = InFlight.save_if_due

    def save(self: InFlight, at: Training) -> None:
        met.append(f"saved {at.step}")
        saved(self, at)

    monkeypatch.setattr(InFlight, "save_if_due", save)
    monkeypatch.setattr(Group, "meet", lambda self: met.append("met"))
    grid = [{"method": "dense", "network": TINY}]
    found = tiny("together", seeds=[16], grid=grid, recipe={**RECIPE, "length": "3ep"})
    config = job_config(store, found, list(plan.build(found).stages.values()))

    def share(self: Group, value: Any = None) -> Any:
        tasks.append(value)
        return value

    try:
        with monkeypatch.context() as first:
            first.setattr(Group, "share", share)
            assert not any(report.failed for report in run_job(config, Worker(), group))
        assert tasks[-1] is None, "the end"
        first_met, met[:] = [*met], []
        todo = iter(tasks)
        monkeypatch.setattr(Group, "share", lambda self, value=None: next(todo))
        follow(config, Worker(), group)
    finally:
        dist.destroy_process_group()
    assert first_met[1::2] == met
    assert len(met) > 0
    assert all(one.startswith("saved ") for one in first_met[::2])


def test_a_result_of_a_dead_attempt_is_not_read(tracker: Tracker) -> None:
    found = tiny("dead", seeds=[13])
    start = of_kind(plan.build(found), "rewind_point")[0]
    log = begin_run(tracker, start, None, grid="dead", experiment="", driver="x:1:1", numerics="")
    log.fail("it broke", final=False, details="")
    assert tracker.run_of(start.key) is None
