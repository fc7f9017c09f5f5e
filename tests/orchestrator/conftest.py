"""What the tests of ``orchestrator`` share: one thread, empty stores, and a small finished grid."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"

import pytest
import torch

from elth import step_times
from orchestrator.store.address import Store
from orchestrator.store.tracker import Tracker
from orchestrator.work import training
from tests.orchestrator.helpers import Finished, finish
from tests.orchestrator.helpers import inside as look_inside
from tests.orchestrator.helpers import stopped as make_stopped


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Bits depend on the number of threads."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_store_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that the environment names is none of the tests' business, nor are its users.

    What a test takes from an address into the environment is gone after it.
    """
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "taken note of, so that it is restored")
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_times_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No step was timed before; a test that keeps one does so for itself."""
    monkeypatch.setattr(step_times, "cache_folder", lambda name: tmp_path / "cache" / name)


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, to be copied: to create one takes seconds, to copy it a moment."""
    place = tmp_path_factory.mktemp("empty") / "runs"
    Tracker(Store.of(place)).stages()
    return place


@pytest.fixture
def store(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of the test's own: what another test has tracked cannot be met in it."""
    place = tmp_path_factory.mktemp("store") / "runs"
    shutil.copytree(empty, place)
    with contextlib.closing(sqlite3.connect(place / "mlflow.db")) as base, base:
        # The tests' own client of MLflow goes by it, unlike ours.
        names = (empty.as_uri(), place.as_uri())
        base.execute(
            "UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)", names
        )
    return Store.of(place)


@pytest.fixture
def tracker(store: Store) -> Tracker:
    """The tracker of ``store``."""
    return Tracker(store)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A tiny grid with every method, done by ``run_job`` in this process."""
    return finish(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A grid of which one chain has ended early, and nothing is left to do."""
    return make_stopped(tmp_path_factory.mktemp("stopped"))


@pytest.fixture(scope="session")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Two grids with variants, a twin, other ways of IMP, an imported ticket and analyses."""
    return look_inside(tmp_path_factory.mktemp("inside"))


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is trained now is trained in vain."""

    def train(*_: object, **__: object) -> Iterator[object]:
        raise AssertionError("this was finished already")

    monkeypatch.setattr(training, "train", train)
