"""Write what follows from the code: ``docs/reference.md`` and ``tune_configs/trainings.json``.

``make reference`` runs it; a test fails where either is not what it would write.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from elth import data, networks
from elth.measures import LINE, MEASURES, NETWORK, PAIR
from elth.recipes import RECIPES, Recipe
from elth.specs import Choice
from orchestrator import plan
from orchestrator.experiment import schema as schemas
from orchestrator.experiment import shipped
from orchestrator.experiment.methods import METHODS

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs/reference.md"
TRAININGS = ROOT / "tune_configs" / shipped.COUNTS

HEAD = """\
# Every key of a config

This page is written by `make reference` from the classes that check a config, and a test fails
where it is not what they say. How a config is written, and what its words mean, is in
[config.md](config.md). The same for editors is `elth schema`: a JSON schema, by which they complete
keys and mark what cannot be.

A key that is left out has its default; one without a default must be there. *Or a list* means that
a single value stands for a list of one; an entry of the grid is the product of its lists. A step is
a number of epochs or iterations, as `160ep` or `1000it`.
"""
SECTIONS = {
    "Entry": ("grid", "An entry of the grid"),
    "RecipeSection": ("recipe", "A recipe"),
    "Pruning": ("pruning", "Pruning"),
    "Stop": ("stop", "What ends a chain"),
    "Variant": ("variant", "A variant"),
    "Imported": ("ticket", "An imported ticket"),
    "Analysis": ("analysis", "An analysis"),
    "Selection": ("selection", "A selection of cells"),
    "Claim": ("claim", "A claim"),
    "Baseline": ("baseline", "A baseline"),
    "Paper": ("paper", "The table or figure of a paper"),
    "Printed": ("printed", "A printed number"),
    "Data": ("data", "Where data lie"),
    "Resources": ("resources", "What a trial gets"),
    "Scale": ("scale", "A profile of another size"),
}
"""Sections by the names of their classes: how others call them, and their headings."""
_SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_LOOKS_AT = {NETWORK: "one training", PAIR: "two trainings", LINE: "all rounds of a line"}


def reference() -> str:
    """The page, as Markdown."""
    schema = schemas.schema()
    defs = schema["$defs"]
    found = [HEAD, "## The file\n", _table(schema)]
    order = [*SECTIONS, *(name for name in defs if name not in SECTIONS and name != "Names")]
    for name in order:
        section = defs[name]
        _, title = _section(name)
        found.append(f"## {title}\n")
        if name == "Variant":
            found.append(
                f"{section['description']} Paths are `recipe.KEY`, `pruning.KEY` (but for `stop`), "
                "`recipes.DATASET.KEY` and `criteria.NAME.KEY`; mappings do as well.\n"
            )
        elif name == "Scale":
            found.append(
                f"{section['description']} It has the keys of the file, and `replace`: "
                f"{section['properties']['replace']['description']}\n"
            )
        else:
            about = section.get("description", "")
            found += [f"{about}\n"] if about else []
            beside = {"Analysis": _settings(), "Claim": set(METHODS)}.get(name, set())
            before = [_relation(section)] if name == "Claim" else []
            found.append(_table(section, leave_out=beside, before=before))
            if name == "RecipeSection":
                found.append("Without a base, `length` and `rewind` are needed.\n")
        if name == "Entry":
            found += ["## Datasets\n", _datasets(), "## Networks\n", _networks()]
        if name == "RecipeSection":
            found += ["### Recipes by name\n", _recipes()]
        if name == "Pruning":
            found += ["## Methods\n", _methods(), "## Settings of criteria\n", _criteria()]
        if name == "Analysis":
            found += ["### Measures\n", _measures()]
    return "\n".join(found)


def trainings() -> str:
    """How many trainings each config comes to, as JSON."""
    counts = {}
    for name, path in shipped.shipped().items():
        kinds = plan.count_kinds(plan.of_file(path)[1].stages.values())
        counts[name] = sum(kinds.get(k, 0) for k in ("round", "retraining", plan.SPARSE))
    return json.dumps(counts, indent=1) + "\n"


def _section(name: str) -> tuple[str, str]:
    """How a section is called, and its heading; one that is new here by its class."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return SECTIONS.get(name, (words.lower(), words.capitalize()))


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def _rows(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    told = ("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return "\n".join(told) + "\n"


def _table(
    section: Mapping[str, Any],
    leave_out: Iterable[str] = (),
    before: Iterable[Iterable[str]] = (),
) -> str:
    required = section.get("required", ())
    rows = [*before]
    for name, value in section["properties"].items():
        if name in leave_out:
            continue
        rows.append((f"`{name}`", *_cells(value, needed=name in required)))
    return _rows(("key", "value", "default", "what it is"), rows)


def _cells(value: Mapping[str, Any], *, needed: bool = False) -> tuple[str, str, str]:
    """What a value may be, its default, and what it is."""
    default = "*needed*" if needed else _default(value.get("default"))
    return _kind(value), default, value.get("description", "")


def _default(value: Any) -> str:
    if value is None or value in ("", [], {}) or isinstance(value, dict):
        return ""
    return f"`{_spelled(value)}`"


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " ".join(_spelled(one) for one in value)
    return str(value)


def _kind(value: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "$ref" in value:
        called, title = _section(value["$ref"].rpartition("/")[2])
        return f"[{called}](#{_anchor(title)})"
    if "enum" in value:
        return ", ".join(f"`{_spelled(one)}`" for one in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if "anyOf" in value:
        return _any_of(value["anyOf"])
    kind = value.get("type")
    if kind == "array":
        items = value["items"]
        if isinstance(items, list):
            return f"a list of {len(items)}: {_kind(items[0])}"
        return f"a list: {_kind(items)}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"names: {_kind(inner)}" if isinstance(inner, dict) and len(inner) else "a mapping"
    if kind == "string" and "ep|it" in value.get("pattern", ""):
        return "a step"
    words = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`"}
    return words.get(str(kind), "text") + _bounds(value)


def _any_of(choices: list[dict[str, Any]]) -> str:
    kinds = [one for one in choices if one.get("type") != "null"]
    if any(one.get("type") == "number" for one in kinds):  # or a text of one, as 1e-3
        kinds = [one for one in kinds if one.get("type") != "string"]
    kinds = [one for one in kinds if one.get("pattern") != ":"]
    told = list(dict.fromkeys(_kind(one) for one in kinds))
    lists = [one for one in told if one.startswith("a list: ")]
    rest = [one for one in told if one not in lists]
    many = [one.removeprefix("a list: ") for one in lists]
    return ", or ".join(
        [f"{one}, or a list" if one in many else one for one in rest]
        + [one for one in lists if one.removeprefix("a list: ") not in rest]
    )


def _bounds(value: Mapping[str, Any]) -> str:
    told = []
    for key, sign in _SIGNS.items():
        if key in value:
            told.append(f"{sign} {_spelled(value[key])}")
    return f" {', '.join(told)}" if told else ""


def _settings() -> set[str]:
    return {name for measure in MEASURES.values() for name in schemas.settings_of(measure.settings)}


def _relation(section: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """The row of a claim's method, which is a key of any method's name."""
    relation = section["additionalProperties"]
    about = (
        f"Exactly one, by the name of a method, as `ett: above`. {relation['description']} The "
        "margin is `margin` of the file; how it is judged is in [judging.md](judging.md)."
    )
    return ("`METHOD`", _kind(relation), "*needed*", about)


def _grouped(
    names: Iterable[str], of: Callable[[str], Mapping[str, Choice]]
) -> dict[tuple[tuple[str, Choice], ...], list[str]]:
    """Names with the same options, in one place."""
    found: dict[tuple[tuple[str, Choice], ...], list[str]] = {}
    for name in names:
        found.setdefault(tuple(of(name).items()), []).append(f"`{name}`")
    return found


def _datasets() -> str:
    """What datasets there are, then their options."""
    rows = []
    for name in data.DATASETS:
        known = None if name == "folder" else data.info(name)
        shape = str(known.shape) if known else "as its manifest says"
        sizes = (f"{known.train_size:,}", f"{known.test_size:,}") if known else ("", "")
        rows.append((f"`{name}`", shape, *sizes, data.about(name)))
    owners: dict[tuple[str, Choice], list[str]] = {}
    for name in data.DATASETS:
        for option in data.choices(name).items():
            owners.setdefault(option, []).append(f"`{name}`")
    options = (
        (f"`{key}`", ", ".join(names), *_cells(schemas.choice(one)))
        for (key, one), names in sorted(owners.items(), key=lambda item: item[0][0])
    )
    return "\n".join(
        [
            "With options as `cifar10(size=224, statistics=own)`; one of your own as "
            "`my_lab.data:cells` ([plugins.md](plugins.md#a-dataset)).\n",
            _rows(("dataset", "images", "training", "test", "what it is"), rows),
            _rows(("option", "of", "value", "default", "what it is"), options),
        ]
    )


def _networks() -> str:
    """What networks there are, by what they are, then their options."""
    ours: dict[str, list[str]] = {}
    for name in networks.names():
        ours.setdefault(networks.about(name), []).append(f"`{name}`")
    found = [
        "With options as `resnet20(width=32)`; one of your own as `my_lab.nets:wide(k=2)` "
        "([plugins.md](plugins.md)). `elth networks` has their sizes.\n",
        _rows(("networks", "what they are"), ((", ".join(n), about) for about, n in ours.items())),
    ]
    for options, names in _grouped(networks.names(), networks.choices).items():
        known = {name: schemas.choice(one) for name, one in options}
        found += [f"Options of {', '.join(names)}:\n", _table({"properties": known})]
    return "\n".join(found)


def _recipes() -> str:
    fields = [one.name for one in dataclasses.fields(Recipe)]
    rows = []
    for name, recipe in RECIPES.items():
        plain = recipe.plain()
        told = (f"{key} {_spelled(plain[key])}" for key in fields if key in plain)
        rows.append((f"`{name}`", ", ".join(told)))
    return _rows(("recipe", "what is not the default"), rows)


def _methods() -> str:
    rows = ((f"`{name}`", one.title, one.about) for name, one in METHODS.items())
    return _rows(("method", "in reports", "what is trained"), rows)


def _criteria() -> str:
    known = schemas.criterion_settings()
    rows = [
        (", ".join(names), f"`{key}`", *_cells(schemas.choice(one)))
        for settings, names in _grouped(known, known.__getitem__).items()
        for key, one in settings
        if key != "at"
    ]
    table = _rows(("criterion or method", "setting", "value", "default", "what it is"), rows)
    return (
        "Each has `at`, too: of a criterion the weights that are scored, `rewind` or `init`;\n"
        "of a method of sparse training where it starts, `init` or `rewind`. The first is the "
        "default.\n\n" + table
    )


def _measures() -> str:
    """The measures, then what may be set of them; measures with the same settings share rows."""
    rows = ((f"`{name}`", _LOOKS_AT[one.looks_at], one.about) for name, one in MEASURES.items())
    found = [_rows(("measure", "looks at", "what it is"), rows)]
    owners: dict[type[Any], list[str]] = {}
    for name, one in MEASURES.items():
        owners.setdefault(one.settings, []).append(f"`{name}`")
    for cls, names in owners.items():
        known = schemas.settings_of(cls)
        if known:
            found += [f"Settings of {', '.join(names)}:\n", _table({"properties": known})]
    return "\n".join(found)


if __name__ == "__main__":
    for path, text in ((REFERENCE, reference()), (TRAININGS, trainings())):
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
