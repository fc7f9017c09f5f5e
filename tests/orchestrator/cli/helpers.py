"""How a command ended, and what it printed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Elth = Callable[..., Done]


def refused(done: Done, message: str) -> None:
    """Compare a refusal: one line of an error, with a message in it."""
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert done.err.startswith("elth: error: ")
    assert message in done.err
    assert "Traceback" not in done.err


def files_of(folder: Path) -> set[str]:
    """The names of all files and folders below a folder."""
    return {path.name for path in folder.rglob("*")}


def table_of(text: str) -> dict[str, list[str]]:
    """The cells of a printed table, by the first of each row."""
    rows = (re.split("[│┃]", line)[1:-1] for line in text.splitlines() if line[:1] in "│┃")
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
