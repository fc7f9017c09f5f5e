"""What goes along with the work, and is shown to nobody."""

from __future__ import annotations

import os

import pytest

from orchestrator.store import away
from orchestrator.store.address import Store, without_credentials
from orchestrator.work.passing import open_settings, passed, take_credentials, to_workers


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few of each kind."""
    for name in [*os.environ]:
        if name.startswith(("MLFLOW_", "AWS_", "GOOGLE_", "ELTH_", "NCCL_", "GLOO_", "UCX_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "swordfish")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    monkeypatch.setenv("MINE", "mine")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/somewhere")


def test_trackers_and_stores_go_along_and_nothing_else() -> None:
    names = {"MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY"}
    assert set(passed().values) == names
    found = passed(("MINE",))
    assert set(found.values) == {*names, "MINE", "ELTH_ENV"}


def test_what_was_named_goes_on_from_the_driver_to_its_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed = passed(("MINE",))
    for name in handed.values:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    handed.apply()
    assert passed().values == handed.values


def test_workers_wait_longer_for_an_answer_unless_somebody_says_how_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    monkeypatch.setattr(away, "OURS", frozenset(away.CLIENT))
    monkeypatch.setenv(name, away.CLIENT[name])
    assert name not in passed().values, "each process sets it by itself"
    assert to_workers().values[name] == "36", "of a lease of a minute"
    monkeypatch.setenv("ELTH_LEASE_SECONDS", "240")
    assert to_workers().values[name] == "120"
    monkeypatch.setenv(name, "45")
    assert to_workers().values[name] == passed().values[name] == "45"
    monkeypatch.setattr(away, "OURS", frozenset())
    monkeypatch.setenv(name, away.CLIENT[name])  # said by somebody
    assert to_workers().values[name] == away.CLIENT[name]


def test_how_workers_send_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "NCCL_SOCKET_IFNAME": "ib0",
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "20",
        "GLOO_SOCKET_IFNAME": "eth0",
        "UCX_NET_DEVICES": "mlx5_0:1",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert open_settings() == given
    assert not passed().values.keys() & given.keys()


def test_values_are_never_shown() -> None:
    found = passed()
    text = f"{found} {found!r} {[found]} { ({'a': found}) }"
    assert "swordfish" not in text
    assert "hunter2" not in text
    assert "MLFLOW_TRACKING_PASSWORD" in str(found)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:swordfish@host:5000/x", "http://host:5000/x"),
        ("postgresql://me:sword@fish@host/db", "postgresql://host/db"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert without_credentials(address) == shown
    assert str(Store.of(address)) == shown


def test_a_servers_password_moves_to_where_mlflow_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "other")
    assert take_credentials("https://me:sword%2Ffish@host") == "https://host"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "me"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "sword/fish"
    assert take_credentials("http://host:1") == "http://host:1"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "me"
    database = "postgresql://me:swordfish@host/db"
    assert take_credentials(database) == database
