"""The arithmetic of a GPU: which numbers a product is made of, and that it is made in one way.

PyTorch keeps these as settings of the process, which belong to whoever imports it. They are set
where something is computed whose bits matter, by training and by criteria alike, and put back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_KINDS = {"float32": "ieee", "bf16": "ieee", "tf32": "tf32"}
"""What is left in float32 by a recipe's precision, as PyTorch calls it."""


@contextlib.contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """A context in which a GPU computes float32 as a recipe says, and the same bits every time.

    Convolutions and matrix products are in IEEE float32, or in TF32 where the precision is
    ``tf32``; products of bfloat16 are added in float32; cuDNN takes deterministic algorithms, and
    none by how fast it was just now; attention is computed by products and a softmax, as the fused
    ways add their gradients in an order that differs from time to time. What was found is put back
    at the end. Elsewhere than on a GPU nothing is done.

    Args:
        precision: of a recipe; criteria are computed in ``float32``.
        device: where something is computed.
    """
    if device.type != "cuda":
        yield
        return
    with _settings(_KINDS[precision]), sdpa_kernel(SDPBackend.MATH):
        yield


@contextlib.contextmanager
def _settings(kind: str) -> Iterator[None]:
    # PyTorch's older names for the same (allow_tf32) raise while the newer ones disagree among
    # themselves; with what was found put back they give what they gave before.
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    wanted = (
        (cudnn.conv, "fp32_precision", kind),
        (matmul, "fp32_precision", kind),
        (matmul, "allow_bf16_reduced_precision_reduction", False),
        (cudnn, "deterministic", True),
        (cudnn, "benchmark", False),
    )
    found = [getattr(owner, name) for owner, name, _ in wanted]
    try:
        for owner, name, value in wanted:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(wanted, found, strict=True):
            setattr(owner, name, value)
