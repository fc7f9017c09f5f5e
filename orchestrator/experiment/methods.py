"""Methods: what is trained in a cell of the grid, and from what it is made.

A method is a line of a figure. Each starts from something that is trained anyway (a round of IMP, a
moved ticket, a rewind point) and does a few steps to it; ``orchestrator.stages`` carries them out.
To add one, add an entry here, and its step there if it is a new one. Every pruning criterion of
``elth`` is a method, listed here or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elth import criteria

CHAIN = "chain"
"""The rounds of IMP themselves."""
TICKET = "ticket"
"""The ticket of a round of IMP on the network itself."""
SOURCE = "source"
"""The ticket of a round of IMP on another network, transformed."""
REWIND = "rewind"
"""The rewind point of the network itself, and a count: no round of IMP is waited for."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How the ticket of a cell is made."""

    title: str
    """How reports and figures write it."""
    base: str
    """``chain``, ``ticket``, ``source`` or ``rewind``."""
    steps: tuple[Mapping[str, Any], ...] = ()
    """What is done to the base, in order."""
    move: str = "fresh head"
    """What a ticket that goes to another dataset takes along: a fresh head, or its own."""
    criterion: str = ""
    """The criterion whose settings its steps take."""
    version: int = 1
    """Of the criterion, spelled in its step from 2 on: raised when its defaults change."""
    about: str
    """One line for people."""


def _shuffle(kind: str) -> Mapping[str, Any]:
    """A permutation of a mask; version 1 permuted the masks of all rounds alike."""
    return {"shuffle": kind, "version": 2}


def _criterion(title: str, name: str, about: str, version: int = 1) -> Method:
    return Method(title=title, base=REWIND, criterion=name, version=version, about=about)


def _grasp(title: str, name: str, about: str) -> Method:
    """GraSP, both sums over all images; version 1 took each from its own half by default."""
    return _criterion(title, name, about, version=2)


METHODS: dict[str, Method] = {
    "dense": Method(title="dense", base=CHAIN, about="the whole network, from the rewind point"),
    "imp": Method(title="IMP", base=CHAIN, about="iterative magnitude pruning, rewound"),
    "ett": Method(title="ETT", base=SOURCE, about="a ticket of the source, moved by the plan"),
    "ett_head": Method(
        title="ETT with its head",
        base=SOURCE,
        move="own head",
        about="as ett, to another dataset, head and its mask carried along (Table 6)",
    ),
    # Figure 3 of E-LTH
    "ett_reinit": Method(
        title="ETT mask, reinit",
        base=SOURCE,
        steps=({"reinit": "all"},),
        about="the moved mask, weights drawn anew (Figure 3)",
    ),
    "ett_random": Method(
        title="ETT weights, random mask",
        base=SOURCE,
        steps=(_shuffle("layerwise"),),
        about="the moved weights, the mask permuted within each layer (Figure 3)",
    ),
    "ett_reinit_random": Method(
        title="reinit, random mask",
        base=SOURCE,
        steps=({"reinit": "all"}, _shuffle("layerwise")),
        about="weights drawn anew, the moved mask permuted within each layer (Figure 3)",
    ),
    "ett_snip_extra": Method(
        title="ETT, SNIP on extra units",
        base=SOURCE,
        steps=({"graft": "snip"},),
        criterion="snip",
        about="the source's units as they are, the network's own weights under a SNIP mask in the "
        "extra ones (Figure 3)",
    ),
    # Figure 4
    "ett_random_extra": Method(
        title="ETT, extra masks random",
        base=SOURCE,
        steps=(_shuffle("replicated"),),
        about="the moved ticket, masks of replicated units permuted within each layer (Figure 4)",
    ),
    # Section 4
    "reinit": Method(
        title="Reinit",
        base=TICKET,
        steps=({"reinit": "all"},),
        about="the mask of imp, weights drawn anew",
    ),
    "random": Method(
        title="Random",
        base=TICKET,
        steps=(_shuffle("layerwise"),),
        about="the rewind point, the mask of imp permuted within each layer",
    ),
    "shuffle_global": Method(
        title="Random, across layers",
        base=TICKET,
        steps=(_shuffle("global"),),
        about="the rewind point, the mask of imp permuted over all layers",
    ),
    "magnitude": _criterion("Magnitude", "magnitude", "the largest |w| of the rewind point"),
    "snip": _criterion("SNIP", "snip", "connection sensitivity (Lee et al. 2019)"),
    "grasp": _grasp("GraSP", "grasp", "gradient flow, signed (Wang et al. 2020)"),
    "grasp_absolute": _grasp(
        "GraSP, absolute", "grasp_absolute", "|w H g|, as the released code of E-LTH has it"
    ),
    "synflow": _criterion("SynFlow", "synflow", "synaptic flow, no data (Tanaka et al. 2020)"),
    "random_global": _criterion("Random, global", "random_global", "any weights, over all layers"),
    "random_layerwise": _criterion(
        "Random, uniform", "random_layerwise", "any weights, the same sparsity in every layer"
    ),
}
METHODS |= {
    name: _criterion(name.replace("_", " ").capitalize(), name, "a pruning criterion of elth")
    for name in criteria.NAMES
    if name not in METHODS
}


def rank(name: str) -> int:
    """Place of a method in tables and figures; unknown ones come last."""
    order = list(METHODS)
    return order.index(name) if name in METHODS else len(order)


def title(name: str) -> str:
    """How a method is written."""
    return METHODS[name].title if name in METHODS else name
