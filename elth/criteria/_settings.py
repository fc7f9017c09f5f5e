"""The settings of criteria and what their values may be, known without importing torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from elth import plugins
from elth.counts import densities
from elth.errors import ElthError, unknown
from elth.remembered import remembered
from elth.specs import Choice

NAMES = (
    "magnitude",
    "snip",
    "grasp",
    "grasp_absolute",
    "synflow",
    "random_global",
    "random_layerwise",
)
"""The names in ``CRITERIA``."""

_SHARES: Mapping[str, Callable[[Mapping[str, int], int], dict[str, int]]] = {
    "random_layerwise": densities
}
"""Criteria whose count alone says how many weights each layer keeps, and by what."""


def shares(
    name: str, sizes: Mapping[str, int], keep: int, unpruned: Collection[str] = ()
) -> dict[str, int] | None:
    """How many weights of each layer a criterion keeps; None where that depends on the weights.

    Args:
        name: the criterion.
        sizes: the prunable weights of each layer, by name.
        keep: how many are kept in all, ``unpruned`` ones among them.
        unpruned: names of those that are left whole.
    """
    if name not in _SHARES:
        return None
    pruned = {layer: size for layer, size in sizes.items() if layer not in unpruned}
    return _SHARES[name](pruned, keep - sum(sizes[layer] for layer in unpruned))


def options(name: str) -> dict[str, Any]:
    """Return the settings of a criterion with their defaults, as ``{"iterations": 100}``."""
    return {key: setting["default"] for key, setting in _of(name)["settings"].items()}


def choices(name: str) -> dict[str, Choice]:
    """Return the settings of a criterion: what they are, their defaults and what they may be."""
    return {
        key: Choice(**{**setting, "words": tuple(setting["words"])})
        for key, setting in _of(name)["settings"].items()
    }


def needs_data(name: str) -> bool:
    """Whether a criterion looks at training images."""
    return bool(_of(name)["needs_data"])


def check_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check the settings of a criterion; return those that differ from the default, in its order.

    Raises:
        ElthError: unknown criterion or setting, or a value that the setting cannot have.
    """
    known, limited = choices(name), "module" not in _of(name)
    for key in settings:
        if key not in known:
            raise unknown(f"setting of criterion {name}", key, known)
    checked = {
        key: _checked(
            f"setting {key} of criterion {name}",
            settings[key],
            one,
            limited=limited,  # else what a number means its author knows
        )
        for key, one in known.items()
        if key in settings
    }
    return {key: value for key, value in checked.items() if value != known[key].default}


def version(name: str) -> str:
    """The version of a criterion from outside, as keys hold it; nothing for ours.

    What its author declares, else ``sha256:`` and the digest of its files.

    Raises:
        ElthError: there is no such criterion.
    """
    return plugins.known_as(_of(name))


def module(name: str) -> str:
    """The module that a criterion from outside is in; nothing for ours."""
    return str(_of(name).get("module", ""))


def about(name: str) -> str:
    """What a criterion from outside says of itself, in a line; nothing for ours."""
    return str(_of(name).get("about", ""))


def _of(name: str) -> Mapping[str, Any]:
    ours = remembered(_catalogue)
    if name in ours:
        return ours[name]
    if not plugins.is_reference(name) and not plugins.listed():
        raise unknown("criterion", name, ours)
    return remembered(_outside, name, plugins.in_use(), also=plugins.state(name))


def _outside(name: str, paths: Sequence[str]) -> Mapping[str, Any]:
    from elth.criteria import _registry

    plugins.use(paths)
    return _registry.outside(name)


def _catalogue() -> Mapping[str, Mapping[str, Any]]:
    from elth.criteria import _registry

    return _registry.catalogue()


def _checked(what: str, value: Any, known: Choice, *, limited: bool) -> Any:
    """Return a setting's value as the type of its default; a whole number may stand for a float.

    A word must be one of those it may be, a whole number at least its least, a float positive; of
    a criterion from outside a word one of these if there are any, and a float finite.

    Raises:
        ElthError: it is none of these.
    """
    default, words, least = known.default, known.words, known.least
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise ElthError(f"{what} is {value!r}; expected a value like {default!r}")
    if isinstance(value, str) and value not in words and (limited or words):
        raise unknown(what, value, words)
    if isinstance(value, float) and not (math.isfinite(value) and (value > 0 or not limited)):
        raise ElthError(
            f"{what} must be a {'positive' if limited else 'finite'} number, is {value}"
        )
    if type(value) is int and value < least and limited:
        raise ElthError(f"{what} must be at least {least}, is {value}")
    return value
