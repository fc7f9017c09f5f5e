"""What each of two workers does in ``test_rendezvous.py``, in a process of its own."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist

from orchestrator.work import rendezvous
from orchestrator.work.rendezvous import group_on


def begin(rank: int, seconds: float) -> None:
    """Leave the group of before, and wait for the other for so long at the start of the next."""
    if dist.is_initialized():
        dist.destroy_process_group()
    rendezvous._START_SECONDS = seconds


def late(rank: int, seconds: float) -> float:
    """The sum of two numbers, for which the second one comes late."""
    time.sleep(seconds * rank)
    number = torch.tensor(float(rank + 1))
    dist.all_reduce(number)
    return float(number)


def patient(rank: int, seconds: float) -> tuple[object, list[bytes], float, str]:
    """What two workers tell each other as on GPUs, where Gloo stands in for NCCL.

    Returns what the first one shared, what each gathered, how long it waited for the second one,
    and what a sum said to which that did not come.
    """
    rendezvous.first_sum = lambda device: None
    group = group_on(torch.device("cuda"), 60)
    shared = group.share({"of": rank})
    gathered = group.gather(bytes([rank]))
    began = time.monotonic()
    time.sleep(seconds * rank)
    group.meet()
    waited = time.monotonic() - began
    if rank:
        group.meet()
        return shared, gathered, waited, ""
    try:
        dist.all_reduce(torch.ones(()))
    except RuntimeError as error:
        return shared, gathered, waited, str(error)
    finally:
        group.meet()
    return shared, gathered, waited, "it came"
