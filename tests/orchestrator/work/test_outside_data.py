"""A grid on a dataset from outside: planned, done, looked at where its module is no more."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from elth import plugins
from elth.errors import ElthError
from orchestrator import plan
from orchestrator.cluster.machines import look
from orchestrator.experiment.reading import load
from orchestrator.plan.graph import Plan
from orchestrator.plan.outside import modules, outside, take
from orchestrator.plan.stage import _info_of, info_of
from orchestrator.report.cells import collect
from orchestrator.report.status import states
from orchestrator.store.address import Store
from orchestrator.store.listing import seconds_per_work
from orchestrator.store.soundness import is_exposed
from orchestrator.store.tracker import Tracker
from orchestrator.work.resources import read_datasets
from orchestrator.work.resume import begin
from orchestrator.work.worker import Worker, run_job
from tests.orchestrator.helpers import RECIPE, TINY, job_config, tiny, write_yaml

CELLS = Path(__file__).parents[2] / "plugins" / "cells.py"
NAME = "outside_cells"


@dataclass(frozen=True, kw_only=True)
class Done:
    """A finished grid and the files that it came of."""

    config: Path
    module: Path
    plan: Plan
    tracker: Tracker
    failed: tuple[str, ...]


def _config(folder: Path, dataset: str) -> Path:
    fields = {
        "name": "cells",
        "plugins": [f"./{NAME}.py"],
        "dataset": dataset,
        "seeds": [0],
        "recipe": RECIPE,
        "pruning": {"rate": 0.5, "rounds": 1},
        "grid": [{"method": ["imp", "magnitude"], "network": TINY}],
    }
    return write_yaml(folder / f"{dataset.partition('(')[0].replace(':', '-')}.yaml", fields)


def _forget() -> None:
    """What this process knows of the module."""
    plugins.sources.cache_clear()
    _info_of.cache_clear()
    sys.modules.pop(NAME, None)
    importlib.invalidate_caches()


@pytest.fixture(autouse=True)
def nothing_is_listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(plugins, "_in_use", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    _forget()
    yield
    _forget()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Done by ``run_job`` in this process, as ``elth run`` does on Ray."""
    folder = tmp_path_factory.mktemp("cells")
    module = folder / f"{NAME}.py"
    module.write_bytes(CELLS.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "_in_use", {})
        patch.setattr(sys, "path", [*sys.path])
        config = _config(folder, "tiny_cells(stain=blue, size=16)")
        found = load(config)
        built = plan.build(found)
        store = Store.of(folder / "runs")
        tracker = Tracker(store)
        tracker.grids.open(found.name, found.resolved(), built.stages, "")
        code = outside(built.stages.values()).plain()
        worker = Worker()
        failed = [
            report.failed
            for job in built.jobs()
            for report in run_job(job_config(store, found, job.stages, outside=code), worker)
            if report.failed
        ]
    return Done(config=config, module=module, plan=built, tracker=tracker, failed=tuple(failed))


def test_every_stage_is_done_and_reported(done: Done) -> None:
    assert done.failed == ()
    tracked = done.tracker.stages("cells")
    assert {one.key for one in tracked} == set(done.plan.stages)
    assert {one.status for one in tracked} == {"finished"}
    report = collect(done.tracker, "cells")
    assert {cell.dataset for cell in report.cells} == {"tiny_cells(size=16, stain=blue)"}
    assert (report.missing, len(report.shown)) == (0, 3)


def test_a_key_holds_what_is_declared_and_no_version_of_the_code(
    done: Done, tmp_path: Path
) -> None:
    for stage in done.plan.stages.values():
        assert stage.params["dataset"] == {
            "name": "tiny_cells",
            "fingerprint": "cc41e76b3b836e12832e759c039d28d49f58c6a12f70b062b41efc236d7943a1",
            "mean": [0.0, 0.0, 78.075],
            "deviation": [1.0, 1.0, 71.9316],
            "size": 16,
            "stain": "blue",
        }
    (tmp_path / f"{NAME}.py").write_text(CELLS.read_text() + "# an edit that means nothing\n")
    again = plan.build(load(_config(tmp_path, "tiny_cells(stain=blue, size=16)")))
    assert list(again.stages) == list(done.plan.stages)


def test_a_worker_has_the_drivers_module_or_refuses(done: Done, tmp_path: Path) -> None:
    built = plan.build(load(done.config))
    stage = next(iter(built.stages.values()))
    assert modules(stage) == {NAME}
    told = outside([stage]).plain()
    wanted = {
        "marks": {},
        "server": None,
        "storage": None,
        "datasets": ["tiny_cells"],
        "root": "data",
        "download": False,
        "code": told,
    }
    assert look(wanted) == {"problems": []}
    (problem,) = look({**wanted, "datasets": ["tiny_cel"]})["problems"]
    assert problem.startswith("unknown dataset 'tiny_cel'; did you mean 'tiny_cells'")
    with pytest.raises(ElthError, match=f"the module '{NAME}' .* is another here than where"):
        take({**told, "digests": {NAME: "0" * 64}})


def test_it_is_read_in_a_process_without_torch_of_its_own(done: Done, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        "from elth.apart import apart\n"
        "from elth.errors import ElthError\n"
        "from orchestrator.work.resources import read_datasets\n"
        f"words = {{'download': False, 'paths': ({str(done.module)!r},)}}\n"
        "apart(read_datasets, ['tiny_cells', 'digits'], Path('data'), **words)\n"
        "try:\n    apart(read_datasets, ['bare_cells'], Path('data'), **words)\n"
        "except ElthError as error:\n    print(error)\n"
        "assert 'torch' not in sys.modules\n"
    )
    read = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert read.stdout.startswith("what bare_cells reads is not declared: give elth data describe")


def test_another_content_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    changed = CELLS.read_text().replace("noise % 64", "noise % 63")
    (tmp_path / f"{NAME}.py").write_text(changed)
    found = load(_config(tmp_path, f"{NAME}:cells"))
    assert found.dataset == f"{NAME}:cells"
    with pytest.raises(
        ElthError, match=f"the dataset {NAME}:cells is not the declared one: its fingerprint is"
    ):
        read_datasets([found.dataset], tmp_path, download=False, paths=plugins.in_use())


def test_a_dataset_of_which_nothing_is_declared_is_refused_by_the_plan(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.py").write_bytes(CELLS.read_bytes())
    with pytest.raises(
        ElthError,
        match=f"in dataset: what {NAME}:bare reads is not declared: give elth data describe "
        f"{NAME}:bare --plugin .*{NAME}.py and put what that prints above its function",
    ):
        load(_config(tmp_path, f"{NAME}:bare"))


def test_a_store_is_read_where_the_module_is_no_more(done: Done) -> None:
    content = done.module.read_bytes()
    done.module.unlink()
    try:
        with pytest.raises(ElthError, match="unknown dataset 'tiny_cells'"):
            info_of("tiny_cells")
        found = states(done.tracker, "cells")
        assert {one.state for one in found} == {"finished"}
        assert {one.title.partition(" ")[0] for one in found} == {TINY}
        assert len(collect(done.tracker, "cells").cells) == 3
        one = done.tracker.stages("cells")[0]
        old = dataclasses.replace(one, numerics="cpu-GenuineIntel-AVX2/torch")
        assert is_exposed(old), "its run tells the shape of its images"
        tracked = done.tracker.stages()
        other = plan.build(tiny("other"))  # of the same network, on digits
        assert seconds_per_work(tracked, other), "and how many there are"
        with pytest.raises(ElthError, match="in plugins: there is no plugin .*outside_cells.py"):
            begin(done.tracker, one.run_id, ())
    finally:
        done.module.write_bytes(content)
    assert states(done.tracker, "cells")
    assert plugins.listed() == ()  # what a store names is not run
    plugins.use([done.module])
    assert is_exposed(old)
