"""The anatomy of a network from outside, by its author."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from torch import nn

from elth.errors import ElthError, nearest
from elth.networks._anatomy import Anatomy, Stage
from elth.networks._registry import prunable

N = TypeVar("N", bound=nn.Module)


def with_anatomy(
    network: N,
    *,
    family: str,
    head: str,
    stages: Sequence[str | nn.Module] = (),
    fixed: Mapping[str, Collection[int]] | None = None,
    unpruned: Collection[str] = (),
) -> N:
    """Tell a network's anatomy, so that its tickets can be stretched and squeezed.

    Example::

        def vit(shape, *, depth: int = 2) -> nn.Module:
            network = ViT(shape, depth)
            return elth.with_anatomy(network, family="vit", stages=["blocks"], head="head")

    Args:
        network: the network; it is given back.
        family: tickets move between networks of one family.
        head: the last layer, by its name in the state dict.
        stages: each a ``nn.Sequential`` or ``nn.ModuleList`` of alike units, or its name.
        fixed: for a stage's name the positions that are never replicated or dropped, as of a unit
            that changes the resolution or the width.
        unpruned: names of prunable weights that are left whole.

    Raises:
        ElthError: the network has no such module, a stage has no units or holds units of another,
            a fixed position is none of its stage's, or what is unpruned never is.
    """
    names = {id(module): name for name, module in network.named_modules()}
    made: list[Stage] = []
    for given in stages:
        name = given if isinstance(given, str) else names.get(id(given), "")
        stage = _module(network, name, "stage")
        units = tuple(f"{name}.{child}" for child, _ in stage.named_children())
        if not isinstance(stage, nn.Sequential | nn.ModuleList):
            raise ElthError(
                f"stage '{name}' is a {type(stage).__name__}; expected a nn.Sequential or a "
                "nn.ModuleList of its units"
            )
        for other in made:
            if f"{name}.".startswith(f"{other.name}.") or f"{other.name}.".startswith(f"{name}."):
                raise ElthError(f"stages '{other.name}' and '{name}' have units in common")
        made.append(Stage(name=name, units=units, fixed=tuple(sorted((fixed or {}).get(name, ())))))
    for name, places in (fixed or {}).items():
        named = next((one for one in made if one.name == name), None)
        if named is None:
            raise ElthError(f"fixed names '{name}', which is no stage")
        wrong = [place for place in places if not 0 <= place < len(named.units)]
        if wrong:
            raise ElthError(
                f"fixed names position {wrong[0]} of stage '{name}', which has positions 0 to "
                f"{len(named.units) - 1}"
            )
    _module(network, head, "head")
    weights = prunable(network)
    for name in unpruned:
        if name not in dict(network.named_parameters()):
            raise ElthError(f"unpruned names '{name}', which is no parameter of the network")
        if name not in weights:
            raise ElthError(
                f"unpruned names '{name}', which is never pruned: leave it out "
                f"(pruned are {', '.join(weights)})"
            )
    anatomy = Anatomy(family=family, stages=tuple(made), head=head, unpruned=tuple(unpruned))
    vars(network)["anatomy"] = anatomy
    return network


def _module(network: nn.Module, name: str, what: str) -> nn.Module:
    known = {one: module for one, module in network.named_modules() if one}
    if name not in known:
        raise ElthError(f"the network has no module '{name}' for its {what}{nearest(name, known)}")
    return known[name]
