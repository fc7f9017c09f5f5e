"""Steps that were timed: what they are found by, and what is no time."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from elth.recipes import Recipe
from elth.step_times import Step

RECIPE = Recipe.of({"length": "1ep", "rewind": "0ep", "batch_size": 64})
STEP = Step(network="resnet14", image=(1, 8, 8), recipe=RECIPE)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing was timed before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "elth" / "steps"


def test_a_time_is_kept() -> None:
    assert STEP.known() is None
    STEP.keep(0.5)
    assert STEP.known() == 0.5
    STEP.keep(0.25)
    assert STEP.known() == 0.25


def test_it_is_that_of_the_same_alone() -> None:
    STEP.keep(0.5)
    larger = dataclasses.replace(RECIPE, batch_size=128)
    longer = dataclasses.replace(RECIPE, lr=0.01)
    for changes in (
        {"network": "resnet20"},
        {"image": (3, 32, 32)},
        {"threads": 2},
        {"device": "cuda"},
        {"compiled": True},
        {"recipe": larger},
    ):
        assert dataclasses.replace(STEP, **changes).known() is None, changes
    assert dataclasses.replace(STEP, recipe=longer).known() == 0.5  # the rate costs nothing


def test_of_a_gpu_it_is_that_of_its_kind() -> None:
    gpu = dataclasses.replace(STEP, device="cuda", kind="NVIDIA H100")
    gpu.keep(0.5)
    assert dataclasses.replace(gpu, threads=2).known() == 0.5
    assert dataclasses.replace(gpu, kind="NVIDIA A100").known() is None
    STEP.keep(0.25)
    assert dataclasses.replace(STEP, kind="NVIDIA H100").known() == 0.25


@pytest.mark.parametrize("content", ["", "[]", '{"seconds": 0}', '{"seconds": NaN}', "{}"])
def test_what_is_no_time_is_not_taken(content: str, cache: Path) -> None:
    STEP.keep(0.5)
    (file,) = cache.iterdir()
    assert json.loads(file.read_text(encoding="utf-8"))["seconds"] == 0.5
    file.write_text(content, encoding="utf-8")
    assert STEP.known() is None


def test_where_nothing_can_be_written_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    STEP.keep(0.5)
    assert STEP.known() is None
