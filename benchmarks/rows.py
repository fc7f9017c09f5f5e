"""What a measurement tells: a plain dict, and a table of many."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def row(
    name: str, unit: str, values: Sequence[float], limit: str = "", note: str = ""
) -> dict[str, Any]:
    """One measurement: the median of some values and their spread.

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
    """Whether a value meets a limit as ``< 3`` or ``>= 15``; None without one."""
    if not limit:
        return None
    sign, bound = limit.split()
    return {"<": value < float(bound), ">=": value >= float(bound)}[sign]


def show(title: str, rows: Iterable[dict[str, Any]]) -> None:
    """Print rows as a table."""
    table = Table(title=f"{title} (load {os.getloadavg()[0]:.1f})", title_justify="left")
    for name in ("what", "median", "unit", "range", "n", "limit", "met"):
        table.add_column(name, justify="right" if name in ("median", "range", "n") else "left")
    for one in rows:
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
    Console(width=None if Console().is_terminal else 120).print(table)
