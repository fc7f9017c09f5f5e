"""What a worker process does: the stages of a job one after the other, each tracked as it ends."""

from __future__ import annotations

import contextlib
import functools
import gc
import re
import socket
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from elth import data, devices
from elth.data import Dataset
from elth.engine import Engine
from elth.errors import ElthError
from elth.parallel import Group
from elth.repulsion import Repulsion
from elth.tickets import Ticket, state_digest
from elth.training import Epoch, NonFiniteLossError, Training
from orchestrator.experiment.pruning import Stop
from orchestrator.plan import outside
from orchestrator.plan.ending import is_round, link_of, verdict
from orchestrator.plan.imported import how_to_import
from orchestrator.plan.stage import (
    ANALYSIS,
    SPARSE,
    Stage,
    check_same_dataset,
    dataset_of,
    iterations,
)
from orchestrator.store import redo
from orchestrator.store.address import Store
from orchestrator.store.away import AwayError, is_away, patiently, plain, waiting
from orchestrator.store.damage import AbsentError, DamagedError
from orchestrator.store.inflight import InFlight, Stopped
from orchestrator.store.leases import Held, Lease, LostError, claim
from orchestrator.store.listing import tracked
from orchestrator.store.outbox import deliver
from orchestrator.store.partial import Partial
from orchestrator.store.result import Result, State
from orchestrator.store.runlog import RunLog, begin_run, fail_at_once
from orchestrator.store.tracker import Tracker
from orchestrator.work import stopping, training
from orchestrator.work.deaths import MORE_MEMORY, LostGpuError
from orchestrator.work.job import JobSettings
from orchestrator.work.resources import compiles, numerics
from orchestrator.work.telling import Report
from orchestrator.work.tickets import Load, repulsion_of, ticket_of

T = TypeVar("T")

_NO_MEMORY = re.compile(r"can't allocate memory|[Cc]annot allocate memory|not enough memory")
"""What PyTorch and the system say where a processor's memory is not enough."""

_LONGEST = 1000
"""Letters of a reason; code from outside may say any number."""

_KEPT_RESULTS = 8
_KEPT_BYTES = 256 * 2**20


@dataclass
class Worker:
    """What a worker process keeps from job to job; all of it is keyed, none of it is state."""

    trackers: dict[str, Tracker] = field(default_factory=dict)
    datasets: dict[tuple[str, ...], Dataset] = field(default_factory=dict)
    engines: training.Engines = field(default_factory=training.Engines)
    results: dict[str, tuple[Stage, Result]] = field(default_factory=dict)
    generation: str = ""
    """Of the store, when the results were read."""

    def tracker(self, store: str) -> Tracker:
        """The tracker of a store."""
        if store not in self.trackers:
            self.trackers[store] = Tracker(Store.of(store))
        return self.trackers[store]

    def dataset(
        self, stage: Stage, place: Mapping[str, Any], device: str | torch.device
    ) -> Dataset:
        """The dataset of a stage on a device, read and checked once.

        Args:
            stage: its key holds what the dataset was when the plan was made.
            place: its root, and whether to get it.
            device: where its batches are to be.

        Raises:
            ElthError: it cannot be had, or is another than it was when the plan was made.
        """
        name = dataset_of(stage)
        key, planned = (name, place["root"], str(device)), stage.params["dataset"]
        kept = self.datasets.get(key)
        if kept is not None and kept.info.identity() == planned:
            return kept
        read = data.load(name, place["root"], download=place["download"])
        again = "put back what was there, or give the command again, which plans with what is there"
        check_same_dataset(stage, read.info.identity(), f"{again} now")
        self.datasets[key] = read.to(device)
        return self.datasets[key]

    def load(self, tracker: Tracker, key: str) -> tuple[Stage, Result]:
        """A finished stage, from memory if this process made or read it lately."""
        if key not in self.results:
            self.keep(key, tracker.load(key, partial=True))
        return self.results[key]

    def refresh(self, tracker: Tracker) -> None:
        """Forget what was read if a result of the store has been replaced since."""
        now = redo.generation(tracker)
        if now != self.generation:
            self.results.clear()
        self.generation = now

    def keep(self, key: str, result: tuple[Stage, Result]) -> None:
        """Remember a result; of the oldest a few are forgotten once all are large."""
        self.results.pop(key, None)
        self.results[key] = result
        size = sum(one.nbytes for _, one in self.results.values())
        while len(self.results) > _KEPT_RESULTS and size > _KEPT_BYTES:
            _, oldest = self.results.pop(next(iter(self.results)))
            size -= oldest.nbytes

    def spare(self) -> None:
        """Let go of all that takes memory of a GPU; what is needed of it is made again."""
        self.engines.forget()
        self.datasets.clear()
        gc.collect()
        torch.cuda.empty_cache()


WORKER = Worker()


class GroupError(RuntimeError):
    """One of several workers failed where the others go on: all of them have to end."""


def prepare_process(config: JobSettings) -> None:
    """Set what holds for all of a process.

    Raises:
        ElthError: a module from outside is not here, or is another than the driver's.
    """
    torch.set_num_threads(config["threads"])
    try:
        outside.take(config["outside"])
    except ElthError as error:
        raise ElthError(f"node {socket.gethostname()}: {error}") from error
    if 0 < config["gpus"] < 1:  # of the memory, too, a trial takes its share and no more
        torch.cuda.set_per_process_memory_fraction(config["gpus"])


def run_job(
    config: JobSettings, worker: Worker = WORKER, group: Group | None = None
) -> Iterator[Report]:
    """Do the stages of a job one after the other; each is tracked before the next begins.

    A stage that is finished in the store is passed over, so a job may be given again after any end.

    Args:
        config: the settings of the job.
        worker: what the process keeps.
        group: the workers that do the job together, where this is the first of several; the others
            ``follow`` it.

    Raises:
        LostGpuError: the GPU answers this process no longer, which has to end.
    """
    try:
        with _ending():
            prepare_process(config)
    except ElthError as error:
        yield Report(index=0, failed=str(error))
        return
    for index, description in enumerate(config["stages"]):
        try:
            last, accuracy = False, None
            with _ending():
                for report in _next(Stage.of(description), index == 0, config, worker, group):
                    yield replace(report, index=index + report.index)
                    last = report.is_last
                    accuracy = accuracy if report.accuracy is None else report.accuracy
            if last:
                break
        except (GroupError, LostGpuError):
            raise
        except Stopped as stop:  # the others of a group end with the run
            yield Report(index=index, stopped=True, note=str(stop))
            return
        except Exception as error:
            reason, again = _again(error, config, worker)
            yield Report(index=index, failed=reason, redo=again)
            break
        yield Report(index=index + 1, ended_at=accuracy)
    if group is not None:
        _share(group, None)


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """Have the process end by an error after which its GPU fails whatever it does next."""
    try:
        yield
    except GroupError:
        raise
    except Exception as error:
        if said := devices.lost(error):
            raise LostGpuError(said) from None
        raise


def _again(error: Exception, config: JobSettings, worker: Worker) -> tuple[str, str]:
    """Why a stage could not be done, and the key of the one that is to be done again for it."""
    if isinstance(error, DamagedError):
        return _reason(error), error.key
    if not isinstance(error, AbsentError):
        return _reason(error), ""
    tracker, key = worker.tracker(config["store"]), error.key
    try:
        lacks = error.lacks_weights
        patiently(lambda: redo.mark_lacking(tracker, key, weights=lacks), tracker.store)
    except (ElthError, MlflowException) as second:  # most files are not there: that is to be told
        return _reason(second), ""
    return _reason(error), key


def _share(group: Group, value: Any) -> None:
    try:
        group.share(value)
    except RuntimeError as error:  # PyTorch's, when another worker has died
        raise GroupError(_reason(error)) from error


def follow(config: JobSettings, worker: Worker, group: Group) -> None:
    """Do with the first worker of a group what it does; it alone deals with the store.

    Of each stage the engine is made first, and may be all that is asked for.
    """
    prepare_process(config)
    engine = None
    while (task := group.share()) is not None:
        description, given = task
        stage = Stage.of(description)
        dataset = worker.dataset(stage, config["data"], group.device)
        if given is None or engine is None:
            engine = _engine(stage, dataset, config, worker, group)
            continue
        ticket, repulsion, saved = given
        with contextlib.suppress(NonFiniteLossError):
            for _ in training.train(
                stage,
                ticket,
                dataset,
                engine,
                repulsion=repulsion,
                saved=saved,
                at_check=lambda _: group.meet(),
            ):
                pass


def _next(
    stage: Stage, is_first: bool, config: JobSettings, worker: Worker, group: Group | None
) -> Iterator[Report]:
    """Do the next stage of a job, unless its chain has ended; tells so if it ends with this one."""
    before = link_of(stage).after
    if is_first and before:  # of the others it was asked as they were finished
        why = yield from _told(_why_last(before, config, worker))
        if why:
            yield Report(index=0, last=before, because=why)
            return
    for report in _do(stage, config, worker, group):
        yield report
        if report.is_last:
            return
    if is_round(stage):
        why = yield from _told(_why_last(stage.key, config, worker))
        if why:
            yield Report(index=1, last=stage.key, because=why)


def _why_last(key: str, config: JobSettings, worker: Worker) -> Generator[str, None, str]:
    """Why a finished round is the last of its chain, by what the store holds; yields notes."""
    if config["ending"] is None:
        return ""
    stop = Stop.model_validate(config["ending"])
    tracker = yield from _tracker(config, worker)
    run = yield from waiting(lambda: tracker.run_of(key), tracker.store)
    return "" if run is None else verdict(stop, tracked(run))


def _tracker(config: JobSettings, worker: Worker) -> Generator[str, None, Tracker]:
    """The tracker of the store, once that answers; yields notes, in which no password is."""
    place = config["store"]
    return (yield from waiting(lambda: worker.tracker(place), Store.of(place)))


def _do(stage: Stage, config: JobSettings, worker: Worker, group: Group | None) -> Iterator[Report]:
    """Do a stage, unless it is finished or another driver is at it; tells how far it is.

    One for which a GPU has too little memory is tried once more, with nothing else of this process
    there. Of a group all processes begin anew for that.
    """
    grid = config["grid"]
    tracker = yield from _told(_tracker(config, worker))
    store = tracker.store
    ask = functools.partial(
        claim,
        tracker,
        stage,
        grid=grid,
        driver=config["driver"],
        watched=config.get("watched"),
        with_failed=True,
    )
    short, spared = "", group is not None
    while True:
        if short:  # not before the error is gone, which holds what was made
            worker.spare()
            yield Report(index=0, note=short)
            short, spared = "", True
        claimed = yield from _told(waiting(functools.partial(ask, since=time.monotonic()), store))
        yield from _notes(tracker.notes)
        if isinstance(claimed, Held):
            yield Report(index=0, held=claimed.token, note=claimed.note)
            return
        if isinstance(claimed, Run):  # another grid's or another driver's, done meanwhile
            join = functools.partial(tracker.grids.join, [claimed.info.run_id], grid)
            patiently(join, store)
            if claimed.info.status == "FAILED":  # of the attempt that this driver waited for
                yield Report(index=0, failed=claimed.data.tags.get("elth.reason", "it has failed"))
                return
            InFlight(config["inflight"], stage.key, "", 0).clear()
            yield from _settled(tracker, stage, grid)
            return
        try:
            do = _analyse if stage.kind == ANALYSIS else _run_stage
            yield from do(stage, config, worker, tracker, group, claimed)
            if claimed.is_again:
                yield from _settled(tracker, stage, grid)
            return
        except (LostError, MlflowException) as error:  # another driver was quicker: look again
            if isinstance(error, MlflowException) and (is_away(error) or not claimed.is_lost()):
                raise
            claimed.give_up(lost=True)
            if patiently(claimed.is_superseded, store):  # to begin it again would take it back
                yield Report(index=0, stopped=True)
                return
        except Exception as error:
            if spared or not devices.ran_out(error):
                raise
            alone = "with nothing else of its process on the GPU"
            short = f"{stage.title} is tried once more, {alone}: {_reason(error)}"
        finally:
            claimed.end()


def _settled(tracker: Tracker, stage: Stage, grid: str) -> Iterator[Report]:
    """Let a stage take the place of its run of before, and tell what is to be done again for it."""
    outcome = patiently(lambda: redo.settle(tracker, stage, grid), tracker.store)
    if outcome.note or outcome.again:
        yield Report(index=0, note=outcome.note, again=outcome.again)


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
    config: JobSettings,
    worker: Worker,
    tracker: Tracker,
    group: Group | None,
    lease: Lease,
) -> Iterator[Report]:
    """Do the stage of a lease; tells how far it is."""
    with _beginning(stage, lease, tracker):
        dataset, ticket, repulsion, engine = _prepare(stage, config, worker, tracker, group)
    if engine.note:
        yield Report(index=0, note=engine.note)
    threads, gpus, workers = config["threads"], config["gpus"], config["workers"]
    kind = numerics(threads, gpus, engine.way, workers, config.get("device", ""))
    inflight = InFlight(
        config["inflight"],
        stage.key,
        kind,
        60 * config["checkpoint_minutes"],
        begins="" if ticket is None else state_digest(_whole(ticket, repulsion)),
        stop=stopping.watch(config["stop"]),
    )
    saved = inflight.newest()
    yield from _notes(inflight.notes)
    log = _begun(stage, ticket, config, tracker, inflight.numerics, lease)
    log.earlier = inflight.earlier
    for epoch, at in inflight.history:
        log.epoch(epoch, at)
    start, stop = iterations(stage)
    keep = stage.kind == "round" or stage.key in config["keep"]
    if group is not None:
        _share(group, (stage.describe(), (ticket, repulsion, saved)))

    def at_check(at: Training) -> None:
        inflight.save_if_due(at)
        if group is not None:  # the others wait for what was written, and for the store
            group.meet()

    with _closing(log, tracker, group):
        epochs = training.train(
            stage,
            ticket,
            dataset,
            engine,
            repulsion=repulsion,
            saved=saved,
            at_check=at_check,
        )
        result = yield from _logged(epochs, log, inflight, start, stop)
        if stage.kind == SPARSE and result.mask is not None:
            log.mask(result.mask, at_end=stage)
        outbox = Path(config["outbox"])
        notes = deliver(tracker, log, stage.key, result, outbox, keep_weights=keep)
        yield from _told(notes)
    inflight.clear()
    worker.keep(stage.key, (stage, result))


def _begun(
    stage: Stage,
    ticket: Ticket | None,
    config: JobSettings,
    tracker: Tracker,
    kind: str,
    lease: Lease,
) -> RunLog:
    """The run of a lease, begun in a numerics class."""

    def begin() -> RunLog:
        return begin_run(
            tracker,
            stage,
            ticket,
            grid=config["grid"],
            experiment=config["experiment"],
            driver=config["driver"],
            numerics=kind,
            lease=lease,
        )

    return patiently(begin, tracker.store)


def _made(worker: Worker, tracker: Tracker, make: Callable[[Load], T]) -> T:
    """What is made of finished stages, which are read as they are now.

    Args:
        worker: what this process keeps.
        tracker: of the store.
        make: makes it, by what gives finished stages.
    """

    def load(key: str) -> tuple[Stage, Result]:
        return patiently(lambda: worker.load(tracker, key), tracker.store)

    patiently(lambda: worker.refresh(tracker), tracker.store)
    try:
        return make(load)
    except AbsentError as error:
        if worker.results.pop(error.key, None) is None:
            raise
        return make(load)  # it may have been done again since it was read here


_PASSES = (
    *(AbsentError, DamagedError, AwayError, MlflowException, LostError),
    *(GroupError, LostGpuError, Stopped),
)
"""What is no fault of the stage that meets it."""


@contextlib.contextmanager
def _beginning(stage: Stage, lease: Lease, tracker: Tracker) -> Iterator[None]:
    """Close the run of a stage that cannot be begun: as failed, with the traceback.

    Nothing is left of it where it is to be tried again: the store is away, a parent is to be done
    again, another process has died, or there was too little memory. Nor of what is given, which
    waits for its import.
    """
    try:
        yield
    except Exception as error:
        is_of_another = stage.is_given or isinstance(error, _PASSES)
        if is_of_another or devices.ran_out(error) or devices.lost(error):
            lease.give_up()
            raise
        reason, details = _reason(error), traceback.format_exc()
        with contextlib.suppress(AwayError, MlflowException):
            patiently(
                lambda: fail_at_once(tracker, lease.run_id, reason=reason, details=details),
                tracker.store,
            )
        raise


@contextlib.contextmanager
def _closing(log: RunLog, tracker: Tracker, group: Group | None) -> Iterator[None]:
    """Close the run of a stage that is not brought to its end, as is due."""
    try:
        yield
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


def _analyse(
    stage: Stage,
    config: JobSettings,
    worker: Worker,
    tracker: Tracker,
    group: Group | None,
    lease: Lease,
) -> Iterator[Report]:
    """Do the analysis of a lease, in this process alone; tells how far it is."""
    from orchestrator.work import analysing

    dataset = None
    with _beginning(stage, lease, tracker):
        if analysing.needs_data(stage):
            device = "cuda" if config["gpus"] else "cpu"
            place = group.device if group else device
            dataset = worker.dataset(stage, config["data"], place)
        looks = _made(worker, tracker, lambda load: analysing.looks_of(stage, load))
    kind = numerics(config["threads"], config["gpus"], "eager", 1)
    partial = Partial(
        config["inflight"],
        stage.key,
        kind,
        60 * config["checkpoint_minutes"],
        begins=analysing.digest_of(looks),
        stop=stopping.watch(config["stop"]),
    )
    saved = partial.newest()
    yield from _notes(partial.notes)
    log = _begun(stage, None, config, tracker, partial.numerics, lease)
    log.earlier = partial.earlier
    with _closing(log, tracker, None):
        steps = analysing.measured(stage, looks, dataset, saved)
        while True:
            try:
                fraction, so_far = next(steps)
            except StopIteration as end:
                result = Result(measured=end.value)
                break
            if lease.seems_lost and lease.is_lost():
                raise LostError(f"run {log.run_id} has lost its lease")
            partial.save_if_due(so_far)
            yield from _notes(partial.notes)
            yield Report(index=0, fraction=fraction)
        log.measured(analysing.numbers_of(stage, result))
        for step, values in analysing.numbers_by_round(stage, result, looks):
            log.measured(values, step=step)
        try:
            log.pictures |= analysing.picture_of(stage, result, looks)
        except Exception as error:  # what was measured is worth more than its picture
            yield Report(index=0, note=f"no picture of {stage.title}: {_reason(error)}")
        outbox = Path(config["outbox"])
        yield from _told(deliver(tracker, log, stage.key, result, outbox, keep_weights=False))
    partial.clear()


def _whole(ticket: Ticket, repulsion: Repulsion | None) -> State:
    """All that a training begins with, masks and optima under names that no weight has."""
    found = ticket.rewind | {f"mask of {name}": mask for name, mask in ticket.mask.items()}
    for number, optimum in enumerate(repulsion.optima if repulsion is not None else ()):
        found |= {f"optimum {number}, {name}": tensor for name, tensor in optimum.items()}
    return found


def _prepare(
    stage: Stage,
    config: JobSettings,
    worker: Worker,
    tracker: Tracker,
    group: Group | None,
) -> tuple[Dataset, Ticket | None, Repulsion | None, Engine]:
    """What a stage trains, on what and with what; an engine of several workers they make at once.

    Raises:
        ElthError: a person has to bring it, or its dataset or its ticket cannot be had.
        GroupError: this one of several workers cannot make an engine.
    """
    if stage.is_given:  # what was there when the driver began is set aside
        raise ElthError(f"{stage.title} has to be imported again: {how_to_import(stage)}")
    device = "cuda" if config["gpus"] else "cpu"
    dataset = worker.dataset(stage, config["data"], group.device if group else device)
    ticket, repulsion = None, None
    if stage.kind != "rewind_point":
        ticket, repulsion = _made(
            worker,
            tracker,
            lambda load: (ticket_of(stage, load, data=dataset), repulsion_of(stage, load)),
        )
    if group is None:
        return dataset, ticket, repulsion, _engine(stage, dataset, config, worker, None)
    _share(group, (stage.describe(), None))
    try:
        engine = _engine(stage, dataset, config, worker, group)
    except Exception as error:  # the others may be waiting for this one
        raise GroupError(_reason(error)) from error
    return dataset, ticket, repulsion, engine


def _engine(
    stage: Stage, data: Dataset, config: JobSettings, worker: Worker, group: Group | None
) -> Engine:
    """The engine of a stage, compiled or not; several workers decide alike."""
    compile = compiles(stage, config["compile"], "cuda" if config["gpus"] else "cpu")
    return worker.engines.get(stage, data, compile=compile, group=group)


def _logged(
    epochs: Generator[Epoch, None, Result],
    log: RunLog,
    inflight: InFlight,
    start: int,
    stop: int,
) -> Generator[Report, None, Result]:
    while True:
        try:
            epoch = next(epochs)
        except StopIteration as end:
            result: Result = end.value
            return result
        if log.lease is not None and log.lease.seems_lost and log.lease.is_lost():
            raise LostError(f"run {log.run_id} has lost its lease")
        at = int(time.time() * 1000)
        inflight.history.append((epoch, at))
        log.epoch(epoch, at)
        yield from _notes(inflight.notes)
        fraction = (epoch.step - start) / (stop - start)
        yield Report(index=0, fraction=fraction, accuracy=epoch.test_accuracy)


def _notes(notes: list[str]) -> Iterator[Report]:
    """Tell what a person should know once."""
    for note in notes:
        yield Report(index=0, note=note)
    notes.clear()


def _reason(error: Exception) -> str:
    text = plain(error)
    lacks = isinstance(error, MemoryError) or devices.ran_out(error)
    if lacks or _NO_MEMORY.search(text):
        return f"memory ran out ({text.splitlines()[0]}): {MORE_MEMORY}"
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} ... (the whole is in traceback.txt of its run)"
    if isinstance(error, ElthError | NonFiniteLossError | MlflowException | OSError):
        return text
    return f"{type(error).__name__}: {text}"
