"""Complaints of pydantic as one line: where, what was found, what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from elth.errors import ElthError, nearest
from orchestrator.experiment.sections import (
    RECIPE_MODEL,
    Data,
    Entry,
    Experiment,
    Paper,
    Printed,
    Pruning,
    Resources,
)


def first(error: ValidationError) -> str:
    """The first complaint as one line: where, what was found, what was expected."""
    details = error.errors()[0]
    where = ".".join(str(part) for part in details["loc"] if "[" not in str(part))
    inner = details.get("ctx", {}).get("error")
    if details["type"] == "extra_forbidden":
        *parents, key = details["loc"]
        known = _keys_at(parents)
        return f"unknown key '{where}'{nearest(str(key), known)} (there is: {', '.join(known)})"
    if details["type"] == "missing":
        return f"key '{where}' is missing"
    if isinstance(inner, ElthError):
        return f"in {where}: {inner}" if where else str(inner)
    if details["type"] == "model_type":
        return f"{where}: expected a mapping of keys to values, found {details['input']!r}"
    message = details["msg"].replace("tuple", "list").replace("Tuple", "list")
    return f"{where}: {message[0].lower()}{message[1:]}, found {details['input']!r}"


def _keys_at(parents: Sequence[int | str]) -> list[str]:
    section: Any = Experiment
    for part in parents:
        if part in ("recipe", "recipes"):
            return [*RECIPE_MODEL.model_fields, "base"]
        section = {
            "grid": Entry,
            "pruning": Pruning,
            "data": Data,
            "resources": Resources,
            "paper": Paper,
            "printed": Printed,
        }.get(str(part), section)
    return list(section.model_fields)
