"""Where a result comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store import provenance
from orchestrator.store.provenance import environment


def test_the_environment_is_told_without_git_or_an_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(provenance, "_ENVIRONMENT", {})
    monkeypatch.setenv("PATH", str(tmp_path))
    found = environment()
    assert "mlflow.source.git.commit" not in found
    assert found["version.python"]
    assert environment() is found
