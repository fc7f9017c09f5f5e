"""The table or figure of a paper that an experiment is the setting of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from elth import plugins
from elth.apart import apart
from elth.errors import ElthError, unknown
from elth.networks import canonical
from orchestrator.experiment.basics import Number, Section, Whole, dataset_named
from orchestrator.experiment.methods import method_of
from orchestrator.experiment.selecting import STORED, is_stored

LAYOUTS = ("curves", "by_network", "by_source", "by_method", "across_datasets")
"""Shapes of a paper's table or figure; ``orchestrator.report.layouts`` has their functions."""


def check_layout(name: str, paths: Sequence[str]) -> None:
    """Refuse a layout from outside that is not there; its module is imported."""
    plugins.use(paths)
    if not callable(plugins.named("LAYOUTS", name, "layout", LAYOUTS)):
        raise ElthError(f"{name} is no layout: expected a function from a Book to a list of Sheets")


class Printed(Section):
    """A number that a paper prints, and the cell that it belongs to."""

    network: str
    """The cell's network."""
    method: str
    """The cell's method."""
    accuracy: Number
    """Accuracy in percent."""
    source: str = ""
    """The network on which the cell's ticket was found."""
    source_dataset: str = ""
    """The dataset on which it was found; the experiment's when left out."""
    transform: str = ""
    """The cell's plan; any when left out."""
    dataset: str = ""
    """The experiment's when left out."""

    @field_validator("method")
    @classmethod
    def _known_method(cls, name: str, info: ValidationInfo) -> str:
        if not is_stored(info):
            method_of(name)
        return name

    @field_validator("network", "source")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        return str(canonical(name)) if name and not is_stored(info) else name

    @field_validator("dataset", "source_dataset")
    @classmethod
    def _knowndataset_named(cls, name: str, info: ValidationInfo) -> str:
        return dataset_named(name) if name and not is_stored(info) else name


class Paper(Section):
    """The table or figure of a paper that an experiment is the setting of."""

    title: str
    """As ``E-LTH, Table 1``."""
    round: Whole | None = Field(default=None, ge=1)
    """The round that its numbers are of; the last one when left out."""
    layout: str = "curves"
    """How our numbers are laid out: one of ``LAYOUTS``."""
    note: str = ""
    """What a reader must know beside it."""
    printed: tuple[Printed, ...] = ()
    """The printed numbers."""

    @field_validator("layout")
    @classmethod
    def _known_layout(cls, name: str, info: ValidationInfo) -> str:
        if name in LAYOUTS or is_stored(info):
            return name
        if not plugins.is_reference(name) and not plugins.listed():
            raise unknown("layout", name, LAYOUTS)
        apart(check_layout, name, plugins.in_use())
        return name

    @staticmethod
    def stored(plain: Mapping[str, Any]) -> Paper:
        """What a store holds of it: the code that it names may not be here."""
        return Paper.model_validate(plain, context={STORED: True})
