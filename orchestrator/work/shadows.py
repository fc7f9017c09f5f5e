"""Files of the current folder that trials would import in the place of a package.

Ray puts the driver's current folder before all others on the path of every process that it starts.
A folder ``mlflow`` there, or a file ``queue.py``, is then what ``import`` finds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib.machinery import FrozenImporter, PathFinder
from pathlib import Path

from elth.errors import ElthError

_IMPORTED = (
    "elth",
    "orchestrator",
    "mlflow",
    "numpy",
    "PIL",
    "pandas",
    "psutil",
    "pyarrow",
    "pydantic",
    "ray",
    "safetensors",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "torch",
    "torchvision",
    "yaml",
)
"""What trials import, beside what this process has imported."""


def check(folder: Path | None = None, path: Iterable[str] | None = None) -> None:
    """Refuse a current folder that would hide packages from trials.

    Args:
        folder: the folder; the current one when None.
        path: where modules are found; ``sys.path`` when None.

    Raises:
        ElthError: one is hidden; the message names each with its file and where the package lies.
    """
    folder = (folder or Path.cwd()).resolve()
    rest = [p for p in (sys.path if path is None else path) if Path(p or ".").resolve() != folder]
    try:
        there = {entry.name.partition(".")[0] for entry in os.scandir(folder)}
    except OSError:
        return
    imported = {name for name in sys.modules if "." not in name}
    hidden = []
    for name in sorted(there & {*_IMPORTED, *imported} - set(sys.builtin_module_names)):
        # What a program is started by is no module to import, and ``io`` is found before all files.
        if name.startswith("__") or FrozenImporter.find_spec(name) is not None:
            continue
        mine = PathFinder.find_spec(name, [str(folder)])
        if mine is None or mine.origin is None:  # a folder that is no package hides nothing
            continue
        meant = _origin(name, rest)
        if meant and not os.path.samefile(meant, mine.origin):
            hidden.append(f"{mine.origin} (for {meant})")
    if hidden:
        raise ElthError(
            f"trials would import {', '.join(hidden)}, as Ray looks in the current folder first: "
            "rename it, or give the command in another folder (--store says where runs are kept)"
        )


def _origin(name: str, path: list[str]) -> str:
    """The file of the module that is meant: what this process has, else what the path gives."""
    found = getattr(sys.modules.get(name), "__file__", None)
    if found is None:
        spec = PathFinder.find_spec(name, path)
        found = spec.origin if spec is not None and spec.has_location else None
    return found if found and os.path.exists(found) else ""
