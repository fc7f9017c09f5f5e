"""Ways of IMP: what a round starts from, how far it trains, what repels it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from elth import ways
from elth.errors import ElthError
from elth.recipes import RECIPES, Recipe, Step
from elth.streams import Noise

RECIPE = Recipe(
    length=Step(4, "ep"), rewind=Step(3, "it"), batch_size=10, milestones=(Step(2, "ep"),)
)
"""Of 95 images: 10 iterations an epoch."""


@pytest.mark.parametrize(
    ("weights", "finetune", "expected"),
    [
        ("rewind", None, (3, 40)),
        ("trained", None, (3, 40)),
        ("init", None, (0, 40)),
        ("finetune", Step(2, "ep"), (40, 60)),
        ("finetune", Step(7, "it"), (40, 47)),
    ],
)
def test_the_iterations_of_a_round(
    weights: str, finetune: Step | None, expected: tuple[int, int]
) -> None:
    assert ways.span(weights, RECIPE, 95, finetune) == expected


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if r.schedule != "cosine"])
def test_beyond_its_end_a_recipe_keeps_its_last_learning_rate(name: str) -> None:
    """Which is what fine-tuning goes on with."""
    recipe = RECIPES[name]
    first, last = ways.span("finetune", recipe, 5000, Step(3, "ep"))
    per_epoch = -(-5000 // recipe.batch_size)
    rates = {recipe.lr_at(step, per_epoch) for step in range(first - 1, last)}
    drops = len(recipe.milestones)
    assert rates == {recipe.lr * recipe.gamma**drops}


def test_what_a_round_starts_from() -> None:
    found = [ways.start_state(name, "trained", "rewind", "initial") for name in ways.WEIGHTS]
    assert found == ["rewind", "initial", "trained", "trained"]


def test_what_repels_a_round() -> None:
    assert [ways.repelling("all", range(k)) for k in range(3)] == [(), (0,), (0, 1)]
    assert [ways.repelling("previous", range(k)) for k in range(3)] == [(), (0,), (1,)]


def test_the_noise_of_a_round() -> None:
    assert [ways.noise_of("common", k) for k in (0, 3)] == [Noise(), Noise()]
    assert [ways.noise_of("round", k) for k in (0, 3)] == [Noise(), Noise(round=3)]
    assert ways.noise_of("round", 3, 1) == Noise(round=3, copy=1)
    assert ways.noise_of("common", 3, 2) == Noise(copy=2)


COSINE = Recipe(length=Step(4, "ep"), rewind=Step(0, "ep"), schedule="cosine")


@pytest.mark.parametrize(
    ("recipe", "given", "message"),
    [
        (RECIPE, ("rewnd",), "unknown weights of a pruning 'rewnd'; did you mean 'rewind'"),
        (RECIPE, ("finetune",), "needs a length .*, as finetune: 10ep; found none"),
        (RECIPE, ("finetune", Step(0, "ep")), "at least 1ep or 1it, as finetune: 10ep; found 0ep"),
        (
            RECIPE,
            ("trained", Step(1, "ep")),
            r"finetune \(1ep\) is how long .*, and these are weights: trained: take weights: fin",
        ),
        (COSINE, ("finetune", Step(1, "ep")), "next to 0 where the schedule is cosine"),
    ],
)
def test_what_cannot_be(recipe: Recipe, given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ElthError, match=message):
        ways.check(given[0], recipe, *given[1:])
    with pytest.raises(ElthError, match=message):
        ways.span(given[0], recipe, 95, *given[1:])


def test_words_that_there_are_not() -> None:
    with pytest.raises(ElthError, match="unknown weights of a pruning 'x'"):
        ways.start_state("x", 0, 0, 0)
    with pytest.raises(ElthError, match="unknown repel_from of a pruning 'first'"):
        ways.repelling("first", [])
    with pytest.raises(ElthError, match="unknown noise of a pruning 'fresh'"):
        ways.noise_of("fresh", 0)


def test_a_cosine_is_trained_on_by_learning_rate_rewinding() -> None:
    assert ways.span("trained", COSINE, 1280) == (0, 40)


def test_a_plan_asks_without_torch() -> None:
    code = "import sys, elth.ways; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
