"""What differs between two stages, field by field, and between two experiments.

All of it is read off what stages say of themselves: their parameters and their parents.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml
from pydantic import ValidationError

from elth.errors import ElthError
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.building import build
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import KINDS, VERSIONS, Stage

ABSENT = "(absent)"
"""Stands for the value of a field that is not there."""

_TRIED = 40
"""Fields of which it is worked out singly what they do to keys; each takes a plan."""

_LETTERS = 60
"""Letters of a value that are shown."""

Find = Callable[[str], Stage | None]
"""Gives a stage by its key; None if it is not known."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field that two stages, or two experiments, hold with different values."""

    path: str
    """As ``recipe.lr`` or ``ticket.0.nonzeros``."""
    a: Any
    b: Any
    where: str = ""
    """The stage further up in which it is found first; empty for the stages themselves."""

    @property
    def what(self) -> tuple[str, str, str]:
        """The same for equal differences, wherever they are."""
        return self.path, repr(self.a), repr(self.b)


def fields(value: Any, path: str = "") -> dict[str, Any]:
    """The single values of nested mappings and lists, by their dotted paths.

    A list of single values is one value.
    """
    if isinstance(value, Mapping) and value:
        pairs: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping | list) for v in value):
        pairs = list(enumerate(value))
    else:
        return {path: value}
    found: dict[str, Any] = {}
    for name, inner in pairs:
        found |= fields(inner, f"{path}.{name}" if path else str(name))
    return found


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """The fields in which two mappings differ, in the order of the first one."""
    of_a, of_b = fields(a), fields(b)
    return [
        Difference(path=path, a=of_a.get(path, ABSENT), b=of_b.get(path, ABSENT))
        for path in dict.fromkeys([*of_a, *of_b])
        if of_a.get(path, ABSENT) != of_b.get(path, ABSENT)
    ]


def compare(a: Stage, b: Stage, find_a: Find, find_b: Find) -> tuple[Difference, ...]:
    """Why two stages have different keys: their own fields, then those of their parents.

    What differs in a stage and in those that it is made of is told once, where it is met first.

    Args:
        a: one stage.
        b: the other one.
        find_a: gives the ancestors of the first.
        find_b: gives the ancestors of the second.
    """
    found: dict[tuple[str, str, str], Difference] = {}
    seen: set[tuple[str, str]] = set()
    todo: list[tuple[Stage, Stage, str]] = [(a, b, "")]
    while todo:
        one, other, where = todo.pop(0)
        for difference in _own(one, other):
            told = Difference(path=difference.path, a=difference.a, b=difference.b, where=where)
            found.setdefault(told.what, told)
        for pair in zip(one.parents, other.parents, strict=False):
            if pair[0] == pair[1] or pair in seen:
                continue
            seen.add(pair)
            mine, yours = find_a(pair[0]), find_b(pair[1])
            if mine is not None and yours is not None:
                todo.append((mine, yours, yours.title))
            elif not found:
                told = Difference(path="parent", a=pair[0][:12], b=pair[1][:12], where=where)
                found.setdefault(told.what, told)
    if not found:  # all that they say is equal, and only the number of their kind is not in it
        version = Difference(
            path=f"version of the kind {b.kind}", a="another", b=VERSIONS.get(b.kind, ABSENT)
        )
        return (version,)
    return tuple(found.values())


def _own(a: Stage, b: Stage) -> Iterator[Difference]:
    if a.kind != b.kind:
        yield Difference(path="kind", a=a.kind, b=b.kind)
    for one in differing(a.params, b.params):
        yield Difference(path=one.path, a=_spelled(a, one.path), b=_spelled(b, one.path))
    if len(a.parents) != len(b.parents):
        yield Difference(path="number of parents", a=len(a.parents), b=len(b.parents))


def _spelled(stage: Stage, path: str) -> Any:
    """A field of a stage; of its recipe also those that its parameters leave out as usual."""
    value = fields(stage.params).get(path, ABSENT)
    if value == ABSENT and path.startswith("recipe.") and "recipe" in stage.params:
        return fields({"recipe": stage.recipe.full()}).get(path, ABSENT)
    return value


def shown(value: Any) -> str:
    """A value in as many letters as are of use."""
    text = str(value) or "''"
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 3]}..."


# Experiments


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of two experiments."""

    name: str
    """How the command called it."""
    experiment: Experiment
    plan: Plan


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A field of two experiments, and what it alone does to the first one's stages."""

    path: str
    a: Any
    b: Any
    lost: int | None
    """Stages of the first that would no longer be asked for; None if that cannot be told alone."""
    new: int | None
    """Stages that would be asked for instead, or besides."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Cells of one experiment, or of both, over their seeds."""

    title: str
    seeds: tuple[int, ...]
    why: tuple[Difference, ...] = ()
    """Of cells that both have, with different stages: in which fields those differ."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two experiments have in common, and what not."""

    stages: Mapping[str, tuple[int, int, int]]
    """Of each kind how many stages are in both, in the first only, in the second only."""
    fields: tuple[Changed, ...]
    only_a: tuple[Cells, ...]
    only_b: tuple[Cells, ...]
    other: tuple[Cells, ...]
    """Cells that both have, by stages with different keys."""
    same: int
    """Cells with their seeds that are the same stage in both."""


def compare_experiments(a: Side, b: Side) -> Comparison:
    """Compare two experiments by their plans; needs neither data nor store."""
    mine, yours = a.plan.stages, b.plan.stages
    kinds = dict.fromkeys((*KINDS, *(s.kind for s in (*mine.values(), *yours.values()))))
    counts = {
        kind: (
            sum(s.kind == kind and key in yours for key, s in mine.items()),
            sum(s.kind == kind and key not in yours for key, s in mine.items()),
            sum(s.kind == kind and key not in mine for key, s in yours.items()),
        )
        for kind in kinds
    }
    cells_a, cells_b = _cells(a.plan), _cells(b.plan)
    both = [cell for cell in cells_a if cell in cells_b]
    other: dict[str, tuple[list[int], tuple[Difference, ...]]] = {}
    for cell in both:
        one, another = cells_a[cell], cells_b[cell]
        if one.key != another.key:
            why = compare(one, another, mine.get, yours.get)
            other.setdefault(_title(one), ([], why))[0].append(int(one.labels["seed"]))
    return Comparison(
        stages=counts,
        fields=tuple(_changed(a, b)),
        only_a=_gathered(stage for cell, stage in cells_a.items() if cell not in cells_b),
        only_b=_gathered(stage for cell, stage in cells_b.items() if cell not in cells_a),
        other=tuple(
            Cells(title=title, seeds=tuple(sorted(seeds)), why=why)
            for title, (seeds, why) in other.items()
        ),
        same=sum(cells_a[cell].key == cells_b[cell].key for cell in both),
    )


def _cells(plan: Plan) -> dict[tuple[tuple[str, str], ...], Stage]:
    """The stages that cells ask for, by all that each is called."""
    found = {}
    for key in plan.asked:
        for labels in plan.labels(key):
            cell = sorted((name, str(labels[name])) for name in labels if name != "place")
            found[tuple(cell)] = replace(plan.stages[key], labels=labels)
    return found


def _title(stage: Stage) -> str:
    return f"{stage.title.rpartition(', seed ')[0]} on {stage.labels['dataset']}"


def _gathered(stages: Iterator[Stage]) -> tuple[Cells, ...]:
    seeds: dict[str, list[int]] = {}
    for stage in stages:
        seeds.setdefault(_title(stage), []).append(int(stage.labels["seed"]))
    return tuple(Cells(title=title, seeds=tuple(sorted(s))) for title, s in seeds.items())


def _changed(a: Side, b: Side) -> Iterator[Changed]:
    """The fields that differ; each is put into the first experiment alone, and that is planned."""
    mine, yours = (yaml.safe_load(side.experiment.resolved()) for side in (a, b))
    found = differing(mine, yours)
    keys = frozenset(a.plan.stages)
    idle = {
        section
        for section in dict.fromkeys(one.path.partition(".")[0] for one in found)
        if _keys_with(mine, yours, section) == keys
    }
    for number, one in enumerate(found):
        changed: frozenset[str] | None = None
        if one.path.partition(".")[0] in idle:
            changed = keys
        elif number < _TRIED:
            changed = _keys_with(mine, yours, one.path)
        yield Changed(
            path=one.path,
            a=one.a,
            b=one.b,
            lost=None if changed is None else len(keys - changed),
            new=None if changed is None else len(changed - keys),
        )


def _keys_with(mine: Any, yours: Any, path: str) -> frozenset[str] | None:
    """The keys of an experiment with one field of another; None if that is no experiment."""
    plain = copy.deepcopy(mine)
    try:
        _put(plain, yours, path)
        return frozenset(build(Experiment.model_validate(plain)).stages)
    except (ElthError, ValidationError, LookupError, TypeError, ValueError):
        return None


def _first(path: str, *nodes: Any) -> tuple[str, str]:
    """The first key of a path, as some mappings have it, and the rest of the path."""
    keys = (key for node in nodes if isinstance(node, Mapping) for key in map(str, node))
    there = (key for key in keys if path == key or path.startswith(f"{key}."))
    first = max(there, key=len, default=path.partition(".")[0])
    return first, path[len(first) + 1 :]


def _put(target: Any, source: Any, path: str) -> None:
    """Let one mapping have what another has at a path, or lack it as that does.

    A key may have dots in it, as what a variant changes and the name of a dataset do.
    """
    first, rest = _first(path, target, source)
    if isinstance(target, list):
        index = int(first)
        if index >= len(source):
            del target[index]
        elif index >= len(target):
            target.append(copy.deepcopy(source[index]))
        elif rest:
            _put(target[index], source[index], rest)
        else:
            target[index] = copy.deepcopy(source[index])
        return
    if not isinstance(source, Mapping) or first not in source:
        target.pop(first, None)
    elif rest and isinstance(target.get(first), dict | list):
        _put(target[first], source[first], rest)
    else:
        target[first] = copy.deepcopy(source[first])
