"""Changes of width: the notation, the function that doubling keeps, and what each manner moves."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elth.elastic import Width, change_width, check_width, is_width, parse_width, resolve
from elth.errors import ElthError
from elth.masks import layer_sparsity, nonzeros
from elth.networks import NETWORKS, DataShape, blueprint, build, options, prunable
from elth.specs import Spec
from elth.tickets import Ticket, state_digest
from tests.elth.helpers import IMAGE, anatomy, ticket

COLOUR = DataShape(channels=3, size=32, classes=5)
MLP = "mlp2(width=2,last_width=1)"
MLP_WIDE = "mlp2(width=4,last_width=2)"


def _of_each_family() -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for name in NETWORKS:
        if "width" in options(name):
            found.setdefault(blueprint(name, COLOUR).anatomy.family, name)
    pairs = [(f"{name}(width=4)", f"{name}(width=8)") for name in found.values()]
    padded = [name for name in found.values() if options(name).get("shortcut", "pad") != "pad"]
    pairs += [(f"{n}(shortcut=pad,width=4)", f"{n}(shortcut=pad,width=8)") for n in padded]
    return [
        *pairs,
        ("vgg13(fc=3,width=2)", "vgg13(fc=3,width=4)"),
        ("resnet14(bn_affine=false,width=3)", "resnet14(bn_affine=false,width=6)"),
        ("mlp3(width=4,last_width=3)", "mlp3(width=8,last_width=6)"),
    ]


def _ticket(spec: str, shape: DataShape = COLOUR, seed: int = 0) -> Ticket:
    """A ticket as training leaves it: nothing is 0 or 1 in its batch normalisation."""
    generator = torch.Generator().manual_seed(seed)
    state = build(spec, shape, generator=generator).state_dict()
    for name, tensor in state.items():
        if tensor.dim() == 1:
            law = (0.5, 1.5) if name.endswith(("weight", "running_var")) else (-0.5, 0.5)
            tensor.uniform_(*law, generator=generator)
    mask = {
        name: torch.rand(state[name].shape, generator=generator) < 0.6
        for name in prunable(blueprint(spec, shape))
    }
    return Ticket(network=Spec.parse(spec), shape=shape, rewind=state, mask=mask)


def _logits(of: Ticket, *, train: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits in double precision, and the state that the pass leaves."""
    network = of.make_network().double().train(train)
    generator = torch.Generator().manual_seed(7)
    size = (4, of.shape.channels, of.shape.size, of.shape.size)
    with torch.no_grad():
        logits: Tensor = network(torch.randn(size, generator=generator, dtype=torch.float64))
    return logits, network.state_dict()


@pytest.mark.parametrize(("narrow", "wide"), _of_each_family())
def test_a_doubled_network_computes_the_same_function(narrow: str, wide: str) -> None:
    before = _ticket(narrow)
    after = change_width(before, wide, "double", 0)
    assert layer_sparsity(after.mask) == layer_sparsity(before.mask)
    for train in (False, True):
        (old, left), (new, wide_left) = (_logits(t, train=train) for t in (before, after))
        assert float(old.std(dim=0).max()) > 1e-4  # the images are told apart
        scale = float(old.abs().max())
        assert float((new - old).abs().max()) < 1e-10 * scale
        for name in (n for n in left if n.endswith("running_mean")):
            torch.testing.assert_close(
                wide_left[name].sort().values, left[name].repeat(2).sort().values
            )
    back = change_width(after, narrow, "halve:rescale", 0)
    assert state_digest(back.rewind) == state_digest(before.rewind)
    assert list(back.rewind) == list(before.rewind)
    assert all(torch.equal(back.mask[name], m) for name, m in before.mask.items())


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([("resnet14", 1), ("resnet20", 3), ("mlp3", 1), ("mlp3", 5)]),
    st.integers(0, 2**32),
)
def test_halving_undoes_doubling_bit_for_bit(case: tuple[str, int], seed: int) -> None:
    name, width = case
    before = _ticket(f"{name}(width={width})", IMAGE, seed)
    there = change_width(before, f"{name}(width={2 * width})", "double", seed)
    back = change_width(there, f"{name}(width={width})", "halve:rescale", seed)
    assert state_digest(back.rewind) == state_digest(before.rewind)
    assert all(torch.equal(back.mask[n], m) for n, m in before.mask.items())
    plain = change_width(there, f"{name}(width={width})", "halve", seed)
    assert all(torch.equal(plain.mask[n], m) for n, m in before.mask.items())
    for n, tensor in plain.rewind.items():
        halved = tensor.dim() > 1 and there.rewind[n].shape[1] != tensor.shape[1]
        assert torch.equal(tensor, before.rewind[n] / (2 if halved else 1))


def test_doubling_by_hand() -> None:
    shape = DataShape(channels=2, size=1, classes=2)
    before = ticket("mlp1(width=2,last_width=1)", shape)
    before = dataclasses.replace(
        before,
        rewind={
            "stem.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
            "stem.bias": torch.tensor([5.0, 6.0]),
            "tail.weight": torch.tensor([[8.0, 10.0]]),
            "tail.bias": torch.tensor([7.0]),
            "head.weight": torch.tensor([[2.0], [4.0]]),
            "head.bias": torch.tensor([1.0, 0.0]),
        },
        mask={
            "stem.weight": torch.tensor([[True, False], [True, True]]),
            "tail.weight": torch.tensor([[True, False]]),
            "head.weight": torch.tensor([[True], [False]]),
        },
    )
    after = change_width(before, "mlp1(width=4,last_width=2)", "double", 0)
    assert {name: t.tolist() for name, t in after.rewind.items()} == {
        "stem.weight": [[1, 2], [3, 4], [1, 2], [3, 4]],
        "stem.bias": [5, 6, 5, 6],
        "tail.weight": [[4, 5, 4, 5], [4, 5, 4, 5]],
        "tail.bias": [7, 7],
        "head.weight": [[1, 1], [2, 2]],
        "head.bias": [1, 0],
    }
    assert {name: m.int().tolist() for name, m in after.mask.items()} == {
        "stem.weight": [[1, 0], [1, 1], [1, 0], [1, 1]],
        "tail.weight": [[1, 0, 1, 0], [1, 0, 1, 0]],
        "head.weight": [[1, 1], [0, 0]],
    }
    back = change_width(after, before.network, "halve", 0)
    assert back.rewind["tail.weight"].tolist() == [[4, 5]]
    assert back.rewind["head.weight"].tolist() == [[1], [2]]
    assert back.rewind["stem.bias"].tolist() == [5, 6]
    only_one = change_width(before, "mlp1(width=4,last_width=1)", "double", 0)
    assert only_one.rewind["tail.weight"].tolist() == [[4, 5, 4, 5]]
    assert only_one.rewind["head.weight"].tolist() == [[2], [4]]


def test_halving_drops_the_later_channels_as_they_are() -> None:
    before = ticket("resnet14(width=4)")
    after = change_width(before, "resnet14(width=2)", "halve", 0)
    for name, tensor in after.rewind.items():
        whole = before.rewind[name]
        part = whole[tuple(slice(n) for n in tensor.shape)]
        assert torch.equal(tensor, part), name
    weight = "layer2.0.downsample.0.weight"
    assert torch.equal(after.mask[weight], before.mask[weight][:4, :2])


def test_batch_normalisation_is_copied_along() -> None:
    before = ticket("resnet14(width=2)")
    after = change_width(before, "resnet14(width=4)", "double:gaussian", 0)
    for part in ("weight", "bias", "running_mean", "running_var"):
        name = f"layer2.1.bn2.{part}"
        assert torch.equal(after.rewind[name], before.rewind[name].repeat(2))
    counter = "bn1.num_batches_tracked"
    assert torch.equal(after.rewind[counter], before.rewind[counter])


def test_noise_leaves_masks_and_pruned_weights() -> None:
    before = _ticket("resnet14(width=4)")
    before.mask["layer1.0.conv1.weight"].zero_()
    plain = change_width(before, "resnet14(width=8)", "double", 3)
    noisy = change_width(before, "resnet14(width=8)", "double:gaussian", 3)
    for name, m in plain.mask.items():
        assert torch.equal(noisy.mask[name], m)
        old, new = plain.rewind[name], noisy.rewind[name]
        assert torch.equal(new[~m], old[~m])
        if bool(m.any()):
            assert not torch.equal(new[m], old[m])
    weights = set(prunable(blueprint(noisy.network, COLOUR)))
    for name in plain.rewind.keys() - weights:
        assert torch.equal(noisy.rewind[name], plain.rewind[name])


@pytest.mark.parametrize(
    ("text", "relative"), [("double:gaussian", 0.1), ("double:gaussian:0.02", 0.02)]
)
def test_noise_is_relative_to_the_kept_weights_and_breaks_the_symmetry(
    text: str, relative: float
) -> None:
    before = _ticket("resnet14(width=8)")
    name = "layer3.1.conv2.weight"
    before.rewind[name][~before.mask[name]] = 1e6
    plain = change_width(before, "resnet14(width=16)", "double", 3)
    noisy = change_width(before, "resnet14(width=16)", text, 3)
    kept = plain.mask[name]
    old, new = plain.rewind[name][kept], noisy.rewind[name][kept]
    ratio = float((new - old).std() / old.square().mean().sqrt())
    assert abs(ratio / relative - 1) < 0.05
    half = noisy.rewind[name].shape[0] // 2
    assert not torch.equal(noisy.rewind[name][:half], noisy.rewind[name][half:])


def _pairs(of: Ticket, name: str) -> Tensor:
    """The (weight, mask) pairs of a layer, in the order of weight, then mask."""
    pairs = torch.stack((of.rewind[name].flatten(), of.mask[name].flatten().float()), dim=1)
    return torch.tensor(sorted(pairs.tolist()))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_a_permutation_keeps_the_pairs_of_weight_and_mask(seed: int) -> None:
    before = ticket("resnet14(width=2)")
    plain = change_width(before, "resnet14(width=4)", "double", seed)
    moved = change_width(before, "resnet14(width=4)", "double:permute", seed)
    for name in plain.mask:
        assert torch.equal(_pairs(moved, name), _pairs(plain, name))
        assert not torch.equal(moved.rewind[name], plain.rewind[name])
    for name in plain.rewind.keys() - plain.mask.keys():
        assert torch.equal(moved.rewind[name], plain.rewind[name])


@pytest.mark.parametrize("text", ["double:gaussian", "double:permute"])
def test_draws_follow_the_seed(text: str) -> None:
    before = ticket(MLP)
    first, again, other = (
        state_digest(change_width(before, MLP_WIDE, text, seed).rewind) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_the_source_is_left_as_it_is_and_shares_no_memory() -> None:
    before = ticket("mlp2(width=2,last_width=2)")
    digest, kept = state_digest(before.rewind), nonzeros(before.mask)
    after = change_width(before, "mlp2(width=4,last_width=2)", "double:gaussian", 0)
    for tensor in (*after.rewind.values(), *after.mask.values()):
        tensor.zero_()
    assert state_digest(before.rewind) == digest
    assert nonzeros(before.mask) == kept


def test_history_grows() -> None:
    before = dataclasses.replace(ticket(MLP), origin={"seed": 1, "history": [{"imp_round": 6}]})
    after = change_width(before, MLP_WIDE, "double:gaussian:0.10", 0)
    assert before.origin == {"seed": 1, "history": [{"imp_round": 6}]}
    assert after.origin["history"] == [
        {"imp_round": 6},
        {
            "width": "double:gaussian",
            "source": "mlp2(last_width=1, width=2)",
            "target": "mlp2(last_width=2, width=4)",
            "source_nonzeros": before.nonzeros,
        },
    ]
    back = change_width(after, MLP, parse_width("halve"), 0)
    assert back.origin["history"][-1]["source_nonzeros"] == after.nonzeros


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("double", "double"),
        (" halve ", "halve"),
        ("halve:rescale", "halve:rescale"),
        ("double:permute", "double:permute"),
        ("double:gaussian", "double:gaussian"),
        ("double:gaussian:.1", "double:gaussian"),
        ("double:gaussian:0.050", "double:gaussian:0.05"),
        ("double:gaussian:1", "double:gaussian:1"),
        ("double:gaussian:2e-7", "double:gaussian:2e-07"),
    ],
)
def test_notation(text: str, canonical: str) -> None:
    width = parse_width(text)
    assert str(width) == canonical
    assert parse_width(canonical) == width
    assert is_width(text)


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_any_noise_is_read_back(noise: float) -> None:
    width = Width("double", "gaussian", noise)
    assert parse_width(str(width)) == width


def test_a_change_of_width_is_told_from_a_plan() -> None:
    assert is_width("double:gausian")
    assert is_width("halve :rescale")
    for text in ("append:1,2", "0 1 1", "drop", "auto", "identity", "", "append:double"):
        assert not is_width(text)
    with pytest.raises(
        ElthError, match="'double' changes width and moves no units, .* elth.change_width does it"
    ):
        resolve("double", anatomy("resnet14"), anatomy("resnet14"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("duble", "unknown change of width 'duble'; did you mean 'double'?"),
        ("double:gausian", "unknown way to double 'gausian'; did you mean 'gaussian'?"),
        ("halve:permute", "unknown way to halve 'permute' (there is: rescale)"),
        ("double:gaussian:x", "cannot read the change of width 'double:gaussian:x': write double"),
        ("double:", "cannot read the change of width 'double:'"),
        ("double:gaussian:", "cannot read the change of width 'double:gaussian:'"),
        ("double:gaussian:-1", "cannot read the change of width 'double:gaussian:-1'"),
        ("double:gaussian:0.1:2", "cannot read the change of width"),
        ("double:gaussian:0", "the noise of 'double:gaussian' is 0.0; expected a number above 0"),
        ("double:gaussian:1e999", "the noise of 'double:gaussian' is inf; expected a number"),
        ("double:permute:0.1", "the noise of 'double:permute' is 0.1; expected a number above 0"),
        ("", "cannot read the change of width ''"),
    ],
)
def test_notations_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(ElthError, match=re.escape(message)):
        parse_width(text)


@pytest.mark.parametrize(
    ("width", "source", "target", "message"),
    [
        (
            "double",
            "resnet14(width=4)",
            "resnet14(width=12)",
            "'conv1.weight' has shape (4, 1, 3, 3) in resnet14(width=4) and (12, 1, 3, 3) in "
            "resnet14(width=12): double needs a target of twice the width",
        ),
        (
            "double",
            "resnet14(width=4)",
            "resnet14(width=2)",
            "'conv1.weight' has shape (4, 1, 3, 3) in resnet14(width=4) and (2, 1, 3, 3) in "
            "resnet14(width=2): double needs a target of twice the width",
        ),
        (
            "halve",
            "resnet14(width=4)",
            "resnet14(width=8)",
            "halve needs a target of half the width",
        ),
        (
            "double",
            "mlp1(width=2,last_width=3)",
            "mlp1(width=4,last_width=4)",
            "'tail.weight' has shape (3, 2) in mlp1(last_width=3, width=2) and (4, 4) in "
            "mlp1(last_width=4, width=4)",
        ),
        (
            "halve",
            "resnet14",
            "resnet14",
            "resnet14 and resnet14 are of one width ('conv1.weight' has shape (16, 1, 3, 3) in "
            "both): halve needs a target of half the width",
        ),
        (
            "double",
            "resnet14",
            "resnet20(width=32)",
            "stage layer1 has 2 units in resnet14 and 3 in resnet20(width=32): change the width "
            "between networks of one depth, and the depth by a plan",
        ),
        (
            "double",
            "resnet14(shortcut=pad)",
            "resnet14(width=32)",
            "resnet14(width=32) has a tensor 'layer2.0.downsample.0.weight', "
            "resnet14(shortcut=pad) has none: double needs two networks that differ in width only",
        ),
        (
            "halve",
            "resnet14(shortcut=pad,width=6)",
            "resnet14(shortcut=pad,width=3)",
            "'conv1.weight' has shape (6, 1, 3, 3) in resnet14(shortcut=pad, width=6) and "
            "(3, 1, 3, 3) in resnet14(shortcut=pad, width=3): beside a zero-padded shortcut an odd "
            "number of channels cannot be doubled evenly",
        ),
        ("double", "mlp1", "mlp2(width=600)", "stage hidden has 0 units in mlp1 and 1 in mlp2"),
        ("double", "resnet14", "mlp1", "one family of networks: found cifar-resnet with 3 stages"),
        ("double", "resnet14", "resnet15", "unknown network 'resnet15'"),
    ],
)
def test_networks_that_are_refused(width: str, source: str, target: str, message: str) -> None:
    with pytest.raises(ElthError, match=re.escape(message)):
        check_width(parse_width(width), source, target, IMAGE)
    with pytest.raises(ElthError, match=re.escape(message)):
        change_width(ticket(source), target, width, 0)
