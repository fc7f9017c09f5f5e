"""What a measurement tells: a plain dict, and a table of many; and where it was measured."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


def row(name: str, unit: str, values: Sequence[float], limit: str = "", note: str = "") -> Row:
    """One measurement: the median of some values and their range.

    Args:
        name: what was measured.
        unit: as ``s`` or ``MB``.
        values: each repetition.
        limit: what it is meant to meet, as ``< 3``.
        note: how it was done, or what it leaves out.
    """
    value = statistics.median(values)
    return {
        "name": name,
        "unit": unit,
        "value": value,
        "values": list(values),
        "n": len(values),
        "spread": [min(values), max(values)],
        "limit": limit,
        "met": met(value, limit),
        "note": note,
    }


def met(value: float, limit: str) -> bool | None:
    """Whether a value meets a limit as ``< 3``, ``>= 15`` or ``95 ± 1``; None without one."""
    if not limit:
        return None
    if "±" in limit:
        middle, width = (float(part) for part in limit.split("±"))
        return abs(value - middle) <= width
    sign, bound = limit.split()
    return {"<": value < float(bound), ">=": value >= float(bound)}[sign]


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
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = [f for f in ("avx512_bf16", "amx_bf16") if f in fields.get("flags", "").split()]
    return " ".join([fields.get("model name", platform.machine()), *flags])


def has_native_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself."""
    return "bf16" in _processor()


def show(title: str, rows: Iterable[Row], device: str = "cpu") -> None:
    """Print rows as a table."""
    where = ", ".join(f"{key} {value}" for key, value in machine(device).items())
    table = Table(title=f"{title}: {where}", title_justify="left")
    for name in ("what", "median", "unit", "range", "n", "is to be", "met"):
        table.add_column(name, justify="right" if name in ("median", "range", "n") else "left")
    for one in rows:
        if "value" not in one:
            table.add_row(f"{one['name']}: {one['note']}")
            continue
        low, high = one["spread"]
        verdict = {True: "yes", False: "NO", None: ""}[one["met"]]
        name = one["name"] + (f"\n  {one['note']}" if one["note"] else "")
        table.add_row(
            name,
            f"{one['value']:.4g}",
            one["unit"],
            f"{low:.4g} to {high:.4g}" if one["n"] > 1 else "",
            str(one["n"]),
            one["limit"],
            verdict,
        )
    Console(width=None if Console().is_terminal else 130).print(table)
