"""Networks compared by what they say."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from elth.analysis import Evaluator, Subject, function_distance, measure, projection_damage
from elth.data import load as load_dataset
from elth.errors import ElthError
from elth.masks import ones
from elth.networks import build
from elth.recipes import RECIPES
from elth.specs import Spec


def _tops(*classes: int) -> Tensor:
    """Logits in float64 whose top classes are these of four."""
    return F.one_hot(torch.tensor(classes), 4).double()


def test_disagreement_by_hand() -> None:
    labels = torch.tensor([0, 1, 2, 1])
    found = function_distance(_tops(0, 1, 2, 3), _tops(0, 1, 1, 1), labels)
    assert (found.images, found.disagreement) == (4, 0.5)
    # Each errs on a quarter: both right 9/16, both wrong and alike 1/16 * 1/3.
    assert found.expected == pytest.approx(1 - 9 / 16 - 1 / 48)
    assert found.relative == pytest.approx(0.5 / (1 - 9 / 16 - 1 / 48))


def test_independent_networks_are_as_far_apart_as_is_expected() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (20_000,), generator=generator)

    def erring(error: float) -> Tensor:
        wrong = torch.rand(len(labels), generator=generator) < error
        shift = torch.randint(1, 4, (len(labels),), generator=generator)
        return _tops(*((labels + wrong * shift) % 4).tolist())

    found = function_distance(erring(0.3), erring(0.6), labels)
    assert found.relative == pytest.approx(1, abs=0.02)


def test_kl_by_hand() -> None:
    """P = (1/2, 1/2) and Q = (3/4, 1/4), whatever is added to all logits of an image."""
    p = torch.zeros(2, 2, dtype=torch.float64) + 5
    q = torch.tensor([[3.0, 1.0]] * 2, dtype=torch.float64).log() - 7
    found = function_distance(p, q, torch.tensor([0, 1]))
    assert found.kl == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2), abs=1e-12)
    assert found.kl_back == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-12)
    back = function_distance(q, p, torch.tensor([0, 1]))
    assert (back.kl, back.kl_back) == (found.kl_back, found.kl)


def test_equal_functions_are_not_apart() -> None:
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    found = function_distance(logits, logits.clone(), torch.zeros(9, dtype=torch.int64))
    assert (found.disagreement, found.relative, found.kl, found.kl_back) == (0, 0, 0, 0)


def test_networks_without_error_cannot_be_related() -> None:
    found = function_distance(_tops(2, 3), _tops(2, 3), torch.tensor([2, 3]))
    assert (found.disagreement, found.expected) == (0, 0)
    assert math.isnan(found.relative)
    plain = json.loads(json.dumps(found.plain(), allow_nan=False))
    assert plain == {
        "images": 2,
        "disagreement": 0,
        "expected": 0,
        "relative": None,
        "kl": 0,
        "kl_back": 0,
    }


@pytest.mark.parametrize(
    ("second", "labels"), [(_tops(0, 1, 2), 2), (_tops(0, 1)[:, :3], 2), (_tops(0, 1), 3)]
)
def test_other_images_or_classes_are_refused(second: Tensor, labels: int) -> None:
    with pytest.raises(ElthError, match=r"compared by logits of the same images .*\(2, 4\) and"):
        function_distance(_tops(0, 1), second, torch.zeros(labels))


# Projection.


def test_damage_by_hand() -> None:
    def measured(state: Mapping[str, Tensor]) -> dict[str, float]:
        return {"test_error": 10 - float(state["w"].sum()), "test_loss": 1.0}

    state = {"w": torch.tensor([1.0, 2, 3]), "bias": torch.tensor([7.0])}
    mask = {"w": torch.tensor([True, False, True])}
    found = projection_damage(state, mask, measured)
    assert found.before == {"test_error": 4, "test_loss": 1}
    assert found.after == {"test_error": 6, "test_loss": 1}
    assert found.damage == {"test_error": 2, "test_loss": 0}
    assert json.loads(json.dumps(found.plain())) == {
        "before": {"test_error": 4, "test_loss": 1},
        "after": {"test_error": 6, "test_loss": 1},
        "damage": {"test_error": 2, "test_loss": 0},
    }
    assert state["w"].tolist() == [1, 2, 3]


def test_pruning_nothing_does_no_damage_and_all_leaves_chance() -> None:
    data = load_dataset("digits")
    network = build("lenet_300_100(width=16)", data.info.shape, 0)
    evaluator = Evaluator(network, data, RECIPES["digits_resnet"], on=("test",))
    state, mask = network.state_dict(), ones(network)
    assert projection_damage(state, mask, evaluator).damage == {"test_error": 0, "test_loss": 0}
    nothing = {name: torch.zeros_like(one) for name, one in mask.items()}
    state = {name: one * 0 if "bias" in name else one for name, one in state.items()}
    found = projection_damage(state, nothing, evaluator)
    assert found.after["test_loss"] == pytest.approx(math.log(10), abs=1e-6)
    assert found.damage["test_loss"] == found.after["test_loss"] - found.before["test_loss"]
    with pytest.raises(ElthError, match="the mask names 'other', which the weights lack"):
        projection_damage(state, {"other": mask["head.weight"]}, evaluator)


def test_networks_of_unlike_precisions_are_looked_at_in_float32() -> None:
    """So that it does not matter which of them is named first."""
    data = load_dataset("digits")
    recipe = RECIPES["digits_resnet"]
    first, second = (
        Subject(
            network=Spec.parse("mlp2(width=8)"),
            shape=data.info.shape,
            mask=ones(made := build("mlp2(width=8)", data.info.shape, seed)),
            trained=made.state_dict(),
            recipe=replace(recipe, precision=precision),
        )
        for seed, precision in ((0, "bf16"), (1, "float32"))
    )

    def found(*subjects: Subject) -> Any:
        steps = measure("functions", subjects, {"data": "test"}, data=data)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    plain = replace(first, recipe=recipe)
    assert found(first, second) == found(plain, second)
    assert found(second, first) == found(second, plain)


def test_what_needs_the_weights_that_a_training_began_with_asks_for_them() -> None:
    data = load_dataset("digits")
    made = build("mlp2(width=8)", data.info.shape, 0)
    one = Subject(
        network=Spec.parse("mlp2(width=8)"),
        shape=data.info.shape,
        mask=ones(made),
        trained=made.state_dict(),
        recipe=RECIPES["digits_resnet"],
    )
    with pytest.raises(ElthError, match="measure travel needs the weights that trainings began"):
        measure("travel", [one], {})
    measure("distances", [replace(one, start=one.trained), one], {})
