"""Named streams of random numbers: one integer seed fixes every draw of a run.

A draw depends on (seed, purpose, epoch, position in the stream) and on nothing else: not on what
was drawn before for another purpose, and not on the epoch at which a process was started again.
"""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """Return a CPU generator for one purpose of one seed.

    Args:
        seed: the run's seed.
        purpose: what is drawn, as ``"init"``, ``"order"``, ``"crop"`` or ``"shuffle"``.
        epoch: the epoch (counted from 0) for draws that are made anew in each one.

    Example:
        >>> a = torch.rand(2, generator=stream(0, "init"))
        >>> b = torch.rand(2, generator=stream(0, "init"))
        >>> bool((a == b).all())
        True
    """
    digest = hashlib.sha256(f"elth/{seed}/{purpose}/{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
