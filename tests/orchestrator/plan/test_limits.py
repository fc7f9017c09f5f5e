"""What is too much or too long is refused before anything is built or begun."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import pytest
from mlflow.utils import validation

from elth.counts import kept_after
from elth.errors import ElthError
from orchestrator import plan
from orchestrator.plan import costs, limits
from orchestrator.plan.limits import check_count, check_names
from orchestrator.plan.stage import Stage
from tests.orchestrator.helpers import TINY, TINY_DEEPER, chain, tiny


def test_the_limits_are_those_of_mlflow() -> None:
    assert limits.PARAM_LENGTH == validation.MAX_PARAM_VAL_LENGTH
    assert limits.TAG_LENGTH == validation.MAX_TAG_VAL_LENGTH
    assert limits.NAME_LENGTH == validation.MAX_ENTITY_KEY_LENGTH


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"pruning": {"rounds": 99_999_999}},
            "100,000,001 stages (1 times 1 chains of up to 99,999,999 rounds and 0 trainings",
        ),
        (
            {"seeds": list(range(40_000))},
            "160,000 stages (40,000 times 1 chains of up to 2 rounds and 0 trainings besides)",
        ),
        (
            {"seeds": list(range(800)), "grid": [{"method": "snip", "network": TINY}] * 200},
            "161,600 stages (800 times 1 chains of up to 0 rounds and 200 trainings besides)",
        ),
    ],
)
def test_absurd_counts_are_refused_before_memory_is_taken(
    changes: dict[str, Any], told: str
) -> None:
    found = tiny("absurd", **changes)
    tracemalloc.start()
    with pytest.raises(ElthError) as caught:
        plan.build(found)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(caught.value).startswith(f"absurd would come to about {told}")
    assert str(caught.value).endswith("in one store they share what they have in common")
    assert most < 2**20


@pytest.mark.parametrize(
    "grid",
    [
        [{"method": "imp", "network": TINY}],
        [{"method": "dense", "network": TINY}],
        [{"method": ["imp", "snip", "reinit"], "network": [TINY, TINY_DEEPER], "round": "all"}],
        [{"method": "snip", "network": TINY, "sparsity": [0.3, 0.6]}],
        [{"method": "imp", "network": TINY, "round": [1], "sparsity": 0.6}],
        [{"method": "ett", "source": TINY, "network": TINY_DEEPER, "round": [1, 2]}],
    ],
)
def test_the_count_is_never_below_what_is_built(
    grid: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tiny("counted", grid=grid, seeds=[0, 1])
    stages = len(plan.build(found).stages)
    monkeypatch.setattr(limits, "MOST_STAGES", stages - 1)
    with pytest.raises(ElthError, match="counted would come to about"):
        check_count(found)


def test_a_sparsity_that_needs_endless_rounds_is_refused() -> None:
    grid = [{"method": "imp", "network": TINY, "sparsity": 0.9}]
    with pytest.raises(
        ElthError, match="a sparsity of 0.9 on .* needs a smaller round after round"
    ):
        plan.build(tiny("endless", grid=grid, pruning={"rate": 1e-9, "rounds": 3}))


def test_counts_of_rounds() -> None:
    for rate, rounds in itertools.product((0.2, 0.5, 0.999), (0, 1, 2, 7, 60, 3)):
        assert costs.kept_after(rate, rounds, 10_944) == kept_after(rate, rounds, 10_944)
    assert kept_after(0.5, 10**12, 1000) == costs.kept_after(0.5, 10**12, 1000) == 0


def _with(**labels: str) -> Stage:
    stage = chain()[0]
    return Stage(kind=stage.kind, params=stage.params, labels={**stage.labels, **labels})


@pytest.mark.parametrize(
    ("name", "description", "stages", "message"),
    [
        (
            "x" * 246,
            "",
            [],
            "the name of the experiment takes 251 letters, and MLflow keeps 250: gi",
        ),
        (
            "x",
            "y" * 8001,
            [],
            "its description takes 8,001 letters, and MLflow keeps 8,000: shorten",
        ),
        ("x", "", [_with(network="n" * 300)], "the title of nnn"),
        ("x", "", [_with(dataset="d" * 7000)], "the dataset of resnet14(width=4) rewind point, se"),
        ("x", "", [_with(dataset="d" * 8000)], "the description of resnet14(width=4) rewind point"),
    ],
)
def test_names_that_are_too_long_are_refused(
    name: str, description: str, stages: list[Stage], message: str
) -> None:
    with pytest.raises(ElthError) as caught:
        check_names(name, description, stages)
    assert str(caught.value).startswith(message)
    check_names("x" * 245, "y" * 8000, [_with(network="n" * 200), _with(dataset="d" * 5900)])


def test_rounds_that_no_chain_has_are_refused() -> None:
    grid = [{"method": "snip", "network": TINY}]
    with pytest.raises(ElthError, match="pruning.rounds is 99,999,999, and at most 100,000 are"):
        plan.build(tiny("absurd", grid=grid, pruning={"rounds": 99_999_999}))


def test_a_plan_is_looked_at() -> None:
    with pytest.raises(ElthError, match="the name of the experiment takes 305 letters, and MLflow"):
        plan.build(tiny("x" * 300))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": [{"method": "imp", "network": "mlp"}], "dataset": "digits(size=5000)"}, "4,096"),
        ({"recipe": {"length": "9" * 13 + "ep", "rewind": "0ep"}}, "cannot read the step '9999"),
    ],
)
def test_absurd_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny("absurd", **changes)


def test_a_network_that_is_larger_than_any_memory_is_refused() -> None:
    grid = [{"method": "imp", "network": "resnet14(width=10000000000)"}]
    with pytest.raises(ElthError, match=r"resnet14\(width=10000000000\) for .* cannot be built: "):
        plan.build(tiny("absurd", grid=grid))
