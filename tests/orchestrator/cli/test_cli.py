"""The command line: what it prints, what it refuses, in one line, and with which code it ends."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from orchestrator.cli.main import cli
from orchestrator.experiment import reading
from orchestrator.experiment.reading import load
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.building import build
from orchestrator.plan.schedule import Schedule
from orchestrator.store import storage, verifying
from orchestrator.store.address import Store
from orchestrator.store.tracker import Tracker
from orchestrator.work import driver, runner
from orchestrator.work.worker import run_job
from tests.orchestrator.cli.helpers import Elth, files_of, refused, table_of
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
    round_of,
    tiny,
    write_yaml,
)


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
    refused(elth("plan", "~nobody-9/x.yaml"), "~nobody-9 is nobody's home here")
    refused(elth("plan", "~/small.YAML", "data.root=~nobody-9"), "~nobody-9 is nobody's home")
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


def test_a_store_of_a_folder_above_is_told(
    elth: Elth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mine" / "configs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine" / "configs")
    refused(elth("report", "g"), "/mine/configs/runs; run an experiment")
    Tracker(Store.of(str(tmp_path / "runs")))
    refused(elth("report", "g"), f"/mine/configs/runs, and one in {tmp_path / 'runs'}; run an")
    refused(elth("report", "g", "--store", "other"), "/other; run an experiment")


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
        (
            ["why", "q", "seeds=[0]"],
            "'seeds=[0]' goes with a config, and 'q' is none",
        ),
        (
            ["why", "q", "--stage", "x"],
            "--stage goes with a config, and 'q' is none",
        ),
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
    refused(elth(*(str(config) if word == "CONFIG" else word for word in words)), message)


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
    assert files_of(tmp_path) == {"here", "small.yaml"}


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
    table = table_of(done.out)
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
    table = table_of(done.out)
    assert table["all"] == ["24", "12", "12"]
    assert "from the times of finished stages in this store" in done.out
    done = elth("plan", done_config, "--store", finished.store)
    assert table_of(done.out)["all"] == ["24", "24", "0"]
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
    table = table_of(out)
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
    assert table_of(full)["round"][0] == "42"
    assert "large-smoke: digits, seed 0" in smoke
    assert table_of(smoke)["round"][0] == "3"


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
        refused(elth("run", *words, *here), why)
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
    assert table_of(status.out) == {
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
    refused(elth("run", config, *words, "--store", store), "the dataset mnist is not in data (")
    assert Tracker(store).grids.run("cli-nodata") is None


def test_a_machine_that_is_too_small_is_refused_before_a_store_is_made(
    elth: Elth, config: Path, tmp_path: Path
) -> None:
    done = elth("run", config, "resources.cpus=9999")
    refused(done, "a trial asks for 9999 cpus and 0 gpus, and this machine has ")
    assert files_of(tmp_path) == {"here", "small.yaml"}


# status and report


def test_status(elth: Elth, finished: Finished, done_config: Path) -> None:
    done = elth("status", "done", "--store", finished.store)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"done in {finished.store}\n")
    assert table_of(done.out) == {"state": ["stages"], "finished": ["24"]}
    assert elth("status", done_config, "--store", finished.store).out == done.out


def test_what_is_ended_is_said_and_no_failure(
    elth: Elth, stopped: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run", None)
    path = tmp_path / "stopped.yaml"
    path.write_text(stopped.experiment.resolved(), encoding="utf-8")
    why = f"{TINY} round 2, seed 0 has 11.2 % < 12 %"
    status = elth("status", path, "--store", stopped.store)
    assert table_of(status.out) == {"state": ["stages"], "finished": ["23"], "ended": ["5"]}
    lines = [line for line in status.out.splitlines() if line.startswith("ended: ")]
    assert lines[0] == f"ended: {TINY} round 3, seed 0: {why}"
    assert lines[-1] == f"ended: {TINY_DEEPER} <- {TINY} append round 3, seed 0: {why}"
    assert len(lines) == 5
    told = elth("plan", path, "--store", stopped.store)
    assert table_of(told.out)["all"] == ["28", "23", "5", "0"]
    assert table_of(told.out)["round"] == ["10", "8", "2", "0"]
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
    assert table_of(more.out)["all"] == ["32", "23", "7", "2"]
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
    planned = elth("plan", config, "pruning={rate: 0.9, rounds: 6}")
    refused(planned, "round 5 of resnet14(width=4) would keep none of 11,012 weights: round 4 is")
    assert planned.err == elth("run", config, "pruning={rate: 0.9, rounds: 6}").err


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
    assert table_of(status)["finished"] == ["4"]


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
    assert table_of(status.out)["finished"] == ["12"]
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
    refused(
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
    refused(elth(*here, "--latex", "--json"), "give one of --json, --csv, --markdown and --latex")


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
    refused(elth(*here, "--against", "reinit"), "--against goes with --verdicts")
    refused(elth(*here, "--verdicts", "--latex"), "--verdicts goes with --json or --csv")
    refused(elth(*here, "--verdicts", "--against", "imq"), "did you mean 'imp'?")
    refused(elth(*here, "--verdicts", "--against", "{methd: imp}"), "method: ")


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
