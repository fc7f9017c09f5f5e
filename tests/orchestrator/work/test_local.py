"""A Ray of our own: which address it takes, and who can read its token."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import ray_constants, services

from elth.errors import ElthError
from orchestrator.work import local

_VARIABLE = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of which nothing is known, and a usual umask."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", _VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_once_and_for_its_owner_alone(home: Path) -> None:
    with ThreadPoolExecutor(8) as several:
        list(several.map(lambda _: local.keep_token(), range(8)))
    token = home / ".ray/auth_token"
    first = token.read_text()
    assert len(first) == 64
    assert (_mode(token.parent), _mode(token)) == (0o700, 0o600)
    local.keep_token()
    assert token.read_text() == first
    assert [path.name for path in token.parent.iterdir()] == ["auth_token"]


def test_a_token_that_ray_wrote_for_all_to_read_is_closed(home: Path) -> None:
    token = home / ".ray/auth_token"
    token.parent.mkdir()
    token.write_text("of a cluster")
    token.chmod(0o644)
    token.parent.chmod(0o755)
    local.keep_token()
    assert (_mode(token.parent), _mode(token)) == (0o700, 0o600)
    assert token.read_text() == "of a cluster"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RAY_AUTH_MODE", "disabled"),
        ("RAY_AUTH_TOKEN", "given"),
        ("RAY_AUTH_TOKEN_PATH", "/run/secrets/token"),
    ],
)
def test_a_token_of_the_users_own_is_none_of_ours(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    local.keep_token()
    assert list(home.iterdir()) == []


def test_a_home_that_cannot_be_written_is_told(home: Path) -> None:
    (home / ".ray").write_text("a file where the folder would be")
    with pytest.raises(ElthError, match=r"Ray's token cannot be written to .*/\.ray/auth_token: "):
        local.keep_token()


@pytest.mark.parametrize("before", [None, "1"])
def test_ray_takes_the_loopback_address_while_it_starts(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    if before is not None:
        monkeypatch.setenv(_VARIABLE, before)
    monkeypatch.setattr(
        services, "node_ip_address_from_perspective", lambda _: "192.0.2.1", raising=True
    )
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    with local._in_no_cluster():
        assert local.is_loopback(services.resolve_ip_for_localhost("127.0.0.1"))
        assert os.environ[_VARIABLE] == "0", "all that it starts reads this"
    assert services.resolve_ip_for_localhost("127.0.0.1") == "192.0.2.1"
    assert os.environ.get(_VARIABLE) == before


def test_workers_of_a_ray_of_our_own_talk_on_loopback_and_nothing_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    with local._on_loopback():
        assert os.environ["GLOO_SOCKET_IFNAME"].startswith("lo")
        assert os.environ["NCCL_SOCKET_IFNAME"] == "ib0"
    assert "GLOO_SOCKET_IFNAME" not in os.environ, "a cluster's workers would be given it"
    assert os.environ["NCCL_SOCKET_IFNAME"] == "ib0"


@pytest.mark.parametrize(
    ("address", "so"),
    [("127.0.0.1", True), ("::1", True), ("127.0.0.2", True), ("192.0.2.1", False)],
)
def test_a_loopback_address(address: str, so: bool) -> None:
    assert local.is_loopback(address) is so


def test_a_token_is_made_where_files_cannot_be_linked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    local.keep_token()
    token = home / ".ray/auth_token"
    first = token.read_text()
    assert len(first) == 64
    assert [path.name for path in token.parent.iterdir()] == ["auth_token"]
    local.keep_token()
    assert token.read_text() == first


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray is asked for: one that has two GPUs, whatever that is."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **words: found.append(words))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 2.0})
    monkeypatch.setattr(ray, "shutdown", lambda: found.append({}))
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(local, "messages_to_stderr", lambda: None)
    return found


def test_ray_gives_away_the_gpus_that_torch_counts(asked: list[dict[str, Any]]) -> None:
    assert local.start(4, 2) == ""
    assert local.start(4) == ""
    assert [(one["num_cpus"], one["num_gpus"]) for one in asked] == [(4, 2), (4, None)]


def test_a_ray_with_another_number_of_gpus_is_ended_and_refused(
    asked: list[dict[str, Any]],
) -> None:
    with pytest.raises(ElthError, match="torch can use 3 GPUs of this machine and Ray has 2 to"):
        local.start(4, 3)
    assert asked[1:] == [{}]
