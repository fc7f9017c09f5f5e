"""Finished stages whose gradients may have been wrong, and what came of them."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

from elth import plugins
from elth.errors import ElthError
from elth.networks import facts
from orchestrator.plan.stage import shape_of
from orchestrator.store import classes

if TYPE_CHECKING:
    from orchestrator.store.listing import Tracked


_REACHED = range(2, 8)
"""Input channels of a strided 1x1 convolution whose weight gradient oneDNN gets wrong with AVX2."""

_X86 = ("cpu-AuthenticAMD", "cpu-GenuineIntel", "cpu-HygonGenuine", "cpu-x86_64")

UNSOUND = "its gradients may have been wrong"
"""Why such a run is set aside."""

DO_AGAIN = (
    "elth verify --faulty sets them aside, and elth run does them and what came of them again"
)


def is_exposed(one: Tracked) -> bool:
    """Whether a stage was computed where its gradients may have been wrong.

    Up to the number 2 of ``elth.arithmetic.NUMBER`` the engine gave oneDNN strided convolutions of
    one pixel, and where its instructions are AVX2 their weight gradient is wrong for few channels.
    The numerics class tells of PyTorch's instructions alone; before AVX-512 they are the same.
    """
    if not any(map(_was_exposed, classes.parts(one.numerics))):
        return False
    try:
        with plugins.closed():  # a store has nothing run
            shape = shape_of(one.stage)
            strided = facts(one.stage.params["network"], shape).strided_pixels
    except ElthError:  # of a dataset or a network that is not here, or no more
        return False
    return any(channels in _REACHED for channels in strided)


def _was_exposed(numerics: str) -> bool:
    device, _, rest = numerics.partition("/")
    return device.startswith(_X86) and "AVX512" not in device and "elth-" not in rest


def faulty(tracked: Iterable[Tracked]) -> list[Tracked]:
    """The finished runs of a store that are exposed, or come of one that is; children first.

    A run comes of the finished ones of its parents that were there when it began, and of those that
    were set aside since, unless a sound one was there as well.

    Args:
        tracked: all runs of the store, in whatever state.
    """
    runs: dict[str, list[Tracked]] = {}
    for one in tracked:
        if one.status in ("finished", "set aside", "killed"):
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
