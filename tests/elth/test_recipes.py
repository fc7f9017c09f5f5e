"""Steps, ranges of a recipe's fields, schedules and identity."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from elth.errors import ElthError
from elth.recipes import RECIPES, Recipe, Step


def _recipe(**fields: Any) -> Recipe:
    return Recipe(**{"length": Step(10, "ep"), "rewind": Step(0, "ep"), **fields})


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("160ep", Step(160, "ep")),
        ("1000it", Step(1000, "it")),
        ("0ep", Step(0, "ep")),
        (" 5 ep ", Step(5, "ep")),
    ],
)
def test_steps_are_read(text: str, step: Step) -> None:
    assert Step.parse(text) == step
    assert Step.parse(str(step)) == step
    assert Step.parse(step) is step


@pytest.mark.parametrize(
    "text", ["", "160", "ep", "-1ep", "1.5ep", "160epochs", "1k it", 160, None]
)
def test_other_steps_are_refused(text: Any) -> None:
    with pytest.raises(ElthError, match=r"cannot read the step .*: write epochs as 160ep or"):
        Step.parse(text)


@pytest.mark.parametrize(("count", "unit"), [(1, "epochs"), (-1, "ep"), (1.0, "it"), (True, "ep")])
def test_a_step_is_made_of_a_whole_number_and_a_unit(count: Any, unit: str) -> None:
    with pytest.raises(ElthError, match=r"a step is a whole number of epochs \(ep\) or iterations"):
        Step(count, unit)


def test_the_longest_step_is_read_again() -> None:
    longest = Step(10**12 - 1, "it")
    assert Step.parse(str(longest)) == longest
    with pytest.raises(ElthError, match="a step is of at most 999,999,999,999it"):
        Step(10**12, "it")


def test_steps_in_iterations() -> None:
    assert Step.parse("2ep").iterations(391) == 782
    assert Step.parse("1000it").iterations(391) == 1000


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("length", Step(0, "ep"), "length of a recipe must be at least 1ep or 1it, is 0ep"),
        ("batch_size", 0, "batch_size of a recipe must be at least 1, is 0"),
        ("lr", 0, "lr of a recipe must be greater than 0, is 0"),
        ("lr", -0.1, "lr .* greater than 0, is -0.1"),
        ("lr", math.inf, "lr .* is inf"),
        ("lr", math.nan, "lr .* is nan"),
        ("momentum", 1, "momentum of a recipe must be at least 0 and below 1, is 1"),
        ("momentum", -0.1, "momentum .* is -0.1"),
        ("weight_decay", -1e-4, "weight_decay of a recipe must be at least 0, is -0.0001"),
        ("weight_decay", math.inf, "weight_decay .* is inf"),
        ("label_smoothing", 1, "label_smoothing of a recipe must be at least 0 and below 1, is 1"),
        ("decay", "biases", "decay of a recipe must be one of all, kernels, is biases"),
        ("nesterov", 1, "nesterov of a recipe must be true or false, .* is 1"),
        ("gamma", 0, "gamma of a recipe must be above 0 and at most 1, is 0"),
        ("gamma", 1.5, "gamma .* is 1.5"),
        ("optimiser", "rmsprop", "optimiser of a recipe must be one of sgd, adam, is rmsprop"),
        ("schedule", "linear", "schedule .* must be one of step, constant, cosine, is linear"),
        ("augment", "flip", "augment .* one of none, crop_flip, resized_crop_flip, is flip"),
        ("rewind", Step(10, "ep"), "rewind .* before its end: rewind is 10ep, length 10ep"),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ElthError, match=message):
        _recipe(**{field: value})


@pytest.mark.parametrize("fields", [{"optimiser": "adam"}, {"momentum": 0.0}])
def test_nesterov_is_of_the_momentum_of_sgd(fields: dict[str, Any]) -> None:
    _recipe(nesterov=True)
    with pytest.raises(ElthError, match="nesterov of a recipe must be .* only where optimiser is"):
        _recipe(nesterov=True, **fields)


def test_values_at_the_ends_of_the_ranges() -> None:
    _recipe(momentum=0, weight_decay=0, gamma=1, batch_size=1, lr=1e-30, rewind=Step(9, "ep"))
    _recipe(length=Step(1, "it"), rewind=Step(0, "it"))


def test_a_recipe_is_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _recipe().lr = 1.0  # type: ignore[misc]
    assert all(field.kw_only for field in dataclasses.fields(Recipe))


def test_step_schedule_drops_exactly_at_the_milestones() -> None:
    recipe = RECIPES["cifar10_resnet"]
    at = {step: recipe.lr_at(step, 391) for step in (0, 31_279, 31_280, 46_919, 46_920, 62_559)}
    assert at == pytest.approx(
        {0: 0.1, 31_279: 0.1, 31_280: 0.01, 46_919: 0.01, 46_920: 0.001, 62_559: 0.001}, rel=1e-12
    )


def test_milestones_in_any_order_and_unit() -> None:
    recipe = _recipe(milestones=(Step(4, "ep"), Step(6, "it")), gamma=0.5, lr=1)
    assert [recipe.lr_at(step, 3) for step in (5, 6, 11, 12)] == [1, 0.5, 0.5, 0.25]


def test_warmup_rises_from_zero() -> None:
    # ImageNet's: 5 epochs, linear from 0 to .4, and drops at 30, 60, 80.
    recipe = _recipe(
        length=Step(90, "ep"),
        lr=0.4,
        warmup=Step(5, "ep"),
        milestones=(Step(30, "ep"), Step(60, "ep"), Step(80, "ep")),
    )
    found = [recipe.lr_at(step, 10) for step in (0, 1, 25, 49, 50, 299, 300, 600, 800)]
    expected = [0, 0.008, 0.2, 0.392, 0.4, 0.4, 0.04, 0.004, 0.0004]
    assert found == pytest.approx(expected, rel=1e-12)


def test_cosine() -> None:
    recipe = _recipe(schedule="cosine", lr=0.01)
    found = [recipe.lr_at(step, 10) for step in (0, 25, 50, 75, 100)]
    half = 0.5**0.5
    expected = [0.01, 0.005 * (1 + half), 0.005, 0.005 * (1 - half), 0.0]
    assert found == pytest.approx(expected, abs=1e-15)


def test_constant_ignores_milestones() -> None:
    recipe = _recipe(schedule="constant", milestones=(Step(1, "ep"),))
    assert recipe.lr_at(99, 10) == 0.1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"milestones": (Step(9, "ep"), Step(29, "it"))},
        {"warmup": Step(9, "ep")},
        {"warmup": Step(29, "it"), "schedule": "cosine"},
        {"milestones": (Step(10, "ep"), Step(99, "ep")), "schedule": "constant"},
        {"milestones": (Step(10, "ep"),), "schedule": "cosine"},
    ],
    ids=str,
)
def test_a_schedule_of_which_every_part_is_reached(fields: dict[str, Any]) -> None:
    _recipe(**fields).check(3)  # ends at iteration 30


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"milestones": (Step(4, "ep"), Step(10, "ep"))},
            "the learning rate is to drop at 10ep, and the training ends at 10ep: give milestones "
            "that lie before, or none",
        ),
        (
            {"milestones": (Step(30, "it"),)},
            "the learning rate is to drop at 30it, and the training ends at 10ep: give milestones "
            "that lie before, or none",
        ),
        (
            {"milestones": (Step(12, "ep"), Step(11, "ep"), Step(1, "ep"))},  # the first such
            "the learning rate is to drop at 12ep, and the training ends at 10ep: give milestones "
            "that lie before, or none",
        ),
        (
            {"length": Step(20, "it"), "milestones": (Step(7, "ep"),)},
            "the learning rate is to drop at 7ep, and the training ends at 20it: give milestones "
            "that lie before, or none",
        ),
        *(
            (
                {"warmup": warmup, "schedule": schedule},
                f"the warm-up ends at {warmup}, and the training at 10ep: shorten the warm-up",
            )
            for warmup in (Step(10, "ep"), Step(30, "it"), Step(11, "ep"))
            for schedule in ("step", "constant", "cosine")
        ),
    ],
    ids=str,
)
def test_a_schedule_of_which_a_part_is_never_reached_is_refused(
    fields: dict[str, Any], message: str
) -> None:
    recipe = _recipe(**fields)  # what an epoch is, is known with the dataset only
    with pytest.raises(ElthError) as caught:
        recipe.check(3)
    assert str(caught.value) == message


def test_whether_a_part_is_reached_depends_on_the_length_of_an_epoch() -> None:
    recipe = _recipe(milestones=(Step(30, "it"),))
    recipe.check(4)  # ends at iteration 40
    with pytest.raises(ElthError, match="to drop at 30it"):
        recipe.check(3)


@pytest.mark.parametrize(
    ("name", "images"),
    [(n, 1_281_167 if "50" in n or "imagenet" in n else 50_000) for n in RECIPES],
)
def test_every_part_of_the_recipes_of_the_papers_is_reached(name: str, images: int) -> None:
    RECIPES[name].check(math.ceil(images / RECIPES[name].batch_size))


def test_plain_names_what_differs_from_the_defaults() -> None:
    assert _recipe().plain() == {"length": "10ep", "rewind": "0ep"}
    assert RECIPES["cifar10_resnet"].plain() == {
        "length": "160ep",
        "rewind": "1000it",
        "milestones": ["80ep", "120ep"],
        "augment": "crop_flip",
    }
    assert RECIPES["mnist_mlp"].plain() == {
        "length": "40ep",
        "rewind": "0ep",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "schedule": "constant",
    }
    every: dict[str, Any] = {
        "length": Step(9, "it"),
        "rewind": Step(1, "it"),
        "batch_size": 2,
        "optimiser": "adam",
        "lr": 0.5,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "schedule": "cosine",
        "milestones": (Step(1, "ep"),),
        "gamma": 0.5,
        "warmup": Step(1, "ep"),
        "augment": "crop_flip",
        "precision": "bf16",
        "batch_norm_group": 2,
        "label_smoothing": 0.1,
        "decay": "kernels",
    }
    sgd = {"optimiser": "sgd", "momentum": 0.5, "nesterov": True}
    assert Recipe(**every | sgd).plain()["nesterov"] is True
    names = [field.name for field in dataclasses.fields(Recipe) if field.name != "nesterov"]
    assert list(Recipe(**every).plain()) == names


def test_defaults_never_change() -> None:
    """They are part of the meaning of stored keys, which leave them out."""
    recipe = _recipe()
    assert {
        field.name: getattr(recipe, field.name) for field in dataclasses.fields(Recipe)[2:]
    } == {
        "batch_size": 128,
        "optimiser": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "step",
        "milestones": (),
        "gamma": 0.1,
        "warmup": Step(0, "ep"),
        "augment": "none",
        "precision": "float32",
        "batch_norm_group": 0,
        "nesterov": False,
        "label_smoothing": 0.0,
        "decay": "all",
    }


def test_equal_recipes_have_one_identity() -> None:
    whole, decimal = _recipe(lr=1, momentum=0), _recipe(lr=1.0, momentum=0.0)
    assert whole == decimal
    assert repr(whole.plain()) == repr(decimal.plain())


def test_the_recipes_of_the_papers() -> None:
    cifar = RECIPES["cifar10_resnet"]
    assert (cifar.batch_size, cifar.optimiser, cifar.lr, cifar.momentum) == (128, "sgd", 0.1, 0.9)
    assert cifar.length.iterations(391) == 62_560
    mnist = RECIPES["mnist_mlp"]
    assert (mnist.batch_size, mnist.lr, mnist.momentum, mnist.weight_decay) == (128, 0.1, 0, 0)
    assert (str(mnist.length), str(mnist.rewind), mnist.schedule) == ("40ep", "0ep", "constant")
    assert {name: recipe.augment for name, recipe in RECIPES.items()} == {
        "cifar10_resnet": "crop_flip",
        "cifar10_vgg": "crop_flip",
        "imagenet_resnet": "resized_crop_flip",
        "mnist_mlp": "none",
        "maene_lenet": "none",
        "maene_resnet20": "crop_flip",
        "maene_conv4": "crop_flip",
        "maene_resnet50": "resized_crop_flip",
        "rigl_imagenet": "resized_crop_flip",
        "cifar10_dpf": "crop_flip",
        "digits_resnet": "none",
    }


@pytest.mark.parametrize(
    ("name", "per_epoch", "rewind", "lrs"),
    [
        # By epoch and iteration in it: first and last of every level of the learning rate.
        ("cifar10_vgg", 391, 200, {(0, 0): 0.1, (79, 390): 0.1, (80, 0): 0.01, (120, 0): 0.001}),
        (
            "imagenet_resnet",
            1252,
            6260,
            {
                (0, 0): 0,
                (0, 1): 0.4 / 6260,
                (4, 1251): 0.4 * 6259 / 6260,
                (5, 0): 0.4,
                (29, 1251): 0.4,
                (30, 0): 0.04,
                (60, 0): 0.004,
                (80, 0): 0.0004,
            },
        ),
        ("maene_lenet", 1000, 0, {(0, 0): 0.0012, (24, 999): 0.0012}),
        ("maene_resnet20", 391, 0, {(0, 0): 0.1, (55, 390): 0.1, (56, 0): 0.01, (71, 0): 0.001}),
        ("maene_conv4", 391, 0, {(0, 0): 0.01, (25, 0): 0.0075, (50, 0): 0.0025}),
        (
            "rigl_imagenet",
            313,
            0,
            {(0, 0): 0, (5, 0): 1.6, (30, 0): 0.16, (70, 0): 0.016, (90, 0): 0.0016},
        ),
        ("cifar10_dpf", 391, 0, {(0, 0): 0.2, (149, 390): 0.2, (150, 0): 0.02, (225, 0): 0.002}),
        ("maene_resnet50", 1252, 0, {(0, 0): 0.4, (30, 0): 0.04, (60, 0): 0.004, (80, 0): 0.0004}),
    ],
)
def test_schedules_of_the_papers(
    name: str, per_epoch: int, rewind: int, lrs: dict[tuple[int, int], float]
) -> None:
    recipe = RECIPES[name]
    found = {(e, i): recipe.lr_at(e * per_epoch + i, per_epoch) for e, i in lrs}
    assert found == pytest.approx(lrs, rel=1e-12)
    assert recipe.rewind.iterations(per_epoch) == rewind


def test_lengths_batches_and_optimisers_of_the_papers() -> None:
    found = {
        name: (str(r.length), r.batch_size, r.optimiser, r.momentum, r.weight_decay)
        for name, r in RECIPES.items()
        if not name.startswith("digits")
    }
    assert found == {
        "cifar10_resnet": ("160ep", 128, "sgd", 0.9, 1e-4),
        "cifar10_vgg": ("160ep", 128, "sgd", 0.9, 1e-4),
        "imagenet_resnet": ("90ep", 1024, "sgd", 0.9, 1e-4),
        "mnist_mlp": ("40ep", 128, "sgd", 0.0, 0.0),
        "maene_lenet": ("25ep", 60, "adam", 0.9, 0.0),
        "maene_resnet20": ("85ep", 128, "sgd", 0.9, 1e-5),
        "maene_conv4": ("75ep", 128, "sgd", 0.9, 1e-5),
        "maene_resnet50": ("90ep", 1024, "sgd", 0.9, 1e-5),
        "rigl_imagenet": ("32000it", 4096, "sgd", 0.9, 1e-4),
        "cifar10_dpf": ("300ep", 128, "sgd", 0.9, 1e-4),
    }


def test_steps_may_be_written_as_text() -> None:
    written: Any = {"length": "20ep", "rewind": "1ep", "warmup": "5it", "milestones": ["10ep"]}
    made = Recipe(
        length=Step(20, "ep"),
        rewind=Step(1, "ep"),
        warmup=Step(5, "it"),
        milestones=(Step(10, "ep"),),
    )
    assert Recipe(**written) == made
    with pytest.raises(ElthError, match="cannot read the step '20': write epochs as 160ep or"):
        Recipe(**{**written, "length": "20"})


# Stretched.


def test_a_stretched_recipe_by_hand() -> None:
    recipe = _recipe(
        length=Step(10, "ep"),
        rewind=Step(3, "it"),
        milestones=(Step(4, "ep"), Step(700, "it")),
        warmup=Step(2, "ep"),
        lr=0.2,
    )
    assert recipe.stretched(5) == dataclasses.replace(
        recipe,
        length=Step(50, "ep"),
        milestones=(Step(20, "ep"), Step(3500, "it")),
        warmup=Step(10, "ep"),
    )
    assert recipe.stretched("0.5").length == recipe.stretched(0.5).length == Step(5, "ep")
    assert recipe.stretched(1) == recipe
    hundred = _recipe(length=Step(100, "ep"))
    assert hundred.stretched(1.1).length == Step(110, "ep")  # as floats 110.00000000000001


@pytest.mark.parametrize("name", RECIPES)
def test_a_stretched_schedule_is_the_same_drawn_out(name: str) -> None:
    recipe = RECIPES[name]
    twice = recipe.stretched(2)
    assert twice.rewind == recipe.rewind
    for step in range(0, recipe.length.iterations(7), 3):
        assert twice.lr_at(2 * step, 7) == pytest.approx(recipe.lr_at(step, 7), abs=1e-12)
    assert twice.stretched(0.5) == recipe


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (0, "stretch of a recipe must be a number greater than 0, as 5 or 0.5; is 0"),
        (-2, "greater than 0, as 5 or 0.5; is -2"),
        ("x", "greater than 0, as 5 or 0.5; is x"),
        (True, "greater than 0, as 5 or 0.5; is True"),
        (math.inf, "greater than 0, as 5 or 0.5; is inf"),
        (math.nan, "greater than 0, as 5 or 0.5; is nan"),
        (0.25, "length of the recipe is 10ep, and 0.25 times that is no whole number of ep"),
        (0.5, "a milestone of the recipe is 5ep, and 0.5 times that is no whole number of ep"),
        (0.2, "rewind of a recipe must come before its end: rewind is 3ep, length 2ep"),
    ],
)
def test_what_cannot_be_stretched(factor: Any, message: str) -> None:
    recipe = _recipe(rewind=Step(3, "ep"), milestones=(Step(5, "ep"),))
    with pytest.raises(ElthError, match=message):
        recipe.stretched(factor)
