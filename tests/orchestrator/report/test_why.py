"""The nearest finished stage, without a store; what is told is in ``cli/test_why_and_diff.py``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import plan
from orchestrator.plan.graph import Plan
from orchestrator.report import why
from orchestrator.report.why import Reading
from orchestrator.store.listing import Tracked
from tests.orchestrator.helpers import RECIPE, TINY, tiny


def _reading(built: Plan, monkeypatch: pytest.MonkeyPatch) -> Reading:
    """A store in which all of a plan is finished, in its order."""
    words: dict[str, Any] = {"status": "finished", "reason": "", "numerics": "", "is_final": False}
    words |= {"grids": frozenset(), "nonzeros": 1, "prunable": 2, "accuracy": 50.0, "seconds": 1.0}
    tracked = [
        Tracked(run_id=f"run {n}", key=one.key, stage=one, started=n, **words)
        for n, one in enumerate(built.stages.values())
    ]
    monkeypatch.setattr(why, "marked", lambda _: {})
    return Reading(SimpleNamespace(stages=lambda: tracked))  # type: ignore[arg-type]


def test_where_all_labels_are_the_same_no_others_are_gone_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a grid of ten thousand stages whose recipe is another takes minutes."""
    reading = _reading(plan.build(tiny("why", seeds=[0, 1])), monkeypatch)
    other = plan.build(tiny("why", seeds=[0, 1], recipe={**RECIPE, "lr": 0.05}))
    monkeypatch.setattr(why._Alike, "_coded", property(lambda _: pytest.fail("looked at")))
    for stage in other.stages.values():
        found = reading.why(stage, other.stages)
        assert found.nearest is not None
        assert found.nearest.stage.labels == stage.labels
        assert [(one.path, one.b) for one in found.differences] == [("recipe.lr", 0.05)]


def test_of_those_with_the_fewest_other_labels_it_is_the_latest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading = _reading(plan.build(tiny("why", seeds=[0, 1])), monkeypatch)
    other = plan.build(tiny("why", seeds=[2]))
    start = next(iter(other.stages.values()))
    found = reading.why(start, other.stages)
    assert found.axes == ("seed",)
    assert found.nearest is not None
    assert found.nearest.stage.labels["seed"] == 1


def test_of_an_analysis_it_is_told_what_differs_of_it_or_of_what_it_looks_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a grid calls a variant is not kept with a run, and tells nothing of it."""
    asked: dict[str, Any] = {"measure": "barrier", "between": "rounds", "points": 3}
    variants = {"repel": {"pruning.repel": 2.0}}
    entry = {"method": ["dense", "imp"], "network": TINY}
    reading = _reading(plan.build(tiny("why", analyses=[asked])), monkeypatch)
    other = plan.build(
        tiny(
            "why",
            variants=variants,
            grid=[entry, {**entry, "variant": "repel"}],
            analyses=[
                {**asked, "points": 5, "of": {"variant": "none"}},
                {**asked, "of": {"variant": "repel", "round": [1, 2]}},
            ],
        )
    )
    told = {
        other.stages[key].title.removeprefix(f"barrier of {TINY} "): found.reason
        for key in other.analyses
        if (found := reading.why(other.stages[key], other.stages)).state == "to do"
    }
    assert told["rounds 0 and 1, seed 0"] == "settings.points is 5, and 3 in the store"
    assert told["rounds 1 and 2, repel, seed 0"].startswith(
        f"repel of {TINY} round 1, repel, seed 0 is 2.0, and (absent) in the store"
    )


def test_the_nearest_has_the_fewest_other_labels_and_of_several_is_the_latest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it comes out where each is looked at by itself, for labels that some of them lack."""
    grid = [
        {"method": ["imp", "reinit"], "network": TINY, "round": "all", "noise": [0, 1]},
        {"method": ["random", "snip"], "network": TINY, "round": [1, 2], "sparsity": 0.4},
    ]
    built = plan.build(tiny("why", seeds=[0, 1, 2], grid=grid))
    reading = _reading(built, monkeypatch)
    wide = plan.build(tiny("why", seeds=[3, 4], grid=[*grid, {"method": "dense", "network": TINY}]))
    for stage in wide.stages.values():
        labels = why._labels(stage)

        def unlike(one: Tracked, labels: dict[str, str] = labels) -> tuple[int, int]:
            there = why._labels(one.stage)
            names = labels.keys() | there.keys()
            return sum(labels.get(n) != there.get(n) for n in names), -one.started

        group = [one for one in reading.tracked if why._group(one.stage) == why._group(stage)]
        nearest = min(group, key=unlike)
        found = reading.why(stage, wide.stages)
        assert len(found.axes) == unlike(nearest)[0]
        assert found.nearest is nearest
