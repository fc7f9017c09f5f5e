"""Which round is the last of its chain, and what is ended by that."""

from __future__ import annotations

import dataclasses
import json

import pytest

from orchestrator import plan
from orchestrator.experiment.pruning import Stop
from orchestrator.plan.ending import (
    Link,
    ended,
    endings,
    link_of,
    links_of,
    verdict,
    verdicts,
)
from orchestrator.plan.stage import Stage
from tests.orchestrator.helpers import TINY, TINY_DEEPER, chain, of_kind, round_of, tiny

BELOW = Stop(accuracy_below=12)
COLLAPSED = Stop(collapsed=True)


@dataclasses.dataclass(frozen=True)
class Found:
    """What is tracked of a stage."""

    stage: Stage
    accuracy: float | None = 50.0
    collapsed: tuple[str, ...] = ()


START, DENSE, FIRST, SECOND = chain()


@pytest.mark.parametrize(
    ("stop", "found", "why"),
    [
        (None, Found(FIRST, 1.0, ("fc.weight",)), ""),
        (BELOW, Found(FIRST, 11.2), f"{TINY} round 1, seed 0 has 11.2 % < 12 %"),
        (BELOW, Found(FIRST, 11.9996), f"{TINY} round 1, seed 0 has 11.9996 % < 12 %"),
        (BELOW, Found(FIRST, 12.0), ""),
        (BELOW, Found(FIRST, 50.0, ("fc.weight",)), ""),
        (BELOW, Found(FIRST, None), ""),
        (BELOW, Found(FIRST, float("nan")), f"{TINY} round 1, seed 0 has nan % < 12 %"),
        (
            BELOW,
            Found(DENSE, 9.0),
            f"{TINY} dense round 0, seed 0 has 9.0 % < 12 %, before any pru",
        ),
        (BELOW, Found(START, 9.0), ""),
        (COLLAPSED, Found(FIRST, 1.0), ""),
        (
            COLLAPSED,
            Found(FIRST, 90.0, ("a", "b")),
            f"{TINY} round 1, seed 0 has lost every weight",
        ),
        (COLLAPSED, Found(FIRST, 9.0, ("a", "b", "c")), " of a, b and 1 more"),
        (Stop(collapsed=True, accuracy_below=12), Found(FIRST, 11.0), "11.0 % < 12 %"),
        (Stop(collapsed=True, accuracy_below=12), Found(FIRST, 50.0, ("a",)), "weight of a"),
    ],
)
def test_a_round_is_the_last_by_what_is_tracked_of_it(
    stop: Stop | None, found: Found, why: str
) -> None:
    told = verdict(stop, found)
    assert bool(told) == bool(why)
    assert why in told


def test_what_follows_a_round_is_the_next_one_and_a_smaller_one() -> None:
    built = plan.build(
        tiny("smaller", grid=[{"method": ["imp", "reinit"], "network": TINY, "sparsity": 0.6}])
    )
    exact = [stage for stage in of_kind(built, "round") if "keep" in stage.params]
    assert [link_of(stage).after for stage in exact] == [round_of(built, TINY, 1).key]
    assert link_of(round_of(built, TINY, 1)).after == round_of(built, TINY, 0).key
    assert link_of(round_of(built, TINY, 0)).after == ""
    rest = [*of_kind(built, "rewind_point"), *of_kind(built, "retraining")]
    assert {link_of(stage).after for stage in rest} == {""}


def test_rounds_after_the_last_are_ended_and_all_that_needs_them() -> None:
    """And nothing else: not what is made of the last round, and no count by arithmetic."""
    moved = {"source": TINY, "network": TINY_DEEPER, "transform": "append", "round": "all"}
    built = plan.build(
        tiny(
            "ended",
            seeds=[0, 1],
            pruning={"rate": 0.5, "rounds": 3},
            grid=[
                {"method": ["imp", "reinit", "magnitude"], "network": TINY, "round": "all"},
                {"method": "imp", "network": TINY, "sparsity": 0.6},
                {"method": "ett", **moved},
                {"method": "ett_snip_extra", **moved},
            ],
        )
    )
    last = {round_of(built, TINY, 1).key: "because"}
    found = ended(links_of(built.stages), last)
    assert set(found.values()) == {"because"}
    titles = [built.stages[key].title for key in found]
    assert sorted(titles) == sorted(
        [
            *(f"{TINY} round {k}, seed 0" for k in (2, 3)),
            *(f"{TINY} reinit round {k}, seed 0" for k in (2, 3)),
            *(f"{TINY_DEEPER} <- {TINY} append round {k}, seed 0" for k in (2, 3)),
            *(f"{TINY_DEEPER} <- {TINY} append ett_snip_extra round {k}, seed 0" for k in (2, 3)),
            f"{TINY} at 60 %, seed 0",
        ]
    )


def test_it_ends_at_the_first_whatever_was_found_beyond() -> None:
    stages = {stage.key: stage for stage in (START, DENSE, FIRST, SECOND)}
    found = {DENSE.key: Found(DENSE, 9.0), FIRST.key: Found(FIRST, 3.0)}
    last = verdicts(BELOW, found)
    assert last.keys() == {DENSE.key, FIRST.key}
    over = ended(links_of(stages), last)
    assert list(over) == [FIRST.key, SECOND.key]
    (why,) = set(over.values())
    assert why.startswith(f"{TINY} dense round 0, seed 0 has 9.0 % < 12 %")
    assert endings(over) == [
        f"ended: {why}: the rounds that follow and what needs them are not done"
    ]
    assert verdicts(None, found) == {}
    assert ended(links_of(stages), {}) == {}


def test_a_kind_that_is_not_there_yet_is_ended_by_its_parents() -> None:
    links = {"a": Link(()), "b": Link(("a",), "a"), "c": Link(("x", "b")), "d": Link(("a",))}
    assert ended(links, {"a": "why"}) == {"b": "why", "c": "why"}
    assert [
        Link(tuple(parents), after)
        for parents, after in json.loads(
            json.dumps([dataclasses.astuple(link) for link in links.values()])
        )
    ] == list(links.values())


def test_a_stop_is_in_no_key() -> None:
    stops = (None, "collapsed", {"accuracy_below": 12})
    keys = [
        list(plan.build(tiny("k", pruning={"rate": 0.5, "rounds": 2, "stop": s})).stages)
        for s in stops
    ]
    assert keys[0] == keys[1] == keys[2] == [s.key for s in (START, DENSE, FIRST, SECOND)]
