"""Several workers that train one network, started by torchrun, against one worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from elth.data import load as load_dataset
from elth.dynamic import METHODS
from elth.streams import stream
from tests.e2e import parallel_worker as worker

pytestmark = pytest.mark.e2e

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two workers told."""
    path = tmp_path_factory.mktemp("parallel") / "told.json"
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(root),
    }
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(
                "--local-addr=127.0.0.1",
                "--nproc-per-node=2",
                str(Path(worker.__file__)),
                str(path),
            ),
        ],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return [json.loads(file.read_text()) for file in (path, path.with_suffix(".json.1"))]


def test_both_workers_see_the_same(told: list[dict[str, Any]]) -> None:
    assert told[0] == told[1]


@pytest.mark.parametrize("case", worker.CASES)
def test_two_workers_compute_what_one_does(case: str, told: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    spec, fields, steps = worker.CASES[case]
    data = load_dataset("digits")
    run = worker.training(spec, data, worker.recipe(**fields), None, stop=steps)
    expected = worker.losses(run)
    assert len(expected) == steps + 1
    assert told[0][case] == pytest.approx(expected, rel=1e-9)


def test_two_workers_are_repelled_as_one_is(told: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    expected = worker.repelled(load_dataset("digits"), None)
    plain = worker.losses(
        worker.training("resnet14(width=2)", load_dataset("digits"), worker.recipe(), None, stop=23)
    )
    assert told[0]["repelled"] == pytest.approx(expected, rel=1e-9)
    assert told[0]["repelled"][:-1] != pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_two_workers_have_the_mask_of_one(name: str, told: list[dict[str, Any]]) -> None:
    """Each has half of every batch: they would grow others, were gradients not averaged first."""
    torch.set_num_threads(1)
    *expected, mask = worker.evolved(name, load_dataset("digits"), None)
    *found, theirs = told[0][f"sparse: {name}"]
    assert theirs == mask
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("case", worker.IN_FLOAT32)
def test_in_float32_they_are_near(case: str, told: list[dict[str, Any]]) -> None:
    """How near is printed (``pytest -rP``) and stands in docs/reliability.md."""
    torch.set_num_threads(1)
    expected = worker.losses(worker.in_float32(case, load_dataset("digits"), None))
    found = told[0][f"{case}, in float32"]
    apart = [abs(a - b) / b for a, b in zip(found, expected, strict=True)]
    print(f"{case}: {apart[0]:.1e} at first, {max(apart):.1e} at most, {apart[-1]:.1e} in the test")
    assert apart[0] < 1e-5, "one iteration has no time to drift"


def test_it_is_the_same_twice_and_goes_on_bit_for_bit(told: list[dict[str, Any]]) -> None:
    first, second, gone_on = told[0]["the same twice, and gone on with"]
    assert first == second
    assert first == gone_on


def test_a_loss_that_is_not_finite_stops_all_before_the_update(
    told: list[dict[str, Any]],
) -> None:
    order = torch.randperm(1297, generator=stream(0, "order", 0))
    assert told[0]["not finite"] == int((order == 7).nonzero()) // 64


def test_workers_with_other_weights_are_refused(told: list[dict[str, Any]]) -> None:
    assert told[0]["other weights"].startswith("the tickets of worker 0 and of worker 1 differ")


def test_workers_with_another_repulsion_are_refused(told: list[dict[str, Any]]) -> None:
    expected = "the tickets and optima of worker 0 and of worker 1 differ"
    assert told[0]["other strengths"].startswith(expected)


@pytest.mark.parametrize("name", ["seed", "noise"])
def test_workers_with_other_arguments_are_refused(told: list[dict[str, Any]], name: str) -> None:
    expected = "the seed, noise, span, recipe or dataset of worker 0 and of worker 1 differ"
    assert told[0][f"another {name}"].startswith(expected)


def test_groups_that_would_be_torn_apart_are_refused(told: list[dict[str, Any]]) -> None:
    assert "groups of 64 images, and 2 workers have 32 images" in told[0]["too many workers"]
