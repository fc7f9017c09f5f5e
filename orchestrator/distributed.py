"""Jobs of several workers: a trial of Tune that launches them by Ray Train.

The trial itself asks for no resources; a group of workers does the stages of its job one after the
other. The first worker deals with the store and tells how far it is through a queue, as each
report through Ray Train would wait for all workers.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray import train, tune
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch import get_device as get_train_device
from ray.util.queue import Empty, Queue

from elth.parallel import Group
from orchestrator import storage
from orchestrator.passing import Passed
from orchestrator.plan import Stage
from orchestrator.runner import REPORT_SECONDS, WORKER, Report, follow, run_job

_DEATHS = 3
"""How often a group is started anew after one of its processes died."""
_SIGN_SECONDS = 10.0
"""Time between two signs of life of a group."""
_SECONDS_ALONE = 4 * 3600
"""How long the others wait for the first worker, which may compute a criterion alone."""


def work(config: dict[str, Any]) -> None:
    """What each worker of a group does."""
    config["environment"].apply()
    reports = config["reports"]
    device = get_train_device() if config["gpus"] else torch.device("cpu")
    group = Group(dist.get_rank(), dist.get_world_size(), device)
    if group.rank:
        follow(config, WORKER, group)
        return
    over = threading.Event()
    threading.Thread(target=_live, args=(reports, over), daemon=True, name="elth-live").start()
    try:
        for report in run_job(config, WORKER, group):
            reports.put(astuple(report))
    finally:
        over.set()


def _live(reports: Queue, over: threading.Event) -> None:
    """Tell now and then that the group is there, which its launcher knows from nothing else."""
    while not over.is_set():
        try:
            reports.put(())
        except ray.exceptions.RayError:  # the launcher has ended
            return
        over.wait(_SIGN_SECONDS)


def fit(config: Mapping[str, Any], reports: Queue, environment: Passed) -> None:
    """Start a group for a job and wait until it is done.

    Raises:
        Exception: Ray Train's, if the group died too often.
    """
    key = Stage.of(config["stages"][-1]).key
    # Ray Train wants a place that all nodes see, and keeps nothing there that counts.
    place = f"{config['inflight']}-train"
    TorchTrainer(
        work,
        train_loop_config={**config, "reports": reports, "environment": environment},
        torch_config=TorchConfig(
            backend="nccl" if config["gpus"] else "gloo", timeout_s=_SECONDS_ALONE
        ),
        scaling_config=train.ScalingConfig(
            num_workers=config["workers"],
            use_gpu=config["gpus"] > 0,
            resources_per_worker={"CPU": config["cpus"], "GPU": config["gpus"]},
            placement_strategy=config["placement"].upper(),
        ),
        run_config=train.RunConfig(
            name=key,
            storage_path=place,
            failure_config=train.FailureConfig(max_failures=_DEATHS),
        ),
    ).fit()
    storage.of(place).clear(key)


class GroupTrial(tune.Trainable):
    """A trial of Tune: one job, done by several workers."""

    def setup(
        self,
        config: dict[str, Any],
        common: Mapping[str, Any] | None = None,
        environment: Passed | None = None,
    ) -> None:
        """Launch the group, for a job of which ``config`` tells what is its own."""
        environment = environment or Passed()
        environment.apply()
        config = {**(common or {}), **config}
        self._reports = Queue(actor_options={"num_cpus": 0})
        self._error: Exception | None = None
        self._last = Report(index=0)
        self._sign = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(config, environment), daemon=True)
        self._thread.start()

    def _run(self, config: Mapping[str, Any], environment: Passed) -> None:
        try:
            fit(config, self._reports, environment)
        except Exception as error:
            self._error = error

    def step(self) -> dict[str, Any]:
        """Tell what the group has reported within about a second."""
        report, over = self._next()
        if over and self._error is not None and not self._last.failed:
            text = str(self._error).strip() or type(self._error).__name__
            report = Report(index=self._last.index, failed=text.splitlines()[-1])
        if report is not None:
            self._last = report
        done = over or (report is not None and (bool(report.failed) or report.stopped))
        silent = time.monotonic() - self._sign
        return {
            "report": astuple(report) if report else None,
            "waits": silent if silent > 3 * _SIGN_SECONDS else 0.0,
            "done": done,
        }

    def _next(self) -> tuple[Report | None, bool]:
        """The latest report that matters by itself, and whether nothing follows."""
        began, latest = time.monotonic(), None
        while time.monotonic() - began < REPORT_SECONDS:
            over = not self._thread.is_alive()
            try:
                item = self._reports.get(block=not over, timeout=0.2)
            except Empty:
                if over:
                    return latest, True
                continue
            self._sign = time.monotonic()
            if not item:
                continue
            latest = Report(*item)
            if latest.failed or latest.stopped or latest.note or latest.fraction == 0:
                break
        return latest, False

    def cleanup(self) -> None:
        """Wait for the group's end, if it comes by itself."""
        if not self._last.stopped:
            self._thread.join(timeout=30)
        with contextlib.suppress(ray.exceptions.RayError):
            self._reports.shutdown()
