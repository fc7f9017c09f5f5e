"""Training against a slow loop in plain PyTorch, and the draws that feed it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth import masks
from elth.data import Dataset, MemoryDataset, Part
from elth.data._dataset import Batches
from elth.elastic import move
from elth.engine import Engine
from elth.errors import ElthError
from elth.networks import DataShape, build
from elth.recipes import RECIPES, Recipe, Step
from elth.streams import COMMON, Noise, stream
from elth.tickets import state_digest
from elth.training import (
    Epoch,
    NonFiniteLossError,
    Training,
    iterations_per_epoch,
    rewind_step,
    train_ticket,
)
from tests.elth.helpers import IMAGE, dataset, ticket

State = dict[str, Tensor]
EIGHT = DataShape(channels=2, size=8, classes=3)


def _recipe(length: str = "3ep", rewind: str = "0ep", **fields: Any) -> Recipe:
    return Recipe(
        length=Step.parse(length), rewind=Step.parse(rewind), **{"batch_size": 4, **fields}
    )


# What a network is shown.


class _Recorder(nn.Module):
    """A classifier of one parameter that keeps the training batches that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(3))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.detach().clone())
        return self.logits.expand(len(x), 3)


def _seen(
    data: Dataset, recipe: Recipe, *, seed: int = 0, start: int = 0, stop: int | None = None
) -> list[Tensor]:
    network = _Recorder()
    run = Training(
        network, data, recipe, seed=seed, state=network.state_dict(), start=start, stop=stop
    )
    list(run)
    return network.seen


def _numbered(count: int, size: int = 4) -> MemoryDataset:
    """Image i is i + 1 in its left half and i + 101 in its right half."""
    image = torch.tensor([1] * (size // 2) + [101] * (size // 2)).repeat(size, 1)
    images = image + torch.arange(count)[:, None, None, None]
    shape = DataShape(channels=1, size=size, classes=3)
    return dataclasses.replace(dataset(count, shape=shape), train_images=images.to(torch.uint8))


def _numbers(batches: list[Tensor]) -> list[list[int]]:
    """The images in the batches of a dataset of ``_numbered``, cropped and flipped or not."""
    middle = batches[0].shape[-1] // 2
    return [((batch[:, 0, middle, middle] - 1) % 100).int().tolist() for batch in batches]


def _order(seed: int, epoch: int, count: int) -> list[int]:
    return torch.randperm(count, generator=stream(seed, "order", epoch)).tolist()


def test_an_epoch_shows_every_image_once_in_the_order_of_its_stream() -> None:
    found = _numbers(_seen(_numbered(10), _recipe(), seed=5))
    assert [len(batch) for batch in found] == [4, 4, 2] * 3
    epochs = [[*a, *b, *c] for a, b, c in (found[0:3], found[3:6], found[6:9])]
    assert epochs == [_order(5, e, 10) for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert _numbers(_seen(_numbered(10), _recipe(), seed=6)) != found


def test_a_dataset_smaller_than_a_batch() -> None:
    assert [len(batch) for batch in _seen(_numbered(3), _recipe("2ep"))] == [3, 3]


@pytest.mark.parametrize("cut", range(10))
def test_the_order_goes_on_from_any_iteration(cut: int) -> None:
    data, recipe = _numbered(10), _recipe()
    before = _seen(data, recipe, stop=cut)
    after = _seen(data, recipe, start=cut)
    whole = _seen(data, recipe)
    assert len(before) == cut
    assert len(whole) == 9
    assert all(torch.equal(a, b) for a, b in zip(before + after, whole, strict=True))


def test_pixels_are_normalised_by_channel() -> None:
    data = dataset(shape=EIGHT)
    data = dataclasses.replace(
        data, info=dataclasses.replace(data.info, mean=(128.0, 50.0), deviation=(64.0, 0.5))
    )
    found = torch.cat(_seen(data, _recipe("1ep")))
    raw = data.train_images[_order(0, 0, 10)].double()
    assert torch.equal(found[:, 0].double(), (raw[:, 0] - 128) / 64)
    assert torch.equal(found[:, 1].double(), (raw[:, 1] - 50) / 0.5)
    assert found.dtype is torch.float32


def _slow_crop_flip(image: Tensor, pad: int, row: int, column: int, flip: bool) -> Tensor:
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for c, i, j in itertools.product(range(channels), range(height), range(width)):
        y, x = i + row - pad, (width - 1 - j if flip else j) + column - pad
        if 0 <= y < height and 0 <= x < width:
            result[c, i, j] = image[c, y, x]
    return result


def _slow_augment(images: Tensor, seed: int, epoch: int) -> Tensor:
    """Every image in its epoch: its own draw of the streams "crop" and "flip", by its index."""
    pad = images.shape[-1] // 8
    shape = (len(images), 2)
    offsets = torch.randint(0, 2 * pad + 1, shape, generator=stream(seed, "crop", epoch)).tolist()
    flips = torch.randint(0, 2, shape[:1], generator=stream(seed, "flip", epoch)).tolist()
    return torch.stack(
        [
            _slow_crop_flip(image, pad, row, column, bool(flip))
            for image, (row, column), flip in zip(images, offsets, flips, strict=True)
        ]
    )


@pytest.mark.parametrize(("channels", "size"), [(2, 8), (1, 28), (3, 32)])
def test_crop_and_flip_against_single_images(channels: int, size: int) -> None:
    shape = DataShape(channels=channels, size=size, classes=3)
    data = dataset(7, shape=shape, mean=128, deviation=64)
    found = torch.cat(_seen(data, _recipe("2ep", augment="crop_flip"), seed=1))
    expected = torch.cat(
        [_slow_augment(data.train_images, 1, e)[_order(1, e, 7)] for e in range(2)]
    )
    # Padding is zero on raw pixels, and so -2 after normalisation.
    assert torch.equal(found, (expected.float() - 128) / 64)


def test_crops_and_flips_are_uniform() -> None:
    # Pixels count up, so that one pixel tells the crop, and its neighbour the flip.
    image = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 8, 8)
    data = dataset(1800, shape=DataShape(channels=1, size=8, classes=3))
    data = dataclasses.replace(data, train_images=image.repeat(1800, 1, 1, 1))
    (shown,) = _seen(data, _recipe("1ep", augment="crop_flip", batch_size=1800))
    here, right = shown[:, 0, 3, 3].int() - 1, shown[:, 0, 3, 4].int() - 1
    flip = (right < here).int()
    row, column = here // 8 - 2, here % 8 - 2 - flip
    assert set(row.tolist()) == set(column.tolist()) == {0, 1, 2}
    counts = torch.bincount(row * 6 + column * 2 + flip, minlength=18)
    # 100 expected for each of the 18 cases, with a deviation of 9.7.
    assert all(60 < count < 140 for count in counts.tolist())
    assert 820 < int(flip.sum()) < 980


def _by_image(batches: list[Tensor]) -> dict[int, list[list[float]]]:
    numbers = itertools.chain(*_numbers(batches))
    return dict(zip(numbers, torch.cat(batches)[:, 0].tolist(), strict=True))


def test_the_draw_of_an_image_depends_on_seed_epoch_and_index_alone() -> None:
    data = _numbered(30, size=8)
    fours, sevens = (_recipe("2ep", augment="crop_flip", batch_size=size) for size in (4, 7))
    whole = _by_image(_seen(data, fours, start=8))
    assert whole == _by_image(_seen(data, sevens, start=5))
    rest = _by_image(_seen(data, fours, start=13))
    assert len(rest) == 10
    assert all(whole[number] == image for number, image in rest.items())
    assert whole != _by_image(_seen(data, fours, stop=8))
    assert whole != _by_image(_seen(data, fours, start=8, seed=1))


# What training does to the weights.


class _Double(nn.Module):
    """A network in double precision."""

    def __init__(self, name: str, shape: DataShape) -> None:
        super().__init__()
        self.net = build(name, shape, generator=stream(0, "init")).double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.double())
        return logits


class _Late(nn.Module):
    """A classifier with a layer that has no part in the first two iterations."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.late = nn.Linear(128, 3), nn.Linear(128, 3)
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += self.training
        logits: Tensor = self.used(x.flatten(1))
        return logits + self.late(x.flatten(1)) if self.seen > 2 else logits


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_layer_whose_first_gradient_comes_late(momentum: float) -> None:
    data = dataset(16, shape=EIGHT, mean=128, deviation=64)
    recipe = _recipe("2ep", momentum=momentum, weight_decay=0.0, lr=0.01)
    state = {name: value.clone() for name, value in _Late().state_dict().items()}
    fast, slow = _Late(), _Late()
    list(Training(fast, data, recipe, seed=1, state=state))
    slow.load_state_dict(state)
    slow.train()
    optimiser = torch.optim.SGD(slow.parameters(), lr=0.01, momentum=momentum, fused=False)
    for epoch, step in itertools.product(range(2), range(4)):
        chosen = _order(1, epoch, 16)[4 * step :][:4]
        images = (data.train_images[chosen].float() - 128) / 64
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(slow(images), data.train_labels[chosen]).backward()
        optimiser.step()
    for name, weight in slow.named_parameters():
        assert not torch.equal(weight, state[name])
        torch.testing.assert_close(fast.get_parameter(name), weight)


def _slow_training(
    network: nn.Module,
    data: MemoryDataset,
    recipe: Recipe,
    *,
    seed: int,
    state: Mapping[str, Tensor],
    mask: Mapping[str, Tensor],
    start: int,
    stop: int,
) -> list[float]:
    """Train by hand; the result is in the network. Gives the loss of every iteration."""
    network.load_state_dict(dict(state))
    parameters = dict(network.named_parameters())
    size = len(data.train_labels)
    per_epoch = math.ceil(size / recipe.batch_size)
    memory = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in parameters.items()}
    losses = []
    with torch.no_grad():
        for name, m in mask.items():
            parameters[name][~m] = 0
    for count, step in enumerate(range(start, stop), 1):
        epoch, batch = divmod(step, per_epoch)
        images = data.train_images
        if recipe.augment == "crop_flip":
            images = _slow_augment(images, seed, epoch)
        chosen = _order(seed, epoch, size)[recipe.batch_size * batch :][: recipe.batch_size]
        pixels = (images[chosen].double() - data.info.mean[0]) / data.info.deviation[0]
        log_p = network.train()(pixels.float()).log_softmax(1)
        labels = F.one_hot(data.train_labels[chosen], log_p.shape[1]).double()
        labels = (1 - recipe.label_smoothing) * labels + recipe.label_smoothing / log_p.shape[1]
        loss = -(labels * log_p).sum() / len(chosen)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        lr = recipe.lr_at(step, per_epoch)
        with torch.no_grad():
            for (name, p), gradient in zip(parameters.items(), gradients, strict=True):
                if recipe.decay == "all" or p.dim() > 1:
                    gradient = gradient + recipe.weight_decay * p
                first, second = memory[name]
                if recipe.optimiser == "adam":
                    first.mul_(0.9).add_(0.1 * gradient)
                    second.mul_(0.999).add_(0.001 * gradient**2)
                    scale = (second / (1 - 0.999**count)).sqrt() + 1e-8
                    p.sub_(lr * first / (1 - 0.9**count) / scale)
                else:
                    first.mul_(recipe.momentum).add_(gradient)
                    ahead = gradient + recipe.momentum * first
                    p.sub_(lr * (ahead if recipe.nesterov else first))
                if name in mask:
                    p[~mask[name]] = 0
    return losses


CASES = [
    pytest.param({}, True, 0, 9, id="sgd"),
    pytest.param({}, False, 0, 9, id="dense"),
    pytest.param({"momentum": 0.0, "weight_decay": 0.0}, True, 0, 9, id="plain sgd"),
    pytest.param({"augment": "crop_flip", "weight_decay": 0.01}, True, 4, 9, id="mid-epoch"),
    pytest.param(
        {"milestones": (Step(4, "it"), Step(2, "ep")), "warmup": Step(2, "it")},
        True,
        0,
        8,
        id="schedule",
    ),
    pytest.param(
        {"optimiser": "adam", "lr": 0.01, "weight_decay": 0.01, "schedule": "cosine"},
        True,
        3,
        9,
        id="adam",
    ),
    pytest.param(
        {"nesterov": True, "label_smoothing": 0.1, "decay": "kernels", "weight_decay": 0.05},
        True,
        2,
        9,
        id="as RigL",
    ),
    pytest.param(
        {"optimiser": "adam", "lr": 0.01, "decay": "kernels", "weight_decay": 0.05},
        True,
        0,
        9,
        id="adam, kernels",
    ),
]


@pytest.mark.parametrize("network", ["resnet14(width=2)", "mlp2(width=6,last_width=4)"])
@pytest.mark.parametrize(("fields", "masked", "start", "stop"), CASES)
def test_against_the_slow_loop(
    network: str, fields: dict[str, Any], masked: bool, start: int, stop: int
) -> None:
    data = dataset(10, shape=EIGHT, mean=128, deviation=64)
    recipe = _recipe(**{"batch_size": 4, **fields})
    slow, fast = _Double(network, EIGHT), _Double(network, EIGHT)
    state = {name: tensor.clone() for name, tensor in slow.state_dict().items()}
    generator = stream(0, "mask")
    mask = {
        name: torch.rand(p.shape, generator=generator) < 0.5
        for name, p in slow.named_parameters()
        if masked and p.dim() > 1
    }
    losses = _slow_training(
        slow, data, recipe, seed=2, state=state, mask=mask, start=start, stop=stop
    )
    run = Training(
        fast, data, recipe, seed=2, state=state, mask=mask or None, start=start, stop=stop
    )
    epochs = list(run)
    expected = slow.state_dict()
    found = run.state()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-8, atol=1e-10)
    moved = [n for n, p in slow.named_parameters() if not torch.equal(p, state[n])]
    assert len(moved) == len(dict(slow.named_parameters()))
    # Mean losses weigh the images, not the batches, of the part of an epoch that was trained.
    sizes = [4, 4, 2] * 3
    for epoch, steps in zip(epochs, _by_epoch(start, stop), strict=True):
        total = sum(sizes[s] * losses[s - start] for s in steps)
        mean = total / sum(sizes[s] for s in steps)
        assert epoch.train_loss == pytest.approx(mean, rel=1e-6)
        assert epoch.step == steps[-1] + 1
        assert epoch.epoch == steps[-1] // 3 + 1
        assert epoch.lr == recipe.lr_at(steps[-1], 3)
    assert (epochs[-1].test_accuracy, epochs[-1].test_loss) == run.evaluate()


def _by_epoch(start: int, stop: int) -> list[list[int]]:
    return [list(steps) for _, steps in itertools.groupby(range(start, stop), lambda s: s // 3)]


def _run(
    seed: int = 0,
    *,
    start: int = 0,
    stop: int | None = None,
    state: State | None = None,
    mask: masks.Mask | None = None,
    network: nn.Module | None = None,
    noise: Noise = COMMON,
    **fields: Any,
) -> Training:
    """A run of a small ResNet on noise."""
    name = "resnet14(width=2)"
    return Training(
        network or build(name, EIGHT, generator=stream(1, "init")),
        dataset(10, shape=EIGHT, mean=128, deviation=64),
        _recipe(**{"augment": "crop_flip", **fields}),
        seed=seed,
        state=state or build(name, EIGHT, generator=stream(0, "init")).state_dict(),
        mask=mask,
        start=start,
        stop=stop,
        noise=noise,
    )


def test_twins_differ_and_the_same_noise_gives_the_same_bits() -> None:
    runs = [_run(), *(_run(noise=Noise(copy=copy)) for copy in (0, 1, 1, 2))]
    epochs = [list(run) for run in runs]
    digests = [state_digest(run.state()) for run in runs]
    assert digests[0] == digests[1]
    assert digests[2] == digests[3]
    assert len(set(digests)) == len({epoch[-1].train_loss for epoch in epochs}) == 3


def test_a_noise_goes_on_from_any_iteration() -> None:
    twin = Noise(copy=1)
    whole = _run(noise=twin, momentum=0.0)
    list(whole)
    before = _run(noise=twin, momentum=0.0, stop=4)
    list(before)
    after = _run(noise=twin, momentum=0.0, start=4, state=before.state())
    list(after)
    assert state_digest(after.state()) == state_digest(whole.state())


def test_what_a_network_draws_is_noise_of_sgd() -> None:
    class Dropping(_Recorder):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(
                nn.functional.dropout(torch.ones(8, 16), training=True)[: len(x)]
            )

    def dropped(noise: Noise) -> Tensor:
        network = Dropping()
        list(
            Training(
                network,
                _numbered(8),
                _recipe("2ep"),
                seed=0,
                state=network.state_dict(),
                noise=noise,
            )
        )
        return torch.stack(network.seen)

    twin = dropped(Noise(copy=1))
    assert len(twin) == 4
    assert torch.equal(dropped(Noise(copy=1)), twin)
    assert not torch.equal(dropped(COMMON), twin)


def test_a_dataset_that_knows_of_no_noise() -> None:
    class Deaf(MemoryDataset):
        def train_batches(  # type: ignore[override]
            self,
            *,
            batch_size: int,
            augment: str,
            seed: int,
            epoch: int,
            start: int,
            stop: int,
            part: Part,
        ) -> Batches:
            return super().train_batches(
                batch_size=batch_size,
                augment=augment,
                seed=seed,
                epoch=epoch,
                start=start,
                stop=stop,
                part=part,
            )

    network = _Recorder()
    data: Any = Deaf(**{f.name: getattr(_numbered(8), f.name) for f in dataclasses.fields(Deaf)})
    given: Any = {"seed": 0, "state": network.state_dict()}
    list(Training(network, data, _recipe("1ep"), **given))
    assert _numbers(network.seen) == _numbers(_seen(_numbered(8), _recipe("1ep")))
    with pytest.raises(
        ElthError,
        match=r"the dataset noise draws the same for every noise, and this training is to have "
        r"Noise\(round=0, copy=1\): let train_batches of Deaf take noise",
    ):
        Training(network, data, _recipe("1ep"), **given, noise=Noise(copy=1))


def test_one_seed_gives_the_same_bits_twice_and_another_does_not() -> None:
    runs = [_run(seed) for seed in (0, 0, 1)]
    epochs = [list(run) for run in runs]
    digests = [state_digest(run.state()) for run in runs]
    assert digests[0] == digests[1] != digests[2]
    assert epochs[0] == epochs[1] != epochs[2]
    assert [epoch.epoch for epoch in epochs[0]] == [1, 2, 3]
    assert all(isinstance(epoch, Epoch) for epoch in epochs[0])


def test_the_global_generator_plays_no_part() -> None:
    torch.manual_seed(0)
    first = _run()
    list(first)
    torch.manual_seed(1)
    second = _run()
    list(second)
    assert state_digest(first.state()) == state_digest(second.state())


def test_a_network_can_be_used_again() -> None:
    network = build("resnet14(width=2)", EIGHT, generator=stream(9, "init"))
    first = _run(network=network)
    list(first)
    digest = state_digest(first.state())
    second = _run(network=network)
    list(second)
    assert state_digest(second.state()) == digest


@pytest.mark.parametrize("augment", ["crop_flip", "resized_crop_flip"])
@pytest.mark.parametrize("cut", [1, 3, 5])
def test_without_momentum_stopping_and_starting_changes_no_bit(cut: int, augment: str) -> None:
    whole = _run(momentum=0.0, augment=augment)
    list(whole)
    before = _run(momentum=0.0, augment=augment, stop=cut)
    (*_, last) = before
    assert last.step == cut
    after = _run(momentum=0.0, augment=augment, start=cut, state=before.state())
    list(after)
    assert state_digest(after.state()) == state_digest(whole.state())


def test_the_optimiser_starts_fresh() -> None:
    whole = _run()
    list(whole)
    before = _run(stop=4)
    list(before)
    after = _run(start=4, state=before.state())
    list(after)
    assert state_digest(after.state()) != state_digest(whole.state())


def test_epochs_can_be_taken_one_by_one() -> None:
    whole, stepwise = _run(), _run()
    epochs = list(whole)
    first = next(iter(stepwise))
    stepwise.evaluate()
    assert [first, *stepwise] == epochs
    assert list(stepwise) == []
    assert state_digest(stepwise.state()) == state_digest(whole.state())


def test_an_epoch_without_evaluation() -> None:
    whole, bare = _run(), _run()
    epochs = list(whole)
    loss, lr = bare.train_epoch()
    assert (bare.step, lr) == (epochs[0].step, 0.1)
    assert loss == epochs[0].train_loss
    assert list(bare) == epochs[1:]
    assert state_digest(bare.state()) == state_digest(whole.state())


def test_nothing_to_do() -> None:
    state = build("resnet14(width=2)", EIGHT, generator=stream(0, "init")).state_dict()
    run = _run(start=5, stop=5)
    assert list(run) == []
    assert state_digest(run.state()) == state_digest(state)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_pruned_weights_are_zero_whenever_anyone_can_see_them(optimiser: str) -> None:
    mask = ticket("resnet14(width=2)", EIGHT).mask
    run = _run(mask=mask, optimiser=optimiser, weight_decay=0.01)
    states = [run.state()]
    for _ in run:
        states.append(run.state())
    for state in states:
        for name, m in mask.items():
            assert not bool(state[name][~m].any())
            assert bool((state[name][m] != 0).all())
    assert all(bool((states[0][n][m] != states[-1][n][m]).all()) for n, m in mask.items())


def test_the_state_is_a_copy_in_the_default_layout() -> None:
    run = _run()
    state = run.state()
    assert all(tensor.is_contiguous() for tensor in state.values())
    for tensor in state.values():
        tensor.zero_()
    assert bool(run.state()["conv1.weight"].any())


class _Bomb(_Recorder):
    """The logit of class 0 is not finite in one iteration."""

    def __init__(self, at: int, value: float) -> None:
        super().__init__()
        self.at, self.value = at, value

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if self.training and len(self.seen) == self.at + 1:
            logits = logits + torch.tensor([self.value, 0.0, 0.0])
        return logits


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(value: float) -> None:
    # Of class 0 throughout: -inf makes the loss infinite, nan and inf make it no number.
    data = dataclasses.replace(dataset(10), train_labels=torch.zeros(10, dtype=torch.int64))
    recipe = _recipe()
    good = _Recorder()
    start = {"logits": torch.tensor([0.5, -1.0, 0.25])}
    list(Training(good, data, recipe, seed=0, state=start, stop=4))
    bad = _Bomb(4, value)
    run = Training(bad, data, recipe, seed=0, state=start)
    found: list[Epoch] = []
    with pytest.raises(
        NonFiniteLossError, match=r"training loss was not finite at iteration 4 \(epoch 1\)"
    ) as caught:
        found.extend(run)
    assert (caught.value.step, caught.value.epoch) == (4, 1)
    assert [epoch.step for epoch in found] == [3]
    assert run.step == 4
    assert torch.equal(run.state()["logits"], good.logits.detach())
    assert not torch.equal(run.state()["logits"], start["logits"])


# How it is measured, and where it starts and ends.


def test_evaluation_against_small_batches() -> None:
    shape = DataShape(channels=1, size=4, classes=3)
    data = dataset(4, 1003, shape=shape, mean=100, deviation=50)  # more than one batch of 1,000
    network = build("resnet14(width=2)", shape, generator=stream(0, "init"))
    state = {n: t + 0.5 if "running" in n else t for n, t in network.state_dict().items()}
    run = Training(network, data, _recipe(), seed=0, state=state)
    accuracy, loss = run.evaluate()
    single = build("resnet14(width=2)", shape, generator=stream(1, "init"))
    single.load_state_dict(state)
    single.double().eval()
    losses, right = [], 0
    with torch.no_grad():
        for start in range(0, 1003, 17):
            images = (data.test_images[start : start + 17].double() - 100) / 50
            labels = data.test_labels[start : start + 17].tolist()
            for logits, label in zip(single(images).tolist(), labels, strict=True):
                losses.append(math.log(sum(math.exp(x) for x in logits)) - logits[label])
                right += max(range(3), key=logits.__getitem__) == label
    assert 200 < right < 800
    assert accuracy == 100 * right / 1003
    assert loss == pytest.approx(sum(losses) / 1003, rel=1e-5)


@pytest.mark.parametrize(
    ("size", "batches"), [(8, [1000, 5]), (64, [1000, 5]), (224, [168] * 5 + [165])]
)
def test_large_images_are_evaluated_in_smaller_batches(size: int, batches: list[int]) -> None:
    class Counter(_Recorder):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().forward(x)

    sizes: list[int] = []
    data = dataset(1, 1005, shape=DataShape(channels=1, size=2, classes=3))
    shape = DataShape(channels=1, size=size, classes=3)
    data = dataclasses.replace(data, info=dataclasses.replace(data.info, shape=shape))
    network = Counter()
    Training(network, data, _recipe(), seed=0, state=network.state_dict()).evaluate()
    assert sizes == batches


def test_evaluation_changes_nothing() -> None:
    run = _run()
    before = state_digest(run.state())
    assert run.evaluate() == run.evaluate()
    assert state_digest(run.state()) == before


def test_iterations_of_an_epoch() -> None:
    cifar = RECIPES["cifar10_resnet"]
    assert iterations_per_epoch(50_000, cifar) == 391
    assert iterations_per_epoch(49_920, cifar) == 390
    assert iterations_per_epoch(49_921, cifar) == 391
    assert iterations_per_epoch(1, cifar) == 1
    assert rewind_step(50_000, cifar) == 1000
    assert rewind_step(1297, RECIPES["digits_resnet"]) == 11


def test_the_rewind_point_must_come_before_the_end() -> None:
    recipe = _recipe("2ep", rewind="6it")
    with pytest.raises(
        ElthError,
        match=r"the rewind point 6it \(iteration 6\) must come before the end of the training 2ep "
        r"\(iteration 6\)",
    ):
        rewind_step(10, recipe)
    assert rewind_step(13, recipe) == 6


def test_train_ticket_goes_on_from_the_rewind_point() -> None:
    made = ticket("mlp2(width=4,last_width=3)")
    data, recipe = dataset(10, deviation=255), _recipe(rewind="4it")
    by_ticket = train_ticket(made, data, recipe, seed=3)
    by_hand = Training(
        made.make_network(),
        data,
        recipe,
        seed=3,
        state=made.rewind,
        mask=made.mask,
        start=4,
        stop=9,
    )
    assert list(by_ticket) == list(by_hand)
    assert state_digest(by_ticket.state()) == state_digest(by_hand.state())
    assert by_ticket.step == 9
    assert all(not bool(by_ticket.state()[n][~m].any()) for n, m in made.mask.items())


def test_train_ticket_starts_a_moved_ticket_at_the_beginning() -> None:
    seven = dataclasses.replace(IMAGE, classes=7)
    made = move(ticket("mlp2(width=4,last_width=3)"), seven, 5)
    data, recipe = dataset(10, shape=seven, deviation=255), _recipe(rewind="4it")
    by_ticket = train_ticket(made, data, recipe, seed=3)
    assert by_ticket.step == 0
    by_hand = Training(
        made.make_network(), data, recipe, seed=3, state=made.rewind, mask=made.mask, start=0
    )
    epochs = list(by_ticket)
    assert [epoch.step for epoch in epochs] == [3, 6, 9]
    assert epochs == list(by_hand)
    assert state_digest(by_ticket.state()) == state_digest(by_hand.state())


def test_train_ticket_starts_where_the_ticket_says() -> None:
    before = ticket("mlp2(width=4,last_width=3)")
    data, recipe = dataset(10, deviation=255), _recipe(rewind="4it")
    assert train_ticket(before, data, recipe, seed=3).step == 4
    for start in (0, 2, 7):
        made = dataclasses.replace(before, origin={"start": start})
        assert train_ticket(made, data, recipe, seed=3).step == start


def test_a_ticket_of_another_shape_of_data_is_refused() -> None:
    made = ticket("mlp2(width=4,last_width=3)", IMAGE)
    with pytest.raises(
        ElthError,
        match=r"the ticket of mlp2\(.*\) is for 1x4x4, 3 classes, the dataset noise has 2x8x8, 3 "
        "classes",
    ):
        train_ticket(made, dataset(shape=EIGHT), _recipe(), seed=0)


def test_a_ticket_of_another_dataset_of_that_shape_is_refused_until_it_is_moved() -> None:
    made = ticket("mlp2(width=4,last_width=3)", IMAGE)
    there = dataset(deviation=2.0)
    origin = {"seed": 3, "dataset": dataset().info.identity()}
    made = dataclasses.replace(made, origin=origin)
    assert train_ticket(made, dataset(), _recipe(rewind="1ep")).step == 3
    with pytest.raises(ElthError, match=r"the ticket was found on noise, and this is another data"):
        train_ticket(made, there, _recipe())
    assert train_ticket(made, there, _recipe(), start=1).step == 1
    begun = dataclasses.replace(made, origin={**origin, "start": 0})  # as of weights: init
    assert train_ticket(begun, dataset(), _recipe()).step == 0
    with pytest.raises(ElthError, match="and this is another dataset"):
        train_ticket(begun, there, _recipe())
    assert train_ticket(move(made, there.info.shape, seed=0), there, _recipe()).step == 0


# What is easily got wrong.

TAKEN = "the network of this training was given to another one, which has overwritten its weights"


@pytest.mark.parametrize("shares", ["module", "engine"])
def test_a_second_training_of_a_network_ends_the_first_with_an_error(shares: str) -> None:
    """It used to go on with the weights of the second."""
    data, recipe = dataset(8), _recipe()
    network: Any = build("mlp1(width=3,last_width=2)", IMAGE, generator=stream(0, "init"))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    if shares == "engine":
        network = Engine(network, recipe)
    first = Training(network, data, recipe, seed=0, state=state)
    epochs = iter(first)
    next(epochs)
    second = Training(network, data, recipe, seed=1, state=state)
    for use in (lambda: next(epochs), first.state, first.evaluate, first.checkpoint):
        with pytest.raises(ElthError, match=TAKEN):
            use()
    with pytest.raises(ElthError, match=TAKEN):
        first.train_epoch()
    with pytest.raises(ElthError, match=TAKEN):
        first.resume(second.checkpoint())
    alone = build("mlp1(width=3,last_width=2)", IMAGE, generator=stream(0, "init"))
    expected = list(Training(alone, data, recipe, seed=1, state=state))
    assert list(second) == expected


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"stem.weight": torch.ones(1).bool()}, r"mask of 'stem.weight' has shape \(1,\), its wei"),
        ({"stem.weight": torch.full((3, 16), 0.5)}, "must be boolean, found torch.float32: compar"),
        ({"stem.wait": torch.ones(3, 16).bool()}, "unknown weight of the network, in its mask '"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask: dict[str, Tensor], message: str) -> None:
    network = build("mlp1(width=3,last_width=2)", IMAGE, generator=stream(0, "init"))
    before = state_digest(network.state_dict())
    with pytest.raises(ElthError, match=message):
        Training(network, dataset(8), _recipe(), seed=0, state=network.state_dict(), mask=mask)
    assert state_digest(network.state_dict()) == before


def test_a_drop_that_never_comes_is_refused() -> None:
    network = build("mlp1(width=3,last_width=2)", IMAGE, generator=stream(0, "init"))
    recipe = _recipe("2ep", milestones=(Step(2, "ep"),))
    with pytest.raises(ElthError, match="is to drop at 2ep, and the training ends at 2ep"):
        Training(network, dataset(8), recipe, seed=0, state=network.state_dict())


def test_train_ticket_takes_seed_and_start_of_the_ticket() -> None:
    recipe = _recipe("3ep", "1ep")
    own = {"seed": 3, "recipe": _recipe("9ep", "2it").plain()}
    made = dataclasses.replace(ticket("mlp1(width=3,last_width=2)"), origin=own)
    data = dataset(8)
    with pytest.raises(
        ElthError,
        match=r"the ticket was rewound to 2it \(iteration 2\), and the recipe's rewind point is "
        r"3it \(iteration 3\): take a recipe with rewind 2it, or say where to start, as start=2",
    ):
        train_ticket(made, data, _recipe("3ep", "3it"))
    run = train_ticket(made, data, recipe)  # an epoch has two iterations
    assert (run.step, run.seed) == (2, 3)
    assert list(run) == list(train_ticket(made, data, recipe, seed=3))
    assert train_ticket(made, data, recipe, seed=4).seed == 4
    assert train_ticket(made, data, _recipe("3ep", "3it"), start=3).step == 3
    nameless = dataclasses.replace(made, origin={})
    with pytest.raises(ElthError, match="does not say of which seed it is: give one, as seed=0"):
        train_ticket(nameless, data, recipe)
    assert train_ticket(nameless, data, recipe, seed=0).step == 2


def test_a_last_batch_of_one_image_is_refused_before_the_first() -> None:
    """Where a single value is left to batch normalisation: the image has 1x1 pixels there."""
    network = build("resnet14(width=2)", IMAGE, generator=stream(0, "init"))
    state = network.state_dict()
    with pytest.raises(
        ElthError,
        match=r"the last batch of an epoch is one image \(9 images in batches of 4\), and batch "
        r"normalisation has no statistics of a single value at 'layer3.0.bn1': take a batch size "
        "of 3 or 5",
    ):
        Training(network, dataset(9), _recipe(), seed=0, state=state)
    with pytest.raises(
        ElthError, match="last group of .* one image .13 images in groups of 2.*norm_group"
    ):
        Training(
            network,
            dataset(13),
            _recipe(batch_size=6, batch_norm_group=2),
            seed=0,
            state=state,
        )
    list(Training(network, dataset(9), _recipe("1ep", batch_size=5), seed=0, state=state))
    larger = build("resnet14(width=2)", EIGHT, generator=stream(0, "init"))
    data = dataset(9, shape=EIGHT)
    list(Training(larger, data, _recipe("1ep"), seed=0, state=larger.state_dict()))


def test_a_network_that_was_trained_in_groups_is_not_for_the_next_recipe() -> None:
    data = dataset(8, shape=EIGHT, deviation=255)
    fresh, used = (build("resnet14(width=2)", EIGHT, generator=stream(0, "init")) for _ in "ab")
    state = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    list(Training(used, data, _recipe("1ep", batch_norm_group=2), seed=0, state=state))
    runs = [Training(n, data, _recipe("1ep"), seed=0, state=state) for n in (fresh, used)]
    assert list(runs[0]) == list(runs[1])
    assert [type(m) for m in fresh.modules()] == [type(m) for m in used.modules()]


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (4, 3), (999, None)])
def test_a_start_before_the_first_iteration_or_behind_the_last_is_refused(
    start: int, stop: int | None
) -> None:
    """Before the first the rate of a warm-up would be negative."""
    network = build("mlp2(width=4)", IMAGE, 0)
    words: dict[str, Any] = {"seed": 0, "state": network.state_dict(), "start": start, "stop": stop}
    with pytest.raises(ElthError, match=rf"from a start of 0 or more to its stop, found {start}"):
        Training(network, dataset(12), _recipe(warmup="1ep"), **words)


def test_a_checkpoint_of_another_optimiser_is_refused() -> None:
    made = {}
    for name in ("sgd", "adam"):
        network = build("mlp2(width=4)", IMAGE, 0)
        state = {n: t.clone() for n, t in network.state_dict().items()}
        made[name] = Training(network, dataset(12), _recipe(optimiser=name), seed=0, state=state)
        made[name].train_epoch()
    for one, other in (("sgd", "adam"), ("adam", "sgd")):
        with pytest.raises(ElthError, match="the checkpoint is of another optimiser"):
            made[one].resume(made[other].checkpoint())
