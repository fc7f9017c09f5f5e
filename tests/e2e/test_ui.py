"""MLflow's pages as ``elth ui`` opens them, read in a real browser."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import psutil
import pytest

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.experiment.reading import load
from orchestrator.experiment.sections import Experiment
from orchestrator.report.ui import COLUMNS, address, serve
from orchestrator.store.address import Store
from orchestrator.store.counting import FLOPS
from orchestrator.store.describing import NUMBERS
from orchestrator.store.opening import STAGES
from orchestrator.store.runlog import AXES, METRICS
from orchestrator.store.tracker import Tracker
from orchestrator.work.worker import Worker, run_job
from tests.e2e.conftest import MILLISECONDS, Project
from tests.orchestrator.helpers import job_config

if TYPE_CHECKING:
    from mlflow.entities import Run
    from playwright.sync_api import Browser, Locator, Page, ViewportSize

pytestmark = pytest.mark.e2e

GRID = """\
name: tiny
dataset: digits
seeds: [0]
recipe: {base: digits_resnet, length: 2ep, milestones: []}
pruning: {rate: 0.36, rounds: 1}
grid:
  - {method: [imp, random, magnitude], network: resnet14(width=4)}
  - {method: ett, source: resnet14(width=4), network: resnet20(width=4)}
"""
OTHER = ("name=other", "seeds=[2,10]", "grid=[{method: magnitude, network: resnet14(width=4)}]")
SIZE: ViewportSize = {"width": 1600, "height": 900}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the finished runs of two grids."""
    project = Project(tmp_path_factory.mktemp("ui"))
    project.write("tiny.yaml", GRID)
    for overrides in ((), OTHER):
        _run(load(project.path / "tiny.yaml", overrides), Store.of(project.path / "runs"))
    return project


def tracker_of(project: Project) -> Tracker:
    return Tracker(Store.of(project.path / "runs"))


def _run(experiment: Experiment, store: Store) -> None:
    """What ``elth run`` does, in this process and without Ray."""
    built = plan.build(experiment)
    Tracker(store).grids.open(experiment.name, experiment.resolved(), built.stages, "")
    worker = Worker()
    for job in built.jobs():
        config = job_config(store, experiment, job.stages)
        assert not any(report.failed for report in run_job(config, worker))


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that has never been here."""
    page = browser.new_page(viewport=SIZE)
    page.set_default_timeout(MILLISECONDS)
    # MLflow opens a chat panel on the first visit; whatever it covers is reached by closing it.
    close = page.locator('[data-component-id$="chat_panel.close"]')
    page.add_locator_handler(close, lambda button: button.click())
    yield page
    page.context.close()


@contextlib.contextmanager
def served(project: Project, *words: str, said: str = "") -> Iterator[str]:
    """The address that ``elth ui`` prints; SIGTERM then ends it with all that it started."""
    port = str(free_port())
    elth = project.start("ui", "--no-browser", "--store", "runs", "--port", port, *words)
    assert elth.stdout is not None
    try:
        line = elth.stdout.readline()
        assert line.startswith("MLflow: "), line
        started = psutil.Process(elth.pid).children(recursive=True)
        open_to = {c.laddr.ip for p in started for c in p.net_connections() if c.status == "LISTEN"}
        assert open_to == {"127.0.0.1"}
        yield line.split()[1]
    finally:
        elth.terminate()
        _, errors = elth.communicate(timeout=60)
    assert errors == said + f"MLflow starts on {project.path / 'runs'}\n", "nothing else is said"
    assert elth.returncode == 0
    assert started
    assert not psutil.wait_procs(started, timeout=10)[1], "nothing is left behind"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def screenshot(page: Page, folder: Path, name: str) -> None:
    """Keep what the page shows, in $ELTH_SCREENSHOTS too if that is set."""
    for place in {folder, Path(os.environ.get("ELTH_SCREENSHOTS", folder))}:
        page.screenshot(path=place / name)


def shown(page: Page, runs: list[Run]) -> None:
    """Wait until the list holds these runs and no others, each with what the store says of it."""
    from playwright.sync_api import expect

    for column in COLUMNS:
        header = page.locator(f'.ag-header-cell[col-id="{column}"]')
        expect(header).to_be_visible()
        expect(header).to_have_text(column.split("`")[1])
    expect(page.locator(".ag-center-cols-container .ag-row")).to_have_count(len(runs))
    for run in runs:
        for column in COLUMNS:
            expect(row(page, run).locator(f'[col-id="{column}"]')).to_have_text(value(run, column))


def row(page: Page, run: Run) -> Locator:
    """A run's row in the list; MLflow makes it of two, as the first columns do not scroll."""
    return page.locator(f'.ag-row[row-id="{run.info.run_id}"]')


def value(run: Run, column: str) -> str:
    """What the list should say of a run, by MLflow's name of a column."""
    kind, name, _ = column.split("`")
    if kind == "params.":
        return run.data.params.get(name, "-")
    return f"{run.data.metrics[name]:g}" if name in run.data.metrics else "-"


def test_runs_are_listed_and_compare(page: Page, project: Project, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    tracker = tracker_of(project)
    runs = list(tracker.search())
    of_tiny = {run.data.params["method"]: run for run in runs if "grid.tiny" in run.data.tags}
    assert of_tiny.keys() == {"rewind", "dense", "imp", "random", "magnitude", "ett"}
    assert len(runs) == len(of_tiny) + 4, "those of the other grid"
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))

    with served(project) as url:
        page.goto(url)
        shown(page, runs)
        screenshot(page, tmp_path, "runs.png")

        pair = [of_tiny["ett"], of_tiny["imp"]]
        for run in pair:
            row(page, run).locator(".ag-selection-checkbox input").check()
        page.get_by_role("button", name="Compare").click()
        expect(page.get_by_role("heading", name="Comparing 2 Runs")).to_be_visible()
        for name in (*AXES, "sparsity", "nonzeros"):
            values = page.locator("tr", has=page.get_by_role("rowheader", name=name, exact=True))
            expect(values.locator("td")).to_have_text([run.data.params[name] for run in pair])
        names, numbers = page.get_by_role("grid").nth(0), page.get_by_role("grid").nth(1)
        at = sorted([*METRICS, *NUMBERS, *FLOPS]).index("test_accuracy")
        expect(names.get_by_title("Plot chart").nth(at)).to_have_text("test_accuracy")
        for column, run in enumerate(pair):
            number = numbers.locator("span").nth(2 * at + column)
            expect(number).to_have_text(f"{run.data.metrics['test_accuracy']:g}")
        page.set_viewport_size({"width": 1600, "height": 1800})
        screenshot(page, tmp_path, "compare.png")

        page.get_by_label("layers.json").click()
        for run in pair:
            path = tracker.client.download_artifacts(run.info.run_id, "layers.json", str(tmp_path))
            weights = json.loads(Path(path).read_text(encoding="utf-8"))
            expect(page.locator("pre", has_text=f'"{list(weights)[-2]}"').first).to_be_visible()
        page.set_viewport_size(SIZE)
        base = url.partition("/#/")[0]
        page.goto(address(tracker, base, "tiny"))
        shown(page, list(of_tiny.values()))
        screenshot(page, tmp_path, "grid.png")
    assert asked - {""} == {urlsplit(base).netloc}, "nothing is asked of anyone else"


def test_numbers_sort_as_numbers_and_datasets_filter(
    page: Page, project: Project, tmp_path: Path
) -> None:
    """Of seeds 0, 2 and 10, of which 10 would come before 2 as text."""
    from playwright.sync_api import expect

    tracker = tracker_of(project)
    runs = list(tracker.search())
    seed = "metrics.`seed`"
    seeds = sorted((run.data.metrics["seed"] for run in runs), reverse=True)
    assert {*seeds} == {0, 2, 10}
    with served(project) as url:
        page.goto(url)
        shown(page, runs)
        header = page.locator(f'.ag-header-cell[col-id="{seed}"]')
        for expected in (seeds, seeds[::-1]):
            header.click()
            for index, number in enumerate(expected):
                cell = page.locator(f'.ag-center-cols-container .ag-row[row-index="{index}"]')
                expect(cell.locator(f'[col-id="{seed}"]')).to_have_text(f"{number:g}")
        screenshot(page, tmp_path, "sorted.png")

        digest = tracker.stages()[0].stage.params["dataset"]["fingerprint"][:16]
        page.get_by_text("Datasets", exact=True).click()
        page.get_by_role("option", name=f"digits ({digest}-train)").click()
        page.keyboard.press("Escape")
        shown(page, runs)
        screenshot(page, tmp_path, "dataset.png")

        run = next(one for one in runs if one.data.params["method"] == "magnitude")
        experiment = tracker.experiments[STAGES]
        page.goto(f"{url.partition('/#/')[0]}/#/experiments/{experiment}/runs/{run.info.run_id}")
        expect(page.get_by_text("a retraining of").first).to_be_visible()
        expect(page.get_by_text("elth run").first).to_be_visible()
        screenshot(page, tmp_path, "run.png")
        stage = next(one for one in tracker.stages() if one.run_id == run.info.run_id).stage
        (parent,) = stage.parents
        with page.context.expect_page() as opened:  # MLflow opens what a description links to so
            page.get_by_role("link", name=parent[:12]).first.click()
        (start,) = tracker.runs_of(parent)
        expect(row(opened.value, start).first).to_be_visible()
        expect(opened.value.locator(".ag-center-cols-container .ag-row")).to_have_count(1)


def test_a_store_that_is_a_server_is_only_opened(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(project, "--grid", "tiny") as url:
        base = url.partition("/#/")[0]
        assert serve(Tracker(Store.of(base)), grid="tiny", port=1, browser=False) == 0
        assert capsys.readouterr().out == f"MLflow: {url}\n"


def test_a_view_is_stored_once(project: Project) -> None:
    tracker = tracker_of(project)
    experiment = tracker.experiments[STAGES]
    every, of_tiny = address(tracker, "http://here"), address(tracker, "http://here", "tiny")
    assert every != of_tiny
    before = tracker.client.get_experiment(experiment).tags
    assert address(tracker, "http://here") == every
    assert tracker.client.get_experiment(experiment).tags == before


def test_a_port_that_is_taken(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ElthError) as refused:
            serve(tracker_of(project), grid=None, port=port, browser=False)
    assert str(refused.value) == (
        f"cannot serve on port {port} of 127.0.0.1: address already in use; give another by --port"
    )


def test_a_grid_that_is_not_there(project: Project) -> None:
    with pytest.raises(ElthError, match=r"has no grid 'small' \(it has: other, tiny\)"):
        serve(tracker_of(project), grid="small", port=1, browser=False)


def test_the_pages_of_a_store_that_was_moved_show_its_files(tmp_path: Path) -> None:
    """Of one that an earlier version made, too: its database names a folder that is no more."""
    project = Project(tmp_path)
    with tarfile.open(Path(__file__).parents[1] / "data" / "store_645568c.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    tracker = tracker_of(project)
    run = next(one for one in tracker.stages() if one.stage.kind == "round")
    recorded = str(tracker.client.get_run(run.run_id).info.artifact_uri)
    assert recorded.startswith("file:///srv/lab/runs/")
    said = f"{len(tracker.stages())} runs of before can be sorted by number now\n"
    with served(project, "--grid", "small", said=said) as url:
        base = url.partition("/#/")[0]
        words = urlencode({"run_id": run.run_id, "path": "result"})
        with urlopen(f"{base}/ajax-api/2.0/mlflow/artifacts/list?{words}") as answer:
            names = {one["path"] for one in json.load(answer)["files"]}
        assert names == {"result/mask.safetensors", "result/trained.safetensors"}
        words = urlencode({"run_uuid": run.run_id, "path": "layers.json"})
        with urlopen(f"{base}/get-artifact?{words}") as answer:
            assert answer.read() == tracker.files.read(run.run_id, "layers.json")
        words = urlencode({"run_uuid": run.run_id, "path": "../../../mlflow.db"})
        with pytest.raises(HTTPError):
            urlopen(f"{base}/get-artifact?{words}")
