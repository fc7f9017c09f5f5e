"""What an analysis looks at, read from the store, and its measure."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elth import masks
from elth.analysis import Subject, measure
from elth.data import Dataset
from elth.measures import LINE, by_round, measure_of, numbers, starts_of
from elth.recipes import Recipe
from elth.specs import Spec
from elth.tickets import state_digest
from orchestrator.plan.stage import Stage, shape_of
from orchestrator.store.damage import AbsentError
from orchestrator.store.result import Result
from orchestrator.work.tickets import Load, ticket_of


def needs_data(stage: Stage) -> bool:
    """Whether an analysis looks at images."""
    return measure_of(stage.params["measure"]).needs_data


@dataclass(frozen=True, kw_only=True)
class Look:
    """A trained network that an analysis looks at."""

    stage: Stage
    """That trained it."""
    subject: Subject


def looks_of(stage: Stage, load: Load) -> tuple[Look, ...]:
    """The trained networks that an analysis looks at, in the order of its parents.

    Raises:
        AbsentError: trained weights of one were never kept, or are not there any more.
    """
    rate = stage.params.get("rate", 0)
    starts = starts_of(stage.params["measure"], len(stage.parents))
    return tuple(
        _look(key, load, rate, needs_start=number in starts)
        for number, key in enumerate(stage.parents)
    )


def _look(key: str, load: Load, rate: float | str, *, needs_start: bool) -> Look:
    stage, result = load(key)
    if result.trained is None:
        raise AbsentError(
            key,
            f"an analysis needs the trained weights of {stage.title}, which were never kept, or "
            "are not there any more",
            lacks_weights=True,
        )
    mask, start = result.mask, None
    if needs_start or mask is None:
        ticket = ticket_of(stage, load, known=mask)
        mask, start = ticket.mask, ticket.rewind
    subject = Subject(
        network=Spec.parse(stage.params["network"]),
        shape=shape_of(stage),
        mask=mask,
        trained=result.trained,
        start=start,
        recipe=Recipe.of(stage.params["recipe"]),
        rate=rate,
    )
    return Look(stage=stage, subject=subject)


def digest_of(looks: Sequence[Look]) -> str:
    """What tells whether what was measured before was measured of the same."""
    subjects = [look.subject for look in looks]
    sums = [(state_digest(one.trained), masks.digest(one.mask)) for one in subjects]
    return hashlib.sha256(repr(sums).encode()).hexdigest()


def numbers_of(stage: Stage, result: Result) -> dict[str, float]:
    """The single numbers of what an analysis came to."""
    return numbers(stage.params["measure"], result.measured or {})


def numbers_by_round(
    stage: Stage, result: Result, looks: Sequence[Look]
) -> list[tuple[int, dict[str, float]]]:
    """The numbers of each round of a line, with the numbers of the rounds; nothing of others."""
    found = by_round(stage.params["measure"], result.measured or {})
    rounds = [int(look.stage.labels["round"]) for look in looks if found]
    return list(zip(rounds, found, strict=True))


def picture_of(stage: Stage, result: Result, looks: Sequence[Look]) -> dict[str, bytes]:
    """The picture of an analysis, by the name of its file; none of what has but single numbers."""
    measure = stage.params["measure"]
    if measure_of(measure).looks_at != LINE and measure != "barrier":
        return {}
    # Matplotlib takes a second to import, which workers that only train never spend.
    from orchestrator.report.analyses import Weights, measured_of
    from orchestrator.report.pictures import png_of

    weights = {}
    for look in looks:
        mask = look.subject.mask
        counts = (masks.nonzeros(mask), masks.total(mask))
        weights[look.stage.key] = Weights(look.stage.labels, *counts)
    found = png_of(measured_of(stage, result.measured or {}, weights))
    return {} if found is None else {f"{measure}.png": found}


def measured(
    stage: Stage,
    looks: Sequence[Look],
    data: Dataset | None,
    saved: Mapping[str, Any],
) -> Generator[tuple[float, Mapping[str, Any]], None, dict[str, Any]]:
    """Do the measure of an analysis; yields how far it is, returns what it came to."""
    settings = stage.params.get("settings", {})
    subjects = [look.subject for look in looks]
    return measure(stage.params["measure"], subjects, settings, data=data, saved=saved)
