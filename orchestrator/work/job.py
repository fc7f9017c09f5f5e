"""What a job is told when it begins: by ``runner.run`` what all share, by the search its own.

It goes through Ray as a plain dict, and ``distributed.fit`` hands it on to the workers of a group.
"""

from __future__ import annotations

from typing import Any, TypedDict


class DataPlace(TypedDict):
    """Where a dataset lies."""

    root: str
    download: bool
    """Whether to get it first, if it is not there."""


class JobSettings(TypedDict, total=False):
    """The settings of a job, which are called its configuration as trials of Tune have one."""

    stages: list[dict[str, Any]]
    """Its stages, one after the other, as ``Stage.describe`` gives them."""
    watched: tuple[str, float] | None
    """The last sign of life of another driver at the first of them, and for how many seconds it has
    been the last."""
    stop: str
    """By what ``stopping.watch`` knows whether the run is to end."""

    store: str
    """The address of the store, or its folder."""
    grid: str
    """For which grid."""
    experiment: str
    """The whole experiment as YAML, for the runs of its stages."""
    driver: str
    """Whose job it is (``processes.owner``)."""
    data: DataPlace
    outside: dict[str, Any]
    """Which code from outside the stages need (``plan.outside.Outside``)."""
    keep: list[str]
    """Keys of stages whose trained weights are kept, beside those of rounds."""
    ending: Any
    """Where chains end, ``pruning.stop`` as plain values; None where they do not."""

    threads: int
    cpus: int
    """Of a worker, for Ray."""
    gpus: float
    """Of a worker: a part of one, or whole ones."""
    workers: int
    """Processes that train together."""
    placement: str
    """Of several workers on nodes (``resources.placement``)."""
    compile: bool | str
    """Whether networks are compiled; ``auto``: where it pays."""
    device: str
    """What the GPUs of a group are called."""

    inflight: str
    """Where checkpoints of trainings in progress lie."""
    outbox: str
    """The folder in which finished stages wait while the store is away."""
    checkpoint_minutes: float
    """Between two checkpoints."""
