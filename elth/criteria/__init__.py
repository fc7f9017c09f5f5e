"""The pruning criteria of the papers: from a network to a mask of exactly as many weights as asked.

A criterion's module has ``scores``, a function of tensors, and ``prune``, which draws what is to be
drawn and keeps the highest scores. To add one, write a file beside these, and name it in
``_registry.py`` and in ``NAMES`` of ``_settings.py``. Its further keyword-only parameters are its
settings, or the fields of a dataclass that is its parameter ``settings``; without a default for
``data`` it needs a dataset. ``prune`` calls a criterion by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elth._lazy import lazily
from elth.criteria._settings import (
    NAMES,
    about,
    check_settings,
    choices,
    module,
    needs_data,
    options,
    shares,
    version,
)

if TYPE_CHECKING:
    from elth.criteria import grasp, snip, synflow, uniform
    from elth.criteria._gradients import Batch, Mode, Samples
    from elth.criteria._magnitude import magnitude
    from elth.criteria._pruning import prune
    from elth.criteria._registry import CRITERIA, Criterion
    from elth.criteria._selection import keep_highest
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "elth.criteria._gradients": ("Batch", "Mode", "Samples"),
            "elth.criteria._magnitude": ("magnitude",),
            "elth.criteria._pruning": ("prune",),
            "elth.criteria._registry": ("CRITERIA", "Criterion"),
            "elth.criteria._selection": ("keep_highest",),
        },
    )

__all__ = [
    "CRITERIA",
    "NAMES",
    "Batch",
    "Criterion",
    "Mode",
    "Samples",
    "about",
    "check_settings",
    "choices",
    "grasp",
    "keep_highest",
    "magnitude",
    "module",
    "needs_data",
    "options",
    "prune",
    "shares",
    "snip",
    "synflow",
    "uniform",
    "version",
]
