"""``make bench``: every measurement, or those that are named, as a table and as JSON.

These machines are noisy: read the ratios, which come from one run, with what they compare
interleaved.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Row, machine

PARTS = ("train", "packing", "input", "orchestrator", "storage")


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def table(title: str, rows: list[Row]) -> Table:
    """The rows of one part."""
    made = Table(title=title, title_justify="left")
    for column in ("", "median", "± sd", "n", "unit", "is to be"):
        made.add_column(column, justify="left" if column in ("", "unit") else "right")
    for row in rows:
        name = row["name"] + (f" ({row['note']})" if "note" in row else "")
        keys = ("value", "spread", "n", "unit", "limit")
        made.add_row(name, *(_shown(row.get(key)) for key in keys))
    return made


def _rows(part: str, device: str, data: Path | None) -> list[Row]:
    module: Any = import_module(f"benchmarks.{part}")
    if part == "train":
        return list(module.rows(data, device))
    if part == "packing":
        return list(module.rows(device))
    return list(module.rows())


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all when none is named")
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10 and MNIST")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results.json"))
    given = parser.parse_args()
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(PARTS)}")
    results = {}
    for part in given.parts or PARTS:
        where = machine(given.device)
        rows = _rows(part, given.device, given.data)
        results[part] = {**where, "rows": rows}
        title = f"{part}: " + ", ".join(f"{key} {value}" for key, value in where.items())
        Console(width=140).print(table(title, rows))
    given.output.write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {given.output}")


if __name__ == "__main__":
    main()
