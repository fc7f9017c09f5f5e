"""From which rounds a tracked run goes on: those that it is made from, and those that follow."""

from __future__ import annotations

import pytest

from orchestrator.plan.stage import Stage
from orchestrator.work.resume import _chain_of, begin
from tests.orchestrator.helpers import TINY, Finished


def _stage(inside: Finished, title: str) -> Stage:
    named = title.replace("NET", TINY)
    (found,) = (s for s in inside.plan.stages.values() if s.title == f"{named}, seed 0")
    return found


@pytest.mark.parametrize(
    ("title", "rounds"),
    [
        ("NET round 2, lrr", ["dense round 0", "round 1, lrr", "round 2, lrr"]),
        ("overlap of NET rounds 1 and 2", ["dense round 0", "round 1", "round 2"]),
        ("NET from theirs round 0", ["from theirs round 0", "from theirs round 1"]),
    ],
)
def test_the_chain_of_a_run_is_that_of_its_variant(
    inside: Finished, title: str, rounds: list[str]
) -> None:
    found = _chain_of(inside.plan, _stage(inside, title))
    assert [one.title for one in found] == [f"{TINY} {name}, seed 0" for name in rounds]


def test_a_twin_is_no_round_of_its_chain(inside: Finished) -> None:
    found = _chain_of(inside.plan, _stage(inside, "NET round 1, noise 1"))
    titles = [one.title.removeprefix(f"{TINY} ") for one in found]
    assert {"dense round 0, seed 0", "round 2, seed 0"} <= set(titles)
    assert "noise" not in " ".join(titles)


def test_an_analysis_tells_what_is_left_of_its_grid(inside: Finished) -> None:
    stage = _stage(inside, "overlap of NET rounds 1 and 2")
    told = begin(inside.tracker, stage.key, ())[2]
    assert "of the 3 rounds of its chain 0 are left, of all" in told
