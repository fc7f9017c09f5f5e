"""Servers on the loopback address to measure: PostgreSQL, MLflow, a proxy that loses answers.

PostgreSQL does not run as root: as root it is run as the user ``postgres`` of Debian's package.
"""

from __future__ import annotations

import abc
import contextlib
import http.client
import http.server
import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of a server and its database."""

    processes: int
    environment: Mapping[str, str] = field(default_factory=dict)
    database: Sequence[str] = ()
    """Settings of PostgreSQL, as ``max_connections=300``."""
    workers: Mapping[str, str] = field(default_factory=dict)
    """The environment of its workers."""


SETTINGS = {
    "default": Settings(processes=2),
    # The pool holds two connections for each of the 40 threads that answer requests in a process:
    # MLflow's log_batch has one while it asks for another, and a pool that is smaller locks up.
    "recommended": Settings(
        processes=2,
        environment={
            "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "40",
            "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "40",
        },
        database=("max_connections=200",),
        workers={"ELTH_LEASE_SECONDS": "240"},
    ),
}
"""What is compared: what comes by itself, on two cores, and what docs/cluster.md names."""


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process(abc.ABC):
    """A program with its children, which can be started again in its place."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self._command, self._log, self._environment = command, log, environment
        self._spent = 0.0
        self.start()

    def start(self) -> None:
        """Start it; once its last one is gone."""
        with self._log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def _all(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def spent(self) -> float:
        """Seconds of a core since its first start, of children that have ended too."""
        total = self._spent
        for one in self._all():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory(self) -> float:
        """Bytes that are its own, of all its processes."""
        total = 0.0
        for one in self._all():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += one.memory_full_info().uss
        return total

    def stop(self, *, kill: bool = False) -> None:
        """End it and all that it has started."""
        self._spent = self.spent()
        every = self._all()
        (self._process.kill if kill else self._process.terminate)()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        for one in every:
            with contextlib.suppress(psutil.NoSuchProcess):
                if kill:
                    one.kill()
        _, left = psutil.wait_procs(every, 10)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()

    @abc.abstractmethod
    def wait(self) -> None:
        """Until it answers."""

    def restart(self, pause: float) -> None:
        """Kill it, as a machine that fails does, and start it again after some seconds."""
        self.stop(kill=True)
        time.sleep(pause)
        self.start()
        self.wait()


class Postgres(Process):
    """A database."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        folder.mkdir(parents=True)
        self._port, self._programs = _port(), _programs()
        as_user: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        place = folder / "data"
        words: list[str] = [
            "--auth=trust",
            "--username=mlflow",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]
        subprocess.run(
            [*as_user, str(self._programs / "initdb"), "-D", str(place), *words],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )
        options = (
            "listen_addresses=127.0.0.1",
            f"port={self._port}",
            f"unix_socket_directories={folder}",
            *settings.database,
        )
        command = [*as_user, str(self._programs / "postgres"), "-D", str(place)]
        for option in options:
            command += ["-c", option]
        super().__init__(command, folder.with_suffix(".log"), {**os.environ})
        self.wait()
        self.ask("CREATE DATABASE mlflow", base="postgres")
        self.uri = f"postgresql://mlflow@127.0.0.1:{self._port}/mlflow"

    def wait(self) -> None:
        """Until it answers."""
        for _ in range(600):
            ready = [
                str(self._programs / "pg_isready"),
                "-q",
                "-h",
                "127.0.0.1",
                "-p",
                str(self._port),
            ]
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError("PostgreSQL does not answer")

    def ask(self, text: str, base: str = "mlflow") -> list[tuple[Any, ...]]:
        """What it answers to a statement."""
        psycopg: Any = import_module("psycopg")  # a server's package, and not one of ours
        address = {"host": "127.0.0.1", "port": self._port, "user": "mlflow", "dbname": base}
        with contextlib.closing(psycopg.connect(**address)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(text)
                return list(cursor.fetchall()) if cursor.description else []


class Mlflow(Process):
    """An MLflow server."""

    def __init__(self, folder: Path, database: str, settings: Settings) -> None:
        folder.mkdir(parents=True)
        port = _port()
        self.uri = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--workers", str(settings.processes)]
        command += [
            "--backend-store-uri",
            database,
            "--artifacts-destination",
            str(folder / "artifacts"),
        ]
        environment = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            **settings.environment,
        }
        super().__init__(command, folder / "server.log", environment)
        self.wait()

    def wait(self) -> None:
        """Until it answers."""
        for _ in range(600):
            with contextlib.suppress(OSError, http.client.HTTPException):
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            time.sleep(0.2)
        raise RuntimeError("the MLflow server does not answer")


@contextlib.contextmanager
def postgres(folder: Path, settings: Settings) -> Iterator[Postgres]:
    """A database, until the end of the block."""
    found = Postgres(folder, settings)
    try:
        yield found
    finally:
        found.stop()


@contextlib.contextmanager
def mlflow(folder: Path, database: str, settings: Settings) -> Iterator[Mlflow]:
    """A server, until the end of the block."""
    found = Mlflow(folder, database, settings)
    try:
        yield found
    finally:
        found.stop()


def lacking() -> str:
    """What has to be installed first; empty if nothing has."""
    if find_spec("psycopg") is None:
        return "the package psycopg[binary] is not installed"
    with contextlib.suppress(RuntimeError):
        _programs()
        return ""
    return "PostgreSQL is not installed (Debian's package postgresql)"


def _programs() -> Path:
    """Where PostgreSQL's programs are."""
    for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (place / "initdb").exists():
            return place
    found = shutil.which("initdb")
    if found is None:
        raise RuntimeError("there is no PostgreSQL here: install the package postgresql")
    return Path(found).parent


@contextlib.contextmanager
def dropping(uri: str, every: int) -> Iterator[str]:
    """A proxy in front of a server that loses every n-th answer, after the server has worked."""
    count = itertools.count(1)
    target = urlsplit(uri)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=120)
            try:
                headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
            except OSError:
                self.close_connection = True
                return
            finally:
                connection.close()
            if next(count) % every == 0:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

        def log_message(self, *_: object) -> None:
            """Nothing."""

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 1024
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that went is no news."""

    proxy = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
    finally:
        proxy.shutdown()
