"""The writing side of one MLflow run: epochs while it trains, files and state at its end."""

from __future__ import annotations

import contextlib
import json
import queue
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from elth import dynamic
from elth.errors import ElthError
from elth.measures import settings_of
from elth.networks import facts
from orchestrator.plan.outside import modules
from orchestrator.plan.stage import (
    ANALYSIS,
    LOOKS_AT,
    MEASURE,
    SPARSE,
    Stage,
    shape_of,
)
from orchestrator.store.away import AwayError, is_away, noted, plain
from orchestrator.store.describing import inputs_of, numbers_of, plain_inputs
from orchestrator.store.files import FILES
from orchestrator.store.leases import FINAL, Lease, LostError, is_dead, open_run
from orchestrator.store.marks import is_finished, standing
from orchestrator.store.pace import SHORTEST, Pace
from orchestrator.store.provenance import of_modules
from orchestrator.store.tracker import Tracker

if TYPE_CHECKING:
    from elth.masks import Mask
    from elth.tickets import Ticket
    from elth.training import Epoch
    from orchestrator.store.result import Result

AXES = ("network", "method", "source", "transform", "round", "seed", "dataset")
"""Labels that are parameters of every run, under the same names; what comes of an imported ticket
has that one's name besides, as ``ticket``."""

METRICS = ("test_accuracy", "test_loss", "train_loss", "lr")
"""What every epoch has."""
_SOME = ("repulsion", "exploration", "changed")
"""What epochs have beside: of one that is repelled, or whose mask changes."""

COST = "cost.json"
"""The file of a run that tells what its network, of code from outside, does for an image."""

_WAYS = ("weights", "finetune", "repel", "repel_from")

_FLUSH_SECONDS = SHORTEST
_BATCH = 1000


class RunLog:
    """The writing side of one run. Epochs go out from a thread, so that training never waits."""

    def __init__(self, tracker: Tracker, run_id: str, lease: Lease | None = None) -> None:
        self.client = tracker.client
        self.files = tracker.files
        self.run_id = run_id
        self.lease = lease
        """Without which nothing is published, if there is one."""
        self.texts: dict[str, str] = {}
        self.pictures: dict[str, bytes] = {}
        """Files for people beside its texts, as PNG."""
        self.earlier = 0.0
        """Seconds that earlier attempts spent on what this one went on from."""
        self.ended = 0
        """When the training ended, in milliseconds since 1970."""
        self._points: list[Metric] = []
        self._params: list[Param] = []
        self._numbers: list[Metric] = []
        self._of_ticket: dict[str, float] = {}
        self._inputs: list[DatasetInput] = []
        self._tags: list[RunTag] = []
        self._last_tags: list[RunTag] = []
        self._of_mask: dict[str, str] = {}
        self._metrics: queue.Queue[list[Metric] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._send, daemon=True, name="elth-log")
        self._failure: Exception | None = None
        self._began = time.monotonic()

    def params(self, values: Mapping[str, Any]) -> None:
        """Note parameters; a later value of the same name before ``start`` replaces it."""
        self._params = [p for p in self._params if p.key not in values]
        self._params += [Param(name, str(value)) for name, value in values.items()]

    def numbers(self, values: Mapping[str, float]) -> None:
        """Note numbers that are known before anything is trained; they are sent by ``start``."""
        self._of_ticket.update(values)

    def tags(self, values: Mapping[str, str]) -> None:
        """Note tags."""
        self._tags += [RunTag(name, value) for name, value in values.items()]

    def inputs(self, values: list[DatasetInput]) -> None:
        """Note datasets; they go out with the first epochs."""
        self._inputs = values

    def start(self) -> None:
        """Send parameters, as numbers too where they are, and tags, and begin to send epochs."""
        # This may be tried again: the points have one time, or there would be two of each.
        at = int(time.time() * 1000) if self.lease is None else self.lease.began
        numbers = numbers_of({param.key: param.value for param in self._params}) | self._of_ticket
        self._numbers = [Metric(name, value, at, 0) for name, value in numbers.items()]
        self.client.log_batch(
            self.run_id, metrics=self._numbers, params=self._params, tags=self._tags
        )
        self._thread.start()

    def epoch(self, epoch: Epoch, at: int | None = None) -> None:
        """Note the metrics of an epoch, with the time it ended in milliseconds since 1970 (now)."""
        at = int(time.time() * 1000) if at is None else at
        known = ((name, getattr(epoch, name)) for name in (*METRICS, *_SOME))
        points = [Metric(name, one, at, epoch.epoch) for name, one in known if one is not None]
        self._points += points
        self._metrics.put(points)

    def measured(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Note numbers that an analysis came to, as metrics; those of a round with its number."""
        at = int(time.time() * 1000)
        points = [Metric(name, value, at, step) for name, value in values.items()]
        self._points += points
        self._metrics.put(points)

    def mask(self, mask: Mask, *, at_end: Stage | None = None) -> None:
        """Note which mask it is, and what of each layer is left.

        Args:
            mask: of the ticket that is trained.
            at_end: the sparse training whose mask has become this one. It goes out with the rest of
                the result; densities of its layers are metrics then, and what it has cost.
        """
        from elth import masks

        told = {"elth.mask_sha256": masks.digest(mask)}
        if empty := masks.collapsed(mask):
            told["elth.collapsed"] = ", ".join(empty)
        sparsities = masks.layer_sparsity(mask)
        self.texts["layers.json"] = json.dumps(sparsities, indent=1)
        if at_end is None:
            self.tags(told)
            return
        self._of_mask = told
        densities = {f"density/{name}": 1 - zeros for name, zeros in sparsities.items()}
        self.measured(densities | _flops(at_end, mask))

    def finish(self, result: Result, *, keep_weights: bool) -> None:
        """Publish: files and metrics first, the state last.

        Raises:
            LostError: another attempt has taken the stage over; nothing is published.
            AwayError: the store does not answer.
            ElthError: the store did not take them.
        """
        self.ended = int(time.time() * 1000)
        seconds = self.earlier + time.monotonic() - self._began
        sums = {f"elth.{part}_sha256": digest for part, digest in result.digests.items()}
        last = {"elth.seconds": f"{seconds:.3f}", **sums, **self._of_mask}
        self._last_tags = [RunTag(name, value) for name, value in last.items()]
        with tempfile.TemporaryDirectory(prefix="elth-") as folder:
            self.write(result, Path(folder), keep_weights=keep_weights)
            try:
                self.files.add(self.run_id, Path(folder))
                self._drain()
                if self.lease is not None and self.lease.is_lost():
                    raise LostError(f"run {self.run_id} has lost its lease")
                self.client.set_terminated(self.run_id, "FINISHED", self.ended)
            except (MlflowException, OSError) as error:
                away = is_away(error)
                if self.lease is not None and not away:
                    try:
                        is_lost = self.lease.is_lost()
                    except MlflowException as second:  # it is away by now, or was at first
                        is_lost, away = False, is_away(second)
                    if is_lost:
                        raise LostError(f"run {self.run_id} has lost its lease") from error
                kind, why = AwayError if away else ElthError, plain(error)
                raise kind(f"cannot write the results of run {self.run_id}: {why}") from error

    def write(self, result: Result, folder: Path, *, keep_weights: bool) -> None:
        """Write the files of a finished run."""
        from orchestrator.store.result import told, write

        (folder / "result").mkdir(exist_ok=True)
        write(result, folder / "result", keep_weights=keep_weights)
        self._last_tags = [one for one in self._last_tags if one.key != FILES]
        self._last_tags.append(RunTag(FILES, told(folder / "result")))
        for name, text in self.texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name, picture in self.pictures.items():
            (folder / name).write_bytes(picture)

    def noted(self) -> dict[str, Any]:
        """All that was noted for the run, sent or not, as JSON values."""
        metrics = [*self._numbers, *self._points]
        points = [(p.key, p.value, p.timestamp, p.step) for p in metrics]
        return {
            "params": {p.key: p.value for p in self._params},
            "tags": {tag.key: tag.value for tag in [*self._tags, *self._last_tags]},
            "metrics": points,
            "inputs": plain_inputs(self._inputs),
        }

    def stop(self) -> None:
        """Send no more, without waiting."""
        self._metrics.put(None)

    def fail(self, reason: str, *, final: bool, details: str) -> None:
        """Close the run as failed; ``final`` when doing it again would fail again.

        One that is finished stays so, whoever has published it.
        """
        if is_finished(self.client.get_run(self.run_id)):
            return
        with contextlib.suppress(MlflowException, OSError):
            self.files.write(self.run_id, "traceback.txt", details.encode())
        self._last_tags = []
        with contextlib.suppress(MlflowException, OSError):
            self._drain()
        _fail(self.client, self.run_id, reason, final=final)

    def _drain(self) -> None:
        self._metrics.put(None)
        self._thread.join()
        if isinstance(self._failure, MlflowException | OSError):
            raise self._failure
        if self._failure is not None:
            raise MlflowException(str(self._failure)) from self._failure

    def _send(self) -> None:
        """Send what has gathered until None comes, as often as the server bears."""
        pace = Pace(_FLUSH_SECONDS)
        last, pause, waiting, open_ = 0.0, pace.pause(), [], True
        inputs = self._inputs
        while open_:
            try:
                item = self._metrics.get(timeout=_FLUSH_SECONDS)
                open_ = item is not None
                waiting += item or []
            except queue.Empty:
                pass
            due = not open_ or time.monotonic() - last >= pause
            tags = [] if open_ else self._last_tags
            if (waiting or tags or inputs) and due:
                began, spent = time.monotonic(), time.thread_time()
                # For people alone, and MLflow refuses them where two processes are the first to
                # name a dataset at once: no stage fails for them.
                with contextlib.suppress(Exception):
                    if inputs:
                        self.client.log_inputs(self.run_id, datasets=inputs)
                    inputs = []
                try:
                    for i in range(0, max(len(waiting), bool(tags)), _BATCH):
                        self._send_batch(waiting[i : i + _BATCH], tags)
                    waiting, self._failure = [], None
                    pace.answered(time.monotonic() - began, time.thread_time() - spent)
                except Exception as error:
                    self._failure = error
                    noted(error)
                    pace.failed()
                last, pause = time.monotonic(), pace.pause()

    def _send_batch(self, metrics: list[Metric], tags: list[RunTag]) -> None:
        """Send some metrics, and with them that the holder of the lease lives."""
        lease = self.lease if self.lease is not None and self.lease.is_due else None
        signs = [] if lease is None else lease.sign()
        self.client.log_batch(self.run_id, metrics=metrics, tags=[*tags, *signs])
        if lease is not None:
            lease.has_told()


def _fail(client: MlflowClient, run_id: str, reason: str, *, final: bool) -> None:
    client.set_tag(run_id, "elth.reason", reason[:500])
    client.set_tag(run_id, FINAL, str(final).lower())
    client.set_terminated(run_id, "FAILED")


def _flops(stage: Stage, mask: Mask | None) -> dict[str, float]:
    """What its training costs; for people alone, so no stage fails where it cannot be counted."""
    from orchestrator.store.counting import flops_of  # its masks are torch's

    with contextlib.suppress(ElthError):
        return flops_of(stage, mask)
    return {}


def _way(stage: Stage) -> dict[str, Any]:
    """What a stage has of its own: a round that is not rewound as usual, a twin, an analysis."""
    if stage.kind == ANALYSIS:
        settings = settings_of(stage.params["measure"], stage.params.get("settings", {}))
        own = {name: stage.labels[name] for name in (MEASURE, LOOKS_AT)}
        return own | {f"{MEASURE}.{name}": value for name, value in vars(settings).items()}
    found = {f"pruning.{name}": stage.params[name] for name in _WAYS if name in stage.params}
    noise = stage.params.get("noise", {})
    found |= {"pruning.noise": "round"} if "round" in noise else {}
    if stage.kind == SPARSE:
        settings = dynamic.defaults(stage.params["method"]) | stage.params.get("settings", {})
        name = stage.params["method"]
        found |= {f"criteria.{name}.{key}": value for key, value in settings.items()}
        found |= {f"criteria.{name}.at": "rewind" if stage.parents else "init"}
    return found | ({"noise": noise["copy"]} if "copy" in noise else {})


def fail_at_once(tracker: Tracker, run_id: str, *, reason: str, details: str) -> None:
    """Close a run as failed that no ``RunLog`` writes to; the next ``elth run`` does it again.

    Args:
        tracker: of the store.
        run_id: the run.
        reason: why it has failed.
        details: the traceback, or the last lines of a log.
    """
    if is_finished(tracker.client.get_run(run_id)):
        return
    with contextlib.suppress(MlflowException, OSError):
        tracker.files.write(run_id, "traceback.txt", details.encode())
    _fail(tracker.client, run_id, reason, final=False)


def fail_for_the_dead(
    tracker: Tracker, stage: Stage, *, grid: str, driver: str, reason: str, details: str
) -> None:
    """Close the run of a stage as failed, in the place of a process that has died.

    The next ``elth run`` does the stage again. What another driver has done, or is at, stays, and
    so does what a process of this driver could still write of its failure.

    Args:
        tracker: of the store.
        stage: the stage; a run is made for it if its process had not come so far.
        grid: for which grid.
        driver: whose process it was.
        reason: why it has died.
        details: the last lines of its log.
    """
    runs = tracker.runs_of(stage.key)
    dead = [run.info.run_id for run in runs if is_dead(run, driver)]
    if standing(runs) is not None:
        return
    for run in runs:
        others = run.info.status == "RUNNING" and run.info.run_id not in dead
        told = run.info.status == "FAILED" and run.data.tags.get("elth.owner") == driver
        if others or (told and not dead):
            return
    run_id = dead[-1] if dead else open_run(tracker, stage, grid=grid, driver=driver)
    for run in runs:
        earlier = run.info.run_id in dead or run.info.status == "FAILED"
        if earlier and run.info.run_id != run_id:
            tracker.client.delete_run(run.info.run_id)
    fail_at_once(tracker, run_id, reason=reason, details=details)


def begin_run(
    tracker: Tracker,
    stage: Stage,
    ticket: Ticket | None,
    *,
    grid: str,
    experiment: str,
    driver: str,
    numerics: str,
    lease: Lease | None = None,
) -> RunLog:
    """Start the run of a stage: that of a lease (``leases.claim``), or a new one.

    Without a lease, runs of the same stage that died before are removed. A stage that is given is
    of no experiment and no numerics class: both are empty then.
    """
    if lease is None:
        for run in tracker.runs_of(stage.key):
            if run.info.status == "FAILED" or is_dead(run, driver):
                tracker.client.delete_run(run.info.run_id)
        run_id = open_run(tracker, stage, grid=grid, driver=driver)
    else:
        run_id = lease.run_id
    log = RunLog(tracker, run_id, lease)
    log.tags({**({"elth.numerics": numerics} if numerics else {}), **of_modules(modules(stage))})
    axes = {name: stage.labels.get(name, "") for name in AXES}
    axes |= {name: stage.labels[name] for name in ("ticket",) if name in stage.labels}
    log.params({"kind": stage.kind, **{n: "-" if v == "" else v for n, v in axes.items()}})
    if ticket is not None:
        from elth import masks

        total, is_sparse = masks.total(ticket.mask), stage.kind == SPARSE
        kept = stage.params["keep"] if is_sparse else ticket.nonzeros  # at the end
        log.params(
            {"sparsity": f"{100 * (1 - kept / total):.2f}", "nonzeros": kept, "prunable": total}
        )
        if not is_sparse:  # whose mask is not known before its end
            log.mask(ticket.mask)
    log.inputs(inputs_of(stage))
    log.params(_way(stage))
    if not stage.is_given:
        if stage.kind != ANALYSIS:
            log.params({f"recipe.{k}": v for k, v in stage.recipe.full().items()})
            if stage.kind != SPARSE:
                log.numbers(_flops(stage, None if ticket is None else ticket.mask))
        log.texts["experiment.yaml"] = experiment
        if "network_version" in stage.params and stage.kind != ANALYSIS:
            cost = facts(stage.params["network"], shape_of(stage)).cost
            log.texts[COST] = json.dumps(cost.plain(), indent=1)
    log.start()
    return log
