"""Elastic ticket transformations: plans, changes of width and datasets, and what they do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elth._lazy import lazily
from elth.elastic._notation import Width, is_width, parse_width
from elth.elastic._outside import apply, is_outside, outside
from elth.elastic._tensors import check_width, tensor_sources
from elth.elastic.plans import Plan, explain, label, resolve, spell

if TYPE_CHECKING:
    from elth.elastic.datasets import move
    from elth.elastic.depth import transform
    from elth.elastic.width import change_width
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "elth.elastic.datasets": ("move",),
            "elth.elastic.depth": ("transform",),
            "elth.elastic.width": ("change_width",),
        },
    )

__all__ = [
    "Plan",
    "Width",
    "apply",
    "change_width",
    "check_width",
    "explain",
    "is_outside",
    "is_width",
    "label",
    "move",
    "outside",
    "parse_width",
    "resolve",
    "spell",
    "tensor_sources",
    "transform",
]
