"""Plans: the stages that an experiment comes to, what they cost, and the order in which they go."""

from orchestrator.plan.building import build, of_file
from orchestrator.plan.costs import seconds_of_step, stored_bytes, work
from orchestrator.plan.graph import Job, Plan, makespan
from orchestrator.plan.stage import (
    KINDS,
    SPARSE,
    VERSIONS,
    Stage,
    count_kinds,
    dataset_of,
    iterations,
    per_epoch,
)

__all__ = [
    "KINDS",
    "SPARSE",
    "VERSIONS",
    "Job",
    "Plan",
    "Stage",
    "build",
    "count_kinds",
    "dataset_of",
    "iterations",
    "makespan",
    "of_file",
    "per_epoch",
    "seconds_of_step",
    "stored_bytes",
    "work",
]
