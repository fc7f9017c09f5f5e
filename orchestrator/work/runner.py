"""Running a plan: Ray Tune runs its jobs as trials, in the order that the schedule gives."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune

from orchestrator.experiment.sections import Experiment, Resources
from orchestrator.plan.outside import outside
from orchestrator.plan.schedule import Schedule
from orchestrator.store import provenance, storage
from orchestrator.store.address import Store
from orchestrator.store.processes import owner
from orchestrator.store.tracker import Tracker
from orchestrator.work import events, local, stopping
from orchestrator.work.deaths import Deaths
from orchestrator.work.job import JobSettings
from orchestrator.work.passing import to_workers
from orchestrator.work.reasons import Reasons
from orchestrator.work.resources import gpus_here
from orchestrator.work.search import AsAsked, Beginning, Dying, Forget, PlanSearch, Stopping
from orchestrator.work.sharing import Turns
from orchestrator.work.trials import GroupTrial, JobTrial
from orchestrator.work.unstarted import Unstarted


def run(
    schedule: Schedule,
    experiment: Experiment,
    store: Store,
    count: int,
    until: float | None = None,
) -> None:
    """Run everything that the schedule holds, ``count`` trials at a time.

    On the Ray cluster that this process is connected to, else on a Ray of its own on this machine.
    Returns when nothing is left to do; the schedule tells what failed.

    Args:
        schedule: what is to be done.
        experiment: of which it is.
        store: where results go.
        count: trials at a time.
        until: by ``time.monotonic``, when to end as on a signal; None: never.

    Raises:
        ElthError: a Ray of its own cannot be started here.
        KeyboardInterrupt: it was stopped before the end; what is tracked stays.
            ``stopping.TimeOverError`` if by ``until``.
    """
    resources = experiment.resources
    common: JobSettings = {
        "store": str(store.folder or store.uri),
        "grid": experiment.name,
        "experiment": experiment.resolved(),
        "driver": owner(),
        "threads": resources.cpus,
        "cpus": resources.cpus,
        "gpus": resources.gpus,
        "workers": resources.workers,
        "placement": resources.placement,
        "compile": resources.compile,
        "inflight": storage.place(resources.storage, store),
        "outbox": str(store.outbox),
        "checkpoint_minutes": resources.checkpoint_minutes,
        "keep": sorted(schedule.kept),
        "ending": experiment.pruning.model_dump()["stop"],
        "outside": outside(schedule.stages.values()).plain(),
        "data": {
            "root": str(experiment.data.root.absolute()),
            "download": experiment.data.download,
        },
    }
    stop = stopping.Stop(owner(), until)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(count)
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # see stopping
    os.environ.setdefault(provenance.USER, provenance.user())  # trials may run as another one
    os.environ.setdefault("OMP_NUM_THREADS", str(resources.cpus))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(resources.cpus))
    log = (store.folder or Path()) / "logs" / f"{experiment.name}.log"
    with (
        stopping.restored(),
        tempfile.TemporaryDirectory(prefix="elth-ray-") as scratch,
        _errors_to(log),
    ):
        turns = None
        if ray.is_initialized():
            turns = Turns(owner(), yields=resources.workers == 1)
        else:
            reachable = local.start(
                count * resources.workers * resources.cpus,
                gpus_here() if resources.gpus else None,
            )
            if reachable:
                schedule.note(reachable)
        stopping.like_ctrl_c()
        reasons = Reasons(lambda: Tracker(store), experiment.name, owner(), log)
        deaths = Deaths()
        try:
            for number in itertools.count():
                search = PlanSearch(schedule, stop, reasons)
                callbacks = [
                    *(Forget(), Beginning(search), Dying(search, deaths)),
                    *(Stopping(stop, search, turns), Unstarted(search, resources)),
                ]
                _tune(resources, common, search, callbacks, f"{scratch}/tune-{number}")
                schedule.give_back_all()
                if turns is None or not stop.pauses or stop.asked or schedule.is_over:
                    break
                turns.wait(over=lambda: stop.asked)
                stop.resume()
            if turns is not None:
                turns.end()
            if not reasons.try_again():
                schedule.note(f"the store does not answer: why stages failed is in {log} alone")
        finally:
            ray.shutdown()
    if not schedule.is_over and stop.is_late:
        raise stopping.TimeOverError
    if not schedule.is_over:  # Tune ends its loop on Ctrl-C and returns as if all were well
        raise KeyboardInterrupt


def _tune(
    resources: Resources,
    common: JobSettings,
    search: PlanSearch,
    callbacks: Sequence[tune.Callback],
    place: str,
) -> None:
    """Run trials until nothing is left to start, or until they are to end."""
    tuner = tune.Tuner(
        _trainable(resources, common),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=AsAsked(),
            num_samples=-1,
            # An idle process keeps its resources, which a job of several workers may need.
            reuse_actors=resources.workers == 1,
        ),
        run_config=tune.RunConfig(
            name="plan",
            storage_path=place,
            verbose=0,
            callbacks=list(callbacks),
            # Whatever died is begun again by the schedule, with pauses.
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with events.together(events.Lone if resources.workers == 1 else events.Events):
        tuner.fit()


def _trainable(resources: Resources, common: Mapping[str, Any]) -> Any:
    kind: type[tune.Trainable] = JobTrial if resources.workers == 1 else GroupTrial
    # "cpu" and "gpu" of each process; a launcher that held a part of a core would keep its own
    # workers from being placed, and Tune wants it to hold something: a byte.
    wanted: dict[str, float] = {"cpu": resources.cpus, "gpu": resources.gpus}
    if resources.workers > 1:
        wanted = {"memory": 1}
    trial: Any = tune.with_parameters(kind, common=common, environment=to_workers())
    trial = tune.with_resources(trial, wanted)
    trial.__qualname__ = kind.__name__  # what ps and Ray's dashboard show of the process
    return trial


@contextlib.contextmanager
def _errors_to(path: Path) -> Iterator[None]:
    """Send standard error to a file: Ray's processes and its C++ parts write there unasked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    kept = os.dup(2)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
