"""Transformations from outside: functions from a ticket to a ticket, named by their module."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from elth import plugins, specs
from elth.elastic._notation import is_width
from elth.elastic.plans import OPERATIONS
from elth.errors import ElthError
from elth.networks import canonical
from elth.remembered import remembered
from elth.specs import Spec

if TYPE_CHECKING:
    from elth.tickets import Ticket

_KIND = "TRANSFORMATIONS"
_GIVEN = ("ticket", "to", "seed")


def is_outside(text: str) -> bool:
    """Whether a notation names a transformation from outside: ``my_lab.moves:fold(k=2)``.

    Or, without a module, one that a listed module holds in its ``TRANSFORMATIONS``.
    """
    name = text.partition("(")[0].strip()
    if plugins.is_reference(name):  # and no plan, as append:1-4, nor a change of width
        module = name.partition(":")[0]
        if module in OPERATIONS or is_width(text) or not re.fullmatch(r"[\w.]+", module):
            return False
        return "." in module or plugins.find(module) is not None
    return bool(plugins.listed()) and name in remembered(
        _registered, plugins.in_use(), also=plugins.state()
    )


def outside(text: str) -> tuple[Spec, str, str]:
    """Check a transformation from outside: name and options, its version, and its module.

    Raises:
        ElthError: there is none of this name, or it has no such option.
    """
    spec = Spec.parse(text, "transformation", "my_lab.moves:fold(k=2)")
    told = remembered(_told, spec.name, plugins.in_use(), also=plugins.state(spec.name))
    spec = specs.canonical(
        spec, "transformation", told["defaults"], words=told["words"], least=None
    )
    return spec, plugins.known_as(told), told["module"]


def apply(ticket: Ticket, text: str, to: str | Spec, seed: int) -> Ticket:
    """What a transformation from outside makes of a ticket.

    Args:
        ticket: the source ticket.
        text: name and options, as ``my_lab.moves:fold(k=2)``; the function is called as
            ``fold(ticket, to=..., seed=..., k=2)``.
        to: the network that it is to be a ticket of.
        seed: for what it draws.

    Raises:
        ElthError: it gives no ticket of that network.
    """
    import torch

    from elth.streams import stream

    spec = Spec.parse(text, "transformation", "my_lab.moves:fold(k=2)")
    target = canonical(to)
    function = _function(spec.name)
    with torch.random.fork_rng():  # what it draws without the seed is the same each time
        torch.manual_seed(stream(seed, "transformation").initial_seed())
        try:
            made: Any = function(ticket, to=target, seed=seed, **dict(spec.options))
        except ElthError:
            raise
        except Exception as error:
            raise ElthError(f"{spec} fails: {plugins.reason(error)}") from error
    network = getattr(made, "network", None)
    if network != target or not hasattr(made, "mask"):
        found = network or type(made).__name__
        raise ElthError(f"{spec} gave {found}; expected a Ticket of {target}")
    ticket = made
    return ticket


def _function(name: str) -> Any:
    return plugins.named(_KIND, name, "transformation")


def _registered(paths: Sequence[str]) -> list[str]:
    plugins.use(paths)
    return list(plugins.registered(_KIND))


def _told(name: str, paths: Sequence[str]) -> Mapping[str, Any]:
    plugins.use(paths)
    function = _function(name)
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        parameters = {}
    missing = [one for one in _GIVEN[1:] if one not in parameters]
    if missing:
        raise ElthError(
            f"{name} is no transformation: expected def f(ticket, *, to, seed, option=default) -> "
            f"Ticket, and it takes no {missing[0]}"
        )
    return {
        **plugins.keywords(function, "transformation", _GIVEN),
        "version": plugins.declared(function),
        "module": plugins.module_of(_KIND, name),
    }
