"""Networks looked at on fixed images: the same numbers as where they were trained."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth import masks
from elth.analysis import Curve, Evaluator, NotMeasurableError, Score, abscissae, along, interpolate
from elth.data import Dataset, DatasetInfo, FolderDataset, MemoryDataset, fixed_images
from elth.data import load as load_dataset
from elth.data._stream import centre_crop
from elth.errors import ElthError
from elth.networks import build
from elth.recipes import Recipe, Step
from elth.specs import DataShape
from elth.streams import stream
from elth.training import Training
from tests.elth.helpers import dataset

SPEC = "resnet14(width=4)"
RECIPE = Recipe(length=Step(2, "ep"), rewind=Step(0, "ep"), batch_size=32, lr=0.05)

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def _trained(data: Dataset, seed: int, recipe: Recipe = RECIPE) -> tuple[State, float, float]:
    """A state at the end of a training, and its test accuracy and loss there."""
    state = build(SPEC, data.info.shape, 0).state_dict()
    generator = torch.Generator().manual_seed(1)
    mask = {
        name: torch.rand(one.shape, generator=generator) < 0.7
        for name, one in masks.ones(build(SPEC, data.info.shape, 0)).items()
    }
    made = build(SPEC, data.info.shape, 0)
    training = Training(made, data, recipe, seed=seed, state=state, mask=mask)
    last = training.run(lambda epoch: None)
    return training.state(), last.test_accuracy, last.test_loss


@pytest.fixture(scope="module")
def twins(digits: Dataset) -> list[tuple[State, float, float]]:
    """Two trainings of one ticket with their own order and augmentation."""
    return [_trained(digits, seed) for seed in (0, 1)]


def _loads(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is put into the network of an evaluator from now on."""
    loads: list[object] = []
    load = evaluator.network.load_state_dict

    def counted(state: State) -> object:
        loads.append(state)
        return load(state)

    monkeypatch.setattr(evaluator.network, "load_state_dict", counted)
    return loads


# One state.


def test_it_is_the_training_s_own_evaluation_bit_for_bit(
    digits: Dataset, twins: list[tuple[State, float, float]]
) -> None:
    evaluator = Evaluator(SPEC, digits, RECIPE)
    for state, accuracy, loss in twins:
        found = evaluator.scores(state)["test"]
        assert (found.images, found.accuracy, found.loss) == (500, accuracy, loss)
        assert evaluator(state)["test_error"] == found.error == pytest.approx(100 - accuracy)


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"batch_norm_group": 32}])
def test_so_it_is_in_the_recipe_s_precision_and_whatever_its_groups(
    change: dict[str, Any], digits: Dataset
) -> None:
    recipe = dataclasses.replace(RECIPE, **change)
    state, accuracy, loss = _trained(digits, 0, recipe)
    found = Evaluator(SPEC, digits, recipe, on=("test",)).scores(state)["test"]
    assert (found.accuracy, found.loss) == (accuracy, loss)


def test_training_images_are_shown_without_augmentation(
    digits: Dataset, twins: list[tuple[State, float, float]]
) -> None:
    state = twins[0][0]
    chosen = fixed_images(1297, 300)
    images, labels = digits.sample(chosen)
    network = build(SPEC, digits.info.shape, 0)
    network.load_state_dict(state)
    with torch.no_grad():
        logits = network.eval()(images)
    recipe = dataclasses.replace(RECIPE, augment="crop_flip")
    evaluator = Evaluator(SPEC, digits, recipe, on=("train",), images=300)
    found = evaluator.scores(state)["train"]
    assert found.images == 300
    assert found.correct == int((logits.argmax(1) == labels).sum())
    assert found.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    assert torch.equal(evaluator.labels("train"), labels)
    torch.testing.assert_close(evaluator.logits(state, "train"), logits, rtol=1e-4, atol=1e-4)
    assert evaluator.logits(state, "test").shape == (500, 10)
    whole = Evaluator(SPEC, digits, RECIPE, on=("train",)).scores(state)["train"]
    assert whole.images == 1297


def test_a_module_is_looked_at_and_left_as_it_is(digits: Dataset) -> None:
    made = build(SPEC, digits.info.shape, 5).train()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    state = build(SPEC, digits.info.shape, 6).state_dict()
    by_name = Evaluator(SPEC, digits, RECIPE, on=("test",))
    by_module = Evaluator(made, digits, RECIPE, on=("test",))
    assert by_name(state) == by_module(state)
    assert all(torch.equal(one, before[name]) for name, one in made.state_dict().items())
    assert made.training


def test_plain_numbers() -> None:
    score = Score(images=8, correct=5, loss=0.5)
    assert (score.accuracy, score.error) == (62.5, 37.5)
    assert json.loads(json.dumps(score.plain())) == {"images": 8, "error": 37.5, "loss": 0.5}


def test_a_state_of_another_network_is_refused(digits: Dataset) -> None:
    evaluator = Evaluator(SPEC, digits, RECIPE)
    other = build("resnet14(width=8)", digits.info.shape, 0).state_dict()
    message = "state is of another network: 'bn1.bias' should be of shape 4, found 8"
    with pytest.raises(ElthError, match=message):
        evaluator(other)
    state = build(SPEC, digits.info.shape, 0).state_dict()
    del state["fc.bias"]
    with pytest.raises(ElthError, match="'fc.bias' should be of shape 10, found nothing"):
        evaluator.logits(state, "test")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"on": "tset"}, "unknown part of a dataset 'tset'; did you mean 'test'"),
        ({"on": ("train", "tset")}, "unknown part of a dataset 'tset'; did you mean 'test'"),
        ({"batch_norm": "keep"}, "batch_norm 'keep' would judge every point"),
        ({"images": 0}, "at 1 training image at least, found images 0"),
        ({"batch_norm": "recompute", "batch_norm_images": 1}, "statistics .* 2 images at least"),
    ],
)
def test_choices_without_meaning_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ElthError, match=message):
        Evaluator(SPEC, dataset(), RECIPE, **given)


# Paths.


def test_a_path_between_twins_begins_and_ends_with_their_own_numbers(
    digits: Dataset, twins: list[tuple[State, float, float]]
) -> None:
    evaluator = Evaluator(SPEC, digits, RECIPE, images=200)
    first, second = (state for state, *_ in twins)
    curve = Curve(tuple(along(first, second, abscissae(5), evaluator)))
    assert curve.names == ("train_error", "train_loss", "test_error", "test_loss")
    losses = curve.values("test_loss")
    assert (losses[0], losses[-1]) == (twins[0][2], twins[1][2])
    assert curve.values("test_error")[0] == evaluator.scores(first)["test"].error
    assert curve.barriers()["test_loss"].top == max(losses)
    half = interpolate(first, second, 0.5)
    again = Evaluator(SPEC, digits, RECIPE, images=200)
    assert again(half) == curve.points[2].values


def test_equal_twins_have_no_barrier_anywhere(
    digits: Dataset, twins: list[tuple[State, float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = twins[0][0]
    twin = {name: tensor.clone() for name, tensor in state.items()}
    evaluator = Evaluator(SPEC, digits, RECIPE, images=100)
    loads = _loads(evaluator, monkeypatch)
    curve = Curve(tuple(along(state, twin, abscissae(20), evaluator)))
    for found in curve.barriers().values():
        assert (found.mean, found.worse, found.chord) == (0, 0, 0)
    assert len(loads) == 1  # and they are one network, which is looked at once


def test_an_end_that_paths_share_is_measured_once(
    digits: Dataset, twins: list[tuple[State, float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = [twins[0][0], twins[1][0], build(SPEC, digits.info.shape, 3).state_dict()]
    evaluator = Evaluator(SPEC, digits, RECIPE, images=50, on=("train",))
    loads = _loads(evaluator, monkeypatch)
    curves = [Curve(tuple(along(a, b, abscissae(3), evaluator))) for a, b in pairwise(chain)]
    assert curves[0].points[-1].values == curves[1].points[0].values
    assert len(loads) == 5


def test_what_lies_outside_may_be_no_network(digits: Dataset) -> None:
    """A variance that is extrapolated below zero gives no number, and never 90 % of error."""
    first, second = (build(SPEC, digits.info.shape, 0).state_dict() for _ in range(2))
    second["bn1.running_var"] = torch.full((4,), 4.0)
    at = (-0.5, 0.0, 1.0)
    evaluator = Evaluator(SPEC, digits, RECIPE, images=50, on=("train",))
    outside, *inside = along(first, second, at, evaluator)
    assert outside.values == {}
    assert outside.unmeasured == "the running variance 'bn1.running_var' is negative"
    assert all(point.values for point in inside)
    anew = Evaluator(SPEC, digits, RECIPE, images=50, on=("train",), batch_norm="recompute")
    assert all(point.values for point in along(first, second, at, anew))


def test_logits_that_are_not_finite_are_no_result(digits: Dataset) -> None:
    state = build(SPEC, digits.info.shape, 0).state_dict()
    state["fc.bias"][3] = float("nan")
    evaluator = Evaluator(SPEC, digits, RECIPE, on=("test",))
    with pytest.raises(NotMeasurableError, match="the logits of a test image are not finite"):
        evaluator(state)
    with pytest.raises(NotMeasurableError, match="the logits of a test image are not finite"):
        evaluator.logits(state, "test")


# Batch normalisation.


def test_recomputed_statistics_do_not_depend_on_those_of_the_state(
    digits: Dataset, twins: list[tuple[State, float, float]]
) -> None:
    state = twins[0][0]
    other = {
        name: tensor + 3 if "running" in name else tensor.clone() for name, tensor in state.items()
    }
    options: dict[str, Any] = {"images": 100, "batch_norm": "recompute"}
    anew = Evaluator(SPEC, digits, RECIPE, **options)
    assert anew(state) == anew(other)
    assert anew(state) == Evaluator(SPEC, digits, RECIPE, **options)(state)
    plain = Evaluator(SPEC, digits, RECIPE, images=100)
    assert plain(state) != plain(other)
    assert anew(state) != plain(state)
    fewer = Evaluator(SPEC, digits, RECIPE, batch_norm_images=400, **options)
    assert fewer(state) != anew(state)


def test_recomputed_statistics_are_those_of_the_fixed_images(digits: Dataset) -> None:
    """Of the first layer by hand: 800 images in two batches of 400."""
    state = build(SPEC, digits.info.shape, 0).state_dict()
    evaluator = Evaluator(
        SPEC, digits, RECIPE, on=("test",), batch_norm="recompute", batch_norm_images=800
    )
    evaluator(state)
    weight = state["conv1.weight"].double()
    means, variances = [], []
    order = torch.randperm(800, generator=stream(0, "recomputed order"))
    for part in fixed_images(1297, 800)[order].split(400):
        images, _ = digits.sample(part)
        values = F.conv2d(images.double(), weight, padding=1).transpose(0, 1).flatten(1)
        means.append(values.mean(1))
        variances.append(values.var(1, unbiased=True))
    found = evaluator.network.state_dict()
    assert int(found["bn1.num_batches_tracked"]) == 2
    for name, parts in (("mean", means), ("var", variances)):
        expected = torch.stack(parts).mean(0).float()
        torch.testing.assert_close(found[f"bn1.running_{name}"], expected, rtol=1e-4, atol=1e-5)


def test_recomputed_statistics_of_images_that_are_listed_class_by_class() -> None:
    """Two classes, -1 and 1: within a class nothing varies, over all the variance is 1."""
    labels = torch.arange(1024) // 512
    drawn = dataset(1024, 256, mean=127.5, deviation=127.5)
    images = (labels * 255).byte().view(-1, 1, 1, 1).expand_as(drawn.train_images).contiguous()
    data = dataclasses.replace(drawn, train_images=images, train_labels=labels)
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 3))
    evaluator = Evaluator(network, data, RECIPE, on=("test",), batch_norm="recompute")
    evaluator(network.state_dict())
    assert float(evaluator.network.get_buffer("0.running_var")) == pytest.approx(1, abs=0.02)


def test_recomputed_statistics_are_of_whole_batches_whatever_the_recipe_s_groups(
    digits: Dataset, twins: list[tuple[State, float, float]]
) -> None:
    grouped = dataclasses.replace(RECIPE, batch_norm_group=16)
    found = [
        Evaluator(SPEC, digits, recipe, images=100, batch_norm="recompute")(twins[0][0])
        for recipe in (RECIPE, grouped)
    ]
    assert found[0] == found[1]


def test_without_batch_normalisation_the_choice_makes_no_difference(digits: Dataset) -> None:
    state = build("lenet_300_100(width=8)", digits.info.shape, 0).state_dict()
    found = [
        Evaluator("lenet_300_100(width=8)", digits, RECIPE, batch_norm=choice)(state)
        for choice in ("interpolate", "recompute")
    ]
    assert found[0] == found[1]


def test_a_network_from_outside_has_statistics_of_any_kind() -> None:
    """Batch normalisation of vectors, too."""
    data = dataset(12, 6)
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3))
    state = network.state_dict()
    evaluator = Evaluator(network, data, RECIPE, batch_norm="recompute", batch_norm_images=6)
    evaluator(state)
    images, _ = data.sample(fixed_images(12, 6))
    torch.testing.assert_close(
        evaluator.network.get_buffer("1.running_mean"), images.flatten(1).mean(0)
    )


# Streamed images.


class _Raw:
    """Images of a folder, in memory."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.pixels = torch.randint(0, 256, (count, 20, 24, 3), generator=generator).byte()
        self.labels = torch.randint(0, 3, (count,), generator=generator)

    def decode(self, index: int) -> Tensor:
        return self.pixels[index].permute(2, 0, 1)

    def where(self, index: int) -> str:
        return f"number {index}"


@pytest.mark.parametrize("batch_norm", ["interpolate", "recompute"])
def test_a_streamed_dataset_is_the_dataset_in_memory(batch_norm: Any) -> None:
    train, test = _Raw(30, 0), _Raw(11, 1)
    info = DatasetInfo(
        name="raw",
        shape=DataShape(channels=3, size=16, classes=3),
        train_size=30,
        test_size=11,
        fingerprint="",
        mean=(120.0, 110.0, 100.0),
        deviation=(60.0, 61.0, 62.0),
        how_to_get="make it",
    )
    shown = [
        torch.stack([centre_crop(raw.decode(i), 16) for i in range(len(raw.labels))])
        for raw in (train, test)
    ]
    memory = MemoryDataset(
        info=info,
        train_images=shown[0],
        train_labels=train.labels,
        test_images=shown[1],
        test_labels=test.labels,
    )
    streamed = FolderDataset(info, train, test)
    first, second = (build(SPEC, info.shape, seed).state_dict() for seed in (0, 1))
    curves = [
        list(along(first, second, abscissae(3), Evaluator(SPEC, data, RECIPE, **given)))
        for data in (memory, streamed)
        for given in [{"images": 17, "batch_norm": batch_norm, "batch_norm_images": 13}]
    ]
    assert curves[0] == curves[1]
    assert len({point.values["train_loss"] for point in curves[0]}) == 3


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_training_s_own_evaluation(digits: Dataset) -> None:
    data = digits.to("cuda")
    state, accuracy, loss = _trained(data, 0)
    evaluator = Evaluator(SPEC, data, RECIPE, images=300, batch_norm="interpolate")
    found = evaluator.scores(state)["test"]
    assert (found.accuracy, found.loss) == (accuracy, loss)
    other = build(SPEC, data.info.shape, 3).state_dict()
    anew = Evaluator(SPEC, data, RECIPE, images=300, batch_norm="recompute")
    points = [list(along(state, other, abscissae(3), anew)) for _ in range(2)]
    assert points[0] == points[1]


def test_one_part_may_be_given_by_itself() -> None:
    assert Evaluator(SPEC, dataset(), RECIPE, on="test").on == ("test",)
