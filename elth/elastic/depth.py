"""Elastic ticket transformations along depth: stretching and squeezing (E-LTH, section 3)."""

from __future__ import annotations

from typing import Any

from elth.elastic import plans
from elth.elastic._tensors import tensor_sources
from elth.elastic.plans import Plan
from elth.errors import ElthError
from elth.masks import Mask
from elth.networks import blueprint, canonical, prunable
from elth.specs import Spec
from elth.tickets import Ticket


def transform(ticket: Ticket, target: str | Spec, plan: str | Plan = "auto") -> Ticket:
    """Stretch or squeeze a ticket into a deeper or shallower network of its family.

    Convolution and linear weights, their masks, and batch normalisation with its running
    statistics move with their unit; stem and head are copied (E-LTH, section 3.1).

    Args:
        ticket: the source ticket.
        target: the network to go to; it is built for the shape of data of the ticket.
        plan: notation or plan; ``auto`` appends or drops the later units.

    Returns:
        A ticket of the target, its history longer by this transformation. It is not trimmed to
        any count: its sparsity is what the plan makes of it.

    Raises:
        ElthError: the plan cannot be read or does not fill the target, or a tensor has no source
            of the same shape; the message names the tensor with both shapes.
    """
    spec = canonical(target)
    source_net, target_net = (blueprint(s, ticket.shape) for s in (ticket.network, spec))
    source, goal = source_net.anatomy, target_net.anatomy
    if isinstance(plan, str):
        plan = plans.resolve(plan, source, goal)
    expected = target_net.state_dict()
    sources = tensor_sources(plan, source, goal, ticket.rewind.keys(), list(expected))
    for name, origin in sources.items():
        found = ticket.rewind[origin].shape
        if found != expected[name].shape:
            raise ElthError(
                f"'{origin}' of {ticket.network} cannot fill '{name}' of {spec}: expected shape "
                f"{tuple(expected[name].shape)}, found {tuple(found)}"
            )
    mask: Mask = {name: ticket.mask[sources[name]].clone() for name in prunable(target_net)}
    step: dict[str, Any] = {
        "transform": plans.label(plan, source, goal),
        "plan": [list(stage) for stage in plan.stages],
        "source": str(ticket.network),
        "target": str(spec),
        "source_nonzeros": ticket.nonzeros,
    }
    return Ticket(
        network=spec,
        shape=ticket.shape,
        rewind={name: ticket.rewind[origin].clone() for name, origin in sources.items()},
        mask=mask,
        origin={**ticket.origin, "history": [*ticket.origin.get("history", ()), step]},
    )
