"""A cluster of two raylets on this machine, behind a token: submitted, stopped, and one killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.jobs import Jobs
from tests.e2e.conftest import Project

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

GRID = """\
name: shared
dataset: digits
seeds: [0]
recipe: {base: digits_resnet, length: 12ep, milestones: [8ep]}
pruning: {rate: 0.5, rounds: 2}
grid:
  - {method: imp, network: resnet14(width=4)}
  - {method: random, network: resnet14(width=4), round: all}
resources: {checkpoint_minutes: 0.02}
"""
SECRET = f"swordfish-{uuid.uuid4().hex}"


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A head and further nodes, each a ``ray start`` of its own."""

    def __init__(self, token: Path) -> None:
        self.port, self.dashboard = _port(), _port()
        self.folder = Path(tempfile.mkdtemp(prefix="elth-ray-"))
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_agent_register_timeout_ms": "120000",  # on a busy machine 30 s are short
            "RAY_ADDRESS": "",
        }
        self._nodes = [
            self._start(
                "--head",
                f"--port={self.port}",
                f"--dashboard-port={self.dashboard}",
            )
        ]
        self._wait(self.port)
        self._wait(self.dashboard)
        self._nodes.append(self._start(f"--address=127.0.0.1:{self.port}"))

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        common = ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--object-store-memory=100000000"]
        common += [f"--dashboard-agent-listen-port={_port()}", "--disable-usage-stats", "--block"]
        common += [f"--temp-dir={tempfile.mkdtemp(dir=self.folder)}"]  # else they share packages
        return subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *common],
            env={**os.environ, **self.environment, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _wait(self, port: int) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError(f"nothing listens on {port}")

    def kill_raylet(self) -> None:
        """kill -9 of the second node's raylet; its processes die with it."""
        below = psutil.Process(self._nodes[1].pid).children(recursive=True)
        (raylet,) = [one for one in below if "raylet/raylet" in " ".join(one.cmdline()[:1])]
        raylet.send_signal(signal.SIGKILL)

    def end(self) -> None:
        """End every process that was started here."""
        for node in self._nodes:
            if node.poll() is None:
                for one in psutil.Process(node.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()
            node.kill()
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes of a core each; who asks for something needs the token."""
    (tmp_path / "token").write_text(uuid.uuid4().hex)
    made = Cluster(tmp_path / "token")
    try:
        yield made
    finally:
        made.end()


def test_submitted_stopped_and_a_node_killed(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, project = Project(tmp_path / "alone"), Project(tmp_path / "project")
    for one in (alone, project):
        one.path.mkdir()
        one.write("shared.yaml", GRID)
    url = f"http://127.0.0.1:{cluster.dashboard}"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/api/jobs/", timeout=30)
    for name, value in {**cluster.environment, "MLFLOW_TRACKING_PASSWORD": SECRET}.items():
        monkeypatch.setenv(name, value)
    submit = ["submit", "shared.yaml", "--address", url, "--python", sys.executable]

    first = project.start(*submit)
    flights = project.path / "runs/inflight"
    project.wait_for(lambda: bool(project.done() and [*flights.glob("*/*.safetensors")]), first)
    client = Jobs(url)  # here, as the command would take seconds to start
    assert client.stop(client.all()[0].id)
    log, err = first.communicate(timeout=200)
    assert first.returncode == 130, log + err
    assert "elth: stopped; the same command goes on from what is tracked" in log
    before = project.done()
    assert 0 < len(before) < 6
    assert [*flights.glob("*/*.safetensors")], "what was begun is kept"

    again = project.start(*submit)
    project.wait_for(lambda: len(project.done()) > len(before), again)
    cluster.kill_raylet()
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0, out + err
    titles = list(project.runs().values())
    assert len(titles) == len(set(titles)) == 6, "no stage is tracked twice"
    assert before.items() <= project.runs().items(), "what was tracked was not done again"

    for path in cluster.folder.rglob("*"):
        if path.is_file() and path.suffix in (".log", ".out", ".err", ".txt", ".json"):
            assert SECRET not in path.read_text(errors="replace"), path
    cluster.end()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    done = alone.elth("run", "shared.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.report("shared") == alone.report("shared")
