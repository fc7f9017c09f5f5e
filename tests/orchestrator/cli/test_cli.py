"""The command line: what it prints, what it refuses, in one line, and with which code it ends."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from rich.console import Console
from torchvision.io import write_jpeg

from elth import plugins
from elth.data import DATASETS
from elth.errors import ElthError
from elth.networks import NETWORKS
from elth.recipes import RECIPES
from elth.tickets import Ticket
from orchestrator.cli import data, housekeeping
from orchestrator.cli.main import cli
from orchestrator.experiment import reading
from orchestrator.experiment.methods import METHODS
from orchestrator.experiment.reading import load
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.building import build
from orchestrator.plan.costs import size_of
from orchestrator.plan.schedule import Schedule
from orchestrator.store import leftovers, storage, verifying
from orchestrator.store.address import Store
from orchestrator.store.marks import ASKED, STALE
from orchestrator.store.tracker import Tracker
from orchestrator.work import driver, progress, runner
from orchestrator.work.worker import run_job
from tests.orchestrator.cli.helpers import Done, Elth
from tests.orchestrator.helpers import (
    INFINITE,
    RECIPE,
    TINY,
    TINY_DEEPER,
    Finished,
    artifact,
    begin,
    chain,
    job_config,
    of_kind,
    rewind_result,
    round_of,
    round_result,
    tiny,
    write_yaml,
)


def _refused(done: Done, message: str) -> None:
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert done.err.startswith("elth: error: ")
    assert message in done.err
    assert "Traceback" not in done.err


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def test_a_home_folder_in_every_path(
    elth: Elth, config: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.move(config, tmp_path / "small.YAML")
    (tmp_path / "lab_of_home.py").touch()
    words = ("data.root=~/data,1", "plugins=[~/lab_of_home.py]", "resources.storage=~/kept")
    done = elth("plan", "~/small.YAML", *words, "--store", "~/runs")
    assert (done.code, done.err) == (0, "")
    assert f"in {tmp_path}/runs" in done.out
    found = load("~/small.YAML", words)
    assert found.data.root == tmp_path / "data,1"
    assert found.plugins == (str(tmp_path / "lab_of_home.py"),)
    assert storage.place(found.resources.storage, Store.of("~/runs")) == str(tmp_path / "kept")
    report = ("report", "done", "--store", finished.store.folder or "")
    assert elth(*report, "--output", "~/out").code == 0
    assert (tmp_path / "out" / "cells.json").is_file()
    assert "has no grid 'small'" in elth("status", "~/small.YAML", *report[2:]).err
    run = finished.tracker.stages("done")[-1].run_id
    assert elth("ticket", "export", run, *report[2:], "-o", "~/t.SAFETENSORS").code == 0
    assert elth("ticket", "show", "~/t.SAFETENSORS").code == 0
    same = elth("diff", "~/small.YAML", "~/small.YAML", *report[2:])
    assert (same.code, same.err) == (0, "")
    _refused(elth("plan", "~nobody-9/x.yaml"), "~nobody-9 is nobody's home here")
    _refused(elth("plan", "~/small.YAML", "data.root=~nobody-9"), "~nobody-9 is nobody's home")
    assert [path.name for path in Path().iterdir()] == []  # no folder that is called ~


def test_places_with_any_letters_reach_the_config(config: Path, tmp_path: Path) -> None:
    for place in ("/a,b", "/a: b", "/a #b", "[x]", "~", "1", "é", "s3://b/c"):
        text = reading.spelled("resources.storage", place)
        assert load(config, [text]).resources.storage == place


# Words


def _commands(group: click.Group, *path: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        words = (*path, name)
        found += _commands(command, *words) if isinstance(command, click.Group) else [words]
    return found


def test_the_words_of_the_command_line() -> None:
    assert sorted(" ".join(words) for words in _commands(cli)) == [
        "analyse",
        "completion",
        "configs",
        "data describe",
        "data list",
        "data manifest",
        "data prepare",
        "diff",
        "doctor",
        "export",
        "flops",
        "gc",
        "grids",
        "import",
        "init",
        "jobs",
        "logs",
        "measures",
        "methods",
        "networks",
        "plan",
        "recipes",
        "report",
        "resume",
        "rm",
        "run",
        "schema",
        "status",
        "stop",
        "submit",
        "ticket export",
        "ticket import",
        "ticket show",
        "ticket transform",
        "ui",
        "verify",
        "why",
    ]


@pytest.mark.parametrize("words", _commands(cli), ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_help_ends_with_an_example(elth: Elth, words: tuple[str, ...], flag: str) -> None:
    done = elth(*words, flag)
    assert (done.code, done.err) == (0, "")
    example = re.search(r"\nExample:\n((?:  elth .+\n)+)$", done.out)
    assert example is not None
    assert example[1].split()[1 : 1 + len(words)] == list(words)


def test_help_without_words(elth: Elth) -> None:
    done = elth()
    assert done.code == 2
    assert done.err.startswith("Usage: ")
    assert "Traceback" not in done.err
    assert elth("ticket").err.startswith("Usage: ")


def test_version(elth: Elth) -> None:
    done = elth("--version")
    assert done.code == 0
    assert importlib.metadata.version("elth") in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["plan"], "Missing argument 'CONFIG'"),
        (["plan", "none.yaml"], "cannot read none.yaml: No such file or directory"),
        (["plan", "."], "cannot read .: Is a directory"),
        (["run", "none.yaml"], "cannot read none.yaml: No such file or directory"),
        (["plan", "CONFIG", "nonsense"], "cannot read the override 'nonsense': write key=value"),
        (["plan", "CONFIG", "seeds=[0,0]"], "seeds must be different whole numbers from 0 on"),
        (["plan", "CONFIG", "grid.0.netwrk=x"], "unknown key 'grid.0.netwrk'; did you mean"),
        (["plan", "CONFIG", "scale=smoke"], "small.yaml 'smoke' (there is: full)"),
        (["run", "CONFIG", "scale=smoke"], "small.yaml 'smoke' (there is: full)"),
        (["plan", "CONFIG", "--store", "ftp://x"], "cannot use the store 'ftp://x': give a dire"),
        (["run", "CONFIG", "--store", "CONFIG"], "small.yaml, which is a file: give "),
        (["run", "CONFIG", "--nonsense"], "No such option"),
        (["status", "q"], "there is no store in "),
        (["status", "none.yaml"], "there is no store in "),
        (["report", "q"], "there is no store in "),
        (["flops", "q"], "there is no store in "),
        (["flops", "CONFIG", "--dpf", "twice"], "'twice' is not one of 'careful', 'elth'"),
        (["why", "q"], "there is no store in "),
        (["why", "q", "seeds=[0]"], "'seeds=[0]' goes with a config, and q names a stage"),
        (["why", "q", "--stage", "x"], "--stage goes with a config, and q names a stage"),
        (["why", "CONFIG"], "there is no store in "),
        (["diff", "CONFIG"], "Missing argument 'B'"),
        (["diff", "CONFIG", "q"], "there is no store in "),
        (["diff", "CONFIG", "none.yaml"], "cannot read none.yaml: No such file or directory"),
        (["diff", "p", "q", "seeds=[0]"], "'seeds=[0]' can change configs only, and p and q are"),
        (["diff", "CONFIG", "q", "--b", "a=1"], "--b a=1 can change a config only, and q names"),
        (["ui"], "there is no store in "),
        (["ui", "--port", "x"], "'x' is not a valid integer"),
        (["networks", "--dataset", "cifar"], "unknown dataset 'cifar'; did you mean 'cifar10'?"),
        (["networks", "--dataset", "digits(sise=3)"], "unknown option of dataset digits 'sise'; "),
        (["methods", "nonsense"], "Got unexpected extra argument (nonsense)"),
        (["data", "manifest", "none"], "Missing option '--name'"),
        (["data", "prepare", "none", "x", "--threads", "0"], "Invalid value for '--threads': 0 is"),
        (["data", "prepare", "none", "x"], "the folder none cannot be listed"),
        (["data", "manifest", "none", "--name", "a b"], "a dataset cannot be called 'a b': write"),
        (["ticket", "show", "none.safetensors"], "there is no file none.safetensors"),
        (["ticket", "show", "CONFIG"], "is no whole safetensors file"),
        (["ticket", "show", "0123abcd"], "there is no store in "),
        (["ticket", "export", "0123abcd"], "there is no store in "),
        (["ticket", "transform", "none.safetensors", "--to", "x"], "there is no file none.safe"),
        (["ticket", "transform", "CONFIG"], "Missing option '--to'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_request_is_one_line(
    elth: Elth, config: Path, words: list[str], message: str
) -> None:
    _refused(elth(*(str(config) if word == "CONFIG" else word for word in words)), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status", "nothing"], "has no grid 'nothing' (it has: "),
        (["status", "it's"], "has no grid 'it's' (it has: "),
        (["report", "nothing"], "has no grid 'nothing' (it has: "),
        (["report", "none.yaml"], "cannot read none.yaml: No such file or directory"),
        (
            ["report", "done", "scale=smoke"],
            "'scale=smoke' can change a config only, and done names a grid",
        ),
        (["status", "done", "seeds=1"], "'seeds=1' can change a config only, and done names a gri"),
        (["report", "CONFIG", "scale=smoke"], "small.yaml 'smoke' (there is: full)"),
        (["report", "CONFIG", "seeds=[7]", "name=seven"], "has no grid 'seven' (it has: "),
        (["report", "done", "--json", "--csv"], "give one of --json, --csv, --markdown and "),
        (["report", "done", "--provenance"], "--provenance goes with --json"),
        (["ticket", "show", "0123abcd"], "has no run or stage '0123abcd'"),
        (["ticket", "export", "it's"], "has no run or stage 'it's'"),
        (["report", "done", "--output", "CONFIG"], "cannot write the report to "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_request_to_a_store_is_one_line(
    elth: Elth, config: Path, finished: Finished, words: list[str], message: str
) -> None:
    words = [str(config) if word == "CONFIG" else word for word in words]
    done = elth(*words, "--store", finished.store)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert done.err.startswith("elth: error: ")
    assert message in done.err


def test_a_store_of_another_place_by_the_environment(
    elth: Elth, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(finished.store.uri))
    assert elth("status", "done").code == 0


# plan


def test_a_plan_creates_nothing(elth: Elth, config: Path, tmp_path: Path) -> None:
    done = elth("plan", config)
    assert (done.code, done.err) == (0, "")
    assert elth("plan", config, "--store", tmp_path / "other").code == 0
    assert elth("plan", config, "--store", f"sqlite:///{tmp_path}/other.db").code == 0
    assert _files(tmp_path) == {"here", "small.yaml"}


def _table(text: str) -> dict[str, list[str]]:
    rows = (re.split("[│┃]", line)[1:-1] for line in text.splitlines() if line[:1] in "│┃")
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_a_plan_for_a_server_that_was_never_used_creates_nothing(
    elth: Elth, config: Path, tmp_path: Path
) -> None:
    """Here as a database, which MLflow alone has made."""
    uri = f"sqlite:///{tmp_path / 'server.db'}"
    client = MlflowClient(uri)
    before = [one.name for one in client.search_experiments()]
    done = elth("plan", config, "--store", uri)
    assert done.code == 0
    assert f"The grid small is new in {uri}." in done.out
    assert [one.name for one in client.search_experiments()] == before
    refused = elth("report", "small", "--store", uri)
    assert refused.code == 2
    assert "it was not made by elth run, or never begun to the end" in refused.err


def test_a_plan_counts_stages_time_and_disk(elth: Elth, config: Path, tmp_path: Path) -> None:
    done = elth("plan", config, "pruning.rounds=4", "seeds=[0,1]")
    assert "small: digits, seeds 0, 1" in done.out
    table = _table(done.out)
    assert table["rewind point"] == ["2", "0", "2"]
    assert table["round"] == ["10", "0", "10"]
    assert table["retraining"] == ["0", "0", "0"]
    assert table["all"] == ["12", "0", "12"]
    assert re.search(
        r"Time: about .+ \(a rough guess, until .+\), \d+ trials? at a time, by \w+", done.out
    )
    assert re.search(rf"Disk: about [\d.]+ .B in {tmp_path}/here/runs\.", done.out)


def test_a_plan_knows_what_is_finished(elth: Elth, finished: Finished, done_config: Path) -> None:
    done = elth("plan", done_config, "--store", finished.store, "seeds=[0,5]")
    table = _table(done.out)
    assert table["all"] == ["24", "12", "12"]
    assert "from the times of finished stages in this store" in done.out
    done = elth("plan", done_config, "--store", finished.store)
    assert _table(done.out)["all"] == ["24", "24", "0"]
    assert f"Nothing to do: every stage is finished in {finished.store}." in done.out


def test_a_plan_tells_what_sharing_saves(elth: Elth, config: Path) -> None:
    grid = (
        f"grid=[{{method: imp, network: {TINY}}}, {{method: ett, source: {TINY}, "
        f"network: {TINY_DEEPER}, round: all}}, {{method: reinit, network: {TINY}}}]"
    )
    out = elth("plan", config, grid).out
    # Trained are 3 of the chain, 2 moved and 1 with new weights. Alone, a line takes 3, 3 + 2 and
    # 3 + 1; a cell 2 and 3, 2 + 1 and 3 + 1, 3 + 1.
    assert (
        "Trainings: 6. Each line of the figure by itself would take 12, each cell by itself 16."
        in out.splitlines()
    )
    table = _table(out)
    assert [table[kind][0] for kind in ("round", "retraining")] == ["3", "3"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_plan_for_a_larger_machine_can_be_made_here(elth: Elth, config: Path) -> None:
    done = elth("plan", config, "resources.gpus=0.25")
    assert (done.code, done.err) == (0, "")
    assert "Not on this machine: a trial asks for 1 cpus and 0.25 gpus, and this ma" in done.out
    assert "Time: about " in done.out
    assert "), 1 trial at a time." in done.out
    assert "Not on this machine" not in elth("plan", config).out


def test_a_plan_at_a_scale(elth: Elth, tmp_path: Path) -> None:
    fields = {
        "dataset": "cifar10",
        "seeds": [0, 1, 2],
        "recipe": "cifar10_resnet",
        "grid": [{"method": "imp", "network": "resnet20"}],
        "scales": {
            "smoke": {
                "dataset": "digits",
                "seeds": 0,
                "recipe": "digits_resnet",
                "pruning": {"rounds": 2},
            }
        },
    }
    path = write_yaml(tmp_path / "large.yaml", fields)
    full, smoke = (elth("plan", path, f"scale={scale}").out for scale in ("full", "smoke"))
    assert "large: cifar10, seeds 0, 1, 2" in full
    assert _table(full)["round"][0] == "42"
    assert "large-smoke: digits, seed 0" in smoke
    assert _table(smoke)["round"][0] == "3"


# run


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are done one after the other in this process."""

    def run(schedule: Schedule, experiment: Experiment, store: Store, count: int) -> None:
        assert count >= 1
        while not schedule.is_over:
            job = schedule.take("trial")
            assert job is not None
            for report in run_job(job_config(store, experiment, job.stages)):
                schedule.advance("trial", report.index, report.fraction, report.accuracy)
                if report.failed:
                    schedule.fail("trial", report.failed)
            schedule.end("trial")

    monkeypatch.setattr(runner, "run", run)


@pytest.mark.usefixtures("no_ray")
def test_a_run_tracks_reports_and_goes_on(elth: Elth, store: Store, tmp_path: Path) -> None:
    found = tiny("cli-run", seeds=[50])
    path = tmp_path / "cli-run.yaml"
    path.write_text(found.resolved(), encoding="utf-8")
    done = elth("run", path, "--store", store, "pruning.rounds=1")
    assert (done.code, done.err) == (0, "")
    assert "3 of 3 stages done in " in done.out
    assert f"{TINY} on digits" in done.out
    assert store.folder is not None
    folder = store.folder / "reports" / "cli-run"
    assert f"Report: {folder} (table.txt, cells.csv, cells.json, " in done.out
    assert len(json.loads((folder / "cells.json").read_text())) == 2
    # One more round: what is there is found, and the table grows.
    done = elth("run", path, "--store", store)
    assert "4 of 4 stages done, 3 of them found finished in " in done.out
    assert len(json.loads((folder / "cells.json").read_text())) == 3
    tracker = Tracker(store)
    grid = tracker.grids.run("cli-run")
    assert grid is not None
    for name in ("cells.json", "report.html"):
        kept = artifact(tracker, grid.info.run_id, f"report/{name}")
        assert kept.read_bytes() == (folder / name).read_bytes()
    assert tracker.grids.experiment("cli-run")["pruning"] == {"rate": 0.5, "rounds": 2}


@pytest.mark.usefixtures("no_ray")
def test_a_chain_goes_on_from_any_of_its_runs_without_the_file(
    elth: Elth, store: Store, tracker: Tracker, tmp_path: Path
) -> None:
    found = tiny("cli-resume", seeds=[52])
    path = tmp_path / "cli-resume.yaml"
    path.write_text(found.resolved(), encoding="utf-8")
    assert elth("run", path, "--store", store, "pruning.rounds=1").code == 0
    path.unlink()
    rounds = [t for t in tracker.stages("cli-resume") if t.stage.kind == "round"]
    first = next(t for t in rounds if t.stage.labels["round"] == 0)
    done = elth("resume", first.run_id[:10], "pruning.rounds=2", "--store", store)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == (
        f"cli-resume: on from {TINY} dense round 0, seed 52 (run {first.run_id[:8]}); of the 3 "
        "rounds of its chain 1 are left, of all 4 stages 1"
    )
    assert "4 of 4 stages done, 3 of them found finished in " in done.out
    again = elth("resume", first.key[:12], "--store", store)
    # The run's experiment is of one round; that of its grid is of two by now, and is kept.
    assert "of the 3 rounds of its chain 0 are left, of all 4 stages 0" in again.out
    assert tracker.grids.experiment("cli-resume")["pruning"]["rounds"] == 2
    changed = elth("resume", first.key, "pruning.rate=0.5", "seeds=[53]", "--store", store)
    assert changed.code == 2
    assert "is no part of the experiment cli-resume with these changes" in changed.err
    assert (
        "has no run or stage 'abcdef012345'" in elth("resume", "abcdef012345", "--store", store).err
    )
    log = begin(tracker, chain("cli-begun", seeds=[54])[0])
    begun = elth("resume", log.run_id, "--store", store)
    assert begun.code == 2
    assert "is running and holds no experiment: name a finished round" in begun.err
    log.fail("", final=False, details="")


@pytest.mark.usefixtures("no_ray")
def test_a_grid_takes_what_another_has_finished(
    elth: Elth, finished: Finished, done_config: Path
) -> None:
    done = elth("run", done_config, "name=cli-sharing", "--store", finished.store)
    assert "24 of 24 stages done, 24 of them found finished" in done.out
    cells = elth("report", "cli-sharing", "--json", "--store", finished.store).out
    assert cells == elth("report", "done", "--json", "--store", finished.store).out


@pytest.mark.usefixtures("no_ray")
def test_seeds_given_apart_are_one_grid(elth: Elth, finished: Finished, tmp_path: Path) -> None:
    here = ("--store", finished.store)
    grid = [{"method": "imp", "network": TINY}]
    path = tmp_path / "apart.yaml"
    path.write_text(tiny("apart", grid=grid).resolved(), encoding="utf-8")
    assert "The grid apart is new in " in elth("plan", path, *here).out
    done = elth("run", path, "seeds=[0]", *here)
    assert "note: " not in done.out
    assert f"{TINY} on digits, seed 0" in done.out
    told = f"The grid apart in {finished.store} goes on: 4 stages are added to its 4"
    told += ", seed 1 to seed 0."
    assert told in elth("plan", path, "seeds=[1]", *here).out
    done = elth("run", path, "seeds=[1]", *here)
    assert f"note: {told}\n" in done.out
    assert "4 of 4 stages done, 4 of them found finished in " in done.out, "only its own"
    assert f"{TINY} on digits, seeds 0, 1" in done.out
    cells = json.loads(elth("report", "apart", "--json", *here).out)
    assert [cell["seeds"] for cell in cells] == [[0, 1]] * 3
    assert finished.tracker.grids.experiment("apart")["seeds"] == [0, 1]
    # Either of the two once more, and it stays as it is.
    done = elth("run", path, "seeds=[0]", *here)
    assert "note: The grid apart holds more than this file asks for, which is shown b" in done.out
    assert json.loads(elth("report", "apart", "--json", *here).out) == cells
    assert "The grid apart in " in (out := elth("plan", path, "seeds=[0, 1]", *here).out)
    assert " stays as it is.\n" in out
    # From one of its runs it goes on with both.
    run = next(one for one in finished.tracker.stages("apart") if one.stage.labels["seed"] == 1)
    done = elth("resume", run.run_id, "name=apart-on", *here)
    assert "apart-on: on from " in done.out
    assert "of all 24 stages 0\n" in done.out  # of the grid in which that stage was done


@pytest.mark.usefixtures("no_ray")
def test_a_plan_that_would_drop_cells_is_refused_before_anything_is_done(
    elth: Elth, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ("--store", finished.store)
    path = tmp_path / "fewer.yaml"
    path.write_text(tiny("fewer").resolved(), encoding="utf-8")
    assert elth("run", path, *here).code == 0
    before = finished.tracker.grids.content("fewer")
    why = (
        f"the grid 'fewer' in {finished.store} is of another plan, and this one would drop IMP on "
        f"{TINY}, digits, round 2, seed 0 (pruning.rounds is 2 there and 1 here): give it a name "
    )
    words = (path, "pruning.rounds=1", "data.root=nowhere", "dataset=digits")
    plan = elth("plan", *words, *here)
    assert (plan.code, plan.err) == (0, "")
    assert f"elth run would refuse: {why}" in plan.out
    with monkeypatch.context() as patched:
        patched.setattr(driver, "publish_all", None)
        patched.setattr(driver, "read_datasets", None)
        _refused(elth("run", *words, *here), why)
    assert finished.tracker.grids.content("fewer") == before
    # The ways on that it names.
    done = elth("run", *words, "name=fewer-rounds", *here)
    assert "3 of 3 stages done, 3 of them found finished in " in done.out
    done = elth("run", *words, "--replace", *here)
    assert (done.code, done.err) == (0, "")
    assert (
        f"note: The grid fewer in {finished.store} is what this file says now; 1 stages that it "
        "held besides stay in the store.\n"
    ) in done.out
    assert len(json.loads(elth("report", "fewer", "--json", *here).out)) == 2
    done = elth("run", path, *here)
    assert "4 of 4 stages done, 4 of them found finished in " in done.out


@pytest.mark.usefixtures("no_ray")
def test_a_failed_stage_is_told_and_stays_failed_until_asked_for(
    elth: Elth, store: Store, tmp_path: Path
) -> None:
    found = tiny("cli-failing", seeds=[51], recipe=INFINITE)
    path = tmp_path / "cli-failing.yaml"
    path.write_text(found.resolved(), encoding="utf-8")
    done = elth("run", path, "--store", store)
    assert done.code == 3
    why = f"{TINY} dense round 0, seed 51: the training loss was not finite at iteration "
    assert re.fullmatch(rf"elth: failed: {re.escape(why)}\d+ \(epoch \d+\): lower .*\n", done.err)
    assert "1 of 4 stages done, 1 failed, 2 blocked in " in done.out
    assert "3 stages of this grid are not finished." in done.out
    tracker = Tracker(store)
    before = {one.run_id for one in tracker.stages("cli-failing")}
    again = elth("run", path, "--store", store)
    assert (again.code, again.err) == (done.code, done.err)
    assert {one.run_id for one in tracker.stages("cli-failing")} == before
    assert elth("run", path, "--store", store, "--retry-failed").code == 3
    assert {one.run_id for one in tracker.stages("cli-failing")} != before
    status = elth("status", path, "--store", store)
    assert f"failed: {why}" in status.out
    assert _table(status.out) == {
        "state": ["stages"],
        "finished": ["1"],
        "failed": ["1"],
        "blocked": ["2"],
    }
    assert "(elth run --retry-failed does it again)\n    " in status.out
    assert "NonFiniteLossError: the training loss was not finite at iteration " in status.out
    assert f"blocked: {TINY} round 1, seed 51: {TINY} dense round 0, seed 51 failed\n" in status.out


def test_ctrl_c_ends_with_its_own_code(
    elth: Elth, store: Store, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", run)
    done = elth("run", config, "seeds=[52]", "name=cli-stopped", "--store", store)
    assert done.code == 130
    assert done.err.strip() == "elth: stopped; the same command goes on from what is tracked"
    assert "0 of 4 stages done, 4 waiting in " in done.out


def test_what_the_store_says_is_told_in_a_line(
    elth: Elth, store: Store, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any) -> None:
        raise MlflowException(
            "(sqlite3.OperationalError) database or disk is full [SQL: INSERT INTO runs ...]"
        )

    monkeypatch.setattr(runner, "run", run)
    done = elth("run", config, "seeds=[53]", "name=cli-full", "--store", store)
    assert done.code == 2
    assert done.err == (
        "elth: error: the database of the store says: database or disk is full; make room on that "
        "disk, and the same command goes on\n"
    )


def test_a_mistake_of_this_program_is_not_hidden(
    elth: Elth, store: Store, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any) -> None:
        raise TypeError("a mistake")

    monkeypatch.setattr(runner, "run", run)
    with pytest.raises(TypeError, match="a mistake"):
        elth("run", config, "seeds=[54]", "name=cli-mistake", "--store", store)


def test_a_dataset_that_is_not_there_is_refused_before_anything_is_tracked(
    elth: Elth, store: Store, config: Path
) -> None:
    words = ["dataset=mnist", "recipe=mnist_mlp", "grid.0.network=mlp1", "name=cli-nodata"]
    _refused(elth("run", config, *words, "--store", store), "the dataset mnist is not in data (")
    assert Tracker(store).grids.run("cli-nodata") is None


def test_a_machine_that_is_too_small_is_refused_before_a_store_is_made(
    elth: Elth, config: Path, tmp_path: Path
) -> None:
    done = elth("run", config, "resources.cpus=9999")
    _refused(done, "a trial asks for 9999 cpus and 0 gpus, and this machine has ")
    assert _files(tmp_path) == {"here", "small.yaml"}


# status and report


def test_status(elth: Elth, finished: Finished, done_config: Path) -> None:
    done = elth("status", "done", "--store", finished.store)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"done in {finished.store}\n")
    assert _table(done.out) == {"state": ["stages"], "finished": ["24"]}
    assert elth("status", done_config, "--store", finished.store).out == done.out


def test_what_is_ended_is_said_and_no_failure(
    elth: Elth, stopped: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run", None)
    path = tmp_path / "stopped.yaml"
    path.write_text(stopped.experiment.resolved(), encoding="utf-8")
    why = f"{TINY} round 2, seed 0 has 11.2 % < 12 %"
    status = elth("status", path, "--store", stopped.store)
    assert _table(status.out) == {"state": ["stages"], "finished": ["23"], "ended": ["5"]}
    lines = [line for line in status.out.splitlines() if line.startswith("ended: ")]
    assert lines[0] == f"ended: {TINY} round 3, seed 0: {why}"
    assert lines[-1] == f"ended: {TINY_DEEPER} <- {TINY} append round 3, seed 0: {why}"
    assert len(lines) == 5
    told = elth("plan", path, "--store", stopped.store)
    assert _table(told.out)["all"] == ["28", "23", "5", "0"]
    assert _table(told.out)["round"] == ["10", "8", "2", "0"]
    line = f"ended: {why}: the rounds that follow and what needs them are not done"
    assert line in told.out.splitlines()
    assert f"Nothing to do: every stage is finished or ended in {stopped.store}." in told.out
    done = elth("run", path, "--store", stopped.store)
    assert (done.code, done.err) == (0, "")
    assert line in done.out.splitlines()
    assert "5 ended in " in done.out
    # More rounds are of the chain that goes on only, whatever is asked.
    run = stopped.tracker.run_of(round_of(stopped.plan, TINY, 4, 1).key)
    assert run is not None
    more = elth("plan", path, "pruning.rounds=5", "--store", stopped.store)
    assert _table(more.out)["all"] == ["32", "23", "7", "2"]
    assert re.search(r"Time: about .+ at most, as chains may end early ", more.out)
    monkeypatch.setattr(runner, "run", lambda *_: None)
    resumed = elth("resume", run.info.run_id, "--store", stopped.store, "name=stopped-too")
    assert (resumed.code, resumed.err) == (0, "")
    assert resumed.out.splitlines()[0].endswith(f"of all 28 stages 0; ended are 5, as {why}"), (
        resumed.out
    )


def test_a_plan_tells_of_layers_that_must_be_empty(elth: Elth, config: Path) -> None:
    told = elth("plan", config, "pruning={rate: 0.9, rounds: 3}")
    (line,) = [line for line in told.out.splitlines() if line.startswith("note: ")]
    assert line == (
        f"note: {TINY} on digits: from round 3 on there are 11 weights at most for 16 layers, so "
        "at least one of these is empty; round 4 is the last that can be asked for"
    )
    refused = elth("plan", config, "pruning={rate: 0.9, rounds: 6}")
    _refused(refused, "round 5 of resnet14(width=4) would keep none of 11,012 weights: round 4 is")
    assert refused.err == elth("run", config, "pruning={rate: 0.9, rounds: 6}").err


def test_verify(elth: Elth, finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    done = elth("verify", "done", "--store", finished.store)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"24 finished stages in {finished.store}: 24 whole\n"
    refused = elth("verify", "nonsense", "--store", finished.store)
    assert refused.code == 2
    assert "has no grid 'nonsense' (it has: " in refused.err
    run = finished.tracker.run_of(key := next(iter(finished.plan.stages)))
    assert run is not None
    stage = finished.plan.stages[key]
    found = [
        verifying.Found(run=run, stage=stage, state="damaged", reason="a byte is another"),
        verifying.Found(run=run, stage=stage, state="whole"),
    ]
    monkeypatch.setattr(verifying, "verify", lambda *_, **__: iter(found))
    done = elth("verify", "--store", finished.store)
    assert done.code == 3
    assert done.out == (
        f"damaged: {stage.title}: a byte is another\n2 finished stages in {finished.store}: "
        "1 whole, 1 damaged; elth verify --set-aside lets elth run do what is damaged again\n"
    )
    marked: list[str] = []
    monkeypatch.setattr(Tracker, "set_aside", lambda _, run, why: marked.append(why))
    done = elth("verify", "--set-aside", "--store", finished.store)
    assert (done.code, marked) == (3, ["a byte is another"])
    assert done.out.endswith("1 damaged and set aside; elth run does them again\n")
    assert elth("verify", "--absent", "--store", finished.store).code == 2
    assert elth("verify", "--set-aside", "--restore", "--store", finished.store).code == 2


def test_report_as_a_table(elth: Elth, finished: Finished, done_config: Path) -> None:
    done = elth("report", "done", "--store", finished.store)
    assert (done.code, done.err) == (0, "")
    assert f"{TINY_DEEPER} on digits" in done.out
    assert f"ETT <- {TINY} append" in done.out
    assert elth("report", done_config, "--store", finished.store).out == done.out


def test_report_as_json_and_csv(elth: Elth, finished: Finished) -> None:
    cells = json.loads(elth("report", "done", "--json", "--store", finished.store).out)
    assert len(cells) == 10
    assert "runs" not in cells[0]
    words = ("report", "done", "--json", "--provenance", "--store", finished.store)
    assert len(json.loads(elth(*words).out)[0]["runs"]) == 2
    lines = elth("report", "done", "--csv", "--store", finished.store).out.splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("network,method,source,transform,round,target,dataset,sparsity,")


def test_the_grid_of_a_config_at_a_scale(elth: Elth, finished: Finished, tmp_path: Path) -> None:
    grids = finished.tracker.grids
    fields = {
        "dataset": "digits",
        "seeds": [0],
        "recipe": RECIPE,
        "pruning": {"rate": 0.5, "rounds": 1},
        "grid": [{"method": "imp", "network": TINY}],
        "scales": {"smoke": {"pruning": {"rounds": 2}}},
    }
    path = write_yaml(tmp_path / "paired.yaml", fields)
    for scale in ("full", "smoke"):
        one = load(path, [f"scale={scale}"])
        grids.open(one.name, one.resolved(), build(one).stages, "")
    for words, count in (((), 2), (("scale=full",), 2), (("scale=smoke",), 3)):
        done = elth("report", path, *words, "--json", "--store", finished.store)
        assert (done.code, done.err) == (0, "")
        assert len(json.loads(done.out)) == count
    status = elth("status", path, "scale=smoke", "--store", finished.store).out
    assert status.startswith(f"paired-smoke in {finished.store}\n")
    assert _table(status)["finished"] == ["4"]


def test_a_report_of_a_file_is_of_that_file(
    elth: Elth, finished: Finished, done_config: Path
) -> None:
    """With what is changed in it; the grid may hold more, and then the report says so."""
    here = ("--store", finished.store)
    whole = json.loads(elth("report", "done", "--json", *here).out)
    words = (done_config, "seeds=[1]", "pruning.rounds=1", "grid.2.method=[reinit]")
    done = elth("report", *words, "--json", *here)
    cells = json.loads(done.out)
    assert {tuple(cell["seeds"]) for cell in cells} == {(1,)}
    imp = next(c for c in cells if (c["network"], c["round"], c["method"]) == (TINY, 1, "imp"))
    same = next(c for c in whole if (c["network"], c["round"], c["method"]) == (TINY, 1, "imp"))
    assert imp["accuracy"] == same["accuracy"][1:]
    told = "note: The grid done is another: it lacks 2 of the 8 stages of this file, and holds besi"
    assert done.err.startswith(told)
    table = elth("report", *words, *here)
    assert table.err == ""
    assert "The grid done is another: it lacks 2 of the 8 stages of this" in table.out
    assert "2 stages of this report are not finished." in table.out
    one = elth("report", done_config, "seeds=[1]", *here).out
    assert (
        "The grid done holds more than this file asks for, which is shown by its name: seed 0."
        in one
    )
    assert f"{TINY} on digits, seed 1" in one
    status = elth("status", done_config, "seeds=[1]", *here)
    assert _table(status.out)["finished"] == ["12"]
    assert "which is shown by its name: seed 0.\n" in status.out
    verified = elth("verify", done_config, "seeds=[1]", *here)
    assert verified.out == f"12 finished stages in {finished.store}: 12 whole\n"


def test_two_files_of_one_name_are_not_one_grid(
    elth: Elth, finished: Finished, done_config: Path, tmp_path: Path
) -> None:
    """Each is called by its own name, config; the one that comes second is refused."""
    here = ("--store", finished.store)
    fields = {
        "dataset": "digits",
        "seeds": [0],
        "recipe": RECIPE,
        "pruning": {"rate": 0.5, "rounds": 2},
        "grid": [{"method": "imp", "network": TINY}],
    }
    for folder, recipe in (("a", RECIPE), ("b", RECIPE | {"batch_size": 32})):
        (tmp_path / folder).mkdir()
        write_yaml(tmp_path / folder / "config.yaml", fields | {"recipe": recipe})
    first, second = tmp_path / "a" / "config.yaml", tmp_path / "b" / "config.yaml"
    assert elth("run", first, *here).code == 0
    _refused(
        elth("run", second, *here),
        f"the grid 'config' in {finished.store} is of another plan, and this one would change "
        f"dense on {TINY}, digits, seed 0; IMP on {TINY}, digits, rounds 1, 2, seed 0 "
        "(recipe.batch_size is 64 there and 32 here): give it a name of its own by name=OTHER, "
        "what is finished is shared; or let the grid be what this file says by --replace, no run "
        "is deleted\n",
    )
    done = elth("report", first, "--json", *here)
    assert (len(json.loads(done.out)), done.err) == (3, "")
    done = elth("report", second, "--json", *here)
    assert json.loads(done.out) == []
    assert "note: The grid config is another: it lacks 4 of the 4 stages of this file" in done.err


def test_report_to_a_folder(elth: Elth, finished: Finished, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = elth("report", "done", "--json", "--store", finished.store, "--output", folder)
    assert done.code == 0
    assert (folder / "cells.json").read_text() == done.out
    assert done.err.splitlines() == [f"wrote {path}" for path in _in_order(folder)]


def _in_order(folder: Path) -> list[Path]:
    names = ["table.txt", "cells.csv", "cells.json", "provenance.json", "table.md", "table.tex"]
    names += ["verdicts.csv", "verdicts.json", "accuracy.png", "accuracy.svg"]
    names += ["report.html"]
    return [folder / name for name in names]


def test_a_report_as_markdown_and_as_latex(elth: Elth, finished: Finished) -> None:
    here = ("report", "done", "--store", finished.store)
    done = elth(*here, "--markdown")
    assert (done.code, done.err) == (0, "")
    assert "| Reinit |" in done.out
    done = elth(*here, "--latex")
    assert (done.code, done.err) == (0, "")
    assert done.out.count("\\begin{tabular}") == done.out.count("\\end{tabular}") == 2
    _refused(elth(*here, "--latex", "--json"), "give one of --json, --csv, --markdown and --latex")


def test_verdicts_against_any_method(elth: Elth, finished: Finished) -> None:
    here = ("report", "done", "--store", finished.store)
    done = elth(*here, "--verdicts")
    assert (done.code, done.err) == (0, "")
    assert "p is corrected by Holm within its family (8 with dense, 4 with IMP)" in done.out
    found = json.loads(elth(*here, "--verdicts", "--against", "reinit", "--json").out)
    assert found["families"] == {"Reinit": 4}
    methods = [one["cell"]["method"] for one in found["comparisons"]]
    assert methods == ["imp", "ett", "random", "magnitude"]
    line = "{method: ett, transform: append}"
    rows = elth(*here, "--verdicts", "--against", line, "--csv").out.splitlines()
    assert len(rows) == 5
    _refused(elth(*here, "--against", "reinit"), "--against goes with --verdicts")
    _refused(elth(*here, "--verdicts", "--latex"), "--verdicts goes with --json or --csv")
    _refused(elth(*here, "--verdicts", "--against", "imq"), "did you mean 'imp'?")
    _refused(elth(*here, "--verdicts", "--against", "{methd: imp}"), "method: ")


def test_claims_of_a_file_are_judged_by_its_report(
    elth: Elth, finished: Finished, done_config: Path
) -> None:
    """Nothing is trained for it, and the grid in the store does not have to know them."""
    claim = f"{{imp: above, of: [reinit, random], network: {TINY_DEEPER!r}, round: 2}}"
    with done_config.open("a", encoding="utf-8") as file:
        file.write(f"claims:\n  - {claim}\nmargin: 60\n")
    here = ("--store", finished.store)
    done = elth("report", done_config, *here)
    assert (done.code, done.err) == (0, "")
    assert "Claims" in done.out
    assert "IMP above Reinit, Random" in done.out
    found = json.loads(elth("report", done_config, *here, "--verdicts", "--json").out)
    assert (found["margin"], found["families"]["claims"]) == (60, 2)
    assert [len(one["parts"]) for one in found["claims"]] == [2]
    assert "The grid done is as it is" not in done.out
    told = elth("plan", done_config, *here)
    assert "stays as it is" in told.out, "what is claimed changes no stage"
    assert "would refuse" not in told.out


# networks


def test_networks_with_the_counts_of_the_papers(elth: Elth) -> None:
    done = elth("networks")
    table = _table(done.out)
    for name, prunable, parameters in [
        ("resnet14", "174,128", "175,258"),
        ("resnet20", "270,896", "272,474"),
        ("resnet32", "464,432", "466,906"),
        ("resnet44", "657,968", "661,338"),
        ("resnet56", "851,504", "855,770"),
        ("resnet110", "1,722,416", "1,730,714"),
    ]:
        assert table[name][-2:] == [prunable, parameters]
    assert table["resnet20"][:3] == ["cifar-resnet", "3 3 3", "width=16, shortcut=conv"]
    assert "too small" not in done.out
    for name, prunable, parameters in [
        ("vgg13", "9,407,168", "9,416,010"),
        ("vgg19", "20,024,000", "20,040,522"),
        ("conv4", "2,425,024", "2,425,930"),
    ]:
        assert table[name][-2:] == [prunable, parameters]
    table = _table(elth("networks", "--dataset", "mnist").out)
    assert table["mlp1"][-2:] == ["266,200", "266,610"]
    assert table["mlp4"][-2:] == ["536,200", "537,510"]


def test_networks_for_which_the_images_are_too_small_are_named(elth: Elth) -> None:
    done = elth("networks", "--dataset", "digits")
    small = ["vgg11", "vgg13", "vgg16", "vgg19", "resnet18", "resnet26", "resnet34", "resnet50"]
    line = f"These images are too small for {', '.join([*small, 'mobilenet'])}."
    assert line in done.out.splitlines()
    table = _table(done.out)
    assert not {*small, "mobilenet"} & set(table)
    assert table["mlp1"][-2:] == ["50,200", "50,610"]
    assert {*small, "mobilenet"} | set(table) - {"name"} == set(NETWORKS)
    larger = elth("networks", "--dataset", "digits(size=16)")
    assert "networks, for digits(size=16) (1x16x16, 10 classes)" in larger.out
    assert {"vgg11", "vgg13", "vgg16", "vgg19"} <= set(_table(larger.out))


# methods and data


def test_recipes(elth: Elth) -> None:
    done = elth("recipes")
    rows = _table(done.out)
    assert set(rows) == {"recipe", *RECIPES}
    assert rows["cifar10_resnet"] == [
        *("160ep", "1000it", "128", "sgd 0.9", "0.1", "80ep 120ep", "0.0001", "-", "crop_flip")
    ]
    assert rows["maene_lenet"][3:6] == ["adam", "0.0012", "constant"]


def test_methods(elth: Elth) -> None:
    done = elth("methods")
    assert (done.code, done.err) == (0, "")
    table = _table(done.out)
    for name, method in METHODS.items():
        assert table[name][0] == method.title
    assert table["imp"][1:] == ["iterative magnitude pruning, rewound", ""]
    assert table["ett_snip_extra"][-1] == "samples=128, mode=eval"
    assert table["snip"][-1] == "samples=128, mode=eval, at=rewind"
    assert table["synflow"][-1] == "iterations=100, at=rewind"


def test_datasets(elth: Elth) -> None:
    table = _table(elth("data", "list").out)
    assert list(table) == ["name", *DATASETS]
    assert table["cifar10"] == [
        *("3x32x32", "10", "50,000", "10,000"),
        "channels=3, size=32, centre_crop=false, hold_out=0, statistics=imagenet",
    ]
    assert table["svhn"][2:4] == ["73,257", "26,032"]


def test_datasets_of_a_plugin(
    elth: Elth, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "_in_use", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    cells = Path(__file__).parents[2] / "plugins" / "cells.py"
    table = _table(elth("data", "list", "--plugin", cells).out)
    assert list(table) == ["name", *DATASETS, "tiny_cells", "bare_cells"]
    shown = "channels=1, size=8, centre_crop=false, stain=none"
    assert table["tiny_cells"] == ["1x8x8", "3", "96", "32", shown]
    assert table["bare_cells"] == ["not declared", "", "", "", "size=8"]
    done = elth("data", "describe", "bare_cells", "--plugin", cells)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("@elth.dataset(\n    channels=1,\n    size=8,\n    classes=3,\n")
    assert done.out.endswith("    mean=[78.075],\n    deviation=[71.9316],\n)\n")
    planned = elth("plan", config, f"plugins=[{cells}]", "dataset=tiny_cells")
    assert (planned.code, planned.err) == (0, "")
    _refused(
        elth("plan", config, f"plugins=[{cells}]", "dataset=bare_cells"),
        "in dataset: what bare_cells reads is not declared: give elth data describe bare_cells",
    )
    _refused(elth("data", "list", "--plugin", tmp_path / "no.py"), "there is no plugin ")


def _flowers(*, parts: dict[str, int]) -> None:
    """flowers/PART/{daisy,rose}: JPEG files, each another image."""
    generator = torch.Generator().manual_seed(0)
    for part, count in parts.items():
        for name in ("daisy", "rose"):
            folder = Path("flowers") / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(0, 256, (3, 40, 60), generator=generator, dtype=torch.uint8)
                write_jpeg(pixels, str(folder / f"{number}.jpg"))


def test_an_image_folder_becomes_a_dataset(elth: Elth, config: Path) -> None:
    _flowers(parts={"train": 2, "val": 1})
    done = elth("data", "manifest", "flowers", "--name", "flowers")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == "flowers: 2 classes, images: 4 train, 2 val"
    dataset = "folder(manifest=flowers.json,size=64)"
    assert done.out.splitlines()[1].endswith(f"in a config: dataset: {dataset}")
    planned = elth("plan", config, f"dataset={dataset}")
    assert (planned.code, planned.err) == (0, "")
    assert _table(planned.out)["all"] == ["4", "0", "4"]
    assert elth("data", "manifest", "flowers", "--name", "f", "-o", "other.json").code == 0
    assert Path("other.json").exists()
    _refused(elth("data", "manifest", "none", "--name", "none"), "none")


def test_every_image_of_a_folder_is_looked_at(elth: Elth, monkeypatch: pytest.MonkeyPatch) -> None:
    _flowers(parts={"train": 4, "val": 1})
    words = ("data", "manifest", "flowers", "--name", "flowers")
    Path("flowers/train/rose/notes.txt").write_text("no image", encoding="utf-8")
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    note = "note: left out of train: files that are not .jpg .jpeg .png .webp (1 .txt)"
    done = elth(*words, "--threads", "1")
    assert (done.code, done.err) == (0, "")
    told, *counted, _, _ = done.out.splitlines()
    assert told == note
    assert [line.partition(" in ")[0] for line in counted] == ["8 of 10 images", "10 of 10 images"]
    Path("flowers.json").unlink()
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 60.0)
    bad = [*sorted(Path("flowers/train").glob("*/*.jpg"))[:6]]
    for path in bad[:5]:
        path.write_bytes(b"no image")
    done = elth(*words)
    assert (done.code, done.out) == (2, note + "\n")
    assert done.err.startswith("elth: error: 5 of 10 images cannot be read: flowers/train/daisy/0")
    assert all(str(path) in done.err for path in bad[:5])
    assert not Path("flowers.json").exists()
    bad[5].write_bytes(b"")
    listed = [f"{path} (it is no JPEG, PNG, WebP or GIF file: it" for path in bad[:5]]
    for command, advice in (
        (words, "Repair or remove them; nothing was written"),
        (("data", "prepare", "flowers", "small"), "Repair or remove them and give the same"),
    ):
        *lines, last = elth(*command).err.splitlines()
        assert [line.partition(" begins with")[0] for line in lines[:5]] == listed
        assert lines[5:] == [f"{bad[5]} (the file is empty)"]
        assert last.startswith(f"elth: error: 6 of 10 images cannot be read. {advice}")
    monkeypatch.setattr(data, "_LINES", 4)
    *lines, last = elth(*words).err.splitlines()
    assert [line.partition(" begins with")[0] for line in lines] == [*listed[:4], "and 2 more"]
    done = elth(*words, "--no-decode")
    assert (done.code, done.err) == (0, "")
    assert json.loads(Path("flowers.json").read_text(encoding="utf-8"))["decoded"] is False


def test_images_of_both_parts_are_refused_or_allowed(elth: Elth) -> None:
    _flowers(parts={"train": 2, "val": 1})
    shutil.copy("flowers/train/rose/1.jpg", "flowers/val/daisy/x.jpg")
    manifest = ("data", "manifest", "flowers", "--name", "flowers")
    for words in (manifest, ("data", "prepare", "flowers", "small")):
        _refused(elth(*words), "flowers/val/daisy/x.jpg is flowers/train/rose/1.jpg. A test on")
        assert elth(*words, "--allow-shared").code == 0


def test_a_folder_is_prepared(elth: Elth, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _flowers(parts={"train": 2, "val": 1})
    words = ("data", "prepare", "flowers", "small", "--short", "20", "--quality", "90")
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    done = elth(*words)
    assert (done.code, done.err) == (0, "")
    *told, sizes, wrote = done.out.splitlines()
    assert [line.partition(" in ")[0] for line in told] == [f"{n} of 6 images" for n in range(1, 7)]
    assert sizes.startswith("small: 2 classes, images: 4 train, 2 val; ")
    dataset = "folder(manifest=small/manifest.json,size=224)"
    assert wrote == f"wrote small/manifest.json; in a config: dataset: {dataset}"
    before = {path: path.read_bytes() for path in Path("small").iterdir()}
    again = elth(*words)
    assert again.out.splitlines()[-2:] == [sizes, wrote]
    assert {path: path.read_bytes() for path in Path("small").iterdir()} == before
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 60.0)
    planned = elth("plan", config, "dataset=folder(manifest=small/manifest.json,size=32)")
    assert (planned.code, planned.err) == (0, "")
    _refused(elth(*words[:4]), "small was begun with other settings: name small, short 20, quality")
    Path("flowers/val/rose/0.jpg").write_bytes(b"no image")
    _refused(elth("data", "prepare", "flowers", "other"), "1 of 6 images cannot be read: flowers/")
    assert not Path("other/manifest.json").exists()


def test_plans_of_a_folder_and_of_its_store_share_no_stage(elth: Elth, config: Path) -> None:
    _flowers(parts={"train": 1, "val": 1})
    assert elth("data", "manifest", "flowers", "--name", "flowers").code == 0
    assert elth("data", "prepare", "flowers", "small", "--name", "flowers").code == 0
    keys = [
        set(build(load(config, [f"dataset=folder(manifest={manifest},size=32)"])).stages)
        for manifest in ("flowers.json", "small/manifest.json")
    ]
    assert len(keys[0]) == len(keys[1]) > 0
    assert not keys[0] & keys[1]


# ticket


@pytest.fixture
def exported(elth: Elth, finished: Finished, tmp_path: Path) -> Path:
    """The ticket of the last round, as a file."""
    key = round_of(finished.plan, TINY, 2).key
    path = tmp_path / "ticket.safetensors"
    assert elth("ticket", "export", key[:10], "-o", path, "--store", finished.store).code == 0
    return path


# why and diff


def test_two_configs_are_compared_without_a_store(elth: Elth, config: Path) -> None:
    done = elth("diff", config, config, "seeds=[1]", "--b", "pruning.rounds=3")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"A: {config}\nB: {config} pruning.rounds=3\n")
    assert re.search(r"round +│ +3 │ +0 │ +1 │", done.out)
    assert "pruning.rounds: 2 -> 3  (alone: 0 stages of A no more asked for, 1 new ones)" in (
        done.out
    )
    assert "Cells: 2 in both by the same stages, seeds counted." in done.out
    assert f"Cells in B only: 1\n    {TINY} round 3 on digits, seed 1\n" in done.out
    assert not Path("runs").exists()
    done = elth("diff", config, config)
    assert "No field of the experiments differs." in done.out


def test_a_comparison_as_json(elth: Elth, config: Path) -> None:
    found = json.loads(elth("diff", config, config, "--b", "recipe.lr=0.05", "--json").out)
    assert found["stages"]["round"] == {"both": 0, "a": 3, "b": 3}
    assert found["fields"] == [{"path": "recipe.lr", "a": 0.1, "b": 0.05, "lost": 4, "new": 4}]
    assert [cell["why"][0]["path"] for cell in found["other"]] == ["recipe.lr"] * 2


def test_comparing_configs_imports_neither_torch_nor_mlflow(config: Path) -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli.main import main\n"
        f"sys.argv = ['elth', 'diff', {str(config)!r}, {str(config)!r}, '--b', 'seeds=[1]']\n"
        "main()\n"
        "print(sorted({'torch', 'mlflow', 'ray', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_config_is_compared_with_a_grid(
    elth: Elth, finished: Finished, done_config: Path
) -> None:
    words = ("diff", done_config, "done", "--a", "seeds=[0]", "--store", finished.store)
    done = elth(*words)
    assert (done.code, done.err) == (0, "")
    assert "B: the grid done" in done.out
    assert "seeds: [0] -> [0, 1]  (alone: 0 stages of A no more asked for, 12 new ones)" in done.out
    _refused(elth("diff", done_config, "nowhere", "--store", finished.store), "has no grid")


def test_why_a_finished_stage(elth: Elth, finished: Finished) -> None:
    stage = round_of(finished.plan, TINY, 2, seed=1)
    for name in (stage.title, stage.key[:10]):
        done = elth("why", name, "--store", finished.store)
        assert (done.code, done.err) == (0, "")
        lines = done.out.splitlines()
        assert lines[:2] == [f"{stage.title}: finished", f"  key {stage.key}"]
        assert re.search(r"^  run [0-9a-f]{32}, begun 20\d\d-", done.out, re.MULTILINE)
        assert "  numerics class: cpu" in done.out
        assert "done" in re.search(r"grids: (.*)", done.out)[1].split(", ")  # type: ignore[index]
        assert f"  made of: {TINY} round 1, seed 1, finished" in lines
    _refused(elth("why", "round 1", "--store", finished.store), "'round 1' is no stage of the stor")


def test_why_stages_of_a_config_are_to_do(
    elth: Elth, finished: Finished, done_config: Path
) -> None:
    done = elth("why", done_config, "--store", finished.store)
    assert done.out.endswith("of 24 stages 24 are finished, 0 are not\n")
    changed = ("why", done_config, "recipe.lr=0.05", "seeds=[0,7]", "--store", finished.store)
    done = elth(*changed)
    assert "of 24 stages 0 are finished, 24 are not" in done.out
    assert "12 to do: recipe.lr is 0.05, and 0.1 in the store" in done.out
    assert "12 to do: no finished one has its seed" in done.out
    assert f"{TINY} rewind point, seed 7 (" in done.out
    plain = json.loads(elth(*changed, "--json").out)
    assert len(plain) == 24
    assert {one["state"] for one in plain} == {"to do"}
    assert plain[0]["differences"] == [
        {"path": "recipe.lr", "store": 0.1, "here": 0.05, "where": ""}
    ]
    other = elth(
        "why", done_config, "grid=[{method: imp, network: conv4}]", "--store", finished.store
    )
    assert "nothing comparable: the store has no finished round of conv4" in other.out


def test_why_one_stage_of_a_config(elth: Elth, finished: Finished, done_config: Path) -> None:
    title = f"{TINY_DEEPER} reinit round 2, seed 0"
    words = (done_config, "pruning.rate=0.4", "--stage", title, "--store", finished.store)
    done = elth("why", *words)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{title}: to do\n  key ")
    assert f"  nearest finished: {title} (run " in done.out
    assert f"\n    rate of {TINY_DEEPER} round 2, seed 0 is 0.4, and 0.5 in the store\n" in done.out
    assert f"  made of: {TINY_DEEPER} round 2, seed 0, to do" in done.out
    plain = json.loads(elth("why", *words, "--json").out)
    assert (plain["state"], len(plain["differences"])) == ("to do", 1)
    _refused(elth("why", *words[:2], "--stage", "x", *words[4:]), "'x' is no stage of done")


def test_why_stages_in_other_states(elth: Elth, store: Store, tracker: Tracker) -> None:
    stages = chain("cli-why", seeds=[60], pruning={"rate": 0.5, "rounds": 4})
    logs = {stage.key: begin(tracker, stage, grid="cli-why") for stage in stages[1:5]}
    tracker.grids.open(
        "cli-why",
        tiny("cli-why", seeds=[60], pruning={"rate": 0.5, "rounds": 4}).resolved(),
        {stage.key: stage for stage in stages},
        "",
    )
    logs[stages[1].key].fail("no disk", final=True, details="")
    damaged, killed = (tracker.client.get_run(logs[stages[k].key].run_id) for k in (2, 3))
    tracker.set_aside(damaged, "its checksum is wrong")
    tracker.client.update_run(killed.info.run_id, "KILLED")

    def why(number: int) -> str:
        done = elth("why", stages[number].key[:12], "--store", store)
        assert (done.code, done.err) == (0, "")
        return done.out

    assert ": failed\n" in why(1)
    assert "no disk (elth run --retry-failed does it again)" in why(1)
    assert ": set aside\n" in why(2)
    assert "its checksum is wrong" in why(2)
    assert ": interrupted\n" in why(3)
    assert ": running\n" in why(4)
    assert "at it for" in why(4)
    assert f"made of: {stages[3].title}, interrupted" in why(4)
    assert ": to do" in why(0), "of which only the grid's plan knows"
    tracker.client.delete_run(killed.info.run_id)
    assert "a run of it is there and deleted" in why(3)
    for log in logs.values():
        log.stop()
    tracker.client.delete_run(logs[stages[4].key].run_id)


def test_why_a_stage_is_to_do_again(elth: Elth, store: Store, tracker: Tracker) -> None:
    stage = chain("cli-again", seeds=[61])[0]
    log = begin(tracker, stage, grid="cli-again")
    log.finish(rewind_result(), keep_weights=False)
    tracker.client.set_tag(log.run_id, ASKED, "x")
    done = elth("why", stage.title, "--store", store)
    assert done.out.startswith(f"{stage.title}: to do again\n")
    assert "elth run --redo asked for it: the same command goes on with it" in done.out
    tracker.client.set_tag(log.run_id, STALE, "x")
    done = elth("why", stage.title, "--store", store)
    assert "what it is made of came out different when that was done again" in done.out


def test_export_by_key_and_by_run(elth: Elth, finished: Finished, exported: Path) -> None:
    ticket = Ticket.load(exported)
    stage = round_of(finished.plan, TINY, 2)
    _, result = finished.tracker.load(stage.key)
    assert result.mask is not None
    assert all(ticket.mask[name].equal(mask) for name, mask in result.mask.items())
    assert ticket.nonzeros == 11_012 // 4
    run = finished.tracker.run_of(stage.key)
    assert run is not None
    done = elth("ticket", "export", run.info.run_id, "--store", finished.store)
    name = f"resnet14-width-4-{run.info.run_id[:8]}.safetensors"
    assert done.out.splitlines()[-1] == f"wrote {name}"
    assert Path(name).read_bytes() == exported.read_bytes()


def test_every_ticket_of_a_store_can_be_exported_and_is_the_one_that_was_trained(
    elth: Elth, finished: Finished, tmp_path: Path
) -> None:
    for stage in [*of_kind(finished.plan, "retraining")[:4], round_of(finished.plan, TINY, 0)]:
        path = tmp_path / "one.safetensors"
        done = elth("ticket", "export", stage.key, "-o", path, "--store", finished.store)
        assert done.code == 0
        _, result = finished.tracker.load(stage.key)
        assert result.mask is not None
        ticket = Ticket.load(path)
        assert all(ticket.mask[name].equal(mask) for name, mask in result.mask.items())
        assert str(ticket.network) == stage.params["network"]


def test_weights_of_somebody_else_become_a_ticket(
    elth: Elth, exported: Path, tmp_path: Path
) -> None:
    ticket = Ticket.load(exported)
    torch.save({"state_dict": ticket.rewind}, tmp_path / "w.pt")
    torch.save({f"module.{n}": m.float() for n, m in ticket.mask.items()}, tmp_path / "m.pt")
    words = ["ticket", "import", "--network", TINY, "--weights", tmp_path / "w.pt"]
    words += ["--dataset", "digits", "--iteration", "21", "-o", tmp_path / "t.safetensors"]
    done = elth(*words, "--mask", tmp_path / "m.pt")
    assert done.code == 0
    assert done.out.splitlines()[-1] == f"wrote {tmp_path / 't.safetensors'}"
    found = Ticket.load(tmp_path / "t.safetensors")
    assert found.origin["start"] == 21
    assert all(found.mask[name].equal(mask) for name, mask in ticket.mask.items())
    assert all(found.rewind[name].equal(tensor) for name, tensor in ticket.rewind.items())
    done = elth(*words)
    assert done.code == 2
    assert done.err.startswith(f"elth: error: {len(ticket.mask)} tensors do not fit {TINY} for ")
    assert "Traceback" not in done.err


def test_a_rewind_point_is_no_ticket(elth: Elth, finished: Finished) -> None:
    key = of_kind(finished.plan, "rewind_point")[0].key[:12]
    done = elth("ticket", "export", key, "--store", finished.store)
    _refused(done, f"run {key} is a rewind point, which has no mask; name a round")


def test_a_ticket_that_comes_out_otherwise_is_refused(
    elth: Elth, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elth import controls

    stage = next(s for s in of_kind(finished.plan, "retraining") if s.labels["method"] == "random")
    monkeypatch.setattr(controls, "shuffle_layerwise", lambda mask, seed, version: dict(mask))
    done = elth("ticket", "export", stage.key, "--store", finished.store)
    _refused(done, "made again, is not the one that was tracked: the store is damaged, or this")


def test_an_export_to_nowhere_is_refused(elth: Elth, finished: Finished) -> None:
    key = round_of(finished.plan, TINY, 1).key
    words = ("ticket", "export", key, "-o", "none/x.safetensors", "--store", finished.store)
    _refused(elth(*words), "cannot write none/x.safetensors: No such file or directory")


def test_show_a_file_and_a_run(elth: Elth, finished: Finished, exported: Path) -> None:
    done = elth("ticket", "show", exported)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[:3] == [
        f"{TINY} for 1x8x8 images of 10 classes: 75.00 % sparsity, 2,753 non-zeros of 11,012 "
        "prunable weights",
        "dataset digits, seed 0",
        "  imp_round 2",
    ]
    table = _table(done.out)
    ticket = Ticket.load(exported)
    kept = int(ticket.mask["layer3.1.conv2.weight"].sum())
    assert table["layer3.1.conv2.weight"] == [
        "16x16x3x3",
        f"{kept:,}",
        f"{100 - 100 * kept / 2304:.2f}",
    ]
    assert len(table) == 1 + len(ticket.mask)
    key = round_of(finished.plan, TINY, 2).key
    assert elth("ticket", "show", key, "--store", finished.store).out == done.out


def test_transform_prints_the_plan_and_the_sparsity(elth: Elth, exported: Path) -> None:
    output = exported.with_name("deeper.safetensors")
    words = ("--to", "resnet32(width=4)", "--plan", "interpolate", "-o", output)
    done = elth("ticket", "transform", exported, *words)
    assert (done.code, done.err) == (0, "")
    after = Ticket.load(output)
    lines = done.out.splitlines()
    assert lines[0] == f"{TINY} -> resnet32(width=4): append"  # of one free unit both are one plan
    stages = [line.split() for line in lines if line.lstrip().startswith("layer")]
    assert [words[0] for words in stages] == ["layer1", "layer2", "layer3"]
    assert all("0 1 -> 0 1 1 1 1 unit 1 4 times" in " ".join(words) for words in stages)
    assert "before: 75.00 % sparsity, 2,753 non-zeros of 11,012" in done.out
    total = sum(mask.numel() for mask in after.mask.values())
    expected = f" after: {100 * after.sparsity:.2f} % sparsity, {after.nonzeros:,} non-zeros of "
    assert f"{expected}{total:,}" in done.out
    assert lines[-1] == f"wrote {output}"
    history = elth("ticket", "show", output).out
    assert "transform append" in history


def test_transform_names_its_file_after_the_target(elth: Elth, exported: Path) -> None:
    assert elth("ticket", "transform", exported, "--to", TINY_DEEPER).code == 0
    name = "ticket-resnet20-width-4.safetensors"
    assert Ticket.load(exported.with_name(name)).network.name == "resnet20"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "resnet21"], "unknown network 'resnet21'; did you mean 'resnet"),
        (["--to", "resnet20"], "cannot fill 'conv1.weight' of resnet20: expected shape (16, 1, 3"),
        (["--to", TINY_DEEPER, "--plan", "drop"], "stage layer1: 'drop' can only squeeze; 2 units"),
        (["--to", TINY_DEEPER, "--plan", "apend"], "unknown plan 'apend'; did you mean 'append'?"),
        (["--to", "mlp2"], "a ticket moves within one family of networks: found cifar-resnet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_transformation_that_does_not_fit_writes_nothing(
    elth: Elth, exported: Path, words: list[str], message: str
) -> None:
    before = _files(exported.parent)
    _refused(elth("ticket", "transform", exported, *words), message)
    assert _files(exported.parent) == before


def test_sizes_for_people() -> None:
    assert size_of(0) == "0 kB"
    assert size_of(1234) == "1.23 kB"
    assert size_of(19_900_000) == "19.9 MB"
    assert size_of(5e9) == "5 GB"
    assert size_of(5e12) == "5 TB"


def test_grids_lists_what_a_store_holds(elth: Elth, finished: Finished, tmp_path: Path) -> None:
    done = elth("grids", "--store", finished.store)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"│ done +│ 24 of 24 │ +0 │ +0 │ .* [kM]B │ .* ago", done.out)
    found = json.loads(elth("grids", "--json", "--store", finished.store).out)
    (one,) = [one for one in found if one["name"] == "done"]
    assert (one["stages"], one["finished"], one["failed"]) == (24, 24, 0)
    assert one["size"] > 10_000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", one["seen"])
    Tracker(Store.of(tmp_path / "empty"))
    assert elth("grids", "--store", tmp_path / "empty").out.endswith("holds no grid\n")


@pytest.mark.parametrize("width", [76, 80])
def test_names_of_grids_are_whole_in_a_narrow_terminal(
    width: int,
    finished: Finished,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "a-grid-with-a-long-name"
    finished.tracker.grids.open(name, "", finished.plan.stages, "What it is about.")
    monkeypatch.setattr(housekeeping, "out", Console(width=width))
    housekeeping.print_grids(str(finished.store), as_json=False)
    shown = capsys.readouterr().out
    assert "description" not in shown
    first = [line.split("│")[1].strip() for line in shown.splitlines() if line.startswith("│")]
    assert name in "".join(first)


def test_rm_asks_tells_and_takes_back(
    elth: Elth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "runs"
    tracker = Tracker(Store.of(store))
    (start, *_) = stages = chain("mine")
    plan = {one.key: one for one in stages}
    tracker.grids.open("mine", tiny("mine").resolved(), plan, "")
    begin(tracker, start, grid="mine").finish(rewind_result(), keep_weights=False)
    here = ("--store", store)
    dry = elth("rm", "mine", "--dry-run", *here)
    assert (dry.code, dry.err) == (0, "")
    assert re.fullmatch(rf"mine in {store}: 1 runs would go, with .* of results; 0 stay\n", dry.out)
    assert elth("rm", "mine", *here).err.endswith("give --yes, or --dry-run first\n")
    assert tracker.run_of(start.key) is not None
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr(click, "confirm", lambda text: text == "Remove mine?")
    done = elth("rm", "mine", *here)
    assert (done.code, done.err) == (0, "")
    assert "removed mine: 1 runs are in the trash; elth rm --restore mine takes them" in done.out
    assert tracker.run_of(start.key) is None
    _refused(elth("rm", "mine", "--yes", *here), "has no grid 'mine' (it has: none)")
    assert "restored mine: 1 runs are back" in elth("rm", "mine", "--restore", *here).out
    assert tracker.run_of(start.key) is not None
    elth("rm", "mine", "--yes", *here)
    young = elth("rm", "--purge", "--yes", *here)
    assert "files of 0 runs" in young.out
    assert "2 runs are in the trash for less than that" in young.out
    dry = elth("rm", "--purge", "--dry-run", "--older-than", "0s", *here)
    assert "removed for good" not in dry.out
    done = elth("rm", "--purge", "--yes", "--older-than", "0s", *here)
    assert "removed for good: files of 2 runs" in done.out
    _refused(elth("rm", "mine", "--restore", *here), "were removed for good: give elth run with")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Missing argument 'GRID'"),
        (["x", "--restore", "--purge"], "give --restore or --purge, not both"),
        (["x", "--restore", "--dry-run"], "--dry-run does not go with --restore"),
        (["--purge", "--older-than", "soon"], "'soon' is no length of time: give one as 12h, 7d"),
    ],
)
def test_rm_refuses_what_it_does_not_mean(elth: Elth, words: list[str], message: str) -> None:
    done = elth("rm", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_gc_tells_by_kind_and_removes_what_is_old(elth: Elth, tmp_path: Path) -> None:
    store = tmp_path / "runs"
    tracker = Tracker(Store.of(store))
    (start, *_) = chain("mine")
    log = begin(tracker, start, grid="mine")
    log.finish(rewind_result(), keep_weights=False)
    tracker.client.delete_run(log.run_id)
    here = ("gc", "--store", store)
    done = elth(*here)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"│ trash +│ +1 │ +[\d.]+ kB │ +0 │ +0 kB │", done.out)
    assert re.search(r"│ orphaned +│ +0 │", done.out)
    assert "removed" not in done.out
    dry = elth(*here, "--older-than", "0s", "--dry-run")
    assert re.search(r"│ trash +│ +1 │ +[\d.]+ kB │ +1 │ +[\d.]+ kB │", dry.out)
    assert artifact(tracker, log.run_id, "result").is_dir()
    done = elth(*here, "--older-than", "0s")
    assert re.search(r"\nremoved: 1, [\d.]+ kB\n$", done.out)
    assert not artifact(tracker, log.run_id, "result").exists()


def test_gc_tells_of_each_of_two_that_have_one_name(
    elth: Elth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deleted run, and what waited in the outbox for it."""
    store = tmp_path / "runs"
    tracker = Tracker(Store.of(store))
    log = begin(tracker, chain("mine")[0], grid="mine")
    log.finish(rewind_result(), keep_weights=False)
    tracker.client.delete_run(log.run_id)
    waits = tracker.store.outbox / log.run_id
    waits.mkdir(parents=True)

    def refuse(*_: object) -> None:
        raise ElthError("a disk that may only be read")

    monkeypatch.setattr(leftovers, "remove_files", refuse)
    done = elth("gc", "--store", store, "--older-than", "0s")
    assert re.search(r"\nremoved: 1, [\d.]+ kB\n", done.out)
    assert done.out.endswith(f"not removed: trash {log.run_id}: a disk that may only be read\n")
    assert not waits.exists()
    assert artifact(tracker, log.run_id, "result").is_dir()


def test_gc_lets_weights_go(elth: Elth, tmp_path: Path) -> None:
    store = tmp_path / "runs"
    tracker = Tracker(Store.of(store))
    start, *rounds = stages = chain("mine")
    plan = {one.key: one for one in stages}
    tracker.grids.open("mine", tiny("mine").resolved(), plan, "")
    begin(tracker, start, grid="mine").finish(rewind_result(), keep_weights=False)
    for number, stage in enumerate(rounds):
        log = begin(tracker, stage, grid="mine")
        log.finish(round_result(900 - number), keep_weights=True)
    here = ("gc", "--weights", "mine", "--store", store)
    dry = elth(*here, "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert re.fullmatch(
        rf"mine in {store}: trained weights of 2 rounds, [\d.]+ kB; those of the last round of "
        r"each chain stay \(1\)\n",
        dry.out,
    )
    assert re.search(r"\nremoved: weights of 2 rounds, [\d.]+ kB\n$", elth(*here).out)
    assert "trained weights of 0 rounds" in elth(*here).out
    assert "4 whole" in elth("verify", "mine", "--store", store).out
    _refused(elth("gc", "--weights", "x", "--store", store), "has no grid 'x' (it has: mine)")
