"""Analyses as stages: what they look at, what they leave, and a kill in their middle."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import elth
from elth import analysis
from orchestrator import plan
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import Stage
from orchestrator.store import partial
from orchestrator.store.address import Store
from orchestrator.store.tracker import Tracker
from orchestrator.work.worker import Worker, run_job
from tests.orchestrator.helpers import TINY, Finished, job_config, tiny

PATH: dict[str, Any] = {"points": 3, "data": "test"}


def _experiment() -> Experiment:
    return tiny(
        "looked",
        seeds=[0, 1],
        grid=[
            {"method": ["dense", "imp"], "network": TINY},
            {"method": "imp", "network": TINY, "round": 1, "noise": 1},
            {"method": "reinit", "network": TINY, "round": [1, 2]},
        ],
        analyses=[
            {"measure": "barrier", "between": "rounds", "of": {"method": "imp"}, **PATH},
            {"measure": "barrier", "between": "twins", "of": {"round": 1}, **PATH},
            {"measure": "overlap", "between": "seeds", "of": {"method": "imp", "round": 2}},
            {"measure": "signs", "between": [{"method": "imp"}, {"method": "reinit"}]},
            {"measure": "functions", "between": "rounds", "of": {"method": "reinit"}},
            {"measure": "damage", "between": "rounds", "of": {"method": "imp"}, "data": "test"},
            {"measure": "distances"},
            *(
                {"measure": name, "of": {"method": "imp", "seed": 0}}
                for name in ("histograms", "thresholds", "effective", "travel")
            ),
            {
                "measure": "curvature",
                "of": {"method": "imp", "round": 2, "seed": 0},
                **{"images": 50, "steps": 2, "probes": 2},
            },
        ],
    )


def test_a_key_holds_the_version_of_what_its_settings_mean() -> None:
    """Statistics that are taken anew were at first those of batches in the dataset's order."""
    barriers = {"measure": "barrier", "between": "rounds", "of": {"method": "imp"}, **PATH}
    built = plan.build(tiny("anew", analyses=[barriers, barriers | {"batch_norm": "recompute"}]))
    found = [built.stages[key].params for key in built.analyses]
    versions = {one["settings"].get("batch_norm"): one.get("version") for one in found}
    assert versions == {None: None, "recompute": 2}


def _do(found: Finished, stages: Iterable[Stage], worker: Worker | None = None) -> None:
    for stage in stages:
        keep = sorted(found.plan.kept)
        config = job_config(found.store, found.experiment, [stage], keep=keep)
        for report in run_job(config, worker or Worker()):
            assert not report.failed, report.failed
    found.tracker.forget()


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A tiny grid with an analysis of every measure."""
    experiment = _experiment()
    built = plan.build(experiment)
    store = Store.of(tmp_path_factory.mktemp("looked"))
    found = Finished(store=store, tracker=Tracker(store), experiment=experiment, plan=built)
    found.tracker.grids.open("looked", experiment.resolved(), built.stages, "")
    _do(found, built.stages.values(), Worker())
    return found


def _titled(built: Plan, title: str) -> Stage:
    (found,) = (s for s in built.stages.values() if s.title == title.replace("NET", TINY))
    return found


def _measured(looked: Finished, title: str) -> Any:
    return looked.tracker.load(_titled(looked.plan, title).key)[1].measured


def test_every_measure_is_done(looked: Finished) -> None:
    measures = {looked.plan.stages[key].params["measure"] for key in looked.plan.analyses}
    assert measures == analysis.MEASURES.keys()
    finished = {one.key for one in looked.tracker.stages() if one.status == "finished"}
    assert finished == looked.plan.stages.keys()


def test_a_barrier_is_that_of_the_tracked_weights(looked: Finished) -> None:
    found = _measured(looked, "barrier of NET rounds 1 and 2, seed 0")
    first, second = (
        looked.tracker.load(_titled(looked.plan, f"NET round {k}, seed 0").key)[1].trained or {}
        for k in (1, 2)
    )
    data = elth.load_dataset("digits")
    evaluator = analysis.Evaluator(TINY, data, looked.experiment.recipe, on=("test",))
    points = analysis.along(first, second, analysis.abscissae(3), evaluator)
    curve = analysis.Curve(tuple(points))
    assert found["points"] == curve.plain()
    assert found["barriers"]["test_error"] == curve.barriers()["test_error"].plain()
    # Its ends are the tracked accuracies.
    accuracy = {one.key: one.accuracy for one in looked.tracker.stages()}
    for k, end in ((1, "first"), (2, "last")):
        key = _titled(looked.plan, f"NET round {k}, seed 0").key
        tracked = accuracy[key]
        assert tracked is not None
        assert found["barriers"]["test_error"][end] == pytest.approx(100 - tracked, abs=1e-9)


def test_single_numbers_are_metrics_and_settings_parameters(looked: Finished) -> None:
    stage = _titled(looked.plan, "barrier of NET round 1, noise 0 and noise 1, seed 1")
    run = looked.tracker.run_of(stage.key)
    assert run is not None
    found = _measured(looked, stage.title)["barriers"]["test_error"]
    assert run.data.metrics["test_error_barrier_mean"] == pytest.approx(found["mean"])
    assert run.data.params["measure"] == "barrier"
    assert run.data.params["measure.points"] == "3"
    assert run.data.params["looks_at"] == "round 1, noise 0 and noise 1"
    assert "recipe.lr" not in run.data.params
    assert "test_accuracy" not in run.data.metrics


def test_a_matrix_has_all_rounds_and_where_they_start(looked: Finished) -> None:
    found = _measured(looked, "distances of NET rounds 0 to 2, seed 0")
    assert [len(row) for row in found["angular"]] == [4] * 4
    assert [found["angular"][k][k] for k in range(4)] == [0] * 4
    assert found["kept"] == [11_012, 5506, 2753, 11_012]


def test_weights_that_an_analysis_needs_are_kept(looked: Finished) -> None:
    for seed in (0, 1):
        stage = _titled(looked.plan, f"NET reinit round 2, seed {seed}")
        assert stage.key in looked.plan.kept  # those of rounds are kept anyway
        assert looked.tracker.load(stage.key)[1].trained is not None


def test_what_was_killed_in_the_middle_comes_to_the_same(
    looked: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    title = "barrier of NET rounds 0 and 1, seed 0"
    stage = _titled(looked.plan, title)
    before = _measured(looked, title)
    store = Store.of(tmp_path)
    other = Finished(
        store=store, tracker=Tracker(store), experiment=looked.experiment, plan=looked.plan
    )
    wanted = {*stage.parents, *other.plan.stages[stage.parents[1]].parents}
    _do(other, (s for key, s in other.plan.stages.items() if key in wanted), Worker())

    class KilledError(BaseException):
        pass

    class Kills(partial.Partial):
        def save_if_due(self, so_far: Any) -> None:
            super().save_if_due(so_far)
            if len(so_far["points"]) == 2:
                raise KilledError

    config = job_config(store, looked.experiment, [stage], checkpoint_minutes=0)
    monkeypatch.setattr("orchestrator.work.worker.Partial", Kills)
    with pytest.raises(KilledError):
        list(run_job(config, Worker()))
    monkeypatch.undo()
    (left,) = (store.inflight / stage.key).glob("*.json")
    assert len(json.loads(left.read_bytes())["so_far"]["points"]) == 2
    evaluated: list[float] = []

    def along(first: Any, second: Any, at: Any, measure: Any) -> Any:
        evaluated.extend(at)
        return analysis.along(first, second, at, measure)

    monkeypatch.setattr("elth.analysis.measuring.along", along)
    for report in run_job(config, Worker()):
        assert not report.failed, report.failed
    assert evaluated == [1.0]
    assert other.tracker.load(stage.key)[1].measured == before
    assert not left.exists()


def test_weights_that_were_never_kept_are_asked_for_again(looked: Finished, tmp_path: Path) -> None:
    """A training that was finished without its weights is done again, and keeps them."""
    store = Store.of(tmp_path)
    other = Finished(
        store=store, tracker=Tracker(store), experiment=looked.experiment, plan=looked.plan
    )
    stage = _titled(looked.plan, "functions of NET reinit rounds 1 and 2, seed 0")
    needed = [s for s in looked.plan.stages.values() if s.labels["seed"] == 0]
    for one in needed:
        if one.kind != "analysis" and "noise" not in one.params:
            for report in run_job(job_config(store, looked.experiment, [one]), Worker()):
                assert not report.failed
    config = job_config(store, looked.experiment, [stage], keep=sorted(looked.plan.kept))
    (report,) = run_job(config, Worker())
    assert report.redo == stage.parents[0]
    assert "which were never kept" in report.failed
    for key in stage.parents:
        again = job_config(
            store, looked.experiment, [looked.plan.stages[key]], keep=sorted(looked.plan.kept)
        )
        if key != stage.parents[0]:
            (report,) = run_job(config, Worker())
            assert report.redo == key
        notes = [report.note for report in run_job(again, Worker()) if report.note]
        assert any("came out the same, bit for bit" in note for note in notes)
    for report in run_job(config, Worker()):
        assert not report.failed, report.failed
    assert other.tracker.load(stage.key)[1].measured == _measured(looked, stage.title)
