"""What the tests of ``elth`` share: one thread, repeatable examples, and the real datasets."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile(
    "elth", deadline=None, derandomize=True, database=None, max_examples=50
)
hypothesis.settings.load_profile("elth")

UNPACK = Path(__file__).parents[3] / "shared" / "data" / "unpack.py"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Bits depend on the number of threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MNIST and CIFAR-10 as torchvision lays them out, and ``imagenette224``."""
    if given := os.environ.get("ELTH_TEST_DATA"):
        return Path(given)
    if not UNPACK.exists():
        pytest.skip("no real datasets here: set ELTH_TEST_DATA to a folder with MNIST and CIFAR-10")
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # one for all workers; what is there already is left as it is
    with (place / "data.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = ("mnist", "cifar10", "imagenette")
        command = [sys.executable, "-B", str(UNPACK), str(place / "data"), *names]
        subprocess.run(command, check=True)
    return place / "data"
