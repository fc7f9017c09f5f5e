"""An MLflow server that is slow, full of errors, killed and started again in mid-training."""

from __future__ import annotations

import http.client
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import SHARED, WAIT, Project, finish
from tests.e2e.test_drivers import BEGUN, STAGES, check_once, rows, trained

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


class Server:
    """A real MLflow server, with its database where a project's would be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = int(found.getsockname()[1])
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        words = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        words += ["--artifacts-destination", str(self.folder / "artifacts")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + WAIT
        while not self._answers():
            assert self.process.poll() is None, "the server has ended"
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class Proxy:
    """Stands before the server and makes it slow or full of errors."""

    def __init__(self, server: Server) -> None:
        self.delay = 0.0
        self.refuses = False
        self.answered = self.refused = 0
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                time.sleep(proxy.delay)
                if proxy.refuses:
                    proxy.refused += 1
                    return self._answer(503, b"full of errors", "text/plain")
                there = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
                try:
                    headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
                    there.request(self.command, self.path, body, headers)
                    answer = there.getresponse()
                    content = answer.read()
                    kind = answer.getheader("Content-Type", "application/json")
                except (OSError, http.client.HTTPException):
                    return self._answer(502, b"nobody is there", "text/plain")
                finally:
                    there.close()
                proxy.answered += 1
                return self._answer(answer.status, content, kind)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

            def _answer(self, status: int, content: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None: ...

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "runs")
    made.start()
    yield made
    made.kill()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    made = Proxy(server)
    yield made
    made.http.shutdown()
    made.http.server_close()


def _in_training(project: Project) -> set[tuple[str, ...]]:
    return set(rows(project, BEGUN))


def test_a_slow_failing_and_killed_server_costs_time_only(
    server: Server, proxy: Proxy, tmp_path: Path, together: Project
) -> None:
    project = Project(tmp_path)
    project.write("shared.yaml", SHARED)
    driver = project.start("run", "shared.yaml", "--store", proxy.address)
    # Slow while the first stages are trained.
    project.wait_for(lambda: bool(_in_training(project)), driver)
    first = _in_training(project)
    proxy.delay, slow = 0.5, proxy.answered
    project.wait_for(lambda: proxy.answered > slow + 8, driver)
    proxy.delay = 0.0
    # Full of errors while the next one is.
    project.wait_for(lambda: bool(_in_training(project) - first), driver)
    proxy.refuses = True
    project.wait_for(lambda: proxy.refused > 8, driver)
    # Killed, as it would answer again, and started after a stage has ended without it.
    server.kill()
    proxy.refuses = False
    outbox = project.path / "runs/outbox"
    project.wait_for(lambda: bool(list(outbox.glob("*/entry.json"))), driver)
    server.start()
    out = finish(driver)
    assert f"{STAGES} of {STAGES} stages done" in out
    assert "a finished stage waits in" in out
    check_once(project)
    assert set(trained(project).values()) == {1}
    assert list(outbox.iterdir()) == []
    assert project.report("shared", "--store", proxy.address) == together.report("shared")
