"""Running statistics on a path: interpolated or taken anew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from elth.analysis import batch_norm, interpolate
from elth.data import Batches
from elth.errors import ElthError
from elth.networks import build
from elth.parallel import GroupedBatchNorm2d
from tests.elth.helpers import IMAGE, dataset


def _given(*images: Tensor) -> Batches:
    yield from ((one, torch.zeros(len(one))) for one in images)


def _norm(mean: float, var: float, batches: int) -> dict[str, Tensor]:
    norm = nn.BatchNorm2d(1).double()
    return {
        **norm.state_dict(),
        "running_mean": torch.tensor([mean], dtype=torch.float64),
        "running_var": torch.tensor([var], dtype=torch.float64),
        "num_batches_tracked": torch.tensor(batches),
    }


def test_interpolated_statistics() -> None:
    first, second = _norm(0, 1, 7), _norm(2, 4, 9)
    half = interpolate(first, second, 0.5)
    assert (half["running_mean"].item(), half["running_var"].item()) == (1, 2.5)
    assert half["num_batches_tracked"].item() == 7
    assert half["num_batches_tracked"].dtype is torch.int64
    before = interpolate(first, second, -0.5)
    assert (before["running_mean"].item(), before["running_var"].item()) == (-1, -0.5)
    assert batch_norm.negative_variance(half) == ""
    assert batch_norm.negative_variance({f"layer1.bn.{n}": t for n, t in before.items()}) == (
        "layer1.bn.running_var"
    )


def test_recomputed_statistics_by_hand() -> None:
    """Batches of -1, 1 and of 1, 3: means 0 and 2, unbiased variances 2 and 2."""
    norm = nn.BatchNorm2d(1)
    network = nn.Sequential(norm, nn.Dropout()).double().train()
    batches = [torch.tensor(one, dtype=torch.float64).view(2, 1, 1, 1) for one in ([-1, 1], [1, 3])]
    for mean, var in ((5.0, 100.0), (float("nan"), 0.0), (1.0, 2.0)):
        norm.load_state_dict(_norm(mean, var, 40))
        batch_norm.recompute(network, network, _given(*batches))
        found = {name: tensor.item() for name, tensor in norm.named_buffers()}
        assert found == {"running_mean": 1, "running_var": 2, "num_batches_tracked": 2}
    assert norm.momentum == 0.1
    assert all(module.training for module in network.modules())


def test_the_mean_is_that_of_torch() -> None:
    data = dataset(21, mean=128, deviation=60)
    state = build("resnet14(width=4)", IMAGE, 0).state_dict()
    ours, theirs = (build("resnet14(width=4)", IMAGE, 1) for _ in range(2))
    parts = torch.arange(21).tensor_split(3)
    ours.load_state_dict(state)
    ours.eval()
    batch_norm.recompute(ours, ours, data.samples(parts))
    theirs.load_state_dict(state)
    update_bn(data.samples(parts), theirs)
    found, expected = ours.state_dict(), theirs.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(found["layer3.1.bn2.running_mean"], state["layer3.1.bn2.running_mean"])
    assert not any(module.training for module in ours.modules())


def test_modes_and_momenta_are_put_back_where_it_fails() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1, momentum=0.3), nn.ReLU()).eval()
    network[1].train()
    with pytest.raises(RuntimeError):
        batch_norm.recompute(network, network, _given(torch.zeros(2, 3, 1, 1)))
    assert network[0].momentum == 0.3
    assert [module.training for module in network.modules()] == [False, False, True]


def test_running_statistics_of_another_layer_are_refused() -> None:
    tracked = nn.Sequential(nn.InstanceNorm2d(2, track_running_stats=True))
    with pytest.raises(ElthError, match="'0' is a InstanceNorm2d with running statistics, and bat"):
        batch_norm.recompute(tracked, tracked, _given(torch.zeros(2, 2, 3, 3)))
    plain = nn.Sequential(nn.InstanceNorm2d(2))
    batch_norm.recompute(plain, plain, _given(torch.zeros(2, 2, 3, 3)))


def test_dropout_stays_as_it_is_when_a_network_is_evaluated() -> None:
    norm = nn.BatchNorm2d(1)
    network = nn.Sequential(nn.Dropout(0.5), norm)
    batch_norm.recompute(network, network, _given(torch.ones(50, 1, 1, 1)))
    found = {name: tensor.item() for name, tensor in norm.named_buffers()}
    assert found == {"running_mean": 1, "running_var": 0, "num_batches_tracked": 1}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("keep", "batch_norm 'keep' would judge every point of a path by the statistics of one o"),
        ("recomputed", "unknown batch_norm 'recomputed'; did you mean 'recompute'"),
    ],
)
def test_what_is_no_choice_is_refused(choice: str, message: str) -> None:
    with pytest.raises(ElthError, match=message):
        batch_norm.check(choice)


def test_groups_of_a_batch_are_refused() -> None:
    network = nn.Sequential(GroupedBatchNorm2d(2, nn.BatchNorm2d(2)))
    with pytest.raises(ElthError, match="'0' normalises by groups of a batch"):
        batch_norm.recompute(network, network, _given(torch.zeros(2, 2, 3, 3)))
