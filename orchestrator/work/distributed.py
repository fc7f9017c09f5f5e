"""Jobs of several workers, which a trial launches by Ray Train.

The trial itself asks for no resources; a group of workers does the stages of its job one after the
other. The first worker deals with the store and tells how far it is through a queue, as each
report through Ray Train would wait for all workers.
"""

from __future__ import annotations

import threading
from dataclasses import astuple
from typing import Any, cast

import ray
import torch
from ray import train
from ray.train import get_context
from ray.train.torch import TorchTrainer
from ray.train.torch import get_device as get_train_device
from ray.util.queue import Queue

from elth import arithmetic
from elth.parallel import Group
from orchestrator.plan.stage import Stage
from orchestrator.store import storage
from orchestrator.work.job import JobSettings
from orchestrator.work.passing import Passed
from orchestrator.work.rendezvous import Rendezvous, group_on
from orchestrator.work.telling import SIGN_SECONDS
from orchestrator.work.worker import WORKER, follow, run_job

_SECONDS_ALONE = 4 * 3600
"""How long the others wait for the first worker, which may compute a criterion alone."""
_SECONDS_OF_SUM = 600
"""How long a sum over GPUs may take: where the network breaks, all of them would spin."""
_NAME_BYTES = 128
"""Of a GPU's name, as all workers send as much."""


class GroupSettings(JobSettings):
    """The settings of a job, as each worker of a group has them."""

    reports: Queue
    """Where the first worker tells what it does."""
    environment: Passed
    """What goes along of the driver's environment."""


def work(given: dict[str, Any]) -> None:
    """What each worker of a group does, by ``GroupSettings``."""
    config = cast("GroupSettings", given)
    config["environment"].apply()
    reports = config["reports"]
    over = threading.Event()
    if get_context().get_world_rank() == 0:  # before they have met, which takes minutes for many
        threading.Thread(target=_live, args=(reports, over), daemon=True, name="elth-live").start()
    try:
        device = get_train_device() if config["gpus"] else torch.device("cpu")
        group = group_on(device, _SECONDS_ALONE)
        if config["gpus"]:
            config = {**config, "device": gpus_of(group)}
        if group.rank:
            follow(config, WORKER, group)
            return
        for report in run_job(config, WORKER, group):
            reports.put(astuple(report))
    finally:
        over.set()


def gpus_of(group: Group) -> str:
    """What the GPUs of a group are called, each name once; a numerics class has all of them."""
    own = arithmetic.gpu(group.device).encode()[:_NAME_BYTES]
    told = group.gather(own.ljust(_NAME_BYTES, b"\0"))
    return "+".join(sorted({one.rstrip(b"\0").decode(errors="replace") for one in told}))


def _live(reports: Queue, over: threading.Event) -> None:
    """Tell now and then that the group is there, which its launcher knows from nothing else."""
    while not over.is_set():
        try:
            reports.put(())
        except ray.exceptions.RayError:  # the launcher has ended
            return
        over.wait(SIGN_SECONDS)


def fit(config: JobSettings, reports: Queue, environment: Passed) -> None:
    """Start a group for a job and wait until it is done.

    A group of which a process dies ends as a whole. It is the schedule that begins its job again,
    as it knows of each stage how far that was, and Ray Train only of the whole job.

    Raises:
        Exception: Ray Train's, if a process of the group died.
    """
    key = Stage.of(config["stages"][-1]).key
    backend, seconds = ("nccl", _SECONDS_OF_SUM) if config["gpus"] else ("gloo", _SECONDS_ALONE)
    # Ray Train wants a place that all nodes see, and keeps nothing there that counts.
    place = f"{config['inflight']}-train"
    TorchTrainer(
        work,
        train_loop_config={**config, "reports": reports, "environment": environment},
        torch_config=Rendezvous(backend=backend, timeout_s=seconds),
        scaling_config=train.ScalingConfig(
            num_workers=config["workers"],
            use_gpu=config["gpus"] > 0,
            resources_per_worker={"CPU": config["cpus"], "GPU": config["gpus"]},
            placement_strategy=config["placement"].upper(),
        ),
        run_config=train.RunConfig(
            name=key,
            storage_path=place,
            failure_config=train.FailureConfig(max_failures=0),
        ),
    ).fit()
    storage.of(place).clear(key)
