"""What may be given as a store; each refusal names who said it and the way on."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from elth.errors import ElthError
from orchestrator.store import storage
from orchestrator.store.address import Store
from orchestrator.store.away import AwayError
from orchestrator.store.opening import check_reachable

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store.of("~/runs").folder == tmp_path / "runs"
    assert Store.of("~/runs/").folder == tmp_path / "runs"
    assert str(storage.of("~/kept/")) == str(tmp_path / "kept")
    assert str(storage.of(f"file://{tmp_path}/a%20b")) == str(tmp_path / "a b")
    assert str(storage.of(f"file:{tmp_path}/x")) == str(tmp_path / "x")
    with pytest.raises(ElthError, match="names a machine"):
        storage.of("file://host/x")
    with pytest.raises(ElthError, match="~nobody-9 is nobody's home here"):
        Store.of("~nobody-9/runs")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("databricks", "runs are not kept in Databricks; give a directory, an MLflow server as"),
        ("databricks-uc", "runs are not kept in Databricks; "),
        ("databricks://profile", "runs are not kept in Databricks; "),
        ("uc:http://host", "runs are not kept in Databricks; "),
        (
            "localhost:5000",
            "it lacks a scheme; write http://localhost:5000, or ./localhost:5000 if",
        ),
        ("HOST:5000", "it lacks a scheme; write http://HOST:5000, or ./HOST:5000 if a directory"),
        ("10.0.0.1:5000/", "it lacks a scheme; write http://10.0.0.1:5000/, or"),
        ("[::1]:5000", "it lacks a scheme; write http://[::1]:5000, or"),
        (
            "file:///a/mlruns",
            "MLflow keeps no runs in files any more; give the directory itself, /a/",
        ),
        (
            "file:/a/mlruns",
            "MLflow keeps no runs in files any more; give the directory itself, /a/",
        ),
        (
            "file:./mlruns",
            "MLflow keeps no runs in files any more; give the directory itself, ./ml",
        ),
        ("http://", "it names no host; write http://HOST:5000"),
        ("ftp://host", "give a directory, an MLflow server as http://HOST:5000, or a database as"),
    ],
)
def test_what_is_no_store_is_refused(
    place: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ElthError) as caught:
        Store.of(place)
    assert str(caught.value).startswith(f"cannot use the store '{place}': {reason}")
    assert str(caught.value).endswith("(--store says this one)")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    with pytest.raises(ElthError, match=r"\(MLFLOW_TRACKING_URI says this one\)$"):
        Store.of(None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["./HOST:5000", "a b", "x,y", "./databricks", "runs/uc"])
def test_a_directory_may_have_any_name(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store.of(place).folder == tmp_path / place


def test_one_server_is_one_store() -> None:
    assert (
        Store.of("HTTP://host:5000/")
        == Store.of("http://host:5000")
        == Store("http://host:5000", None)
    )


def test_a_file_is_no_store(tmp_path: Path) -> None:
    for name, way in (("mlflow.db", "its directory"), ("x.db", f"sqlite:///{tmp_path}/x.db")):
        (tmp_path / name).touch()
        with pytest.raises(ElthError, match=f"{name}, which is a file: give {way}, or a directory"):
            Store.of(tmp_path / name)


def test_an_old_file_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "meta.yaml").touch()
    with pytest.raises(
        ElthError, match="holds runs in files, as MLflow kept them before .* mlflow"
    ):
        Store.of(tmp_path)
    (tmp_path / "mlflow.db").touch()  # of both kinds: ours is the database
    assert Store.of(tmp_path).folder == tmp_path


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_proxy_is_not_asked_for_this_machine(
    variable: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://user:secret@proxy.invalid:3128")
    monkeypatch.setenv("NO_PROXY", ".lab")
    bare = host.strip("[]")
    with pytest.raises(ElthError) as caught:
        check_reachable(f"http://{host}:5000")
    assert str(caught.value) == (
        f"{variable} is set, and a proxy cannot reach http://{host}:5000, which is this machine: "
        f"set NO_PROXY=.lab,{bare}"
    )


class _Refusing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(503)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[str]:
    """A proxy that reaches nothing."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_proxy_that_does_not_reach_a_server_is_named(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(AwayError) as caught:
        check_reachable("http://tracker.invalid:5000")
    assert "503" in str(caught.value)
    assert "by way of the proxy of http_proxy: NO_PROXY names hosts that need none" in str(
        caught.value
    )
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    check_reachable(proxy)  # asked itself, it answers
