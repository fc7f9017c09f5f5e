"""Analyses that a file asks for: a measure, and a selection of the grid's cells, never of runs.

``{measure: barrier, between: rounds, of: {method: [imp, reinit]}, points: 20}`` is an analysis of
every line that is selected, for each seed. Beside ``measure``, ``of`` and ``between`` stand the
settings of the measure (``elth.measures``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from elth.errors import ElthError
from elth.measures import PAIR, measure_of, settings_of
from orchestrator.experiment.basics import OneOrMore, Section, Whole, as_number
from orchestrator.experiment.methods import method_of
from orchestrator.experiment.selecting import Cells

BETWEEN = ("rounds", "twins", "seeds")
"""What two networks are compared: successive rounds of a line, a cell and its twins, or the seeds
of a cell."""


class _OfMethod(Section):
    method: Annotated[tuple[str, ...], OneOrMore] = ()
    """``imp`` is a chain from its dense round on."""


class Selection(Cells, _OfMethod):  # whose field stands first, in files and in stores
    """Cells by their axes; one that is left out is open."""

    seed: Annotated[tuple[Whole, ...], OneOrMore] = ()
    """Seeds of the experiment."""

    @field_validator("method")
    @classmethod
    def _known_method(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            method_of(name)
        return names

    def has(self, labels: Mapping[str, Any]) -> bool:
        """Whether a cell is selected, by the labels of its stage."""
        return self.is_of(labels) and self.is_at(labels)


def _as_between(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Analysis(Section):
    """A measure of some cells of the grid."""

    model_config = ConfigDict(extra="allow", frozen=True)

    measure: str
    """One of ``elth.measures.MEASURES``: see ``elth measures``."""
    of: Selection = Selection()
    """Which cells."""
    between: Annotated[
        Literal["rounds", "twins", "seeds"] | tuple[Selection, Selection] | None,
        BeforeValidator(_as_between),
    ] = Field(default=None, union_mode="left_to_right")
    """Of which pairs a measure of two networks is: ``rounds``, ``twins``, ``seeds``, or two
    selections, whose cells are matched on the axes that both leave open."""

    @model_validator(mode="after")
    def _can_be(self) -> Analysis:
        pair = measure_of(self.measure).looks_at == PAIR
        if pair != (self.between is not None):
            raise ElthError(
                f"measure {self.measure} "
                + (
                    f"compares two networks: say between what, as one of {', '.join(BETWEEN)}, or "
                    "two selections of cells"
                    if pair
                    else "looks at networks or lines by themselves, and takes no between"
                )
            )
        settings_of(self.measure, self.settings)
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the measure that are given."""
        return {name: as_number(value) for name, value in (self.model_extra or {}).items()}

    def plain(self) -> dict[str, Any]:
        """As JSON values, without what was left out."""
        return self.model_dump(mode="json", exclude_unset=True)
