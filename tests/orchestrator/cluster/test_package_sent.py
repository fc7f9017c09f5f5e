"""What of a project is sent to a cluster."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from elth.errors import ElthError
from orchestrator.cluster import package


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with everything that should stay at home."""
    folder = tmp_path / "project"
    for name in (
        "one.yaml",
        "configs/two.yaml",
        "configs/data/three.yaml",
        "mine/code.py",
        "mine/__pycache__/code.pyc",
        ".env",
        ".git/config",
        ".venv/pyvenv.cfg",
        "env/pyvenv.cfg",
        "env/lib/x.py",
        "data/digits.bin",
        "runs/mlflow.db",
        "runs-smoke/mlflow.db",
        "deep/store/mlflow.db",
        "deep/store/artifacts/1/t.safetensors",
        "given/inflight/x.safetensors",
        "elth.egg-info/PKG-INFO",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "link").symlink_to(tmp_path)
    return folder


SENT = ["configs/data/three.yaml", "configs/two.yaml", "mine/code.py", "one.yaml"]


def test_what_is_sent(project: Path, tmp_path: Path) -> None:
    target = tmp_path / "sent.zip"
    assert package.pack(project, target, [project / "given"]) == len(SENT)
    with zipfile.ZipFile(target) as archive:
        assert sorted(archive.namelist()) == SENT
        assert archive.read("mine/code.py") == b"mine/code.py"


def test_the_same_files_give_the_same_bytes(project: Path, tmp_path: Path) -> None:
    package.pack(project, tmp_path / "a.zip")
    os.utime(project / "one.yaml", (1, 1))
    (project / "runs/another").write_text("result")
    package.pack(project, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_large_project_is_refused_with_what_is_large(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "LIMIT", 2_000_000)
    (project / "mine/large").write_bytes(bytes(3_000_000))
    message = r"has 3 MB, and at most 2 MB are sent to a cluster; the largest in it: mine \(3 MB\)"
    with pytest.raises(ElthError, match=message):
        package.pack(project, tmp_path / "sent.zip")
    assert not (tmp_path / "sent.zip").exists()
