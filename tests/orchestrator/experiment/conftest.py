"""A file that holds a right experiment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.orchestrator.experiment.helpers import BASE
from tests.orchestrator.helpers import write_yaml


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that holds a right experiment."""
    return write_yaml(tmp_path / "exp.yaml", BASE)
