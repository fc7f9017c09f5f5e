"""Several drivers on one experiment at once: each stage is computed once, whoever sleeps."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path
from subprocess import Popen

import psutil
import pytest

from tests.e2e.conftest import SHARED, Project, finish

pytestmark = pytest.mark.e2e

STAGES = 6


def rows(project: Project, text: str) -> list[tuple[str, ...]]:
    """What a query of the store's database gives."""
    path = project.path / "runs/mlflow.db"
    if not path.exists():
        return []
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    try:
        return list(connection.execute(text))
    except sqlite3.OperationalError:  # the tables are being made
        return []
    finally:
        connection.close()


def check_once(project: Project) -> None:
    """Every key has one finished run, and nothing else was published or is left."""
    found = rows(
        project,
        "select tags.value, runs.status from runs join tags using (run_uuid) "
        "where tags.key = 'elth.key' and lifecycle_stage = 'active'",
    )
    assert Counter(status for _, status in found) == {"FINISHED": STAGES}
    assert len({key for key, _ in found}) == STAGES
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


def test_two_drivers_do_every_stage_once(together: Project) -> None:
    check_once(together)
    assert set(trained(together).values()) == {1}
    lines = together.output.splitlines()
    assert sum(line.startswith(f"{STAGES} of {STAGES} stages done") for line in lines) == 2
    assert not list((together.path / "runs/inflight").glob("*"))


BEGUN = (
    "select distinct run_uuid from runs join metrics using (run_uuid) "
    "where status = 'RUNNING' and lifecycle_stage = 'active'"
)
"""Runs that are being trained."""


def _worker(driver: Popen[str]) -> psutil.Process | None:
    """The process of a driver that trains."""
    for process in psutil.Process(driver.pid).children(recursive=True):
        if any("JobTrial" in word for word in process.cmdline()):
            return process
    return None


@pytest.mark.slow
def test_a_worker_that_is_stopped_for_longer_than_its_lease_harms_nothing(
    together: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELTH_LEASE_SECONDS", "5")
    project = Project(tmp_path)
    project.write("shared.yaml", SHARED)
    sleepy = project.start("run", "shared.yaml")
    stopped = ""

    def stop() -> bool:
        """Stop the worker in the middle of a training, and not while it writes."""
        nonlocal stopped
        worker = _worker(sleepy) if rows(project, BEGUN) else None
        if worker is not None:
            worker.suspend()
            begun = rows(project, BEGUN)
            if begun and not (project.path / "runs/mlflow.db-journal").exists():
                stopped = begun[0][0]
            else:
                worker.resume()
        return bool(stopped)

    project.wait_for(stop, sleepy)
    key = f"select value from tags where key = 'elth.key' and run_uuid = '{stopped}'"
    other = project.start("run", "shared.yaml")
    taken = (
        "select run_uuid from runs join tags using (run_uuid) where status = 'FINISHED' and "
        f"tags.key = 'elth.key' and tags.value = ({key})"
    )
    project.wait_for(lambda: bool(rows(project, taken)), other)
    worker = _worker(sleepy)
    assert worker is not None
    worker.resume()
    finish(sleepy)
    finish(other)
    check_once(project)
    assert (stopped,) not in rows(project, taken)
    again = {key: count for key, count in trained(project).items() if count > 1}
    assert len(again) == 1, "only what was stopped in its middle was done by two"
    assert project.report("shared") == together.report("shared")
