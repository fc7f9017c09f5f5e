"""What this machine has for trials: how many at a time, which data, and its numerics class."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from elth import data, plugins
from elth.apart import apart
from elth.errors import ElthError
from orchestrator.experiment.sections import Experiment, Resources
from orchestrator.plan.costs import seconds_of_step
from orchestrator.plan.stage import Stage, per_epoch, recipe_of

_CPU_SECONDS = 600.0
"""Estimated seconds of a whole training on one core, from which on it pays to compile."""
_GPU_ITERATIONS = 2000
"""Iterations of a whole training on a GPU, from which on it pays to compile."""


def local_slots(experiment: Experiment) -> int:
    """How many trials run at a time on this machine.

    Raises:
        ElthError: not even one; the message has the numbers.
    """
    want = experiment.resources
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    have = cpus // (want.cpus * want.workers)
    gpus = 0
    if want.gpus:
        gpus = apart(count_gpus) if _may_have_gpus() else 0  # no worker lies across two of them
        have = min(have, gpus * int(1 / want.gpus) // want.workers)
    if have < 1:
        lower = "resources.workers, " if want.workers > 1 else ""
        raise ElthError(
            f"{asking(want)} for {want.cpus} cpus and {want.gpus:g} gpus, and this machine has "
            f"{cpus} cpus and {gpus} gpus: lower {lower}resources.cpus or resources.gpus"
        )
    return min(have, want.concurrent or have)


def asking(want: Resources) -> str:
    """Who asks for resources, for a message."""
    if want.workers == 1:
        return "a trial asks"
    return f"each of the {want.workers} workers of a trial asks"


def _may_have_gpus() -> bool:
    """Whether torch is worth asking: there is a driver of GPUs."""
    if Path("/dev/kfd").exists():  # AMD's
        return True
    with contextlib.suppress(OSError):
        ctypes.CDLL("libcuda.so.1")
        return True
    return False


def count_gpus() -> int:
    """How many GPUs torch can use."""
    import torch

    return torch.cuda.device_count()


def read_datasets(
    names: Iterable[str], root: Path, *, download: bool, paths: Iterable[str] = ()
) -> None:
    """Read datasets, as each trial will.

    Args:
        names: the datasets.
        root: the folder that holds them.
        download: get what is missing, where it can be downloaded.
        paths: modules from outside that are listed, as ``plugins.use`` takes them.

    Raises:
        ElthError: one is not there, or is another.
    """
    plugins.use(paths)
    for name in names:
        data.load(name, root, download=download)


def check_recipes(experiment: Experiment) -> None:
    """Refuse what the trials' devices cannot do.

    Raises:
        ElthError: tf32 without a GPU, or batches that cannot be divided among the workers.
    """
    recipes = (experiment.recipe, *experiment.recipes.values())
    if experiment.resources.workers > 1:
        for recipe in recipes:
            recipe.check_division(experiment.resources.workers)
    if not experiment.resources.gpus and any(recipe.precision == "tf32" for recipe in recipes):
        raise ElthError(
            "the recipe's precision is tf32, one of GPUs, and resources.gpus is 0: give the trials "
            "a share of a GPU, or take float32 or bf16"
        )


def compiles(stage: Stage, choice: bool | str, device: str) -> bool:
    """Whether a stage's network is compiled: what was chosen, or what pays (``auto``).

    By the length of the recipe and the size of the network alone, so that a stage is always
    computed in the same way on the same kind of device.
    """
    if choice != "auto":
        return bool(choice)
    recipe = recipe_of(stage)
    whole = recipe.length.iterations(per_epoch(stage))
    if device != "cpu":
        return whole >= _GPU_ITERATIONS
    return whole * seconds_of_step(stage) >= _CPU_SECONDS


def numerics(threads: int, gpus: float, way: str, workers: int = 1) -> str:
    """The class within which bits are equal: device, torch, threads, workers, compile, and elth."""
    import torch

    from elth import arithmetic

    device = torch.cuda.get_device_name() if gpus else f"cpu-{arithmetic.processor()}"
    parts = (device, f"torch-{torch.__version__}", f"threads-{threads}", f"workers-{workers}", way)
    return f"{'/'.join(parts)}/elth-{arithmetic.NUMBER}"


def numerics_here(classes: Iterable[tuple[int, float, str, int]]) -> set[str]:
    """The classes of some arguments of ``numerics``; none of GPUs where there are none."""
    import torch

    return {
        numerics(threads, gpus, way, workers)
        for threads, gpus, way, workers in classes
        if not gpus or torch.cuda.is_available()
    }
