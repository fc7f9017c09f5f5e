"""What the tests of the command line share: ``elth`` in this process, and a small config."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.cli import (
    cluster,
    data,
    differing,
    housekeeping,
    lists,
    planning,
    results,
    running,
    status,
    ticket,
)
from orchestrator.cli.main import main
from tests.orchestrator.cli.helpers import Done, Elth
from tests.orchestrator.helpers import TINY, Finished, write_yaml

_PRINTING = (
    *(cluster, data, differing, housekeeping, lists),
    *(planning, results, running, status, ticket),
)


@pytest.fixture
def elth(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Elth:
    """The command ``elth`` in this process, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*words: str | Path) -> Done:
        for module in _PRINTING:
            monkeypatch.setattr(module, "out", Console(width=200))
        monkeypatch.setattr(sys, "argv", ["elth", *(str(word) for word in words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Done(code=code, out=captured.out, err=captured.err)

    return call


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A small experiment of one network."""
    fields = {
        "dataset": "digits",
        "seeds": [0],
        "recipe": "digits_resnet",
        "pruning": {"rounds": 2},
        "grid": [{"method": "imp", "network": TINY}],
    }
    return write_yaml(tmp_path / "small.yaml", fields)


@pytest.fixture
def done_config(finished: Finished, tmp_path: Path) -> Path:
    """The file of the grid that is finished."""
    path = tmp_path / "done.yaml"
    path.write_text(finished.experiment.resolved(), encoding="utf-8")
    return path
