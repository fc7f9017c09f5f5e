"""The networks of the papers, each telling its anatomy: stages, units, and what is fixed.

A network is a function of the data's shape and of its options. To add one, write a file beside
this one with a ``NETWORKS`` dict, and name it in ``_registry.py``. One that is not ours is named by
its module, as ``my_lab.nets:wide(k=2)`` (``elth.plugins``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elth._lazy import lazily
from elth.networks._anatomy import Anatomy, Stage
from elth.networks._facts import (
    Facts,
    about,
    canonical,
    choices,
    facts,
    module,
    names,
    options,
    tensor_shapes,
    version,
)
from elth.specs import DataShape, spell

if TYPE_CHECKING:
    from elth.networks._network import NAMES, Network
    from elth.networks._outside import with_anatomy
    from elth.networks._registry import (
        NETWORKS,
        blueprint,
        build,
        check_module,
        check_state,
        initialise,
        macs,
        prunable,
        smallest_norm,
    )
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "elth.networks._network": ("NAMES", "Network"),
            "elth.networks._outside": ("with_anatomy",),
            "elth.networks._registry": (
                "NETWORKS",
                "blueprint",
                "build",
                "check_module",
                "check_state",
                "initialise",
                "macs",
                "prunable",
                "smallest_norm",
            ),
        },
    )

__all__ = [
    "NAMES",
    "NETWORKS",
    "Anatomy",
    "DataShape",
    "Facts",
    "Network",
    "Stage",
    "about",
    "blueprint",
    "build",
    "canonical",
    "check_module",
    "check_state",
    "choices",
    "facts",
    "initialise",
    "macs",
    "module",
    "names",
    "options",
    "prunable",
    "smallest_norm",
    "spell",
    "tensor_shapes",
    "version",
    "with_anatomy",
]
