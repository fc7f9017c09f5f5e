"""Reports that are made by hand, as the tests of their pages share them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import yaml

from orchestrator.report.cells import Cell, Report
from orchestrator.report.page import Told
from orchestrator.store.content import Content

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=\"alert('2')\">"


def cell_of(method: str, k: int = 4, **changes: Any) -> Cell:
    seeds = changes.pop("seeds", (0, 1, 2))
    fields: dict[str, Any] = {
        "network": "resnet20",
        "method": method,
        "source": "",
        "transform": "",
        "round": 0 if method == "dense" else k,
        "dataset": "digits",
        "sparsity": 0.0 if method == "dense" else 1 - 0.5**k,
        "seeds": seeds,
        "nonzeros": (round(16_000 * 0.5**k),) * len(seeds),
        "accuracy": tuple(90.0 - len(method) + 0.125 * seed**2 for seed in seeds),
        "runs": tuple(f"{method}{k}{seed}" for seed in seeds),
        "numerics": ("cpu/one",) * len(seeds),
        "seconds": (60.0,) * len(seeds),
    }
    return Cell(**fields | changes)


def report_of(*cells: Cell, **changes: Any) -> Report:
    found = cells or tuple(cell_of(name) for name in ("dense", "imp", "reinit", "random"))
    return Report(grid="tiny", cells=found, **{"missing": 0} | changes)


def told_of(report: Report, **changes: Any) -> Told:
    experiment = {"name": report.grid, "description": "Tiny tickets.", "dataset": "digits"}
    text = yaml.safe_dump(experiment | changes.pop("fields", {}), sort_keys=False)
    keys: dict[str, dict[str, Any]] = {f"{number}": {} for number, _ in enumerate(report.cells)}
    layers = [{"conv1.weight": 0.25, "fc.weight": cell.sparsity} for cell in report.cells]
    told = Told(content=Content(text=text, keys=keys), stages=len(keys), layers=layers)
    return dataclasses.replace(told, **changes)


def figure_6(seeds: int) -> Report:
    """Cells as those of ``fig6_cifar_resnets``, of numbers that are drawn by their place."""
    networks = ("resnet14", "resnet20", "resnet32", "resnet44", "resnet56")
    places: list[tuple[str, str, str, int]] = [(name, "dense", "", 0) for name in networks]
    for k in range(1, 14):
        for network in networks:
            places += [(network, "imp", "", k)]
            places += [(network, "ett", source, k) for source in networks if source != network]
            methods = ("reinit", "random", "magnitude", "snip", "grasp")
            places += [(network, method, "", k) for method in methods]
    return report_of(*(_drawn(place, number, seeds) for number, place in enumerate(places)))


def _drawn(place: tuple[str, str, str, int], number: int, seeds: int) -> Cell:
    network, method, source, k = place
    each: Sequence[int] = range(seeds)
    return cell_of(
        method,
        k,
        network=network,
        source=source,
        transform="append" if source else "",
        dataset="cifar10",
        sparsity=1 - 0.8**k,
        seeds=tuple(each),
        nonzeros=tuple(850_000 - 60_000 * k + seed for seed in each),
        accuracy=tuple(92 - 0.3 * k + (37 * number * (seed + 1) % 101) / 90 for seed in each),
        runs=tuple(f"{number * 100_000 + 977 * seed:032x}" for seed in each),
    )


def resnet_layers(network: str, sparsity: float) -> dict[str, float]:
    depth = int(network.removeprefix("resnet"))
    units = (f"layer{1 + 3 * n // depth}.{n}.conv{n % 2}" for n in range(depth - 2))
    names = ["conv1", *units, "fc"]
    return {f"{n}.weight": sparsity * (13 * i % 29) / 28 for i, n in enumerate(names)}
