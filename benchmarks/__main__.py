"""``make bench``: seconds of an iteration, ours against the plain loop, interleaved in one run.

Prints a table and writes ``benchmarks/results.json``. These machines are noisy: read the ratio.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import plain
from elth import data, masks
from elth.data import Dataset
from elth.networks import build
from elth.recipes import RECIPES, Recipe
from elth.streams import stream
from elth.training import Training

REPEATS = 5
STEPS = 63


def ours(network: str, dataset: Dataset, recipe: Recipe) -> float:
    """Seconds of an iteration of ``elth.Training``, test set left out."""
    made = build(network, dataset.info.shape, generator=stream(0, "init"))
    training = Training(
        made, dataset, recipe, seed=0, state=made.state_dict(), mask=masks.ones(made), stop=STEPS
    )
    began = time.perf_counter()
    while training.step < STEPS:
        training.train_epoch()
    return (time.perf_counter() - began) / STEPS


def theirs(network: str, dataset: Dataset, recipe: Recipe) -> float:
    """Seconds of an iteration of the plain loop."""
    made = build(network, dataset.info.shape, generator=stream(0, "init"))
    return plain.epoch_seconds(made, dataset, recipe, masks.ones(made), STEPS)


def main() -> None:
    """Measure and tell."""
    torch.set_num_threads(1)
    dataset = data.load("digits")
    recipe = dataclasses.replace(RECIPES["digits_resnet"])
    rows: list[dict[str, Any]] = []
    for network in ("resnet14", "resnet20", "mlp2"):
        for measure in (ours, theirs):
            measure(network, dataset, recipe)
        pairs = [
            (ours(network, dataset, recipe), theirs(network, dataset, recipe))
            for _ in range(REPEATS)
        ]
        ratios = [b / a for a, b in pairs]
        rows.append(
            {
                "network": network,
                "dataset": "digits",
                "batch": recipe.batch_size,
                "ours_ms": 1e3 * statistics.median(a for a, _ in pairs),
                "plain_ms": 1e3 * statistics.median(b for _, b in pairs),
                "ratio": statistics.median(ratios),
                "ratio_sd": statistics.stdev(ratios),
                "n": REPEATS,
            }
        )
    machine = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    table = Table(title=", ".join(f"{key} {value}" for key, value in machine.items()))
    for column in ("network", "ours ms", "plain ms", "ratio ± sd", "n"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row["network"],
            f"{row['ours_ms']:.2f}",
            f"{row['plain_ms']:.2f}",
            f"{row['ratio']:.2f} ± {row['ratio_sd']:.2f}",
            str(row["n"]),
        )
    Console().print(table)
    path = Path(__file__).with_name("results.json")
    path.write_text(json.dumps({**machine, "rows": rows}, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
