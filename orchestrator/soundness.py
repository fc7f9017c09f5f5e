"""Whether what was computed, and what is to be, is right: finished stages and this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from elth.data import info
from elth.errors import ElthError
from elth.networks import facts
from orchestrator.plan import Stage, dataset_of, recipe_of

if TYPE_CHECKING:
    from orchestrator.listing import Tracked

_REACHED = range(2, 8)
"""Input channels of a strided 1x1 convolution whose weight gradient oneDNN gets wrong with AVX2."""

DO_AGAIN = (
    "elth verify --faulty sets them aside, and elth run does them and what came of them again"
)


def is_exposed(one: Tracked) -> bool:
    """Whether a stage was computed where its gradients may have been wrong.

    Up to the number 2 of ``elth.arithmetic.NUMBER`` the engine gave oneDNN strided convolutions of
    one pixel, and where its instructions are AVX2 their weight gradient is wrong for few channels.
    The numerics class tells of PyTorch's instructions alone; before AVX-512 they are the same.
    """
    device, _, rest = one.numerics.partition("/")
    if not device.startswith("cpu-") or "/elth-" in rest or "AVX512" in device:
        return False
    try:
        shape = info(dataset_of(one.stage)).shape
        strided = facts(one.stage.params["network"], shape).strided_pixels
    except ElthError:  # of a folder whose manifest is not here, or a network that is no more
        return False
    return any(channels in _REACHED for channels in strided)


def faulty(tracked: Iterable[Tracked]) -> list[Tracked]:
    """Those of some finished stages that are exposed, or come of one that is."""
    finished = {one.key: one for one in tracked if one.status == "finished"}
    known: dict[str, bool] = {}

    def is_faulty(key: str) -> bool:
        if key not in finished:
            return False
        if key not in known:
            one = finished[key]
            known[key] = is_exposed(one) or any(is_faulty(k) for k in one.stage.parents)
        return known[key]

    for key in sorted(finished, key=lambda key: finished[key].started):  # parents come first
        is_faulty(key)
    return [one for key, one in finished.items() if known[key]]


def trained(stages: Iterable[Stage]) -> list[Mapping[str, Any]]:
    """What of some stages decides how a machine computes them, each once, as JSON values."""
    found: dict[str, Mapping[str, Any]] = {}
    for stage in stages:
        recipe, dataset = recipe_of(stage), dataset_of(stage)
        network = stage.params["network"]
        text = f"{network} on {dataset} in {recipe.precision}"
        found.setdefault(
            text, {"text": text, "network": network, "dataset": dataset, "recipe": recipe.plain()}
        )
    return list(found.values())


def examine(
    wanted: Iterable[Mapping[str, Any]], threads: int, gpus: float
) -> list[tuple[str, str]]:
    """Compare a step of networks with float64 on this machine; may run on a node.

    Returns:
        For each what was found, and what is wrong with it; nothing if it is right.
    """
    import torch

    from elth import arithmetic
    from elth.networks import build
    from elth.recipes import Recipe
    from elth.streams import stream

    device = torch.device("cuda" if gpus else "cpu")
    told = []
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for one in wanted:
            shape, recipe = info(one["dataset"]).shape, Recipe.of(one["recipe"])
            network = build(one["network"], shape, generator=stream(0, "init"))
            found = arithmetic.look(network, recipe, device, shape.image)
            if not found.is_sound:
                told.append((one["text"], arithmetic.told(found, recipe, device)))
            elif found.worst is not None:
                share = 100 * found.worst.times
                text = f"{one['text']}: right, the largest error {share:.0f} % of what is allowed"
                told.append((f"{text} ({arithmetic.where(recipe, device)})", ""))
    finally:
        torch.set_num_threads(before)
    if os.environ.get(arithmetic.VARIABLE) == "off":
        told.append((f"{arithmetic.VARIABLE} is off: no run looks at its arithmetic", ""))
    return told
