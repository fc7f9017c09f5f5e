"""Stores of thousands of finished runs, made in seconds, to measure on."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from elth import data, masks
from elth.networks import Network, build
from elth.specs import Spec
from elth.streams import stream
from elth.tickets import Ticket
from elth.training import Epoch
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import Stage, dataset_of
from orchestrator.store.address import Store
from orchestrator.store.processes import owner
from orchestrator.store.result import Result
from orchestrator.store.runlog import AXES, RunLog, begin_run
from orchestrator.store.tracker import Tracker

_TABLES = ("runs", "params", "tags", "metrics", "latest_metrics")


def fill(folder: Path, experiment: Experiment, plan: Plan) -> Store:
    """Make a store in which every stage of a plan is finished, without any training.

    The first stage of each kind is written as always, by ``Tracker`` and the MLflow API, with
    files of random weights. For the others the rows of that run in ``mlflow.db`` are copied by
    SQL, with a run id, key, description and axes of their own, each a second later than the one
    before; they share its files. MLflow reads them as it reads those it wrote.
    """
    store = Store.of(folder)
    tracker = Tracker(store)
    tracker.grids.open(experiment.name, experiment.resolved(), plan.stages, experiment.description)
    first: dict[str, Stage] = {}
    for stage in plan.stages.values():
        first.setdefault(stage.kind, stage)
    made = {kind: write(tracker, stage, experiment).run_id for kind, stage in first.items()}
    rest = [stage for stage in plan.stages.values() if stage is not first[stage.kind]]
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        for kind, template in made.items():
            _copy(database, template, [stage for stage in rest if stage.kind == kind])
        _spread(database, len(plan.stages))
    return store


def begin(tracker: Tracker, stage: Stage, experiment: Experiment) -> RunLog:
    """Begin to track a stage whose ticket has random weights, nothing pruned."""
    ticket = None
    if stage.kind != "rewind_point":
        network = _network(stage)
        ticket = Ticket(
            network=Spec.parse(stage.params["network"]),
            shape=data.info(dataset_of(stage)).shape,
            rewind=network.state_dict(),
            mask=masks.ones(network),
        )
    return begin_run(
        tracker,
        stage,
        ticket,
        grid=experiment.name,
        experiment=experiment.resolved(),
        driver=owner(),
        numerics="cpu/benchmark",
    )


def epoch(number: int) -> Epoch:
    """What an epoch might have come to."""
    return Epoch(
        epoch=number,
        step=number,
        lr=0.1,
        train_loss=1.0,
        test_loss=1.0,
        test_accuracy=50.0 + number,
    )


def write(tracker: Tracker, stage: Stage, experiment: Experiment, epochs: int = 4) -> RunLog:
    """Track a stage as if it had been trained."""
    log = begin(tracker, stage, experiment)
    for number in range(1, epochs + 1):
        log.epoch(epoch(number))
    network = _network(stage)
    result = Result(rewind=network.state_dict())
    if stage.kind != "rewind_point":
        result = Result(mask=masks.ones(network), trained=network.state_dict())
    log.finish(result, keep_weights=stage.kind == "round")
    return log


def _network(stage: Stage) -> Network:
    shape = data.info(dataset_of(stage)).shape
    return build(stage.params["network"], shape, generator=stream(0, "init"))


def _copy(database: sqlite3.Connection, template: str, stages: Sequence[Stage]) -> None:
    for table in _TABLES:
        cursor = database.execute(f"select * from {table} where run_uuid = ?", (template,))
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
        marks = ", ".join("?" * len(names))
        database.executemany(
            f"insert into {table} values ({marks})",
            ([row[name] for name in names] for row in _rows(table, rows, stages)),
        )


def _rows(
    table: str, rows: Sequence[Mapping[str, Any]], stages: Iterable[Stage]
) -> Iterable[Mapping[str, Any]]:
    for stage in stages:
        run_id = uuid.uuid5(uuid.NAMESPACE_OID, stage.key).hex
        own = {
            "runs": {"name": stage.title},
            "tags": {"elth.key": stage.key, "elth.stage": json.dumps(stage.describe())},
            "params": {name: str(stage.labels[name]) or "-" for name in AXES},
        }.get(table, {})
        for row in rows:
            changed = {**row, "run_uuid": run_id}
            if table == "runs":
                changed |= own
            elif row["key"] in own:
                changed["value"] = own[row["key"]]
            yield changed


def _spread(database: sqlite3.Connection, count: int) -> None:
    """Let runs begin one a second, the last one an hour ago, each 900 ms long."""
    begin = int(time.time() * 1000) - 3_600_000 - 1000 * count
    database.execute(
        "update runs set start_time = ? + 1000 * rowid, end_time = ? + 1000 * rowid "
        "where experiment_id = (select experiment_id from experiments where name = 'elth')",
        (begin, begin + 900),
    )
