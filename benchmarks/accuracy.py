"""Whether the fast ways end where the plain loop ends: ``python -m benchmarks accuracy``.

ResNet-20 on CIFAR-10 with a mask, by a short recipe whose learning rate drops at half its length,
trained by the plain loop and by ours from the same weights, seed after seed.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.plain import PlainLoop
from benchmarks.rows import Row, has_native_bf16, row
from benchmarks.train import fresh_network, masked_training, random_mask
from elth import data
from elth.data import MemoryDataset
from elth.recipes import RECIPES, Recipe, Step

NETWORK = "resnet20"
SEEDS = 3
SHORT = dataclasses.replace(
    RECIPES["cifar10_resnet"],
    length=Step.parse("2ep"),
    rewind=Step.parse("0ep"),
    milestones=(Step.parse("1ep"),),
)


def rows(
    root: Path, device: str = "cpu", *, seeds: int = SEEDS, recipe: Recipe = SHORT
) -> list[Row]:
    """Test accuracies of each way, and how far their means are from the plain loop's."""
    loaded = data.load("cifar10", root).to(device)
    assert isinstance(loaded, MemoryDataset)
    half = dataclasses.replace(recipe, precision="bf16")
    ways: dict[str, Callable[[int], float]] = {
        "plain": lambda seed: _plain(loaded, recipe, seed),
        "float32 compiled": lambda seed: _ours(loaded, recipe, seed),
    }
    if device == "cuda" or has_native_bf16():
        ways["bf16 compiled"] = lambda seed: _ours(loaded, half, seed)
    found: dict[str, list[float]] = {way: [] for way in ways}
    for seed in range(seeds):
        for way, train in ways.items():
            found[way].append(train(seed))
            print(f"seed {seed}, {way}: {found[way][-1]:.2f} %", flush=True)
    result = []
    for way, accuracies in found.items():
        title = f"{NETWORK}, cifar10, {recipe.length}: {way}"
        result.append(row(f"{title}, test accuracy", "%", accuracies))
        if way != "plain":
            result.append(_apart(title, found["plain"], accuracies))
    return result


def _apart(title: str, plain: Sequence[float], ours: Sequence[float]) -> Row:
    difference = statistics.mean(ours) - statistics.mean(plain)
    error = (statistics.variance(plain) / len(plain) + statistics.variance(ours) / len(ours)) ** 0.5
    return row(
        f"{title}, mean apart from the plain loop's",
        "points",
        [abs(difference)],
        f"< {2 * error:.3g}",
        note=f"{difference:+.2f}; the limit is two standard errors of it, over seeds",
    )


def _ours(dataset: MemoryDataset, recipe: Recipe, seed: int) -> float:
    *_, last = masked_training(NETWORK, dataset, recipe, compile=True, seed=seed)
    return last.test_accuracy


def _plain(dataset: MemoryDataset, recipe: Recipe, seed: int) -> float:
    torch.manual_seed(seed)
    network = fresh_network(NETWORK, dataset, seed)
    mask = random_mask(network, seed)
    loop = PlainLoop(network, dataset, recipe, mask)
    per_epoch = len(loop.loader)
    for step in range(recipe.length.iterations(per_epoch)):
        loop.optimiser.param_groups[0]["lr"] = recipe.lr_at(step, per_epoch)
        loop.seconds(1)
    # Weights that its masks hide are zero for the evaluation, which is the same for all.
    state = {
        name: value * mask[name].to(value.device) if name in mask else value
        for name, value in loop.network.state_dict().items()
    }
    judge = masked_training(NETWORK, dataset, recipe, compile=False, seed=seed)
    judge.network.load_state_dict(state)
    return judge.evaluate()[0]
