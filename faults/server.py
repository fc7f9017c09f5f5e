"""An MLflow server, and a proxy before it that is slow or full of errors."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from faults.project import LIMIT, require


class Server:
    """A real MLflow server, with its database where a project's would be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = int(found.getsockname()[1])
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
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
        end = time.monotonic() + LIMIT
        while not self._answers():
            require(self.process.poll() is None, "the server has ended")
            require(time.monotonic() < end, "the server does not answer")
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill all its processes."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
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
        """Where it listens."""
        return f"http://127.0.0.1:{self.http.server_port}"

    def end(self) -> None:
        """Listen no more."""
        self.http.shutdown()
        self.http.server_close()
