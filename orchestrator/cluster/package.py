"""What ``elth submit`` sends to a cluster: the project without data, results and environments."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from elth.errors import ElthError

LIMIT = 100 * 10**6
"""Bytes that a project may have; Ray keeps the package in the memory of its head."""

_NAMES = frozenset({"data", "runs", "node_modules", "build", "dist"})
_SIGNS = ("mlflow.db", "pyvenv.cfg")
"""A folder with one of these in it is a store or an environment."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def files(project: Path, leave_out: Iterable[Path] = ()) -> Iterator[Path]:
    """The files of a project that are sent, in the order of their names.

    Left out is what is hidden, made by tools, or named here: data, results, the store.
    """
    out = {path.absolute() for path in leave_out}
    for folder, below, names in os.walk(project):
        place = Path(folder)
        kept = []
        for name in sorted(below):
            path = place / name
            hidden = name.startswith((".", "__pycache__")) or name.endswith(".egg-info")
            is_result = place == project and (name in _NAMES or name.startswith("runs-"))
            if hidden or is_result or path.absolute() in out or path.is_symlink():
                continue
            if not any((path / sign).exists() for sign in _SIGNS):
                kept.append(name)
        below[:] = kept
        for name in sorted(names):
            path = place / name
            if not name.startswith(".") and path.is_file() and path.absolute() not in out:
                yield path


def pack(project: Path, target: Path, leave_out: Iterable[Path] = ()) -> int:
    """Write the project as a zip file, the same bytes for the same files; returns their number.

    Raises:
        ElthError: it is too large, with what is largest in it, or it cannot be read.
    """
    found = list(files(project, leave_out))
    sizes = {path: path.stat().st_size for path in found}
    if sum(sizes.values()) > LIMIT:
        most: dict[str, int] = {}
        for path, size in sizes.items():
            first = path.relative_to(project).parts[0]
            most[first] = most.get(first, 0) + size
        largest = sorted(most, key=lambda name: -most[name])[:3]
        shown = ", ".join(f"{name} ({most[name] / 1e6:,.0f} MB)" for name in largest)
        raise ElthError(
            f"the project {project} has {sum(sizes.values()) / 1e6:,.0f} MB, and at most "
            f"{LIMIT / 1e6:,.0f} MB are sent to a cluster; the largest in it: {shown}. Move data "
            "to data/, which is not sent, or submit from a folder with the config alone"
        )
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in found:
                entry = zipfile.ZipInfo(str(path.relative_to(project)), _EPOCH)
                entry.external_attr = (path.stat().st_mode & 0o777) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
    except OSError as error:
        raise ElthError(f"cannot pack {project}: {error}") from error
    return len(found)
