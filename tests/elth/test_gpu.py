"""Whole trainings on a GPU."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from elth import RECIPES, arithmetic, masks
from elth.checkpoints import Checkpoint
from elth.data import Dataset
from elth.data import load as load_dataset
from elth.dynamic import METHODS
from elth.engine import Engine
from elth.networks import DataShape, build
from elth.recipes import Recipe, Step
from elth.repulsion import Repulsion
from elth.sparse import train_sparse
from elth.streams import stream
from elth.tickets import state_digest
from elth.training import Training, evaluation_batch

pytestmark = pytest.mark.gpu

SPEC = "resnet14(width=8)"


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits").to("cuda")


def _training(
    data: Dataset,
    *,
    compile: bool,
    precision: str,
    engine: Engine | None = None,
    **given: Any,
) -> Training:
    changes: dict[str, Any] = {"length": Step(8, "ep"), "milestones": (), "batch_size": 32}
    recipe = dataclasses.replace(RECIPES["digits_resnet"], precision=precision, **changes)
    shape = data.info.shape
    network = build(SPEC, shape, generator=stream(0, "init"))
    engine = engine or Engine(
        build(SPEC, shape, generator=stream(1, "init")),
        recipe,
        data.device,
        shape=(shape.channels, shape.size, shape.size),
        evaluation_batch=evaluation_batch(data.info),
        compile=compile,
    )
    generator = stream(0, "mask")
    mask = {
        name: torch.rand(one.shape, generator=generator) < 0.5
        for name, one in masks.ones(network).items()
    }
    return Training(engine, data, recipe, seed=0, state=network.state_dict(), mask=mask, **given)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("compile", [False, True])
def test_a_training_learns_and_gives_the_same_bits_twice(
    compile: bool, precision: str, data: Dataset
) -> None:
    ends = []
    for _ in range(2):
        run = _training(data, compile=compile, precision=precision)
        epochs = list(run)
        ends.append((repr(epochs), state_digest(run.state())))
        assert epochs[-1].test_accuracy > 70, "far above chance, which is 10"
    assert ends[0] == ends[1]


class _Attending(nn.Module):
    """Attention over 512 tokens, some blocks of keys of what is fused."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, 64)
        self.attention = nn.MultiheadAttention(64, 2, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(images.flatten(1).repeat(1, 8).unsqueeze(2))
        return self.head((tokens + self.attention(tokens, tokens, tokens)[0]).mean(1))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("compile", [False, True])
def test_attention_gives_the_same_bits_twice(compile: bool, precision: str, data: Dataset) -> None:
    torch.manual_seed(0)
    state = _Attending().state_dict()
    shape = data.info.shape
    changes: dict[str, Any] = {"length": Step(4, "ep"), "milestones": (), "batch_size": 32}
    recipe = dataclasses.replace(RECIPES["digits_resnet"], precision=precision, **changes)
    ends = set()
    for _ in range(2):
        engine = Engine(
            _Attending(),
            recipe,
            data.device,
            shape=(shape.channels, shape.size, shape.size),
            evaluation_batch=evaluation_batch(data.info),
            compile=compile,
        )
        run = Training(engine, data, recipe, seed=0, state=state)
        list(run)
        ends.add(state_digest(run.state()))
    assert len(ends) == 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_graph_on_another_gpu_than_the_first_trains() -> None:
    """A capture is of the current device unless it is told which."""
    ends = []
    for place in ("cuda:0", "cuda:1"):
        run = _training(load_dataset("digits").to(place), compile=True, precision="float32")
        epochs = list(run)
        assert run.engine.way == "compiled-graph"
        assert epochs[-1].test_accuracy > 70
        ends.append(state_digest(run.state()))
    assert ends[0] == ends[1]


_ALONE = """
import sys
from elth.data import load
from elth.tickets import state_digest
from tests.elth.test_gpu import _training
device, precision = sys.argv[1:]
run = _training(load("digits").to(device), compile=True, precision=precision, stop=60)
list(run)
print(run.engine.way, state_digest(run.state()))
"""


def ends_of_processes(device: str, precision: str, folder: Path) -> set[str]:
    """What trainings come to that are compiled by processes of their own, without common files."""
    root = str(Path(__file__).parents[2])
    return {
        subprocess.run(
            [sys.executable, "-c", _ALONE, device, precision],
            env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder / number), "PYTHONPATH": root},
            cwd=root,
            check=True,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        ).stdout
        for number in ("first", "second")
    }


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_each_process_compiles_to_the_same_bits(precision: str, tmp_path: Path) -> None:
    """PyTorch times kernels before it chooses one, and two of them may add up in other orders."""
    (end,) = ends_of_processes("cuda", precision, tmp_path)
    assert end.startswith("compiled")


@pytest.mark.parametrize("compile", [False, True])
def test_it_goes_on_from_a_checkpoint_bit_for_bit(compile: bool, data: Dataset) -> None:
    kept: list[Checkpoint] = []
    run = _training(
        data,
        compile=compile,
        precision="float32",
        at_check=lambda run: kept.append(run.checkpoint()),
    )
    epochs = list(run)
    assert len(kept) == 3, "328 iterations, looked at after each hundred"
    again = _training(data, compile=compile, precision="float32")
    again.resume(kept[1])
    assert repr(list(again)[-1]) == repr(epochs[-1])
    assert state_digest(again.state()) == state_digest(run.state())


def _optima(data: Dataset, count: int) -> list[dict[str, torch.Tensor]]:
    shape = data.info.shape
    return [
        build(SPEC, shape, generator=stream(seed, "init")).state_dict() for seed in range(count)
    ]


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("compile", [False, True])
def test_one_engine_repels_round_after_round(compile: bool, precision: str, data: Dataset) -> None:
    """Each round has the bits of an engine of its own, and its loss is that of the CPU."""
    given: dict[str, Any] = {"compile": compile, "precision": precision}
    slow: dict[str, Any] = {"compile": False, "precision": "float32", "stop": 1}
    first = _training(data, **given)
    plain = (repr(list(first)), state_digest(first.state()))
    for count in (1, 3, 0):
        repulsion = Repulsion(2, _optima(data, count))
        ends = []
        for engine in (first.engine, None):
            run = _training(data, **given, repulsion=repulsion, engine=engine)
            ends.append((repr(list(run)), state_digest(run.state())))
        assert ends[0] == ends[1]
        assert (ends[0] == plain) is (count == 0)
        (found,) = _training(data, **given, repulsion=repulsion, engine=first.engine, stop=1)
        (expected,) = _training(data.to("cpu"), **slow, repulsion=repulsion)
        assert (found.repulsion or 0) == pytest.approx(expected.repulsion or 0, rel=1e-5)


@pytest.mark.parametrize("compile", [False, True])
def test_a_repelled_training_goes_on_from_a_checkpoint(compile: bool, data: Dataset) -> None:
    kept: list[Checkpoint] = []
    given: dict[str, Any] = {"compile": compile, "precision": "float32"}
    given["repulsion"] = Repulsion(2, _optima(data, 2))
    run = _training(data, **given, at_check=lambda run: kept.append(run.checkpoint()))
    epochs = list(run)
    again = _training(data, **given)
    again.resume(kept[1])
    assert repr(list(again)[-1]) == repr(epochs[-1])
    assert state_digest(again.state()) == state_digest(run.state())


@pytest.mark.parametrize("name", METHODS)
def test_one_engine_trains_with_masks_that_change(name: str, data: Dataset) -> None:
    """A graph serves every method, twice with the same bits, and is near eager and the CPU."""
    by = dataclasses.replace(
        RECIPES["digits_resnet"], length=Step(8, "ep"), milestones=(), batch_size=32
    )
    settings: dict[str, Any] = {} if name == "static" else {"every": "20it"}
    found: list[Any] = []
    for where, compile in (("cuda", True), ("cuda", True), ("cuda", False), ("cpu", False)):
        run = train_sparse(
            SPEC, data.to(where), by, name, sparsity=0.8, compile=compile, **settings
        )
        last = run.run(lambda _: None)
        assert run.evolution is not None
        mask = {name: m.cpu() for name, m in run.evolution.mask.items()}
        assert all(not run.state()[n][~m].any() for n, m in mask.items())
        found.append((masks.nonzeros(mask), last.test_accuracy, state_digest(run.state())))
        if compile:
            assert run.engine.way == "compiled-graph"
    assert found[0] == found[1]
    assert len({kept for kept, _, _ in found}) == 1
    assert all(accuracy == pytest.approx(found[0][1], abs=8) for _, accuracy, _ in found)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("name", ["resnet20", "vgg13(width=16)", "mobilenet", "mlp2"])
def test_a_gpu_computes_rightly(name: str, precision: str) -> None:
    """If this holds on the GPUs that people have, what is found on one may be refused."""
    shape = DataShape(channels=3, size=32, classes=10)
    network = build(name, shape, generator=stream(0, "init"))
    recipe = Recipe(length=Step(1, "ep"), rewind=Step(0, "ep"), precision=precision)
    found = arithmetic.look(network, recipe, torch.device("cuda"), shape.image)
    assert found.is_sound, arithmetic.told(found, recipe, torch.device("cuda"))
    assert found.compared > 0
