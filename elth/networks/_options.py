"""Whether a network has the options that it is given, by a catalogue of all networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elth import specs
from elth.errors import unknown
from elth.specs import Spec

Catalogue = Mapping[str, Mapping[str, Any]]
"""For each network the ``defaults`` of its options, and the ``words`` that an option may be."""


def of(name: str, catalogue: Catalogue) -> Mapping[str, Any]:
    """What is told of a network.

    Raises:
        ElthError: there is none of this name.
    """
    if name not in catalogue:
        raise unknown("network", name, catalogue)
    return catalogue[name]


def canonical(spec: str | Spec, catalogue: Catalogue) -> Spec:
    """Check a name and its options; sort them, and leave out those that say the default.

    Raises:
        ElthError: unknown network or option, a value of another type than the default's, or a word
            that the option does not know.
    """
    spec = Spec.parse(spec)
    told = of(spec.name, catalogue)
    return specs.canonical(spec, "network", told["defaults"], words=told["words"])
