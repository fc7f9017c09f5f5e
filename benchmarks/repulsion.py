"""What a repellent loss adds to an iteration: ``python -m benchmarks repulsion``.

Each round of a chain that prunes a fifth at a time is repelled by all rounds before it: the more of
them there are, the fewer weights are left. The table of optima is largest at round 4 or 5 (1.64
times the weights), and at round 24 all but empty. The last case, 24 optima of whole weights, is one
that no chain comes to.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.rows import Row, interleaved, row
from elth import data, masks
from elth.engine import Engine
from elth.forward import channels_last
from elth.networks import build
from elth.recipes import RECIPES
from elth.repulsion import Repellent, Repulsion
from elth.streams import stream

REPEATS = 5
CASES = (
    # network, dataset, recipe, iterations of a measurement
    ("lenet_300_100", "mnist", "maene_lenet", 200),
    ("resnet20", "cifar10", "maene_resnet20", 5),
)
ROUNDS = ((1, 1), (4, 4), (10, 10), (24, 24), (24, 0))
"""How many optima, and the prunings by a fifth before."""


def _measures(
    name: str, dataset: str, recipe_name: str, optima: int, prunings: int, steps: int, device: str
) -> tuple[Callable[[], float], Callable[[], float]]:
    """Seconds of an iteration on one batch, by an engine of its own, and of the loss alone."""
    shape, recipe = data.info(dataset).shape, RECIPES[recipe_name]
    network = build(name, shape, generator=stream(0, "init"))
    state = {key: value.clone() for key, value in network.state_dict().items()}
    kept = stream(0, "mask")
    mask = {
        key: torch.rand(one.shape, generator=kept) < 0.8**prunings
        for key, one in masks.ones(network).items()
    }
    found = [
        build(name, shape, generator=stream(seed, "init")).state_dict()
        for seed in range(1, optima + 1)
    ]
    engine = Engine(
        network,
        recipe,
        device,
        shape=shape.image,
        evaluation_batch=1000,
        compile=device == "cuda",
    )
    repulsion = Repulsion(2.0, found)
    engine.begin(state, mask, 0, repulsion)
    generator = stream(0, "batch")
    size = (recipe.batch_size, *shape.image)
    images = channels_last(torch.randn(size, generator=generator)).to(device)
    labels = torch.randint(0, shape.classes, (recipe.batch_size,), generator=generator).to(device)

    def iteration() -> float:
        engine.network.train()
        engine.loss_sum()  # waits for the device
        began = time.perf_counter()
        for _ in range(steps):
            engine.step(images, labels, 1e-3)
        engine.loss_sum()
        return (time.perf_counter() - began) / steps

    weights = {key: value for key, value in engine.network.named_parameters() if key in mask}

    def loss() -> float:
        repellent = Repellent(weights, mask, repulsion)
        engine.loss_sum()
        began = time.perf_counter()
        for _ in range(100):
            repellent.add()
        engine.loss_sum()
        return (time.perf_counter() - began) / 100

    return iteration, loss


def rows(device: str = "cpu", threads: int = 1) -> list[Row]:
    """An iteration with and without, of a network's rounds, in turns."""
    torch.set_num_threads(threads)
    found: list[Row] = []
    for name, dataset, recipe, steps in CASES:
        if device == "cuda":
            steps *= 10
        for optima, prunings in ROUNDS:
            given = (name, dataset, recipe)
            repelled, loss = _measures(*given, optima, prunings, steps, device)
            plain, _ = _measures(*given, 0, prunings, steps, device)
            values = interleaved({"repelled": repelled, "plain": plain, "loss": loss}, REPEATS)
            left = f"{100 * 0.8**prunings:.3g} % of the weights"
            title = f"{name}, {optima} {'optimum' if optima == 1 else 'optima'}, {left}"
            found += [
                row(f"{title}: an iteration without", "ms", [1e3 * v for v in values["plain"][0]]),
                row(f"{title}: the loss alone", "ms", [1e3 * v for v in values["loss"][0]]),
                row(f"{title}: with, over without", "x", values["plain"][1]),
            ]
    return found
