"""Analyses that a file asks for: a measure, and a selection of the grid's cells, never of runs.

``{measure: barrier, between: rounds, of: {method: [imp, reinit]}, points: 20}`` is an analysis of
every line that is selected, for each seed. Beside ``measure``, ``of`` and ``between`` stand the
settings of the measure (``elth.measures``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from elth import data
from elth.errors import ElthError
from elth.measures import PAIR, measure_of, settings_of
from elth.networks import canonical
from orchestrator.experiment.basics import Number, OneOrMore, Section, Whole, as_number
from orchestrator.experiment.methods import method_of
from orchestrator.experiment.variants import PLAIN

BETWEEN = ("rounds", "twins", "seeds")
"""What two networks are compared: successive rounds of a line, a cell and its twins, or the seeds
of a cell."""


class Selection(Section):
    """Cells by their axes; one that is left out is open."""

    method: Annotated[tuple[str, ...], OneOrMore] = ()
    """``imp`` is a chain from its dense round on."""
    network: Annotated[tuple[str, ...], OneOrMore] = ()
    """What is trained."""
    dataset: Annotated[tuple[str, ...], OneOrMore] = ()
    """What it is trained on."""
    source: Annotated[tuple[str, ...], OneOrMore] = ()
    """As cells write it: a network, or ``network@dataset`` of another dataset."""
    transform: Annotated[tuple[str, ...], OneOrMore] = ()
    """As cells write it."""
    round: Annotated[tuple[Whole, ...], OneOrMore] = ()
    """Whole rounds; what has an exact sparsity is of none."""
    sparsity: Annotated[tuple[Number, ...], OneOrMore] = ()
    """Exact sparsities, between those of whole rounds."""
    ticket: Annotated[tuple[str, ...], OneOrMore] = ()
    """Imported tickets, whose rounds are lines of their own; ``none`` is of none."""
    variant: Annotated[tuple[str, ...], OneOrMore] = ()
    """``none`` is the experiment itself."""
    noise: Annotated[tuple[Whole, ...], OneOrMore] = ()
    """Twins by their numbers; 0 is the cell itself."""
    seed: Annotated[tuple[Whole, ...], OneOrMore] = ()
    """Seeds of the experiment."""

    @field_validator("method")
    @classmethod
    def _known_method(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            method_of(name)
        return names

    @field_validator("network")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(canonical(name)) for name in names)

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(data.info(data.canonical(name)).title for name in names)

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The values of each axis that is not open, as labels of stages have them."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        found = {name: values for name, values in given.items() if values}
        for axis in found.keys() & {"ticket", "variant"}:
            found[axis] = tuple("" if name == PLAIN else name for name in found[axis])
        if "sparsity" in found:
            found["target"] = tuple(repr(value) for value in found.pop("sparsity"))
        return found

    def has(self, labels: Mapping[str, Any]) -> bool:
        """Whether a cell is selected, by the labels of its stage."""
        if self.round and not self.sparsity and labels.get("target"):
            return False  # its round is only the one whose rewind point and noise it has
        usual = {"ticket": "", "variant": "", "noise": 0, "target": ""}
        return all(labels.get(a, usual.get(a)) in values for a, values in self.axes.items())


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
