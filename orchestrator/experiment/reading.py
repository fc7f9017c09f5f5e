"""From a YAML file to an experiment: profiles, overrides, and the file that cannot be read."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from elth import plugins
from elth.errors import ElthError, unknown
from elth.files import expanded
from elth.remembered import remembered
from elth.specs import split
from orchestrator.experiment.complaints import first, place_of
from orchestrator.experiment.methods import METHODS
from orchestrator.experiment.notation import Text, parse
from orchestrator.experiment.papers import LAYOUTS
from orchestrator.experiment.sections import Experiment
from orchestrator.experiment.shipped import hint, located


def load(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from a YAML file, changed by ``key=value`` overrides.

    Args:
        path: the file, or the name of a config that comes with the package, as ``quickstart``.
        overrides: as ``seeds=[0]``, ``pruning.rounds=10`` or ``grid.0.network=resnet32``; the
            value is YAML. ``scale=NAME`` takes a profile of the file, before all others.

    Raises:
        ElthError: one line that names the file, the key, its line, what was found and what was
            expected.
    """
    path = located(path)
    text = _read(path)
    text.value.setdefault("name", re.sub(r"[^A-Za-z0-9_-]", "-", path.stem))
    scales = [one.removeprefix("scale=") for one in overrides if one.startswith("scale=")]
    _scale(path, text, scales[-1] if scales else "full")
    for override in overrides:
        if not override.startswith("scale="):
            _override(text, override)
    raw = text.value
    try:
        _use_plugins(path, raw)
        return Experiment.model_validate(raw)
    except ValidationError as error:
        line = text.line(place_of(error))
        raise ElthError(f"{path}: {first(error)}{f' (line {line})' * bool(line)}") from error
    except ElthError as error:
        raise ElthError(f"{path}: {error}") from error


def _use_plugins(path: Path, raw: dict[str, Any]) -> None:
    """List the modules that a file names, before anything of theirs is looked for."""
    given = raw.get("plugins") or []
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ElthError(f"plugins is a list of files, as [./nets.py]; found {given!r}")
    raw["plugins"] = [str((path.parent / expanded(one)).absolute()) for one in given]
    try:
        plugins.use(raw["plugins"])
        if raw["plugins"]:
            remembered(check_names, plugins.in_use(), also=plugins.state())
    except ElthError as error:
        raise ElthError(f"in plugins: {error}") from error


def check_names(paths: Sequence[str]) -> bool:
    """Refuse listed modules that give a name of ours to something else; they are imported.

    Raises:
        ElthError: one does, or two give one name; or a module cannot be imported.
    """
    from elth.criteria import CRITERIA
    from elth.data import DATASETS
    from elth.elastic.plans import OPERATIONS
    from elth.networks import NETWORKS
    from elth.recipes import RECIPES

    plugins.use(paths)
    ours: dict[str, Mapping[str, Any]] = {
        "NETWORKS": NETWORKS,
        "CRITERIA": CRITERIA,
        "METHODS": METHODS,
        "RECIPES": RECIPES,
        "DATASETS": DATASETS,
        "LAYOUTS": dict.fromkeys(LAYOUTS),
        "TRANSFORMATIONS": dict.fromkeys((*OPERATIONS, "double", "halve")),
    }
    for kind, known in ours.items():
        for name, place in plugins.registered(kind).items():
            if name in known and plugins.get(place)[name] is not known[name]:
                raise ElthError(
                    f"'{name}' in {place.replace(':', ', in ')} is a name of ours: give it another"
                )
    return True


def _read(path: Path) -> Text:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        told = hint(path) if isinstance(error, FileNotFoundError) else ""
        raise ElthError(f"cannot read {path}: {error.strerror}{told}") from error
    except UnicodeDecodeError as error:
        raise ElthError(
            f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}): let your editor "
            "save it as UTF-8"
        ) from error
    text = parse(content, str(path))
    if text.value is None:
        raise ElthError(f"{path} is empty; an experiment needs at least dataset, seeds and grid")
    if not isinstance(text.value, dict):
        raise ElthError(
            f"{path} must hold a mapping of keys to values, found a {type(text.value).__name__}"
        )
    return text


def _scale(path: Path, text: Text, scale: str) -> None:
    """Merge one of a file's profiles into the rest; ``full`` is the file itself.

    A mapping is merged key by key, any other value replaced, a recipe as a whole. ``replace`` of a
    profile says which network or dataset stands in for one wherever grid, paper and recipes name
    it. What a paper prints belongs to its own setting, and so do claims: they are left out.
    """
    raw: dict[str, Any] = text.value
    scales = raw.pop("scales", None) or {}
    if scale == "full":
        return
    if not isinstance(scales, dict):
        raise ElthError(f"{path}: scales must hold a mapping of profiles, found {scales!r}")
    if scale not in scales:
        raise unknown(f"scale of {path}", scale, ["full", *scales])
    profile = scales[scale] or {}
    if not isinstance(profile, dict):
        raise ElthError(f"{path}: scale {scale} must be a mapping of keys, found {profile!r}")
    profile = dict(profile)
    names = profile.pop("replace", None) or {}
    if not isinstance(names, dict) or any(not isinstance(n, str) for n in names.values()):
        raise ElthError(
            f"{path}: replace of scale {scale} must map names to names, as mnist: digits; found "
            f"{names!r}"
        )
    merged = {**raw, "name": f"{raw['name']}-{scale}"}
    merged.pop("claims", None)
    for part in {"grid", "paper", "recipes"} & merged.keys():
        merged[part] = _renamed(merged[part], names)
    if isinstance(merged.get("paper"), dict):
        title = merged["paper"].get("title", "")
        changed: dict[str, Any] = {
            "title": f"{title}, at scale {scale}",
            "printed": [],
            "round": None,
        }
        merged["paper"] = {**merged["paper"], **changed}
    for key, value in profile.items():
        before = merged.get(key)
        if isinstance(before, dict) and isinstance(value, dict) and key != "recipe":
            for inner in value:
                text.move(("scales", scale, key, inner), (key, inner))
            value = {**before, **value}
        else:
            text.move(("scales", scale, key), (key,))
        merged[key] = value
    text.value = merged


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def _override(file: Text, text: str) -> None:
    key, *after = split(text, "=")
    value = "=".join(after)
    if not after or not key:
        raise ElthError(f"cannot read the override '{text}': write key=value, as seeds=[0,1]")
    if not text.isprintable() and any("\udc80" <= letter <= "\udcff" for letter in text):
        raise ElthError(
            f"the override {text!a} has letters that are none in this locale's encoding, "
            f"{sys.getfilesystemencoding()}: set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
        )
    parsed = parse(value, f"the value of the override '{text}'", lined=False).value
    raw: dict[str, Any] = file.value
    rest = split(key, ".")
    node: Any = raw
    if key.startswith("recipe.") and isinstance(raw.get("recipe"), str):
        raw["recipe"] = {"base": raw["recipe"]}
    recipes = raw.get("recipes")
    if key.startswith("recipes.") and len(rest) > 2 and isinstance(recipes, dict):
        recipes |= {
            k: {"base": v} for k, v in recipes.items() if k == rest[1] and isinstance(v, str)
        }
    where: list[str | int] = []
    while (length := _length(node, rest) if where else 1) < len(rest):
        part, rest = ".".join(rest[:length]), rest[length:]
        if isinstance(node, list):
            where.append(_index(node, part, text))
        else:
            where.append(part)
            if node.get(part) is None:
                node[part] = {}
        node = node[where[-1]]
        if not isinstance(node, dict | list):
            raise ElthError(f"the override '{text}' goes below '{part}', which is a single value")
    last = ".".join(rest)
    where.append(_index(node, last, text) if isinstance(node, list) else last)
    node[where[-1]] = parsed
    file.forget(tuple(where))


def _length(node: Any, parts: Sequence[str]) -> int:
    """How many parts of a path are the next key, in which dots may stand.

    So they do in the name of a module, as ``my_lab.scores:by_age``, and in what a variant changes.
    """
    if isinstance(node, dict):
        for length in range(len(parts), 0, -1):
            if ".".join(parts[:length]) in node:
                return length
    return next((number for number, part in enumerate(parts, 1) if ":" in part), 1)


def spelled(key: str, value: str) -> str:
    """An override that sets a key to a text, whatever is in it."""
    with contextlib.suppress(ElthError):
        if parse(value, "", lined=False).value == value:
            return f"{key}={value}"
    return f"{key}={json.dumps(value)}"


def _index(node: list[Any], part: str, text: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ElthError(
            f"the override '{text}' names element '{part}' of a list of {len(node)}, counted from 0"
        )
    return int(part)
