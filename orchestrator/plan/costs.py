"""What stages cost, in work units and in bytes, before any has been timed."""

from __future__ import annotations

import functools

from elth import counts
from elth.measures import settings_of
from elth.networks import facts
from elth.specs import DataShape
from orchestrator.plan.stage import ANALYSIS, Stage, iterations, shape_of, sizes_of

_IMAGES = 1000
"""Of a batch of evaluation."""


def kept_after(rate: float | str, rounds: int, prunable_weights: int) -> int:
    """As ``elth.counts.kept_after``; what it gave for fewer rounds is gone on from."""
    known = _known(str(rate), prunable_weights)
    while len(known) <= rounds and known[-1]:
        known.append(counts.kept_after(rate, 1, known[-1]))
    return known[rounds] if rounds < len(known) else 0


@functools.lru_cache(maxsize=256)
def _known(rate: str, prunable_weights: int) -> list[int]:
    """The weights that are left after no, one, two ... prunings, as far as they are known."""
    return [prunable_weights]


@functools.lru_cache(maxsize=4096)
def weights_of(network: str, shape: DataShape) -> tuple[int, int]:
    """Prunable weights of a network, and how many of them are never pruned."""
    found = facts(network, shape)
    return found.prunable, found.unpruned


def work(stage: Stage) -> float:
    """Rough cost of a stage: seconds on one core of a laptop.

    Three times the multiply-accumulates of a forward pass, at 50 GMAC/s, and half a millisecond
    for every layer; only ratios matter once a stage has been timed on the machine at hand.
    """
    if stage.is_given:
        return 0.0
    if stage.kind == ANALYSIS:
        settings = settings_of(stage.params["measure"], stage.params.get("settings", {}))
        images = settings.passes(*sizes_of(stage))
        return 0.5 + images / _IMAGES * _step(stage.params["network"], shape_of(stage), _IMAGES) / 3
    start, stop = iterations(stage)
    return 0.2 + (stop - start) * seconds_of_step(stage)


def seconds_of_step(stage: Stage) -> float:
    """Rough cost of an iteration: seconds on one core of a laptop."""
    batch = stage.recipe.batch_size
    return _step(stage.params["network"], shape_of(stage), batch)


@functools.lru_cache(maxsize=4096)
def _step(network: str, shape: DataShape, batch: int) -> float:
    found = facts(network, shape)
    return 3 * found.macs * batch / 50e9 + 5e-4 * found.layers


def stored_bytes(stage: Stage, keep_weights: bool = False) -> int:
    """About how many bytes a stage leaves in the store.

    Of rounds that are counted from an imported ticket as many as if it were dense.
    """
    weights, _ = weights_of(stage.params["network"], shape_of(stage))
    overhead = 60_000
    if stage.kind == ANALYSIS:
        return overhead
    if stage.kind == "rewind_point":
        return overhead + 4 * weights
    kept = weights
    if "keep" in stage.params:
        kept = stage.params["keep"]
    elif stage.kind == "round" and stage.labels["round"]:
        kept = kept_after(stage.params["rate"], stage.labels["round"], weights)
    return overhead + weights // 8 + (4 * kept if stage.kind == "round" or keep_weights else 0)


def duration(seconds: float) -> str:
    """A length of time for people: ``45 s``, ``3 min 20 s``, ``2 h 05 min``, ``3 d 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size_of(count: float) -> str:
    """Bytes for people."""
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.3g} {unit}"
    return f"{count / 1000:.3g} TB"
