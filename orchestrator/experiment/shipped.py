"""The configs that come with the package: those of the papers' tables and figures, and small ones.

They are the files of ``tune_configs/``, which a wheel holds as a folder of this package. Where a
config is to be named, the name of one of them stands for it, unless there is a file of that name.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path

from elth.errors import ElthError, nearest
from elth.files import expanded

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE / "tune_configs", _PACKAGE.parent / "tune_configs")
"""In an installed package, and in a checkout."""
COUNTS = "trainings.json"
"""The file beside the configs that tells what each comes to; ``make reference`` writes it."""


def folder() -> Path:
    """Where the configs lie.

    Raises:
        ElthError: this copy of the package has none.
    """
    found = next((one for one in _FOLDERS if one.is_dir()), None)
    if found is None:
        raise ElthError(f"this copy of elth has no configs: {_FOLDERS[0]} is not there")
    return found


@functools.cache
def shipped() -> Mapping[str, Path]:
    """The configs by their names, in the order of the alphabet; none if this copy has none."""
    found = (path for one in _FOLDERS for path in one.glob("*.yaml"))
    return {path.stem: path for path in sorted(found, key=lambda path: path.name)}


def is_shipped(name: str | Path) -> bool:
    """Whether a text names a config that comes with the package: a bare word, and no file here."""
    return str(name) in shipped() and not Path(name).is_file()


def located(config: str | Path) -> Path:
    """The file that is meant by a path, or by the name of a config that comes with the package.

    Raises:
        ElthError: the path begins with a home folder that is not there.
    """
    return shipped()[str(config)] if is_shipped(config) else expanded(config)


def named(name: str) -> Path:
    """The file of a config by its name, wherever the command is given.

    Raises:
        ElthError: there is none of this name.
    """
    folder()
    if name not in shipped():
        known = ", ".join(shipped())
        raise ElthError(f"unknown config '{name}'{_nearest(name)} (there is: {known})")
    return shipped()[name]


def _nearest(word: str) -> str:
    """What may be meant: the only name that begins so, else the one most like it."""
    longer = [name for name in shipped() if name.startswith(word)]
    return f"; did you mean '{longer[0]}'?" if len(longer) == 1 else nearest(word, shipped())


def hint(path: Path) -> str:
    """What to say of a config that is not there: the one of the package that may be meant."""
    if path.stem in shipped():
        return f"; the one that comes with elth is called {path.stem}, without a folder or .yaml"
    if not path.suffix and (beside := path.with_suffix(".yaml")).is_file():
        return f"; did you mean {beside}?"
    return "" if path.suffix or len(path.parts) != 1 else _nearest(path.name)


def trainings() -> dict[str, int]:
    """How many trainings each config comes to, by its name, without working it out."""
    counts: dict[str, int] = json.loads((folder() / COUNTS).read_text(encoding="utf-8"))
    return counts


def about(path: Path) -> dict[str, str]:
    """What a config says of itself, read without checking it: description, and title of its paper.

    Raises:
        ElthError: it is no YAML.
    """
    from orchestrator.experiment.notation import parse

    raw = parse(path.read_text(encoding="utf-8"), str(path)).value
    paper = raw.get("paper") or {}
    return {
        "description": str(raw.get("description", "")),
        "paper": re.sub(r"\s+", " ", str(paper.get("title", ""))),
        "scales": " ".join(raw.get("scales") or {}),
    }
