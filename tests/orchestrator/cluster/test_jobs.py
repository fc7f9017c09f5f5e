"""Jobs on a cluster elsewhere: what is handed in, what Ray may show, how a log is followed."""

from __future__ import annotations

import asyncio
import json
import os
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from elth.errors import ElthError
from orchestrator.cli.main import cli
from orchestrator.cluster import jobs
from orchestrator.cluster.jobs import Jobs
from tests.orchestrator.helpers import tiny

LOG = "one\ntwo\nthree\n"


@dataclass
class Server:
    """Ray's job client, with a job server that is a few lists."""

    submitted: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    packages: dict[str, bytes] = field(default_factory=dict)
    pinned: list[str] = field(default_factory=list)
    state: str = "SUCCEEDED"
    code: int | None = 0
    tails: list[list[str | Exception]] = field(default_factory=lambda: [[LOG]])
    stopped: list[str] = field(default_factory=list)

    def submit_job(self, **words: Any) -> str:
        with zipfile.ZipFile(words["runtime_env"]["working_dir"]) as archive:
            self.files = sorted(archive.namelist())
        self.submitted.append(words)
        return str(words["submission_id"])

    def _do_request(self, method: str, place: str, data: bytes | None = None) -> Any:
        name = place.rpartition("/")[2]
        if method == "PUT":
            self.packages[name] = data or b""
        else:
            self.pinned.append(name)
        return SimpleNamespace(status_code=200)

    def get_job_info(self, job: str) -> Any:
        if job != "known" and job not in {one["submission_id"] for one in self.submitted}:
            raise RuntimeError("Request failed with status code 404: Job does not exist.")
        return SimpleNamespace(
            submission_id=job,
            status=SimpleNamespace(value=self.state),
            start_time=1000,
            end_time=None,
            driver_exit_code=self.code,
            message="why",
        )

    def list_jobs(self) -> list[Any]:
        return [self.get_job_info("known")]

    def get_job_logs(self, job: str) -> str:
        return LOG

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for text in self.tails.pop(0) if self.tails else [LOG]:
            await asyncio.sleep(0)
            if isinstance(text, Exception):
                raise text
            yield text

    def stop_job(self, job: str) -> bool:
        self.stopped.append(job)
        return self.state == "RUNNING"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """A job server behind every address."""
    made = Server()
    monkeypatch.setattr(Jobs, "_connect", lambda self: made)
    monkeypatch.setattr(jobs, "_AGAIN_SECONDS", 0.0)
    for name in [*os.environ]:
        if name.startswith(("MLFLOW_", "AWS_", "GOOGLE_", "ELTH_", "RAY_")):
            monkeypatch.delenv(name)
    return made


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config, in which commands are given."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/small.yaml").write_text(tiny("small").resolved())
    (tmp_path / "data").mkdir()
    (tmp_path / "data/large").write_text("large")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _elth(*words: str) -> Result:
    return CliRunner().invoke(cli, [*words, "--address", "http://head:8265"])


def test_a_job_is_elth_run_on_the_head(server: Server, project: Path) -> None:
    done = _elth(
        "submit", "configs/small.yaml", "seeds=[3, 4]", "--store", "http://t:5", "--storage", "in"
    )
    assert done.exit_code == 0, done.output
    (job,) = server.submitted
    assert job["submission_id"].startswith("small-")
    assert job["entrypoint"] == (
        f"exec python -m orchestrator.cli run configs/small.yaml 'seeds=[3, 4]' "
        f"data.root={project}/data resources.storage={project}/in --address auto --store http://t:5"
    )
    assert server.files == ["configs/small.yaml"]
    assert LOG in done.output
    assert "results go to http://t:5" in done.output
    assert float(job["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) > 45


def test_a_job_of_a_part_for_some_hours(server: Server, project: Path) -> None:
    only = ("--only", "method=imp,round=1", "--only", "method=dense")
    words = ("--store", "http://t:5", "--hours", "0.5", "--notify", 'mail "$ELTH_EVENT"')
    done = _elth("submit", "configs/small.yaml", *words, *only, "--no-follow")
    assert done.exit_code == 0, done.output
    (job,) = server.submitted
    assert job["entrypoint"].endswith(
        "--store http://t:5 --only method=imp,round=1 --only method=dense --hours 0.5 "
        """--notify 'mail "$ELTH_EVENT"'"""
    )
    refused = _elth("submit", "configs/small.yaml", *words, "--only", "method=ett")
    assert "--only method=ett chooses nothing of small" in str(refused.exception)
    assert len(server.submitted) == 1


def test_a_jobs_workers_send_as_is_set_here(
    server: Server, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    done = _elth("submit", "configs/small.yaml", "--store", "http://t:5", "--no-follow")
    assert done.exit_code == 0, done.output
    (job,) = server.submitted
    assert job["runtime_env"]["env_vars"]["NCCL_SOCKET_IFNAME"] == "ib0"
    assert server.packages == {}, "it is no secret"


def test_credentials_are_handed_over_and_shown_nowhere(
    server: Server, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:swordfish@tracker:5000")
    monkeypatch.setenv("MINE", "minemine")
    done = _elth("submit", "configs/small.yaml", "--env", "MINE", "--no-follow")
    assert done.exit_code == 0, done.output
    (job,) = server.submitted
    shown = f"{ {**job, 'x': 0} }{done.output}"
    assert not [word for word in ("hunter2", "swordfish", "minemine") if word in shown]
    ((name, data),) = server.packages.items()
    assert job["runtime_env"]["env_vars"]["ELTH_HANDED_OVER"] == f"gcs://{name}"
    assert server.pinned == [name], "Ray lets go of it by itself"
    handed = json.loads(data)
    assert handed["AWS_SECRET_ACCESS_KEY"] == "hunter2"
    assert handed["MLFLOW_TRACKING_PASSWORD"] == "swordfish"
    assert handed["MINE"] == "minemine"
    assert "MLFLOW_TRACKING_URI" not in handed
    assert "--store http://tracker:5000" in job["entrypoint"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["submit", "../x.yaml"], "../x.yaml does not lie below "),
        (["submit", "configs/small.yaml", "seeds=[0,0]"], "seeds must be different whole numbers"),
        (["submit", "configs/small.yaml", "--env", "NOT_SET"], "NOT_SET is to be passed on, and i"),
        (["submit", "configs/small.yaml", "--store", "sqlite:///x.db"], "is a database, which a "),
        (
            ["logs", "nothing"],
            "the cluster http://head:8265 has no job 'nothing' (the last: known)",
        ),
        (["stop", "nothing"], "has no job 'nothing'"),
    ],
)
def test_refusals(server: Server, project: Path, words: list[str], message: str) -> None:
    done = _elth(*words)
    assert isinstance(done.exception, ElthError)
    assert message in str(done.exception)
    assert server.submitted == []


@pytest.mark.parametrize(
    ("state", "code", "exit_code"),
    [("SUCCEEDED", 0, 0), ("FAILED", 3, 3), ("FAILED", None, 1), ("STOPPED", None, 130)],
)
def test_following_ends_as_the_job_does(
    server: Server, project: Path, state: str, code: int | None, exit_code: int
) -> None:
    server.state, server.code = state, code
    assert _elth("submit", "configs/small.yaml").exit_code == exit_code


def test_a_lost_connection_neither_loses_nor_doubles_a_line(server: Server) -> None:
    server.tails = [["one\n", RuntimeError("closed")], ["one\ntw", OSError("gone")], [LOG]]
    states = iter(["RUNNING", "RUNNING", "SUCCEEDED"])
    whole = server.get_job_info

    def info(job: str) -> Any:
        server.state = next(states)
        return whole(job)

    server.get_job_info = info  # type: ignore[method-assign]
    client, told = Jobs("http://head:8265"), list[str]()
    client._rest = lambda job, told, write: None  # type: ignore[method-assign]
    assert client.follow("known", told.append).state == "SUCCEEDED"
    assert "".join(told) == LOG


def test_stop_waits_for_the_end(server: Server) -> None:
    server.state = "RUNNING"
    states = iter(["RUNNING", "RUNNING", "STOPPED"])
    whole = server.get_job_info

    def info(job: str) -> Any:
        found = whole(job)
        found.status.value = next(states)
        return found

    server.get_job_info = info  # type: ignore[method-assign]
    done = _elth("stop", "known")
    assert done.exit_code == 0
    assert "known: stopped; the same elth submit goes on from there" in done.output
    assert server.stopped == ["known"]


def test_jobs_are_listed(server: Server) -> None:
    done = _elth("jobs")
    assert "known" in done.output
    assert "succeeded" in done.output


def test_an_address_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ElthError, match="no cluster is named: give --address http://HEAD:8265"):
        Jobs(None)
    with pytest.raises(ElthError, match="'auto' is no address of a dashboard: write it as http"):
        Jobs("auto")


def test_a_head_that_is_not_there() -> None:
    with pytest.raises(ElthError, match="cannot reach the cluster's job server http://127.0.0.1:9"):
        Jobs("http://127.0.0.1:9")
