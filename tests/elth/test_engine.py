"""Engines: one for many trainings, compiled as eager, and what happens where that fails."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elth import masks
from elth.data import Dataset
from elth.data import load as load_dataset
from elth.engine import Engine
from elth.errors import ElthError
from elth.networks import Network, build
from elth.recipes import Recipe, Step
from elth.repulsion import Repulsion
from elth.streams import stream
from elth.training import Training, evaluation_batch

LOSSES = {"float32": 1e-4, "bf16": 2e-2}
"""How far the first ten losses of a compiled training may be from eager ones, relative.

Later ones part as those of any two orders of summation do.
"""


def _recipe(**fields: Any) -> Recipe:
    values: dict[str, Any] = {"length": Step(2, "ep"), "rewind": Step(0, "ep"), "lr": 0.02}
    return Recipe(**{**values, **fields})


def _network(spec: str, data: Dataset, seed: int = 0) -> Network:
    return build(spec, data.info.shape, generator=stream(seed, "init"))


def _engine(spec: str, data: Dataset, recipe: Recipe, *, compile: bool) -> Engine:
    shape = data.info.shape
    return Engine(
        _network(spec, data),
        recipe,
        data.device,
        shape=(shape.channels, shape.size, shape.size),
        evaluation_batch=evaluation_batch(data.info),
        compile=compile,
    )


def _mask(network: Network, seed: int) -> dict[str, Tensor]:
    generator = stream(seed, "mask")
    return {
        name: torch.rand(one.shape, generator=generator) < 0.4
        for name, one in masks.ones(network).items()
    }


def _losses(
    spec: str,
    engine: Engine,
    data: Dataset,
    *,
    seed: int,
    steps: int,
    repulsion: Repulsion | None = None,
) -> list[float]:
    """The loss of each iteration, of a network and a mask of this seed."""
    network = _network(spec, data, seed)
    run = Training(
        engine,
        data,
        engine.recipe,
        seed=seed,
        state=network.state_dict(),
        mask=_mask(network, seed),
        stop=steps,
        repulsion=repulsion,
    )
    run.network.train()
    losses = []
    batches = data.train_batches(
        batch_size=engine.recipe.batch_size, augment="none", seed=seed, epoch=0, stop=steps
    )
    for images, labels in batches:
        engine.step(images, labels, engine.recipe.lr)
        losses.append(engine.loss_sum() / len(labels))
    return losses


@pytest.fixture(scope="module")
def digits() -> Dataset:
    torch.set_num_threads(1)
    return load_dataset("digits")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled code of this module's tests alone."""
    return tmp_path_factory.mktemp("inductor")


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler here")
@pytest.mark.parametrize(
    ("spec", "precision"), [("resnet14(width=4)", "float32"), ("mlp2(width=32)", "bf16")]
)
def test_compiled_losses_are_those_of_eager(
    spec: str,
    precision: str,
    digits: Dataset,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    further: dict[str, Any] = {}
    if precision == "bf16":
        further = {"label_smoothing": 0.1, "nesterov": True, "decay": "kernels"}
    recipe = _recipe(precision=precision, batch_size=64, **further)
    fast = _engine(spec, digits, recipe, compile=True)
    slow = _engine(spec, digits, recipe, compile=False)
    assert (fast.way, slow.way) == ("compiled", "eager")
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for seed in (0, 1):
        found = _losses(spec, fast, digits, seed=seed, steps=20)
        expected = _losses(spec, slow, digits, seed=seed, steps=20)
        assert found[:10] == pytest.approx(expected[:10], rel=LOSSES[precision])
        assert found[-1] < found[0]
        state, mask = fast.network.state_dict(), _mask(_network(spec, digits, seed), seed)
        assert all(not state[name][~kept].any() for name, kept in mask.items())
        again = _losses(spec, fast, digits, seed=seed, steps=20)
        assert found == again, "the same bits every time"
        optima = [_network(spec, digits, other).state_dict() for other in (seed, 2)]
        away, near = (
            _losses(spec, engine, digits, seed=seed, steps=10, repulsion=Repulsion(2, optima))
            for engine in (fast, slow)
        )
        # Repelled from the weights it starts at, it leaves them steeply: sums part sooner.
        assert away[:6] == pytest.approx(near[:6], rel=LOSSES[precision])
        assert away != found[:10]
    run = Training(fast, digits, recipe, seed=0, state=_network(spec, digits).state_dict())
    list(run)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs, "compiled once"
    (accuracy, loss), whole = run.evaluate(), run.state()
    alone = Training(slow, digits, recipe, seed=0, state=whole)
    assert alone.evaluate() == pytest.approx((accuracy, loss), rel=LOSSES[precision], abs=0.5)


_OTHERS_CODE = """
import sys, torch
torch.set_num_threads(1)
from elth.data import load
from tests.elth.test_engine import _engine, _losses, _recipe
digits = load("digits")
for compile in (True, False):
    engine = _engine("mlp2(width=16)", digits, _recipe(batch_size=64), compile=compile)
    print(engine.way, *_losses("mlp2(width=16)", engine, digits, seed=0, steps=10))
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler here")
def test_a_machine_takes_no_code_that_was_compiled_on_one_of_another_kind(tmp_path: Path) -> None:
    """They share a folder, as one at home; PyTorch's own keys do not tell them apart."""
    if os.environ.get("ATEN_CPU_CAPABILITY"):
        pytest.skip("this process is limited to some of its machine's instructions")
    vectors = torch.backends.cpu.get_cpu_capability()
    if vectors not in ("AVX512", "AVX2"):
        pytest.skip(f"PyTorch has no lesser instructions than this machine's {vectors}")
    for capability in (vectors.lower(), "avx2" if vectors == "AVX512" else "default"):
        ran = subprocess.run(
            [sys.executable, "-c", _OTHERS_CODE],
            env=os.environ
            | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "ATEN_CPU_CAPABILITY": capability},
            check=True,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        (fast, *losses), (slow, *expected) = (line.split() for line in ran.stdout.splitlines())
        assert (fast, slow) == ("compiled", "eager"), ran.stderr
        assert [*map(float, losses)] == pytest.approx([*map(float, expected)], rel=1e-4)
    assert len([one for one in tmp_path.iterdir() if "-" in one.name]) == 2


def test_where_compiling_fails_it_trains_as_eager_and_says_so(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(function: Any, **_: Any) -> Any:
        def fails(*args: Any) -> Any:
            raise RuntimeError("no compiler\nhere")

        return fails

    monkeypatch.setattr(torch, "compile", broken)
    recipe = _recipe(batch_size=64)
    with pytest.warns(UserWarning, match="compiling MLP failed, .* slower: no compiler$"):
        engine = _engine("mlp2(width=8)", digits, recipe, compile=True)
    assert engine.way == "eager"
    assert engine.note.startswith("compiling MLP failed")
    monkeypatch.undo()
    slow = _engine("mlp2(width=8)", digits, recipe, compile=False)
    found = _losses("mlp2(width=8)", engine, digits, seed=0, steps=4)
    assert found == _losses("mlp2(width=8)", slow, digits, seed=0, steps=4)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: out of memory"),
    ],
    ids=repr,
)
def test_too_little_memory_is_no_reason_for_a_slower_way(
    error: Exception, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise error

    recipe = _recipe(batch_size=64)
    engine = _engine("mlp2(width=8)", digits, recipe, compile=False)
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(type(error), match="out of memory"):
        _engine("mlp2(width=8)", digits, recipe, compile=True)
    engine._images = torch.zeros(64, 1, 8, 8)
    engine._labels = torch.zeros(64, dtype=torch.int64)
    monkeypatch.setattr(torch.cuda, "Stream", broken)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    with pytest.raises(type(error), match="out of memory"):
        engine._recorded()
    assert engine.note == ""


@pytest.mark.parametrize("fields", [{}, {"momentum": 0.0}, {"optimiser": "adam", "lr": 1e-3}])
def test_a_training_leaves_nothing_in_its_engine(fields: dict[str, Any], digits: Dataset) -> None:
    recipe = _recipe(**fields)
    state = _network("resnet14(width=2)", digits).state_dict()
    used = _engine("resnet14(width=2)", digits, recipe, compile=False)
    mask = _mask(_network("resnet14(width=2)", digits), 1)
    list(Training(used, digits, recipe, seed=1, state=state, mask=mask))
    fresh = _engine("resnet14(width=2)", digits, recipe, compile=False)
    runs = [Training(e, digits, recipe, seed=0, state=state) for e in (used, fresh)]
    assert list(runs[0]) == list(runs[1])
    first, second = (run.state() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_bf16_changes_the_products_and_nothing_else(digits: Dataset) -> None:
    spec, losses = "resnet14(width=4)", {}
    for precision in ("float32", "bf16"):
        engine = _engine(spec, digits, _recipe(precision=precision), compile=False)
        losses[precision] = _losses(spec, engine, digits, seed=0, steps=8)
        assert {t.dtype for t in engine.network.parameters()} == {torch.float32}
        assert {t.dtype for t in engine.network.buffers() if t.is_floating_point()} == {
            torch.float32
        }
        assert {t.dtype for s in engine.optimiser.state.values() for t in s.values()} == {
            torch.float32
        }
        images = digits.sample(torch.arange(3))[0]
        assert engine.logits(images).dtype == torch.float32
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.05)


def test_a_precision_that_the_device_lacks_is_refused(digits: Dataset) -> None:
    with pytest.raises(ElthError, match="tf32 is one of GPUs, .* trains on cpu; take float32"):
        _engine("mlp2(width=8)", digits, _recipe(precision="tf32"), compile=False)


def test_an_engine_of_another_recipe_is_refused(digits: Dataset) -> None:
    engine = _engine("mlp2(width=8)", digits, _recipe(), compile=False)
    other = dataclasses.replace(engine.recipe, lr=0.5)
    with pytest.raises(ElthError, match=r"the engine is one for Recipe\(.*: make an engine for it"):
        Training(engine, digits, other, seed=0, state=engine.network.state_dict())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"momentum": 0.0},
        {"optimiser": "adam", "lr": 1e-3},
        {"label_smoothing": 0.1, "nesterov": True, "decay": "kernels"},
    ],
)
def test_a_graph_computes_what_eager_does(
    precision: str, fields: dict[str, Any], digits: Dataset
) -> None:
    spec, data = "resnet14(width=4)", digits.to("cuda")
    recipe = _recipe(precision=precision, batch_size=64, **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = _engine("resnet14(width=4)", data, recipe, compile=True)
    slow = _engine("resnet14(width=4)", data, recipe, compile=False)
    assert (fast.way, slow.way) == ("compiled-graph", "eager")
    for seed in (0, 1):
        found = _losses(spec, fast, data, seed=seed, steps=10)
        tolerance = LOSSES.get(precision, 1e-2)
        assert found == pytest.approx(_losses(spec, slow, data, seed=seed, steps=10), rel=tolerance)
        assert found == _losses(spec, fast, data, seed=seed, steps=10)
        state, mask = fast.network.state_dict(), _mask(_network("resnet14(width=4)", data), seed)
        assert all(not state[name][~kept.cuda()].any() for name, kept in mask.items())


@pytest.mark.gpu
def test_a_graph_skips_updates_after_a_loss_that_is_not_finite(digits: Dataset) -> None:
    data = digits.to("cuda")
    engine = _engine("resnet14(width=4)", data, _recipe(batch_size=64), compile=True)
    images, labels = data.sample(torch.arange(64))
    engine.begin(_network("resnet14(width=4)", data).state_dict(), None, 5)
    engine.network.train()
    engine.step(images, labels, 0.1)
    before = [p.clone() for p in engine.network.parameters()]
    engine.step(images * float("nan"), labels, 0.1)
    engine.step(images, labels, 0.1)
    assert engine.failed_at() == 6
    assert all(torch.equal(a, b) for a, b in zip(before, engine.network.parameters(), strict=True))
