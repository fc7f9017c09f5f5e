"""The settings of criteria, and what their values may be, said in the types of parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

from elth.errors import ElthError, unknown
from elth.facts import known

NAMES: tuple[str, ...] = tuple(known()["criteria"])
"""The names in ``CRITERIA``, known without torch."""


def options(name: str) -> dict[str, Any]:
    """Return the settings of a criterion with their defaults, as ``{"iterations": 100}``."""
    if name in known()["criteria"]:
        return dict(known()["criteria"][name])
    from elth.criteria._registry import options_in_code

    return options_in_code(name)


@dataclass(frozen=True)
class AtLeast:
    """The smallest whole number that a setting may be, where it is not 1."""

    value: int


def check_value(what: str, value: Any, default: Any, hint: Any) -> Any:
    """Return a setting's value as the type of its default; a whole number may stand for a float.

    A word must be one of its ``Literal``, a whole number at least 1 (or ``AtLeast`` another), a
    float positive.

    Raises:
        ElthError: it is none of these.
    """
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise ElthError(f"{what} is {value!r}; expected a value like {default!r}")
    if isinstance(value, str) and value not in get_args(hint):
        raise unknown(what, value, get_args(hint))
    if isinstance(value, float) and not (math.isfinite(value) and value > 0):
        raise ElthError(f"{what} must be a positive number, is {value}")
    if type(value) is int:
        least = next((a.value for a in get_args(hint) if isinstance(a, AtLeast)), 1)
        if value < least:
            raise ElthError(f"{what} must be at least {least}, is {value}")
    return value
