"""What this machine has for trials: how many at a time, which data, and its numerics class."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from elth import data, plugins
from elth.apart import apart
from elth.errors import ElthError
from orchestrator.experiment.sections import Experiment, Resources
from orchestrator.plan.costs import seconds_of_step
from orchestrator.plan.stage import ANALYSIS, Stage, per_epoch
from orchestrator.work import quotas

_CPU_SECONDS = 600.0
"""Estimated seconds of a whole training on one core, from which on it pays to compile."""
_PROCESS_BYTES = 650 * 10**6
"""What a trial's process has of its own after a ResNet-20 on digits: .62 to .64 GB, measured."""
_GPU_PROCESS_BYTES = 3 * 10**9
"""What it has of this machine's memory with CUDA, cuDNN and cuBLAS loaded: not measured."""
_RAY_BYTES = 500 * 10**6
"""What Ray's own processes take, about."""
_GPU_ITERATIONS = 2000
"""Iterations of a whole training on a GPU, from which on it pays to compile."""


@dataclass(frozen=True, kw_only=True)
class Slots:
    """How many trials run at a time, and what bounds that."""

    count: int
    bound: str
    """As ``cores (cgroup quota of 2.0)``."""
    by_memory: bool = False

    def __str__(self) -> str:
        """As ``2 trials at a time, by cores (8 of this machine)``."""
        return f"{self.count} trial{'s' * (self.count > 1)} at a time, by {self.bound}"


def local_slots(experiment: Experiment) -> Slots:
    """How many trials run at a time on this machine, and why no more.

    The least of what was asked for, cores, GPUs and memory. What a trial takes of memory is known
    from below only, so that one runs whatever is free.

    Raises:
        ElthError: not even one; the message has the numbers.
    """
    want = experiment.resources
    cores = quotas.cores()
    found = [Slots(count=cores.count // (want.cpus * want.workers), bound=f"cores ({cores.told})")]
    gpus = 0
    if want.gpus:
        gpus = gpus_here()  # no worker lies across two of them
        count = gpus * int(1 / want.gpus) // want.workers
        found.append(Slots(count=count, bound=f"GPUs ({gpus} of this machine)"))
    if min(one.count for one in found) < 1:
        lower = "resources.workers, " if want.workers > 1 else ""
        told = f" ({cores.told})" if "of this machine" not in cores.told else ""
        raise ElthError(
            f"{asking(want)} for {want.cpus} cpus and {want.gpus:g} gpus, and this machine has "
            f"{cores.count} cpus{told} and {gpus} gpus: lower {lower}resources.cpus or "
            "resources.gpus"
        )
    memory, each = quotas.memory(), want.workers * _trial_bytes(experiment)
    bound = f"memory ({memory.told}, and a trial takes {each / 1e9:.1f} GB or more)"
    count = max(1, (memory.free - _RAY_BYTES) // each)
    found.append(Slots(count=count, bound=bound, by_memory=True))
    if want.concurrent is not None:
        found.append(Slots(count=want.concurrent, bound="resources.concurrent"))
    return min(found, key=lambda one: one.count)


def _trial_bytes(experiment: Experiment) -> int:
    """What a process of a trial takes of memory at least: its own part, and its largest dataset.

    What a batch takes in the layers of its network is not counted.
    """
    own = _GPU_PROCESS_BYTES if experiment.resources.gpus else _PROCESS_BYTES
    return own + max(data.memory_bytes(name) for name in experiment.datasets)


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


def gpus_here() -> int:
    """How many GPUs torch can use on this machine; this process needs no torch for it."""
    return apart(count_gpus) if _may_have_gpus() else 0


def count_gpus() -> int:
    """How many GPUs torch can use."""
    import torch

    return torch.cuda.device_count()


def kind_here() -> str:
    """The name of this machine's first GPU; empty without one. This process needs no torch."""
    return apart(name_gpu) if _may_have_gpus() else ""


def name_gpu() -> str:
    """The name of the first GPU that torch can use; empty without one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


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
    varied = [experiment.variant(name) for name in ("", *experiment.variants)]
    recipes = [recipe for one in varied for recipe in (one.recipe, *one.recipes.values())]
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
    if stage.kind == ANALYSIS:
        return False
    if choice != "auto":
        return bool(choice)
    recipe = stage.recipe
    whole = recipe.length.iterations(per_epoch(stage))
    if device != "cpu":
        return whole >= _GPU_ITERATIONS
    return whole * seconds_of_step(stage) >= _CPU_SECONDS


def numerics(threads: int, gpus: float, way: str, workers: int = 1, device: str = "") -> str:
    """The class within which bits are equal: device, torch, threads, workers, compile, and elth.

    The device is this process's, unless it is given, as that of a group of workers.
    """
    import torch

    from elth import arithmetic

    if not device:
        device = arithmetic.gpu() if gpus else f"cpu-{arithmetic.processor()}"
    parts = (device, f"torch-{torch.__version__}", f"threads-{threads}", f"workers-{workers}", way)
    return f"{'/'.join(parts)}/elth-{arithmetic.number(workers)}"


def numerics_here(classes: Iterable[tuple[int, float, str, int]]) -> set[str]:
    """The classes of some arguments of ``numerics``; none of GPUs where there are none."""
    import torch

    return {
        numerics(threads, gpus, way, workers)
        for threads, gpus, way, workers in classes
        if not gpus or torch.cuda.is_available()
    }
