"""Names of a package that are imported when they are first asked for (PEP 562).

torch takes two seconds to import, which a plan or a help page need not wait for. A package names
here what needs torch; beside it, under ``TYPE_CHECKING``, stand the same names for type checkers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def lazily(
    package: str, names: Mapping[str, tuple[str, ...]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package; its modules are found too.

    Args:
        package: its ``__name__``.
        names: for each module what is taken from it, as ``load`` or ``load as load_dataset``.
    """
    places: dict[str, tuple[str, str]] = {}
    for module, some in names.items():
        for text in some:
            name, _, alias = text.partition(" as ")
            places[alias or name] = (module, name)

    def get(name: str) -> Any:
        if name in places:
            module, original = places[name]
            value = getattr(import_module(module), original)
        elif not name.startswith("_") and find_spec(f"{package}.{name}"):
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        vars(sys.modules[package])[name] = value  # so that this is asked once
        return value

    def names_now() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places})

    return get, names_now
