"""A file that holds a right experiment, and what it is refused for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from elth.errors import ElthError
from orchestrator.experiment.reading import load

BASE: dict[str, Any] = {
    "dataset": "digits",
    "seeds": [0],
    "recipe": "digits_resnet",
    "grid": [{"method": "imp", "network": "resnet14"}],
}


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ElthError) as caught:
        load(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text
