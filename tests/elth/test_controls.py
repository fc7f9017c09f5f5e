"""What the controls draw anew, and what they leave."""

from __future__ import annotations

import torch

from elth.controls import reinit, shuffle_layerwise
from elth.masks import layer_sparsity
from elth.networks import NetworkSpec, build, prunable
from elth.streams import stream
from tests.elth.helpers import IMAGE

SPEC = NetworkSpec("resnet14", (("width", 2),))


def test_reinit_draws_everything_anew() -> None:
    network = build(SPEC, IMAGE, generator=stream(3, "init"))
    initial, fresh = network.state_dict(), reinit(SPEC, IMAGE, 3)
    assert list(fresh) == list(initial)
    drawn = {
        *prunable(network),
        *(n for n in initial if "bn" in n and n.endswith("weight")),
        "layer2.0.downsample.1.weight",
        "fc.bias",
    }
    assert len(drawn) == 16 + 13 + 1 + 1
    for name in drawn:
        assert not torch.equal(fresh[name], initial[name])


def test_reinit_follows_the_seed() -> None:
    first, again, other = (reinit(SPEC, IMAGE, seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_reinit_follows_the_law_of_initialisation() -> None:
    fresh = reinit(NetworkSpec("resnet14"), IMAGE, 0)
    weight = fresh["layer3.1.conv2.weight"]
    assert abs(float(weight.std()) / (2 / 576) ** 0.5 - 1) < 0.02
    scale = fresh["layer3.1.bn2.weight"]
    assert 0 <= float(scale.min()) < float(scale.max()) < 1


def test_shuffle_keeps_the_counts_of_layers_and_moves_the_places() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = {
        name: torch.rand(shape, generator=generator) < density
        for name, shape, density in (("a", (20, 30), 0.3), ("b", (4, 3, 3, 3), 0.5), ("c", (9,), 0))
    }
    before = {name: m.clone() for name, m in mask.items()}
    shuffled = shuffle_layerwise(mask, 0)
    assert list(shuffled) == list(mask)
    assert layer_sparsity(shuffled) == layer_sparsity(mask)
    assert {n: m.shape for n, m in shuffled.items()} == {n: m.shape for n, m in mask.items()}
    assert all(m.dtype is torch.bool for m in shuffled.values())
    assert not torch.equal(shuffled["a"], mask["a"])
    assert not torch.equal(shuffled["b"], mask["b"])
    assert all(torch.equal(mask[n], before[n]) for n in mask)


def test_shuffle_follows_the_seed_and_treats_layers_apart() -> None:
    row = torch.arange(100) < 50
    first, again, other = (shuffle_layerwise({"a": row, "b": row}, seed) for seed in (0, 0, 1))
    assert torch.equal(first["a"], again["a"])
    assert torch.equal(first["b"], again["b"])
    assert not torch.equal(first["a"], first["b"])
    assert not torch.equal(first["a"], other["a"])


def test_shuffle_is_uniform() -> None:
    one = {"w": torch.arange(8) == 0}
    places = torch.tensor([int(shuffle_layerwise(one, s)["w"].nonzero()) for s in range(800)])
    # 100 expected for each place, with a deviation of 9.4.
    assert all(60 < count < 140 for count in torch.bincount(places, minlength=8).tolist())
