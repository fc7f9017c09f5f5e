"""Whether what was computed, and what is to be, is right: finished stages and this machine."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from elth.data import info
from elth.errors import ElthError
from elth.networks import facts
from orchestrator.plan import Stage, dataset_of, recipe_of

if TYPE_CHECKING:
    from orchestrator.listing import Tracked

_REACHED = range(2, 8)
"""Input channels of a strided 1x1 convolution whose weight gradient oneDNN gets wrong with AVX2."""

_X86 = ("cpu-AuthenticAMD", "cpu-GenuineIntel", "cpu-HygonGenuine", "cpu-x86_64")

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
    if not device.startswith(_X86) or "AVX512" in device or "elth-" in rest:
        return False
    try:
        shape = info(dataset_of(one.stage)).shape
        strided = facts(one.stage.params["network"], shape).strided_pixels
    except ElthError:  # of a folder whose manifest is not here, or a network that is no more
        return False
    return any(channels in _REACHED for channels in strided)


def faulty(tracked: Iterable[Tracked]) -> list[Tracked]:
    """The finished runs of a store that are exposed, or come of one that is; children first.

    A run comes of the finished ones of its parents that were there when it began, and of those that
    were set aside since, unless a sound one was there as well.

    Args:
        tracked: all runs of the store, in whatever state.
    """
    runs: dict[str, list[Tracked]] = {}
    for one in tracked:
        if one.status in ("finished", "killed"):
            runs.setdefault(one.key, []).append(one)
    known: dict[str, bool] = {}

    def is_faulty(one: Tracked) -> bool:
        if one.run_id not in known:
            known[one.run_id] = is_exposed(one) or any(
                comes_of(key, one.started) for key in one.stage.parents
            )
        return known[one.run_id]

    def comes_of(key: str, when: int) -> bool:
        before = [one for one in runs.get(key, ()) if one.started <= when]
        finished = [one for one in before if one.status == "finished"]
        if any(is_faulty(one) for one in finished):
            return True
        return not finished and any(is_faulty(one) for one in before)

    found = [one for some in runs.values() for one in some if one.status == "finished"]
    found.sort(key=lambda one: one.started)  # parents before children: no deep recursion
    return [one for one in found if is_faulty(one)][::-1]


def of_grid(found: Iterable[Tracked], keys: Container[str]) -> list[Tracked]:
    """Those of some faulty runs that are a grid's, and those that come of them, in their order.

    Args:
        found: what ``faulty`` gave.
        keys: the keys of the grid.
    """
    ordered = list(found)
    chosen: set[str] = set()
    for one in reversed(ordered):
        if one.key in keys or any(key in chosen for key in one.stage.parents):
            chosen.add(one.key)
    return [one for one in ordered if one.key in chosen]


def trained(stages: Iterable[Stage]) -> list[Mapping[str, Any]]:
    """What of some stages decides how a machine computes them, each once, as JSON values."""
    found: dict[str, Mapping[str, Any]] = {}
    for stage in stages:
        recipe, dataset = recipe_of(stage), dataset_of(stage)
        network = stage.params["network"]
        text = f"{network} on {dataset} in {recipe.precision}"
        key = f"{text} {recipe.batch_norm_group} {min(recipe.batch_size, 16)}"
        found.setdefault(
            key, {"text": text, "network": network, "dataset": dataset, "recipe": recipe.plain()}
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
