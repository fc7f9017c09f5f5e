"""Whole sparse trainings: against a slow loop, exact counts, and going on in the middle."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import elth
from elth import Repulsion, masks
from elth.checkpoints import Checkpoint
from elth.data import Dataset, MemoryDataset
from elth.data import load as load_dataset
from elth.dynamic import (
    DISTRIBUTIONS,
    METHODS,
    Evolution,
    Method,
    choices,
    defaults,
    fraction_at,
    method,
    ramp,
)
from elth.engine import Engine
from elth.errors import ElthError
from elth.evaluation import evaluation_batch
from elth.networks import DataShape, build
from elth.recipes import Recipe, Step
from elth.streams import stream
from elth.tickets import state_digest
from elth.training import Training
from tests.elth.helpers import dataset

EIGHT = DataShape(channels=2, size=8, classes=3)
SETTINGS: dict[str, dict[str, Any]] = {
    "rigl": {"every": "4it", "fraction": 0.5},
    "set": {"every": "4it", "fraction": 0.5},
    "snfs": {"every": "4it"},
    "static": {},
    "gmp": {"every": "3it", "dense_first": False},
    "dpf": {"every": "3it", "layers": "all"},
}
KEPT = 120


def recipe(**fields: Any) -> Recipe:
    given = {"batch_size": 8, "lr": 0.05, "weight_decay": 0.01, **fields}
    return Recipe(length=Step(6, "ep"), rewind=Step(0, "ep"), **given)


def evolution(
    name: str, spec: str, data: Dataset, by: Recipe, *, kept: int = KEPT, **settings: Any
) -> Evolution:
    network = build(spec, data.info.shape, generator=stream(0, "init"))
    per_epoch = math.ceil(len(data.train_labels) / by.batch_size)
    return Evolution(
        method(name, {**SETTINGS[name], **settings}),
        {n: tuple(one.shape) for n, one in masks.ones(network).items()},
        kept,
        length=by.length.iterations(per_epoch),
        per_epoch=per_epoch,
    )


def training(
    name: str,
    data: Dataset,
    by: Recipe,
    spec: str = "mlp2(width=6)",
    *,
    dtype: torch.dtype = torch.float32,
    engine: Engine | None = None,
    changed: dict[str, Any] | None = None,
    **given: Any,
) -> tuple[Training, Evolution]:
    network = build(spec, data.info.shape, generator=stream(0, "init")).to(dtype)
    state = {n: t.clone() for n, t in network.state_dict().items()}
    one = evolution(name, spec, data, by, **(changed or {}))
    return Training(engine or network, data, by, seed=1, state=state, evolution=one, **given), one


def images() -> MemoryDataset:
    return dataset(58, shape=EIGHT, mean=128, deviation=64)


def test_a_mask_that_changes_goes_through_one_training() -> None:
    data, by = images(), Recipe(length=Step(2, "ep"), rewind=Step(0, "it"), batch_size=16)
    run, one = training("rigl", data, by)
    list(run)
    state = {n: t.clone() for n, t in run.network.state_dict().items()}
    with pytest.raises(ElthError, match="mask of method rigl has gone through another training"):
        Training(run.network, data, by, seed=2, state=state, evolution=one)


# A slow loop.


def slow(
    name: str, data: MemoryDataset, by: Recipe, spec: str, steps: int
) -> tuple[list[float], dict[str, Tensor], dict[str, Tensor]]:
    """RigL and DPF as their papers print them, layer by layer, in float64."""
    network = build(spec, data.info.shape, generator=stream(0, "init")).double()
    one = evolution(name, spec, data, by)
    length, per_epoch = one._length, math.ceil(len(data.train_labels) / by.batch_size)
    mask = {n: m.clone() for n, m in one.mask.items()}
    weights = {n: p.detach().clone() for n, p in network.named_parameters()}
    moments = {n: torch.zeros_like(w) for n, w in weights.items()}
    losses = []
    for n, m in mask.items():
        weights[n] *= m
    for step in range(steps):
        if name == "dpf" and step % 3 == 0:
            magnitudes = torch.cat([weights[n].abs().flatten() for n in mask])
            zeros = int(ramp(step, 0, int(0.75 * length)) * (len(magnitudes) - KEPT))
            bound = magnitudes.sort().values[zeros - 1] if zeros else -1
            mask = {n: weights[n].abs() > bound for n in mask}
        epoch, batch = divmod(step, per_epoch)
        order = torch.randperm(len(data.train_labels), generator=stream(1, "order", epoch))
        chosen = order[by.batch_size * batch :][: by.batch_size]
        pixels = (data.train_images[chosen].double() - 128) / 64
        with torch.no_grad():
            for n, p in network.named_parameters():
                p.copy_(weights[n] * mask.get(n, 1))
        loss = F.cross_entropy(network.train()(pixels), data.train_labels[chosen])
        losses.append(loss.item())
        found = torch.autograd.grad(loss, list(network.parameters()))
        gradients = dict(zip(weights, found, strict=True))
        if name == "rigl" and step % 4 == 0 and 0 < step < int(0.75 * length):
            fraction = fraction_at(step, int(0.75 * length), 0.5)
            for n, m in mask.items():
                flat, moved = weights[n].flatten(), int(fraction * int(m.sum()))
                active = sorted(
                    m.flatten().nonzero().flatten().tolist(), key=lambda i: -abs(flat[i])
                )
                kept = set(active[: len(active) - moved])
                free = [i for i in range(m.numel()) if i not in kept]
                score = gradients[n].flatten().abs()
                kept |= set(sorted(free, key=lambda i: -score[i])[:moved])
                new = torch.tensor([i in kept for i in range(m.numel())]).reshape(m.shape)
                moments[n] *= m & new
                weights[n], mask[n] = weights[n] * (m & new), new
            continue
        lr = by.lr_at(step, per_epoch)
        for n, w in weights.items():
            gradient = gradients[n] + by.weight_decay * w
            moments[n] = by.momentum * moments[n] + gradient
            if name == "rigl" and n in mask:
                moments[n] *= mask[n]
            w -= lr * moments[n]
            if name == "rigl" and n in mask:
                w *= mask[n]
    return losses, {n: w * mask.get(n, 1) for n, w in weights.items()}, mask


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_says_what_it_is(name: str) -> None:
    known = choices(name)
    assert {key: one.default for key, one in known.items()} == defaults(name)
    assert [key for key, one in known.items() if not one.about] == []
    if name != "dpf":
        assert known["distribution"].words == DISTRIBUTIONS


@pytest.mark.parametrize("name", ["rigl", "dpf"])
@pytest.mark.parametrize("spec", ["mlp2(width=6)", "resnet14(width=2)"])
def test_against_the_slow_loop(name: str, spec: str) -> None:
    # Large enough that no two taps of a kernel see the same and have equal gradients.
    shape = EIGHT if spec.startswith("mlp") else DataShape(channels=1, size=16, classes=3)
    data, by, steps = dataset(58, shape=shape, mean=128, deviation=64), recipe(), 43
    run, one = training(name, data, by, spec, dtype=torch.float64, stop=steps)
    found = []
    step = run.engine.step

    def watched(*given: Any, **named: Any) -> None:
        before = run.engine.loss_sum(reset=False)
        step(*given, **named)
        found.append((run.engine.loss_sum(reset=False) - before) / given[3])

    run.engine.step = watched  # type: ignore[method-assign]
    list(run)
    losses, weights, mask = slow(name, data, by, spec, steps)
    assert found == pytest.approx(losses, rel=1e-5), "images are in float32"
    assert all(torch.equal(mask[n], m) for n, m in one.mask.items())
    state = run.state()
    for n, w in weights.items():
        torch.testing.assert_close(state[n], w, rtol=1e-4, atol=1e-6)


# What holds of all of them.


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_counts_are_exact_and_what_is_pruned_is_zero(name: str, optimiser: str) -> None:
    by = recipe(optimiser=optimiser, lr=0.01)
    if name == "snfs" and optimiser == "adam":
        with pytest.raises(ElthError, match="method snfs goes by the momentum of SGD: .* adam"):
            training(name, images(), by)
        return
    run, one = training(name, images(), by)
    layers = []
    for epoch in run:
        state = run.state()
        assert all(not state[n][~m].any() for n, m in one.mask.items())
        layers.append({n: int(m.sum()) for n, m in one.mask.items()})
        assert epoch.exploration is not None
        assert epoch.changed is not None
    assert sum(layers[-1].values()) == KEPT
    explored = [one.exploration()]
    assert explored == [epoch.exploration]
    if name in ("rigl", "set", "static"):
        assert all(found == layers[0] for found in layers)
    if name in ("gmp", "dpf"):
        assert sum(layers[0].values()) > KEPT
        assert explored == [1]
    if name == "static":
        assert (epoch.changed, explored[0]) == (0, KEPT / sum(one._sizes.values()))
    elif not one.method.starts_dense:
        assert explored[0] > KEPT / sum(one._sizes.values())


def test_a_static_mask_is_a_masked_training_bit_for_bit() -> None:
    data, by = images(), recipe()
    run, one = training("static", data, by)
    sparse = [dataclasses.replace(e, exploration=None, changed=None) for e in run]
    network = build("mlp2(width=6)", EIGHT, generator=stream(0, "init"))
    state = {n: t.clone() for n, t in network.state_dict().items()}
    plain = Training(network, data, by, seed=1, state=state, mask=one.mask)
    assert sparse == list(plain)
    assert state_digest(run.state()) == state_digest(plain.state())


def test_an_update_of_rigl_takes_the_place_of_a_step() -> None:
    """Active weights stay as they are, and what batch normalisation has seen does not."""
    run, one = training("rigl", images(), recipe(), "resnet14(width=2)", stop=9)
    seen: list[dict[str, Tensor]] = []
    before = one.before

    def noted(host: Any, step: int) -> bool:
        seen.append({n: t.clone() for n, t in run.network.state_dict().items()})
        return before(host, step)

    one.before = noted  # type: ignore[method-assign]
    masks_before = {n: m.clone() for n, m in one.mask.items()}
    list(run)
    old, new = seen[4], seen[5]
    assert any(not torch.equal(masks_before[n], m) for n, m in one.mask.items())
    for name, weight in new.items():
        if name in one.mask:
            alike = (weight == old[name]) | (weight == 0) | (old[name] == 0)
            assert bool(alike.all())
        elif "running" in name:
            assert not torch.equal(weight, old[name])
        elif not name.endswith("tracked"):
            assert torch.equal(weight, old[name])
    assert any(not torch.equal(seen[5][n], seen[6][n]) for n in one.mask)


@pytest.mark.parametrize(("name", "batches"), [*((name, 1) for name in METHODS), ("rigl", 3)])
def test_it_goes_on_from_a_checkpoint_bit_for_bit(name: str, batches: int, tmp_path: Path) -> None:
    """From iterations before, at and after a change of the mask, through a file."""
    changed: dict[str, Any] = {"batches": batches} if batches > 1 else {}
    if name == "dpf":
        changed["freeze"] = True
    data, by = images(), recipe(optimiser="sgd")
    kept: dict[int, Path] = {}
    run, one = training(name, data, by, "resnet14(width=2)", changed=changed)
    after: Callable[[Any, int], None] = one.after
    checks = {10, 11, 12, 13, 17, 31}

    def noted(host: Any, step: int) -> None:
        after(host, step)
        if step + 1 in checks:
            run.step, run._seen = step + 1, run._seen + 8  # as they are when an iteration is over
            kept[step + 1] = tmp_path / f"{step + 1}"
            run.checkpoint().write(kept[step + 1], {})
            run.step, run._seen = step, run._seen - 8

    one.after = noted  # type: ignore[method-assign]
    epochs = [repr(epoch) for epoch in run]
    digest = state_digest(run.state()), masks.digest(one.mask)
    assert set(kept) == checks
    for step, path in kept.items():
        again, other = training(name, data, by, "resnet14(width=2)", changed=changed)
        again.resume(Checkpoint.read(path)[0])
        found = [repr(epoch) for epoch in again]
        assert found[-1] == epochs[-1], step
        assert found == epochs[-len(found) :], step
        assert (state_digest(again.state()), masks.digest(other.mask)) == digest


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler here")
@pytest.mark.parametrize("name", ["rigl", "dpf", "gmp"])
def test_nothing_is_compiled_anew_when_a_mask_changes(name: str) -> None:
    torch.set_num_threads(1)
    data, by = load_dataset("digits"), recipe(batch_size=64)
    shape = data.info.shape
    engine = Engine(
        build("mlp2(width=16)", shape, generator=stream(1, "init")),
        by,
        shape=shape.image,
        evaluation_batch=evaluation_batch(data.info),
        compile=True,
    )
    assert engine.way == "compiled"
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    ends = []
    for compiled in (engine, engine, None):
        run, one = training(
            name, data, by, "mlp2(width=16)", engine=compiled, changed={"kept": 300}, stop=60
        )
        first = masks.digest(one.mask)
        list(run)
        ends.append((state_digest(run.state()), masks.digest(one.mask), run.evaluate()))
        assert masks.digest(one.mask) != first
    assert ends[0] == ends[1]
    assert ends[2][2][0] == pytest.approx(ends[0][2][0], abs=8)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


class _Replayed:
    """A stand-in for a CUDA graph: it leaves gradients in tensors of its own, and tells nobody."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.gradients = {n: torch.zeros_like(w) for n, w in engine._weights.items()}

    def replay(self) -> None:
        engine = self.engine
        before = {n: w.grad for n, w in engine._weights.items()}
        engine._iterate(None, engine._images, engine._labels, len(engine._labels))
        for n, weight in engine._weights.items():
            assert weight.grad is not None
            self.gradients[n].copy_(weight.grad)
            weight.grad = before[n]


@pytest.mark.parametrize("batches", [1, 3])
def test_with_a_graph_rigl_grows_by_the_gradient_of_its_own_batch(batches: int) -> None:
    """The last, small batch of an epoch is none of the graph's, and has other gradients."""
    ends = []
    for with_graph in (False, True):
        changed = {"batches": batches}
        run, one = training("rigl", images(), recipe(), "resnet14(width=2)", changed=changed)
        engine = run.engine
        engine._images = torch.zeros(8, 2, 8, 8).contiguous(memory_format=torch.channels_last)
        engine._labels = torch.zeros(8, dtype=torch.int64)
        graph: Any = _Replayed(engine)
        step = engine.step

        def with_it(
            *given: Any, on: bool = with_graph, graph: Any = graph, step: Any = step, **named: Any
        ) -> None:
            graph.engine._graph = graph if on else None
            try:
                step(*given, **named)
            finally:
                graph.engine._graph = None

        engine.step = with_it  # type: ignore[method-assign]
        ends.append((repr(list(run)), state_digest(run.state()), masks.digest(one.mask)))
    assert ends[0] == ends[1]


def test_what_a_graph_keeps_of_pruned_weights_serves_an_engine_without_one(tmp_path: Path) -> None:
    """With a graph all parameters have room for a value that is kept; only prunable ones use it."""
    run, _ = training("dpf", images(), recipe(), "resnet14(width=2)")
    next(iter(run))
    engine = run.engine
    hidden = dict(zip(engine._masked, engine._hidden, strict=True))
    engine._masked = list(engine._weights)
    engine._hidden = [
        hidden.get(n, torch.zeros_like(w)).clone() for n, w in engine._weights.items()
    ]
    saved = run.checkpoint()
    assert set(saved.hidden) == set(hidden)
    again, _ = training("dpf", images(), recipe(), "resnet14(width=2)")
    again.resume(saved)


@pytest.mark.parametrize("name", ["gmp", "dpf"])
def test_the_number_of_weights_is_reached_though_the_training_starts_late(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a rewind point after the end of pruning, were that not refused: at the first step."""
    monkeypatch.setattr(Method, "check", lambda *_: None)
    changed = {"freeze": True} if name == "dpf" else {}
    data, by = images(), recipe()
    network = build("mlp2(width=6)", EIGHT, generator=stream(0, "init"))
    one = Evolution(
        method(name, {**SETTINGS[name], **changed}),
        {n: tuple(m.shape) for n, m in masks.ones(network).items()},
        KEPT,
        length=48,
        per_epoch=8,
        start=42,
    )
    state = {n: t.clone() for n, t in network.state_dict().items()}
    list(Training(network, data, by, seed=1, state=state, evolution=one, start=42))
    assert masks.nonzeros(one.mask) == KEPT


def test_a_weight_that_the_loss_does_not_depend_on_is_named() -> None:
    class Idle(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = torch.nn.Linear(128, 3), torch.nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.used(x.flatten(1))
            return found

    for name in ("rigl", "snfs"):
        run = elth.train_sparse(Idle(), images(), recipe(), name, sparsity=0.5, every="4it")
        with pytest.raises(ElthError, match=r"the loss does not depend on 'idle.weight'"):
            run.run(lambda _: None)


def test_an_engine_serves_what_hides_weights_and_what_does_not() -> None:
    data, by = images(), recipe()
    engine = Engine(build("mlp2(width=6)", EIGHT, generator=stream(3, "init")), by)
    alone, together = {}, {}
    for name in METHODS:
        run, _ = training(name, data, by)
        alone[name] = (repr(list(run)), state_digest(run.state()))
    for name in (*METHODS, *reversed(list(METHODS))):
        run, _ = training(name, data, by, engine=engine)
        together[name] = (repr(list(run)), state_digest(run.state()))
        assert together[name] == alone[name]


def test_the_first_update_may_be_before_any_step() -> None:
    run, one = training("rigl", images(), recipe(), changed={"at_start": True}, stop=3)
    first = {n: m.clone() for n, m in one.mask.items()}
    (epoch,) = run
    assert epoch.changed
    assert any(not torch.equal(first[n], m) for n, m in one.mask.items())
    assert math.isfinite(epoch.train_loss)


def test_what_does_not_go_together_is_refused() -> None:
    data, by = images(), recipe()
    network = build("mlp2(width=6)", EIGHT, generator=stream(0, "init"))
    state, one = network.state_dict(), evolution("rigl", "mlp2(width=6)", data, by)
    with pytest.raises(ElthError, match="method rigl has a mask of its own: leave out mask"):
        Training(network, data, by, seed=0, state=state, mask=one.mask, evolution=one)
    repulsion = Repulsion(2, [state])
    with pytest.raises(ElthError, match="method rigl changes its mask, and a repellent loss needs"):
        Training(network, data, by, seed=0, state=state, evolution=one, repulsion=repulsion)
    kept: list[Checkpoint] = []
    run, _ = training("static", data, by, stop=3)
    list(run)
    kept.append(run.checkpoint())
    other, _ = training("static", data, by)
    torn = dataclasses.replace(kept[0], evolution={"changed": torch.tensor(0)})
    with pytest.raises(ElthError, match="of another sparse training: its masks do not fit"):
        other.resume(torn)


def test_from_a_notebook() -> None:
    data, by = images(), recipe()
    runs = []
    network = build("mlp2(width=6)", EIGHT, 0)
    for given in ("mlp2(width=6)", network):
        run = elth.train_sparse(given, data, by, "set", sparsity=0.7, every="4it")
        lines: list[Any] = []
        last = run.run(lines.append)
        lines = [str(epoch) for epoch in lines]
        assert "connections changed" in lines[0]
        assert run.evolution is not None
        assert masks.nonzeros(run.evolution.mask) == 511
        runs.append((repr(last), state_digest(run.state()), lines))
    assert runs[0] == runs[1]
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "either sparsity, as 0.9, or kept"),
        ({"sparsity": 0.9, "kept": 3}, "either sparsity, as 0.9, or kept"),
        ({"sparsity": 1}, "sparsity must be at least 0 and below 1, as 0.9; found 1"),
        ({"kept": 5000}, "cannot keep 5,000 weights of 1,704"),
        ({"sparsity": 0.9}, r"method set cannot keep 170 weights .*: 300 are in .*head.weight"),
        ({"kept": 400, "fraction": 0.1, "drop": "x"}, "unknown setting drop of method set 'x'"),
    )
    for wrong, message in refused:
        words: dict[str, Any] = {"method": "set", **wrong}
        with pytest.raises(ElthError, match=message):
            elth.train_sparse("mlp2(width=6)", data, by, **words)


def test_a_mask_for_another_span_or_part_of_a_network_is_refused() -> None:
    """It would not come to its count, or leave weights dense, without a word."""
    data, by = images(), recipe()
    network = build("mlp2(width=6)", data.info.shape, generator=stream(0, "init"))
    words: dict[str, Any] = {"seed": 1, "state": network.state_dict()}
    longer = evolution("gmp", "mlp2(width=6)", data, dataclasses.replace(by, length=Step(60, "ep")))
    with pytest.raises(ElthError, match=r"for 480 iterations, .*, and this training has 48 iter"):
        Training(network, data, by, evolution=longer, **words)
    part = evolution("rigl", "mlp2(width=6)", data, by)
    part.mask.popitem()
    with pytest.raises(ElthError, match="the mask of method rigl has nothing for '"):
        Training(network, data, by, evolution=part, **words)
    next(network.parameters()).requires_grad_(False)
    with pytest.raises(ElthError, match=r"method set moves connections to '.*', which is frozen"):
        Training(network, data, by, evolution=evolution("set", "mlp2(width=6)", data, by), **words)


def test_a_checkpoint_of_another_count_or_of_a_dense_training_is_refused() -> None:
    data, by = images(), recipe()
    run, _ = training("rigl", data, by)
    other, _ = training("rigl", data, by, changed={"kept": KEPT + 10})
    with pytest.raises(ElthError, match=rf"it keeps {KEPT + 10} weights, and this one {KEPT}"):
        run.resume(other.checkpoint())
    network = build("mlp2(width=6)", data.info.shape, generator=stream(0, "init"))
    state = {n: t.clone() for n, t in network.state_dict().items()}
    dense = Training(network, data, by, seed=1, state=state)
    with pytest.raises(ElthError, match="mask stays, and that of this one changes"):
        run.resume(dense.checkpoint())
    with pytest.raises(ElthError, match="mask changes, and that of this one stays"):
        dense.resume(run.checkpoint())
