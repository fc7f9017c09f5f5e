"""Bytes that a chain leaves in the store, against ``torch.save`` of weights and float masks.

    python -m benchmarks.storage

A chain of ResNet-56 with 13 prunings is written by ``Tracker`` as a run of it is. The weights are
random, which no file could make smaller; the masks are pruned from them by magnitude, so all counts
are real. The other side stores for each round what is often stored: the trained weights, and a mask
of a float32 for each weight.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import row, show
from elth import data, masks
from elth.networks import build
from elth.streams import stream
from elth.training import Epoch
from orchestrator import plan as plans
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.stage import Stage
from orchestrator.store.address import Store
from orchestrator.store.processes import owner
from orchestrator.store.result import Result
from orchestrator.store.runlog import begin_run
from orchestrator.store.tracker import Tracker
from orchestrator.work.tickets import ticket_of

EPOCHS = 160


def rows(network: str = "resnet56", rounds: int = 13) -> list[dict[str, Any]]:
    """Write a chain both ways and weigh it."""
    with tempfile.TemporaryDirectory(prefix="elth-bench-") as folder:
        return _rows(Path(folder), network, rounds)


def _rows(folder: Path, network: str, rounds: int) -> list[dict[str, Any]]:
    experiment = Experiment.model_validate(
        {
            "name": "storage",
            "dataset": "cifar10",
            "seeds": [0],
            "recipe": "cifar10_resnet",
            "pruning": {"rate": 0.2, "rounds": rounds},
            "grid": [{"method": "imp", "network": network}],
        }
    )
    plan = plans.build(experiment)
    store = Store.of(folder / "runs")
    tracker = Tracker(store)
    database = folder / "runs" / "mlflow.db"
    empty = database.stat().st_size
    known: dict[str, tuple[Stage, Result]] = {}
    plain_bytes = 0
    shape = data.info("cifar10").shape
    for number, (key, stage) in enumerate(plan.stages.items()):
        state = build(network, shape, generator=stream(number, "init")).state_dict()
        ticket, result = None, Result(rewind=state)
        if stage.kind == "round":
            ticket = ticket_of(stage, known.__getitem__)
            result = Result(mask=ticket.mask, trained=masks.apply(ticket.mask, state))
            plain_bytes += _plain(folder / "plain.pt", result)
        known[key] = stage, result
        _track(tracker, stage, ticket, result, experiment)
    files = [path for path in (folder / "runs" / "artifacts").rglob("*") if path.is_file()]
    sizes = {path: path.stat().st_size for path in files}
    trained = sum(size for path, size in sizes.items() if path.name == "trained.safetensors")
    bits = sum(size for path, size in sizes.items() if path.name == "mask.safetensors")
    whole = sum(sizes.values())
    rest = database.stat().st_size - empty
    words = f"{network}, {rounds} prunings"
    mega = 1e6
    return [
        row(f"torch.save of weights and float32 masks: {words}", "MB", [plain_bytes / mega]),
        row("all files of the chain in the store", "MB", [whole / mega]),
        row("of these masks", "MB", [bits / mega]),
        row("of these trained weights", "MB", [trained / mega]),
        row(f"growth of mlflow.db, {EPOCHS} epochs a round", "MB", [rest / mega]),
        row("times less, masks and rewind point", "x", [plain_bytes / (whole - trained)], ">= 15"),
        row("times less, with trained weights of all rounds", "x", [plain_bytes / whole], ">= 4"),
        row("the same, with mlflow.db counted", "x", [plain_bytes / (whole + rest)]),
    ]


def _plain(path: Path, result: Result) -> int:
    assert result.mask is not None
    float_masks = {name: mask.float() for name, mask in result.mask.items()}
    torch.save({"weights": result.trained, "masks": float_masks}, path)
    return path.stat().st_size


def _track(
    tracker: Tracker, stage: Stage, ticket: Any, result: Result, experiment: Experiment
) -> None:
    log = begin_run(
        tracker,
        stage,
        ticket,
        grid=experiment.name,
        experiment=experiment.resolved(),
        driver=owner(),
        numerics="cpu/benchmark",
    )
    for epoch in range(1, EPOCHS + 1 if stage.kind == "round" else 2):
        log.epoch(
            Epoch(
                epoch=epoch,
                step=391 * epoch,
                lr=0.1,
                train_loss=1.0 / epoch,
                test_loss=2.0 / epoch,
                test_accuracy=90.0,
            )
        )
    log.finish(result, keep_weights=stage.kind == "round")


if __name__ == "__main__":
    show("storage", rows())
