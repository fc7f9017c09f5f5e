"""A ticket on another dataset: all but the head stays, and the head is fresh and dense."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elth.elastic import change_width, move, parse_width, transform
from elth.errors import ElthError
from elth.networks import NETWORKS, DataShape, blueprint, build
from elth.streams import stream
from elth.tickets import state_digest
from tests.elth.helpers import IMAGE, ticket

SPEC = "resnet14(width=2)"
SEVEN = dataclasses.replace(IMAGE, classes=7)


@pytest.mark.parametrize("shape", [IMAGE, SEVEN, DataShape(channels=1, size=8, classes=1)])
def test_all_but_the_head_stays(shape: DataShape) -> None:
    before = ticket(SPEC)
    after = move(before, shape, 3)
    assert (after.network, after.shape) == (before.network, shape)
    assert list(after.rewind) == list(before.rewind)
    assert list(after.mask) == list(before.mask)
    for name, tensor in before.rewind.items():
        if not name.startswith("fc."):
            assert torch.equal(after.rewind[name], tensor), name
    for name, mask in before.mask.items():
        assert name == "fc.weight" or torch.equal(after.mask[name], mask), name
    own = build(before.network, shape, generator=stream(3, "head")).state_dict()
    for name in ("fc.weight", "fc.bias"):
        assert torch.equal(after.rewind[name], own[name])
    assert after.mask["fc.weight"].dtype is torch.bool
    assert bool(after.mask["fc.weight"].all())
    assert after.mask["fc.weight"].shape == (shape.classes, 8)
    after.make_network()


def test_the_head_follows_the_seed_and_is_not_the_initial_one() -> None:
    first, again, other = (move(ticket(SPEC), SEVEN, seed).rewind for seed in (0, 0, 1))
    assert state_digest(first) == state_digest(again)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])
    initial = build(SPEC, SEVEN, generator=stream(0, "init")).state_dict()
    assert not torch.equal(first["fc.weight"], initial["fc.weight"])


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_a_move_there_and_back_keeps_the_body(classes: int, others: int, seed: int) -> None:
    before = ticket(SPEC, dataclasses.replace(IMAGE, classes=classes))
    back = move(
        move(before, dataclasses.replace(IMAGE, classes=others), seed), before.shape, seed + 1
    )
    body = [name for name in before.rewind if not name.startswith("fc.")]
    assert state_digest({n: back.rewind[n] for n in body}) == state_digest(
        {n: before.rewind[n] for n in body}
    )
    pruned = before.mask["fc.weight"].numel() - int(before.mask["fc.weight"].sum())
    assert back.nonzeros == before.nonzeros + pruned


def test_it_is_trained_from_the_beginning_to_the_end() -> None:
    tuned = dataclasses.replace(ticket(SPEC), origin={"seed": 5, "start": 40, "stop": 60})
    origin = move(tuned, SEVEN, 0).origin
    assert (origin["seed"], origin["start"]) == (5, 0)
    assert "stop" not in origin


def test_the_result_shares_no_memory() -> None:
    before = ticket(SPEC)
    digest, kept = state_digest(before.rewind), before.nonzeros
    after = move(before, SEVEN, 0)
    for tensor in (*after.rewind.values(), *after.mask.values()):
        tensor.zero_()
    assert (state_digest(before.rewind), before.nonzeros) == (digest, kept)


def test_history_grows() -> None:
    before = dataclasses.replace(ticket(SPEC), origin={"seed": 1, "history": [{"imp_round": 6}]})
    after = move(before, SEVEN, 0)
    assert before.origin == {"seed": 1, "history": [{"imp_round": 6}]}
    assert after.origin == {
        "seed": 1,
        "start": 0,
        "history": [{"imp_round": 6}, {"move": "fresh head", "classes": 7}],
    }


def test_a_moved_ticket_starts_at_the_beginning_whatever_is_done_to_it() -> None:
    before = ticket(SPEC)
    assert "start" not in before.origin
    after = move(before, SEVEN, 0)
    assert after.origin["start"] == 0
    assert move(after, IMAGE, 0).origin["start"] == 0
    deeper = transform(after, "resnet20(width=2)", "append")
    assert deeper.origin["start"] == 0
    wider = change_width(after, "resnet14(width=4)", parse_width("double"), 0)
    assert wider.origin["start"] == 0
    # To another network without another dataset, it goes on from its rewind point.
    assert "start" not in transform(before, "resnet20(width=2)", "append").origin


def test_images_that_the_body_cannot_take_are_refused() -> None:
    with pytest.raises(
        ElthError,
        match=r"the ticket does not fit resnet14\(width=2\): tensor 'conv1.weight' should have "
        r"shape \(2, 3, 3, 3\), found \(2, 1, 3, 3\); only the head is made anew: go to a dataset "
        r"whose images .* \(1 x 4 x 4\)",
    ):
        move(ticket(SPEC), DataShape(channels=3, size=4, classes=3), 0)
    with pytest.raises(ElthError, match=r"tensor 'stem.weight' should .* \(2, 25\), found \(2, 16"):
        move(ticket("mlp2(width=2)"), dataclasses.replace(IMAGE, size=5), 0)
    with pytest.raises(ElthError, match="needs a side of at least 4, found 2"):
        move(ticket(SPEC), dataclasses.replace(IMAGE, size=2), 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_is_all_that_the_classes_set(name: str) -> None:
    few, many = (
        {n: t.shape for n, t in network.state_dict().items()}
        for network in (blueprint(name, DataShape(classes=classes)) for classes in (10, 11))
    )
    head = blueprint(name, DataShape()).anatomy.head
    changed = {n for n in few if few[n] != many[n]}
    assert changed == {n for n in few if n.startswith(f"{head}.")} != set()
