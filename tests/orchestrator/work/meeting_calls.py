"""What each of two workers does in ``test_rendezvous.py``, in a process of its own."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist

from orchestrator.work import rendezvous


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
