"""Seconds of an iteration of ours against the plain loop: ``python -m benchmarks train``."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.plain import PlainLoop
from benchmarks.rows import Row, has_native_bf16, interleaved, row
from elth import data, masks
from elth.data import MemoryDataset
from elth.engine import Engine
from elth.errors import ElthError
from elth.networks import Network, build
from elth.recipes import RECIPES, Recipe
from elth.streams import stream
from elth.training import Training, evaluation_batch

REPEATS = 5

CASES = (
    # network, dataset, recipe, iterations of a measurement
    ("resnet20", "cifar10", "cifar10_resnet", 12),
    ("mlp2", "mnist", "mnist_mlp", 400),
    ("resnet14", "digits", "digits_resnet", 60),
    ("resnet20", "digits", "digits_resnet", 60),
)
GPU_CASES = (
    ("resnet20", "cifar10", "cifar10_resnet", 391),
    ("resnet56", "cifar10", "cifar10_resnet", 391),
    ("vgg16", "cifar10", "cifar10_vgg", 391),
    ("mlp2", "mnist", "mnist_mlp", 600),
)
TOLERANCE = 1e-4
"""Of the first ten losses in float32, compiled against eager (``tests/elth/test_engine.py``)."""


def _network(name: str, dataset: MemoryDataset) -> Network:
    return build(name, dataset.info.shape, generator=stream(0, "init"))


def _mask(network: Network) -> dict[str, torch.Tensor]:
    """Four rounds of pruning by a fifth."""
    return {
        name: torch.rand(m.shape, generator=stream(0, "mask")) < 0.41
        for name, m in masks.ones(network).items()
    }


def _training(
    name: str, dataset: MemoryDataset, recipe: Recipe, *, compile: bool
) -> tuple[Training, Engine]:
    network, shape = _network(name, dataset), dataset.info.shape
    state, mask = network.state_dict(), _mask(network)
    engine = Engine(
        network,
        recipe,
        dataset.device,
        shape=(shape.channels, shape.size, shape.size),
        evaluation_batch=evaluation_batch(dataset.info),
        compile=compile,
    )
    if compile and engine.way == "eager":
        raise ElthError(f"{name} could not be compiled")
    state = {key: value.clone() for key, value in state.items()}
    return Training(engine, dataset, recipe, seed=0, state=state, mask=mask), engine


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _ours(
    name: str, dataset: MemoryDataset, recipe: Recipe, steps: int, *, compile: bool
) -> Callable[[], float]:
    """Iterations of whole batches with their input, as ``Training`` does them."""
    training, engine = _training(name, dataset, recipe, compile=compile)
    whole = len(dataset.train_labels) // recipe.batch_size

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        epoch = 0
        while True:
            yield from dataset.train_batches(
                batch_size=recipe.batch_size,
                augment=recipe.augment,
                seed=0,
                epoch=epoch,
                stop=whole,
            )
            epoch += 1

    endless = batches()

    def measure() -> float:
        training.network.train()
        _wait(dataset.device)
        began = time.perf_counter()
        for _ in range(steps):
            images, labels = next(endless)
            engine.step(images, labels, 0.01)
        _wait(dataset.device)
        return (time.perf_counter() - began) / steps

    return measure


def _losses(name: str, dataset: MemoryDataset, recipe: Recipe, *, compile: bool) -> list[float]:
    training, engine = _training(name, dataset, recipe, compile=compile)
    training.network.train()
    batches = dataset.train_batches(
        batch_size=recipe.batch_size, augment=recipe.augment, seed=0, epoch=0, stop=10
    )
    losses = []
    for images, labels in batches:
        engine.step(images, labels, recipe.lr)
        losses.append(engine.loss_sum() / len(labels))
    return losses


def _mask_share(
    name: str, dataset: MemoryDataset, recipe: Recipe, step: float, repeats: int
) -> list[float]:
    """What zeroing the pruned weights costs, in percent of an iteration."""
    _, engine = _training(name, dataset, recipe, compile=False)
    shares = []
    for _ in range(repeats):
        _wait(dataset.device)
        began = time.perf_counter()
        for _ in range(200):
            engine._apply_masks()
        _wait(dataset.device)
        shares.append(100 * (time.perf_counter() - began) / 200 / step)
    return shares


def rows(root: str | Path | None, device: str = "cpu", threads: int = 2) -> list[Row]:
    """Measure all cases for which the data is there."""
    torch.set_num_threads(threads)
    found: list[Row] = []
    for name, dataset, recipe_name, steps in GPU_CASES if device == "cuda" else CASES:
        if dataset != "digits" and root is None:
            found.append({"name": f"{name}, {dataset}", "note": "left out, no --data was given"})
            continue
        loaded = data.load(dataset, root or "data").to(device)
        assert isinstance(loaded, MemoryDataset)
        found += _case(name, loaded, RECIPES[recipe_name], steps)
    return found


def _case(name: str, dataset: MemoryDataset, recipe: Recipe, steps: int) -> list[Row]:
    title = f"{name}, {dataset.info.known_as or dataset.info.name}, batch {recipe.batch_size}"
    network = _network(name, dataset)
    plain = PlainLoop(network, dataset, recipe, _mask(network))
    ways: dict[str, Callable[[], float]] = {
        "plain": lambda: plain.seconds(steps),
        "float32": _ours(name, dataset, recipe, steps, compile=False),
        "float32 compiled": _ours(name, dataset, recipe, steps, compile=True),
    }
    half = dataclasses.replace(recipe, precision="bf16")
    if dataset.device.type == "cuda" or has_native_bf16():
        ways["bf16 compiled"] = _ours(name, dataset, half, steps, compile=True)
    measured = interleaved(ways, REPEATS)
    found = []
    for way, (seconds, ratios) in measured.items():
        found.append(row(f"{title}: {way}", "ms", [1e3 * s for s in seconds]))
        if way != "plain":
            found.append(row(f"{title}: {way}, against plain", "x", ratios))
    step = measured["float32"][0][0]
    found.append(
        row(
            f"{title}: masks",
            "% of an iteration",
            _mask_share(name, dataset, recipe, step, REPEATS),
            "< 1",
        )
    )
    pairs = zip(
        _losses(name, dataset, recipe, compile=True),
        _losses(name, dataset, recipe, compile=False),
        strict=True,
    )
    found.append(
        row(
            f"{title}: first ten losses, compiled against eager",
            "relative",
            [max(abs(a / b - 1) for a, b in pairs)],
            f"< {TOLERANCE:g}",
        )
    )
    return found
