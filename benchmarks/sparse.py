"""An interval of RigL against one of a static mask: ``python -m benchmarks sparse --data DIR``.

Of each the same network, masks of as many weights, and 25 iterations, of which one of RigL's is an
update: four times as often as its paper has them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.rows import Row, interleaved, row
from benchmarks.train import _wait, fresh_network
from elth import data, masks
from elth.data import MemoryDataset
from elth.dynamic import Evolution, method
from elth.recipes import RECIPES, Step
from elth.training import Training, engine_for, iterations_per_epoch

REPEATS = 21
EVERY = 25
LENGTH = 10**6
CASES = (("resnet20", "cifar10", "cifar10_resnet"), ("resnet20", "digits", "digits_resnet"))


def _training(name: str, dataset: MemoryDataset, recipe_name: str, way: str) -> Training:
    network = fresh_network(name, dataset)
    recipe = dataclasses.replace(RECIPES[recipe_name], length=Step(LENGTH, "it"))
    state = {key: value.clone() for key, value in network.state_dict().items()}
    dense = masks.ones(network)
    evolution = Evolution(
        method(way, {"every": f"{EVERY}it"} if way == "rigl" else {}),
        {key: tuple(one.shape) for key, one in dense.items()},
        masks.total(dense) // 10,
        length=LENGTH,
        per_epoch=iterations_per_epoch(len(dataset.train_labels), recipe),
    )
    engine = engine_for(network, dataset, recipe, compile=True)
    return Training(engine, dataset, recipe, seed=0, state=state, evolution=evolution)


def _seconds(name: str, dataset: MemoryDataset, recipe_name: str, way: str) -> Callable[[], float]:
    """Seconds of an interval: iterations with their input, and an update of RigL's mask."""
    training = _training(name, dataset, recipe_name, way)
    engine, evolution, recipe = training.engine, training.evolution, training.recipe
    assert evolution is not None

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        epoch = 0
        while True:
            yield from dataset.train_batches(
                batch_size=recipe.batch_size,
                augment=recipe.augment,
                seed=0,
                epoch=epoch,
                stop=len(dataset.train_labels) // recipe.batch_size,
            )
            epoch += 1

    endless, at = batches(), [0]

    def measure() -> float:
        training.network.train()
        _wait(dataset.device)
        began = time.perf_counter()
        for _ in range(EVERY):
            images, labels = next(endless)
            held = evolution.before(engine, at[0])
            engine.step(images, labels, 0.01, hold=held)
            evolution.after(engine, at[0])
            at[0] += 1
        _wait(dataset.device)
        return time.perf_counter() - began

    return measure


def rows(root: Path | None, device: str = "cpu", threads: int = 2) -> list[Row]:
    """Measure both in turns; what needs data is left out where none is given."""
    torch.set_num_threads(threads)
    found: list[Row] = []
    for name, dataset, recipe_name in CASES:
        title = f"{name}, {dataset}: {EVERY} iterations"
        if dataset != "digits" and root is None:
            found.append({"name": title, "note": "left out, no --data was given"})
            continue
        loaded = data.load(dataset, root or "data").to(device)
        assert isinstance(loaded, MemoryDataset)
        ways = {way: _seconds(name, loaded, recipe_name, way) for way in ("static", "rigl")}
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        measured = interleaved(ways, REPEATS)
        again = torch._dynamo.utils.counters["stats"]["unique_graphs"] - graphs
        for way, (seconds, ratios) in measured.items():
            found.append(row(f"{title}, {way}", "s", seconds))
            if way != "static":
                over = sorted(1 / ratio for ratio in ratios)
                found.append(row(f"{title}, {way} over static", "x", over, "< 1.02"))
                # The interval that holds the median of what is measured in 95 of 100 cases.
                low, high = over[5], over[15]
                found.append(row(f"{title}, the median is within", "x", [low, high]))
        found.append(row(f"{title}, compiled anew after the first", "graphs", [again]))
    return found
