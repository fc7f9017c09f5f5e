"""Two workers of one training, compiled against eager: ``python -m benchmarks workers --data DIR``.

Both ways are made by the same two processes, on gloo, and take turns; each process has one thread.
Beside the time of an iteration there is that of the processor (of the first worker), which other
work on the machine changes less.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.cure import interval
from benchmarks.rows import Row, row
from benchmarks.train import TOLERANCE, fresh_network, random_mask
from elth import data
from elth.data import MemoryDataset
from elth.errors import ElthError
from elth.parallel import Group, group
from elth.recipes import RECIPES, Recipe
from elth.training import Training, engine_for

WORKERS = 2
PAIRS = 21
LOSSES = 50
CASES = (
    # network, dataset, recipe, its batch_norm_group, iterations of a measurement
    ("resnet20", "cifar10", "cifar10_resnet", 0, 3),
    ("resnet20", "cifar10", "cifar10_resnet", 32, 3),
    ("resnet20", "digits", "digits_resnet", 0, 20),
)


def rows(root: Path | None) -> list[Row]:
    """Start the workers, and tell what the first of them found."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--local-addr=127.0.0.1", f"--nproc-per-node={WORKERS}"]
        command += ["-m", "benchmarks.workers", str(told), *([] if root is None else [str(root)])]
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        environment = {"GLOO_SOCKET_IFNAME": loopback, **os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, env=environment, check=False)
        if ended.returncode:
            raise ElthError(f"the workers ended with exit code {ended.returncode}: see above")
        found: list[Row] = json.loads(told.read_text(encoding="utf-8"))
    return found


def _training(
    name: str,
    dataset: MemoryDataset,
    recipe: Recipe,
    workers: Group,
    *,
    compile: bool,
    dtype: torch.dtype = torch.float32,
) -> Training:
    """A masked training by all workers."""
    network = fresh_network(name, dataset).to(dtype)
    # An engine that compiles trains its network for an iteration.
    state = {key: value.clone() for key, value in network.state_dict().items()}
    mask = random_mask(network)
    engine = engine_for(network, dataset, recipe, compile=compile, group=workers)
    if compile and engine.way == "eager":
        raise ElthError(f"{name} could not be compiled: {engine.note}")
    return Training(engine, dataset, recipe, seed=0, state=state, mask=mask)


def _batches(training: Training) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """This worker's parts of whole batches, without an end."""
    recipe, epoch = training.recipe, 0
    while True:
        yield from training.data.train_batches(
            batch_size=recipe.batch_size,
            augment=recipe.augment,
            seed=0,
            epoch=epoch,
            stop=len(training.data.train_labels) // recipe.batch_size,
            part=training._part,
        )
        epoch += 1


def _seconds(training: Training, steps: int, workers: Group) -> Callable[[], tuple[float, float]]:
    """Seconds of an iteration with its input, and of the processor."""
    endless, batch_size = _batches(training), training.recipe.batch_size
    own = torch.zeros(1)

    def measure() -> tuple[float, float]:
        training.network.train()
        workers.sum(own)  # they begin together
        began = time.perf_counter(), time.process_time()
        for _ in range(steps):
            images, labels = next(endless)
            training.engine.step(images, labels, 0.01, batch_size)
        ended = time.perf_counter(), time.process_time()
        return (ended[0] - began[0]) / steps, (ended[1] - began[1]) / steps

    return measure


def _losses(training: Training) -> list[float]:
    """The first losses of a training by its recipe."""
    training.network.train()
    engine, recipe = training.engine, training.recipe
    found = []
    for _, (images, labels) in zip(range(LOSSES), _batches(training), strict=False):
        engine.step(images, labels, recipe.lr, recipe.batch_size)
        found.append(engine.loss_sum() / recipe.batch_size)
    return found


def _case(
    title: str, name: str, dataset: MemoryDataset, recipe: Recipe, steps: int, workers: Group
) -> list[Row]:
    made: dict[str, Any] = {
        way: _training(name, dataset, recipe, workers, compile=way == "compiled")
        for way in ("eager", "compiled")
    }
    measures = {way: _seconds(one, steps, workers) for way, one in made.items()}
    for measure in measures.values():
        measure()
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in made}
    for turn in range(PAIRS):
        for way in list(made)[:: 1 if turn % 2 else -1]:
            seconds[way].append(measures[way]())
    found: list[Row] = []
    for kind, of in enumerate(("", ", of the processor")):
        times = {way: [both[kind] for both in seconds[way]] for way in made}
        ratios = [a / b for a, b in zip(times["eager"], times["compiled"], strict=True)]
        low, high = interval(ratios)
        found += [row(f"{title}: {way}{of}", "ms", [1e3 * s for s in times[way]]) for way in made]
        note = f"median between {low:.3f} and {high:.3f} (95 %)"
        found.append(row(f"{title}: eager over compiled{of}", "x", ratios, "", note))
    exact = _losses(_training(name, dataset, recipe, workers, compile=False, dtype=torch.float64))
    fast, slow = (
        _losses(Training(one.engine, dataset, recipe, seed=0, state=state, mask=random_mask(first)))
        for one in (made["compiled"], made["eager"])
        for first in (fresh_network(name, dataset),)
        for state in (first.state_dict(),)
    )
    return found + _apart(title, fast, slow, exact)


def _apart(
    title: str, fast: Sequence[float], slow: Sequence[float], exact: Sequence[float]
) -> list[Row]:
    """How far losses part: from each other, and from those in float64."""

    def most(found: Sequence[float], others: Sequence[float], count: int) -> float:
        pairs = list(zip(found, others, strict=True))[:count]
        return max(abs(a / b - 1) for a, b in pairs)

    first = [most(fast, slow, 1)]
    told = [row(f"{title}: first loss, compiled against eager", "relative", first)]
    told[0].update(limit=f"< {TOLERANCE:g}", met=first[0] < TOLERANCE)
    for count in (10, LOSSES):
        words = f"{title}: first {count} losses,"
        ways = [most(slow, exact, count), most(fast, exact, count)]
        told += [
            row(f"{words} compiled against eager", "relative", [most(fast, slow, count)]),
            row(f"{words} eager against float64", "relative", ways[:1]),
            row(f"{words} compiled against float64", "relative", ways[1:]),
        ]
        if count == 10:
            over = [ways[1] / ways[0]]
            told.append(row(f"{words} the second over the first", "x", over, "< 2"))
    return told


def _work() -> None:
    """What each worker does; the first writes what was found."""
    torch.set_num_threads(1)
    target, root = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None
    found: list[Row] = []
    with group() as workers:
        for name, source, recipe_name, images, steps in CASES:
            if source != "digits" and root is None:
                found.append({"name": f"{name}, {source}", "note": "left out, no --data was given"})
                continue
            loaded = data.load(source, root or "data").to(workers.device)
            assert isinstance(loaded, MemoryDataset)
            recipe = dataclasses.replace(RECIPES[recipe_name], batch_norm_group=images)
            over = f"groups of {images}" if images else "the whole batch"
            title = f"{name}, {source}, {WORKERS} workers, statistics over {over}"
            found += _case(title, name, loaded, recipe, steps, workers)
            if workers.rank == 0:
                target.write_text(json.dumps(found), encoding="utf-8")
    if workers.rank == 0:
        target.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    _work()
