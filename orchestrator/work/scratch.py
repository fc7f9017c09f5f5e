"""Where a Ray of our own keeps its files, and whether it can: without importing Ray."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

from elth.errors import ElthError

_VARIABLES = ("RAY_TMPDIR", "TMPDIR")
_MOST_BYTES = 103 if sys.platform == "darwin" else 107
"""Of the name of a socket: what the system takes."""
_SOCKET = "ray/session_2026-01-31_23-59-59_999999_{pid}/sockets/plasma_store"
"""The longest of Ray's sockets, below its folder."""


def folder() -> tuple[Path, str]:
    """The folder in which Ray makes its own, and the variable that says so, if one does."""
    for name in _VARIABLES:
        if os.environ.get(name) and not (name == "TMPDIR" and sys.platform == "darwin"):
            return Path(os.environ[name]), name
    return Path("/tmp"), ""


def check() -> str:
    """Refuse a folder in which Ray cannot start; returns what was found of one in which it can.

    Raises:
        ElthError: its name is too long for sockets, or it is another user's.
    """
    place, variable = folder()
    said = f" ({variable} says so)" if variable else ""
    name = str(place / _SOCKET.format(pid=os.getpid()))
    over = len(os.fsencode(name)) - _MOST_BYTES
    if over > 0:
        raise ElthError(
            f"Ray would keep its files in {place}{said}, whose name is {over} bytes too long for "
            f"the sockets in it: set RAY_TMPDIR to a folder with a shorter one, as /tmp"
        )
    own = place / "ray"
    there = next((path for path in (own, *own.parents) if os.path.exists(path)), Path("/"))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ElthError(
            f"Ray would keep its files in {own}{said}, and {there}, of the user {_owner(there)}, "
            "cannot be written: set RAY_TMPDIR to a folder of your own with a short name"
        )
    return f"Ray can keep its files in {own}"


def _owner(path: Path) -> str:
    number = path.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
