"""What a plan makes of a grid of its name: continued, added to, or refused."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from orchestrator import plan
from orchestrator.experiment.methods import METHODS, Method
from orchestrator.experiment.sections import Experiment
from orchestrator.store.content import Change, Content, beside, grown, spell_seeds
from tests.orchestrator.helpers import RECIPE, TINY, TINY_DEEPER, tiny

IMP = {"method": "imp", "network": TINY}
MORE = {"method": ["reinit", "random"], "network": TINY, "round": "all"}
SHARED = "what is finished is shared; or let the grid be what this file says by --replace, no run"


def _content(**changes: Any) -> Content:
    found = tiny("g", **changes)
    return Content.of(found, plan.build(found))


def _change(before: Content | None, found: Experiment, *, replaces: bool = False) -> Change:
    built = plan.build(found)
    asked = Content.of(found, built)
    after = asked if before is None or replaces else grown(before, found, built)
    return Change(
        grid="g", store="runs", asked=asked, before=before, after=after, replaces=replaces
    )


def _rounds(rounds: int) -> dict[str, Any]:
    return {"rate": 0.5, "rounds": rounds}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pruning": _rounds(3)},
        {"grid": [MORE, IMP]},
        {"seeds": [0, 1]},
        {"seeds": [2, 1, 0], "pruning": _rounds(4), "grid": [IMP, MORE]},
        {"description": "Another.", "resources": {"concurrent": 7}, "data": {"root": "elsewhere"}},
        {"claims": [{"imp": "reaches", "of": "dense"}], "margin": 1.0},
    ],
    ids=str,
)
def test_a_plan_that_holds_all_is_a_continuation(changes: dict[str, Any]) -> None:
    change = _change(_content(), tiny("g", **changes))
    assert change.refusal == ""
    assert change.after == change.asked == _content(**changes)


def test_claims_and_margin_may_change_on_a_grid_that_is_there() -> None:
    before = _content(claims=[{"imp": "reaches", "of": "dense"}])
    change = _change(before, tiny("g", claims=[{"imp": "above", "of": "dense"}], margin=2))
    assert change.refusal == ""
    assert change.after.keys == before.keys
    assert change.after.experiment["claims"][0]["imp"] == "above"
    assert change.told == (
        "The grid g in runs stays as it is; what is claimed of it is what this file says now."
    )
    assert _change(before, tiny("g", claims=[{"imp": "reaches", "of": "dense"}])).after == before


def test_with_more_rounds_claims_of_the_new_last_one_are_no_obstacle() -> None:
    """What is of the former last round is found by a plan with fewer, which lacks the new one."""
    grid = [IMP, {"method": "reinit", "network": TINY}]
    before = _content(grid=grid)
    claims = [{"imp": "above", "of": "reinit", "round": 3}]
    change = _change(before, tiny("g", grid=grid, pruning=_rounds(3), claims=claims))
    assert change.refusal == ""
    assert before.places <= change.after.places


def test_a_grid_that_is_not_there_is_new() -> None:
    change = _change(None, tiny("g"))
    assert (change.refusal, change.after) == ("", _content())
    assert change.told == "The grid g is new in runs."


@pytest.mark.parametrize("rounds", [2, 4])
def test_seeds_given_apart_add_up(rounds: int) -> None:
    found = tiny("g", seeds=[1], pruning=_rounds(rounds))
    change = _change(_content(seeds=[0, 7]), found)
    assert change.refusal == ""
    assert change.after == _content(seeds=[0, 1, 7], pruning=_rounds(rounds))
    assert change.after.experiment["seeds"] == [0, 1, 7]
    count = len(change.after.keys) - 8
    assert change.told == (
        f"The grid g in runs goes on: {count} stages are added to its 8, seed 1 to seeds 0, 7."
    )


def test_with_more_rounds_what_is_of_the_last_one_moves_on_and_stays() -> None:
    """Reinit and ETT name no round: theirs is the last, which is another now."""
    moved = {"method": "ett", "source": TINY, "network": TINY_DEEPER, "transform": "append"}
    grid = [IMP, moved, {"method": "reinit", "network": TINY}]
    before = _content(grid=grid, seeds=[0, 1])
    longer = tiny("g", grid=grid, seeds=[0], pruning=_rounds(4))
    change = _change(before, longer)
    assert change.refusal == ""
    whole = _content(grid=grid, seeds=[0, 1], pruning=_rounds(4))
    assert change.after.places == before.places | whole.places
    assert change.after.text == whole.text
    rounds = {(one["method"], one["round"]) for one in change.after.keys.values()}
    assert {("reinit", 2), ("reinit", 4), ("ett", 2), ("ett", 4)} <= rounds
    # The same again, another seed and another cell: what it was stays.
    assert _change(change.after, longer).after is change.after
    more = tiny("g", grid=[*grid, {"method": "snip", "network": TINY}], pruning=_rounds(4))
    again = _change(change.after, more.model_copy(update={"seeds": (5,)}))
    assert (again.refusal, again.after.places > change.after.places) == ("", True)
    # But not what the file does not ask for at any number of rounds.
    fewer = tiny("g", grid=grid[:2], pruning=_rounds(4))
    assert f"would drop Reinit on {TINY}, digits, rounds 2, 4, seeds 0, 1 (grid.2 is" in (
        _change(change.after, fewer).refusal
    )


def test_some_seeds_of_a_grid_leave_it_as_it_is() -> None:
    before = _content(seeds=[0, 1, 2])
    change = _change(before, tiny("g", seeds=[1]))
    assert change.after is before
    assert change.told == (
        "The grid g holds more than this file asks for, which is shown by its name: seeds 0, 2."
    )
    assert _change(before, tiny("g", seeds=[0, 1, 2])).told == "The grid g in runs stays as it is."


def test_seeds_of_another_experiment_do_not_add_up() -> None:
    """Not even where no seed is given twice: one cell would be of two recipes."""
    change = _change(_content(seeds=[0]), tiny("g", seeds=[1], recipe={**RECIPE, "lr": 0.05}))
    assert change.refusal == (
        f"the grid 'g' in runs is of another plan, and this one would change dense on {TINY}, "
        f"digits, seed 0; IMP on {TINY}, digits, rounds 1, 2, seed 0 (recipe.lr is 0.1 there and "
        f"0.05 here): give it a name of its own by name=OTHER, {SHARED} is deleted"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"pruning": _rounds(1)},
            f"would drop IMP on {TINY}, digits, round 2, seeds 0, 1; Reinit on {TINY}, digits, "
            f"round 2, seeds 0, 1; Random on {TINY}, digits, round 2, seeds 0, 1 (pruning.rounds "
            "is 2 there and 1 here): give it",
        ),
        (
            {"pruning": _rounds(1), "seeds": [5]},
            "round 2, seeds 0, 1 (pruning.rounds is 2 there and 1 here): give it",
        ),
        (
            {"grid": [IMP]},
            f"would drop Reinit on {TINY}, digits, rounds 1, 2, seeds 0, 1; Random on {TINY}, "
            "digits, rounds 1, 2, seeds 0, 1 (grid.1 is {'method': ['reinit', 'random'], 'net... "
            "there and not given here): give it",
        ),
        (
            {"grid": [{"method": "imp", "network": TINY_DEEPER}]},
            f"would drop dense on {TINY}, digits, seeds 0, 1; IMP on {TINY}, digits, rounds 1, 2, "
            f"seeds 0, 1; Reinit on {TINY}, digits, rounds 1, 2, seeds 0, 1; and 1 lines more (",
        ),
        (
            {"pruning": {"rate": 0.4, "rounds": 2}},
            f"would change IMP on {TINY}, digits, rounds 1, 2, seeds 0, 1; Reinit on ",
        ),
        (
            {"recipe": {**RECIPE, "length": "3ep", "lr": 0.2}, "grid": [IMP]},
            f"would drop Reinit on {TINY}, digits, rounds 1, 2, seeds 0, 1; Random on {TINY}, "
            f"digits, rounds 1, 2, seeds 0, 1 and change dense on {TINY}, digits, seeds 0, 1; IMP",
        ),
    ],
    ids=["rounds", "rounds and seeds", "entry", "network", "rate", "recipe"],
)
def test_what_would_drop_or_change_a_cell_is_refused(changes: dict[str, Any], message: str) -> None:
    before = _content(seeds=[0, 1], grid=[IMP, MORE])
    change = _change(before, tiny("g", **{"seeds": [0, 1], "grid": [IMP, MORE], **changes}))
    assert message in change.refusal
    asked = _change(before, tiny("g", **changes), replaces=True)
    assert asked.refusal == ""
    assert asked.after == asked.asked
    assert re.fullmatch(
        r"The grid g in runs is what this file says now; \d+ stages that it held besides stay in "
        "the store.",
        asked.told,
    )


def test_cells_that_another_version_makes_in_another_way_are_refused() -> None:
    made = _content()
    key, labels = list(made.keys.items())[-1]
    older = Content(text=made.text, keys={**made.keys, "0" * 64: labels})
    older = Content(text=made.text, keys={k: v for k, v in older.keys.items() if k != key})
    assert "would change IMP on" in (refusal := _change(older, tiny("g")).refusal)
    assert (
        "(no field differs: the code or the data that they are made by does, see elth why"
        in refusal
    )


@pytest.mark.parametrize("version", [1, 2])
def test_what_an_earlier_version_of_ours_made_goes_on(
    monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """The file is the same, and nobody could ask for the older one."""
    grid = [{"method": ["imp", "random"], "network": TINY}]
    random = METHODS["random"]

    def raised(number: int) -> Method:
        (step,) = random.steps
        bare = {name: value for name, value in step.items() if name != "version"}
        return replace(random, steps=(bare | ({"version": number} if number > 1 else {}),))

    monkeypatch.setitem(METHODS, "random", raised(version))
    before = _content(grid=grid)
    monkeypatch.setitem(METHODS, "random", raised(3))
    change = _change(before, tiny("g", grid=grid, seeds=[0, 1]))
    assert (change.refusal, len(change.renewed)) == ("", 1)
    assert change.told == (
        "The grid g in runs goes on; what another version made in another way is done again: "
        f"Random on {TINY}, digits, round 2, seed 0, and 5 stages are added."
    )
    fewer = tiny("g", grid=grid, pruning=_rounds(1))
    assert "would drop IMP on" in _change(before, fewer).refusal
    monkeypatch.setitem(METHODS, "random", raised(version))  # nor is a later one taken back
    assert "would change Random on" in _change(change.after, tiny("g", grid=grid)).refusal


def test_a_stage_that_becomes_another_cell_is_refused() -> None:
    made = _content()
    key, labels = list(made.keys.items())[-1]
    other = Content(text=made.text, keys={**made.keys, key: {**labels, "round": 9}})
    assert f"would drop IMP on {TINY}, digits, round 9, seed 0" in _change(other, tiny("g")).refusal


def test_a_dataset_that_lies_elsewhere_now_is_the_same() -> None:
    made = _content()
    moved = {key: {**labels, "place": "folder(manifest=/old)"} for key, labels in made.keys.items()}
    assert _change(Content(text=made.text, keys=moved), tiny("g")).refusal == ""
    assert beside("g", Content(text=made.text, keys=moved), made) == ""


def test_how_a_grid_differs_from_a_file() -> None:
    held = _content(seeds=[0, 1])
    assert beside("g", held, held) == ""
    assert beside("g", held, _content(seeds=[1], pruning=_rounds(1))) == (
        "The grid g holds more than this file asks for, which is shown by its name: dense on "
        f"{TINY}, digits, seed 0; IMP on {TINY}, digits, rounds 1, 2, seeds 0, 1."
    )
    assert beside("g", held, _content(seeds=[0, 1], pruning=_rounds(3))) == (
        "The grid g is another: it lacks 2 of the 10 stages of this file (pruning.rounds is 2 "
        "there and 3 here)."
    )
    other = _content(seeds=[0], recipe={**RECIPE, "lr": 0.5})
    assert beside("g", held, other).startswith(
        f"The grid g is another: it lacks 4 of the 4 stages of this file, and holds besides dense "
        f"on {TINY}, digits, seeds 0, 1; IMP on "
    )


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ([0], "seed 0"),
        ([2, 0, 2], "seeds 0, 2"),
        ([0, 1, 2], "seeds 0, 1, 2"),
        (range(10), "seeds 0 to 9"),
        ([0, 1, 2, 3, 5, 7, 8, 9, 10, 12], "seeds 0 to 3, 5, 7 to 10, 12"),
        ([], "seeds "),
    ],
)
def test_seeds_as_people_write_them(seeds: Any, text: str) -> None:
    assert spell_seeds(seeds) == text
