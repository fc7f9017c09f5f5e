"""Seconds of an iteration of ours against the plain loop: ``python -m benchmarks train``."""

from __future__ import annotations

import dataclasses
import functools
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.plain import PlainLoop
from benchmarks.rows import Row, has_native_bf16, interleaved, row
from elth import data, masks
from elth.data import MemoryDataset
from elth.engine import Engine
from elth.errors import ElthError
from elth.networks import Network, build, facts
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
    ("resnet20", "cifar10", "cifar10_resnet", 100),
    ("resnet56", "cifar10", "cifar10_resnet", 40),
    ("vgg16", "cifar10", "cifar10_vgg", 60),
    ("mlp2", "mnist", "mnist_mlp", 400),
)
LIMITS = {
    ("resnet20", "cifar10", "cpu", "float32 compiled"): ">= 1.5",
    ("resnet20", "cifar10", "cpu", "bf16 compiled"): ">= 2.2",
    ("resnet20", "cifar10", "cuda", "bf16 compiled"): ">= 8",
}
TOLERANCE = 1e-6
"""Of the first loss in float32, compiled against eager. What follows parts by itself: from
initialisation any two orders of sums do, so over ten iterations at the recipe's learning rate both
are compared with float64, from which compiled may be twice as far as eager."""


def fresh_network(name: str, dataset: MemoryDataset, seed: int = 0) -> Network:
    """A network with its first weights."""
    return build(name, dataset.info.shape, generator=stream(seed, "init"))


def random_mask(network: Network, seed: int = 0) -> dict[str, torch.Tensor]:
    """As many weights as four rounds of pruning by a fifth leave."""
    return {
        name: torch.rand(m.shape, generator=stream(seed, "mask")) < 0.41
        for name, m in masks.ones(network).items()
    }


def masked_training(
    name: str,
    dataset: MemoryDataset,
    recipe: Recipe,
    *,
    compile: bool,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Training:
    """The training of a network with a random mask, from its first weights."""
    network, shape = fresh_network(name, dataset, seed).to(dtype), dataset.info.shape
    # An engine that compiles trains its network for an iteration.
    state = {key: value.clone() for key, value in network.state_dict().items()}
    mask = random_mask(network, seed)
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
    return Training(engine, dataset, recipe, seed=seed, state=state, mask=mask)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _ours(
    name: str, dataset: MemoryDataset, recipe: Recipe, steps: int, *, compile: bool
) -> Callable[[], float]:
    """Iterations of whole batches with their input, as ``Training`` does them."""
    training = masked_training(name, dataset, recipe, compile=compile)
    engine = training.engine
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


def _losses(
    name: str,
    dataset: MemoryDataset,
    recipe: Recipe,
    *,
    compile: bool = False,
    dtype: torch.dtype = torch.float32,
) -> list[float]:
    training = masked_training(name, dataset, recipe, compile=compile, dtype=dtype)
    engine = training.engine
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
    engine = masked_training(name, dataset, recipe, compile=False).engine
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
    speeds = {kind: _matrix_product(kind, device) for kind in (torch.float32, torch.bfloat16)}
    found: list[Row] = [
        row(f"matrix product of 4096 x 4096, {str(kind).removeprefix('torch.')}", "GFLOP/s", speed)
        for kind, speed in speeds.items()
    ]
    found.append(row("copy of 256 MB", "GB/s", _copy(device)))
    for name, dataset, recipe_name, steps in GPU_CASES if device == "cuda" else CASES:
        if dataset != "digits" and root is None:
            found.append({"name": f"{name}, {dataset}", "note": "left out, no --data was given"})
            continue
        loaded = data.load(dataset, root or "data").to(device)
        assert isinstance(loaded, MemoryDataset)
        found += _case(name, loaded, RECIPES[recipe_name], steps, speeds)
    return found


def _matrix_product(kind: torch.dtype, device: str) -> list[float]:
    """What the device computes at best, in GFLOP/s."""
    one = torch.randn(4096, 4096, device=device, dtype=kind)
    found = []
    for _ in range(REPEATS + 1):
        _wait(one.device)
        began = time.perf_counter()
        torch.mm(one, one)
        _wait(one.device)
        found.append(2 * 4096**3 / 1e9 / (time.perf_counter() - began))
    return found[1:]


def _copy(device: str) -> list[float]:
    """What the device reads and writes at best, in GB/s, both counted."""
    one = torch.zeros(2**26, device=device)
    other = torch.empty_like(one)
    found = []
    for _ in range(REPEATS + 1):
        _wait(one.device)
        began = time.perf_counter()
        other.copy_(one)
        _wait(one.device)
        found.append(2 * one.nbytes / 1e9 / (time.perf_counter() - began))
    return found[1:]


def _case(
    name: str,
    dataset: MemoryDataset,
    recipe: Recipe,
    steps: int,
    speeds: dict[torch.dtype, list[float]],
) -> list[Row]:
    title = f"{name}, {dataset.info.known_as or dataset.info.name}, batch {recipe.batch_size}"
    network = fresh_network(name, dataset)
    ways: dict[str, Callable[[], float]] = {
        "plain": functools.partial(
            PlainLoop(network, dataset, recipe, random_mask(network)).seconds, steps
        ),
        "float32": _ours(name, dataset, recipe, steps, compile=False),
        "float32 compiled": _ours(name, dataset, recipe, steps, compile=True),
    }
    if dataset.device.type == "cuda":
        tensor = dataclasses.replace(recipe, precision="tf32")
        ways["tf32 compiled"] = _ours(name, dataset, tensor, steps, compile=True)
    half = dataclasses.replace(recipe, precision="bf16")
    if dataset.device.type == "cuda" or has_native_bf16():
        ways["bf16 compiled"] = _ours(name, dataset, half, steps, compile=True)
    measured = interleaved(ways, REPEATS)
    ways.clear()
    gc.collect()  # the plain loop's workers end here, and not in a copy of this process
    found = []
    # Forward once, backward twice; a multiplication and an addition each.
    work = 6 * facts(name, dataset.info.shape).macs * recipe.batch_size / 1e9
    for way, (seconds, ratios) in measured.items():
        found.append(row(f"{title}: {way}", "ms", [1e3 * s for s in seconds]))
        best = statistics.median(speeds[torch.bfloat16 if "bf16" in way else torch.float32])
        shares = [100 * work / s / best for s in seconds]
        found.append(row(f"{title}: {way}, of the matrix product's speed", "%", shares))
        if way != "plain":
            limit = LIMITS.get((name, dataset.info.name, dataset.device.type, way), "")
            found.append(row(f"{title}: {way}, against plain", "x", ratios, limit))
    step = measured["float32"][0][0]
    found.append(
        row(
            f"{title}: masks",
            "% of an iteration",
            _mask_share(name, dataset, recipe, step, REPEATS),
            "< 1",
        )
    )
    return found + _tolerance(title, name, dataset, recipe)


def _tolerance(title: str, name: str, dataset: MemoryDataset, recipe: Recipe) -> list[Row]:
    """How far the losses part: the first one, and the first ten from those in float64."""
    exact = _losses(name, dataset, recipe, dtype=torch.float64)
    eager = _losses(name, dataset, recipe)
    compiled = _losses(name, dataset, recipe, compile=True)

    def apart(found: Sequence[float]) -> float:
        return max(abs(a / b - 1) for a, b in zip(found, exact, strict=True))

    words = f"{title}: first ten losses,"
    return [
        row(
            f"{title}: first loss, compiled against eager",
            "relative",
            [abs(compiled[0] / eager[0] - 1)],
            f"< {TOLERANCE:g}",
        ),
        row(f"{words} eager against float64", "relative", [apart(eager)]),
        row(f"{words} compiled against float64", "relative", [apart(compiled)]),
        row(f"{words} the second over the first", "x", [apart(compiled) / apart(eager)], "< 2"),
    ]
