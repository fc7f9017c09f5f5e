"""What it costs that strided 1x1 convolutions are a slice: ``python -m benchmarks cure``.

An iteration with them as ``elth.convolutions`` has them against one as PyTorch has them, in turns.
On a processor on which oneDNN's own are wrong the other side is wrong, and is timed all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.rows import Row, row
from benchmarks.train import fresh_network
from elth import data
from elth.convolutions import SafeConv2d
from elth.data import MemoryDataset
from elth.engine import Engine
from elth.recipes import RECIPES, Recipe

PAIRS = 41
CASES = (("resnet20", "cifar10", "cifar10_resnet", 3), ("resnet20", "digits", "digits_resnet", 30))
"""Network, dataset, recipe and the iterations of a measurement."""


def _iterations(
    name: str, dataset: MemoryDataset, recipe: Recipe, steps: int, *, as_they_are: bool
) -> Callable[[], float]:
    network = fresh_network(name, dataset)
    engine = Engine(network, recipe)
    engine.begin(dict(network.state_dict()), None, 0)
    if as_they_are:
        for module in engine.network.modules():
            if isinstance(module, SafeConv2d):
                convolution: Any = module
                convolution.__class__ = nn.Conv2d
    batches = dataset.train_batches(
        batch_size=recipe.batch_size, augment=recipe.augment, seed=0, epoch=0, stop=1
    )
    ((images, labels),) = batches
    engine.network.train()

    def measure() -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            engine.step(images, labels, 1e-4)
        return (time.perf_counter() - begin) / steps

    return measure


def rows(folder: Path | None) -> list[Row]:
    """The ratio of an iteration's times, with the interval of its median (95 %)."""
    told: list[Row] = []
    for name, source, recipe, steps in CASES:
        if source == "cifar10" and folder is None:
            told.append({"name": f"{name}, {source}", "note": "left out, no --data was given"})
            continue
        dataset = data.load(source, folder or Path("data"))
        assert isinstance(dataset, MemoryDataset)
        ways = [
            _iterations(name, dataset, RECIPES[recipe], steps, as_they_are=one)
            for one in (False, True)
        ]
        for measure in ways:
            measure()
        ratios = []
        for turn in range(PAIRS):
            order = (0, 1) if turn % 2 else (1, 0)
            seconds = {way: ways[way]() for way in order}
            ratios.append(seconds[0] / seconds[1])
        low, high = interval(ratios)
        note = f"median between {low:.3f} and {high:.3f} (95 %), {torch.get_num_threads()} threads"
        told.append(row(f"{name}, {source}: sliced over as it is", "x", ratios, "", note))
    return told


def interval(values: list[float]) -> tuple[float, float]:
    """Between which of some values their true median lies with 95 %, by the sign test."""
    ordered = sorted(values)
    away = round(1.96 * (len(values) ** 0.5) / 2)
    middle = len(values) // 2
    return ordered[max(0, middle - away)], ordered[min(len(values) - 1, middle + away)]
