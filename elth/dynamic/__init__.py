"""Sparse training: masks that are not found by IMP, and that change while a network is trained.

``METHODS`` are the ways, each a class whose fields are its settings; ``Evolution`` is the mask of
one training. How many weights a layer has, and when a mask changes, is known without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elth._lazy import lazily
from elth.dynamic._distributions import (
    DISTRIBUTIONS,
    layer_counts,
    layer_densities,
    published_counts,
)
from elth.dynamic._methods import (
    DPF,
    GMP,
    METHODS,
    SET,
    SNFS,
    Method,
    RigL,
    Static,
    choices,
    defaults,
    method,
)
from elth.dynamic._schedule import fraction_at, ramp

if TYPE_CHECKING:
    from elth.dynamic._evolution import Evolution, Host
    from elth.dynamic._updates import drawn
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "elth.dynamic._evolution": ("Evolution", "Host"),
            "elth.dynamic._updates": ("drawn",),
        },
    )

__all__ = [
    "DISTRIBUTIONS",
    "DPF",
    "GMP",
    "METHODS",
    "SET",
    "SNFS",
    "Evolution",
    "Host",
    "Method",
    "RigL",
    "Static",
    "choices",
    "defaults",
    "drawn",
    "fraction_at",
    "layer_counts",
    "layer_densities",
    "method",
    "published_counts",
    "ramp",
]
