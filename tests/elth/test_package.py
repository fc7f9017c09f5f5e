"""The package's surface: its names, and the examples in its docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import elth

pytestmark = pytest.mark.anywhere

MODULES = sorted(m.name for m in pkgutil.walk_packages(elth.__path__, "elth."))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_some_examples_are_found() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        t for name in MODULES for t in finder.find(importlib.import_module(name)) if t.examples
    ]
    assert {t.name for t in found} >= {"elth.counts.kept_after", "elth.streams.stream"}


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
        "NonFiniteLossError",
        "Plan",
        "Recipe",
        "Round",
        "Spec",
        "Step",
        "Ticket",
        "Training",
        "build_network",
        "explain",
        "imp",
        "load_dataset",
        "train_sparse",
        "train_ticket",
        "transform",
    }
    assert all(getattr(elth, name).__doc__ for name in elth.__all__ if name[0].islower())


PACKAGES = (
    "elth",
    "elth.analysis",
    "elth.criteria",
    "elth.data",
    "elth.dynamic",
    "elth.elastic",
    "elth.networks",
)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_can_be_imported(name: str) -> None:
    package = importlib.import_module(name)
    assert set(package.__all__) <= set(dir(package))
    for public in package.__all__:
        exec(f"from {name} import {public}", {})
    missing = f"module '{name}' has no attribute 'nothing'"
    with pytest.raises(AttributeError, match=missing):
        package.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec(f"from {name} import nothing", {})


def test_the_packages_and_their_descriptions_need_no_torch() -> None:
    code = (
        "import sys, elth, elth.data, elth.elastic, elth.networks, elth.criteria, elth.dynamic\n"
        "elth.Spec, elth.RECIPES, elth.Plan, elth.networks.Stage, elth.elastic.plans\n"
        "elth.data.info('cifar10'), elth.criteria.NAMES, elth.elastic.check_width, elth.apart\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "assert not elth.apart._others, 'not even in another process'\n"
        "assert elth.networks.resnet.NETWORKS['resnet20'] is elth.NETWORKS['resnet20']\n"
        "assert elth.build_network is elth.networks.build and 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
