"""Measures by their names, of trained networks: for whoever does many, as the system does.

A measure that takes long tells how far it is with what it has so far, from which another process
goes on and comes to the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from elth import masks
from elth.analysis.curvature import Curvature, hessian, power_steps, trace_probes
from elth.analysis.distances import distance_matrices
from elth.analysis.effective import effective_sparsity
from elth.analysis.evaluator import Evaluator
from elth.analysis.functions import function_distance, projection_damage
from elth.analysis.histograms import histogram
from elth.analysis.overlap import mask_overlap
from elth.analysis.paths import Curve, along
from elth.analysis.projection import norm_removed
from elth.analysis.signs import sign_agreement
from elth.analysis.thresholds import pruning_threshold
from elth.analysis.travel import distance_travelled
from elth.counts import kept_after
from elth.data import Dataset
from elth.errors import ElthError
from elth.masks import Mask
from elth.measures import (
    OnBins,
    OnCurvature,
    OnImages,
    OnPaths,
    Settings,
    abscissae,
    check_count,
    measure_of,
    settings_of,
    starts_of,
)
from elth.networks import blueprint, build
from elth.recipes import Recipe
from elth.specs import DataShape, Spec
from elth.streams import stream

State = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A trained network that is looked at."""

    network: Spec
    shape: DataShape
    """Of its data."""
    mask: Mask
    trained: State
    """The state dict at the end of its training; pruned weights are zero."""
    recipe: Recipe
    """How it was trained."""
    start: State | None = None
    """The state dict that it was trained from, not masked, for a measure that looks at it
    (``elth.measures.starts_of``)."""
    rate: float | str = 0.2
    """The fraction of its weights that the next pruning takes."""


Partial = tuple[float, Mapping[str, Any]]
"""The fraction that is done, and what there is so far, as JSON values."""
_Steps = Generator[Partial, None, dict[str, Any]]


def measure(
    name: str,
    subjects: Sequence[Subject],
    settings: Mapping[str, Any],
    *,
    data: Dataset | None = None,
    saved: Mapping[str, Any] | None = None,
) -> _Steps:
    """Do a measure step by step; returns what it comes to, as JSON values.

    Args:
        name: one of ``elth.measures.MEASURES``.
        subjects: what it looks at: one network, two, or the rounds of a line in their order.
        settings: those that differ from the defaults.
        data: the dataset, on the device to compute on, for a measure that needs it.
        saved: what an earlier process had so far; the result is the same with it or without.

    Yields:
        How far it is, and what to save.

    Raises:
        ElthError: a setting cannot be, there are more or fewer subjects than it looks at, they are
            of several networks, or as the measure.
    """
    known, chosen = measure_of(name), settings_of(name, settings)
    check_count(name, len(subjects))
    if len({(one.network, one.shape) for one in subjects}) > 1:
        told = ", ".join(dict.fromkeys(f"{one.network} ({one.shape})" for one in subjects))
        raise ElthError(f"measure {name} compares trainings of one network, found {told}")
    if known.needs_data and data is None:
        raise ElthError(f"measure {name} needs the dataset")
    if any(subjects[number].start is None for number in starts_of(name, len(subjects))):
        raise ElthError(f"measure {name} needs the weights that trainings began with: give start")
    return _MEASURES[name](subjects, chosen, data, saved or {})


def _evaluator(subjects: Sequence[Subject], chosen: OnImages, data: Dataset | None) -> Evaluator:
    """What looks at networks as they were trained; in float32 those of unlike precisions."""
    assert data is not None
    recipe = subjects[0].recipe
    if len({one.recipe.precision for one in subjects}) > 1:
        recipe = dataclasses.replace(recipe, precision="float32")
    return Evaluator(
        subjects[0].network,
        data,
        recipe,
        on=cast(Any, chosen.on),
        images=chosen.images,
        batch_norm=cast(Any, chosen.batch_norm),
        batch_norm_images=chosen.batch_norm_images,
    )


def _barrier(
    subjects: Sequence[Subject], chosen: Settings, data: Dataset | None, saved: Mapping[str, Any]
) -> _Steps:
    assert isinstance(chosen, OnPaths)
    first, second = subjects
    at = abscissae(chosen.points, chosen.low, chosen.high)
    curve = Curve.of(saved.get("points", ()))
    evaluator = _evaluator(subjects, chosen, data)
    for point in along(first.trained, second.trained, curve.left(at), evaluator):
        curve = Curve((*curve.points, point))
        yield len(curve.points) / len(at), {"points": curve.plain()}
    return {
        "points": curve.plain(),
        "barriers": {part: one.plain() for part, one in curve.barriers().items()},
        "images": {part: len(evaluator.labels(cast(Any, part))) for part in chosen.on},
    }


def _functions(
    subjects: Sequence[Subject], chosen: Settings, data: Dataset | None, saved: Mapping[str, Any]
) -> _Steps:
    assert isinstance(chosen, OnImages)
    evaluator = _evaluator(subjects, chosen, data)
    found: dict[str, Any] = dict(saved)
    for part in chosen.on:
        if part not in found:
            which = cast(Any, part)
            first, second = (evaluator.logits(one.trained, which) for one in subjects)
            found[part] = function_distance(first, second, evaluator.labels(which)).plain()
            yield len(found) / len(chosen.on), found
    return found


def _damage(
    subjects: Sequence[Subject], chosen: Settings, data: Dataset | None, _: Mapping[str, Any]
) -> _Steps:
    assert isinstance(chosen, OnImages)
    first, second = subjects
    removed = norm_removed(first.trained, first.mask, second.mask).plain()
    yield 0.1, {}
    evaluator = _evaluator(subjects[:1], chosen, data)  # the second gives its mask alone
    return {**projection_damage(first.trained, second.mask, evaluator).plain(), "removed": removed}


def _curvature(
    subjects: Sequence[Subject], chosen: Settings, data: Dataset | None, saved: Mapping[str, Any]
) -> _Steps:
    assert isinstance(chosen, OnCurvature)
    assert data is not None
    (one,) = subjects
    operator = hessian(one.network, one.trained, one.mask, data, images=chosen.images)
    work = chosen.steps + chosen.probes
    top: dict[str, float] = dict(saved.get("top", {}))
    if not top:  # its vector is as large as the network, so it is begun anew
        steps = power_steps(operator, operator.start(), chosen.steps)
        for done, step in enumerate(steps, start=1):
            top = {"value": step.value, "residual": step.residual}
            yield done / work, {}
    probes: list[float] = list(saved.get("probes", ()))
    for probe in trace_probes(operator, range(len(probes), chosen.probes)):
        probes.append(probe)
        yield (chosen.steps + len(probes)) / work, {"top": top, "probes": probes}
    return Curvature(
        dimension=operator.dimension,
        top=top["value"],
        residual=top["residual"],
        steps=chosen.steps,
        probes=tuple(probes),
    ).plain()


def _at_once(compute: Callable[[Sequence[Subject], Any], dict[str, Any]]) -> Callable[..., _Steps]:
    """A measure of weights and masks alone, which is quick."""

    def steps(
        subjects: Sequence[Subject], chosen: Settings, _: Dataset | None, __: Mapping[str, Any]
    ) -> _Steps:
        yield 0.0, {}
        return compute(subjects, chosen)

    return steps


def _overlap(subjects: Sequence[Subject], _: Settings) -> dict[str, Any]:
    first, second = subjects
    return mask_overlap(first.mask, second.mask).plain()


def _signs(subjects: Sequence[Subject], _: Settings) -> dict[str, Any]:
    first, second = subjects
    return sign_agreement(first.trained, first.mask, second.trained, second.mask).plain()


def _distances(subjects: Sequence[Subject], _: Settings) -> dict[str, Any]:
    """The last row and column are of the weights that the first of them starts from."""
    return distance_matrices(
        [one.trained for one in subjects],
        [one.mask for one in subjects],
        initial=subjects[0].start,
    ).plain()


def _histograms(subjects: Sequence[Subject], chosen: Settings) -> dict[str, Any]:
    assert isinstance(chosen, OnBins)
    found = [histogram(one.trained, one.mask, width=chosen.width) for one in subjects]
    return {"rounds": [one.plain() for one in found]}


def _thresholds(subjects: Sequence[Subject], _: Settings) -> dict[str, Any]:
    found = []
    for one in subjects:
        kept = masks.nonzeros(one.mask)
        pruned = kept - kept_after(one.rate, 1, kept)
        unpruned = blueprint(one.network, one.shape).anatomy.unpruned
        whole = masks.nonzeros({name: one.mask[name] for name in unpruned})
        pruned = pruned if pruned <= kept - whole else 0  # no further pruning is possible
        threshold = pruning_threshold(one.trained, one.mask, pruned=pruned, unpruned=unpruned)
        found.append({**threshold.plain(), "kept": kept})
    return {"rounds": found, "total": masks.total(subjects[0].mask)}


def _effective(subjects: Sequence[Subject], _: Settings) -> dict[str, Any]:
    first = subjects[0]  # all are of one network, and its weights do not matter
    network = build(first.network, first.shape, generator=stream(0, "init"))
    found = [effective_sparsity(network, one.mask, one.shape) for one in subjects]
    return {"rounds": [one.plain() for one in found]}


def _travel(subjects: Sequence[Subject], _: Settings) -> dict[str, Any]:
    found = []
    for one in subjects:
        assert one.start is not None
        found.append(distance_travelled(one.start, one.trained, one.mask))
    return {"rounds": [one.plain() for one in found]}


_MEASURES: Mapping[str, Callable[..., _Steps]] = {
    "barrier": _barrier,
    "functions": _functions,
    "damage": _damage,
    "overlap": _at_once(_overlap),
    "signs": _at_once(_signs),
    "distances": _at_once(_distances),
    "histograms": _at_once(_histograms),
    "thresholds": _at_once(_thresholds),
    "effective": _at_once(_effective),
    "travel": _at_once(_travel),
    "curvature": _curvature,
}
