"""Tickets: what they refuse, their file, and what is done about a bad one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from elth import masks
from elth.elastic import move
from elth.errors import ElthError
from elth.networks import DataShape
from elth.specs import Spec
from elth.tickets import Ticket, state_digest
from tests.elth.helpers import IMAGE, ticket

NAME = "resnet14(width=2)"


@pytest.fixture
def made() -> Ticket:
    """A ticket with an origin."""
    origin = {"dataset": "digits", "seed": 3, "history": [{"imp_round": 6}]}
    return dataclasses.replace(ticket(NAME), origin=origin)


@pytest.fixture
def path(made: Ticket, tmp_path: Path) -> Path:
    """The file of the ticket."""
    made.save(tmp_path / "ticket.safetensors")
    return tmp_path / "ticket.safetensors"


def _change(path: Path, tensors: dict[str, Tensor | None], **metadata: Any) -> None:
    """Write the file again with some tensors and metadata changed, or without those of None."""
    with safe_open(path, framework="pt") as file:
        text = json.loads(file.metadata()["elth"])
    merged = {**load_file(path), **tensors}
    text = {k: v for k, v in {**text, **metadata}.items() if v is not None}
    save_file({n: t for n, t in merged.items() if t is not None}, path, {"elth": json.dumps(text)})


def test_round_trip(made: Ticket, path: Path) -> None:
    again = Ticket.load(str(path))
    assert again.network == made.network == Spec("resnet14", (("width", 2),))
    assert again.shape == made.shape
    assert again.origin == made.origin
    assert again.rewind.keys() == made.rewind.keys()
    for name, tensor in made.rewind.items():
        assert again.rewind[name].dtype is tensor.dtype
        assert torch.equal(again.rewind[name], tensor)
    assert list(again.mask) == list(made.mask)
    assert all(torch.equal(again.mask[name], m) for name, m in made.mask.items())
    assert again.nonzeros == made.nonzeros == masks.nonzeros(made.mask)
    assert again.sparsity == made.sparsity == masks.sparsity(made.mask)


def test_the_digest_is_of_weights_and_mask_alone(made: Ticket, path: Path) -> None:
    assert made.digest == Ticket.load(path).digest
    assert made.digest == dataclasses.replace(made, origin={}).digest
    mask = {**made.mask, "conv1.weight": ~made.mask["conv1.weight"]}
    weights = {**made.rewind, "conv1.weight": made.rewind["conv1.weight"] + 1}
    others = [dataclasses.replace(made, mask=mask), dataclasses.replace(made, rewind=weights)]
    assert len({made.digest, *(other.digest for other in others)}) == 3
    both = f"rewind {state_digest(made.rewind)}\nmask {masks.digest(made.mask)}\n"
    assert made.digest == hashlib.sha256(both.encode()).hexdigest()


def test_where_a_moved_ticket_starts_is_in_its_file(made: Ticket, tmp_path: Path) -> None:
    move(made, DataShape(channels=1, size=4, classes=7), 0).save(tmp_path / "moved.safetensors")
    again = Ticket.load(tmp_path / "moved.safetensors")
    assert again.origin["start"] == 0
    assert again.origin["history"][-1] == {"move": "fresh head", "classes": 7}


def test_weights_outside_the_mask_are_kept_in_the_file(made: Ticket, path: Path) -> None:
    pruned = ~made.mask["conv1.weight"]
    assert bool(made.rewind["conv1.weight"][pruned].all())
    assert bool(Ticket.load(path).rewind["conv1.weight"][pruned].all())


def test_the_file_needs_safetensors_and_numpy_alone(made: Ticket, path: Path) -> None:
    with safe_open(path, framework="numpy") as file:
        metadata = json.loads(file.metadata()["elth"])
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    assert metadata["kind"] == "ticket"
    assert metadata["format"] == 1
    assert metadata["network"] == NAME
    assert metadata["shape"] == {"channels": 1, "size": 4, "classes": 3}
    assert metadata["nonzeros"] == made.nonzeros
    assert metadata["prunable"] == masks.total(made.mask)
    assert metadata["origin"] == made.origin
    rewind = {n.removeprefix("rewind/") for n in tensors if n.startswith("rewind/")}
    assert rewind == set(made.rewind)
    packed = {n.removeprefix("mask/"): t for n, t in tensors.items() if n.startswith("mask/")}
    assert packed.keys() == made.mask.keys()
    assert len(tensors) == len(rewind) + len(packed)
    for name, bits in packed.items():
        weight = tensors[f"rewind/{name}"]
        assert np.array_equal(weight, made.rewind[name].numpy())
        assert bits.dtype == np.uint8
        place = np.arange(weight.size)
        mask = (bits[place // 8] >> (place % 8).astype(np.uint8) & 1).astype(bool)
        assert np.array_equal(mask.reshape(weight.shape), made.mask[name].numpy())


def test_weights_and_network_are_masked(made: Ticket) -> None:
    before = {name: tensor.clone() for name, tensor in made.rewind.items()}
    weights = made.weights()
    state = made.make_network().state_dict()
    assert list(weights) == list(state) == list(made.rewind)
    for name, tensor in made.rewind.items():
        expected = tensor * made.mask[name] if name in made.mask else tensor
        assert torch.equal(weights[name], expected)
        assert torch.equal(state[name], expected)
        assert torch.equal(tensor, before[name])


def test_a_network_is_named_in_its_canonical_form() -> None:
    made = ticket("mlp1(width=4,last_width=3)")
    long = Spec("mlp1", (("width", 4), ("last_width", 3)))
    assert str(dataclasses.replace(made, network=long).network) == "mlp1(last_width=3, width=4)"


def test_weights_that_do_not_fit_are_refused(made: Ticket) -> None:
    rewind = made.rewind | {"bn1.weight": torch.ones(3)}
    with pytest.raises(
        ElthError,
        match=r"ticket does not fit resnet14\(width=2\): tensor 'bn1.weight' should have shape "
        r"\(2,\), found \(3,\)",
    ):
        dataclasses.replace(made, rewind=rewind)


def test_masks_that_do_not_fit_are_refused(made: Ticket) -> None:
    mask = {name: m for name, m in made.mask.items() if name != "fc.weight"}
    with pytest.raises(ElthError, match="the mask of 'fc.weight' is missing"):
        dataclasses.replace(made, mask=mask)


def test_another_network_is_refused(made: Ticket) -> None:
    with pytest.raises(ElthError, match=r"fit resnet20\(.*: tensor 'layer1.2.conv1.weight' is mis"):
        dataclasses.replace(made, network=Spec.parse("resnet20(width=2)"))
    with pytest.raises(ElthError, match=r"'conv1.weight' should have shape \(16, 1, 3, 3\), found"):
        dataclasses.replace(made, network=Spec.parse("resnet14"))
    with pytest.raises(ElthError, match=r"should have shape \(2, 3, 3, 3\), found \(2, 1, 3, 3\)"):
        dataclasses.replace(made, shape=DataShape())


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_truncated_file(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ElthError, match="is no whole safetensors file .*make it again"):
        Ticket.load(path)


def test_a_missing_or_foreign_file(path: Path) -> None:
    with pytest.raises(ElthError, match="there is no file"):
        Ticket.load(path.with_name("other"))
    save_file({"w": torch.zeros(1)}, path)
    with pytest.raises(ElthError, match="is a safetensors file but no ticket of elth"):
        Ticket.load(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"kind": "mask"}, "is a safetensors file but no ticket of elth"),
        ({"format": 2}, "has ticket format 2; this version reads 1"),
        ({"format": None}, "has ticket format None; this version reads 1"),
        ({"network": None}, r"ticket.safetensors: it does not say for which network .*'network'"),
        ({"shape": None}, r"it does not say for which network it is \('shape'\)"),
        ({"shape": {"channels": 1, "sides": 6}}, "it does not say for which .*unexpected keyword"),
        ({"shape": {"channels": 0}}, "channels must be a whole number of at least 1, found 0"),
        ({"network": "resnet15"}, "cannot read the ticket .*: unknown network 'resnet15'"),
        ({"network": "resnet20(width=2)"}, "the packed mask of 'layer1.2.conv1.weight' is missing"),
        ({"network": "resnet14"}, r"packed mask of 'conv1.weight' should be 18 bytes .* found"),
        ({"mask_sha256": "0"}, "is damaged: its mask_sha256 is not that of its content"),
        ({"rewind_sha256": None}, "is damaged: its rewind_sha256 is not that of its content"),
    ],
)
def test_metadata_that_does_not_fit(path: Path, metadata: dict[str, Any], message: str) -> None:
    _change(path, {}, **{"kind": "ticket", **metadata})
    with pytest.raises(ElthError, match=message):
        Ticket.load(path)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("rewind/bn1.bias", None, r"cannot read the ticket .*: .* tensor 'bn1.bias' is missing"),
        ("rewind/extra", torch.zeros(1), r": ticket does not fit .*: it has no tensor 'extra'"),
        ("mask/fc.bias", torch.zeros(1), ": mask does not fit .* no prunable weight 'fc.bias'"),
        ("mask/fc.weight", None, ": the packed mask of 'fc.weight' is missing"),
        (
            "rewind/fc.weight",
            torch.zeros(8, 3),
            r"'fc.weight' should have shape \(3, 8\), found \(8, 3\)",
        ),
        ("rewind/bn1.bias", torch.tensor([0.0, -0.0]), "is damaged: its rewind_sha256"),
        ("rewind/bn1.bias", torch.zeros(2, dtype=torch.float64), "is damaged: its rewind_sha256"),
        ("mask/fc.weight", torch.zeros(3, dtype=torch.uint8), "is damaged: its mask_sha256"),
    ],
)
def test_tensors_that_do_not_fit(
    path: Path, name: str, tensor: Tensor | None, message: str
) -> None:
    _change(path, {name: tensor})
    with pytest.raises(ElthError, match=message):
        Ticket.load(path)


def test_an_unchanged_rewriting_is_read(path: Path) -> None:
    _change(path, {})
    Ticket.load(path)


def test_a_changed_byte_is_noticed(path: Path) -> None:
    """Anywhere in header, weights or masks: an ElthError, or a ticket that says the same."""
    whole = bytearray(path.read_bytes())
    original = Ticket.load(path)
    start = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(0, start, 97), *range(start, len(whole), 997)]
    refused = 0
    for place in places:
        whole[place] ^= 0x04
        path.write_bytes(whole)
        whole[place] ^= 0x04
        try:
            found = Ticket.load(path)
        except ElthError:
            refused += 1
            continue
        assert state_digest(found.rewind) == state_digest(original.rewind)
        assert masks.digest(found.mask) == masks.digest(original.mask)
        assert place < start
    assert refused > 0.9 * len(places)


def test_state_digest_by_hand() -> None:
    state = {"b": torch.tensor([1.0]), "a": torch.tensor(2)}
    text = b"atorch.int64()" + (2).to_bytes(8, "little")
    text += b"btorch.float32(1,)" + bytes([0, 0, 128, 63])
    assert state_digest(state) == hashlib.sha256(text).hexdigest()


def test_state_digest_goes_by_content() -> None:
    weight = torch.randn(2, 3, 4, 4)
    strange = weight.contiguous(memory_format=torch.channels_last)
    assert state_digest({"w": weight}) == state_digest({"w": strange})
    others = [
        {"v": weight},
        {"w": weight.reshape(2, 3, 16)},
        {"w": weight.double()},
        {"w": -weight},
    ]
    assert len({state_digest(s) for s in ({"w": weight}, *others)}) == 5


def test_the_image_of_a_ticket_is_that_of_its_data() -> None:
    assert ticket(NAME).shape == IMAGE


def test_a_ticket_is_shown_in_one_line(made: Ticket) -> None:
    """It used to be all of its tensors, 12,811 characters."""
    kept, whole = made.nonzeros, masks.total(made.mask)
    assert repr(made) == (
        f"<Ticket resnet14(width=2) (1x4x4, 3 classes): {kept:,} of {whole:,} weights, "
        f"{100 * made.sparsity:.2f} % sparse, seed 3>"
    )


def test_tensors_that_share_memory_are_saved(made: Ticket, tmp_path: Path) -> None:
    """As those of a layer that is tied to another, or that were filled from one tensor."""
    one = made.rewind["layer1.0.conv1.weight"]
    flat = torch.randn(2 * one.numel())
    shared = {
        "layer1.0.conv1.weight": one,
        "layer1.0.conv2.weight": one,
        "layer1.1.conv1.weight": flat[: one.numel()].view(one.shape),
        "layer1.1.conv2.weight": flat[one.numel() :].view(one.shape),
    }
    tied = dataclasses.replace(made, rewind={**made.rewind, **shared})
    tied.save(tmp_path / "tied.safetensors")
    again = Ticket.load(tmp_path / "tied.safetensors")
    assert state_digest(again.rewind) == state_digest(tied.rewind)
