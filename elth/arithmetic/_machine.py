"""What computes here: the kind of processor, and the instructions that its libraries use.

Processors of other makers and other instructions give other bits, and may have other faults.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
from pathlib import Path

import torch

NUMBER = 2
"""Of the way in which ``elth`` itself computes: raised when it comes to compute differently.

1 had no number: until then strided convolutions of one pixel were given to oneDNN as they are."""

_OF_MANY = 3
"""Likewise, where more than two workers train a network: theirs changed, and no others'.

Until 2 an element's place in what they add up changed after the first iteration, and with it the
order of its sum: a training that went on from a checkpoint had other bits. The next ``NUMBER`` is
4, and this one with it: 3 was taken by these alone."""


def number(workers: int = 1) -> int:
    """``NUMBER`` for a training by so many workers."""
    return _OF_MANY if workers > 2 else NUMBER


_LEVELS = (
    ("SSE41", "sse4_1"),
    ("AVX", "avx"),
    ("AVX2", "avx2 fma"),
    ("AVX2_VNNI", "avx2 avx_vnni"),
    ("AVX2_VNNI_2", "avx2 avx_vnni avx_vnni_int8 avx_ne_convert"),
    ("AVX512_CORE", "avx512f avx512bw avx512vl avx512dq"),
    ("AVX512_CORE_VNNI", "avx512f avx512bw avx512vl avx512dq avx512_vnni"),
    ("AVX512_CORE_BF16", "avx512f avx512bw avx512vl avx512dq avx512_vnni avx512_bf16"),
    ("AVX512_CORE_FP16", "avx512f avx512bw avx512_vnni avx512_bf16 avx512_fp16 avx_vnni"),
    ("AVX512_CORE_AMX", "avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16"),
    ("AVX512_CORE_AMX_FP16", "avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16 amx_fp16"),
)
"""oneDNN's names of instruction sets in its order, and what Linux calls what they need."""
_SAME = {
    "AVX10_1_512": "AVX512_CORE_FP16",
    "AVX10_1_512_AMX": "AVX512_CORE_AMX",
    "AVX10_1_512_AMX_FP16": "AVX512_CORE_AMX_FP16",
}
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that limit oneDNN's instructions; the first that is set counts."""
_FURTHER = (
    "ONEDNN_CPU_ISA_HINTS",
    "DNNL_CPU_ISA_HINTS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
)
"""Variables by which the libraries compute in other ways."""


def processor() -> str:
    """The kind of this machine's processor, as its libraries use it.

    Its maker, the instructions of oneDNN (``ONEDNN_MAX_CPU_ISA`` counted), those of PyTorch's own
    kernels (``ATEN_CPU_CAPABILITY`` counted), and other variables by which they change their ways:
    ``AuthenticAMD-AVX512_CORE_BF16-AVX512``.
    """
    vendor, isa, _ = _hardware()
    level = limited(isa, next((os.environ[n] for n in LIMITS if os.environ.get(n)), ""))
    parts = [vendor, *([level] if level else []), torch.backends.cpu.get_cpu_capability()]
    parts += [f"{name}={os.environ[name]}" for name in _FURTHER if os.environ.get(name)]
    return "-".join(part.replace("/", "_").replace(" ", "_") for part in parts)


_USUAL = ("AVX2", "AVX512")
"""Instructions of PyTorch's own kernels with which a CPU draws the same first weights."""
_OF_GPU = ("NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG")
"""Variables by which a GPU's libraries compute in other ways."""


def gpu(device: torch.device | None = None) -> str:
    """A GPU's name, by default the current one's, and what else its bits depend on.

    That are variables of its libraries, and the instructions of the CPU, which draws first weights,
    each where it is not as usual.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    parts = [torch.cuda.get_device_name(device)]
    parts += [] if capability in _USUAL else [f"host_{capability}"]
    parts += [f"{name}={os.environ[name]}" for name in _OF_GPU if os.environ.get(name)]
    return "-".join(part.replace("/", "_") for part in parts)


def kind() -> str:
    """What compiled code depends on: ``processor``, and a digest of all that its core can do.

    A compiler that is told to use what the machine has uses more than ``processor`` names.
    """
    flags = " ".join(sorted(_hardware()[2]))
    return f"{processor()}-{hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def limited(isa: str, limit: str) -> str:
    """An instruction set of oneDNN under a limit, of which case does not matter: the lesser."""
    limit = _SAME.get(limit.upper(), limit.upper())
    order = [name for name, _ in _LEVELS]
    if limit not in order or isa not in order:  # ALL, DEFAULT, and what oneDNN does not know
        return isa
    return order[min(order.index(isa), order.index(limit))]


@functools.cache
def _hardware() -> tuple[str, str, frozenset[str]]:
    """The maker, the highest of oneDNN's instruction sets that the processor has, and its flags."""
    vendor, flags = platform.machine(), set[str]()
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^vendor_id\s*: (\S+)", text, re.M):
            vendor = found[1]
        elif found := re.search(r"^CPU implementer\s*: (\S+)", text, re.M):
            vendor += f"-{found[1]}"
        if found := re.search(r"^flags\s*: (.*)", text, re.M):
            flags = set(found[1].split())
    have = [name for name, needs in _LEVELS if flags.issuperset(needs.split())]
    return vendor, have[-1] if have else "", frozenset(flags)
