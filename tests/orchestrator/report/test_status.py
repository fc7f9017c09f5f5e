"""What ``elth status`` says of stages that are marked as running."""

from __future__ import annotations

import re
import traceback
from datetime import UTC, datetime, timedelta

import pytest

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.plan.graph import Plan
from orchestrator.report import status
from orchestrator.report.status import states
from orchestrator.store.leases import BEAT, SEEN, open_run
from orchestrator.store.processes import owner
from orchestrator.store.runlog import fail_at_once
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import ELSEWHERE, GONE, TINY, like_this_one, tiny


def test_what_is_known_of_a_process_is_said_and_no_more(tracker: Tracker) -> None:
    found = tiny("seen", seeds=[90, 91, 92, 93])
    built = plan.build(found)
    tracker.grids.open(found.name, found.resolved(), built.stages, "")
    starts = [stage for stage in built.stages.values() if stage.kind == "rewind_point"]
    seen = (datetime.now(UTC) - timedelta(hours=3, seconds=1)).isoformat()
    box = like_this_one(host="box", pid=77, namespace="4711.1")
    runs = [
        open_run(tracker, stage, grid=found.name, driver=driver, tags=tags)
        for stage, driver, tags in zip(
            starts,
            (owner(), box, ELSEWHERE, GONE),
            ({}, {BEAT: "9 60", SEEN: seen}, {BEAT: "9 60"}, {BEAT: "9 60", SEEN: seen}),
            strict=True,
        )
    ]
    here, there, older, gone = (
        next(one for one in states(tracker, found.name) if one.key == stage.key) for stage in starts
    )
    assert (here.state, there.state, older.state, gone.state) == (
        *("running", "running", "running"),
        "interrupted",
    )
    assert re.fullmatch(r"for \d+ s", here.reason)
    assert re.fullmatch(
        r"for \d+ s by process 77 on box \(PID namespace 4711\), last sign of life 3 h 00 min ago",
        there.reason,
    )
    assert re.fullmatch(
        r"for \d+ s by process 1 on another-host.invalid, which cannot be seen from here",
        older.reason,
    )
    assert gone.reason == "its process ended"
    for run_id in runs:
        tracker.client.delete_run(run_id)


def test_stages_are_named_where_the_code_of_their_plan_is_not_at_hand(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store runs no code from outside; what a stage is called, its labels know."""
    found = tiny(
        "apart",
        seeds=[94],
        variants={"lrr": {"pruning.weights": "trained"}},
        grid=[
            {"method": ["dense", "imp", "magnitude"], "network": TINY},
            {"method": "imp", "network": TINY, "round": 1, "variant": "lrr", "noise": 1},
            {"method": "imp", "network": TINY, "sparsity": 0.6},
            {
                "method": "ett",
                "network": "resnet20(width=4)",
                "source": TINY,
                "transform": "append",
            },
        ],
        analyses=[{"measure": "distances"}],
    )
    built = plan.build(found)
    tracker.grids.open(found.name, found.resolved(), built.stages, "")
    known = {one.key: one.title for one in states(tracker, found.name)}
    monkeypatch.setattr(status, "_plan", lambda _: Plan({}))
    bare = {one.key: one.title for one in states(tracker, found.name)}
    assert bare == known == {key: stage.title for key, stage in built.stages.items()}
    assert len(set(bare.values())) == len(bare)


def test_a_failure_is_told_from_where_it_began(tracker: Tracker) -> None:
    """Of a criterion from outside its own line is of use, not the one that gives the reason."""
    found = tiny("began", seeds=[95])
    built = plan.build(found)
    tracker.grids.open(found.name, found.resolved(), built.stages, "")
    stage = next(iter(built.stages.values()))
    run_id = open_run(tracker, stage, grid=found.name, driver=ELSEWHERE)
    try:
        try:
            raise ZeroDivisionError("in the midst")
        except ZeroDivisionError as error:
            raise ElthError(f"criterion theirs fails: {error}") from error
    except ElthError as error:
        told, details = str(error), traceback.format_exc()
    fail_at_once(tracker, run_id, reason=told, details=details)
    one = next(one for one in states(tracker, found.name) if one.key == stage.key)
    assert one.state == "failed"
    assert one.reason.startswith("criterion theirs fails: in the midst (the next elth run does it")
    assert one.log[-1] == "ZeroDivisionError: in the midst"
    assert 'raise ZeroDivisionError("in the midst")' in one.log[-2]
