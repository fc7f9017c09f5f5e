"""A project directory in which commands are run as a user would, and a real browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WAIT = 240.0
MILLISECONDS = 60_000.0
"""How long a page may take, on a machine that is busy."""

SHARED = """\
name: shared
dataset: digits
seeds: [0]
recipe: {base: digits_resnet, length: 8ep, milestones: [6ep]}
pruning: {rate: 0.5, rounds: 2}
grid:
  - {method: [imp, reinit, magnitude], network: resnet14(width=4)}
resources: {concurrent: 1}
"""
"""Six stages, one at a time."""


class Project:
    """A directory with configs and a store."""

    def __init__(self, path: Path, interpreter: str | Path = sys.executable) -> None:
        self.path = path
        self.interpreter = str(interpreter)
        self.output = ""

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        (self.path / name).write_text(text, encoding="utf-8")

    def elth(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with further variables in its environment."""
        return self.python("-m", "orchestrator.cli", *words, **variables)

    def python(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python to its end, likewise."""
        return subprocess.run(
            [self.interpreter, *words],
            cwd=self.path,
            env={**_environment(), **variables},
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [self.interpreter, "-m", "orchestrator.cli", *words],
            cwd=self.path,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        """Wait until something is so, as long as the process lives."""
        end = time.monotonic() + WAIT
        while not condition():
            if process.poll() is not None or time.monotonic() > end:
                process.send_signal(signal.SIGKILL)
                out, err = process.communicate()
                raise AssertionError(f"it did not come to that: {out}{err}")
            time.sleep(0.05)

    def runs(self) -> dict[str, str]:
        """Titles of the runs that are not deleted, by run id."""
        return self._query("lifecycle_stage = 'active'")

    def done(self) -> dict[str, str]:
        """Titles of the finished runs, by run id."""
        return self._query("lifecycle_stage = 'active' and status = 'FINISHED'")

    def _query(self, condition: str) -> dict[str, str]:
        database = self.path / "runs/mlflow.db"
        if not database.exists():
            return {}
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
        try:
            rows = connection.execute(
                "select run_uuid, name from runs where experiment_id in "
                f"(select experiment_id from experiments where name = 'elth') and {condition}"
            ).fetchall()
        except sqlite3.OperationalError:  # the tables are being made
            rows = []
        finally:
            connection.close()
        return dict(rows)

    def report(self, grid: str, *words: str) -> str:
        """The report as JSON text."""
        done = self.elth("report", grid, "--json", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def cells(self, grid: str, *words: str) -> list[dict[str, Any]]:
        """The report's cells."""
        return list(json.loads(self.report(grid, *words)))


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "ELTH_ARITHMETIC": "refuse"}


def finish(driver: subprocess.Popen[str]) -> str:
    """Wait until a command has ended well; its output."""
    try:
        out, err = driver.communicate(timeout=WAIT)
    except subprocess.TimeoutExpired:
        driver.kill()
        raise
    assert driver.returncode == 0, out + err
    return out


@pytest.fixture(scope="session")
def together(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which two drivers have done one experiment at once."""
    project = Project(tmp_path_factory.mktemp("together"))
    project.write("shared.yaml", SHARED)
    drivers = [project.start("run", "shared.yaml") for _ in range(2)]
    try:
        project.output = "".join([finish(driver) for driver in drivers])
    finally:
        for driver in drivers:
            driver.kill()
    return project


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, that asks nothing of anyone by itself."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    sync_api.expect.set_options(timeout=MILLISECONDS)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=[
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield browser
        browser.close()
