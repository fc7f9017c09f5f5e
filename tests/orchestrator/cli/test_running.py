"""``elth plan`` and ``run``: parts of a grid, hours, notifications and JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import plan
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.estimating import Trained, trained
from orchestrator.plan.schedule import Schedule
from orchestrator.store.address import Store
from orchestrator.store.tracker import Tracker
from orchestrator.work import runner, timing
from orchestrator.work.stopping import TimeOverError
from tests.orchestrator.cli.helpers import Elth
from tests.orchestrator.helpers import TINY, TINY_DEEPER, Finished, tiny, track

GRID = [
    {"method": "imp", "network": [TINY, TINY_DEEPER]},
    {"method": "ett", "source": TINY, "network": TINY_DEEPER, "transform": "append"},
]


@pytest.fixture
def no_training_on_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages are tracked as they come, with random weights."""

    def run(schedule: Schedule, experiment: Experiment, store: Store, count: int) -> None:
        tracker = Tracker(store)
        words: dict[str, Any] = {"grid": experiment.name, "experiment": experiment.resolved()}
        while not schedule.is_over:
            job = schedule.take("trial")
            assert job is not None
            for index, stage in enumerate(job.stages):
                track(tracker, stage, 50.0, **words)
                schedule.advance("trial", index + 1, 0.0, None)
            schedule.end("trial")

    monkeypatch.setattr(runner, "run", run)


def _file(tmp_path: Path, name: str, **changes: Any) -> tuple[Path, Experiment]:
    found = tiny(name, grid=GRID, **changes)
    path = tmp_path / f"{name}.yaml"
    path.write_text(found.resolved(), encoding="utf-8")
    return path, found


@pytest.mark.usefixtures("no_training_on_ray")
def test_a_part_is_run_and_the_grid_recorded_whole(
    elth: Elth, store: Store, tmp_path: Path
) -> None:
    path, found = _file(tmp_path, "cli-only", seeds=[2060])
    whole = plan.build(found)
    words = (path, "--store", store)
    done = elth("run", *words, "--only", "method=ett")
    assert (done.code, done.err) == (0, "")
    assert f"only method=ett: 5 of {len(whole.stages)} stages of cli-only" in done.out
    assert "5 of 5 stages done in " in done.out
    assert "Only method=ett is shown." in done.out
    tracker = Tracker(store)
    assert tracker.grids.keys("cli-only").keys() == whole.stages.keys()
    tracked = {one.stage.title for one in tracker.stages("cli-only")}
    assert tracked == {
        f"{TINY} rewind point, seed 2060",
        f"{TINY} dense round 0, seed 2060",
        f"{TINY} round 1, seed 2060",
        f"{TINY} round 2, seed 2060",
        f"{TINY_DEEPER} <- {TINY} append round 2, seed 2060",
    }
    assert store.folder is not None
    kept = json.loads((store.folder / "reports/cli-only/cells.json").read_text(encoding="utf-8"))
    assert {cell["network"] for cell in kept} == {TINY, TINY_DEEPER}  # the report is of the grid
    # Status and report of the whole tell what is left; those of the part, that nothing is.
    left = json.loads(elth("status", "cli-only", "--store", store, "--json").out)
    assert (left["counts"]["finished"], left["counts"]["waiting"]) == (5, len(whole.stages) - 5)
    of_part = json.loads(
        elth("status", "cli-only", "--store", store, "--json", "--only", "method=ett").out
    )
    assert of_part["counts"]["finished"] == len(of_part["stages"]) == 5
    # The rest, and nothing of it twice.
    done = elth("run", *words)
    assert f"{len(whole.stages)} of {len(whole.stages)} stages done, 5 of them found " in done.out


def test_a_part_that_there_is_not_is_refused_before_anything_is_done(
    elth: Elth, store: Store, tmp_path: Path
) -> None:
    path, _ = _file(tmp_path, "cli-none", seeds=[2061])
    done = elth("run", path, "--store", store, "--only", "method=snip")
    assert done.code == 2
    assert "--only method=snip chooses nothing of cli-none" in done.err
    assert Tracker(store).grids.run("cli-none") is None


def test_a_report_of_a_part_stays_beside_what_it_is_compared_with(
    elth: Elth, finished: Finished
) -> None:
    words = ("report", "done", "--store", finished.store)
    whole = json.loads(elth(*words, "--json").out)
    part = json.loads(elth(*words, "--json", "--only", "method=ett,reinit").out)
    assert part == [cell for cell in whole if cell["method"] in ("ett", "reinit")]
    rows = {line for line in elth(*words, "--csv").out.splitlines() if ",ett," in line}
    lines = elth(*words, "--csv", "--only", "method=ett").out.splitlines()
    assert set(lines[1:]) == rows  # with the difference to IMP, which is not chosen
    text = elth(*words, "--only", "method=ett").out
    assert re.search(r"ETT <- .*\([+-]\d", text)
    assert "Only method=ett is shown." in text
    of_seed = json.loads(elth(*words, "--json", "--only", "method=ett,seed=1").out)
    assert [cell["seeds"] for cell in of_seed] == [[1]]


def test_a_plan_of_a_part_as_json(elth: Elth, tmp_path: Path) -> None:
    path, found = _file(tmp_path, "cli-plan", seeds=[0, 1])
    done = elth("plan", path, "--json", "--only", "method=ett,seed=0")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert (told["grid"], told["only"]) == ("cli-plan", "method=ett,seed=0")
    assert told["stages_of_grid"] == len(plan.build(found).stages)
    assert told["stages"] == {"in_all": 5, "finished": 0, "ended": 0, "to_do": 5}
    assert told["kinds"]["round"] == {"in_all": 3, "finished": 0, "ended": 0, "to_do": 3}
    assert told["trainings"] == {"here": 4, "by_line": 7, "by_cell": 14} or told["trainings"]
    assert told["seconds_from"] == "guess"
    assert told["seconds"] > 0
    assert told["refusals"] == []
    assert told["change"].startswith("The grid cli-plan is new in ")
    text = elth("plan", path, "--only", "method=ett,seed=0").out
    assert f"Only method=ett,seed=0: 5 of {told['stages_of_grid']} stages" in text


def test_a_refusal_in_json_ends_as_without(
    elth: Elth, finished: Finished, done_config: Path
) -> None:
    words = ("plan", done_config, "recipe.lr=0.5", "--store", finished.store)
    plain, done = elth(*words), elth(*words, "--json")
    assert (done.code, done.err) == (plain.code, plain.err)
    (refusal,) = json.loads(done.out)["refusals"]
    assert f"elth run would refuse: {refusal}." in plain.out


def test_bad_requests_leave_standard_output_empty(elth: Elth, config: Path) -> None:
    for words in (
        ("plan", config, "--json", "--only", "method=none-such"),
        ("plan", "none.yaml", "--json"),
        ("status", "none", "--json"),
        ("verify", "none", "--json"),
        ("run", config, "--hours", "0"),
        ("run", config, "--hours", "-1"),
        ("verify", "--json", "--restore"),
    ):
        done = elth(*words)
        assert (done.code, done.out) == (2, ""), words
        assert done.err.count("\n") == 1


# How long


def test_steps_that_were_timed_before_tell_how_long(
    elth: Elth, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = plan.of_file(config)[1]
    stages = list(built.stages.values())
    monkeypatch.setattr(timing, "known", lambda *_: _all(stages, 0.5))
    told = json.loads(elth("plan", config, "--json").out)
    assert told["seconds_from"] == "steps"
    iterations = sum(stop - start for start, stop in map(plan.iterations, stages))
    assert told["seconds"] == pytest.approx(10 + 0.5 * iterations, rel=0.15)
    text = elth("plan", config).out
    assert "(from steps that were timed on this machine)" in text


def _all(stages: list[plan.Stage], seconds: float) -> dict[Trained, float]:
    return dict.fromkeys(trained(stages), seconds)


def test_time_measures_and_says_for_how_long(
    elth: Elth, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(experiment: Experiment, stages: list[plan.Stage], count: int) -> Any:
        return _all(stages, 0.25)

    monkeypatch.setattr(timing, "timed", timed)
    done = elth("plan", config, "--time")
    assert f"Timed: {TINY} on digits in batches of 128: 250 ms an iteration." in done.out
    assert re.search(r"\(from iterations that were timed now, in \d+ s\)", done.out)
    told = json.loads(elth("plan", config, "--time", "--json").out)
    assert told["seconds_from"] == "timed"
    assert list(told["seconds_of_iteration"].values()) == [0.25]


def test_a_plan_as_json_imports_no_torch(config: Path) -> None:
    code = (
        "import sys; sys.argv = ['elth', 'plan', *sys.argv[1:]]\n"
        "from orchestrator.cli.main import main\nmain()\n"
        "print([name for name in ('torch', 'mlflow', 'ray', 'scipy') if name in sys.modules])"
    )
    words = [sys.executable, "-c", code, str(config), "--json", "--only", "method=imp"]
    done = subprocess.run(
        words, capture_output=True, text=True, encoding="utf-8", check=True, cwd=config.parent
    )
    assert done.stdout.endswith("\n[]\n")


# Hours and notifications


def _stopping(error: BaseException) -> Callable[..., None]:
    def run(*_: Any, **limit: Any) -> None:
        raise error

    return run


def test_the_end_of_hours_has_a_code_and_words_of_its_own(
    elth: Elth, store: Store, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    def run(*_: Any, until: float) -> None:
        limits.append(until)
        raise TimeOverError

    monkeypatch.setattr(runner, "run", run)
    words = ("run", config, "seeds=[2062]", "name=cli-hours", "--store", store)
    began = time.monotonic()
    done = elth(*words, "--hours", "0.5")
    assert done.code == 124
    assert done.err.strip() == (
        "elth: stopped, as the hours that were given are over; the same command goes on from what "
        "is tracked"
    )
    assert "0 of 4 stages done, 4 waiting in " in done.out
    assert began + 1800 <= limits[0] <= time.monotonic() + 1800


def test_a_command_is_told_of_the_end(
    elth: Elth, store: Store, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run", _stopping(KeyboardInterrupt()))
    words = ("run", config, "seeds=[2063]", "name=cli-notify", "--store", store)
    command = f'echo "$ELTH_GRID $ELTH_EVENT $ELTH_DONE/$ELTH_TOTAL" >> {tmp_path / "told"}'
    done = elth(*words, "--notify", command)
    assert done.code == 130
    assert (tmp_path / "told").read_text(encoding="utf-8") == "cli-notify stopped 0/4\n"
    done = elth(*words, "--notify", "exit 3")
    assert done.code == 130
    assert "note: the command of --notify, of 'stopped', ended with 3" in done.out


# verify and doctor


def test_verify_as_json(elth: Elth, finished: Finished) -> None:
    done = elth("verify", "done", "--store", finished.store, "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["counts"] == {"whole": 24, "absent": 0, "damaged": 0, "unknown": 0}
    assert {one["key"] for one in found["stages"]} == finished.plan.stages.keys()
    first = found["stages"][0]
    assert list(first) == ["key", "run", "title", "state", "reason", "set_aside"]
    assert (first["state"], first["set_aside"]) == ("whole", False)


def test_doctor_as_json(elth: Elth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.cluster import doctor

    findings = [
        doctor.Finding(about="disk", what="4 GB are free"),
        doctor.Finding(about="Ray", what="no room", do="make room"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: iter(findings))
    done = elth("doctor", "--store", tmp_path / "runs", "--json")
    assert (done.code, done.err) == (3, "")
    assert json.loads(done.out) == {
        "wrong": 1,
        "findings": [
            {"about": "disk", "well": True, "what": "4 GB are free", "do": ""},
            {"about": "Ray", "well": False, "what": "no room", "do": "make room"},
        ],
    }
