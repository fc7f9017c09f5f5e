"""What cells cost, beside their accuracy in tables, CSV and JSON.

A table tells of it in a line below each accuracy, where the grid holds sparse training or a person
asks; CSV and JSON always do, where it is known.
"""

from __future__ import annotations

from typing import Any

from orchestrator.report.cells import Cell, Report
from orchestrator.report.flops import Costs, has_sparse_training

_NUMBERS = tuple(f"flops_{name}" for name in ("inference", "training", "search", "shared", "total"))
COLUMNS = (*_NUMBERS, "flops_reference")
"""In CSV and JSON, as in ``flops.json``; the last is the network whose dense run is the unit."""


def told(report: Report, counted: Costs | None, *, flops: bool = False) -> Costs | None:
    """What a table tells of: all that is known, of a grid with sparse training or on request."""
    return counted if flops or has_sparse_training(report) else None


def cost_keys(cell: Cell, counted: Costs | None) -> dict[str, Any]:
    """The cost of a cell by the names of ``COLUMNS``; empty where it is not known."""
    if counted is None or cell not in counted.by_cell:
        return {}
    return {**counted.by_cell[cell].plain_cost(), "flops_reference": counted.reference}


def cost_values(cell: Cell, counted: Costs | None) -> list[str]:
    """The same for CSV, empty where it is not known; of a report without costs nothing."""
    if counted is None:
        return []
    found = cost_keys(cell, counted)
    if not found:
        return [""] * len(COLUMNS)
    return [*(f"{found[name]:.6g}" for name in _NUMBERS), found["flops_reference"]]


def cost_line(cell: Cell, counted: Costs | None) -> str:
    """As ``FLOPs 0.17, 1.67``: of inference, and of training with its share of the search."""
    one = None if counted is None else counted.by_cell.get(cell)
    return "" if one is None else f"FLOPs {one.inference:.2g}, {one.total:.3g}"


def cost_note(counted: Costs) -> str:
    """What the numbers of ``cost_line`` mean."""
    told = (
        "FLOPs: of one image, in units of the dense network; then of training and a share of the "
        f"search before it, in dense runs of {counted.reference}. Counted as in RigL's appendix H; "
        f"more by elth flops {counted.grid}."
    )
    if counted.lacking:
        count = len(counted.lacking)
        told += f" {count} trainings before these are not finished here, and not counted."
    return told


def with_costs(plain: dict[str, Any], cell: Cell, counted: Costs | None) -> dict[str, Any]:
    """The JSON values of a cell, and those of its cost after them."""
    return {**plain, **cost_keys(cell, counted)}
