"""Measuring on noisy machines: ways of doing one thing, interleaved, as ratios in one run."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
"""``name``, ``unit``, ``value`` (a median), ``n``, ``spread`` (a standard deviation), and what else
is to be told: ``limit``, what the value is meant to meet; ``note``."""


def interleaved(
    ways: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Values of each way, and the ratios of the first way's to them, one repeat after the other.

    Args:
        ways: each gives one value, as seconds of an iteration.
        repeats: how often all of them are gone through, after once that is thrown away.
    """
    for measure in ways.values():
        measure()
    values: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, measure in ways.items():
            values[name].append(measure())
    first = next(iter(values.values()))
    return {
        name: (found, [a / b for a, b in zip(first, found, strict=True)])
        for name, found in values.items()
    }


def row(name: str, unit: str, values: list[float], **more: Any) -> Row:
    """One line of the table: the median of some values and their spread."""
    return {
        "name": name,
        "unit": unit,
        "value": statistics.median(values),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        **more,
    }


def machine(device: str = "cpu") -> dict[str, Any]:
    """Where it was measured."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }


def _processor() -> str:
    """The processor's name, and which narrow types it multiplies natively."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = [f for f in ("avx512_bf16", "amx_bf16") if f in fields.get("flags", "").split()]
    return " ".join([fields.get("model name", platform.machine()), *flags])


def has_native_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself."""
    return "bf16" in _processor()
