"""Facts about networks and criteria, written down so that a plan need not import torch.

``facts.json`` beside this file is made by ``make facts``, and a test makes it again and compares.
What it does not tell is worked out from the code, with torch: it saves time and decides nothing.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("facts.json")

WITH_OPTIONS = ("resnet20(width=32)", "vgg13(fc=2)", "vgg13(fc=3)", "vgg13(fc=5)")
"""Networks of the papers that are told of beside those with default options."""
RESIZED = ("cifar10(size=224)",)
"""Datasets of the papers that are told of beside those without options."""


@functools.cache
def known() -> dict[str, Any]:
    """What is written down.

    ``criteria``: the settings of each, with their defaults. ``options``: for each network
    ``defaults`` and the ``words`` that an option may be. ``networks``: what ``elth.networks.facts``
    gives for a network, by name and then by shape as ``3x32x32/10`` (channels, sides, classes).
    """
    table: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return table


def work_out() -> dict[str, Any]:
    """Work out from the code what is to be written down."""
    from elth.criteria import _registry as criteria
    from elth.data import DATASETS, info
    from elth.errors import ElthError
    from elth.networks import NetworkSpec, _facts
    from elth.networks import _registry as networks

    names = [name for name in DATASETS if name != "folder"]
    shapes = dict.fromkeys(info(name).shape for name in (*names, *RESIZED))
    built: dict[str, Any] = {}
    for text in (*networks.NETWORKS, *WITH_OPTIONS):
        for shape in shapes:
            try:
                facts = asdict(_facts.work_out(NetworkSpec.parse(text), shape))
            except ElthError:  # such images are too small for it
                continue
            entry = built.setdefault(text, {"anatomy": facts.pop("anatomy"), "shapes": {}})
            entry["shapes"][_facts.spell(shape)] = facts
    return {
        "criteria": {name: criteria.options_in_code(name) for name in criteria.CRITERIA},
        "options": {
            name: {
                "defaults": networks.options_in_code(name),
                "words": networks.words_in_code(name),
            }
            for name in networks.NETWORKS
        },
        "networks": built,
    }


def text() -> str:
    """The file as it should be: a line for each criterion and each network."""
    sections = (
        f' "{section}": {{\n'
        + ",\n".join(f'  "{name}": {json.dumps(entry)}' for name, entry in entries.items())
        + "\n }"
        for section, entries in work_out().items()
    )
    return "{\n" + ",\n".join(sections) + "\n}\n"


if __name__ == "__main__":
    # What was written down may have changed: while it is worked out, nothing is known.
    PATH.write_text('{"criteria": {}, "options": {}, "networks": {}}\n', encoding="utf-8")
    PATH.write_text(text(), encoding="utf-8")
