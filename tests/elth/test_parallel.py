"""What several workers share a batch by, and two that are compiled.

``tests/e2e/test_parallel.py`` compares several with one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from elth.data import Part
from elth.data import load as load_dataset
from elth.errors import ElthError
from elth.parallel import Gradients, Group, arrange_norms, group, rehearsing
from elth.training import Training
from tests.e2e import parallel_worker as worker
from tests.elth import compiling_worker as compiling


def test_what_batch_normalisation_looks_at_matters() -> None:
    data, spec = load_dataset("digits"), "resnet14(width=2)"
    found = {
        unit: worker.losses(
            worker.training(spec, data, worker.recipe(batch_norm_group=unit), None, stop=3)
        )
        for unit in (0, 16, 64)
    }
    assert found[0] == pytest.approx(found[64], rel=1e-9)
    assert found[0] != pytest.approx(found[16], rel=1e-3)


@pytest.mark.parametrize(
    ("workers", "fields", "message"),
    [
        (3, {}, "a batch of 64 images cannot be divided evenly among 3 workers"),
        (4, {"batch_norm_group": 32}, "take at most 2 workers, a divisor of 2"),
    ],
)
def test_a_number_of_workers_that_does_not_fit_the_recipe(
    workers: int, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ElthError, match=message):
        worker.recipe(**fields).check_division(workers)


def test_a_process_that_nothing_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ElthError, match="no RANK, WORLD_SIZE, MASTER_ADDR .* start it with torch"):
        group().__enter__()


@pytest.mark.parametrize(
    ("gpus", "given", "own"),
    [
        (4, {"LOCAL_RANK": "1", "SLURM_LOCALID": "2"}, 1),
        (4, {"SLURM_LOCALID": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "3"}, 2),
        (4, {"OMPI_COMM_WORLD_LOCAL_RANK": "3"}, 3),
        (1, {"SLURM_LOCALID": "2"}, 0),  # srun lets it see one
        (1, {"LOCAL_RANK": "3", "SLURM_LOCALID": "3"}, 0),
        (4, {"LOCAL_RANK": "3", "WORLD_SIZE": "1"}, 3),
        (4, {"WORLD_SIZE": "1"}, 0),
        (1, {}, 0),
    ],
)
def test_each_process_takes_a_gpu_of_its_own(
    gpus: int, given: dict[str, str], own: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _gpu_of(gpus, given, monkeypatch) == own


def test_a_process_that_is_not_told_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ElthError, match="one of 2, sees 4 GPUs .* set LOCAL_RANK to its number on"):
        _gpu_of(4, {}, monkeypatch)


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ElthError, match=r"is number 4 of its machine \(LOCAL_RANK\) and sees 4 GPU"
    ):
        _gpu_of(4, {"LOCAL_RANK": "4"}, monkeypatch)


def test_workers_check_as_often_as_their_iterations_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first one's clock, and all alike; by iterations alone where a check has effects."""
    clock, given = iter((0.0, 15.0, 100.0, 100.001, 200.0, 1000.0)), []

    def share(value: int) -> int:
        given.append(value)
        return value

    monkeypatch.setattr("elth.training.time.monotonic", lambda: next(clock))
    engine = SimpleNamespace(failed_at=lambda: -1)
    one: Any = SimpleNamespace(
        _group=SimpleNamespace(share=share),
        **{"recipe": SimpleNamespace(batch_norm_group=None), "engine": engine, "_every": 100},
    )
    for every in (3, 100, 1):  # 3 s an iteration, next to nothing, 160 s
        for done in range(1, 9):
            Training._space_checks(one, done)
        assert one._every == every
    one.recipe.batch_norm_group = 32
    Training._space_checks(one, 1)
    one._group = None
    Training._space_checks(one, 1)
    assert given == [3, 100, 1]


def _gpu_of(gpus: int, given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> int | None:
    """The GPU that a process takes, one of two unless told."""
    for name in ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    surroundings = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", **given}
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(dist, name, lambda *_: None)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    with group() as workers:
        assert taken == [workers.device]
        return workers.device.index


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 3, 16, 17])
def test_parts_are_the_batch(size: int, workers: int, unit: int) -> None:
    batch = torch.arange(size)
    parts = [Part(rank, workers, unit).of(batch) for rank in range(workers)]
    assert torch.equal(torch.cat(parts), batch)
    assert all(int(part[0]) % unit == 0 for part in parts if len(part))
    assert max(map(len, parts)) - min(map(len, parts)) <= 2 * unit - 1


def test_a_rehearsal_sends_nothing_and_notes_what_it_would_have_sent() -> None:
    alone = Group(1, 3, torch.device("cpu"))
    with rehearsing() as sums:
        assert alone.mean(torch.tensor(6.0)) == 2
        assert torch.equal(alone.sum(torch.ones(2)), torch.ones(2))
    assert sums == ["a sum: ()", "a sum: (2,)"]
    with pytest.raises(ValueError, match="process group has not been initialized"):
        alone.sum(torch.ones(2))


def test_gradients_keep_their_layout_and_their_place() -> None:
    laid_out = torch.zeros(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    kernel, bias = nn.Parameter(laid_out), nn.Parameter(torch.zeros(4))
    double = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    shared = Gradients([kernel, bias, double], workers=4)
    kernel.grad = torch.arange(24.0).view(2, 3, 2, 2)
    bias.grad, double.grad = torch.ones(4), torch.ones_like(double)
    with rehearsing() as sums:
        shared.average()
    assert sums == ["gradients: (28,)", "gradients: (2,)"]
    assert torch.equal(kernel.grad, torch.arange(24.0).view(2, 3, 2, 2) / 4)
    assert kernel.grad.stride() == kernel.stride()
    assert (bias.grad.tolist(), double.grad.tolist()) == ([0.25] * 4, [0.25] * 2)
    places = [kernel.grad, bias.grad]
    kernel.grad, bias.grad, double.grad = None, torch.ones(4), torch.ones_like(double)
    with rehearsing():
        shared.average()
    assert kernel.grad is None, "the loss did not depend on it"
    assert not places[0].any(), "what was there is not added up again"
    assert bias.grad.data_ptr() == places[1].data_ptr()


def test_on_gpus_an_empty_part_sends_what_the_others_send(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, torch.dtype]] = []

    def forward(self: nn.SyncBatchNorm, input: torch.Tensor) -> torch.Tensor:
        sent.append((len(input), input.dtype))
        return input * self.weight[:, None, None].to(input.dtype)

    monkeypatch.setattr(nn.SyncBatchNorm, "forward", forward)
    network = nn.Sequential(nn.BatchNorm2d(3))
    weights = dict(network.named_parameters())
    arrange_norms(network, 0, Group(1, 2, torch.device("cuda")))
    assert isinstance(network[0], nn.SyncBatchNorm)
    assert all(one is weights[name] for name, one in network.named_parameters())
    for images in (0, 2):
        for dtype in (torch.bfloat16, torch.float32, torch.float64):
            part = torch.ones(images, 3, 2, 2, dtype=dtype, requires_grad=True)
            told = network(part)
            assert told.dtype == dtype
            told.sum().backward()
            assert part.grad is not None
            assert part.grad.shape == part.shape
    assert sent == [
        (0, torch.float32),  # PyTorch takes what it sends from it: of bfloat16 that is float32
        (0, torch.float32),
        (0, torch.float64),
        (2, torch.bfloat16),
        (2, torch.float32),
        (2, torch.float64),
    ]
    arrange_norms(network, 0, None)
    assert {type(layer) for layer in network} == {nn.BatchNorm2d}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two workers told, of which the first one; they tell the same."""
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler here")
    folder = tmp_path_factory.mktemp("compiled")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = {
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "WORLD_SIZE": "2",
    }
    command = [sys.executable, "-m", "tests.elth.compiling_worker", str(folder / "told")]
    with (folder / "log").open("w") as log:
        begun = [
            subprocess.Popen(
                command, env={**os.environ, **given, "RANK": str(rank)}, stdout=log, stderr=log
            )
            for rank in range(2)
        ]
        try:
            ended = [process.wait(timeout=480) for process in begun]
        finally:
            for process in begun:
                process.kill()
    assert ended == [0, 0], (folder / "log").read_text()[-4000:]
    first, second = (json.loads((folder / f"told.{rank}").read_text()) for rank in range(2))
    own = ("_fails", "_adds_up_more", "OutOfMemoryError", "WrongArithmeticError")
    for name in own:  # each has a note of its own
        first[f"{name}, second"] = second.pop(name)
    assert second == {name: one for name, one in first.items() if name in second}
    found: dict[str, Any] = first
    return found


@pytest.mark.parametrize("name", ["whole batch", "groups"])
def test_compiled_workers_compute_what_eager_ones_do(name: str, compiled: dict[str, Any]) -> None:
    assert compiled[f"{name}: ways"] == [["compiled", ""], ["eager", ""]]
    fast, slow = compiled[f"{name}: fast"], compiled[f"{name}: slow"]
    assert fast != slow, "two orders of sums"
    assert fast[0] != fast[1]
    for seed in (0, 1):
        _is_near(fast[seed], slow[seed])


@pytest.mark.parametrize("name", ["repelled", *compiling.EVOLVED])
def test_compiled_workers_repel_and_change_masks(name: str, compiled: dict[str, Any]) -> None:
    fast, slow = compiled[f"{name}: fast"], compiled[f"{name}: slow"]
    _is_near(fast, slow)
    if name == "repelled":
        assert fast[1] == pytest.approx(slow[1], rel=1e-2)
        assert fast[0] != compiled["whole batch: fast"][0][0]
    else:
        before, after = fast[2]
        assert fast[2] == slow[2], "the same masks"
        assert before != after
    assert compiled["compiled again"] == 0


def _is_near(fast: list[Any], slow: list[Any]) -> None:
    epochs, others = fast[0], slow[0]
    assert len(epochs) == len(others) == 2
    for one, other in zip(epochs, others, strict=True):
        assert one[:2] == pytest.approx(other[:2], rel=1e-3)
        assert one[2] == pytest.approx(other[2], abs=0.5)
        assert one[3] == other[3]


def test_a_compiled_training_goes_on_bit_for_bit(compiled: dict[str, Any]) -> None:
    whole, gone_on = compiled["gone on with"]
    assert whole == gone_on


def test_a_worker_that_cannot_compare_its_code_is_compiled_as_the_others(
    compiled: dict[str, Any],
) -> None:
    """As one that trains alone is: it says so."""
    assert compiled["OutOfMemoryError"] == ["compiled", ""]
    way, note = compiled["OutOfMemoryError, second"]
    assert way == "compiled"
    assert note.startswith("compiled code could not be compared with the network: no room")


def test_where_one_worker_is_wrong_all_end(compiled: dict[str, Any]) -> None:
    assert compiled["WrongArithmeticError, second"] == ["WrongArithmeticError", "it is wrong"]
    kind, text = compiled["WrongArithmeticError"]
    assert kind == "ElthError"
    assert text == "worker 1 of these cannot train, and says why: see its own error"


@pytest.mark.parametrize(
    ("fault", "notes"),
    [
        (
            "_fails",
            (
                "these workers train operation by operation, .*: compiling failed for worker 1$",
                "compiling Sequential failed, .*: no compiler$",
            ),
        ),
        ("_adds_up_more", (".* slower: their compiled code adds up in different orders$",) * 2),
    ],
)
def test_where_one_worker_cannot_all_train_as_eager(
    fault: str, notes: tuple[str, str], compiled: dict[str, Any]
) -> None:
    """Each says why; none waits for another."""
    expected = compiled["whole batch: slow"][0]
    for name, note in ((fault, notes[0]), (f"{fault}, second", notes[1])):
        way, said, is_warned, found = compiled[name]
        assert way == "eager"
        assert re.match(note, said), said
        assert is_warned
        assert found == expected
