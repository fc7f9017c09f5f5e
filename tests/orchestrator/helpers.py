"""Small experiments, hand-made stages and results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import hypothesis
import torch
import yaml

from elth import masks
from elth.data import info
from elth.networks import blueprint, build
from elth.specs import Spec
from elth.streams import stream
from elth.tickets import Ticket
from elth.training import Epoch
from orchestrator import plan
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.graph import Plan
from orchestrator.plan.outside import Outside
from orchestrator.plan.stage import Stage, shape_of
from orchestrator.store.address import Store
from orchestrator.store.processes import Process, owner
from orchestrator.store.result import Result
from orchestrator.store.runlog import RunLog, begin_run
from orchestrator.store.tracker import Tracker
from orchestrator.work.job import JobSettings
from orchestrator.work.worker import Worker, run_job

QUICK = hypothesis.settings(deadline=None, derandomize=True, database=None, max_examples=50)
"""For every test with drawn examples: the same ones each time, and no clock."""

TINY = "resnet14(width=4)"
TINY_DEEPER = "resnet20(width=4)"
RECIPE = {"length": "2ep", "rewind": "1ep", "batch_size": 64, "milestones": ["1ep"]}
"""Two epochs of 21 iterations on the digits, rewound to the end of the first."""
INFINITE = {"length": "2ep", "rewind": "1it", "lr": 1e30}
"""The first step goes so far that the second loss is infinite."""


def like_this_one(**changes: Any) -> str:
    """A process as this one, with parts of its identity replaced."""
    here = Process.of(owner())
    assert here is not None
    return str(replace(here, mark="other", **changes))


GONE = like_this_one(start="1")
"""A process of this boot that had this id a tick after it."""

ELSEWHERE = "another-host.invalid:1:1"
"""A process of another host and an older version, of which nothing is known."""


def experiment(**changes: Any) -> Experiment:
    """The papers' pruning of ResNet-14 and 20 on CIFAR-10, seed 0, with fields replaced."""
    fields: dict[str, Any] = {
        "name": "papers",
        "dataset": "cifar10",
        "seeds": [0],
        "recipe": "cifar10_resnet",
        "pruning": {"rate": 0.2, "rounds": 13},
        "grid": [{"method": "imp", "network": "resnet20"}],
    }
    return Experiment.model_validate({**fields, **changes})


def tiny(name: str, **changes: Any) -> Experiment:
    """Two epochs of digits and two rounds, on a network of 11 thousand weights."""
    fields: dict[str, Any] = {
        "name": name,
        "dataset": "digits",
        "seeds": [0],
        "recipe": RECIPE,
        "pruning": {"rate": 0.5, "rounds": 2},
        "grid": [{"method": "imp", "network": TINY}],
    }
    return Experiment.model_validate({**fields, **changes})


def write_yaml(path: Path, fields: Mapping[str, Any]) -> Path:
    """Write fields as YAML; returns the path."""
    path.write_text(yaml.safe_dump(dict(fields), sort_keys=False), encoding="utf-8")
    return path


def of_kind(built: Plan, kind: str) -> list[Stage]:
    """The stages of a kind, in the order of the plan."""
    return [stage for stage in built.stages.values() if stage.kind == kind]


def round_of(built: Plan, network: str, k: int, seed: int = 0) -> Stage:
    """Round ``k`` of a chain."""
    wanted = (network, k, seed)
    return next(
        stage
        for stage in of_kind(built, "round")
        if (stage.labels["network"], stage.labels["round"], stage.labels["seed"]) == wanted
    )


def as_before(text: str) -> str:
    """A report as JSON with the keys that it had at commit 645568c; newer ones are left out."""
    newer = ("judgement", "flops_")
    cells = [
        {key: value for key, value in cell.items() if not key.startswith(newer)}
        for cell in json.loads(text)
    ]
    return json.dumps(cells, indent=1) + "\n"


def chain(name: str = "chain", **changes: Any) -> list[Stage]:
    """The stages of a tiny chain: rewind point, dense round, two rounds."""
    return list(plan.build(tiny(name, **changes)).stages.values())


def rewind_result(network: str = TINY, seed: int = 0) -> Result:
    """A rewind point of random weights for digits."""
    made = build(network, info("digits").shape, generator=stream(seed, "init"))
    return Result(rewind=made.state_dict())


def round_result(kept: int, network: str = TINY, seed: int = 1) -> Result:
    """A round that keeps ``kept`` random weights, and trained weights that fit."""
    shape = info("digits").shape
    state = build(network, shape, generator=stream(seed, "init")).state_dict()
    mask = masks.ones(blueprint(network, shape))
    flat = torch.zeros(masks.total(mask), dtype=torch.bool)
    flat[torch.randperm(len(flat), generator=stream(seed, "shuffle"))[:kept]] = True
    parts = torch.split(flat, [m.numel() for m in mask.values()])
    mask = {
        name: part.reshape(m.shape) for (name, m), part in zip(mask.items(), parts, strict=True)
    }
    return Result(mask=mask, trained=masks.apply(mask, state))


def job_config(
    store: Store, found: Experiment, stages: Iterable[Stage], **changes: Any
) -> JobSettings:
    """The settings of a job, as ``runner.run`` and the search make them."""
    config: JobSettings = {
        "store": str(store),
        "grid": found.name,
        "experiment": found.resolved(),
        "driver": owner(),
        "stop": f"{owner()}/0",
        "threads": 1,
        "compile": False,
        "inflight": str(store.inflight),
        "outbox": str(store.outbox),
        "checkpoint_minutes": 5,
        "ending": found.pruning.model_dump()["stop"],
        "keep": [],
        "gpus": 0,
        "workers": 1,
        "data": {"root": "data", "download": False},
        "outside": Outside().plain(),
        "stages": [stage.describe() for stage in stages],
    }
    return cast("JobSettings", {**config, **changes})


def do(found: Experiment, built: Plan, tracker: Tracker) -> None:
    """Do the stages of a plan that are not finished in this process, as ``elth run`` on Ray."""
    tracker.grids.open(found.name, found.resolved(), built.stages, "", built.also)
    worker = Worker()
    done = {one.key for one in tracker.stages() if one.status == "finished"}
    for job in built.jobs(done):
        config = job_config(tracker.store, found, job.stages, keep=sorted(built.kept))
        for report in run_job(config, worker):
            assert not report.failed, report.failed
    own = (one.run_id for one in tracker.stages() if one.key in built.stages)
    tracker.grids.join(own, found.name)
    tracker.forget()


def artifact(tracker: Tracker, run_id: str, path: str) -> Path:
    """The file of a run, in the store itself."""
    uri = tracker.client.get_run(run_id).info.artifact_uri
    assert uri is not None
    return Path(uri.removeprefix("file://")) / path


def grid_file(tracker: Tracker, grid: str, name: str) -> Path:
    """A file of a grid's latest version, in the store itself."""
    run = tracker.grids.run(grid)
    assert run is not None
    versions = {k: v for k, v in run.data.params.items() if k.startswith("content/")}
    return artifact(tracker, run.info.run_id, f"{versions[f'content/{len(versions)}']}{name}")


def epoch(number: int, accuracy: float = 50.0) -> Epoch:
    """What is measured at the end of an epoch."""
    return Epoch(
        epoch=number,
        step=21 * number,
        lr=0.1,
        train_loss=1.0 / number,
        test_loss=2.0 / number,
        test_accuracy=accuracy,
    )


def begin(tracker: Tracker, stage: Stage, ticket: Ticket | None = None, **changes: Any) -> RunLog:
    """Begin the run of a stage, for the grid ``one`` where nothing else is said."""
    words: dict[str, Any] = {
        "grid": "one",
        "experiment": "text: 1\n",
        "driver": owner(),
        "numerics": "cpu/1",
    }
    return begin_run(tracker, stage, ticket, **(words | changes))


def track(
    tracker: Tracker, stage: Stage, accuracy: float, *, kept: int = 5000, **words: Any
) -> str:
    """Track a stage as finished without training, with random weights; returns the run's id."""
    network, ticket = stage.params["network"], None
    result = rewind_result(network)
    if stage.kind != "rewind_point":
        left = round_result(kept, network)
        assert left.mask is not None
        assert result.rewind is not None
        ticket = Ticket(
            network=Spec.parse(network), shape=shape_of(stage), rewind=result.rewind, mask=left.mask
        )
        result = left
    log = begin(tracker, stage, ticket, **words)
    log.epoch(epoch(1, accuracy))
    log.finish(result, keep_weights=stage.kind == "round")
    return log.run_id


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A store with a grid in it."""

    store: Store
    tracker: Tracker
    experiment: Experiment
    plan: Plan


def stopped(folder: Path, seeds: Sequence[int] = (0, 1), **fields: Any) -> Finished:
    """A grid whose first chain fell below its bound in round 2 of 4; the second one did not.

    Nothing was trained; all that the bound leaves to do is tracked, 23 of 28 stages.
    """
    moved = {"source": TINY, "network": TINY_DEEPER, "transform": "append", "round": [2, 3]}
    found = tiny(
        "stopped",
        seeds=list(seeds),
        pruning={"rate": 0.5, "rounds": 4, "stop": {"accuracy_below": 12}},
        **fields,
        grid=[
            {"method": ["imp", "reinit"], "network": TINY, "round": "all"},
            {"method": "magnitude", "network": TINY, "round": [3, 4]},
            {"method": "ett", **moved},
        ],
    )
    built = plan.build(found)
    store = Store.of(folder)
    tracker = Tracker(store)
    words: dict[str, Any] = {"grid": found.name, "experiment": found.resolved()}
    for stage in built.stages.values():
        label = stage.labels
        falls = not label["seed"] and label["method"] in ("imp", "reinit", "ett")
        if not falls or label["round"] <= 2:
            track(tracker, stage, 11.2 if falls and label["round"] == 2 else 50.0, **words)
    tracker.grids.open(found.name, found.resolved(), built.stages, "")
    return Finished(store=store, tracker=tracker, experiment=found, plan=built)


def finish(folder: Path) -> Finished:
    """Do a tiny grid with every method in this process, as ``elth run`` does on Ray."""
    from orchestrator.work.worker import Worker, run_job

    found = tiny(
        "done",
        seeds=[0, 1],
        grid=[
            {"method": "imp", "network": [TINY, TINY_DEEPER]},
            {"method": "ett", "source": TINY, "network": TINY_DEEPER, "transform": "append"},
            {"method": ["reinit", "random", "magnitude"], "network": TINY_DEEPER},
        ],
    )
    built = plan.build(found)
    store = Store.of(folder)
    tracker = Tracker(store)
    tracker.grids.open(found.name, found.resolved(), built.stages, "A tiny grid.")
    worker = Worker()
    for job in built.jobs():
        for report in run_job(job_config(store, found, job.stages), worker):
            assert not report.failed, report.failed
    return Finished(store=store, tracker=tracker, experiment=found, plan=built)


def inside(folder: Path) -> Finished:
    """Two grids that look inside IMP, done in this process; ``inside`` is given.

    In ``inside`` are variants, of which ``same`` shares all stages and ``repel`` and ``lrr`` have
    rounds that start from earlier ones, a twin, a chain of an imported ticket, and analyses. The
    grid ``other`` is of its plain chain and shares one of these.
    """
    from orchestrator.plan.imported import imported
    from orchestrator.store import imported_tickets, variants
    from orchestrator.work.worker import Worker, run_job

    given = Ticket(
        network=Spec.parse(TINY),
        shape=info("digits").shape,
        rewind=rewind_result(seed=7).rewind or {},
        mask=round_result(4000).mask or {},
    )
    named: dict[str, Any] = {"sha256": given.digest, "iteration": 21, "nonzeros": 4000}
    distances = {"measure": "distances", "of": {"method": "imp", "variant": "none", "seed": 0}}
    found = tiny(
        "inside",
        variants={
            "same": {"recipe.batch_size": RECIPE["batch_size"]},
            "lrr": {"pruning.weights": "trained"},
            "repel": {"pruning.repel": 2.0},
        },
        tickets={"theirs": named},
        grid=[
            {
                "method": ["dense", "imp"],
                "network": TINY,
                "variant": ["none", "same", "lrr", "repel"],
            },
            {"method": "imp", "network": TINY, "round": 1, "noise": 1, "variant": ["none", "same"]},
            {"method": "imp", "network": TINY, "round": [0, 1], "ticket": "theirs"},
        ],
        analyses=[
            {
                "measure": "barrier",
                "between": "twins",
                "of": {"round": 1, "variant": "none"},
                **{"points": 3, "data": "test"},
            },
            {"measure": "overlap", "between": "rounds", "of": {"variant": ["none", "lrr"]}},
            distances,
        ],
    )
    other = tiny("other", analyses=[distances])
    built, store = plan.build(found), Store.of(folder)
    tracker, worker = Tracker(store), Worker()
    imported_tickets.put(tracker, imported(TINY, "digits", **named), given, {})
    for one, stages in ((found, built), (other, plan.build(other))):
        tracker.grids.open(one.name, one.resolved(), stages.stages, "", stages.also)
        done = {run.key for run in tracker.stages() if run.status == "finished"}
        for job in stages.jobs(done):
            config = job_config(store, one, job.stages, keep=sorted(stages.kept))
            for report in run_job(config, worker):
                assert not report.failed, report.failed
        mine = [run for run in tracker.stages() if run.key in stages.stages]
        tracker.grids.join_finished(mine, one.name)
        variants.tell(tracker, one.name, tracker.grids.content(one.name))
    tracker.forget()
    return Finished(store=store, tracker=tracker, experiment=found, plan=built)
