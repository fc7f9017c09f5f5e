"""A part of a grid, by the axes of its cells: ``method=ett,network=resnet32``.

Commas stand between axes, and each must fit. An axis may have several values, of which one must
fit: ``network=resnet20|resnet32``, or, as a shell takes ``|`` for its own,
``network=resnet20,resnet32``. Of several texts each chooses by itself, and what they choose adds
up.

The words are those of ``grid`` and ``analyses`` in a config. A part is no grid of its own: it says
what of a grid is done, or shown, now.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from elth.errors import ElthError, nearest, unknown
from elth.specs import split
from orchestrator.experiment.axes import CELL, IN_CONFIGS, USUAL
from orchestrator.plan.graph import Plan

AXES = {
    **{IN_CONFIGS.get(axis, axis): USUAL.get(axis, "") for axis in CELL},
    **{"seed": "", "measure": ""},
}
"""The axes by which may be chosen, each with what a stage has that says nothing of it."""
NONE = "none"
"""How it is written that a cell has none: no source, or no variant, as the experiment itself."""

_COUNTED = ("round", "noise", "seed")
"""Axes of whole numbers, of which ``3-6`` is a range."""
_SHOWN = 12

Labels = Mapping[str, Any]


@dataclass(frozen=True)
class Only:
    """What is chosen; each part is axes with their values, as they were given."""

    parts: tuple[Mapping[str, tuple[str, ...]], ...]

    @staticmethod
    def parse(texts: Sequence[str]) -> Only | None:
        """Read some texts; None where there is none.

        Raises:
            ElthError: one has another form, or an axis that there is not.
        """
        return Only(tuple(_parsed(text) for text in texts)) if texts else None

    def __str__(self) -> str:
        return " and ".join(map(_spelled, self.parts))

    def has(self, labels: Labels) -> bool:
        """Whether a cell is chosen, by the labels of its stage."""
        return any(all(_fits(a, t, labels) for a, t in part.items()) for part in self.parts)

    def check(self, labels: Iterable[Labels], of: str) -> None:
        """Refuse a value that nothing has, and a part that chooses nothing.

        Args:
            labels: of all stages that might be chosen.
            of: what these are the stages of, for messages.

        Raises:
            ElthError: with what there is.
        """
        known = list(labels)
        for part in self.parts:
            for axis, texts in part.items():
                for text in texts:
                    if not any(_fits(axis, (text,), one) for one in known):
                        raise _lacking(axis, text, known, of)
            if not any(all(_fits(a, t, one) for a, t in part.items()) for one in known):
                raise _nothing(part, known, of)

    def keys(self, called: Mapping[str, Sequence[Labels]]) -> set[str]:
        """The keys of the stages that are chosen.

        Args:
            called: all that each stage is called, by key.
        """
        return {key for key, every in called.items() if any(map(self.has, every))}

    def of(self, plan: Plan, name: str) -> Plan:
        """The part of a plan that is chosen, with all that it needs: source chains included.

        Args:
            plan: the plan of a grid.
            name: that of the grid, for messages.

        Raises:
            ElthError: the plan has nothing of the kind; the message says what it has.
        """
        called = {key: plan.labels(key) for key in plan.stages}
        self.check((one for every in called.values() for one in every), name)
        parents = {key: stage.parents for key, stage in plan.stages.items()}
        wanted = with_needs(self.keys(called), parents)
        return replace(
            plan,
            stages={key: stage for key, stage in plan.stages.items() if key in wanted},
            asked=tuple(key for key in plan.asked if key in wanted),
            kept=plan.kept & wanted,
            also={key: more for key, more in plan.also.items() if key in wanted},
            analyses=tuple(key for key in plan.analyses if key in wanted),
        )


def with_needs(keys: Collection[str], parents: Mapping[str, Sequence[str]]) -> set[str]:
    """Some stages and all that they are made of, as far as that is known."""
    found, left = set(keys), list(keys)
    while left:
        more = [key for key in parents.get(left.pop(), ()) if key not in found]
        found.update(more)
        left += more
    return found


def _parsed(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    axis = ""
    for part in split(text, ","):
        name, equals, value = part.partition("=")
        if equals and re.fullmatch(r"[\s\w]+", name):  # else that of an option, in brackets
            axis = name.strip()
            if axis not in AXES:
                raise unknown("axis of --only", axis, AXES)
            if axis in found:
                raise ElthError(
                    f"--only {text} names {axis} twice: write {axis}=ONE,OTHER, or give --only for "
                    "each, and what they choose adds up"
                )
            part = value
        if axis == "transform" and not equals and _goes_on(part):  # append:1,2 is one plan
            *before, last = found[axis]
            found[axis] = (*before, f"{last},{part.strip()}")
            continue
        values: tuple[str, ...] = (part.strip(),)
        if axis != "transform" or not set(part) <= _SPELLED:  # of plans 0 1|0 1 is one, too
            values = tuple(value.strip() for value in split(part, "|"))
        if not axis or not all(values):
            raise ElthError(
                f"--only takes AXIS=VALUE, as method=ett,network=resnet20,resnet32; found '{text}'"
            )
        found[axis] = (*found.get(axis, ()), *values)
    return found


_SPELLED = frozenset("0123456789 |")
"""Letters of a plan that is spelled out, unit by unit and stage by stage."""


def _goes_on(part: str) -> bool:
    """Whether it is more of a plan before it, as ``2`` in ``append:1,2``."""
    return bool(re.fullmatch(r"\s*\d[\d\sx:-]*", part))


def _spelled(part: Mapping[str, Sequence[str]]) -> str:
    return ",".join(f"{axis}={'|'.join(values)}" for axis, values in part.items())


def _value(axis: str, labels: Labels) -> str:
    """What a stage is on an axis, as it is written."""
    if axis == "sparsity":
        found = labels.get("target")
    elif axis == "round" and labels.get("target"):  # as in a config: it is no whole round
        found = ""
    else:
        found = labels.get(axis, AXES[axis])
    return NONE if found is None or found == "" else str(found)


def _fits(axis: str, texts: Iterable[str], labels: Labels) -> bool:
    found = _value(axis, labels)
    return any(text == found or _stands_for(axis, text, found) for text in texts)


def _stands_for(axis: str, text: str, found: str) -> bool:
    """Whether a text stands for a value that is written otherwise.

    A network without options stands for it with any, and so does a source without its dataset; two
    numbers stand for all between them.
    """
    if axis in ("network", "source"):
        bare = found.partition("@")[0]
        return _spaceless(text) in {_spaceless(bare), bare.partition("(")[0]}
    if axis in _COUNTED and (bounds := re.fullmatch(r"(\d+)-(\d+)", text)) and found.isdecimal():
        return int(bounds[1]) <= int(found) <= int(bounds[2])
    if axis == "sparsity" and found != NONE:
        try:
            return float(text) == float(found)
        except ValueError:
            return False
    return False


def _spaceless(text: str) -> str:
    return text.replace(" ", "")


def _lacking(axis: str, text: str, known: Iterable[Labels], of: str) -> ElthError:
    values = _values(axis, known)
    return ElthError(
        f"--only {axis}={text} chooses nothing of {of}{nearest(text, values)} (there is: "
        f"{_some(values)})"
    )


def _nothing(part: Mapping[str, Sequence[str]], known: Sequence[Labels], of: str) -> ElthError:
    """Each value is there, and no cell has all of them: what does the last axis have, then?"""
    *before, (axis, _) = part.items()
    left = list(known)
    for name, texts in before:
        rest = [one for one in left if _fits(name, texts, one)]
        if not rest:
            axis = name
            break
        left = rest
    return ElthError(
        f"--only {_spelled(part)} chooses nothing of {of}: beside the rest {axis} is "
        f"{_some(_values(axis, left))}"
    )


def _values(axis: str, known: Iterable[Labels]) -> list[str]:
    """What there is on an axis, numbers in their order."""
    found = {_value(axis, labels) for labels in known}
    return sorted(found, key=lambda text: (0, int(text), "") if text.isdecimal() else (1, 0, text))


def _some(values: Sequence[str]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(values[:_SHOWN]) + more
