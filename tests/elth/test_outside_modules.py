"""Modules of users in every shape that has gone wrong: what they do is done, or refused clearly."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.densenet import DenseNet

import elth
from elth import masks
from elth.analysis.curvature import hessian
from elth.criteria import prune
from elth.data import MemoryDataset
from elth.errors import ElthError
from elth.forward import draws
from elth.networks import DataShape
from elth.parallel import Gradients, arrange_norms, rehearsing
from elth.recipes import Recipe, Step
from elth.tickets import state_digest
from elth.training import Training
from tests.elth.helpers import dataset

EIGHT = DataShape(channels=2, size=8, classes=3)


def _data() -> MemoryDataset:
    return dataset(16, shape=EIGHT, mean=128, deviation=64)


def _recipe(**fields: object) -> Recipe:
    given = {"length": Step.parse("2ep"), "rewind": Step.parse("0ep"), "batch_size": 4, **fields}
    return Recipe(**given)  # type: ignore[arg-type]


class _Solid(nn.Module):
    """A convolution of three sides."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.solid = nn.Conv2d(2, 4, 3), nn.Conv3d(1, 2, (4, 3, 3))
        self.fc = nn.Linear(2 * 4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.fc(self.solid(self.flat(x)[:, None]).flatten(1))
        return found


class _Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(16 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2).reshape(len(x), 16, 8)
        found: Tensor = self.fc(self.attention(rows, rows, rows)[0].flatten(1))
        return found


class _Counting(nn.Module):
    """What it computes depends on how many batches it saw, of which its state tells nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(128, 3)
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += self.training
        found: Tensor = self.fc(x.flatten(1)) / (1 + self.seen)
        return found


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(128, 128), nn.Linear(128, 128)
        self.second.weight = self.first.weight
        self.fc = nn.Linear(128, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.fc(self.second(self.first(x.flatten(1))))
        return found


class _OwnNorm(nn.BatchNorm2d):
    pass


def test_convolutions_of_three_sides_are_trained() -> None:
    network = _Solid()
    list(Training(network, _data(), _recipe(), seed=0, state=copy.deepcopy(network.state_dict())))
    assert network.flat.weight.is_contiguous(memory_format=torch.channels_last)


def test_dropout_by_a_plain_function_is_seen() -> None:
    small: dict[str, Any] = {
        "growth_rate": 2,
        "block_config": (1,),
        "num_init_features": 2,
        "num_classes": 3,
    }
    assert draws(DenseNet(drop_rate=0.3, **small))
    assert not draws(DenseNet(drop_rate=0.0, **small))
    assert draws(nn.MultiheadAttention(4, 2, dropout=0.1))
    assert not draws(nn.Sequential(nn.Conv2d(2, 2, 3), nn.Dropout(0.0), nn.Flatten()))


def test_second_derivatives_of_attention() -> None:
    network, data = _Attending(), _data()
    mask = prune("grasp", network, data=data, sparsity=0.5, samples_per_class=1)
    assert masks.nonzeros(mask) == masks.total(mask) // 2
    state = {name: value.clone() for name, value in network.state_dict().items()}
    operator = hessian(network, state, masks.ones(network), data, images=8)
    assert operator(operator.start()).isfinite().all()


def test_each_round_begins_with_a_module_as_it_was_given() -> None:
    module, data, recipe = _Counting(), _data(), _recipe()
    *_, last = elth.imp(module, data, recipe, rate=0.5, rounds=1)
    assert module.seen == 0
    alone = Training(copy.deepcopy(module), data, recipe, seed=0, state=last.rewind, mask=last.mask)
    list(alone)
    assert state_digest(alone.state()) == state_digest(last.trained)


def test_one_weight_of_two_layers_is_refused() -> None:
    words = r"'first.weight' and 'second.weight' are one tensor, which a mask cannot tell apart"
    with pytest.raises(ElthError, match=words):
        masks.ones(_Tied())
    with pytest.raises(ElthError, match=words):
        list(elth.imp(_Tied(), _data(), _recipe(), rounds=1))


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm3d(4),
        _OwnNorm(4),
        nn.InstanceNorm2d(4, track_running_stats=True),
    ],
)
def test_norms_that_cannot_be_taken_over_groups_are_refused(norm: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3), norm)
    arrange_norms(network, 0, None)
    assert network[1] is norm
    with pytest.raises(ElthError, match=r"'1' is .*: its statistics of a batch cannot be taken"):
        arrange_norms(network, 4, None)


def test_norms_without_statistics_of_the_batch_are_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4))
    before = list(network)
    arrange_norms(network, 4, None)
    assert list(network) == before


def test_a_gradient_that_only_another_worker_has(monkeypatch: pytest.MonkeyPatch) -> None:
    used, unused, idle = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    shared = Gradients([used, unused, idle], workers=2, differing=True)
    used.grad = torch.ones(2)
    with rehearsing() as sums:
        shared.average()
    assert sums == ["which weights have gradients: (3,)", "gradients: (6,)"]
    assert unused.grad is None
    other = {3: torch.tensor([1.0, 1.0, 0.0]), 6: torch.tensor([1.0, 1, 3, 3, 0, 0])}

    def add(tensor: Tensor, what: str) -> None:
        tensor += other[len(tensor)] / (2 if what == "gradients" else 1)

    monkeypatch.setattr("elth.parallel._sum_in_place", add)
    used.grad = torch.ones(2)
    shared.average()
    assert used.grad.tolist() == [1.0, 1.0]
    assert unused.grad is not None
    assert unused.grad.tolist() == [1.5, 1.5], "the mean of 0 here and 3 there"
    assert idle.grad is None
