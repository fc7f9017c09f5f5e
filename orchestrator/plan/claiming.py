"""Whether a grid holds what its experiment claims something of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from elth.errors import ElthError
from orchestrator.experiment.axes import CELL, COMPARED_AT, IN_CONFIGS, Axes
from orchestrator.experiment.claims import Baseline, Claim
from orchestrator.experiment.selecting import as_labels
from orchestrator.experiment.variants import PLAIN

_LISTED = 8
_LINES = tuple(axis for axis in Baseline.model_fields if axis in CELL and axis != "method")
"""Axes by which a baseline names its lines."""


def check_claims(claims: Sequence[Claim], called: Iterable[Mapping[str, Any]]) -> None:
    """Refuse claims of cells that a plan does not hold: they would never be judged.

    Args:
        claims: of the experiment.
        called: what the trainings of the plan are called.

    Raises:
        ElthError: a method, a baseline or a value of an axis is of no pair of cells.
    """
    if not claims:
        return
    cells = list(dict.fromkeys(Axes.of(labels) for labels in called if "seed" in labels))
    for number, claim in enumerate(claims):
        try:
            _check(claim, cells)
        except ElthError as error:
            raise ElthError(f"in claims.{number}: {error} (claims=[] makes none)") from error


def _check(claim: Claim, cells: Sequence[Axes]) -> None:
    own = [cell for cell in cells if claim.is_of(cell._asdict())]
    if not own:
        raise ElthError(
            f"no cell of the grid is {_spelled(claim)}: {what_there_is(claim.method, cells)}"
        )
    for baseline in claim.of:
        found = claim.pairs(cells, baseline)
        if not found:
            known = dict.fromkeys(what_there_is(one.method, cells) for one in (claim, baseline))
            raise ElthError(
                f"{_spelled(claim)} has nothing beside it that is {baseline.name}, at the same "
                f"network, level and variant: {'; '.join(known)}"
            )
        for axis, values in claim.axes.items():
            there = {_value(axis, claim, pair) for pair in found}
            for value in values:
                if value not in there:
                    raise ElthError(
                        f"no cell that it compares with {baseline.name} has "
                        f"{IN_CONFIGS.get(axis, axis)} {_written(axis, value)}"
                    )
        for axis in _LINES:
            there = {getattr(other, axis) for _, other in found}
            for value in as_labels(axis, getattr(baseline, axis)):
                if value not in there:
                    raise ElthError(
                        f"no cell of {baseline.name} that it is compared with has {axis} "
                        f"{_written(axis, value)}"
                    )


def _value(axis: str, claim: Claim, pair: tuple[Axes, Axes]) -> Any:
    """What a pair of cells is on an axis of a claim."""
    cell, other = pair
    level = other if claim.method == "dense" else cell
    if axis == "round" and level.target:
        return ""  # its round is no whole one
    return getattr(level if axis in COMPARED_AT else cell, axis)


def _written(axis: str, value: Any) -> Any:
    return PLAIN if not value and axis in ("ticket", "variant") else value


def _spelled(claim: Claim) -> str:
    own = Baseline.model_construct(
        method=claim.method, source=claim.source, transform=claim.transform, variant=claim.variant
    )
    where = [f"on {' or '.join(claim.network)}"] if claim.network else []
    where += [f"at round {' or '.join(map(str, claim.round))}"] if claim.round else []
    return " ".join([own.name, *where])


def what_there_is(method: str, cells: Iterable[Axes]) -> str:
    """What there is of a method, as ``it has ett on resnet20 at rounds 4, 6``."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell.method == method:
            name = " ".join(filter(None, (cell.source, cell.transform)))
            where = f"{f'<- {name} ' if name else ''}on {cell.network}"
            where += f", {cell.variant}" if cell.variant else ""
            found.setdefault(where, {})[cell.target or str(cell.round)] = None
    if not found:
        return f"it has no {method}"
    lines = [f"{where} at {', '.join(at)}" for where, at in found.items()][:_LISTED]
    return f"it has {method} {'; '.join(lines)}{', ...' if len(found) > _LISTED else ''}"
