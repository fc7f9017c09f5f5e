"""Elastic ticket transformations: plans, and what they do to a ticket."""

from elth.elastic.depth import tensor_sources, transform
from elth.elastic.plans import Plan, explain, label, resolve, spell

__all__ = ["Plan", "explain", "label", "resolve", "spell", "tensor_sources", "transform"]
