"""Complaints of pydantic as one line: where, what was found, what was expected."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from elth.errors import ElthError, nearest
from orchestrator.experiment.analyses import Analysis, Selection
from orchestrator.experiment.claims import Baseline, Claim
from orchestrator.experiment.papers import Paper, Printed
from orchestrator.experiment.pruning import Pruning, Stop
from orchestrator.experiment.recipes import RECIPE_MODEL
from orchestrator.experiment.sections import Data, Entry, Experiment, Resources

_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 200
_SHOWN.maxlist = _SHOWN.maxtuple = _SHOWN.maxdict = 20
_LISTED = 12


def place_of(error: ValidationError) -> tuple[str | int, ...]:
    """Where the first complaint is: keys, and places in lists."""
    return tuple(part for part in _foremost(error)["loc"] if "[" not in str(part))


def _foremost(error: ValidationError) -> Any:
    """The complaint that tells most: the first, or, of a key that is missing, one that is unknown.

    Who has misspelt a key hears of what was written, and not of what was not.
    """
    every: list[Any] = list(error.errors())
    if every[0]["type"] == "literal_error" and isinstance(every[0]["input"], list | tuple):
        every = every[1:] or every  # it was meant as the other thing that may stand there
    first = every[0]
    if first["type"] == "missing":
        beside = first["loc"][:-1]
        unknown = (e for e in every if (e["type"], e["loc"][:-1]) == ("extra_forbidden", beside))
        return next(unknown, first)
    return first


def first(error: ValidationError) -> str:
    """The first complaint as one line: where, what was found, what was expected."""
    details = _foremost(error)
    where = ".".join(str(part) for part in place_of(error))
    inner = details.get("ctx", {}).get("error")
    if details["type"] == "extra_forbidden":
        *parents, key = details["loc"]
        known = _keys_at(parents)
        return f"unknown key '{where}'{nearest(str(key), known)} (there is: {', '.join(known)})"
    if details["type"] == "missing":
        return f"key '{where}' is missing"
    if isinstance(inner, ElthError):
        return f"in {where}: {inner}" if where else str(inner)
    found = _SHOWN.repr(details["input"])
    if details["type"] == "model_type":
        return f"{where}: expected a mapping of keys to values, found {found}"
    message = details["msg"].replace("tuple", "list").replace("Tuple", "list")
    hint = _hint(details["type"], details["input"])
    return f"{where}: {message[0].lower()}{message[1:]}, found {found}{hint}"


def _hint(kind: str, found: Any) -> str:
    """What to write instead of a value that YAML, or a person, took for another kind."""
    if kind in ("string_type", "path_type"):
        if found is None:
            return ", which is what YAML takes ~ and nothing at all for: write it in quotes"
        if isinstance(found, dict):
            return ": to YAML a text with { }, or with ': ', is a mapping: put it in quotes"
        return ": put it in quotes" if isinstance(found, bool | int | float) else ""
    if kind == "int_type":
        if isinstance(found, float) and found.is_integer():
            return f": write {int(found)}"
        text = found.strip() if isinstance(found, str) else ""
        if re.fullmatch(r"[+-]?[0-9]+", text):
            return f": write {int(text)}, without quotes or zeros before it"
        if bounds := re.fullmatch(r"([0-9]{1,6})-([0-9]{1,6})", text):
            numbers = [*range(int(bounds[1]), int(bounds[2]) + 1)]
            told = numbers if len(numbers) <= _LISTED else [*numbers[:2], "...", numbers[-1]]
            return f": write [{', '.join(map(str, told))}]" if numbers else ""
    return ""


def _keys_at(parents: Sequence[int | str]) -> list[str]:
    section: Any = Experiment
    for part in parents:
        if part in ("recipe", "recipes"):
            return [*RECIPE_MODEL.model_fields, "base", "stretch"]
        section = {
            "grid": Entry,
            "pruning": Pruning,
            "data": Data,
            "resources": Resources,
            "paper": Paper,
            "printed": Printed,
            "stop": Stop,
            "analyses": Analysis,
            "between": Selection,
            "of": Baseline if "claims" in parents else Selection,
            "claims": Claim,
        }.get(str(part), section)
    return list(section.model_fields)
