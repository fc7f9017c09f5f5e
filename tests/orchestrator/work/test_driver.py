"""What ``elth run`` does around the runner: what it finds, warns of and hands over."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from elth.errors import ElthError
from elth.training import Epoch
from orchestrator import plan
from orchestrator.cluster import machines
from orchestrator.experiment.pruning import Pruning, Stop
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.graph import Plan
from orchestrator.plan.schedule import Schedule
from orchestrator.plan.stage import Stage
from orchestrator.report.cells import collect
from orchestrator.report.forms import to_json
from orchestrator.report.status import states
from orchestrator.store import redo
from orchestrator.store.address import Store
from orchestrator.store.listing import seconds_per_work
from orchestrator.store.result import Result
from orchestrator.store.tracker import Tracker
from orchestrator.work import driver, resources, runner, training
from orchestrator.work.resources import numerics, numerics_here
from orchestrator.work.search import PlanSearch
from orchestrator.work.worker import Worker, run_job
from tests.orchestrator.helpers import TINY, Finished, job_config, of_kind, round_of, tiny, track
from tests.orchestrator.helpers import stopped as make_stopped


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


def test_names_that_differ_in_case_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reports" / "Done").mkdir(parents=True)
    driver._check_case(tmp_path, "done")  # two folders to this disk
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: exists(path.with_name(path.name.title())))
    driver._check_case(tmp_path, "Done")
    driver._check_case(tmp_path, "other")
    with pytest.raises(ElthError, match="takes the grids Done and done for one: name this one"):
        driver._check_case(tmp_path, "done")


def test_a_finished_plan_is_reported_without_a_runner(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run", None)
    text = _execute(finished, finished.experiment)
    assert "24 of 24 stages done, 24 of them found finished in " in text
    assert "numerics" not in text


def test_what_is_ended_is_told_and_no_failure(
    stopped: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run", None)
    text = _execute(stopped, stopped.experiment)
    why = f"{TINY} round 2, seed 0 has 11.2 % < 12 %"
    assert f"ended: {why}: the rounds that follow and what needs them are not done" in text
    assert "23 of 28 stages done, 23 of them found finished, 5 ended in " in text
    report = " ".join(text.split())
    told = f"5 stages of this grid are ended by pruning.stop, as a chain ended before them: {why}."
    assert f"{told} Means after that are of the seeds whose chains went on." in report
    assert "not finished" not in report


def test_what_another_grid_did_beyond_the_end_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two grids with stops of their own share a chain; each decides by its own."""
    monkeypatch.setattr(runner, "run", None)
    found = make_stopped(tmp_path)
    before = to_json(collect(found.tracker, "stopped"))
    beyond = [one for key, one in found.plan.stages.items() if found.tracker.run_of(key) is None]
    assert len(beyond) == 5
    for number, stage in enumerate(beyond):
        track(found.tracker, stage, 9.0 - number, grid="further")
    done = {
        "stopped": "23 of 28 stages done, 23 of them found finished, 5 ended in ",
        "further": "26 of 28 stages done, 26 of them found finished, 2 ended in ",
        "all": "28 of 28 stages done, 28 of them found finished in ",
    }
    for name, stop in (
        ("further", Stop(accuracy_below=10)),
        ("stopped", Stop(accuracy_below=12)),
        ("all", None),
    ):
        pruning = Pruning(rate=0.5, rounds=4, stop=stop)
        asked = found.experiment.model_copy(update={"name": name, "pruning": pruning})
        assert done[name] in _execute(found, asked)
    report = collect(found.tracker, "stopped")
    assert to_json(report) == before
    assert (report.ended, report.missing) == (5, 0)
    assert {len(cell.seeds) for cell in collect(found.tracker, "all").cells} == {2}


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
    assert "1 stage of this grid is not finished." in text
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


@pytest.mark.parametrize(
    ("given", "way"),
    [
        ({"compile": True}, "compiled"),
        ({"compile": True, "workers": 2}, "compiled"),
        ({"compile": "auto", "workers": 2}, "eager"),
        ({"compile": True, "gpus": 1}, "compiled-graph"),
        ({"compile": True, "gpus": 1, "workers": 2}, "compiled"),
    ],
)
def test_several_workers_are_expected_to_compile_as_one_does(
    given: dict[str, Any], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for CUDA graphs, which are of one worker alone; ``auto`` finds this one too short."""
    found = tiny("fast", resources=given)
    monkeypatch.setattr(
        driver.ThisMachine, "numerics", lambda _, classes: {way for _, _, way, _ in classes}
    )
    todo = plan.build(found).stages.values()
    assert driver._expected(found, todo, driver.ThisMachine()) == {way}


# Done again


@dataclasses.dataclass
class Doing:
    """Does jobs one after the other in this process, as trials of a run."""

    worker: Worker = dataclasses.field(default_factory=Worker)
    done: list[str] = dataclasses.field(default_factory=list)
    """Titles of stages that were trained."""
    stop_after: int = 99
    """Trainings after which the driver is killed."""
    other: frozenset[str] = frozenset()
    """Titles of stages that come out different."""

    def run(self, schedule: Schedule, experiment: Experiment, store: Store, count: int) -> None:
        """In place of the runner."""
        search = PlanSearch(schedule)
        while not schedule.is_over:
            config = search.suggest("a")
            assert isinstance(config, dict), "something is ready, or the plan is over"
            stages = [Stage.of(one) for one in config["stages"]]
            for report in run_job(job_config(store, experiment, stages), self.worker):
                search.on_trial_result("a", {"report": dataclasses.astuple(report)})
            search.on_trial_complete("a")

    def train(self, stage: Stage, *args: Any, **words: Any) -> Generator[Epoch, None, Result]:
        """In place of the training, which it calls."""
        if len(self.done) == self.stop_after:
            raise KeyboardInterrupt
        result = yield from TRAIN(stage, *args, **words)
        self.done.append(stage.title)
        if stage.title in self.other:
            for state in filter(None, (result.rewind, result.trained)):
                state["fc.bias"] += 1e-6
        return result


TRAIN = training.train


@pytest.fixture
def doing(monkeypatch: pytest.MonkeyPatch) -> Doing:
    """What does the jobs."""
    found = Doing()
    monkeypatch.setattr(runner, "run", found.run)
    monkeypatch.setattr(training, "train", found.train)
    monkeypatch.setattr(driver, "_report", lambda *_: None)  # figures take their time
    return found


def _redo(store: Store, experiment: Experiment, *redo: str) -> str:
    file = io.StringIO()
    console = Console(file=file, width=400)
    built = plan.build(experiment)
    driver.execute(experiment, built, store, console, retry_failed=False, redo=redo)
    return file.getvalue()


def _runs(tracker: Tracker, built: Plan) -> dict[str, str]:
    """Runs by the titles of their stages; each stage has one."""
    found = [one for one in tracker.stages() if one.key in built.stages]
    assert {one.status for one in found} == {"finished"}
    assert len(found) == len(built.stages)
    return {one.stage.title: one.run_id for one in found}


def _redone(seed: int, name: str, **changes: Any) -> Experiment:
    entries = [{"method": ["imp", "reinit"], "network": TINY}]
    short = {"length": "2it", "rewind": "1it", "batch_size": 64, "milestones": []}
    return tiny(name, **{"seeds": [seed], "grid": entries, "recipe": short, **changes})


def test_a_stage_that_comes_out_the_same_is_all_that_is_done_again(
    doing: Doing, store: Store, tracker: Tracker
) -> None:
    experiment = _redone(320, "redo-same")
    built = plan.build(experiment)
    _redo(store, experiment)
    before, title = _runs(tracker, built), f"{TINY} round 1, seed 320"
    doing.done.clear()
    text = _redo(store, experiment, title)
    assert doing.done == [title]
    assert f"note: to be done again: {title}; 2 finished stages come of it, of which" in text
    assert f"note: {title} came out the same, bit for bit (numerics class cpu" in text
    assert "5 of 5 stages done, 4 of them found finished" in text
    after = _runs(tracker, built)
    assert {one for one in before if before[one] != after[one]} == {title}
    assert "5 of 5 stages done, 5 of them found finished" in _redo(store, experiment)
    # By its key, and once more, as the command before has ended.
    key = round_of(built, TINY, 1, seed=320).key
    _redo(store, experiment, key[:12])
    assert doing.done == [title, title]


def test_what_was_made_of_a_stage_that_comes_out_different_is_done_again(
    doing: Doing, store: Store, tracker: Tracker
) -> None:
    experiment = _redone(321, "redo-different")
    built = plan.build(experiment)
    _redo(store, experiment)
    before = _runs(tracker, built)
    start, dense, first, second, reinit = (one.title for one in built.stages.values())
    doing.done.clear()
    doing.other = frozenset([start])
    text = _redo(store, experiment, start)
    assert doing.done == [start, dense, first, second, reinit]
    assert f"note: {start} came out different (in the same numerics class cpu" in text
    assert f"done again, as made of it: {dense}, {first}, {second}\n" in text
    assert "5 of 5 stages done in " in text
    assert not set(before.values()) & set(_runs(tracker, built).values())
    # And back, by a driver that is killed after each training.
    doing.other = frozenset()
    doing.done.clear()
    for number in range(1, 6):
        doing.stop_after = number
        with contextlib.suppress(KeyboardInterrupt):
            text = _redo(store, experiment, start)
    assert doing.done == [start, dense, first, second, reinit]
    assert f"note: {start} was done again already, by this command before" in text
    doing.stop_after = 99
    assert "5 of 5 stages done, 5 of them found finished" in _redo(store, experiment)


def test_a_child_that_comes_out_the_same_ends_it(doing: Doing, store: Store) -> None:
    """Of rounds that differ in a bias the reinit is the same: only the mask is taken of them."""
    experiment = _redone(322, "redo-child")
    _redo(store, experiment)
    title = f"{TINY} round 2, seed 322"
    doing.done.clear()
    doing.other = frozenset([title])
    text = _redo(store, experiment, title)
    assert doing.done == [title, f"{TINY} reinit round 2, seed 322"]
    assert f"note: {TINY} reinit round 2, seed 322 came out the same, bit for bit" in text


def test_what_is_not_begun_waits_for_what_is_done_again_above_it(
    doing: Doing, store: Store, tracker: Tracker
) -> None:
    """Round 3 needs round 2, which is finished and will have to be done again."""
    short = _redone(323, "redo-more")
    _redo(store, short)
    longer = _redone(323, "redo-longer", pruning={"rate": 0.5, "rounds": 3})
    built = plan.build(longer)
    first = f"{TINY} round 1, seed 323"
    doing.done.clear()
    doing.other = frozenset([first, f"{TINY} round 2, seed 323"])
    _redo(store, longer, first)
    rounds = [title for title in doing.done if " round " in title and "reinit" not in title]
    assert rounds == [f"{TINY} round {k}, seed 323" for k in (1, 2, 3)]
    assert doing.done.count(f"{TINY} reinit round 3, seed 323") == 1
    assert f"{TINY} reinit round 2, seed 323" not in doing.done, "of the other grid"
    assert len(_runs(tracker, built)) == 6


def test_other_grids_are_told_and_do_theirs_when_they_are_run(
    doing: Doing, store: Store, tracker: Tracker
) -> None:
    mine = _redone(324, "redo-mine", grid=[{"method": "imp", "network": TINY}])
    theirs = _redone(324, "redo-theirs")
    for experiment in (mine, theirs):
        _redo(store, experiment)
    report = collect(tracker, "redo-theirs")
    doing.done.clear()
    title, reinit = f"{TINY} round 2, seed 324", f"{TINY} reinit round 2, seed 324"
    doing.other = frozenset([title])
    text = _redo(store, mine, title)
    assert "1 of them in no cell of this grid (in redo-theirs too)" in text
    assert f"{reinit} (those of redo-theirs by the next elth run of these)" in text
    assert doing.done == [title]
    assert collect(tracker, "redo-theirs").missing == 0 == report.missing, "nothing has gone"
    (waits,) = (one for one in states(tracker, "redo-theirs") if one.state != "finished")
    assert (waits.title, waits.state) == (reinit, "waiting")
    assert waits.reason == redo.OUTDATED
    _redo(store, theirs)
    assert doing.done == [title, reinit]


def test_a_stage_that_is_none_of_the_plan_is_refused_before_anything(
    finished: Finished, doing: Doing
) -> None:
    with pytest.raises(ElthError, match=r"'round 1' is no stage of done"):
        _redo(finished.store, finished.experiment, "round 1")
    assert doing.done == []


def test_a_plain_run_settles_what_a_killed_one_has_left(
    doing: Doing, store: Store, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = _redone(325, "redo-left")
    built = plan.build(experiment)
    _redo(store, experiment)
    start = of_kind(built, "rewind_point")[0].title
    doing.other = frozenset([start])
    doing.done.clear()
    with monkeypatch.context() as patch:
        patch.setattr(redo, "_replace", _killed)  # the new run is there, and nothing else
        with pytest.raises(KeyboardInterrupt):
            _redo(store, experiment, start)
    assert doing.done == [start]
    _redo(store, experiment)
    assert len(doing.done) == 5
    assert len(_runs(tracker, built)) == 5
    assert "5 of them found finished" in _redo(store, experiment)


def _killed(*_: object) -> str:
    raise KeyboardInterrupt
