"""Results of before the cure are named, and can be done again; a wrong machine is told of."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from elth import arithmetic
from orchestrator import plan
from orchestrator.cli.main import cli
from orchestrator.cluster import doctor, machines
from orchestrator.cluster.arithmetic import examine
from orchestrator.cluster.machines import Node
from orchestrator.report.cells import Report
from orchestrator.store.address import Store
from orchestrator.store.listing import Tracked
from orchestrator.store.soundness import faulty, is_exposed, of_grid
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import Finished, tiny

OLD = "cpu-AuthenticAMD-AVX2/torch-2.13.0/threads-1/workers-1/eager"


def _tracked(stage: plan.Stage, number: int, numerics: str = OLD) -> Tracked:
    return Tracked(
        run_id=f"{number:032x}",
        key=stage.key,
        stage=stage,
        grids=frozenset(),
        status="finished",
        reason="",
        is_final=False,
        nonzeros=1,
        prunable=2,
        accuracy=50.0,
        seconds=1.0,
        numerics=numerics,
        started=number,
    )


def _stages(*entries: dict[str, Any]) -> list[plan.Stage]:
    return list(plan.build(tiny("one", grid=list(entries))).stages.values())


@pytest.mark.parametrize(
    ("network", "numerics", "exposed"),
    [
        ("resnet14(width=4)", OLD, True),
        ("resnet14(width=2)", OLD, True),
        ("resnet14(width=1)", OLD, True),  # the second shortcut has two channels
        ("resnet14(width=7)", OLD, True),
        ("resnet14(width=8)", OLD, False),
        ("resnet14", OLD, False),
        ("resnet14(shortcut=pad,width=4)", OLD, False),
        ("mlp2", OLD, False),
        ("resnet14(width=4)", f"{OLD}/elth-2", False),
        ("resnet14(width=4)", OLD.replace("AVX2", "AVX512-avx512_bf16"), False),
        ("resnet14(width=4)", "cpu-aarch64-DEFAULT/torch-2.13.0/threads-1/workers-1/eager", False),
        ("resnet14(width=4)", "NVIDIA H100/torch-2.13.0/threads-1/workers-1/eager", False),
    ],
)
def test_what_the_fault_could_reach(network: str, numerics: str, exposed: bool) -> None:
    stage = _stages({"method": "imp", "network": network, "round": 1})[-1]
    assert is_exposed(_tracked(stage, 0, numerics)) is exposed


def test_what_comes_of_it_is_named_too() -> None:
    """A ticket of a narrow network, doubled in width, was found by wrong gradients."""
    moved = {"method": "ett", "source": "resnet14(width=4)", "transform": "double"}
    stages = _stages({**moved, "network": "resnet14(width=8)", "round": 1})
    tracked = [_tracked(stage, number) for number, stage in enumerate(stages)]
    assert faulty(tracked)[0].stage.params["network"] == "resnet14(width=8)"
    assert len(faulty(tracked)) == len(tracked)
    *parents, moved_one = tracked
    later = [
        dataclasses.replace(
            one, run_id=f"a{one.run_id[1:]}", numerics=f"{OLD}/elth-2", started=one.started + 100
        )
        for one in tracked
    ]
    aside = [dataclasses.replace(one, status="killed") for one in parents]
    # It is found still when its parents were set aside, and when they were done again.
    assert faulty([*aside, moved_one]) == [moved_one]
    assert faulty([*aside, *later[:-1], moved_one]) == [moved_one]
    assert faulty([*aside, dataclasses.replace(moved_one, status="killed"), *later]) == []
    # Of two finished runs of a key the first one is used.
    assert later[-1] in faulty([*parents, *later])


def test_what_comes_of_a_grid_in_another_one_is_set_aside_with_it() -> None:
    moved = {"method": "ett", "source": "resnet14(width=4)", "transform": "double"}
    stages = _stages({**moved, "network": "resnet14(width=8)", "round": 1})
    tracked = [_tracked(stage, number) for number, stage in enumerate(stages)]
    *parents, last = tracked
    found = faulty(tracked)
    assert of_grid(found, {one.key for one in parents}) == found
    assert of_grid(found, {last.key}) == [last]
    assert of_grid(found, set()) == []


def _make_old(tracker: Tracker, grid: str) -> int:
    """Let the stages of a grid look as if an earlier version had made them on AVX2."""
    keys = tracker.grids.keys(grid)
    stages = [one for one in tracker.stages() if one.key in keys and one.status == "finished"]
    for one in stages:
        tracker.client.set_tag(one.run_id, "elth.numerics", OLD)
    return len(stages)


def test_report_and_doctor_name_them_and_verify_sets_them_aside(
    finished: Finished, tmp_path: Path
) -> None:
    assert finished.store.folder is not None
    copy = Store.of(shutil.copytree(finished.store.folder, tmp_path / "runs"))
    run = CliRunner()
    store = ["--store", str(copy)]
    tracker = Tracker(copy)
    grid = finished.experiment.name
    clean = run.invoke(cli, ["report", grid, *store]).output
    assert "gradients that may be wrong" not in clean
    count = _make_old(tracker, grid)
    told = " ".join(run.invoke(cli, ["report", grid, *store]).output.split())
    assert count == len(finished.plan.stages)
    assert f"{count} stages come from gradients that may be wrong (docs/numerics.md): " in told
    assert "elth verify --faulty" in told
    wrong = run.invoke(cli, ["doctor", *store])
    assert wrong.exit_code == 3
    assert f"WRONG  results: {count} finished stages come from gradients that may" in wrong.output
    done = run.invoke(cli, ["verify", grid, "--faulty", *store])
    assert done.exit_code == 0, done.output
    assert done.output.count("set aside: ") == count
    assert f"({OLD})" in done.output
    again = run.invoke(cli, ["verify", "--faulty", *store])
    assert "0 stages in" in again.output
    left = {one.key for one in Tracker(copy).stages() if one.status == "finished"}
    assert not left & finished.plan.stages.keys()


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that computes everything wrongly."""
    worst = arithmetic.Worst(layer="conv1", what="output", times=9e3, relative=0.02)
    found = arithmetic.Found(worst=worst, compared=1)
    monkeypatch.setattr(arithmetic, "look", lambda *_: found)
    monkeypatch.setenv("ELTH_ARITHMETIC", "refuse")


def test_doctor_looks_at_the_networks_of_a_config(wrong: None) -> None:
    experiment = tiny("one", recipes={"digits": {"base": "digits_resnet", "precision": "bf16"}})
    findings = list(doctor.check_arithmetic(experiment, None))
    networks = {stage.params["network"] for stage in plan.build(experiment).stages.values()}
    assert len(findings) == len(networks)
    for one in findings:
        assert not one.is_well
        assert "on digits in bf16: this machine computes the network wrongly: the output of 'c" in (
            one.what
        )
        assert "off by 2 % of its size" in one.what
        assert arithmetic.processor() in one.what


def test_doctor_asks_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = tuple(Node(id=str(n) * 40, name=f"n{n}", cpus=2, gpus=0) for n in (1, 2, 3))
    answers = [[("a", "")], [("a", "it is wrong")], "nothing within 60 seconds"]
    monkeypatch.setattr(machines, "ask", lambda asked, *_: dict(zip(asked, answers, strict=True)))
    found = list(doctor.check_arithmetic(None, nodes))
    assert [one.is_well for one in found] == [True, False, False]
    assert "n2" in found[1].what
    assert "it is wrong" in found[1].what
    assert "not looked at" in found[2].what


def test_examining_leaves_the_threads_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    found = arithmetic.Found(worst=arithmetic.Worst(layer="", what="", times=0.5, relative=0.0))

    def look(*_: Any) -> arithmetic.Found:
        seen.append(torch.get_num_threads())
        return found

    monkeypatch.setattr(arithmetic, "look", look)
    monkeypatch.setenv("ELTH_ARITHMETIC", "refuse")
    before = torch.get_num_threads()
    told = examine(doctor._USUAL, before + 1, 0.0)
    assert (seen, torch.get_num_threads()) == ([before + 1], before)
    assert told[0][0].startswith("resnet14(width=4) on digits in float32: right, the largest error")
    assert told[0][1] == ""


def test_a_report_of_nothing_names_nothing() -> None:
    assert Report(grid="g", cells=(), missing=0).faulty == ()
