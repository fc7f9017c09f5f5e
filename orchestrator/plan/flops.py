"""What trainings cost in floating-point operations: from stages, and the masks that they have.

By RigL's conventions (``elth.flops``). Where a mask becomes sparser in one training, the zeros of
each layer are taken to grow as all zeros do; of SNFS, which moves weights between layers, the mask
of the end is taken throughout.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from elth import dynamic
from elth.dynamic import DPF, GMP, ramp
from elth.flops import Cost, step
from elth.networks import DataShape, facts
from elth.recipes import Recipe
from orchestrator.plan.stage import SPARSE, Stage, iterations, per_epoch, shape_of, size_of


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Of a training; a multiplication and an addition count two."""

    inference: float
    """For one image with the mask."""
    dense: float
    """For one image without."""
    training: float
    """For the whole training: of a round that round alone, and not what was before it."""


def cost_of(network: str, shape: DataShape) -> Cost:
    """What each layer of a network does for one image."""
    return facts(network, shape).cost


def images_of(stage: Stage) -> int:
    """How many images a stage trains on, each as often as it is shown."""
    first, last = iterations(stage)
    return _images(last, stage) - _images(first, stage)


def _images(step: int, stage: Stage) -> int:
    epochs, rest = divmod(step, per_epoch(stage))
    return epochs * size_of(stage) + min(rest * stage.recipe.batch_size, size_of(stage))


def dense_run(cost: Cost, recipe: Recipe, train_size: int) -> float:
    """Operations of one dense training of a network, from initialisation to the recipe's end."""
    epoch = -(-train_size // recipe.batch_size)
    epochs, rest = divmod(recipe.length.iterations(epoch), epoch)
    images = epochs * train_size + min(rest * recipe.batch_size, train_size)
    return float(3 * cost.inference() * images)


def operations(
    stage: Stage,
    kept: Mapping[str, int] | None,
    *,
    dpf: str = "careful",
    cost: Cost | None = None,
) -> Operations:
    """Operations of a stage that trains something.

    Args:
        stage: a rewind point, a round, a retraining or a sparse training.
        kept: how many weights each layer has; of a sparse training at its end. None: all.
        dpf: how a step of DPF is counted (``elth.flops.DPF``).
        cost: what its network does for an image, where that is known without its code.
    """
    cost = cost or cost_of(stage.params["network"], shape_of(stage))
    dense, sparse = cost.inference(), cost.inference(kept)
    name, every, batches, during = "static", 1, 1, sparse
    if stage.kind == SPARSE:
        method = dynamic.method(stage.params["method"], stage.params.get("settings", {}))
        name = method.cost
        if isinstance(method, dynamic.RigL):
            every, batches = method.every.iterations(per_epoch(stage)), method.batches
        if isinstance(method, GMP | DPF):
            done = _mean_ramp(
                method.name,
                json.dumps(method.plain(), sort_keys=True),
                *iterations(stage),
                _length(stage),
                per_epoch(stage),
            )
            during = dense - done * (dense - sparse)
    each = step(name, during, dense, every=every, batches=batches, dpf=dpf)
    return Operations(
        inference=float(sparse), dense=float(dense), training=float(each * images_of(stage))
    )


def _length(stage: Stage) -> int:
    return stage.recipe.length.iterations(per_epoch(stage))


@functools.lru_cache(maxsize=1024)
def _mean_ramp(
    name: str, settings: str, first: int, last: int, length: int, epoch: int
) -> Fraction:
    """How much of the final number of zeros there is on average, from a first iteration to a last.

    As ``elth.dynamic.Evolution`` prunes: a mask stays from one update to the next.
    """
    method: Any = dynamic.method(name, json.loads(settings))
    every = method.every.iterations(epoch)
    end = max(min(int(method.end * length), length - 1), first)
    begin = int(getattr(method, "begin", 0.0) * length)
    total, now = Fraction(0), Fraction(0)
    for at in range(first, last):
        if at == end or (at % every == 0 and begin <= at < end):
            now = ramp(at, begin, min(end, int(method.end * length)))
        elif at > end:
            return (total + now * (last - at)) / (last - first)
        total += now
    return total / (last - first)
