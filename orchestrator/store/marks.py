"""Marks of finished runs that are to be done again, and which of several runs of a stage counts.

A run that is marked stays as it is, and is read, until another one of its stage is finished.
"""

from __future__ import annotations

from collections.abc import Iterable

from mlflow.entities import Run

ASKED = "elth.redo"
"""The tag of a run that a person wants done again: the request that asked for it."""

STALE = "elth.stale"
"""The tag of a run that was made of something which came out otherwise when it was done again."""

REDONE = "elth.redone"
"""The tag of a run that took another's place: the request that it was done for.

Of the experiment with the stages: changes whenever a result takes the place of a different one.
"""


LACKING = "lacking"
"""The request of nobody: a run lacks files that a stage needs which is made of it."""

TIDIED = "elth.tidied"
"""The tag of a run whose trained weights a person has let go, with the time; it is whole."""


def mark_of(run: Run) -> str:
    """The request by which a run is to be done again; empty if it is not."""
    tags = run.data.tags
    return str(tags.get(STALE) or tags.get(ASKED) or "")


def is_finished(run: Run) -> bool:
    """Whether a run is finished, to be done again or not."""
    return bool(run.info.status == "FINISHED")


def standing(runs: Iterable[Run]) -> Run | None:
    """The first of some runs that is finished and not to be done again."""
    return next((run for run in runs if is_finished(run) and not mark_of(run)), None)


def finished(runs: Iterable[Run]) -> Run | None:
    """The first of some runs that is finished; one that is to be done again only if need be."""
    some = list(runs)
    return standing(some) or next(filter(is_finished, some), None)
