"""What every criterion promises, and the particulars of each."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elth import masks
from elth.criteria import CRITERIA, grasp, keep_highest, magnitude, prune, snip, synflow
from elth.criteria.uniform import densities
from elth.data import MemoryDataset
from elth.errors import ElthError
from elth.masks import Mask
from elth.networks import DataShape, Network
from elth.tickets import state_digest
from tests.elth.criteria.helpers import SHAPE, Noise, batch, half, network, noise
from tests.elth.helpers import dataset

SMALL: dict[str, dict[str, Any]] = {
    "snip": {"samples": 12},
    "grasp": {"samples_per_class": 4},
    "grasp_absolute": {"samples_per_class": 4},
    "synflow": {"iterations": 5},
}
EVERY = pytest.mark.parametrize("name", CRITERIA)


def _prune(name: str, net: Network, mask: Mask, keep: int, **more: Any) -> Mask:
    given_: dict[str, Any] = {"shape": SHAPE, "data": noise(), "seed": 0, **SMALL.get(name, {})}
    return prune(name, net, mask, keep, **{**given_, **more})


def _same(a: Mask, b: Mask) -> bool:
    return all(torch.equal(a[n], b[n]) for n in b)


@EVERY
@given(st.data())
@settings(max_examples=12)
def test_the_count_is_exact_and_nothing_returns(name: str, draw: st.DataObject) -> None:
    net = network(draw.draw(st.sampled_from(["tiny", "mlp2(width=4,last_width=3)"])))
    mask = draw.draw(st.sampled_from([masks.ones(net), half(net)]))
    unpruned = draw.draw(st.sampled_from([None, (), tuple(mask)[-1:], tuple(mask)]))
    whole = net.anatomy.unpruned if unpruned is None else unpruned
    least = masks.nonzeros({n: mask[n] for n in whole})
    keep = draw.draw(st.integers(least, masks.nonzeros(mask)))
    found = _prune(name, net, mask, keep, unpruned=unpruned)
    assert masks.nonzeros(found) == keep
    assert list(found) == list(mask)
    for n, m in found.items():
        assert m.dtype is torch.bool
        assert m.device.type == "cpu"
        assert not bool((m & ~mask[n]).any())
    assert all(torch.equal(found[n], mask[n]) for n in whole)


@EVERY
@pytest.mark.parametrize("training", [False, True])
def test_the_network_and_the_mask_are_left_as_they_are(name: str, training: bool) -> None:
    net = network("resnet14(width=1)").train(training)
    first = next(net.parameters())
    first.requires_grad_(False)
    net.get_parameter("fc.bias").grad = torch.ones(3, dtype=torch.float64)
    mask = half(net)
    before, mask_before = state_digest(net.state_dict()), masks.digest(mask)
    modes = [m.training for m in net.modules()]
    wanted = [p.requires_grad for p in net.parameters()]
    modes_of_bn = {"mode": "train"} if name == "snip" else {}
    with torch.no_grad():  # a caller need not allow gradients
        _prune(name, net, mask, 100, **modes_of_bn)
    assert state_digest(net.state_dict()) == before
    assert masks.digest(mask) == mask_before
    assert [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == wanted
    grads = {n for n, p in net.named_parameters() if p.grad is not None}
    assert grads == {"fc.bias"}


@EVERY
def test_pruned_weights_count_as_zero(name: str) -> None:
    net, mask = network("mlp2(width=4,last_width=3)"), half(network("mlp2(width=4,last_width=3)"))
    zeroed = copy.deepcopy(net)
    zeroed.load_state_dict(masks.apply(mask, net.state_dict()))
    assert _same(_prune(name, net, mask, 25), _prune(name, zeroed, mask, 25))


@EVERY
def test_the_seed_fixes_the_mask(name: str) -> None:
    net = network("tiny")
    mask = masks.ones(net)
    drawn = [_prune(name, net, mask, 20, seed=s) for s in (0, 1, 2, 3)]
    assert _same(drawn[0], _prune(name, net, mask, 20, seed=0))
    alike = all(_same(drawn[0], other) for other in drawn)
    assert alike == (name in ("magnitude", "synflow"))


@EVERY
def test_the_unpruned_weights_are_by_default_the_anatomys(name: str) -> None:
    net = network("mlp1(width=4,last_width=3)")
    net.anatomy = dataclasses.replace(net.anatomy, unpruned=("tail.weight",))
    mask = masks.ones(net)
    assert bool(_prune(name, net, mask, 14)["tail.weight"].all())
    assert _prune(name, net, mask, 12)["tail.weight"].sum() == 12
    assert not bool(_prune(name, net, mask, 0, unpruned=())["tail.weight"].any())
    with pytest.raises(ElthError, match="cannot keep 11 weights: 85 are there, and 12 in tail"):
        _prune(name, net, mask, 11)
    with pytest.raises(ElthError, match="unknown unpruned weight 'tail'; did you mean 'tail.wei"):
        _prune(name, net, mask, 20, unpruned=("tail",))


@EVERY
def test_of_equal_scores_the_first_stay(name: str) -> None:
    """All weights zero: every score that is computed from them is zero."""
    net = network("tiny")
    with torch.no_grad():
        for n in masks.ones(net):
            net.get_parameter(n).zero_()
    found = _prune(name, net, masks.ones(net), 20)
    if not name.startswith("random"):
        assert bool(found["conv.weight"].all())
        assert found["fc.weight"].flatten().nonzero()[:, 0].tolist() == [0, 1]


@EVERY
def test_a_collapsed_mask_is_no_accident(name: str) -> None:
    net = network("resnet14(width=1)")
    mask = masks.ones(net)
    mask["layer2.0.conv1.weight"].fill_(False)
    mask["fc.weight"].fill_(False)
    assert masks.nonzeros(_prune(name, net, mask, 5)) == 5
    assert masks.nonzeros(_prune(name, net, _prune(name, net, mask, 0), 0)) == 0


@EVERY
def test_an_impossible_count_is_refused_before_anything_is_computed(name: str) -> None:
    net, data = network("tiny"), noise()
    with pytest.raises(ElthError, match="cannot keep 43 weights: 42 are there$"):
        _prune(name, net, masks.ones(net), 43, data=data)
    assert data.asked == []


@EVERY
def test_a_network_in_single_precision(name: str) -> None:
    net = network("resnet14(width=1)").float()
    assert masks.nonzeros(_prune(name, net, masks.ones(net), 50)) == 50


@pytest.mark.parametrize("name", ["snip", "grasp", "grasp_absolute"])
def test_criteria_of_images_need_a_dataset(name: str) -> None:
    net = network("tiny")
    with pytest.raises(ElthError, match=f"the criterion {name} needs training images; give it a d"):
        _prune(name, net, masks.ones(net), 20, data=None)


@pytest.mark.parametrize("name", ["magnitude", "synflow", "random_global", "random_layerwise"])
def test_the_others_do_without(name: str) -> None:
    net = network("tiny")
    assert masks.nonzeros(_prune(name, net, masks.ones(net), 20, data=None)) == 20


@pytest.mark.parametrize("name", ["snip", "grasp", "synflow"])
def test_weights_that_have_diverged_are_refused(name: str) -> None:
    net = network("tiny")
    with torch.no_grad():
        net.get_parameter("fc.weight")[0, 0] = float("inf")
    with pytest.raises(ElthError, match="diverged; rewind|diverged: rewind"):
        _prune(name, net, masks.ones(net), 20)


def test_messages_of_what_is_not_finite() -> None:
    net, data = network("tiny"), noise()
    with torch.no_grad():
        net.get_parameter("fc.bias")[0] = float("nan")
    with pytest.raises(ElthError, match="^the loss is nan at the weights that are to be pruned; "):
        snip.scores(net, masks.ones(net), [batch(data, 0, 5)])
    with pytest.raises(ElthError, match="^the loss is nan"):
        grasp.scores(net, masks.ones(net), [batch(data, 0, 5)], [batch(data, 5, 10)])
    huge = network("tiny")
    with torch.no_grad():
        huge.get_parameter("conv.weight").fill_(1e200)
        huge.get_parameter("fc.weight").fill_(1e200)
    with pytest.raises(ElthError, match="^a score of synflow in '.*' is not finite: the weights a"):
        synflow.scores(huge, masks.ones(huge), SHAPE)


def test_a_mask_of_another_network_is_refused() -> None:
    net = network("tiny")
    with pytest.raises(ElthError, match="the mask names 'stem.weight', which the weights lack"):
        synflow.scores(net, {"stem.weight": torch.ones(2, dtype=torch.bool)}, SHAPE)


# Magnitude and chance ---------------------------------------------------------------------------


def test_magnitude_is_a_single_round_of_iterative_pruning() -> None:
    net = network("resnet14(width=1)")
    mask = half(net)
    expected = keep_highest(magnitude(net.state_dict(), mask), mask, 100)
    assert _same(_prune("magnitude", net, mask, 100), expected)


def test_random_global_takes_every_weight_as_often() -> None:
    net = network("tiny")
    counts = torch.zeros(42)
    for seed in range(400):
        found = _prune("random_global", net, masks.ones(net), 21, seed=seed)
        counts += torch.cat([m.flatten() for m in found.values()])
    # 400 draws at a half: standard deviation 10; the largest of 42 is rarely beyond four of them.
    assert float((counts - 200).abs().max()) < 45


@pytest.mark.parametrize("keep", [0, 1, 17, 30, 60, 99, 101])
def test_random_layerwise_has_one_density(keep: int) -> None:
    net = network("mlp2(width=4,last_width=3)")
    mask = masks.ones(net)
    found = _prune("random_layerwise", net, mask, keep, unpruned=())
    assert masks.nonzeros(found) == keep
    for m in found.values():
        assert abs(int(m.sum()) - keep / 101 * m.numel()) < 1


def test_random_layerwise_leaves_the_unpruned_out_of_the_density() -> None:
    net = network("mlp2(width=4,last_width=3)")  # 64, 16, 12 and 9, of which the last stays
    found = _prune("random_layerwise", net, masks.ones(net), 9 + 46, unpruned=("head.weight",))
    assert [int(m.sum()) for m in found.values()] == [32, 8, 6, 9]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.data())
def test_largest_remainders(sizes: list[int], draw: st.DataObject) -> None:
    have = {str(i): n for i, n in enumerate(sizes)}
    keep = draw.draw(st.integers(0, sum(sizes)))
    found = densities(have, keep)
    assert sum(found.values()) == keep
    shares = {n: keep * count / max(sum(sizes), 1) for n, count in have.items()}
    assert all(abs(found[n] - shares[n]) < 1 and found[n] <= have[n] for n in have)


def test_equal_remainders_go_by_position() -> None:
    assert densities({"a": 5, "b": 5, "c": 5, "d": 5}, 6) == {"a": 2, "b": 2, "c": 1, "d": 1}


# SNIP and GraSP ---------------------------------------------------------------------------------


def test_snip_refuses_more_images_than_there_are() -> None:
    net = network("tiny")
    with pytest.raises(
        ElthError,
        match="the criterion snip asks for 128 training images, the dataset has 60; ask for no mor",
    ):
        _prune("snip", net, masks.ones(net), 20, samples=128)


def test_the_mode_is_that_of_the_criterion_not_of_the_network() -> None:
    data = noise()
    for mode, other in (("eval", "train"), ("train", "eval")):
        kept = []
        for training in (False, True):
            net = network("resnet14(width=1)").train(training)
            kept.append(_prune("snip", net, masks.ones(net), 100, data=data, mode=mode))
        assert _same(kept[0], kept[1])
        assert not _same(kept[0], _prune("snip", net, masks.ones(net), 100, data=data, mode=other))


def test_unknown_words_are_refused() -> None:
    net = network("tiny")
    evil: Any = "evil"
    with pytest.raises(ElthError, match=r"unknown mode 'evil'; did you mean 'eval'\?"):
        snip.prune(net, masks.ones(net), 20, data=noise(), seed=0, samples=12, mode=evil)
    message = r"unknown setting mode of criterion snip 'evil'; did you mean 'eval'\?"
    with pytest.raises(ElthError, match=message):
        _prune("snip", net, masks.ones(net), 20, mode=evil)


def test_by_its_name_a_criterion_is_what_its_function_is() -> None:
    net, data = network("tiny"), noise()
    given_: dict[str, Any] = {"shape": SHAPE, "data": data, "seed": 3}
    mask = masks.ones(net)
    chosen = grasp.Settings(samples_per_class=4, halves="disjoint")
    assert _same(
        prune("grasp", net, mask, 20, **given_, samples_per_class=4, halves="disjoint"),
        grasp.prune(net, mask, 20, **given_, settings=chosen),
    )
    assert _same(
        prune("snip", net, mask, 20, **given_, samples=12, mode="train"),
        snip.prune(net, mask, 20, **given_, samples=12, mode="train"),
    )
    with pytest.raises(ElthError, match=r"unknown criterion 'snop'; did you mean 'snip'\?"):
        prune("snop", net, mask, 20, **given_)
    with pytest.raises(ElthError, match="unknown setting of criterion snip 'sample'; did you mean"):
        prune("snip", net, mask, 20, **given_, sample=12)


def test_grasp_refuses_a_class_of_too_few_images() -> None:
    net, data = network("tiny"), noise(60)
    few = Noise(data.images, torch.where(data.train_labels == 1, 0, data.train_labels))
    few.train_labels[:7] = 1
    with pytest.raises(
        ElthError,
        match=r"GraSP asks for 8 training images of each class \(samples_per_class 4, batches 2\), "
        "class 1 has 7; lower samples_per_class or batches",
    ):
        _prune("grasp", net, masks.ones(net), 20, data=few, batches=2)
    with pytest.raises(ElthError, match="class 3 has 0; lower"):
        _prune("grasp", net, masks.ones(net), 20, shape=dataclasses.replace(SHAPE, classes=4))


def test_grasp_looks_at_as_many_images_as_asked() -> None:
    net = network("tiny")
    for halves, passes in (("disjoint", [6, 6, 6, 6]), ("joint", [6] * 8)):
        data = noise()
        _prune("grasp", net, masks.ones(net), 20, data=data, batches=2, halves=halves)
        assert [len(part) for part in data.asked] == passes
        assert len({i for part in data.asked for i in part}) == 24


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 12])
def test_a_batch_of_grasp_goes_through_the_network_in_parts(parts: int) -> None:
    net, data = network("tiny"), noise()
    _prune("grasp", net, masks.ones(net), 20, data=data, parts=parts)
    once, again = data.asked[:parts], data.asked[parts:]
    assert once == again, "gradient and Hessian product are taken over the same parts"
    assert sorted(i for part in once for i in part) == sorted({i for p in again for i in p})
    assert max(map(len, once)) - min(map(len, once)) <= 3, "a class more or less"
    assert sum(map(len, once)) == 12


@pytest.mark.parametrize("parts", [2, 3, 5, 12])
def test_disjoint_halves_of_grasp_share_no_image(parts: int) -> None:
    net, data = network("tiny"), noise()
    _prune("grasp", net, masks.ones(net), 20, data=data, parts=parts, halves="disjoint")
    images = [i for part in data.asked for i in part]
    assert len(data.asked) == parts
    assert len(images) == len(set(images)) == 12


def test_parts_that_cannot_be_had_are_refused() -> None:
    net = network("tiny")
    with pytest.raises(
        ElthError, match=r"has 12 images .* cannot be cut into 13 parts; lower parts"
    ):
        _prune("grasp", net, masks.ones(net), 20, parts=13)
    with pytest.raises(ElthError, match="on disjoint halves needs at least 2 parts, found 1"):
        _prune("grasp", net, masks.ones(net), 20, parts=1, halves="disjoint")


def test_the_absolute_variant_is_another_method() -> None:
    net = network("resnet14(width=1)")
    mask = masks.ones(net)
    assert not _same(_prune("grasp", net, mask, 100), _prune("grasp_absolute", net, mask, 100))


# SynFlow ----------------------------------------------------------------------------------------


def test_synflow_keeps_the_last_path_where_others_collapse() -> None:
    """Four layers and four weights: maximal critical compression (Tanaka et al. 2020, section 3).

    It holds without biases: they are sources too, and where they are large the flow needs no stem.
    """
    shape = DataShape(channels=1, size=2, classes=3)
    net = network("mlp2(width=40,last_width=2)", shape=shape)
    mask = masks.ones(net)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name not in mask:
                parameter.zero_()

    def counts(name: str, **more: int) -> list[int]:
        data = noise(shape=shape)
        found = _prune(name, net, mask, 4, shape=shape, data=data, unpruned=(), **more)
        return [int(m.sum()) for m in found.values()]

    assert 0 in counts("magnitude")
    assert 0 in counts("snip")
    assert 0 in counts("synflow", iterations=1)
    assert counts("synflow", iterations=100) == [1, 1, 1, 1]


def test_the_counts_of_synflow_fall_to_the_last() -> None:
    assert list(synflow.counts(1000, 10, 4)) == [316, 100, 31, 10]
    assert list(synflow.counts(10, 10, 3)) == [10, 10, 10]
    assert list(synflow.counts(10, 0, 3)) == [0, 0, 0]
    assert list(synflow.counts(0, 0, 2)) == [0, 0]
    long = list(synflow.counts(270_896, 14_891, 100))
    assert len(long) == 100
    assert long == sorted(long, reverse=True)
    assert long[-1] == 14_891


def test_the_registered_criteria() -> None:
    assert list(CRITERIA) == [
        "magnitude",
        "snip",
        "grasp",
        "grasp_absolute",
        "synflow",
        "random_global",
        "random_layerwise",
    ]


# Any module of PyTorch ---------------------------------------------------------------------------


class Plain(nn.Module):
    """A convolution and a linear layer, and no anatomy."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(torch.flatten(torch.relu(self.conv(x)), 1))
        return logits


@pytest.fixture(scope="module")
def shaped() -> MemoryDataset:
    """A dataset that tells its shape: 4x4 images of 10 classes."""
    return dataset(200, shape=DataShape(channels=1, size=4, classes=10))


@EVERY
def test_a_plain_module_is_pruned_from_all_of_its_weights(name: str, shaped: MemoryDataset) -> None:
    torch.manual_seed(0)
    module = Plain()
    before = state_digest(module.state_dict())
    small = SMALL.get(name, {})
    found = prune(name, module, keep=50, data=shaped, seed=0, **small)
    assert list(found) == ["conv.weight", "fc.weight"]
    assert masks.nonzeros(found) == 50
    assert state_digest(module.state_dict()) == before
    sparse = prune(name, module, sparsity=0.9, data=shaped, seed=0, **small)
    assert masks.nonzeros(sparse) == 33  # a tenth of 338
    again = prune(name, module, masks.ones(module), 50, data=shaped, seed=0, **small)
    assert _same(found, again)
    kept = prune(name, module, keep=50, data=shaped, unpruned=["conv.weight"], **small)
    assert bool(kept["conv.weight"].all())


def test_what_a_plain_module_cannot_be_asked(shaped: MemoryDataset) -> None:
    module = Plain()
    assert masks.nonzeros(prune("magnitude", module, sparsity=0.5)) == 169
    count = "say how many weights stay: keep, a number, or sparsity, a fraction of all"
    for given_, message in (
        ({}, count),
        ({"keep": 1, "sparsity": 0.5}, count),
        ({"sparsity": 1.0}, "sparsity must be at least 0 and below 1, as 0.9; found 1.0"),
        ({"sparsity": -0.1}, "sparsity must be at least 0 and below 1, as 0.9; found -0.1"),
        (
            {"sparsity": 0.999},
            "a sparsity of 0.999 would keep none of 338 weights: ask for 0.997",
        ),
        ({"keep": 339}, "cannot keep 339 weights: 338 are there"),
    ):
        with pytest.raises(ElthError, match=message):
            prune("magnitude", module, **given_)
    with pytest.raises(ElthError, match="the criterion snip needs training images; give it a data"):
        prune("snip", module, keep=50)
    with pytest.raises(ElthError, match="criterion synflow needs the shape of the data: give it a"):
        prune("synflow", module, keep=50)
    with pytest.raises(ElthError, match="Flatten has no weight to prune: expected a convolution"):
        prune("magnitude", nn.Flatten(), keep=0)


def test_batches_that_were_gone_through_are_no_batches() -> None:
    """All scores would be 0, and the mask a matter of position."""
    data, net = noise(), network("tiny")
    batches = iter([batch(data, 0, 10)])
    with pytest.raises(ElthError, match="grasp was given no batch; an iterator gives its batches"):
        grasp.scores(net, masks.ones(net), batches, batches)
    with pytest.raises(ElthError, match="snip was given no batch"):
        snip.scores(net, masks.ones(net), [])
