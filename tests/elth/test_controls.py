"""What the controls draw anew, and what they leave."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elth.controls import (
    graft,
    in_replicas,
    permute_replicated,
    reinit,
    replicas,
    shuffle_global,
    shuffle_layerwise,
)
from elth.elastic import Plan, resolve, transform
from elth.errors import ElthError
from elth.masks import Mask, digest, layer_sparsity, nonzeros
from elth.networks import build, prunable
from elth.specs import Spec
from elth.streams import stream
from elth.tickets import Ticket, state_digest
from tests.elth.helpers import IMAGE, anatomy, staged, ticket

SPEC = Spec("resnet14", (("width", 2),))


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
    fresh = reinit(Spec("resnet14"), IMAGE, 0)
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


def test_shuffle_layerwise_draws_what_it_always_drew() -> None:
    rows = {"a": torch.arange(60).reshape(6, 10) % 3 == 0, "b": torch.arange(9) < 4}
    golden = "b9912d1cd0e6e88b3f403ea27d00c5a8962498d4dbc748fbaba7c96be96d0fe9"
    assert digest(shuffle_layerwise(rows, 5, version=1)) == golden
    golden = "1e53a31d641948de604755d8bc73712f195e137342db8f2ebb45d7186e8089c6"
    assert digest(shuffle_layerwise(rows, 5)) == golden


@pytest.mark.parametrize("shuffle", [shuffle_layerwise, shuffle_global])
def test_random_masks_of_two_rounds_are_drawn_independently(shuffle: Any) -> None:
    """Version 1 permuted all rounds alike, so that the later mask lay within the earlier one."""
    early = {"a": torch.arange(4000).reshape(40, 100) % 2 == 0}
    late = {"a": early["a"] & (torch.arange(4000).reshape(40, 100) % 4 == 0)}
    shared = {}
    for version in (1, 2):
        one, other = (shuffle(mask, 0, version=version)["a"] for mask in (early, late))
        assert (int(one.sum()), int(other.sum())) == (2000, 1000)
        shared[version] = int((one & other).sum())
    assert shared[1] == 1000
    assert abs(shared[2] - 500) < 5 * 11.2  # hypergeometric: mean 500, deviation 11.2
    again = shuffle(late, 0)["a"]
    assert torch.equal(again, shuffle({"a": late["a"].clone()}, 0)["a"])


def _density(mask: Mask) -> dict[str, int]:
    return {name: int(m.sum()) for name, m in mask.items()}


def test_shuffle_global_keeps_the_total_and_mixes_the_layers() -> None:
    mask = {"a": torch.ones(20, 30, dtype=torch.bool), "b": torch.zeros(4, 3, 5, 5) > 0}
    shuffled = shuffle_global(mask, 0)
    assert {n: (m.shape, m.dtype) for n, m in shuffled.items()} == {
        n: (m.shape, m.dtype) for n, m in mask.items()
    }
    assert nonzeros(shuffled) == 600
    # 600 of 900 are kept: 400 expected in the first layer, with a deviation of 6.7.
    assert abs(_density(shuffled)["a"] - 400) < 40
    assert bool(mask["a"].all())


def test_shuffle_global_follows_the_seed_and_has_its_own_stream() -> None:
    row = {"a": torch.arange(100) < 50}
    first, again, other = (shuffle_global(row, seed)["a"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, shuffle_layerwise(row, 0)["a"])


@given(st.integers(0, 2**32), st.sets(st.sampled_from(["conv1.weight", "fc.weight"])))
@settings(max_examples=20)
def test_shuffle_global_leaves_the_unpruned(seed: int, unpruned: set[str]) -> None:
    mask = ticket(str(SPEC)).mask
    shuffled = shuffle_global(mask, seed, unpruned=unpruned)
    assert list(shuffled) == list(mask)
    assert nonzeros(shuffled) == nonzeros(mask)
    for name in mask:
        assert torch.equal(shuffled[name], mask[name]) or name not in unpruned
        assert shuffled[name].data_ptr() != mask[name].data_ptr()
    assert digest(shuffled) != digest(mask)
    everything = shuffle_global(mask, seed, unpruned=mask)
    assert digest(everything) == digest(mask)


def test_shuffle_global_refuses_an_unknown_weight() -> None:
    with pytest.raises(ElthError, match="unknown unpruned weight 'fc.weigth'; did you mean 'fc.w"):
        shuffle_global({"fc.weight": torch.ones(2) > 0}, 0, unpruned=["fc.weigth"])


@pytest.mark.parametrize(
    ("source", "target", "text", "places"),
    [
        ("resnet32", "resnet56", "interpolate", (2, 4, 6, 8)),
        ("resnet32", "resnet56", "append", (5, 6, 7, 8)),
        ("resnet32", "resnet56", "append:1,2", (3, 4, 5, 6)),
        ("resnet20", "resnet56", "interpolate:1,2x4", (2, 3, 4, 6, 7, 8)),
        ("resnet20", "resnet32", "drop:1+append", (2, 3, 4)),
        ("resnet56", "resnet32", "drop:1-4", ()),
        ("resnet20", "resnet20", "identity", ()),
        ("resnet20", "resnet20", "0 2 1", ()),
    ],
)
def test_replicas(source: str, target: str, text: str, places: tuple[int, ...]) -> None:
    ends = (anatomy(source), anatomy(target))
    expected = tuple((stage, place) for stage in range(3) for place in places)
    assert replicas(resolve(text, *ends), *ends) == expected


@given(st.lists(st.lists(st.integers(0, 4), max_size=9), min_size=1, max_size=3))
def test_originals_and_replicas_make_the_target(stages: list[list[int]]) -> None:
    plan = Plan(tuple(tuple(stage) for stage in stages))
    ends = (staged(*[5] * len(stages), fixed=()), staged(*map(len, stages), fixed=()))
    found = replicas(plan, *ends)
    assert list(found) == sorted(set(found))
    for number, stage in enumerate(stages):
        copies = {place for s, place in found if s == number}
        originals = [stage[place] for place in range(len(stage)) if place not in copies]
        assert sorted(originals) == sorted(set(stage))
        assert all(stage.index(unit) not in copies for unit in stage)


def test_replicas_refuse_a_plan_that_does_not_fit() -> None:
    with pytest.raises(ElthError, match="stage layer1: the plan fills 2 units"):
        replicas(Plan(((0, 1),) * 3), anatomy("resnet14"), anatomy("resnet20"))


def test_names_in_replicas_do_not_mix_up_two_digits() -> None:
    source, target = anatomy("resnet32"), anatomy("resnet110")
    plan = Plan(((0, 1, 2, 3, 4, *(1,) * 13), *((0, *(1,) * 17),) * 2))
    names = ("conv1.weight", "layer1.1.conv1.weight", "layer1.5.bn1.bias", "layer1.10.bn1.bias")
    assert in_replicas(plan, source, target, names) == names[2:]
    other = Plan(((0, *range(4, 0, -1), *(1,) * 13), *plan.stages[1:]))
    assert in_replicas(other, source, target, ("layer1.1.bn1.bias",)) == ()


def _stretched(text: str = "interpolate") -> tuple[Ticket, Plan]:
    plan = resolve(text, anatomy("resnet20"), anatomy("resnet32"))
    return transform(ticket("resnet20(width=2)"), "resnet32(width=2)", plan), plan


ENDS = (anatomy("resnet20"), anatomy("resnet32"))
REPLICATED = {f"layer{s}.{p}.conv{c}.weight" for s in (1, 2, 3) for p in (2, 4) for c in (1, 2)}


def test_permuting_the_replicated_units_leaves_the_others() -> None:
    stretched, plan = _stretched()
    before = digest(stretched.mask)
    mask = permute_replicated(stretched, plan, *ENDS, 0)
    assert digest(stretched.mask) == before
    assert list(mask) == list(stretched.mask)
    assert layer_sparsity(mask) == layer_sparsity(stretched.mask)
    moved = {name for name, m in mask.items() if not torch.equal(m, stretched.mask[name])}
    assert moved == REPLICATED == set(in_replicas(plan, *ENDS, mask))
    again, other = (permute_replicated(stretched, plan, *ENDS, seed) for seed in (0, 1))
    assert digest(again) == digest(mask) != digest(other)
    for name in mask.keys() - REPLICATED:
        assert mask[name].data_ptr() != stretched.mask[name].data_ptr()


def test_permuting_where_nothing_is_replicated_changes_nothing() -> None:
    before = ticket("resnet20(width=2)")
    plan = Plan(((0, 1, 2),) * 3)
    mask = permute_replicated(before, plan, ENDS[0], ENDS[0], 0)
    assert digest(mask) == digest(before.mask)


def test_a_graft_replaces_the_replicated_units() -> None:
    stretched, plan = _stretched("append:1")
    fresh = reinit(stretched.network, IMAGE, 0)
    fresh_digest, stretched_digest = state_digest(fresh), state_digest(stretched.rewind)
    grafted = graft(stretched, plan, *ENDS, fresh)
    assert list(grafted.rewind) == list(stretched.rewind)
    units = tuple(f"layer{s}.{p}." for s in (1, 2, 3) for p in (2, 3))
    for name, tensor in grafted.rewind.items():
        origin = fresh if name.startswith(units) else stretched.rewind
        assert torch.equal(tensor, origin[name]), name
    for name, m in grafted.mask.items():
        assert bool(m.all()) if name.startswith(units) else torch.equal(m, stretched.mask[name])
    assert grafted.origin["history"] == [
        *stretched.origin["history"],
        {"graft": "replicated units"},
    ]
    for tensor in (*grafted.rewind.values(), *grafted.mask.values()):
        tensor.zero_()
    assert state_digest(fresh) == fresh_digest
    assert state_digest(stretched.rewind) == stretched_digest
    assert stretched.nonzeros > 0


def test_an_mlp_by_hand() -> None:
    source, target = anatomy("mlp2"), anatomy("mlp4")
    plan = Plan(((0, 0, 0),))
    before = transform(ticket("mlp2(width=2,last_width=1)"), "mlp4(width=2,last_width=1)", plan)
    fresh = {name: torch.zeros_like(t) for name, t in before.rewind.items()}
    grafted = graft(before, plan, source, target, fresh)
    zeros = [name for name, t in grafted.rewind.items() if not bool(t.any())]
    assert zeros == ["hidden.1.weight", "hidden.1.bias", "hidden.2.weight", "hidden.2.bias"]
    assert in_replicas(plan, source, target, before.mask) == ("hidden.1.weight", "hidden.2.weight")


def test_what_does_not_fit_is_refused() -> None:
    stretched, plan = _stretched()
    small = ticket("resnet20(width=2)")
    message = (
        r"the ticket is of resnet20\(width=2\), whose stages have 3, 3, 3 units; the target's have "
        "5, 5, 5: give the ticket that the plan has made"
    )
    with pytest.raises(ElthError, match=message):
        permute_replicated(small, plan, *ENDS, 0)
    with pytest.raises(ElthError, match=message):
        graft(small, plan, *ENDS, small.rewind)
    with pytest.raises(
        ElthError, match=r"the state to graft does not fit resnet32\(width=2\): tensor 'layer1.3.co"
    ):
        graft(stretched, plan, *ENDS, small.rewind)
    with pytest.raises(ElthError, match="stage layer1: the source has no unit 2"):
        permute_replicated(stretched, plan, anatomy("resnet14"), ENDS[1], 0)
