"""``elth ui``: MLflow's own pages on a store, with the columns by which tickets are compared.

MLflow's list of runs shows no parameters until a visitor picks them. Its remedy is the view that is
shared with others: a tag of the experiment, ``mlflow.sharedViewState.KEY``, holds a name and the
state of the page as JSON, and the page takes it up when its address says ``viewStateShareKey=KEY``.
Such views are kept with the store here, one for all runs and one for each grid that was asked for;
the page also offers them by name.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from typing import IO, Any

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator.store.address import Store
from orchestrator.store.away import plain
from orchestrator.store.describing import NUMBERED, numbers_of
from orchestrator.store.listing import pages
from orchestrator.store.opening import STAGES
from orchestrator.store.tracker import Tracker
from orchestrator.store.variants import TAG

HOST = "127.0.0.1"
COLUMNS = {
    "params.`network`": 125,
    "params.`method`": 90,
    "params.`source`": 125,
    "metrics.`sparsity`": 80,
    "metrics.`round`": 65,
    "metrics.`seed`": 60,
    "params.`transform`": 100,
    "params.`dataset`": 85,
    "metrics.`test_accuracy`": 120,
}
"""What MLflow's list shows of each run, by MLflow's names, in this order; widths in pixels.

Numbers are metrics, as the page sorts parameters as text.
"""

_NAME = "attributes.`Run Name`"
_START_SECONDS = 120
_END_SECONDS = 10

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PYTHONWARNINGS": "ignore",
}
"""The server tells nobody, logs errors only, and starts no processes for jobs never given."""


def view(grid: str | None = None, *, variants: bool = False) -> dict[str, Any]:
    """The state of MLflow's page of runs, in its own words; ``variants``: whether a grid has any.

    What is not named here is as MLflow has it. The filter must be part of the state: the page
    ignores a shared view when its address has a filter of its own.
    """
    columns = COLUMNS | ({f"tags.`{TAG}{grid}`": 100} if variants else {})
    return {
        "searchFilter": f"tags.`grid.{grid}` = 'true'" if grid else "",
        "selectedColumns": list(columns),
        "columnOrder": [_NAME, *columns],
        "columnWidths": {_NAME: 165, **columns},
    }


def address(tracker: Tracker, base: str, grid: str | None = None) -> str:
    """The page that lists the runs, of one grid or all; its view is stored if it is not yet."""
    variants = False
    with contextlib.suppress(ElthError):  # a server may not hand out the file that tells
        variants = bool(grid and tracker.grids.experiment(grid).get("variants"))
    state = json.dumps(view(grid, variants=variants), sort_keys=True)
    key = hashlib.sha256(state.encode()).hexdigest()
    tags = {
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{key}": json.dumps(
            {
                "name": f"tickets of {grid}" if grid else "tickets",
                "createdAt": int(time.time() * 1000),
                "state": state,
            }
        ),
    }
    experiment = tracker.experiments[STAGES]
    try:
        there = tracker.client.get_experiment(experiment).tags
        for name in tags.keys() - there.keys():
            tracker.client.set_experiment_tag(experiment, name, tags[name])
    except MlflowException as error:
        first = str(error).splitlines()[0]
        raise ElthError(f"cannot keep the view in {tracker.store}: {first}") from error
    return (
        f"{base}/#/experiments/{experiment}/runs"
        f"?workflowType=machine_learning&viewStateShareKey={key}"
    )


def add_numbers(tracker: Tracker) -> int:
    """Add to the runs of before, once, the numbers that are metrics; of how many runs.

    Raises:
        ElthError: the store does not take them.
    """
    client, experiment = tracker.client, tracker.experiments[STAGES]
    count = 0
    try:
        if NUMBERED in client.get_experiment(experiment).tags:
            return 0
        for page in pages(client, experiment):
            for run in page:
                found = numbers_of(run.data.params)
                rest = {name: one for name, one in found.items() if name not in run.data.metrics}
                if rest:
                    at = int(run.info.start_time)
                    points = [Metric(name, value, at, 0) for name, value in rest.items()]
                    client.log_batch(run.info.run_id, metrics=points)
                    count += 1
        client.set_experiment_tag(experiment, NUMBERED, "true")
    except MlflowException as error:
        raise ElthError(
            f"cannot add numbers to the runs in {tracker.store}: {plain(error)}"
        ) from error
    return count


def serve(tracker: Tracker, *, grid: str | None, port: int, browser: bool) -> int:
    """Serve the pages until Ctrl-C or SIGTERM; returns an exit code.

    A store that is a server already is only opened. A local one is served on 127.0.0.1.

    Raises:
        ElthError: there is no such grid, the port is not to be had, or the server ends by itself.
    """
    if grid is not None and tracker.grids.run(grid) is None:
        tracker.grids.keys(grid)  # says which there are
    count = add_numbers(tracker)
    if count:
        print(f"{count} runs of before can be sorted by number now", file=sys.stderr, flush=True)
    uri = tracker.store.uri
    if uri.startswith("http"):
        _tell(address(tracker, uri.rstrip("/"), grid), browser)
        return 0
    _check(port)
    print(f"MLflow starts on {tracker.store}", file=sys.stderr, flush=True)
    url = address(tracker, f"http://{HOST}:{port}", grid)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        server = _start(tracker.store, port, log)
        try:
            _wait(server, port)
            if server.poll() is None:
                _tell(f"{url}\nCtrl-C ends it.", browser)
            server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            _end(server)
        log.seek(0)
        last = (log.read().strip() or "no message").splitlines()[-1]
    raise ElthError(f"the MLflow server ended with status {server.returncode}: {last}")


def _check(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "there is no such port"
            raise ElthError(
                f"cannot serve on port {port} of {HOST}: {reason.lower()}; give another by --port"
            ) from error


def _start(store: Store, port: int, log: IO[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    if store.folder is not None:
        command += ["--app-name", "elth"]
    command += ["--workers", "1", "--uvicorn-opts"]
    command += ["--no-access-log --log-level warning --timeout-graceful-shutdown 3"]
    return subprocess.Popen(
        command,
        # The address of a database may hold a password, which a command line would show to all.
        env={
            **os.environ,
            **_QUIET,
            "MLFLOW_BACKEND_STORE_URI": store.uri,
            "ELTH_UI_FOLDER": str(store.folder),
        },
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        text=True,
        encoding="utf-8",
        errors="replace",
        # A group of its own, so that Ctrl-C reaches only us, and we end all of it.
        start_new_session=True,
    )


def _wait(server: subprocess.Popen[str], port: int) -> None:
    """Return when the server answers, or has ended."""
    end = time.monotonic() + _START_SECONDS
    while server.poll() is None:
        connection = http.client.HTTPConnection(HOST, port, timeout=2)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
        finally:
            connection.close()
        if time.monotonic() > end:
            raise ElthError(f"the MLflow server did not answer within {_START_SECONDS} seconds")


def _end(server: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(_END_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _tell(text: str, browser: bool) -> None:
    print(f"MLflow: {text}", flush=True)
    if browser:
        webbrowser.open(text.splitlines()[0])
