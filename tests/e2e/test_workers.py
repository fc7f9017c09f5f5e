"""Jobs of several workers through Ray Train, and what the death of one of them costs."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Project

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

GRID = """\
name: two
dataset: digits
seeds: [0]
recipe: {base: digits_resnet, length: 3ep, batch_size: 64, batch_norm_group: 32, milestones: [2ep]}
pruning: {rate: 0.5, rounds: 2}
grid:
  - {method: imp, network: resnet14(width=8)}
resources: {workers: 2}
"""


def _workers(driver: int) -> list[psutil.Process]:
    """The workers of a group that a driver has begun."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        name = " ".join(process.info["cmdline"] or [])
        if name.startswith("ray::RayTrainWorker"):
            found.append(process)
    ancestors = {p.pid: {a.pid for a in p.parents()} for p in found if p.is_running()}
    return [p for p in found if driver in ancestors.get(p.pid, set())]


def _has_begun(project: Project) -> bool:
    return any("round 0" in title for title in project.done().values())


def test_a_killed_worker_costs_nothing_that_is_seen(tmp_path: Path) -> None:
    """Two workers do a chain, and one of them is killed once a round is tracked."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("there is one core here")
    reports, titles = [], []
    for name in ("undisturbed", "disturbed"):
        (tmp_path / name).mkdir()
        project = Project(tmp_path / name)
        project.write("two.yaml", GRID)
        driver = project.start("run", "two.yaml")
        if name == "disturbed":
            project.wait_for(partial(_has_begun, project), driver)
            victims = _workers(driver.pid)
            assert len(victims) == 2
            victims[1].send_signal(signal.SIGKILL)
        out, err = driver.communicate(timeout=240)
        assert driver.returncode == 0, out + err
        reports.append(project.report("two"))
        titles.append(sorted(project.runs().values()))
    assert len(titles[0]) == 4, "a rewind point and three rounds"
    assert titles[0] == titles[1], "no stage is tracked twice"
    assert reports[0] == reports[1]
