"""Several drivers on one experiment at once: each stage is computed once, whoever sleeps."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

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


def test_seeds_that_are_begun_at_the_same_time_are_one_grid(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("shared.yaml", SHARED)
    words = ("run", "shared.yaml", "recipe.length=2ep", "recipe.milestones=[]")
    drivers = [project.start(*words, f"seeds=[{seed}]") for seed in (0, 1)]
    try:
        for driver in drivers:
            finish(driver)
    finally:
        for driver in drivers:
            driver.kill()
    assert len(project.done()) == 2 * STAGES
    cells = project.cells("shared")
    assert {tuple(cell["seeds"]) for cell in cells} == {(0, 1)}
    assert len(cells) == STAGES - 1
    kept = project.path / "runs/reports/shared/table.txt"
    assert "resnet14(width=4) on digits, seeds 0, 1" in kept.read_text(encoding="utf-8")
