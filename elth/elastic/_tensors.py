"""What a change of depth or width does to each tensor, by names and shapes: no tensor is needed."""

from __future__ import annotations

from collections.abc import Collection

from elth.elastic._notation import Width
from elth.elastic.plans import Plan, check
from elth.errors import ElthError
from elth.networks import Anatomy, canonical, facts, options, tensor_shapes
from elth.specs import DataShape, Spec

_TIMES = {"double": "twice", "halve": "half"}


def tensor_sources(
    plan: Plan, source: Anatomy, target: Anatomy, source_names: Collection[str], names: list[str]
) -> dict[str, str]:
    """Name for every tensor of the target the source tensor that fills it.

    A tensor of a unit comes from the unit that the plan names; a tensor of the stem or head from
    the one of the same name. The mapping is total, or refused.

    Args:
        plan: what fills what; must fit the two anatomies.
        source: anatomy of the source network.
        target: anatomy of the target network.
        source_names: names of the source's tensors.
        names: names of the target's tensors, in order.

    Raises:
        ElthError: a tensor of the target has no source, or one of the source that should move with
            its unit, the stem or the head has no place.
    """
    check(plan, source, target)
    places = [
        (f"{t.units[position]}.", f"{s.units[unit]}.")
        for units, s, t in zip(plan.stages, source.stages, target.stages, strict=True)
        for position, unit in enumerate(units)
    ]
    result = {}
    for name in names:
        origin = next((f"{s}{name.removeprefix(t)}" for t, s in places if name.startswith(t)), name)
        if origin not in source_names:
            raise ElthError(
                f"nothing fills tensor '{name}' of the target: the source has no '{origin}'"
            )
        result[name] = origin
    dropped = [
        f"{unit}."
        for units, stage in zip(plan.stages, source.stages, strict=True)
        for place, unit in enumerate(stage.units)
        if place not in units
    ]
    moved = set(result.values())
    for name in source_names:
        if name not in moved and not name.startswith(tuple(dropped)):
            raise ElthError(
                f"tensor '{name}' of the source has no place in the target: the two networks "
                "differ in more than their depth"
            )
    return result


def check_width(width: Width, source: str | Spec, target: str | Spec, shape: DataShape) -> None:
    """Refuse two networks of which one is not the other at double width and equal depth.

    A network is of double width where each tensor has twice the outputs and inputs, but for those
    that width does not set: the image, the classes, the one input of a depthwise convolution.

    Args:
        width: the change; ``double`` goes from the narrower to the wider network.
        source: the network that the ticket was found on.
        target: the network that it goes to.
        shape: the data's shape, for which both are built.

    Raises:
        ElthError: the networks differ otherwise; the message names the stage with both depths or
            the tensor with both shapes.
    """
    names = canonical(source), canonical(target)
    before, after = (facts(spec, shape).anatomy for spec in names)
    _check_depth(before, after, names)
    have, want = (tensor_shapes(spec, shape) for spec in names)
    for name in {**have, **want}:
        if name not in have or name not in want:
            there, lacking = names if name in have else names[::-1]
            raise ElthError(
                f"{there} has a tensor '{name}', {lacking} has none: "
                f"{width.operation} needs two networks that differ in width only"
            )
        old, new = have[name], want[name]
        narrow, wide = (old, new) if width.operation == "double" else (new, old)
        if len(old) != len(new) or any(
            b not in (a, 2 * a if dimension < 2 else a)
            for dimension, (a, b) in enumerate(zip(narrow, wide, strict=True))
        ):
            raise ElthError(
                f"'{name}' has shape {old} in {names[0]} and {new} in {names[1]}: "
                f"{width.operation} needs a target of {_TIMES[width.operation]} the width"
            )
    if have == want:
        name = next(name for name, sides in have.items() if len(sides) > 1)
        raise ElthError(
            f"{names[0]} and {names[1]} are of one width ('{name}' has shape "
            f"{have[name]} in both): {width.operation} needs a target of "
            f"{_TIMES[width.operation]} the width"
        )
    narrow_end = have if width.operation == "double" else want
    for name, sides in narrow_end.items():
        if interleaves(names[0]) and len(sides) == 4 and sides[0] % 2:
            raise ElthError(
                f"'{name}' has shape {have[name]} in {names[0]} and "
                f"{want[name]} in {names[1]}: beside a zero-padded shortcut an odd "
                "number of channels cannot be doubled evenly; choose an even width, or shortcuts "
                "with a convolution"
            )


def interleaves(spec: Spec) -> bool:
    """Whether copies stand beside their channel (zero-padded shortcuts) or behind all of them."""
    return bool({**options(spec.name), **dict(spec.options)}.get("shortcut") == "pad")


def _check_depth(old: Anatomy, new: Anatomy, names: tuple[Spec, Spec]) -> None:
    if old.family != new.family or len(old.stages) != len(new.stages):
        raise ElthError(
            f"a ticket moves within one family of networks: found {old.family} with "
            f"{len(old.stages)} stages and {new.family} with {len(new.stages)}"
        )
    for s, t in zip(old.stages, new.stages, strict=True):
        if len(s.units) != len(t.units):
            raise ElthError(
                f"stage {t.name} has {len(s.units)} units in {names[0]} and {len(t.units)} in "
                f"{names[1]}: change the width between networks of one depth, and the depth by a "
                "plan"
            )
