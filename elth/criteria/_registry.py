"""The criteria by name, and what their functions tell of their settings."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any, Protocol, get_type_hints

from torch import Tensor

from elth.criteria import _magnitude, grasp, snip, synflow, uniform
from elth.criteria._gradients import Samples
from elth.criteria._settings import check_value
from elth.errors import unknown
from elth.masks import Mask
from elth.networks import DataShape, Network


class Criterion(Protocol):
    """Says which weights of a network stay.

    Further keyword-only parameters are settings (see ``options``), passed as ``**settings``.
    """

    def __call__(
        self,
        network: Network,
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

_GIVEN = frozenset(inspect.signature(Criterion.__call__).parameters)


def options_in_code(name: str) -> dict[str, Any]:
    """The settings of a criterion with their defaults, as its function has them."""
    parameters = _parameters(name)
    return {key: p.default for key, p in parameters.items() if key not in _GIVEN}


def needs_data(name: str) -> bool:
    """Whether a criterion looks at training images."""
    return _parameters(name)["data"].default is inspect.Parameter.empty


def check_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check the settings of a criterion; return those that differ from the default, in its order.

    Raises:
        ElthError: unknown criterion or setting, or a value that the setting cannot have.
    """
    defaults = options_in_code(name)
    hints = get_type_hints(CRITERIA[name], include_extras=True)
    for key in settings:
        if key not in defaults:
            raise unknown(f"setting of criterion {name}", key, defaults)
    checked = {
        key: check_value(
            f"setting {key} of criterion {name}", settings[key], defaults[key], hints[key]
        )
        for key in defaults
        if key in settings
    }
    return {key: value for key, value in checked.items() if value != defaults[key]}


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    if name not in CRITERIA:
        raise unknown("criterion", name, CRITERIA)
    return inspect.signature(CRITERIA[name]).parameters
