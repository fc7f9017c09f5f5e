"""``elth status``: parts, JSON, and watching where nobody types anything."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator.cli import status
from orchestrator.report import watching
from orchestrator.report.status import STATES, State
from orchestrator.report.watching import Look
from orchestrator.store.away import AwayError
from tests.orchestrator.cli.helpers import Elth
from tests.orchestrator.helpers import TINY_DEEPER, Finished


def _timeless(text: str) -> str:
    """A table without the last sign of life, which is a while ago."""
    return re.sub(r"\d+ (s|min \d+ s) ago +", "", text)


def test_without_a_name_it_lists_the_grids(elth: Elth, finished: Finished) -> None:
    for more in ((), ("--json",)):
        words = ("--store", finished.store, *more)
        own, theirs = (elth(name, *words) for name in ("status", "grids"))
        assert own.code == theirs.code == 0
        assert _timeless(own.out) == _timeless(theirs.out) != ""
    assert "--only takes the name of a grid" in elth("status", "--only", "seed=0").err
    assert "--watch takes the name of a grid" in elth("status", "--watch").err


def test_json_is_all_that_standard_output_has(elth: Elth, finished: Finished) -> None:
    done = elth("status", "done", "--store", finished.store, "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert list(found) == ["grid", "store", "differs", "drivers", "counts", "stages"]
    assert (found["grid"], found["differs"], found["drivers"]) == ("done", "", 0)
    assert found["counts"] == {state: 24 * (state == "finished") for state in STATES}
    assert {one["key"] for one in found["stages"]} == finished.plan.stages.keys()
    for one in found["stages"]:
        assert list(one) == ["key", "state", "title", "reason", "log", "accuracy", "labels"]
        assert (one["accuracy"] is None) == (one["labels"]["method"] == "rewind")


def test_a_part_is_told_with_what_it_needs(elth: Elth, finished: Finished) -> None:
    words = ("--store", finished.store, "--json", "--only", "method=magnitude,seed=1")
    found = json.loads(elth("status", "done", *words).out)
    assert {one["title"] for one in found["stages"]} == {
        f"{TINY_DEEPER} rewind point, seed 1",
        f"{TINY_DEEPER} magnitude round 2, seed 1",
    }
    refused = elth("status", "done", "--store", finished.store, "--only", "method=snip")
    assert refused.code == 2
    assert "--only method=snip chooses nothing of done" in refused.err


def test_a_config_that_differs_says_so_in_json(
    elth: Elth, finished: Finished, done_config: Path
) -> None:
    words = ("seeds=[0]", "--store", finished.store, "--json")
    found = json.loads(elth("status", done_config, *words).out)
    assert found["differs"].startswith("The grid done holds more than this file asks for")
    assert len(found["stages"]) == 12


# Watching

Looks = Callable[..., None]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Has the store tell one thing after the other, and no time pass between."""

    def come(*some: Look | BaseException) -> None:
        rest = list(some)

        def look(*_: object) -> Look:
            now = rest.pop(0)
            if isinstance(now, BaseException):
                raise now
            return now

        monkeypatch.setattr(watching, "look", look)

    monkeypatch.setattr(status, "_pause", lambda *_: None)
    return come


def _look(*states: str) -> Look:
    stages = tuple(
        State(key=f"{number:064x}", state=state, title=f"stage {number}")
        for number, state in enumerate(states)
    )
    return Look(grid="done", store="runs", states=stages, drivers=1)


def _lines(text: str) -> list[str]:
    return [line.partition("] ")[2] for line in text.splitlines()]


def test_a_pipe_gets_a_line_for_each_change_until_the_end(
    elth: Elth, finished: Finished, looks: Looks
) -> None:
    begun, half = _look("running", "waiting"), _look("finished", "running")
    looks(begun, begun, half, half, _look("finished", "finished"))
    done = elth("status", "done", "--store", finished.store, "--watch")
    assert (done.code, done.err) == (0, "")
    assert _lines(done.out) == [
        "0 of 2 stages finished, 1 running, 1 waiting",
        "1 of 2 stages finished, 1 running",
        "2 of 2 stages finished",
    ]


def test_it_ends_with_3_where_something_failed(
    elth: Elth, finished: Finished, looks: Looks
) -> None:
    looks(_look("running", "waiting"), _look("failed", "blocked"))
    done = elth("status", "done", "--store", finished.store, "--watch")
    assert done.code == 3
    assert _lines(done.out)[-1] == "0 of 2 stages finished, 1 failed, 1 blocked"


def test_a_store_that_is_away_for_a_moment_is_asked_again(
    elth: Elth, finished: Finished, looks: Looks
) -> None:
    for away in (AwayError("the store is away"), MlflowException("the store is away")):
        looks(_look("running"), away, _look("finished"))
        done = elth("status", "done", "--store", finished.store, "--watch")
        assert (done.code, done.err) == (0, "note: the store is away\n")


def test_a_grid_that_is_removed_ends_the_watching(
    elth: Elth, finished: Finished, looks: Looks
) -> None:
    looks(_look("running"), ElthError("there is no grid 'done'"), _look("finished"))
    done = elth("status", "done", "--store", finished.store, "--watch")
    assert (done.code, done.err) == (2, "elth: error: there is no grid 'done'\n")


def test_ctrl_c_ends_the_watching_alone(elth: Elth, finished: Finished, looks: Looks) -> None:
    looks(_look("running"), KeyboardInterrupt())
    done = elth("status", "done", "--store", finished.store, "--watch")
    assert (done.code, done.err) == (
        130,
        "elth: no longer watching; the run itself goes on\n",
    )


def test_a_finished_grid_is_not_watched_for_long(elth: Elth, finished: Finished) -> None:
    began = time.monotonic()
    words = ("--store", finished.store, "--watch", "--every", "600")
    done = elth("status", "done", *words)
    assert done.code == 0
    assert _lines(done.out)[0].startswith("24 of 24 stages finished; last ")
    assert time.monotonic() - began < 300


def test_watching_is_for_people(elth: Elth) -> None:
    assert "give --watch or --json, not both" in elth("status", "q", "--watch", "--json").err
