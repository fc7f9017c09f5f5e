"""Selections of cells by their axes, as analyses and claims write them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import ValidationInfo, field_validator

from elth import data
from elth.networks import canonical
from orchestrator.experiment.axes import CELL, COMPARED_AT, IN_CONFIGS, USUAL
from orchestrator.experiment.basics import Number, OneOrMore, Section, Whole
from orchestrator.experiment.variants import PLAIN

STORED = "stored"
"""In the context of a check: what is checked was read from a store."""

_AXES = {IN_CONFIGS.get(axis, axis): axis for axis in (*CELL, "seed")}
"""The axes by what they are called in a config."""


def is_stored(info: ValidationInfo) -> bool:
    """Whether what is checked was read from a store, where the code that it names may not be."""
    return bool((info.context or {}).get(STORED))


def as_labels(axis: str, values: Iterable[Any]) -> tuple[Any, ...]:
    """Values of an axis, as a config writes them, as labels of stages have them."""
    if _AXES[axis] == "target":
        return tuple(repr(value) for value in values)
    if axis in ("ticket", "variant"):
        return tuple("" if value == PLAIN else value for value in values)
    return tuple(values)


class Cells(Section):
    """Cells by their axes; one that is left out is open."""

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
    """Exact sparsities, between those of whole rounds, and beside the rounds that are given."""
    ticket: Annotated[tuple[str, ...], OneOrMore] = ()
    """Imported tickets from which rounds are counted; ``none`` is of none."""
    variant: Annotated[tuple[str, ...], OneOrMore] = ()
    """``none`` is the experiment itself."""
    noise: Annotated[tuple[Whole, ...], OneOrMore] = ()
    """Twins by their numbers; 0 is the cell itself."""

    @field_validator("network")
    @classmethod
    def _known(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return names if is_stored(info) else tuple(str(canonical(name)) for name in names)

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if is_stored(info):
            return names
        return tuple(data.info(data.canonical(name)).title for name in names)

    @functools.cached_property  # a plan asks it of each of its cells
    def axes(self) -> Mapping[str, tuple[Any, ...]]:
        """The values of each axis that is not open, as labels of stages have them."""
        fields = type(self).model_fields
        given = {name: getattr(self, name) for name in _AXES if name in fields}
        return {_AXES[name]: as_labels(name, values) for name, values in given.items() if values}

    def is_of(self, labels: Mapping[str, Any]) -> bool:
        """Whether a cell is selected, its level apart, by the labels of its stage."""
        return all(
            labels.get(axis, USUAL.get(axis)) in values
            for axis, values in self.axes.items()
            if axis not in COMPARED_AT
        )

    def is_at(self, labels: Mapping[str, Any]) -> bool:
        """Whether the level of a cell is selected: its round or exact sparsity, and its ticket."""
        target = labels.get("target", "")
        axis = "target" if target else "round"
        is_open = not (self.round or self.sparsity)
        return (is_open or labels.get(axis) in self.axes.get(axis, ())) and (
            not self.ticket or labels.get("ticket", "") in self.axes["ticket"]
        )
