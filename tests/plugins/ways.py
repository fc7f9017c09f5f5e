"""A lab's criterion, method, transformations, recipe and layout, in a file of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

import elth
from elth import criteria
from elth.masks import Mask
from elth.recipes import RECIPES as OURS
from orchestrator.experiment.methods import TICKET, Method
from orchestrator.report.layouts import Book
from orchestrator.report.sheets import Sheet


def smallest(
    network: nn.Module,
    mask: Mapping[str, Tensor],
    keep: int,
    *,
    shape: elth.DataShape,
    data: Any = None,
    seed: int,
    unpruned: Collection[str] | None = None,
    power: float = 1.0,
) -> Mask:
    """The smallest weights stay: what should not work."""
    scores = {n: -(network.get_parameter(n).detach().cpu().abs() ** power) for n in mask}
    return criteria.keep_highest(scores, mask, keep)


@elth.version(1)
def scale(ticket: elth.Ticket, *, to: elth.Spec, seed: int, by: float = -1.0) -> elth.Ticket:
    """All prunable weights times a number."""
    rewind = {n: t * by if n in ticket.mask else t for n, t in ticket.rewind.items()}
    return dataclasses.replace(ticket, rewind=rewind)


def twice(ticket: elth.Ticket, *, to: elth.Spec, seed: int) -> elth.Ticket:
    """Each unit stands beside its copy."""
    return elth.transform(ticket, to, "interpolate")


def one_number(book: Book) -> list[Sheet]:
    """Accuracy of IMP alone."""
    network = book.networks()[0]
    entry = book.find("imp", network)
    return [Sheet(title="ours", corner="method", columns=(network,), rows=(("IMP", (entry,)),))]


CRITERIA = {"smallest": smallest}
TRANSFORMATIONS = {"twice": twice}
LAYOUTS = {"one_number": one_number}
METHODS = {
    "negated": Method(
        title="Negated",
        base=TICKET,
        steps=({"call": "ways:scale(by=-1.0)"},),
        about="the ticket of imp, every weight of the other sign",
    )
}
RECIPES = {
    "brief": dataclasses.replace(OURS["digits_resnet"], length=elth.Step(2, "ep"), milestones=())
}
