"""Whether a network has the options that it is given, by what its function tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elth import specs
from elth.specs import Spec


def canonical(spec: str | Spec, told: Mapping[str, Any]) -> Spec:
    """Check options; sort them, and leave out those that say the default.

    Args:
        spec: the network.
        told: the ``defaults`` of its options, and the ``words`` that an option may be.

    Raises:
        ElthError: unknown option, a value of another type than the default's, or a word
            that the option does not know.
    """
    spec = Spec.parse(spec)
    return specs.canonical(
        spec,
        "network",
        told["defaults"],
        words=told["words"],
        least=None if "module" in told else 1,  # what a number means its author knows
    )
