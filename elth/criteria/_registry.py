"""The criteria by name, what their functions tell of their settings."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, get_args, get_type_hints

from torch import Tensor, nn

from elth import meanings, plugins
from elth.criteria import _magnitude, grasp, snip, synflow, uniform
from elth.criteria._gradients import Samples
from elth.criteria._limits import AtLeast
from elth.errors import ElthError
from elth.masks import Mask
from elth.specs import DataShape


class Criterion(Protocol):
    """Says which weights of a network stay.

    Further keyword-only parameters are settings (see ``options``). One of the name ``settings``,
    whose default is a dataclass of them, stands for all of its fields. ``prune`` takes either as
    ``**settings``.
    """

    def __call__(
        self,
        network: nn.Module,
        mask: Mapping[str, Tensor],
        keep: int,
        *,
        shape: DataShape,
        data: Samples | None,
        seed: int,
        unpruned: Collection[str] | None = None,
    ) -> Mask:
        """Return a mask of exactly ``keep`` weights, on the CPU; the network is left as it is.

        Args:
            network: the network with its weights, dense, on any device.
            mask: what is left so far, usually all; pruned weights count as zero, and stay pruned.
            keep: the number of weights that are left afterwards, over all layers.
            shape: the shape of the data.
            data: the dataset, of which training images are used; None where none is needed.
            seed: fixes what is drawn.
            unpruned: names of weights that are left whole; None for the anatomy's.

        Raises:
            ElthError: the count is impossible, the data is missing or too small, or the loss or a
                score is not finite.
        """


CRITERIA: dict[str, Criterion] = {
    "magnitude": _magnitude.prune,
    "snip": snip.prune,
    "grasp": grasp.prune,
    "grasp_absolute": grasp.prune_absolute,
    "synflow": synflow.prune,
    "random_global": uniform.prune_global,
    "random_layerwise": uniform.prune_layerwise,
}

_OURS = tuple(CRITERIA)
"""What is added to the dict later has no version, and is not found: it is for a plugin to name."""
_GIVEN = frozenset(inspect.signature(Criterion.__call__).parameters)
TOGETHER = "settings"
"""The parameter of a criterion that holds all of its settings."""


def criterion(name: str) -> Callable[..., Mask]:
    """The function of a criterion, ours or from outside.

    Raises:
        ElthError: there is none of this name, or it is no function.
    """
    if name in _OURS:
        return CRITERIA[name]
    found: Callable[..., Mask] = plugins.named("CRITERIA", name, "criterion", _OURS)
    if not callable(found):
        raise ElthError(f"{name} is no criterion: found {found!r}")
    missing = _GIVEN - {"self"} - set(inspect.signature(found).parameters)
    if missing:
        raise ElthError(
            f"{name} is no criterion: expected def f(network, mask, keep, *, shape, data, seed, "
            f"unpruned=None, setting=default) -> Mask, and it takes no {', '.join(sorted(missing))}"
        )
    return found


def outside(name: str) -> dict[str, Any]:
    """What the function of a criterion from outside tells, as ``catalogue``.

    And the ``version`` that it declares, the ``module`` that names it, and what it is ``about``.
    """
    found = criterion(name)
    if together(found) is None:
        plugins.keywords(found, "criterion", _GIVEN)  # refuses what is no setting
    lines = (inspect.getdoc(found) or "a criterion from outside").splitlines()
    return {
        **_told(found),
        "version": plugins.declared(found),
        "module": plugins.module_of("CRITERIA", name),
        "about": lines[0],
    }


def catalogue() -> dict[str, dict[str, Any]]:
    """What the functions tell of their settings, as JSON values.

    For each criterion whether it ``needs_data``, and for each of its ``settings`` the ``default``,
    what it is ``about``, the ``words`` that it may be and the ``least`` whole number.
    """
    return {name: _ours(name) for name in _OURS}


@functools.cache
def _ours(name: str) -> dict[str, Any]:
    return _told(CRITERIA[name])


def _told(criterion: Callable[..., Mask]) -> dict[str, Any]:
    parameters = inspect.signature(criterion).parameters
    kind = together(criterion)
    if kind is None:
        defaults = {key: p.default for key, p in parameters.items() if key not in _GIVEN}
    else:
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    said = meanings.of_keywords(criterion) if kind is None else meanings.of_fields(kind)
    hints = get_type_hints(kind or criterion, include_extras=True)
    return {
        "needs_data": parameters["data"].default is inspect.Parameter.empty,
        "settings": {
            key: {"default": default, "about": said.get(key, ""), **_bounds(hints.get(key))}
            for key, default in defaults.items()
        },
    }


def together(criterion: Callable[..., Mask]) -> type[Any] | None:
    """The dataclass of a criterion's settings, if it takes them together."""
    parameter = inspect.signature(criterion).parameters.get(TOGETHER)
    return None if parameter is None else type(parameter.default)


def _bounds(hint: Any) -> dict[str, Any]:
    said = get_args(hint)
    return {
        "words": [word for word in said if isinstance(word, str)],
        "least": next((limit.value for limit in said if isinstance(limit, AtLeast)), 1),
    }
