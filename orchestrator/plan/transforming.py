"""Transformations that a plan asks for: what does not fit is refused before it costs anything."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elth import elastic
from elth.errors import ElthError
from elth.networks import DataShape, facts, options, tensor_shapes
from elth.specs import Spec
from orchestrator.plan.stage import info_of


@dataclass(frozen=True, kw_only=True)
class Move:
    """A transformation between two networks, checked."""

    step: Mapping[str, Any] | None
    """None where each unit stays in its place."""
    label: str
    replicates: bool
    """Whether some source unit fills more than one place."""


@functools.lru_cache(maxsize=4096)
def transform(
    text: str, source: str, target: str, source_dataset: str, target_dataset: str
) -> Move:
    """Work out a transformation, and refuse one that does not fit before anything is spent."""
    if elastic.is_outside(text):
        spec, version, _ = elastic.outside(text)
        step = {"call": str(spec), "version": version, "to": target}
        return Move(step=step, label=str(spec), replicates=False)
    shape, goal = info_of(source_dataset).shape, info_of(target_dataset).shape
    before, after = facts(source, shape).anatomy, facts(target, goal).anatomy
    if elastic.is_width(text):
        width = elastic.parse_width(text)
        elastic.check_width(width, Spec.parse(source), Spec.parse(target), shape)
        moved, wanted = (tensor_shapes(target, s) for s in (shape, goal))
        for name, sides in wanted.items():
            if sides != moved[name] and not name.startswith(f"{after.head}."):
                raise ElthError(
                    f"a ticket of {target} for {source_dataset} does not fit {target_dataset}: "
                    f"'{name}' has shape {sides} there, {moved[name]} here"
                )
        return Move(step={"width": str(width), "to": target}, label=str(width), replicates=False)
    plan = elastic.resolve(text, before, after)
    if not _differ_in_depth_only(source, target, shape, goal):
        _check_tensors(plan, source, target, source_dataset, target_dataset)
    stays = source == target and plan.is_identity
    return Move(
        step=None if stays else {"transform": [list(s) for s in plan.stages], "to": target},
        label=elastic.label(plan, before, after),
        replicates=any(len(set(stage)) < len(stage) for stage in plan.stages),
    )


def _differ_in_depth_only(source: str, target: str, shape: DataShape, goal: DataShape) -> bool:
    """Whether two networks are of one family and agree in every option and in their images.

    Then every plan that fits the anatomies fills each tensor from one of its shape: the units of a
    stage are alike but for fixed ones, which stay in their places, and the head is made anew where
    the dataset is another: ``_check_tensors``, for which both are built, would find nothing.
    """
    one, other = Spec.parse(source), Spec.parse(target)
    return (
        facts(one, shape).anatomy.family == facts(other, goal).anatomy.family
        and {**options(one.name), **dict(one.options)}
        == {**options(other.name), **dict(other.options)}
        and (shape.channels, shape.size) == (goal.channels, goal.size)
    )


def _check_tensors(
    plan: elastic.Plan, source: str, target: str, source_dataset: str, target_dataset: str
) -> None:
    """Refuse a plan that fills a tensor from one of another shape."""
    shape, goal = info_of(source_dataset).shape, info_of(target_dataset).shape
    before, after = facts(source, shape).anatomy, facts(target, goal).anatomy
    have, want = tensor_shapes(source, shape), tensor_shapes(target, goal)
    origins = elastic.tensor_sources(plan, before, after, have, list(want))
    head = f"{after.head}."
    for name, origin in origins.items():
        if source_dataset != target_dataset and name.startswith(head):
            continue
        if have[origin] != want[name]:
            raise ElthError(
                f"a ticket of {source} does not fit {target}: '{name}' has shape "
                f"{want[name]}, '{origin}' of the source {have[origin]}" + _hint(source, target)
            )


def _hint(source: str, target: str) -> str:
    widths = [dict(Spec.parse(name).options).get("width") for name in (source, target)]
    if widths[0] == widths[1]:
        return ""
    return "; between widths in the ratio of two, transform is double or halve"
