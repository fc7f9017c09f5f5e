"""What this machine can run at a time, and in which numerics class."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from elth.errors import ElthError
from orchestrator.experiment import Experiment


def local_slots(experiment: Experiment) -> int:
    """How many trials run at a time on this machine.

    Raises:
        ElthError: not even one; the message has the numbers.
    """
    want = experiment.resources
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    have = cpus // want.cpus
    gpus = 0
    if want.gpus:
        gpus = _gpus()
        have = min(have, gpus * int(1 / want.gpus))  # no trial lies across two of them
    if have < 1:
        raise ElthError(
            f"a trial asks for {want.cpus} cpus and {want.gpus:g} gpus, and this machine has "
            f"{cpus} cpus and {gpus} gpus: lower resources.cpus or resources.gpus"
        )
    return min(have, want.concurrent or have)


def _gpus() -> int:
    """How many GPUs torch can use. Without a driver there is none, and torch is not imported."""
    if "torch" not in sys.modules and not Path("/dev/kfd").exists():  # that of AMD
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return 0
    import torch

    return torch.cuda.device_count()


def numerics(threads: int, gpus: float) -> str:
    """The class within which results are equal bit for bit: device, torch, threads, compile."""
    import torch

    device = torch.cuda.get_device_name() if gpus else "cpu"
    return f"{device}/torch-{torch.__version__}/threads-{threads}/workers-1/eager"
