"""Methods: what is trained in a cell of the grid, and from what it is made.

A method is a line of a figure. Each starts from something that is trained anyway (a round of IMP, a
moved ticket, a rewind point) and does a few steps to it; ``orchestrator.work.tickets`` does them.
To add one, add an entry here; a new step has its words in ``STEPS``, and its function there.
Every pruning criterion of ``elth`` is a method, listed here or not, and so is every criterion from
outside.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elth import criteria, dynamic, plugins
from elth.errors import ElthError, unknown
from elth.remembered import remembered

CHAIN = "chain"
"""The rounds of IMP themselves."""
TICKET = "ticket"
"""The ticket of a round of IMP on the network itself."""
SOURCE = "source"
"""The ticket of a round of IMP on another network, transformed."""
REWIND = "rewind"
"""The rewind point of the network itself, and a count: no round of IMP is waited for."""
SPARSE = "sparse"
"""The network itself, and a count: its mask is drawn, and changes while it is trained."""


MOVES = ("fresh head", "own head")
STEPS: Mapping[str, tuple[str, ...]] = {
    "reinit": ("all",),
    "shuffle": ("layerwise", "global", "replicated"),
    "graft": (),
    "call": (),
}
"""What a method may do to a ticket, by the key of a step, and the words that it may be given."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How the ticket of a cell is made."""

    title: str
    """How reports and figures write it."""
    base: str
    """``chain``, ``ticket``, ``source``, ``rewind`` or ``sparse``."""
    steps: tuple[Mapping[str, Any], ...] = ()
    """What is done to the base, in order."""
    move: str = "fresh head"
    """What a ticket that goes to another dataset takes along: a fresh head, or its own."""
    criterion: str = ""
    """The criterion whose settings its steps take, or the method of sparse training."""
    version: int = 1
    """Of the criterion, spelled in its step from 2 on: raised when its defaults change."""
    about: str
    """One line for people."""

    @property
    def takes_any_weights(self) -> bool:
        """Whether it has a meaning where rounds do not start from the rewind point.

        So have those that take a mask of theirs alone, and those that take nothing of them.
        """
        draws_anew = self.base == TICKET and any("reinit" in step for step in self.steps)
        return self.base in (CHAIN, REWIND, SPARSE) or draws_anew

    def __post_init__(self) -> None:
        """Refuse what cannot be done.

        Raises:
            ElthError: an unknown base, move or step, or steps where there are none.
        """
        title = f"method {self.title}"
        for what, value, known in (
            ("base", self.base, (CHAIN, TICKET, SOURCE, REWIND, SPARSE)),
            ("move", self.move, MOVES),
        ):
            if value not in known:
                raise unknown(f"{what} of {title}", str(value), known)
        if not isinstance(self.steps, tuple) or not all(isinstance(s, Mapping) for s in self.steps):
            raise ElthError(
                f"steps of {title} must be a tuple of steps, as ({{'reinit': 'all'}},); found "
                f"{self.steps!r}"
            )
        if self.base == CHAIN and self.steps:
            raise ElthError(f"{title} has steps, and the rounds of IMP take none")
        if self.base == SPARSE and (self.steps or self.criterion not in dynamic.METHODS):
            raise ElthError(
                f"{title} is sparse training: it takes no steps, and its criterion is one of "
                f"{', '.join(dynamic.METHODS)}; found {self.criterion or 'none'}"
            )
        for step in self.steps:
            kinds = [kind for kind in STEPS if kind in step]
            if len(kinds) != 1:
                told = f"{dict(step)}; expected one of {', '.join(STEPS)}"
                raise ElthError(f"{title} has a step that is none: {told}")
            words = STEPS[kinds[0]]
            if words and step[kinds[0]] not in words:
                raise unknown(f"{kinds[0]} of {title}", str(step[kinds[0]]), words)
            of_replicas = "graft" in step or step.get("shuffle") == "replicated"
            if of_replicas and self.base != SOURCE:
                raise ElthError(
                    f"{title} has the step {dict(step)}, which is about replicated units: only "
                    f"what comes from a source has such, and its base is {self.base}"
                )
            if kinds == ["call"] and set(step) != {"call"}:
                raise ElthError(f"a call has a version by itself, in {title} found {dict(step)}")


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
        "GraSP (absolute)", "grasp_absolute", "|w H g|, as the released code of E-LTH has it"
    ),
    "synflow": _criterion("SynFlow", "synflow", "synaptic flow, no data (Tanaka et al. 2020)"),
    "random_global": _criterion("Random (global)", "random_global", "any weights, over all layers"),
    "random_layerwise": _criterion(
        "Random (uniform)", "random_layerwise", "any weights, the same sparsity in every layer"
    ),
}
_SPARSE = {
    "rigl": ("RigL", "drops by |w|, grows by the gradient (Evci et al. 2020)"),
    "set": ("SET", "drops by |w|, grows at random (Mocanu et al. 2018)"),
    "snfs": ("SNFS", "drops by |w|, grows by momentum (Dettmers & Zettlemoyer 2019)"),
    "static": ("Static", "a mask that is drawn, and stays"),
    "gmp": ("GMP", "prunes by |w| more and more, layer by layer (Zhu & Gupta 2017)"),
    "dpf": ("DPF", "prunes by |w|, and lets weights return (Lin et al. 2020)"),
}
METHODS |= {
    name: Method(title=written, base=SPARSE, criterion=name, about=f"sparse training: {about}")
    for name, (written, about) in _SPARSE.items()
}
METHODS |= {
    name: _criterion(name.replace("_", " ").capitalize(), name, "a pruning criterion of elth")
    for name in criteria.NAMES
    if name not in METHODS
}


def method_of(name: str) -> Method:
    """A method by its name, ours or from outside.

    From outside comes a ``Method``, or a pruning criterion, which is a method by itself; either is
    named as ``my_lab.ways:mine``, or by a listed module's ``METHODS`` or ``CRITERIA``.

    Raises:
        ElthError: there is none of this name.
    """
    if name in METHODS:
        return METHODS[name]
    if not plugins.is_reference(name) and not plugins.listed():
        raise unknown("method", name, METHODS)
    return _from_outside(name, plugins.in_use(), plugins.state(name))


def names() -> tuple[str, ...]:
    """The methods that may be named: ours, and those that listed modules give."""
    given: tuple[str, ...] = ()
    if plugins.listed():
        given = tuple(remembered(_registered, plugins.in_use(), also=plugins.state()))
    return (*METHODS, *given)


@functools.lru_cache(maxsize=256)
def _from_outside(name: str, paths: tuple[str, ...], state: str) -> Method:
    fields = sorted(field.name for field in dataclasses.fields(Method))
    told = remembered(_told, name, paths, also=f"{state} {fields}")
    return Method(**{**told, "steps": tuple(told["steps"])})


def _registered(paths: Sequence[str]) -> list[str]:
    plugins.use(paths)
    return [*plugins.registered("METHODS"), *plugins.registered("CRITERIA")]


def _told(name: str, paths: Sequence[str]) -> dict[str, Any]:
    """The fields of a method from outside, as JSON values; its module is imported."""
    plugins.use(paths)
    scored = plugins.registered("CRITERIA")
    kind = "CRITERIA" if name in scored else "METHODS"
    found = plugins.named(kind, name, "method", [*METHODS, *scored])
    if isinstance(found, Method):
        return dataclasses.asdict(found)
    if not callable(found):
        raise ElthError(
            f"{name} is no method: expected a Method or a pruning criterion, found {found!r}"
        )
    title = name.rpartition(":")[2].replace("_", " ")
    return dataclasses.asdict(_criterion(title.capitalize(), name, criteria.about(name)))


def rank(name: str) -> int:
    """Place of a method in tables and figures; unknown ones come last."""
    order = list(METHODS)
    return order.index(name) if name in METHODS else len(order)


def title(name: str) -> str:
    """How a method is written."""
    return METHODS[name].title if name in METHODS else name
