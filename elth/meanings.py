"""What is said of fields and keywords where they are defined: read for schemas and documents.

Of a field of a class it stands below it, of a keyword of a function under ``Args`` of its
docstring, or in its annotation where several functions share it.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints


@dataclass(frozen=True)
class About:
    """What a keyword is: ``Width = Annotated[int, About("Channels of the first stage.")]``."""

    text: str


def of_fields(cls: type) -> dict[str, str]:
    """What stands below the fields of a class of ours in its source, by their names."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] not in ("elth", "orchestrator"):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # made at run time
            continue
        (tree,) = ast.parse(source).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in itertools.pairwise(tree.body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[field.target.id] = in_line(text.value.value)
    return found


def of_keywords(function: Callable[..., Any]) -> dict[str, str]:
    """What is said of the keywords of a function, by their names.

    Raises:
        Exception: an annotation cannot be evaluated.
    """
    found: dict[str, str] = {}
    name = ""
    _, _, below = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    for line in itertools.takewhile(lambda one: not one or one[0] == " ", below.splitlines()):
        if begun := re.fullmatch(r" {4}(\w+)(?: \(.*?\))?:(.*)", line):
            name, found[begun[1]] = begun[1], begun[2]
        elif name:
            found[name] += f" {line}"
    for name, hint in get_type_hints(function, include_extras=True).items():
        if texts := [one.text for one in get_args(hint) if isinstance(one, About)]:
            found[name] = texts[-1]
    lines = {name: in_line(text) for name, text in found.items()}
    return {name: text[:1].upper() + text[1:] for name, text in lines.items()}


def headline(function: Callable[..., Any]) -> str:
    """The first line of what is said of a function, or where nothing is, of the file it is in."""
    text, file = inspect.getdoc(function), inspect.getmodule(function)
    if not text and file is not None:
        text = inspect.getdoc(file)
    return in_line((text or "").partition("\n")[0])


def in_line(text: str) -> str:
    """A docstring as one line of Markdown."""
    return " ".join(text.replace("``", "`").split())
