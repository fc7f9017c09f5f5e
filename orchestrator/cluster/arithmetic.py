"""Whether a machine computes the networks of a config rightly."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from elth.data import info
from orchestrator.plan.stage import ANALYSIS, Stage, dataset_of


def trained(stages: Iterable[Stage]) -> list[Mapping[str, Any]]:
    """What of some stages decides how a machine trains them, each once, as JSON values."""
    found: dict[str, Mapping[str, Any]] = {}
    for stage in stages:
        if stage.is_given or stage.kind == ANALYSIS:  # which train nothing
            continue
        recipe, dataset = stage.recipe, dataset_of(stage)
        network = stage.params["network"]
        text = f"{network} on {dataset} in {recipe.precision}"
        key = f"{text} {recipe.batch_norm_group} {min(recipe.batch_size, 16)}"
        found.setdefault(
            key, {"text": text, "network": network, "dataset": dataset, "recipe": recipe.plain()}
        )
    return list(found.values())


def examine(
    wanted: Iterable[Mapping[str, Any]], threads: int, gpus: float, paths: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """Compare a step of networks with float64 on this machine; may run on a node.

    Returns:
        For each what was found, and what is wrong with it; nothing if it is right.
    """
    import torch

    from elth import arithmetic, plugins
    from elth.networks import build
    from elth.recipes import Recipe
    from elth.streams import stream

    plugins.use(paths)
    device = torch.device("cuda" if gpus else "cpu")
    told = []
    before = torch.get_num_threads()
    try:
        # A trial for which this machine is too small is not placed on it, and thousands of threads
        # would stand in each other's way for minutes.
        torch.set_num_threads(min(threads, os.cpu_count() or 1))
        for one in wanted:
            shape, recipe = info(one["dataset"]).shape, Recipe.of(one["recipe"])
            network = build(one["network"], shape, generator=stream(0, "init"))
            found = arithmetic.look(network, recipe, device, shape.image)
            if not found.is_sound:
                told.append((one["text"], arithmetic.told(found, recipe, device)))
                continue
            text = f"{one['text']}: nothing could be compared"
            if found.worst is not None:
                share = 100 * found.worst.times
                text = f"{one['text']}: right, the largest error {share:.0f} % of what is allowed"
            told.append((f"{text} ({arithmetic.where(recipe, device)})", ""))
    finally:
        torch.set_num_threads(before)
    if os.environ.get(arithmetic.VARIABLE) == "off":
        told.append((f"{arithmetic.VARIABLE} is off: no run looks at its arithmetic", ""))
    return told
