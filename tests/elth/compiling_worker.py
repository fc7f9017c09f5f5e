"""What each of two workers does in ``test_parallel.py``: compiled and eager trainings, as JSON.

Started with a file to write, and what ``elth.parallel.group`` reads in the environment.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import elth.arithmetic
import elth.training
from elth import masks
from elth.arithmetic import WrongArithmeticError
from elth.checkpoints import Checkpoint
from elth.data import Dataset
from elth.data import load as load_dataset
from elth.dynamic import Evolution, method
from elth.engine import Engine
from elth.errors import ElthError
from elth.parallel import Group, group
from elth.recipes import Recipe, Step
from elth.repulsion import Repulsion
from elth.streams import stream
from elth.tickets import state_digest
from elth.training import Training, engine_for

EVOLVED = ("rigl", "dpf", "gmp")
"""Masks that change: by a gradient of an iteration that is held, and with two kinds of hidden
values."""
STEPS = 8
"""Of an epoch of 6 iterations, of which the last has 17 images."""
CHECKED, STOP = 7, 10
"""Where a checkpoint is taken, and where that training stops."""


def network(seed: int = 0) -> nn.Module:
    """A network that is compiled in seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 10),
        )


def recipe(**fields: Any) -> Recipe:
    values: dict[str, Any] = {"length": Step(8, "ep"), "rewind": Step(0, "ep"), "lr": 0.02}
    smoothed = {"label_smoothing": 0.1, "nesterov": True, "decay": "kernels"}
    return Recipe(**{**values, "batch_size": 256, **smoothed, **fields})


def engine(data: Dataset, by: Recipe, workers: Group, *, compile: bool) -> Engine:
    return engine_for(network(), data, by, compile=compile, group=workers)


def training(one: Engine, data: Dataset, seed: int = 0, **given: Any) -> Training:
    """A training with a mask of this seed, unless it has another."""
    first = network(seed)
    generator = stream(seed, "mask")
    mask = {
        name: torch.rand(kept.shape, generator=generator) < 0.4
        for name, kept in masks.ones(first).items()
    }
    values = {"seed": seed, "state": first.state_dict(), "mask": mask, "stop": STEPS}
    return Training(one, data, one.recipe, **{**values, **given})


def evolved(one: Engine, data: Dataset, name: str) -> Training:
    """One whose mask changes."""
    shapes = {key: tuple(kept.shape) for key, kept in masks.ones(network()).items()}
    by = method(name, {"every": "2it"})
    evolution = Evolution(by, shapes, 120, length=12, per_epoch=6)
    return training(one, data, mask=None, evolution=evolution)


def told(run: Training) -> list[Any]:
    """Losses and accuracies of a training, its mask before and after, and its weights."""
    changing = [] if run.evolution is None else [masks.digest(run.evolution.mask)]
    epochs = [[one.train_loss, one.test_loss, one.test_accuracy, one.changed] for one in run]
    if run.evolution is not None:
        changing.append(masks.digest(run.evolution.mask))
    return [epochs, run.repulsion, changing, state_digest(run.state())]


def story(data: Dataset, workers: Group) -> Iterator[tuple[str, Any]]:
    """Everything that the workers do together."""
    optima = [network(seed).state_dict() for seed in (1, 2)]
    for name, by in (("whole batch", recipe()), ("groups", recipe(batch_norm_group=64))):
        made = {way: engine(data, by, workers, compile=way == "fast") for way in ("fast", "slow")}
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        yield f"{name}: ways", [[one.way, one.note] for one in made.values()]
        for way, one in made.items():
            yield f"{name}: {way}", [told(training(one, data, seed)) for seed in (0, 1)]
        if name == "groups":
            continue
        for way, one in made.items():
            near = training(one, data, repulsion=Repulsion(0.1, optima))
            yield f"repelled: {way}", told(near)
            for method_name in EVOLVED:
                yield f"{method_name}: {way}", told(evolved(one, data, method_name))
        more = torch._dynamo.utils.counters["stats"]["unique_graphs"] - graphs
        yield "compiled again", more
        kept: list[Checkpoint] = []

        def keep(run: Training, kept: list[Checkpoint] = kept) -> None:
            kept.append(run.checkpoint())

        runs = [told(training(made["fast"], data, stop=STOP, at_check=keep))]
        again = training(engine(data, by, workers, compile=True), data, stop=STOP)
        again.resume(kept[0])
        runs.append(told(again))
        yield "gone on with", [[run[0][-1], *run[1:]] for run in runs]
    for fault in (_fails, _adds_up_more):
        yield fault.__name__, _with_fault(fault, data, workers)
    for error in (torch.OutOfMemoryError("no room"), WrongArithmeticError("it is wrong")):
        yield type(error).__name__, _compared(error, data, workers)


def _fails(function: Any, **_: Any) -> Callable[..., Any]:
    """Compiling that does not work."""

    def fails(*args: Any) -> Any:
        raise RuntimeError("no compiler\nhere")

    return fails


def _adds_up_more(function: Any, **_: Any) -> Callable[..., Any]:
    """Compiling to code that sends something else than that of the others."""

    def more(*args: Any) -> Any:
        return function(*args) + 0 * torch.ops.elth.all_sum(torch.zeros(1), 9)[0]

    return more


def _with_fault(fault: Callable[..., Any], data: Dataset, workers: Group) -> list[Any]:
    """What the workers do if one of them compiles so, and the other with no compiler at all."""

    def as_it_is(function: Any, **_: Any) -> Any:
        return function

    kept, torch.compile = torch.compile, fault if workers.rank else as_it_is  # type: ignore[assignment]
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            one = engine(data, recipe(), workers, compile=True)
    finally:
        torch.compile = kept
    notes = [str(each.message) for each in warned]
    return [one.way, one.note, one.note in notes, told(training(one, data))]


def _compared(error: Exception, data: Dataset, workers: Group) -> list[str]:
    """What an engine says where the comparison of its code with the network fails for one worker.

    For the other it goes to its end.
    """

    def fails(*_: Any, **__: Any) -> None:
        raise error

    def as_it_is(function: Any, **_: Any) -> Any:
        return function

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", as_it_is)
        if workers.rank:
            patch.setattr(elth.arithmetic, "ensure_alike", fails)
        try:
            one = engine(data, recipe(), workers, compile=True)
        except ElthError as found:
            return [type(found).__name__, str(found)]
        return [one.way, one.note]


def main() -> None:
    torch.set_num_threads(1)
    elth.training._CHECK_EVERY = CHECKED
    with group() as workers:
        data = load_dataset("digits").to(workers.device)
        found = dict(story(data, workers))
    target = Path(f"{sys.argv[1]}.{workers.rank}")
    target.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
