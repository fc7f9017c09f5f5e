"""``elth plan --slots`` and ``--nodes``: in words and as JSON, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator import plan
from orchestrator.plan.estimating import seconds_of, trained
from orchestrator.work import timing
from tests.orchestrator.cli.helpers import Elth
from tests.orchestrator.helpers import TINY, Finished

STEP = 0.5


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each iteration takes half a second on this machine."""
    monkeypatch.setattr(timing, "known", lambda _, stages: dict.fromkeys(trained(stages), STEP))


def _walk(elth: Elth, *words: Any) -> dict[str, Any]:
    done = elth("plan", *words, "--json")
    assert (done.code, done.err) == (0, "")
    found: dict[str, Any] = json.loads(done.out)["walk"]
    return found


@pytest.mark.usefixtures("timed")
def test_a_plan_with_slots(elth: Elth, config: Path) -> None:
    built = plan.of_file(config, ["seeds=[0,1,2]"])[1]
    total = sum(seconds_of(stage, STEP) for stage in built.stages.values())
    told = _walk(elth, config, "seeds=[0,1,2]", "--slots", 2)
    # Three chains alike, two at a time.
    assert (told["unit"], told["slots"], told["workers"], told["nodes"]) == ("seconds", 2, 2, None)
    assert told["total"] == pytest.approx(total)
    assert told["wall"] == pytest.approx(total * 2 / 3)
    assert told["idle"] == pytest.approx(1 / 4)
    assert told["speed_up"] == pytest.approx(3 / 2)
    assert (told["most"], told["width"], told["enough"], told["bound"]) == (2, 3, 3, "slots")
    path = told["path"]
    assert path["length"] == pytest.approx(total / 3)
    assert len(path["stages"]) == len(built.stages) // 3
    assert path["parts"][0]["method"] == "imp"
    assert path["parts"][0]["rewind_point"] is True
    assert path["parts"][0]["seeds"] == [0]
    assert sum(part["share"] for part in told["waits"]) == pytest.approx(1)
    profile = told["profile"]
    assert profile["width"] * sum(profile["busy"]) == pytest.approx(total)
    assert [row["slots"] for row in told["table"]] == [1, 2]
    one, two = told["table"]
    assert (one["wall"], one["idle"], one["speed_up"]) == (pytest.approx(total), 0, 1)
    assert two["node_time"] is None
    assert two["slot_time"] == pytest.approx(total * 4 / 3)
    tracker = told["tracker"]
    assert set(tracker) == {"window", "stages", "epochs", "batches", "beats", "calls", "bytes"}
    assert tracker["stages"]["total"] == len(built.stages)
    assert tracker["stages"]["mean"] == pytest.approx(len(built.stages) / told["wall"])
    assert tracker["beats"]["total"] == pytest.approx(total / 15)


@pytest.mark.usefixtures("timed")
def test_the_time_of_a_plan_is_that_of_the_slots(
    elth: Elth, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELTH_LEASE_SECONDS", "20")
    done = elth("plan", config, "seeds=[0,1,2]", "--slots", 2, "--json")
    told = json.loads(done.out)
    assert told["trials_at_a_time"] == 2
    assert told["seconds"] == pytest.approx(told["walk"]["wall"] + 10)
    assert told["walk"]["tracker"]["beats"]["total"] == pytest.approx(told["walk"]["total"] / 5)
    assert "walk" not in json.loads(elth("plan", config, "--json").out)


@pytest.mark.usefixtures("timed")
def test_a_plan_with_slots_in_words(elth: Elth, config: Path) -> None:
    text = elth("plan", config, "seeds=[0,1,2]", "--slots", 8).out
    assert "(from steps that were timed on this machine), 8 trials at a time." in text
    assert "Walked with 8 trials at a time: " in text
    assert "At most 3 slots are ever at work at once: the longest path takes " in text
    assert "It waits for the longest path, and more slots bring nothing." in text
    assert "What the tracker must take" in text
    assert "imp, rewind point and rounds 0 to 2, seed 0: " in text
    rows = [line.split("│") for line in text.splitlines() if line.count("│") == 6]
    assert [row[1].strip() for row in rows] == ["1", "2", "3", "8"]
    slower = elth("plan", config, "seeds=[0,1,2]", "--slots", 2).out
    assert "It waits for slots: the longest path would be done " in slower
    assert "Slots that it could use are idle for 25 % of the time, and wait for:" in slower
    assert f" 100 %  {TINY} imp, rewind point and rounds 0 to 2, seed" in slower


def test_without_times_it_is_told_in_work(elth: Elth, config: Path) -> None:
    text = elth("plan", config, "--slots", 4).out
    assert "No time is known: nothing of it was timed on this machine" in text
    assert "With --time a few iterations are timed first" in text
    assert "Time: about" not in text
    assert " units, " in text
    assert "how many a second is not known without times." in text
    told = _walk(elth, config, "--slots", 4)
    assert told["unit"] == "work"
    several = elth("plan", config, "--slots", 4, "resources.workers=2").out
    assert "Of trainings by several workers a finished stage in the store tells" in several
    assert "--time" not in several
    tracker = told["tracker"]
    assert tracker["window"] is None
    assert set(tracker) == {"window", "stages", "epochs", "bytes"}
    assert tracker["stages"]["total"] > 0
    assert tracker["stages"]["peak"] is None


def test_finished_stages_tell_times(elth: Elth, finished: Finished, done_config: Path) -> None:
    told = _walk(elth, done_config, "seeds=[0,5]", "--slots", 3, "--store", finished.store)
    assert told["unit"] == "seconds"
    assert told["tracker"]["stages"]["total"] == 12
    nothing = _walk(elth, done_config, "--slots", 3, "--store", finished.store)
    assert (nothing["wall"], nothing["width"], nothing["waits"]) == (0, 0, [])
    text = elth("plan", done_config, "--slots", 3, "--store", finished.store).out
    assert "Nothing to do" in text
    assert "Walked with" not in text


@pytest.mark.parametrize(
    ("words", "overrides", "slots", "workers"),
    [
        (("--nodes", 64, "--gpus", 8), ("gpus=1",), 512, 512),
        (("--nodes", 64, "--gpus", 8), ("gpus=0.5",), 1024, 1024),
        (("--nodes", 4, "--gpus", 8, "--cpus", 16), ("gpus=0.5", "cpus=2"), 32, 32),
        (("--nodes", 4, "--gpus", 8), ("gpus=1", "workers=4"), 8, 32),
        (("--nodes", 2, "--gpus", 8), ("gpus=1", "workers=3"), 5, 15),
        (("--nodes", 2, "--gpus", 8), ("gpus=1", "workers=3", "placement=strict_pack"), 4, 12),
        (("--nodes", 3, "--cpus", 16), ("cpus=5",), 9, 9),
        (("--nodes", 3, "--cpus", 16), ("concurrent=7",), 7, 7),
        (("--slots", 9), ("concurrent=7",), 7, 7),
        (("--slots", 9), ("gpus=1", "workers=2"), 9, 18),
    ],
)
def test_slots_are_those_of_the_driver(
    elth: Elth,
    config: Path,
    words: tuple[Any, ...],
    overrides: tuple[str, ...],
    slots: int,
    workers: int,
) -> None:
    told = _walk(elth, config, *(f"resources.{one}" for one in overrides), *words)
    assert (told["slots"], told["workers"]) == (slots, workers)
    assert told["table"][-1]["slots"] == slots


def test_what_is_left_over_or_not_used_is_told(elth: Elth, config: Path) -> None:
    three = ("resources.gpus=1", "resources.workers=3")
    text = elth("plan", config, *three, "--nodes", 2, "--gpus", 8).out
    assert (
        "note: of the room for 16 workers that for 1 is left over, as a trial has 3, placed pack."
        in text
    )
    assert "Walked with 5 trials at a time, on 2 nodes of 8 GPUs, each of 3 workers" in text
    fewer = elth("plan", config, "resources.concurrent=2", "--slots", 5).out
    assert "note: resources.concurrent lets 2 trials run at a time, of 5." in fewer


def test_rows_by_nodes_end_where_the_plan_does(elth: Elth, config: Path) -> None:
    words = ("resources.gpus=1", "--gpus", 1, "--nodes", 48)
    told = _walk(elth, config, "seeds=[0,1,2]", *words)
    assert all(row["node_time"] == row["nodes"] * row["wall"] for row in told["table"])
    assert [(row["nodes"], row["slots"]) for row in told["table"]] == [
        (1, 1),
        (2, 2),
        (4, 4),
        (48, 48),
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--slots", "0"), "'--slots': 0 is not in the range x>=1"),
        (("--slots", "-3"), "'--slots': -3 is not in the range x>=1"),
        (("--slots", "many"), "'many' is not a valid integer"),
        (("--nodes", "0", "--gpus", "8"), "'--nodes': 0 is not in the range x>=1"),
        (("--slots", "8", "--nodes", "2"), "--slots and --nodes both say how many trials run"),
        (("--gpus", "8"), "--gpus is of each node: give their number by --nodes"),
        (("--cpus", "8"), "--cpus is of each node: give their number by --nodes"),
        (("--slots", "8", "--gpus", "8"), "--gpus is of each node"),
        (("--nodes", "2"), "a worker takes 1 cores and no GPU (resources.cpus, resources.gpus)"),
        (("--nodes", "2", "--gpus", "8"), "say how many cores each node has, by --cpus"),
        (
            ("--nodes", "2", "--cpus", "8", "resources.gpus=0.5"),
            "a worker takes 0.5 of a GPU (resources.gpus): say how many each node has, by --gpus",
        ),
        (
            ("--nodes", "2", "--cpus", "8", "resources.cpus=9"),
            "no trial finds room on 2 nodes of 8 cpus and 0 gpus: it has 1 worker of 9 cpus",
        ),
        (
            ("--nodes", "1", "--gpus", "2", "resources.gpus=1", "resources.workers=3"),
            "no trial finds room on 1 node of 2 gpus: it has 3 workers of 1 cpus and 1 gpus, "
            "placed pack; give more",
        ),
    ],
)
def test_bad_values_are_refused(
    elth: Elth, config: Path, words: tuple[str, ...], told: str
) -> None:
    done = elth("plan", config, *words)
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert done.err.count("\n") == 1
