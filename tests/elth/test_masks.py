"""Masks by hand: counts, application, packing to bits, identity."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elth import masks
from elth.errors import ElthError
from elth.networks import DataShape, blueprint
from elth.specs import Spec
from tests.elth.helpers import IMAGE, ticket

MASK = {
    "a": torch.tensor([[True, False, False], [False, True, True]]),
    "b": torch.tensor([False, False]),
}

shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def test_ones_of_a_network() -> None:
    mask = masks.ones(blueprint("mlp2(width=4,last_width=3)", IMAGE))
    assert {name: tuple(m.shape) for name, m in mask.items()} == {
        "stem.weight": (4, 16),
        "hidden.0.weight": (4, 4),
        "tail.weight": (3, 4),
        "head.weight": (3, 3),
    }
    assert all(m.dtype is torch.bool and bool(m.all()) for m in mask.values())
    assert masks.nonzeros(mask) == masks.total(mask) == 64 + 16 + 12 + 9
    assert masks.sparsity(mask) == 0


def test_counts_by_hand() -> None:
    assert masks.total(MASK) == 8
    assert masks.nonzeros(MASK) == 3
    assert masks.sparsity(MASK) == 1 - 3 / 8
    assert masks.layer_sparsity(MASK) == {"a": 0.5, "b": 1.0}
    assert masks.collapsed(MASK) == ("b",)


@pytest.mark.parametrize(
    ("network", "counts"),
    [
        ("resnet20", (71_012, 29_085, 14_891)),
        ("resnet32", (121_747, 49_866, 25_530)),
        ("resnet56", (223_216, 91_428, 46_810)),
    ],
)
def test_nonzeros_of_the_papers(network: str, counts: tuple[int, int, int]) -> None:
    weights = masks.total(masks.ones(blueprint(network, DataShape())))
    assert tuple(masks.kept_after(0.2, k, weights) for k in (6, 10, 13)) == counts


SPARSITIES = (
    "0 20 36 48.80 59.04 67.23 73.79 79.03 83.22 86.58 89.26 91.41 93.13 94.50 95.60 96.48 97.19 "
    "97.75 98.20 98.56 98.85"
)


@pytest.mark.parametrize(
    ("rounds", "percent"), [*enumerate(float(p) for p in SPARSITIES.split()), (25, 99.62)]
)
def test_sparsity_by_round(rounds: int, percent: float) -> None:
    weights = 10**9
    found = 100 * (1 - masks.kept_after(0.2, rounds, weights) / weights)
    assert round(found, 2) == percent


def test_each_round_rounds_down() -> None:
    # 11 -> 8.8 -> 8 -> 6.4 -> 6 -> 4.8 -> 4; one rounding at the end would give 5.
    assert [masks.kept_after(0.2, k, 11) for k in range(4)] == [11, 8, 6, 4]


def test_rates_are_decimal_numbers() -> None:
    # In binary arithmetic (1 - 0.9) * 10 is 0.9999999999999998.
    assert masks.kept_after(0.9, 1, 10) == 1
    assert masks.kept_after("0.9", 1, 10) == 1
    assert masks.kept_after("0.36", 1, 100) == 64


def test_apply_makes_exact_zeros() -> None:
    state = {
        "a": torch.tensor([[1.0, float("nan"), -2.0], [float("inf"), -3.0, 4.0]]),
        "b": torch.tensor([5.0, -6.0]),
        "bias": torch.tensor([7.0]),
    }
    before = {name: tensor.clone() for name, tensor in state.items()}
    applied = masks.apply(MASK, state)
    assert list(applied) == ["a", "b", "bias"]
    assert torch.equal(applied["a"], torch.tensor([[1.0, 0.0, 0.0], [0.0, -3.0, 4.0]]))
    assert torch.equal(applied["b"], torch.zeros(2))
    assert not bool(torch.signbit(applied["b"]).any())
    assert torch.equal(applied["bias"], state["bias"])
    assert all(state[n].equal(t) or bool(t.isnan().any()) for n, t in before.items())
    assert bool(state["a"].isnan().any())


def test_apply_takes_weights_on_another_device_than_the_mask() -> None:
    state = {"a": torch.ones(2, 3, device="meta"), "b": torch.ones(2)}
    assert {one.device.type for one in masks.apply(MASK, state).values()} == {"meta", "cpu"}


def test_apply_refuses_what_does_not_fit() -> None:
    with pytest.raises(ElthError, match="the mask names 'b', which the weights lack"):
        masks.apply(MASK, {"a": torch.ones(2, 3)})
    with pytest.raises(ElthError, match=r"the mask of 'b' has shape \(2,\), its weight \(3,\)"):
        masks.apply(MASK, {"a": torch.ones(2, 3), "b": torch.ones(3)})


def test_check_accepts_a_fitting_mask() -> None:
    made = ticket("mlp2(width=4,last_width=3)")
    masks.check(made.mask, made.network, made.shape)


@pytest.mark.parametrize(
    ("name", "replacement", "message"),
    [
        ("tail.weight", None, "the mask of 'tail.weight' is missing"),
        (
            "tail.weight",
            torch.ones(4, 3, dtype=torch.bool),
            r"the mask of 'tail.weight' should have shape \(3, 4\), found \(4, 3\)",
        ),
        (
            "tail.weight",
            torch.ones(3, 4),
            "the mask of 'tail.weight' must be boolean, found torch.float32",
        ),
        ("tail.bias", torch.ones(3, dtype=torch.bool), "it has no prunable weight 'tail.bias'"),
    ],
)
def test_check_refuses_by_name(name: str, replacement: Tensor | None, message: str) -> None:
    spec = Spec.parse("mlp2(width=4,last_width=3)")
    mask = masks.ones(blueprint(spec, IMAGE))
    if replacement is None:
        del mask[name]
    else:
        mask[name] = replacement
    with pytest.raises(ElthError, match=message):
        masks.check(mask, spec, IMAGE)


def test_bits_by_hand() -> None:
    flat = torch.tensor([1, 0, 0, 1, 0, 0, 0, 1, 0, 1], dtype=torch.bool)
    packed = masks.pack({"w": flat.reshape(2, 5), "v": torch.tensor([[True]])})
    assert packed["w"].dtype is torch.uint8
    # The first weight is in the lowest bit: 1 + 8 + 128, then 2; what is left over is zero.
    assert packed["w"].tolist() == [0b1000_1001, 0b10]
    assert packed["v"].tolist() == [1]


@given(shapes, st.integers(0, 1000))
def test_pack_round_trip(shape: list[int], seed: int) -> None:
    mask = {"w": torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5}
    packed = masks.pack(mask)
    size = mask["w"].numel()
    by_hand = [int(packed["w"][i // 8]) >> (i % 8) & 1 for i in range(size)]
    assert by_hand == mask["w"].flatten().int().tolist()
    assert len(packed["w"]) == -(-size // 8)
    again = masks.unpack(packed, {"w": mask["w"].shape})
    assert torch.equal(again["w"], mask["w"])


def test_pack_goes_by_position_not_by_memory() -> None:
    weight = torch.rand(3, 2, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    strange = weight.contiguous(memory_format=torch.channels_last)
    assert torch.equal(masks.pack({"w": weight})["w"], masks.pack({"w": strange})["w"])


def test_unpack_keeps_the_order_of_the_shapes() -> None:
    shapes = {name: m.shape for name, m in MASK.items()}
    packed = dict(reversed(masks.pack(MASK).items()))
    assert list(masks.unpack(packed, shapes)) == ["a", "b"]


@pytest.mark.parametrize(
    "bits",
    [
        torch.zeros(1, dtype=torch.uint8),
        torch.zeros(3, dtype=torch.uint8),
        torch.zeros(2, dtype=torch.int8),
        torch.zeros(2, 1, dtype=torch.uint8),
    ],
)
def test_unpack_refuses_another_number_of_bytes(bits: Tensor) -> None:
    with pytest.raises(
        ElthError,
        match=r"packed mask of 'w' should be 2 bytes for shape \(3, 3\), found torch.u?int8 \(",
    ):
        masks.unpack({"w": bits}, {"w": torch.Size((3, 3))})


def test_unpack_refuses_a_missing_mask() -> None:
    with pytest.raises(ElthError, match="the packed mask of 'w' is missing"):
        masks.unpack({}, {"w": torch.Size((3, 3))})


def test_digest_by_hand() -> None:
    mask = {"w": torch.tensor([[False, True], [True, False]]), "a": torch.tensor([True])}
    expected = hashlib.sha256(b"a(1,)" + bytes([1]) + b"w(2, 2)" + bytes([0b0110])).hexdigest()
    assert masks.digest(mask) == expected
    assert masks.digest(dict(reversed(mask.items()))) == expected


def test_digest_tells_masks_apart() -> None:
    base = {"w": torch.tensor([True, False, False, True])}
    others = [
        {"v": base["w"]},
        {"w": base["w"].reshape(2, 2)},
        {"w": ~base["w"]},
        {"w": torch.tensor([True, False, False, True, False])},
    ]
    assert len({masks.digest(mask) for mask in (base, *others)}) == 5
