"""Tickets carried to another dataset (E-LTH, appendix D; Morcos et al. 2019)."""

from __future__ import annotations

from typing import Any

import torch

from elth.errors import ElthError
from elth.networks import build, check_state
from elth.specs import DataShape
from elth.streams import stream
from elth.tickets import Ticket


def move(ticket: Ticket, shape: DataShape, seed: int, *, fresh_head: bool = True) -> Ticket:
    """Keep a ticket but for its head, which is fresh and dense for the classes of a new dataset.

    Weights, masks and batch normalisation with its running statistics stay as they are; training
    starts at iteration 0. With its own head it is kept whole, as the released code of E-LTH does.

    Args:
        ticket: the source ticket.
        shape: the shape of the new dataset.
        seed: the head is drawn by the network's own initialisation from its stream "head".
        fresh_head: otherwise head and head mask are carried along, for as many classes.

    Returns:
        A ticket of the same network for the new shape, its history longer by this step.

    Raises:
        ElthError: a tensor outside the head does not fit the new shape; the message names the
            first with both shapes.
    """
    fresh = build(ticket.network, shape, generator=stream(seed, "head"))
    if not fresh.anatomy.head and fresh_head:
        raise ElthError(
            f"{ticket.network} tells no anatomy, so it is not known which layer is its head: let "
            "its function return elth.with_anatomy(network, head=...)"
        )
    head = f"{fresh.anatomy.head}."
    if not fresh_head and shape.classes != ticket.shape.classes:
        raise ElthError(
            f"the head of the ticket is for {ticket.shape.classes} classes, and the dataset has "
            f"{shape.classes}: it needs a fresh head"
        )
    made = {n for n in ticket.rewind if n.startswith(head)} if fresh_head else set()
    rewind = ticket.rewind | {n: t for n, t in fresh.state_dict().items() if n in made}
    try:
        check_state(rewind, ticket.network, shape, what="the ticket")
    except ElthError as error:
        raise ElthError(
            f"{error}; only the head is made anew: go to a dataset whose images are as large and "
            f"have as many channels ({ticket.shape.channels} x {ticket.shape.size} x "
            f"{ticket.shape.size}), or to a network that takes both"
        ) from error
    step: dict[str, Any] = {
        "move": "fresh head" if fresh_head else "own head",
        "classes": shape.classes,
    }
    return Ticket(
        network=ticket.network,
        shape=shape,
        rewind={name: tensor.clone() for name, tensor in rewind.items()},
        mask={
            name: torch.ones_like(rewind[name], dtype=torch.bool) if name in made else m.clone()
            for name, m in ticket.mask.items()
        },
        # On another dataset, of which the shape is all that is known here, a ticket is trained from
        # the beginning to the end.
        origin={
            **{n: value for n, value in ticket.origin.items() if n not in ("dataset", "stop")},
            "start": 0,
            "history": [*ticket.origin.get("history", ()), step],
        },
    )
