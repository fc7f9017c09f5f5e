"""What an error says of a GPU: that its memory ran out, or that this process has lost it.

Either may be told by an error of another kind that came of it, as compilers raise their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

_NO_MEMORY = re.compile(
    r"(CUDA|HIP) out of memory|(CUDA|HIP)( driver)? error: out of memory"
    r"|Triton Error \[\w+\]: out of memory|_STATUS_ALLOC_FAILED"
)
_NO_ENGINE = re.compile(r"unable to find an engine|no valid cuDNN algorithm", re.IGNORECASE)
"""What cuDNN says where none of its algorithms works, as where there is no room for any."""
_FULL = 0.1
"""How much of a GPU's memory is left at most, as a fraction, where it is that which is lacking."""
_LOST = re.compile(
    r"(CUDA|HIP)( driver)? error|CUBLAS_STATUS|CUDNN_STATUS|Triton Error \[|No (CUDA|HIP) GPUs"
)


def ran_out(error: BaseException) -> bool:
    """Whether a GPU had too little memory."""
    return any(_lacks(one) for one in _behind(error))


def lost(error: BaseException) -> str:
    """What a GPU said as it failed, in a line; empty if it did not, or had too little memory.

    After an access out of bounds, or an error of the GPU itself, it answers whatever this process
    does with it by the same error. A new process may find it well.
    """
    if ran_out(error):
        return ""
    for one in _behind(error):
        lines = [line.strip() for line in str(one).splitlines() if line.strip()]
        said = next((line for line in lines if _LOST.search(line)), "")
        if isinstance(one, torch.AcceleratorError):
            return said or (lines[0] if lines else type(one).__name__)
        if said and isinstance(one, RuntimeError):
            return said
    return ""


def _lacks(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    return bool(_NO_MEMORY.search(str(error)) or (_NO_ENGINE.search(str(error)) and _is_full()))


def _is_full() -> bool:
    """Whether hardly any memory is left of the current GPU, or of this process's share of it."""
    if not torch.cuda.is_available():
        return False
    try:
        free, total = torch.cuda.mem_get_info()
        allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        share = torch.cuda.get_per_process_memory_fraction() * total
    except RuntimeError:  # it answers nothing any more
        return False
    return min(free + reserved - allocated, share - allocated) < _FULL * share


def _behind(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came of."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        yield one
        seen.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
