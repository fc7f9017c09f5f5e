"""Several drivers on one experiment at once: each stage is computed once, whoever sleeps."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import psutil
import pytest

from tests.e2e.conftest import WAIT, Project

pytestmark = pytest.mark.e2e

GRID = """\
name: shared
dataset: digits
seeds: [0, 1]
recipe: {base: digits_resnet, length: 6ep, milestones: [4ep]}
pruning: {rate: 0.5, rounds: 2}
grid:
  - {method: [imp, reinit, magnitude], network: resnet14(width=4)}
resources: {concurrent: 1}
"""
STAGES = 12


def rows(project: Project, text: str) -> list[tuple[str, ...]]:
    """What a query of the store's database gives."""
    path = project.path / "runs/mlflow.db"
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    try:
        return list(connection.execute(text))
    except sqlite3.OperationalError:  # the tables are being made
        return []
    finally:
        connection.close()


def check_once(project: Project, count: int) -> None:
    """Every key has one finished run, and nothing else was published or is left."""
    found = rows(
        project,
        "select tags.value, runs.status from runs join tags using (run_uuid) "
        "where tags.key = 'elth.key' and lifecycle_stage = 'active'",
    )
    assert Counter(status for _, status in found) == {"FINISHED": count}
    assert len({key for key, _ in found}) == count
    doubled = rows(
        project,
        "select run_uuid, key, step from metrics group by run_uuid, key, step having count(*) > 1",
    )
    assert doubled == []


def trained(project: Project) -> Counter[str]:
    """For each key how many runs were trained, whatever became of them."""
    found = rows(
        project,
        "select distinct tags.value, run_uuid from tags join metrics using (run_uuid) "
        "where tags.key = 'elth.key'",
    )
    return Counter(key for key, _ in found)


def finish(driver: Popen[str]) -> str:
    """Wait for a driver; its output."""
    try:
        out, err = driver.communicate(timeout=WAIT)
    except TimeoutExpired:
        driver.kill()
        raise
    assert driver.returncode == 0, out + err
    return out


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which two drivers have done one experiment at once."""
    project = Project(tmp_path_factory.mktemp("together"))
    project.write("shared.yaml", GRID)
    drivers = [project.start("run", "shared.yaml") for _ in range(2)]
    project.output = "".join(finish(driver) for driver in drivers)
    return project


def test_two_drivers_do_every_stage_once(together: Project) -> None:
    check_once(together, STAGES)
    assert set(trained(together).values()) == {1}
    owners = rows(together, "select distinct value from tags where key = 'elth.owner'")
    assert len(owners) == 2, "both have worked"
    assert together.output.count(f"{STAGES} of {STAGES} stages done") == 2
    assert not list((together.path / "runs/inflight").glob("*"))


def _worker(driver: Popen[str]) -> psutil.Process | None:
    """The process of a driver that trains."""
    for process in psutil.Process(driver.pid).children(recursive=True):
        if any("JobTrial" in word for word in process.cmdline()):
            return process
    return None


def test_a_worker_that_is_stopped_for_longer_than_its_lease_harms_nothing(
    together: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELTH_LEASE_SECONDS", "2")
    project = Project(tmp_path)
    project.write("shared.yaml", GRID)
    sleepy = project.start("run", "shared.yaml")
    begun = (
        "select run_uuid from runs join metrics using (run_uuid) "
        "where status = 'RUNNING' and lifecycle_stage = 'active'"
    )
    project.wait_for(lambda: bool(rows(project, begun)), sleepy)
    worker = _worker(sleepy)
    assert worker is not None
    worker.suspend()
    (stopped,) = {run_id for (run_id,) in rows(project, begun)}
    key = f"select value from tags where key = 'elth.key' and run_uuid = '{stopped}'"
    other = project.start("run", "shared.yaml")
    taken = (
        "select run_uuid from runs join tags using (run_uuid) where status = 'FINISHED' and "
        f"tags.key = 'elth.key' and tags.value = ({key})"
    )
    project.wait_for(lambda: bool(rows(project, taken)), other)
    worker.resume()
    finish(sleepy)
    finish(other)
    check_once(project, STAGES)
    assert (stopped,) not in rows(project, taken)
    again = {key: count for key, count in trained(project).items() if count > 1}
    assert len(again) == 1, "only what was stopped in its middle was done by two"
    assert project.report("shared") == together.report("shared")


def test_a_driver_takes_over_at_once_from_one_that_was_killed_here(
    together: Project, tmp_path: Path
) -> None:
    """Its lease would last for a minute; both have one store, and the other one goes on."""
    project = Project(tmp_path)
    project.write("shared.yaml", GRID)
    dead, other = (project.start("run", "shared.yaml") for _ in range(2))
    project.wait_for(lambda: len(project.done()) >= 2, other)
    dead.send_signal(signal.SIGKILL)
    dead.communicate(timeout=60)
    finish(other)
    check_once(project, STAGES)
    assert project.report("shared") == together.report("shared")
