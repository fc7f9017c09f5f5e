"""Running a plan: Ray Tune runs its jobs as trials, in the order that the schedule gives."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Generator, Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

# Before Ray is imported: quiet, private, and the old output engine that obeys verbose=0.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

import ray
import torch
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from elth import data
from elth.data import Dataset
from elth.engine import Engine
from elth.errors import ElthError
from elth.parallel import Group
from elth.tickets import Ticket
from elth.training import Epoch, NonFiniteLossError
from orchestrator import stages, stopping, storage
from orchestrator.damage import DamagedError
from orchestrator.experiment import Experiment, Resources
from orchestrator.inflight import InFlight, Stopped
from orchestrator.leases import Held, Lease, LostError, claim
from orchestrator.outbox import AwayError, deliver, is_away, patiently, plain, waiting
from orchestrator.passing import Passed, passed
from orchestrator.plan import Stage, dataset_of, iterations
from orchestrator.provenance import owner
from orchestrator.resources import compiles, numerics
from orchestrator.runlog import RunLog
from orchestrator.schedule import Schedule
from orchestrator.sharing import Turns
from orchestrator.store import Store
from orchestrator.tracking import Tracker

T = TypeVar("T")

REPORT_SECONDS = 1.0
_KEPT_RESULTS = 8
_KEPT_BYTES = 256 * 2**20


@dataclass
class Worker:
    """What a worker process keeps from job to job; all of it is keyed, none of it is state."""

    trackers: dict[str, Tracker] = field(default_factory=dict)
    datasets: dict[tuple[str, ...], Dataset] = field(default_factory=dict)
    engines: stages.Engines = field(default_factory=stages.Engines)
    results: dict[str, tuple[Stage, stages.Result]] = field(default_factory=dict)

    def tracker(self, store: str) -> Tracker:
        """The tracker of a store."""
        if store not in self.trackers:
            self.trackers[store] = Tracker(Store.of(store))
        return self.trackers[store]

    def dataset(self, name: str, place: Mapping[str, Any], device: str | torch.device) -> Dataset:
        """A dataset on a device, read and checked once; ``place``: its root, and if to get it."""
        key = (name, place["root"], str(device))
        if key not in self.datasets:
            read = data.load(name, place["root"], download=place["download"])
            self.datasets[key] = read.to(device)
        return self.datasets[key]

    def load(self, tracker: Tracker, key: str) -> tuple[Stage, stages.Result]:
        """A finished stage, from memory if this process made or read it lately."""
        if key not in self.results:
            self.keep(key, tracker.load(key))
        return self.results[key]

    def keep(self, key: str, result: tuple[Stage, stages.Result]) -> None:
        """Remember a result; of the oldest a few are forgotten once all are large."""
        self.results.pop(key, None)
        self.results[key] = result
        size = sum(one.nbytes for _, one in self.results.values())
        while len(self.results) > _KEPT_RESULTS and size > _KEPT_BYTES:
            _, oldest = self.results.pop(next(iter(self.results)))
            size -= oldest.nbytes


WORKER = Worker()


class GroupError(RuntimeError):
    """One of several workers failed where the others go on: all of them have to end."""


@dataclass(frozen=True)
class Report:
    """What a job tells while it runs."""

    index: int
    """Number of stages of the job that are finished."""
    fraction: float = 0.0
    """How far the next one is."""
    accuracy: float | None = None
    failed: str = ""
    """Why the stage failed, if it did; nothing follows."""
    note: str = ""
    """What a person should know once: that something could not be had."""
    stopped: bool = False
    """Whether it ends here because the run is to end; nothing follows."""
    held: str = ""
    """The last sign of life of another driver that is at the stage; nothing follows."""
    redo: str = ""
    """The key of a stage that is needed and no longer finished; nothing follows."""

    @property
    def is_last(self) -> bool:
        """Whether the job ends with it, before its end."""
        return bool(self.failed or self.stopped or self.held or self.redo)


def prepare_process(config: Mapping[str, Any]) -> None:
    """Set what holds for all of a process."""
    torch.set_num_threads(config["threads"])
    torch.backends.cudnn.deterministic = True
    if 0 < config["gpus"] < 1:  # of the memory, too, a trial takes its share and no more
        torch.cuda.set_per_process_memory_fraction(config["gpus"])


def run_job(
    config: Mapping[str, Any], worker: Worker = WORKER, group: Group | None = None
) -> Iterator[Report]:
    """Do the stages of a job one after the other; each is tracked before the next begins.

    A stage that is finished in the store is passed over, so a job may be given again after any end.

    Args:
        config: what ``run`` gives to a trial.
        worker: what the process keeps.
        group: the workers that do the job together, where this is the first of several; the others
            ``follow`` it.
    """
    prepare_process(config)
    for index, description in enumerate(config["stages"]):
        try:
            last = False
            for report in _do(Stage.of(description), config, worker, group):
                yield replace(report, index=index)
                last = report.is_last
            if last:
                break
        except GroupError:
            raise
        except Stopped:  # the others of a group end with the run
            yield Report(index=index, stopped=True)
            return
        except Exception as error:
            redo = error.key if isinstance(error, DamagedError) else ""
            yield Report(index=index, failed=_reason(error), redo=redo)
            break
        yield Report(index=index + 1)
    if group is not None:
        _share(group, None)


def _share(group: Group, value: Any) -> None:
    try:
        group.share(value)
    except RuntimeError as error:  # PyTorch's, when another worker has died
        raise GroupError(_reason(error)) from error


def follow(config: Mapping[str, Any], worker: Worker, group: Group) -> None:
    """Do with the first worker of a group what it does; it alone deals with the store."""
    prepare_process(config)
    while (task := group.share()) is not None:
        description, ticket, saved = task
        stage = Stage.of(description)
        dataset = worker.dataset(dataset_of(stage), config["data"], group.device)
        engine = worker.engines.get(stage, dataset, compile=False, group=group)
        with contextlib.suppress(NonFiniteLossError):
            for _ in stages.train(stage, ticket, dataset, engine, saved=saved):
                pass


def _do(
    stage: Stage, config: Mapping[str, Any], worker: Worker, group: Group | None
) -> Iterator[Report]:
    """Do a stage, unless it is finished or another driver is at it; tells how far it is."""
    store, grid = config["store"], config["grid"]
    tracker = yield from _told(waiting(lambda: worker.tracker(store), store))
    ask = functools.partial(
        claim, tracker, stage, grid=grid, driver=config["driver"], watched=config.get("watched")
    )
    while True:
        claimed = yield from _told(waiting(functools.partial(ask, since=time.monotonic()), store))
        if isinstance(claimed, Held):
            yield Report(index=0, held=claimed.token)
            return
        if isinstance(claimed, Run):  # another grid's or another driver's, done meanwhile
            join = functools.partial(tracker.join_grid, [claimed.info.run_id], grid)
            patiently(join, store)
            InFlight(config["inflight"], stage.key, "", 0).clear()
            return
        try:
            yield from _run_stage(stage, config, worker, tracker, group, claimed)
            return
        except (LostError, MlflowException) as error:  # another driver was quicker: look again
            if isinstance(error, MlflowException) and (is_away(error) or not claimed.is_lost()):
                raise
            claimed.give_up()
        finally:
            claimed.end()


def _told(notes: Generator[str, None, T]) -> Generator[Report, None, T]:
    """Pass notes on as reports."""
    while True:
        try:
            note = next(notes)
        except StopIteration as end:
            result: T = end.value
            return result
        yield Report(index=0, note=note)


def _run_stage(
    stage: Stage,
    config: Mapping[str, Any],
    worker: Worker,
    tracker: Tracker,
    group: Group | None,
    lease: Lease,
) -> Iterator[Report]:
    """Do the stage of a lease; tells how far it is."""
    try:
        dataset, ticket, engine = _prepare(stage, config, worker, tracker, group)
    except Exception:
        lease.give_up()
        raise
    if engine is not None and engine.note:
        yield Report(index=0, note=engine.note)
    way = "eager" if engine is None else engine.way
    kind = numerics(config["threads"], config["gpus"], way, config["workers"])
    inflight = InFlight(
        config["inflight"],
        stage.key,
        kind,
        60 * config["checkpoint_minutes"],
        stop=stopping.watch(config["stop"]),
    )
    saved = inflight.newest()
    yield from _notes(inflight)
    log = patiently(
        lambda: tracker.begin(
            stage,
            ticket,
            grid=config["grid"],
            experiment=config["experiment"],
            driver=config["driver"],
            numerics=kind,
            lease=lease,
        ),
        tracker.store,
    )
    log.earlier = inflight.earlier
    for epoch, at in inflight.history:
        log.epoch(epoch, at)
    start, stop = iterations(stage)
    keep = stage.kind == "round"
    if group is not None:
        _share(group, (stage.describe(), ticket, saved))
    try:
        if engine is None:  # that of several workers they make together
            engine = worker.engines.get(stage, dataset, compile=False, group=group)
        epochs = stages.train(
            stage, ticket, dataset, engine, saved=saved, at_check=inflight.save_if_due
        )
        result = yield from _logged(epochs, log, inflight, start, stop)
        outbox = Path(config["outbox"])
        notes = deliver(tracker, log, stage.key, result, outbox, keep_weights=keep)
        yield from _told(notes)
    except Stopped:  # as if its process had died: the next attempt takes over
        raise
    except (LostError, AwayError) as error:
        log.stop()
        if group is not None:
            raise GroupError(str(error)) from error
        raise
    except Exception as error:
        final, reason = isinstance(error, NonFiniteLossError), _reason(error)
        details = traceback.format_exc()
        with contextlib.suppress(AwayError, MlflowException):
            patiently(lambda: log.fail(reason, final=final, details=details), tracker.store)
        if group is not None and not final:  # the others wait in the middle of an iteration
            raise GroupError(reason) from error
        raise
    inflight.clear()
    worker.keep(stage.key, (stage, result))


def _prepare(
    stage: Stage,
    config: Mapping[str, Any],
    worker: Worker,
    tracker: Tracker,
    group: Group | None,
) -> tuple[Dataset, Ticket | None, Engine | None]:
    """What a stage trains, on what and with what; an engine of several workers they make later."""
    device = "cuda" if config["gpus"] else "cpu"
    dataset = worker.dataset(dataset_of(stage), config["data"], group.device if group else device)
    ticket = None
    if stage.kind != "rewind_point":

        def load(key: str) -> tuple[Stage, stages.Result]:
            return patiently(lambda: worker.load(tracker, key), tracker.store)

        ticket = stages.ticket(stage, load, data=dataset)
    if group is not None:
        return dataset, ticket, None
    compile = compiles(stage, config["compile"], device)
    return dataset, ticket, worker.engines.get(stage, dataset, compile=compile)


def _logged(
    epochs: Generator[Epoch, None, stages.Result],
    log: RunLog,
    inflight: InFlight,
    start: int,
    stop: int,
) -> Generator[Report, None, stages.Result]:
    while True:
        try:
            epoch = next(epochs)
        except StopIteration as end:
            result: stages.Result = end.value
            return result
        if log.lease is not None and log.lease.seems_lost and log.lease.is_lost():
            raise LostError(f"run {log.run_id} has lost its lease")
        at = int(time.time() * 1000)
        inflight.history.append((epoch, at))
        log.epoch(epoch, at)
        yield from _notes(inflight)
        fraction = (epoch.step - start) / (stop - start)
        yield Report(index=0, fraction=fraction, accuracy=epoch.test_accuracy)


def _notes(inflight: InFlight) -> Iterator[Report]:
    for note in inflight.notes:
        yield Report(index=0, note=note)
    inflight.notes.clear()


def _reason(error: Exception) -> str:
    text = plain(error)
    if isinstance(error, ElthError | NonFiniteLossError | MlflowException | OSError):
        return text
    return f"{type(error).__name__}: {text}"


class JobTrial(tune.Trainable):
    """A trial of Tune: one job. The process stays for the next one."""

    def setup(
        self,
        config: dict[str, Any],
        common: Mapping[str, Any] | None = None,
        environment: Passed | None = None,
    ) -> None:
        """Begin a job, of which ``config`` tells what is its own and ``common`` the rest."""
        if environment is not None:
            environment.apply()
        self._common = common or {}
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another job in the same process."""
        self._job = run_job({**self._common, **new_config})
        return True

    def step(self) -> dict[str, Any]:
        """Go on for about a second, or to the end of a stage."""
        began = time.monotonic()
        done = True
        report: Report | None = None
        for report in self._job:
            if report.is_last or report.fraction == 0 or time.monotonic() - began > REPORT_SECONDS:
                done = report.is_last
                break
        # A tuple, as Tune flattens the mappings in a result.
        return {"report": astuple(report) if report else None, "done": done}


class PlanSearch(Searcher):
    """Tune's search algorithm: suggests the schedule's next job and tells it what became of it."""

    def __init__(self, schedule: Schedule, stop: stopping.Stop | None = None) -> None:
        super().__init__()
        self.schedule = schedule
        self._stop = stop or stopping.Stop("")
        self._waits: dict[str, float] = {}

    @property
    def waits(self) -> float:
        """For how many seconds a job of several workers has not had them."""
        return max(self._waits.values(), default=0.0)

    def suggest(self, trial_id: str) -> Any:
        """The next job as a trial's configuration; None while none is ready."""
        if self._stop.asked or self._stop.pauses:
            return Searcher.FINISHED  # for None Tune would wait, minutes if no trial is left
        job = self.schedule.take(trial_id)
        if job is not None:
            stages = [stage.describe() for stage in job.stages]
            watched = self.schedule.watched(trial_id)
            # Tune keeps several copies of it, so what all jobs have in common goes another way.
            return {"stages": stages, "watched": watched, "stop": self._stop.name}
        return Searcher.FINISHED if self.schedule.is_over else None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a trial's report on; finished stages unlock others at once."""
        self._waits[trial_id] = result.get("waits", 0.0)
        report = result.get("report")
        if report is None:
            return
        report = Report(*report)
        self.schedule.advance(trial_id, report.index, report.fraction, report.accuracy)
        if report.note:
            self.schedule.note(report.note)
        if report.held:
            self.schedule.hold(trial_id, report.held)
        elif report.redo:
            self.schedule.redo(trial_id, report.redo, report.failed)
        elif report.stopped:
            self.schedule.give_back(trial_id)
        elif report.failed:
            self.schedule.fail(trial_id, report.failed)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Note that a trial is over."""
        if result is not None:
            self.on_trial_result(trial_id, result)
        self._waits.pop(trial_id, None)
        if not (self._stop.asked or self._stop.pauses):  # else what is left of it is no failure
            self.schedule.end(trial_id)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune keeps a copy of its parts on disk, and this one has its life here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing is saved: the store holds all that counts."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is restored; see ``save``."""


class Forget(tune.Callback):
    """Lets go of what Tune keeps of each trial for statistics and for a state never restored."""

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Empty a trial that is over; of thousands this would be hundreds of megabytes."""
        trial.config = {}
        trial.evaluated_params = {}
        trial.run_metadata.last_result.pop("config", None)
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()
        trial.invalidate_json_state()


_MAKES_ROOM = (
    "another driver's job of several workers waits for room on this cluster: trials write "
    "checkpoints, make room, and go on after it"
)


class Stopping(tune.Callback):
    """Has the trials end before Tune does, once the run is to end or to make room for others."""

    def __init__(self, stop: stopping.Stop, search: PlanSearch, turns: Turns | None) -> None:
        self._stop = stop
        self._search = search
        self._turns = turns

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look, ten times a second."""
        tunes = signal.getsignal(signal.SIGUSR1)
        if callable(tunes):
            self._stop.listen(tunes)
        if self._turns is not None and self._turns.look(self._search.waits):
            self._search.schedule.note(_MAKES_ROOM)
            self._stop.pause()
        self._stop.look(busy=any(trial.status == Trial.RUNNING for trial in trials))


def run(schedule: Schedule, experiment: Experiment, store: Store, count: int) -> None:
    """Run everything that the schedule holds, ``count`` trials at a time.

    On the Ray cluster that this process is connected to, else on a Ray of its own on this machine.
    Returns when nothing is left to do; the schedule tells what failed.

    Raises:
        KeyboardInterrupt: it was stopped before the end; what is tracked stays.
    """
    resources = experiment.resources
    common = {
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
        "data": {
            "root": str(experiment.data.root.absolute()),
            "download": experiment.data.download,
        },
    }
    stop = stopping.Stop(owner())
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(count)
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # see stopping
    os.environ.setdefault("OMP_NUM_THREADS", str(resources.cpus))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(resources.cpus))
    log = (store.folder or Path()) / "logs" / f"{experiment.name}.log"
    with tempfile.TemporaryDirectory(prefix="elth-ray-") as scratch, _errors_to(log):
        turns = None
        if ray.is_initialized():
            turns = Turns(owner(), yields=resources.workers == 1)
        else:
            # Workers of one job talk to each other without a password: on this machine only.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
            _start_ray(count * resources.workers * resources.cpus)
        stopping.like_ctrl_c()
        try:
            for number in itertools.count():
                search = PlanSearch(schedule, stop)
                watch = Stopping(stop, search, turns)
                _tune(resources, common, search, watch, f"{scratch}/tune-{number}")
                schedule.give_back_all()
                if turns is None or not stop.pauses or stop.asked or schedule.is_over:
                    break
                turns.wait(over=lambda: stop.asked)
                stop.resume()
            if turns is not None:
                turns.end()
        finally:
            ray.shutdown()
    if not schedule.is_over:  # Tune ends its loop on Ctrl-C and returns as if all were well
        raise KeyboardInterrupt


def _tune(
    resources: Resources,
    common: Mapping[str, Any],
    search: PlanSearch,
    stop: Stopping,
    place: str,
) -> None:
    """Run trials until nothing is left to start, or until they are to end."""
    tune.Tuner(
        _trainable(resources, common),
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=-1,
            # An idle process keeps its resources, which a job of several workers may need.
            reuse_actors=resources.workers == 1,
        ),
        run_config=tune.RunConfig(
            name="plan",
            storage_path=place,
            verbose=0,
            callbacks=[Forget(), stop],
            # Whatever died is begun again by the schedule, with pauses.
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


def _trainable(resources: Resources, common: Mapping[str, Any]) -> Any:
    kind: type[tune.Trainable] = JobTrial
    # "cpu" and "gpu" of each process; a launcher that held a part of a core would keep its own
    # workers from being placed, and Tune wants it to hold something: a byte.
    wanted: dict[str, float] = {"cpu": resources.cpus, "gpu": resources.gpus}
    if resources.workers > 1:
        from orchestrator.distributed import GroupTrial

        kind, wanted = GroupTrial, {"memory": 1}
    trial: Any = tune.with_parameters(kind, common=common, environment=passed())
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


def _start_ray(cpus: int) -> None:
    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=128 * 2**20,  # results travel through the store, not through Ray
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )
