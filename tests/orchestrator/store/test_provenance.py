"""Where a result comes from, and whether that process still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil
import pytest

from orchestrator.store import provenance
from orchestrator.store.provenance import environment, is_gone, owner
from tests.orchestrator.helpers import ELSEWHERE, GONE


def test_owner_is_this_process() -> None:
    host, pid, started = owner().split(":")
    assert (host, int(pid)) == (socket.gethostname(), os.getpid())
    assert abs(float(started) - psutil.Process().create_time()) <= 1


def test_is_gone() -> None:
    assert not is_gone(owner())
    assert is_gone(GONE)
    assert is_gone(f"{socket.gethostname()}:{2**22 + 1}:1")  # beyond the largest process id
    assert not is_gone(ELSEWHERE)
    assert not is_gone("")


def test_the_environment_is_told_without_git_or_an_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(provenance, "_ENVIRONMENT", {})
    monkeypatch.setenv("PATH", str(tmp_path))
    found = environment()
    assert "mlflow.source.git.commit" not in found
    assert found["version.python"]
    assert environment() is found
