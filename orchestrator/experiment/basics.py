"""What the parts of an experiment's file have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Strict

from elth import data
from elth.files import expanded
from elth.recipes import Step
from elth.specs import Spec
from orchestrator.experiment.notation import number

NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
"""Of grids and variants."""


class Section(BaseModel):
    """A part of the file: frozen, and no key but those that are named here."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def as_tuple(value: Any) -> Any:
    """A list as a tuple, a single value as one of one."""
    return tuple(value) if isinstance(value, list) else (value,)


OneOrMore = BeforeValidator(as_tuple)


def as_number(value: Any) -> Any:
    """The number that a text is; all else as it is."""
    found = number(value) if isinstance(value, str) else None
    return value if found is None else found


Whole = Annotated[int, Strict()]
"""A whole number: neither ``true`` nor ``1.0`` nor a text."""
Number = Annotated[float, Strict(), BeforeValidator(as_number)]
"""A number, or a text of one, as YAML 1.1 takes ``1e-3`` for; not ``true``."""


def as_step(value: Any) -> Step:
    """A step as ``160ep`` or ``1000it``.

    Raises:
        ElthError: it is none.
    """
    return Step.parse(value)


def dataset_named(name: str) -> str:
    """The canonical name of a dataset; a manifest by its absolute path, as workers run elsewhere.

    Raises:
        ElthError: there is no such dataset, or it cannot meet the options.
    """
    spec = Spec.parse(data.canonical(name))
    options = dict(spec.options)
    if spec.name == "folder" and "manifest" in options:
        options["manifest"] = str(expanded(str(options["manifest"])).absolute())
    return data.info(str(Spec(spec.name, tuple(options.items())))).name
