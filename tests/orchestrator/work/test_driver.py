"""What ``elth run`` does around the runner: what it finds, warns of and hands over."""

from __future__ import annotations

import dataclasses
import io

import pytest
import torch
from rich.console import Console

from orchestrator import plan
from orchestrator.cluster import machines
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.schedule import Schedule
from orchestrator.store.address import Store
from orchestrator.store.listing import seconds_per_work
from orchestrator.work import driver, resources, runner
from orchestrator.work.resources import numerics, numerics_here
from tests.orchestrator.helpers import TINY, Finished, of_kind, tiny


def _execute(found: Finished, experiment: Experiment) -> str:
    file = io.StringIO()
    built = plan.build(experiment)
    console = Console(file=file, width=120)
    failed = driver.execute(experiment, built, found.store, console, retry_failed=False)
    assert failed == {}
    return file.getvalue()


def test_seconds_per_work_is_that_of_the_plans_networks(finished: Finished) -> None:
    tracked = finished.tracker.stages("done")
    rounds = [one for one in tracked if one.stage.params["network"] == TINY][:6]
    timed = [dataclasses.replace(one, seconds=3.0 * plan.work(one.stage)) for one in rounds]
    here = plan.build(tiny("timed"))
    assert seconds_per_work(timed, here) == pytest.approx(3.0)
    elsewhere = plan.build(tiny("timed", grid=[{"method": "imp", "network": "resnet14(width=8)"}]))
    assert seconds_per_work(timed, elsewhere) is None
    unfinished = [dataclasses.replace(one, status="failed") for one in timed]
    assert seconds_per_work(unfinished, here) is None
    assert seconds_per_work([], here) is None


def test_a_finished_plan_is_reported_without_a_runner(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run", None)
    text = _execute(finished, finished.experiment)
    assert "24 of 24 stages done, 24 of them found finished in " in text
    assert "numerics" not in text


def test_going_on_in_another_numerics_class_is_told(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def run(schedule: Schedule, experiment: Experiment, store: Store, count: int) -> None:
        seen.append((schedule.snapshot().found, count))

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(resources, "numerics", lambda *_: "of another kind")
    grown = tiny(
        "grown",
        pruning={"rate": 0.5, "rounds": 3},
        grid=[{"method": "imp", "network": TINY}],
        resources={"concurrent": 1},
    )
    text = " ".join(_execute(finished, grown).split())
    assert seen == [(4, 1)]
    assert "note: finished stages of this grid come from another numerics class, in which" in text
    assert numerics(1, 0, "eager") in text
    assert "1 stages of this grid are not finished." in text
    keys = finished.tracker.grids.keys("grown")
    assert len(keys) == 5
    joined = {one.key for one in finished.tracker.stages("grown")}
    assert joined == set(list(keys)[:4])
    assert of_kind(plan.build(grown), "rewind_point")[0].key in joined


def test_on_a_cluster_each_node_names_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = tuple(
        machines.Node(id=name * 8, name=name, cpus=1, gpus=gpus)
        for name, gpus in (("head", 0), ("one", 1), ("two", 1))
    )
    asked: list[object] = []

    def ask(machines: object, question: object, classes: object) -> dict[machines.Node, object]:
        asked.append((machines, question, classes))
        answers: tuple[object, ...] = (set(), {"H/torch-2/eager"}, "nothing within 90 seconds")
        return dict(zip(nodes, answers, strict=True))

    monkeypatch.setattr(machines, "ask", ask)
    found = tiny("far", resources={"cpus": 2, "gpus": 1, "compile": False})
    todo = list(plan.build(found).stages.values())
    assert driver._expected(found, todo, machines.Cluster(nodes)) == {"H/torch-2/eager"}
    assert asked == [(nodes, numerics_here, [(2, 1.0, "eager", 1)])]
    assert numerics_here([(2, 1.0, "eager", 1)]) == set() or torch.cuda.is_available()
