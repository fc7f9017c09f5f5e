"""The package's surface: its names, and the examples in its docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import elth

MODULES = sorted(m.name for m in pkgutil.walk_packages(elth.__path__, "elth."))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_some_examples_are_found() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        t for name in MODULES for t in finder.find(importlib.import_module(name)) if t.examples
    ]
    assert {t.name for t in found} >= {"elth.masks.kept_after", "elth.streams.stream"}


def test_public_names() -> None:
    """Others rely on these: a name may come, but none may go."""
    assert set(elth.__all__) >= {
        "DATASETS",
        "NETWORKS",
        "RECIPES",
        "Anatomy",
        "DataShape",
        "Dataset",
        "ElthError",
        "Epoch",
        "Network",
        "NetworkSpec",
        "NonFiniteLossError",
        "Plan",
        "Recipe",
        "Step",
        "Ticket",
        "Training",
        "build_network",
        "explain",
        "load_dataset",
        "train_ticket",
        "transform",
    }
    assert all(getattr(elth, name).__doc__ for name in elth.__all__ if name[0].islower())
