"""Variants: named patches of an experiment, by the paths that overrides write.

``variants: {b512: {recipe.batch_size: 512}}`` is the experiment with another batch size, for all
that a cell of that variant needs, its source chain included. What a variant may change is what
fixes a result: how networks are trained, how they are pruned, and the settings of criteria.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from elth.errors import ElthError, unknown

PLAIN = "none"
"""How an entry of the grid names the experiment itself, beside variants of it."""

PARTS = ("recipe", "recipes", "pruning", "criteria")
"""The parts of an experiment that a variant may change."""


def paths(patch: Any) -> dict[str, Any]:
    """A patch by dotted paths: ``{recipe: {batch_size: 512}}`` is ``{recipe.batch_size: 512}``.

    A recipe that names its base takes the place of the whole recipe.

    Raises:
        ElthError: it changes nothing, or something that no variant may change.
    """
    if not isinstance(patch, Mapping) or not patch:
        raise ElthError(
            f"expected what differs, as {{recipe.batch_size: 512}}; found {patch!r} (the "
            f"experiment itself is called {PLAIN} beside its variants)"
        )
    found: dict[str, Any] = {}
    for path, value in patch.items():
        for full, inner in _flat(str(path), value):
            if full in found:
                raise ElthError(f"{full} is given twice: keep one of them")
            part = full.partition(".")[0]
            if full == "pruning" or full.startswith("pruning.stop"):
                raise ElthError(
                    f"{full} cannot be of a variant: say what of pruning differs, and pruning.stop "
                    "for the whole experiment"
                )
            if part not in PARTS:
                raise unknown("part of an experiment that a variant may change", part, PARTS)
            found[full] = inner
    for path in found:
        whole = next((other for other in found if path.startswith(f"{other}.")), None)
        if whole is not None and not path.startswith("recipes."):  # whose names may have dots
            raise ElthError(
                f"{whole} is given whole, and {path} besides: write that into what {whole} is"
            )
    return found


def _flat(path: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping) or "base" in value or not value:
        return [(path, value)]
    return [pair for key, inner in value.items() for pair in _flat(f"{path}.{key}", inner)]


def patched(plain: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of an experiment that variants may change, with some values of its own.

    Args:
        plain: these parts as JSON values.
        changes: as of ``paths``.

    Raises:
        ElthError: a path goes below a single value.
    """
    result = copy.deepcopy(dict(plain))
    for path, value in changes.items():
        node: Any = result
        *parts, last = _parts(path, result)
        for part in parts:
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
            if not isinstance(node, dict):
                raise ElthError(f"{path} goes below '{part}', which is a single value")
        node[last] = copy.deepcopy(value)
    return result


def _parts(path: str, plain: Mapping[str, Any]) -> list[str]:
    """The keys of a path; the name of a dataset may hold dots, as that of a manifest does.

    So may that of a criterion from outside, which ends after its colon.
    """
    part, _, rest = path.partition(".")
    if part == "criteria" and ":" in rest:
        end = rest.find(".", rest.index(":"))
        return [part, rest] if end < 0 else [part, rest[:end], *rest[end + 1 :].split(".")]
    if part != "recipes" or not rest:
        return path.split(".")
    for name in plain.get(part, {}):
        if rest == name or rest.startswith(f"{name}."):
            return [part, name, *rest[len(name) + 1 :].split(".")] if rest != name else [part, name]
    return [part, *rest.rsplit(".", 1)]
