"""Sparse training: masks that are not found by IMP, and that change while a network is trained."""

from __future__ import annotations

from elth.dynamic._distributions import (
    DISTRIBUTIONS,
    layer_counts,
    layer_densities,
    published_counts,
)

__all__ = ["DISTRIBUTIONS", "layer_counts", "layer_densities", "published_counts"]
