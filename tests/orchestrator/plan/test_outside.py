"""Code from outside in an experiment: what enters keys, and who refuses what."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from elth import criteria, elastic, networks, plugins
from elth.errors import ElthError
from elth.recipes import RECIPES
from orchestrator import plan
from orchestrator.cli.main import cli
from orchestrator.experiment import Experiment, Paper, load
from orchestrator.experiment.methods import Method, method_of, names
from orchestrator.experiment.recipes import recipes_by_name
from orchestrator.plan import Plan
from orchestrator.plan.outside import CodeError, outside, take
from orchestrator.report.cells import collect
from orchestrator.report.forms import to_csv, write
from orchestrator.report.status import states
from orchestrator.store.address import Store
from orchestrator.store.tracker import Tracker
from orchestrator.store.verifying import verify
from orchestrator.work.resume import begin as begin_again
from orchestrator.work.worker import Worker, run_job
from tests.orchestrator.helpers import job_config, write_yaml

PLUGINS = Path(__file__).parents[2] / "plugins"
VIT = "vit:vit(width=8)"

BASE: dict[str, Any] = {
    "plugins": ["./vit.py", "./ways.py"],
    "dataset": "digits",
    "seeds": [0],
    "recipe": {"base": "brief", "batch_size": 512},
    "pruning": {"rate": 0.5, "rounds": 1},
    "grid": [
        {"method": ["imp", "negated", "smallest"], "network": VIT},
        {
            "method": "ett",
            "source": VIT,
            "network": "vit:vit(depth=4,width=8)",
            "transform": "twice",
        },
    ],
}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test lists is not listed in the next one, and its modules are imported anew."""
    _forget(monkeypatch)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("vit", "ways"):
        sys.modules.pop(name, None)


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_in_use", {})
    for name in ("vit", "ways"):
        sys.modules.pop(name, None)
    plugins.sources.cache_clear()
    from orchestrator.plan import stage, transforming

    stage.named.cache_clear()
    transforming.transform.cache_clear()


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with the plugins and a config."""
    for name in ("vit.py", "ways.py"):
        shutil.copy(PLUGINS / name, tmp_path)
    return write_yaml(tmp_path / "lab.yaml", BASE)


def _plan(path: Path, *overrides: str) -> tuple[Experiment, Plan]:
    return plan.of_file(path, overrides)


def _steps(built: Plan) -> list[dict[str, Any]]:
    return [step for stage in built.stages.values() for step in stage.params.get("ticket", ())]


def test_keys_hold_versions_of_what_is_from_outside_and_of_nothing_else(lab: Path) -> None:
    experiment, built = _plan(lab)
    of_vit = f"sha256:{plugins.sources('vit').digest}"
    of_ways = f"sha256:{plugins.sources('ways').digest}"
    assert {stage.params["network_version"] for stage in built.stages.values()} == {of_vit}
    found = {step.get("call", step.get("criterion")): step["version"] for step in _steps(built)}
    assert found == {
        "ways:scale": "ways:1",  # declared
        "smallest": of_ways,
        "twice": of_ways,
    }
    assert experiment.plugins == (str(lab.parent / "vit.py"), str(lab.parent / "ways.py"))
    ours = plan.build(load(lab, ["grid=[{method: imp, network: resnet14}]"]))
    unlisted = plan.build(load(lab, ["grid=[{method: imp, network: resnet14}]", "plugins=[]"]))
    assert set(ours.stages) == set(unlisted.stages)
    assert not any("network_version" in stage.params for stage in ours.stages.values())


def test_an_edit_gives_new_keys_to_what_it_reaches_alone(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before = _plan(lab)
    file = lab.parent / "ways.py"
    file.write_text(file.read_text() + "\nMORE = 1\n")
    _forget(monkeypatch)
    _, after = _plan(lab)
    changed = [stage for key, stage in before.stages.items() if key not in after.stages]
    assert sorted(stage.labels["method"] for stage in changed) == ["ett", "smallest"]  # not negated


def test_an_edit_of_a_file_that_it_imports_counts(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = lab.parent / "helper_of_vit.py"
    helper.write_text("DEPTH = 2\n")
    file = lab.parent / "vit.py"
    file.write_text(f"{file.read_text()}\n\ndef later():\n    import helper_of_vit\n")
    _, before = _plan(lab)
    helper.write_text("DEPTH = 3\n")
    _forget(monkeypatch)
    _, after = _plan(lab)
    assert not set(before.stages) & set(after.stages)
    assert set(plugins.sources("vit").files) == {"vit", "helper_of_vit"}
    assert "torch" in plugins.sources("vit").packages


def test_names_are_found_and_the_nearest_are_suggested(lab: Path) -> None:
    _plan(lab)
    assert method_of("negated").title == "Negated"
    assert method_of("ways:smallest").criterion == "ways:smallest"
    assert method_of("smallest").about == "The smallest weights stay: what should not work."
    assert {"negated", "smallest"} <= set(names())
    assert criteria.options("smallest") == {"power": 1.0}
    assert str(recipes_by_name()["brief"].length) == "2ep"
    assert list(recipes_by_name())[: len(RECIPES)] == list(RECIPES)
    for override, message in (
        ("grid.0.method=negatde", "unknown method 'negatde'; did you mean 'negated'"),
        ("grid.0.network=vit:vitt", "unknown name in module vit 'vitt'; did you mean 'vit'"),
        ("grid.0.method=ways:scales", "unknown name in module ways 'scales'; did you mean 'scale'"),
        ("recipe=breif", "unknown recipe 'breif'; did you mean 'brief'"),
        ("criteria={smallest: {pover: 2}}", "unknown setting of criterion smallest 'pover'; did"),
        ("paper={title: x, layout: one_numbr}", "unknown layout 'one_numbr'; did you mean 'one_"),
        ("grid.1.transform=ways:twice(k=1)", "unknown option of transformation ways:twice 'k'"),
        ("plugins=[./vot.py]", r"in plugins: there is no plugin .*vot.py"),
        ("plugins=[./lab.yaml]", r"in plugins: the plugin .*lab.yaml is no module"),
        ("plugins=./vit.py", r"plugins is a list of files, as \[./nets.py\]; found './vit.py'"),
    ):
        with pytest.raises(ElthError, match=message):
            _plan(lab, override)


def test_a_plugin_of_another_modules_name_is_refused(lab: Path) -> None:
    for name in ("json", "yaml"):
        (lab.parent / f"{name}.py").write_text("")
        with pytest.raises(ElthError, match=rf"has the name of another module, {name} \("):
            _plan(lab, f"plugins=[./{name}.py]")


def test_two_modules_that_give_one_name_are_refused(lab: Path) -> None:
    shutil.copy(lab.parent / "vit.py", lab.parent / "vit2.py")
    with pytest.raises(ElthError, match="both 'vit' and 'vit2' name 'tiny_vit' in NETWORKS"):
        _plan(lab, "plugins=[./vit.py,./vit2.py,./ways.py]", "grid.0.network=tiny_vit")


def test_another_process_has_the_same_code_or_is_refused(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, built = _plan(lab)
    told = json.loads(json.dumps(outside(built.stages.values()).plain()))
    assert set(told["digests"]) == {"vit", "ways"}
    take(told)
    take(told)
    file = lab.parent / "vit.py"
    file.write_text(file.read_text() + "\n# another\n")
    _forget(monkeypatch)
    with pytest.raises(
        ElthError, match=r"the module 'vit' \(.*vit.py\) is another here than where"
    ):
        take(told)
    file.unlink()
    _forget(monkeypatch)
    with pytest.raises(ElthError, match="there is no plugin .*vit.py"):
        take(told)


@pytest.fixture
def done(lab: Path, store: Store) -> tuple[Store, Experiment, Plan]:
    """The grid, done."""
    experiment, built = _plan(lab, "name=lab-outside")
    tracker = Tracker(store)
    tracker.grids.open(experiment.name, experiment.resolved(), built.stages, "")
    code = outside(built.stages.values()).plain()
    for job in built.jobs():
        reports = list(run_job(job_config(store, experiment, job.stages, outside=code), Worker()))
        assert [report.failed for report in reports if report.failed] == []
    return store, experiment, built


def test_a_grid_is_done_and_read_where_its_code_is_not(
    done: tuple[Store, Experiment, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, experiment, built = done
    report = collect(Tracker(store), experiment.name)
    assert {cell.method for cell in report.cells} == {"dense", "imp", "negated", "smallest", "ett"}
    whole = to_csv(report)
    (run,) = [
        run
        for run in Tracker(store).runs_of(next(iter(built.stages)))
        if run.info.status == "FINISHED"
    ]
    assert run.data.tags["plugin.vit"] == plugins.sources("vit").digest
    assert "version.torch" in run.data.tags
    for name in ("vit.py", "ways.py"):
        (tmp_path / name).unlink()
    _forget(monkeypatch)
    tracker = Tracker(store)
    again = collect(tracker, experiment.name)
    assert to_csv(again) == whole
    assert write(again, tmp_path / "report")
    assert {one.state for one in states(tracker, experiment.name)} == {"finished"}


def test_a_worker_with_other_code_names_its_node(done: tuple[Store, Experiment, Plan]) -> None:
    store, experiment, built = done
    code = {**outside(built.stages.values()).plain(), "digests": {"vit": "another"}}
    (job, *_) = built.jobs()
    (report,) = run_job(job_config(store, experiment, job.stages, outside=code), Worker())
    assert report.failed.startswith("node ")
    assert "the module 'vit'" in report.failed


def test_a_layout_that_is_not_here_is_said_and_no_more(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {
        "title": "Lab",
        "layout": "one_number",
        "printed": [{"network": VIT, "method": "negated", "accuracy": 1.0}],
    }
    stored = Paper.stored(plain)  # as of a store, where nothing of it is known
    assert stored.printed[0].network == VIT
    with pytest.raises(ValueError, match="layout"):
        Paper.model_validate(plain)
    _plan(lab)
    assert Paper.model_validate(plain).layout == "one_number"


def test_a_transformation_from_outside(lab: Path) -> None:
    _plan(lab)
    spec, version, module = elastic.outside("ways:scale( by=2 )")
    assert (str(spec), version, module) == ("ways:scale(by=2.0)", "ways:1", "ways")
    assert elastic.is_outside("twice")
    assert not elastic.is_outside("append")
    for plan_of_ours in ("append:1-4x2", "drop:2-4 | append", "double:gaussian:0.05", "doubel:x"):
        assert not elastic.is_outside(plan_of_ours)
    assert networks.version("vit:vit").startswith("sha256:")


def test_a_job_in_a_copy_of_its_folder_finds_its_code_there(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the machines of a cluster that was given the folder by ``elth submit``."""
    monkeypatch.chdir(lab.parent)
    _, built = _plan(lab)
    told = outside(built.stages.values()).plain()
    assert told["relative"] == ["vit.py", "ways.py"]
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("vit.py", "ways.py"):
        shutil.move(lab.parent / name, copy)
    _forget(monkeypatch)
    monkeypatch.chdir(copy)
    take(told)
    assert plugins.find("vit") == copy / "vit.py"


def test_what_is_neither_sent_nor_installed_is_refused(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = lab.parent / "project"
    project.mkdir()
    shutil.move(lab, project)
    text = (project / "lab.yaml").read_text().replace("./", "../")
    (project / "lab.yaml").write_text(text)
    monkeypatch.chdir(project)
    words = ["submit", "lab.yaml", "--address", "http://127.0.0.1:9", "--no-follow"]
    done = CliRunner().invoke(cli, words)
    assert isinstance(done.exception, ElthError)
    message = r".*vit.py does not lie below .*project, which is what is sent"
    assert re.match(message, str(done.exception))


def test_no_code_is_run_from_a_store(
    done: tuple[Store, Experiment, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, experiment, built = done
    tracker = Tracker(store)
    (run, *_) = tracker.runs_of(next(iter(built.stages)))
    assert store.folder is not None
    evil = store.folder / "artifacts" / "evil.py"
    evil.write_text("raise SystemExit('it was run')")
    text = experiment.resolved().replace(experiment.plugins[0], str(evil))
    tracker.client.log_text(run.info.run_id, text, "experiment.yaml")
    _forget(monkeypatch)
    with pytest.raises(ElthError, match="evil.py of this run lies in its store, from which no"):
        begin_again(tracker, run.info.run_id, [])


def test_what_was_made_by_other_code_is_not_taken_for_damaged(
    done: tuple[Store, Experiment, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, experiment, built = done
    tracker = Tracker(store)
    assert {one.state for one in verify(tracker, experiment.name)} == {"whole"}
    file = tmp_path / "vit.py"
    text = file.read_text()
    file.write_text(text.replace("2 * width", "3 * width"))  # the masks of before do not fit
    _forget(monkeypatch)
    _plan(tmp_path / "lab.yaml", "name=lab-edited")
    last = list(built.stages.values())[-1]
    with pytest.raises(CodeError, match="was made by another version of vit:vit"):
        Tracker(store).load(last.key)
    assert {one.state for one in verify(tracker, experiment.name)} == {"unknown"}
    file.unlink()
    _forget(monkeypatch)
    with pytest.raises(CodeError, match="was made by code that is not here: no module 'vit' is"):
        Tracker(store).load(last.key)
    told = CliRunner().invoke(cli, ["verify", experiment.name, "--store", str(store)]).output
    count = len(built.stages)
    assert f"{count} finished stages" in told
    assert f"0 whole, {count} not looked at, as their code from outside is not here" in told
    file.write_text(text)
    _forget(monkeypatch)
    _plan(tmp_path / "lab.yaml", "name=lab-outside")
    assert {one.state for one in verify(tracker, experiment.name)} == {
        "whole"
    }  # nothing was set aside


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"base": "tikcet"}, "unknown base of method M 'tikcet'; did you mean 'ticket'"),
        ({"move": "no head"}, "unknown move of method M 'no head'"),
        ({"steps": ({"reint": "all"},)}, "method M has a step that is none: {'reint': 'all'}"),
        ({"steps": ({"shuffle": "layers"},)}, "unknown shuffle of method M 'layers'"),
        ({"steps": {"reinit": "all"}}, "steps of method M must be a tuple of steps"),
        ({"steps": ({"call": "a:b", "version": 1},)}, "a call has a version by itself"),
        ({"base": "chain", "steps": ({"reinit": "all"},)}, "the rounds of IMP take none"),
        ({"steps": ({"graft": "snip"},)}, "which is about replicated units: only what comes from"),
        ({"steps": ({"shuffle": "replicated"},)}, "about replicated units.* its base is ticket"),
    ],
)
def test_a_method_that_cannot_be_is_refused_where_it_is_written(
    words: dict[str, Any], message: str
) -> None:
    with pytest.raises(ElthError, match=message):
        Method(**({"title": "M", "base": "ticket", "about": "x"} | words))


def test_a_graft_by_a_criterion_from_outside_has_its_version(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lab.parent / "ways.py"
    file.write_text(
        f"{file.read_text()}\nMETHODS['grafted'] = Method(title='G', base='source', "
        "criterion='smallest', steps=({'graft': 'smallest'},), about='x')\n"
    )
    entry = "{method: grafted, source: resnet14, network: resnet20, transform: append, round: 1}"
    _, before = _plan(lab, f"grid=[{entry}]")
    (graft,) = (step for step in _steps(before) if "graft" in step)
    assert graft == {"graft": "smallest", "version": f"sha256:{plugins.sources('ways').digest}"}
    last = before.stages[before.asked[-1]]
    assert outside([last]).digests.keys() == {"ways"}
    file.write_text(f"{file.read_text()}\nMORE = 1\n")
    _forget(monkeypatch)
    _, after = _plan(lab, f"grid=[{entry}]")
    assert last.key not in after.stages


def test_steps_after_a_criterion_count(lab: Path) -> None:
    file = lab.parent / "ways.py"
    file.write_text(
        f"{file.read_text()}\nMETHODS['late'] = Method(title='Late', base='rewind', "
        "criterion='grasp', steps=({'reinit': 'all'},), about='x')\n"
    )
    _, built = _plan(lab, "grid=[{method: [late, grasp], network: resnet14, round: 1}]")
    made = [stage.params.get("ticket") for stage in built.stages.values()]
    late, grasp = (steps for steps in made if steps is not None)
    assert late == [*grasp, {"reinit": "all"}]
    assert grasp[0]["version"] == 2


def test_a_name_of_ours_for_something_else_is_refused(lab: Path) -> None:
    file = lab.parent / "ways.py"
    text = file.read_text()
    for line, name in (
        ("NETWORKS = {'resnet20': smallest}", "'resnet20' in ways, in NETWORKS is a name of ours"),
        ("TRANSFORMATIONS['auto'] = twice", "'auto' in ways, in TRANSFORMATIONS is a name of ours"),
    ):
        plugins.sources.cache_clear()
        sys.modules.pop("ways", None)
        file.write_text(f"{text}\n{line}\n")
        with pytest.raises(ElthError, match=name):
            _plan(lab)
