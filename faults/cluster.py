"""A cluster on this machine, behind a token: a head and further nodes, each a raylet."""

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
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

from faults.project import LIMIT, Fault


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A head and further nodes, each a ``ray start`` of its own; a context manager."""

    def __init__(self, *cpus: int) -> None:
        """Start it.

        Args:
            cpus: cores of each node; the first is the head.
        """
        self.port, self.dashboard = _port(), _port()
        self.folder = Path(tempfile.mkdtemp(prefix="elth-ray-"))
        token = self.folder / "token"
        token.write_text(uuid.uuid4().hex, encoding="utf-8")
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_agent_register_timeout_ms": "120000",  # on a busy machine 30 s are short
            "RAY_ADDRESS": "",
        }
        self._nodes: list[subprocess.Popen[bytes]] = []
        try:
            head = (f"--port={self.port}", f"--dashboard-port={self.dashboard}")
            self._nodes.append(self._start(cpus[0], "--head", *head))
            self._wait(self.port)
            self._wait(self.dashboard)
            for count in cpus[1:]:
                self._nodes.append(self._start(count, f"--address={self.address}"))
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def address(self) -> str:
        """For ``elth run``."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """For ``elth submit``."""
        return f"http://127.0.0.1:{self.dashboard}"

    def _start(self, cpus: int, *words: str) -> subprocess.Popen[bytes]:
        common = ["--node-ip-address=127.0.0.1", f"--num-cpus={cpus}"]
        common += ["--object-store-memory=100000000"]
        common += [f"--dashboard-agent-listen-port={_port()}", "--disable-usage-stats", "--block"]
        common += [f"--temp-dir={tempfile.mkdtemp(dir=self.folder)}"]  # else they share packages
        return subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *common],
            env={**os.environ, **self.environment, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _wait(self, port: int) -> None:
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)
        raise Fault(f"nothing listens on {port}")

    def kill_raylet(self) -> None:
        """Kill the last node's raylet; its processes die with it."""
        below = psutil.Process(self._nodes[-1].pid).children(recursive=True)
        (raylet,) = [one for one in below if "raylet/raylet" in " ".join(one.cmdline()[:1])]
        raylet.send_signal(signal.SIGKILL)

    def texts(self) -> Iterator[str]:
        """What Ray has written about itself and its jobs."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path.suffix in (".log", ".out", ".err", ".txt", ".json"):
                yield path.read_text(encoding="utf-8", errors="replace")

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
