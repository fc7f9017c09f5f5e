"""Controls: what is left of a winning ticket when its weights or its mask are drawn anew.

The replicated units of a stretch are those that are not the first to be filled by their source
unit; the first ones are the original units (E-LTH, Figure 4).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from elth.elastic import plans
from elth.elastic.plans import Plan
from elth.errors import ElthError, unknown
from elth.masks import Mask, nonzeros
from elth.networks import Anatomy, blueprint, build, check_state
from elth.specs import DataShape, Spec
from elth.streams import stream
from elth.tickets import Ticket


def reinit(spec: Spec, shape: DataShape, seed: int) -> dict[str, Tensor]:
    """Fresh weights for the control Reinit (E-LTH, section 4): all tensors, BN included.

    They come from the stream "reinit" of the seed, and so differ from the network's own initial
    weights, which come from the stream "init".
    """
    return build(spec, shape, generator=stream(seed, "reinit")).state_dict()


def shuffle_layerwise(mask: Mapping[str, Tensor], seed: int, *, version: int = 2) -> Mask:
    """Permute each mask within its layer: the control Random (E-LTH, section 4).

    Every layer keeps its number of weights; which ones is drawn from the stream "shuffle N" of a
    mask that keeps N weights in all, so that the masks of two rounds are drawn independently.

    Args:
        mask: what is to be permuted.
        seed: the run's seed.
        version: 1 takes the stream "shuffle" whatever N is, and so permutes the masks of all
            rounds alike: those of later rounds lie within those of earlier ones.
    """
    generator = _shuffle("shuffle", mask, seed, version)
    return {name: _permuted(m, generator) for name, m in mask.items()}


def shuffle_global(
    mask: Mapping[str, Tensor], seed: int, *, unpruned: Collection[str] = (), version: int = 2
) -> Mask:
    """Permute a mask over all of its layers at once: only the total number of weights stays.

    The permutation is drawn from the stream "shuffle global N" of a mask that keeps N weights.

    Args:
        mask: what is to be permuted.
        seed: the run's seed.
        unpruned: names of weights whose masks stay as they are, as the anatomy's.
        version: as of ``shuffle_layerwise``.

    Raises:
        ElthError: ``unpruned`` names no weight of the mask.
    """
    for name in unpruned:
        if name not in mask:
            raise unknown("unpruned weight", name, mask)
    moved = {name: m for name, m in mask.items() if name not in unpruned}
    flat = torch.cat([torch.empty(0, dtype=torch.bool), *(m.flatten() for m in moved.values())])
    flat = _permuted(flat, _shuffle("shuffle global", mask, seed, version))
    parts = flat.split([m.numel() for m in moved.values()])
    placed = {n: p.reshape(m.shape) for (n, m), p in zip(moved.items(), parts, strict=True)}
    return {name: placed.get(name, m).clone() for name, m in mask.items()}


def replicas(plan: Plan, source: Anatomy, target: Anatomy) -> tuple[tuple[int, int], ...]:
    """Positions (stage, place) of the replicated units of the target, in its order.

    Example: ResNet-32 to 56 by interpolation, ``0 1 1 2 2 3 3 4 4``: places 2, 4, 6, 8 of each
    stage.

    Raises:
        ElthError: the plan does not fit the two anatomies.
    """
    plans.check(plan, source, target)
    return tuple(
        (stage, place)
        for stage, units in enumerate(plan.stages)
        for place, unit in enumerate(units)
        if unit in units[:place]
    )


def in_replicas(
    plan: Plan, source: Anatomy, target: Anatomy, names: Iterable[str]
) -> tuple[str, ...]:
    """Those of the target's tensors, as its prunable weights, that are of a replicated unit.

    Raises:
        ElthError: the plan does not fit the two anatomies.
    """
    units = tuple(f"{target.stages[s].units[p]}." for s, p in replicas(plan, source, target))
    return tuple(name for name in names if name.startswith(units))


def permute_replicated(
    ticket: Ticket, plan: Plan, source: Anatomy, target: Anatomy, seed: int, *, version: int = 2
) -> Mask:
    """Permute the masks of the replicated units within each layer (E-LTH, Figure 4).

    The masks of the original units, stem and head stay: "Interpolation 1234 - Random". The
    permutations are drawn from the stream "shuffle replicated N" of a ticket of N weights.

    Args:
        ticket: the transformed ticket, of the target.
        plan: the plan that made it; another one between the two networks is not told apart.
        source: anatomy of the network that the ticket was found on.
        target: anatomy of the ticket's network.
        seed: the run's seed.
        version: as of ``shuffle_layerwise``.

    Raises:
        ElthError: plan and anatomies do not fit each other, or the ticket is not of the target.
    """
    _check_target(ticket, target)
    chosen = in_replicas(plan, source, target, ticket.mask)
    generator = _shuffle("shuffle replicated", ticket.mask, seed, version)
    return {
        name: _permuted(m, generator) if name in chosen else m.clone()
        for name, m in ticket.mask.items()
    }


def graft(
    ticket: Ticket, plan: Plan, source: Anatomy, target: Anatomy, fresh: Mapping[str, Tensor]
) -> Ticket:
    """Give the replicated units the target's own weights, unpruned (E-LTH, Figure 3).

    The original units, stem and head keep the weights and masks of the source ticket. What is left
    for "SNIP masks for the extra blocks" is to prune the weights of ``in_replicas``.

    Args:
        ticket: the transformed ticket, of the target.
        plan: the plan that made it; another one between the two networks is not told apart.
        source: anatomy of the network that the ticket was found on.
        target: anatomy of the ticket's network.
        fresh: the state dict of the target network at its own rewind point.

    Raises:
        ElthError: plan and anatomies do not fit each other, or the ticket or the fresh weights are
            not of the target.
    """
    _check_target(ticket, target)
    check_state(fresh, ticket.network, ticket.shape, what="the state to graft")
    chosen = in_replicas(plan, source, target, ticket.rewind)
    step: dict[str, Any] = {"graft": "replicated units"}
    return Ticket(
        network=ticket.network,
        shape=ticket.shape,
        rewind={n: (fresh[n] if n in chosen else t).clone() for n, t in ticket.rewind.items()},
        mask={n: m | (n in chosen) for n, m in ticket.mask.items()},
        origin={**ticket.origin, "history": [*ticket.origin.get("history", ()), step]},
    )


def _shuffle(purpose: str, mask: Mapping[str, Tensor], seed: int, version: int) -> torch.Generator:
    return stream(seed, purpose if version == 1 else f"{purpose} {nonzeros(mask)}")


def _permuted(mask: Tensor, generator: torch.Generator) -> Tensor:
    return mask.flatten()[torch.randperm(mask.numel(), generator=generator)].reshape(mask.shape)


def _check_target(ticket: Ticket, target: Anatomy) -> None:
    own = blueprint(ticket.network, ticket.shape).anatomy
    if own.stages != target.stages:
        raise ElthError(
            f"the ticket is of {ticket.network}, whose stages have {_depths(own)} units; the "
            f"target's have {_depths(target)}: give the ticket that the plan has made"
        )


def _depths(anatomy: Anatomy) -> str:
    return ", ".join(str(len(stage.units)) for stage in anatomy.stages)
