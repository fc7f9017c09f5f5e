"""``elth run --redo`` through Ray: what comes out different, a driver that is killed, and two."""

from __future__ import annotations

import contextlib
import signal
import sqlite3

import pytest

from tests.e2e.conftest import SHARED, Project, finish

pytestmark = pytest.mark.e2e

NETWORK = "resnet14(width=4)"
START = f"{NETWORK} rewind point, seed 0"
MADE_OF_IT = {
    f"{NETWORK} dense round 0, seed 0",
    f"{NETWORK} round 1, seed 0",
    f"{NETWORK} round 2, seed 0",
    f"{NETWORK} magnitude round 2, seed 0",
}
REINIT = f"{NETWORK} reinit round 2, seed 0"
"""Made of round 2 and not of the rewind point."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a finished grid."""
    project = Project(tmp_path_factory.mktemp("redo"))
    project.write("shared.yaml", SHARED)
    done = project.elth("run", "shared.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def _was_different(project: Project) -> None:
    """Let the store say that the rewind point was another one before."""
    path = project.path / "runs/mlflow.db"
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as base:
        changed = base.execute(
            "update tags set value = '0' where key = 'elth.rewind_sha256' and run_uuid in "
            "(select run_uuid from runs where lifecycle_stage = 'active')"
        )
        base.commit()
    assert changed.rowcount == 1


def _all(project: Project) -> list[str]:
    """Titles of all runs, deleted ones too."""
    path = project.path / "runs/mlflow.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
        rows = base.execute("select name from runs where status = 'FINISHED'").fetchall()
    return [name for (name,) in rows]


def test_a_killed_redo_goes_on_and_ends_in_the_same_state(project: Project) -> None:
    before, report = project.done(), project.report("shared")
    _was_different(project)
    driver = project.start("run", "shared.yaml", "--redo", START)
    old = {run for run, title in before.items() if title == START}

    def is_under_way() -> bool:
        now = project.done()
        return not old & set(now) and set(now.values()) == set(before.values())

    project.wait_for(is_under_way, driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=60)
    new = [run for run, title in project.done().items() if title == START]
    done = project.elth("run", "shared.yaml", "--redo", START)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"note: {START} was done again already, by this command before" in done.stdout
    after = project.runs()
    assert sorted(after.values()) == sorted(before.values()), "no stage is tracked twice"
    kept = {title for run, title in after.items() if run in before}
    assert kept == {REINIT}, "what round 2 left is the same, so what was made of it stays"
    assert [run for run, title in after.items() if title == START] == new, "not once more"
    assert project.report("shared") == report
    again = project.elth("run", "shared.yaml")
    assert "6 of 6 stages done, 6 of them found finished" in again.stdout


def test_two_drivers_do_each_stage_again_once(project: Project) -> None:
    report, before = project.report("shared"), _all(project)
    _was_different(project)
    drivers = [project.start("run", "shared.yaml", "--redo", START) for _ in range(2)]
    try:
        output = "".join([finish(driver) for driver in drivers])
    finally:
        for driver in drivers:
            driver.kill()
    after = _all(project)
    for title in before:
        after.remove(title)
    assert sorted(title for title in after if NETWORK in title) == sorted({START, *MADE_OF_IT})
    assert f"note: {START} came out different (in the same numerics class cpu" in output
    assert project.report("shared") == report
