"""What each of several workers does in ``test_parallel.py``: trainings, told as JSON by the first.

Started by torchrun with the file to write; imported by the test for what one worker gives.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elth import masks
from elth.data import Dataset, MemoryDataset
from elth.data import load as load_dataset
from elth.dynamic import METHODS, Evolution, method
from elth.engine import Engine
from elth.errors import ElthError
from elth.networks import Network, build
from elth.parallel import Group, group
from elth.recipes import Recipe, Step
from elth.repulsion import Repulsion
from elth.streams import Noise, stream
from elth.tickets import state_digest
from elth.training import NonFiniteLossError, Training

CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "without batch normalisation": ("mlp2(width=32)", {}, 50),
    "over the whole batch": ("resnet14(width=2)", {}, 50),
    "over groups": ("resnet14(width=2)", {"batch_norm_group": 16}, 23),
    "over whole parts": ("resnet14(width=2)", {"batch_norm_group": 32, "optimiser": "adam"}, 23),
    "without scale and shift": ("resnet14(width=2,bn_affine=false)", {}, 3),
    "smoothed labels": (
        "resnet14(width=2)",
        {"label_smoothing": 0.1, "nesterov": True, "decay": "kernels", "batch_norm_group": 32},
        5,
    ),
}
"""Networks, what their recipes differ in, and iterations.

1,297 images in batches of 64: an epoch has 21 iterations, and the last batch 17 images.
"""


IN_FLOAT32 = ("without batch normalisation", "over the whole batch")
"""Cases of which it is reported how far apart one worker and several are in float32."""


def recipe(**fields: Any) -> Recipe:
    values: dict[str, Any] = {
        "length": Step(3, "ep"),
        "rewind": Step(0, "ep"),
        "batch_size": 64,
        "lr": 0.02 if fields.get("optimiser") != "adam" else 1e-3,
    }
    return Recipe(**{**values, **fields})


def network(spec: str, data: Dataset, dtype: torch.dtype) -> Network:
    return build(spec, data.info.shape, generator=stream(0, "init")).to(dtype)


def training(spec: str, data: Dataset, by: Recipe, workers: Group | None, **given: Any) -> Training:
    """A masked training; in float64 unless told."""
    dtype = given.pop("dtype", torch.float64)
    start = network(spec, data, dtype)
    generator = stream(0, "mask")
    mask = {
        name: torch.rand(one.shape, generator=generator) < 0.4
        for name, one in masks.ones(start).items()
    }
    engine = Engine(network(spec, data, dtype), by, group=workers)
    values = {"seed": 0, "state": start.state_dict(), "mask": mask}
    return Training(engine, data, by, **{**values, **given})


def in_float32(case: str, data: Dataset, workers: Group | None) -> Training:
    """The training of a case in float32."""
    spec, fields, steps = CASES[case]
    return training(spec, data, recipe(**fields), workers, stop=steps, dtype=torch.float32)


def repelled(data: Dataset, workers: Group | None) -> list[float]:
    """Losses of a training that is kept from two optima, and its mean repellent loss."""
    spec = "resnet14(width=2)"
    optima = [
        build(spec, data.info.shape, generator=stream(seed, "init")).state_dict() for seed in (0, 1)
    ]
    run = training(spec, data, recipe(), workers, stop=23, repulsion=Repulsion(2, optima))
    found = losses(run)
    assert run.repulsion is not None
    return [*found, run.repulsion]


def evolved(name: str, data: Dataset, workers: Group | None) -> list[Any]:
    """Losses of a sparse training, and which weights it has at its end."""
    spec = "resnet14(width=2)"
    own = network(spec, data, torch.float64)
    shapes = {n: tuple(one.shape) for n, one in masks.ones(own).items()}
    settings = {} if name == "static" else {"every": "4it"}
    evolution = Evolution(method(name, settings), shapes, 600, length=60, per_epoch=21)
    run = training(spec, data, recipe(), workers, stop=46, mask=None, evolution=evolution)
    return [*losses(run), masks.digest({n: m.cpu() for n, m in evolution.mask.items()})]


def losses(run: Training) -> list[float]:
    """The loss of every iteration, and after them the test loss."""
    seen = []
    step = run.engine.step

    def watched(images: Tensor, labels: Tensor, lr: float, count: int, *, hold: bool) -> None:
        before = run.engine.loss_sum(reset=False)
        step(images, labels, lr, count, hold=hold)
        seen.append((run.engine.loss_sum(reset=False) - before) / count)

    run.engine.step = watched  # type: ignore[method-assign, assignment]
    epochs = list(run)
    return [*seen, epochs[-1].test_loss]


def poisoned(data: MemoryDataset, image: int) -> MemoryDataset:
    """The same data, with one training image that no loss survives."""

    class Poisoned(MemoryDataset):
        def train_batches(self, **given: Any) -> Any:
            order = torch.randperm(
                len(self.train_labels), generator=stream(given["seed"], "order", given["epoch"])
            )
            bad = {int((order == image).nonzero()) // given["batch_size"]}
            for number, (images, labels) in enumerate(super().train_batches(**given)):
                if number in bad and given["part"].rank == 1:
                    images[0] = float("nan")
                yield images, labels

    return Poisoned(**{name: getattr(data, name) for name in data.__dataclass_fields__})


def story(data: MemoryDataset, workers: Group) -> Iterator[tuple[str, Any]]:
    """Everything that the workers do together."""
    for name, (spec, fields, steps) in CASES.items():
        yield name, losses(training(spec, data, recipe(**fields), workers, stop=steps))
    yield "repelled", repelled(data, workers)
    for name in METHODS:
        yield f"sparse: {name}", evolved(name, data, workers)
    for name in IN_FLOAT32:
        yield f"{name}, in float32", losses(in_float32(name, data, workers))
    spec, by = "resnet14(width=2)", recipe(batch_norm_group=16, length=Step(6, "ep"))
    runs, saved = [], None
    for _ in range(2):
        kept: list[Any] = []
        run = training(
            spec,
            data,
            by,
            workers,
            dtype=torch.float32,
            stop=103,
            at_check=lambda run, kept=kept: kept.append(run.checkpoint()),
        )
        epochs = [repr(epoch) for epoch in run]
        runs.append([epochs[-1], state_digest(run.state())])
        saved = kept[0]
    assert saved is not None
    run = training(spec, data, by, workers, dtype=torch.float32, stop=103)
    run.resume(saved)
    epochs = [repr(epoch) for epoch in run]
    runs.append([epochs[-1], state_digest(run.state())])
    yield "the same twice, and gone on with", runs
    workers.check_same(run.state(), "the weights")
    try:
        list(training("mlp2(width=8)", poisoned(data, 7), recipe(), workers))
    except NonFiniteLossError as error:
        yield "not finite", error.step
    other = network("mlp2(width=8)", data, torch.float64)
    with torch.no_grad():
        next(other.parameters()).flatten()[0] += workers.rank * 1e-12
    try:
        training("mlp2(width=8)", data, recipe(), workers, state=other.state_dict())
    except ElthError as error:
        yield "other weights", str(error)
    optima = [network("mlp2(width=8)", data, torch.float64).state_dict()]
    try:
        repulsion = Repulsion(1 + workers.rank, optima)
        training("mlp2(width=8)", data, recipe(), workers, repulsion=repulsion)
    except ElthError as error:
        yield "other strengths", str(error)
    for name, value in {"seed": workers.rank, "noise": Noise(copy=workers.rank)}.items():
        try:
            training("mlp2(width=8)", data, recipe(), workers, **{name: value})
        except ElthError as error:
            yield f"another {name}", str(error)
    try:
        training("resnet14(width=2)", data, recipe(batch_norm_group=64), workers)
    except ElthError as error:
        yield "too many workers", str(error)


def main() -> None:
    torch.set_num_threads(1)
    with group() as workers:
        data = load_dataset("digits").to(workers.device)
        assert isinstance(data, MemoryDataset)
        told = dict(story(data, workers))
    if workers.rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(told), encoding="utf-8")
    else:
        Path(f"{sys.argv[1]}.{workers.rank}").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
