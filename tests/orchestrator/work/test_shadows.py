"""Files of the current folder that would hide packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rich.console import Console

import orchestrator
from elth.errors import ElthError
from orchestrator import plan
from orchestrator.store.address import Store
from orchestrator.work import shadows
from orchestrator.work.driver import execute
from tests.orchestrator.helpers import tiny


@pytest.mark.parametrize("name", ["mlflow", "orchestrator", "torch", "ray", "numpy", "queue"])
@pytest.mark.parametrize("package", [True, False], ids=["folder", "file"])
def test_what_trials_would_import_instead_is_refused(
    tmp_path: Path, name: str, package: bool
) -> None:
    file = tmp_path / (f"{name}/__init__.py" if package else f"{name}.py")
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    with pytest.raises(ElthError) as refused:
        shadows.check(tmp_path)
    message = str(refused.value)
    assert message.startswith(f"trials would import {file} (for /")
    assert "rename it, or give the command in another folder" in message


def test_a_run_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.py").write_text("")
    found = tiny("hidden")
    with pytest.raises(ElthError, match=r"trials would import .*mlflow\.py"):
        execute(found, plan.build(found), Store.of(None), Console(), retry_failed=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.py"]


def test_all_are_named_at_once(tmp_path: Path) -> None:
    for name in ("yaml", "mlflow"):
        (tmp_path / f"{name}.py").write_text("")
    with pytest.raises(ElthError, match=r"mlflow\.py \(for .*\), .*yaml\.py \(for "):
        shadows.check(tmp_path)


def test_what_hides_nothing_is_let_be(tmp_path: Path) -> None:
    (tmp_path / "mlflow").mkdir()  # no package: Python looks on
    (tmp_path / "mlflow/notes.txt").write_text("")
    (tmp_path / "numpy.yaml").write_text("")
    (tmp_path / "mine.py").write_text("")  # nothing else has this name
    (tmp_path / "antigravity.py").write_text("")  # Python has one, which no trial imports
    (tmp_path / "sys.py").write_text("")  # built in, and found before all files
    (tmp_path / "io.py").write_text("")  # frozen into Python, and found before all files
    (tmp_path / "__main__.py").write_text("")  # nobody imports it
    shadows.check(tmp_path)


def test_the_folder_that_holds_the_program_itself_hides_nothing() -> None:
    folder = Path(orchestrator.__file__).parents[1]
    shadows.check(folder)
    shadows.check(folder, [str(folder), *sys.path])


def test_what_is_not_imported_yet_is_looked_for_beyond_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    (tmp_path / "torchvision.py").write_text("")
    with pytest.raises(ElthError, match=r"torchvision\.py"):
        shadows.check(tmp_path, [str(tmp_path), *sys.path])
