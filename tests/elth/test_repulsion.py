"""The repellent loss: values by hand, its gradient against autograd, and whole trainings."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from elth import masks
from elth.checkpoints import Checkpoint
from elth.data import Dataset
from elth.data import load as load_dataset
from elth.engine import Engine
from elth.errors import ElthError
from elth.networks import build
from elth.recipes import Recipe, Step
from elth.repulsion import Repellent, Repulsion, loss_and_gradient
from elth.streams import stream
from elth.tensors import read_tensors, write_tensors
from elth.tickets import state_digest
from elth.training import Epoch, NonFiniteLossError, Training

State = dict[str, Tensor]


def _vector(*values: float) -> State:
    return {"w": torch.tensor(values, dtype=torch.float64)}


def _kept(*values: int) -> masks.Mask:
    return {"w": torch.tensor(values, dtype=torch.bool)}


# Values by hand.

THETA, MASK = _vector(3, 4, 5), _kept(1, 1, 0)


@pytest.mark.parametrize(
    ("optima", "strength", "loss", "gradient"),
    [
        ([(1, 0, 9)], 2, 0.72, (0.3072, -0.2304, 0)),
        ([(1, 0, 9)], -1, -0.36, (-0.1536, 0.1152, 0)),
        # Rows that are orthonormal and span a: whatever way a turns, J is 1.
        ([(1, 0, 9), (0, 2, 9)], 2, 1, (0, 0, 0)),
        ([(1, 0, 9), (1, 1, 0)], 2, 1.34, (0.1984, -0.1488, 0)),
        ([], 2, 0, (0, 0, 0)),
        ([(1, 0, 9)], 0, 0, (0, 0, 0)),
        ([(-5, 0, -45)], 2, 0.72, (0.3072, -0.2304, 0)),  # scale and sign of an optimum
        ([(1, 0, -1e6)], 2, 0.72, (0.3072, -0.2304, 0)),  # what it has off the mask
    ],
)
def test_values_by_hand(
    optima: Sequence[tuple[float, ...]], strength: float, loss: float, gradient: tuple[float, ...]
) -> None:
    repulsion = Repulsion(strength, [_vector(*optimum) for optimum in optima])
    found, slope = loss_and_gradient(THETA, MASK, repulsion)
    assert found == pytest.approx(loss, abs=1e-14)
    torch.testing.assert_close(slope, _vector(*gradient), rtol=0, atol=1e-14)
    assert slope["w"][2] == 0, "exactly"


def test_weights_without_direction_are_not_repelled() -> None:
    repulsion = Repulsion(2, [_vector(1, 0, 9)])
    for theta in (_vector(0, 0, 5), _vector(1e-9, 0, 5)):
        loss, slope = loss_and_gradient(theta, MASK, repulsion)
        assert loss == 0
        assert not slope["w"].any()
    theta = {"w": nn.Parameter(_vector(0, 0, 0)["w"])}
    repellent = Repellent(theta, MASK, repulsion)
    repellent.warn()
    repellent.add()
    with pytest.warns(UserWarning, match="a norm of at most 1e-08, and so no direction: its repul"):
        repellent.warn()
    repellent.warn()  # once
    with torch.no_grad():
        theta["w"][0] = float("nan")  # of which the loss tells, and another error
    repellent.add()
    repellent.warn()


def test_an_optimum_without_direction_counts_and_does_not_repel() -> None:
    both = Repulsion(2, [_vector(1, 0, 9), _vector(0, 0, 9)])
    with pytest.warns(UserWarning, match="optimum 1 of a repulsion has no weight that this round"):
        loss, slope = loss_and_gradient(THETA, MASK, both)
    alone, steep = loss_and_gradient(THETA, MASK, Repulsion(2, [_vector(1, 0, 9)]))
    assert loss == pytest.approx(alone / 2, rel=1e-14)
    torch.testing.assert_close(slope["w"], steep["w"] / 2, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("optimum", "message"),
    [
        ({}, r"optimum 0 of a repulsion does not fit the network: 'w' .* \(3,\), found none"),
        (_vector(1, 2), r"'w' should have shape \(3,\), found \(2,\)"),
        (_vector(1, float("nan"), 0), "optimum 0 of a repulsion is not finite"),
        (_vector(1, float("inf"), 0), "optimum 0 of a repulsion is not finite"),
    ],
)
def test_optima_that_do_not_fit(optimum: State, message: str) -> None:
    with pytest.raises(ElthError, match=message):
        loss_and_gradient(THETA, MASK, Repulsion(2, [optimum]))


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), "2", None, True])
def test_what_is_no_strength(strength: Any) -> None:
    with pytest.raises(ElthError, match="must be a finite number, as 2 to repel or -1 to attract"):
        Repulsion(strength)


# The closed form.


def _drawn(count: int, density: float, seed: int = 0) -> tuple[State, masks.Mask, list[State]]:
    """Weights of three layers, one of them of four dimensions, a mask, and optima."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (7, 5), "b": (4, 3, 3, 3), "c": (6,)}

    def state() -> State:
        return {
            name: torch.randn(shape, generator=generator, dtype=torch.float64)
            for name, shape in shapes.items()
        }

    mask = {
        name: torch.rand(shape, generator=generator) < density for name, shape in shapes.items()
    }
    theta = state()
    return masks.apply(mask, theta), mask, [state() for _ in range(count)]


def _autograd(
    theta: State, mask: masks.Mask, optima: list[State], strength: float
) -> tuple[Tensor, State]:
    """J as it is defined, and its gradient as PyTorch finds it."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in theta.items()}
    own = torch.cat([(leaves[name] * kept).flatten() for name, kept in mask.items()])
    loss = own.new_zeros(())
    for optimum in optima:
        other = torch.cat([(optimum[name] * kept).flatten() for name, kept in mask.items()])
        cosine = (own @ other) / (own.square().sum().sqrt() * other.square().sum().sqrt())
        loss = loss + strength / len(optima) * cosine**2
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return loss, dict(zip(leaves, gradients, strict=True))


@pytest.mark.parametrize("density", [0.1, 0.9])  # gathered and as a whole
@pytest.mark.parametrize("strength", [2.0, -1.0])
def test_the_closed_form_is_the_gradient(strength: float, density: float) -> None:
    for count in range(1, 25):
        theta, mask, optima = _drawn(count, density, seed=count)
        expected, slopes = _autograd(theta, mask, optima, strength)
        loss, found = loss_and_gradient(theta, mask, Repulsion(strength, optima))
        assert loss == pytest.approx(float(expected.detach()), abs=1e-12)
        for name, slope in slopes.items():
            torch.testing.assert_close(found[name], slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("density", [0.1, 0.9])
def test_what_the_gradient_never_is(density: float) -> None:
    theta, mask, optima = _drawn(5, density)
    loss, slope = loss_and_gradient(theta, mask, Repulsion(2, optima))
    assert 0 < loss < 2
    along = sum(float((slope[name] * theta[name]).sum()) for name in theta)
    assert along == pytest.approx(0, abs=1e-15), "orthogonal to the weights"
    assert all(not slope[name][~kept].any() for name, kept in mask.items()), "zero off the mask"
    norms = [
        sum(float(one[name].square().sum()) for name in theta) ** 0.5 for one in (slope, theta)
    ]
    assert norms[0] <= 2 / norms[1]
    changed = [
        {name: factor * tensor for name, tensor in optimum.items()}
        for factor, optimum in zip((-5, 1e-3, 1e3, 2, -1), optima, strict=True)
    ]
    other, same = loss_and_gradient(theta, mask, Repulsion(2, changed))
    assert other == pytest.approx(loss, rel=1e-14)
    torch.testing.assert_close(same, slope, rtol=1e-12, atol=1e-15)
    larger = {name: -3 * tensor for name, tensor in theta.items()}
    scaled, steep = loss_and_gradient(larger, mask, Repulsion(2, optima))
    assert scaled == pytest.approx(loss, rel=1e-14)
    for name, tensor in slope.items():
        torch.testing.assert_close(-3 * steep[name], tensor, rtol=1e-12, atol=1e-15)


def test_layouts_of_weights_and_gradients_play_no_part() -> None:
    for density in (0.1, 0.9):
        theta, mask, optima = _drawn(3, density)
        _, expected = loss_and_gradient(theta, mask, Repulsion(2, optima))
        weights = {name: tensor.clone() for name, tensor in theta.items()}
        weights["b"] = weights["b"].contiguous(memory_format=torch.channels_last)
        weights["a"] = weights["a"].t().contiguous().t()
        for weight in weights.values():
            weight.grad = torch.ones_like(weight)
        weights["a"].grad = torch.ones(7, 5, dtype=torch.float64)
        weights["c"].grad = None
        Repellent(weights, mask, Repulsion(2, optima)).add()
        for name, weight in weights.items():
            assert weight.grad is not None
            before = 0 if name == "c" else 1  # it is added
            torch.testing.assert_close(weight.grad - before, expected[name], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("density", [0.1, 0.9])
def test_a_weight_that_is_not_trained_gets_no_gradient(density: float) -> None:
    """It is part of the vectors all the same."""
    theta, mask, optima = _drawn(3, density)
    expected_loss, expected = loss_and_gradient(theta, mask, Repulsion(2, optima))
    weights = {name: nn.Parameter(one.clone(), name != "b") for name, one in theta.items()}
    loss = Repellent(weights, mask, Repulsion(2, optima)).add()
    assert float(loss) == pytest.approx(expected_loss, rel=1e-14)
    assert weights["b"].grad is None
    for name in ("a", "c"):
        torch.testing.assert_close(weights[name].grad, expected[name], rtol=0, atol=1e-15)
    for weight in weights.values():
        weight.requires_grad_(False)
    Repellent(weights, mask, Repulsion(2, optima)).add()


def test_with_rows_no_tensor_moves_when_optima_and_mask_change() -> None:
    """A CUDA graph that was recorded with one round's reads the next round's."""
    theta, mask, optima = _drawn(4, 0.9)
    weights = {name: tensor.clone() for name, tensor in theta.items()}
    repellent = Repellent(weights, mask, Repulsion(2, optima[:1]), rows=8)

    def places() -> list[tuple[int, torch.Size]]:
        return [(t.data_ptr(), t.shape) for t in vars(repellent).values() if isinstance(t, Tensor)]

    before = places()
    assert len(before) == 4
    _, sparser, _ = _drawn(0, 0.2, seed=9)
    for count, kept, strength in ((1, mask, 2), (4, sparser, -1), (2, sparser, 3)):
        own = masks.apply(kept, theta)
        for name, weight in weights.items():
            weight.copy_(own[name])
            weight.grad = torch.zeros_like(weight)
        repulsion = Repulsion(strength, optima[:count])
        repellent.load(kept, repulsion)
        expected, slope = loss_and_gradient(own, kept, repulsion)
        assert float(repellent.add()) == pytest.approx(expected, rel=1e-12)
        for name, weight in weights.items():
            assert weight.grad is not None
            torch.testing.assert_close(weight.grad, slope[name], rtol=1e-12, atol=1e-15)
        assert places() == before


def test_a_sparse_round_has_a_small_table() -> None:
    theta, _, optima = _drawn(24, 1)
    mask = {name: torch.zeros_like(tensor, dtype=torch.bool) for name, tensor in theta.items()}
    mask["a"][0, :3] = True
    repellent = Repellent(theta, mask, Repulsion(2, optima))
    assert repellent._table.shape == (25, 3)
    assert Repellent(theta, {}, Repulsion(2, optima))._table.shape == (25, 149)


# Whole trainings.

SPECS = ("mlp2(width=8)", "resnet14(width=2)")


@functools.cache
def _digits() -> Dataset:
    torch.set_num_threads(1)
    return load_dataset("digits")


def _recipe(**fields: Any) -> Recipe:
    values: dict[str, Any] = {"length": Step(24, "it"), "rewind": Step(0, "ep"), "lr": 0.05}
    return Recipe(**{**values, "batch_size": 128, **fields})


def _state(spec: str, seed: int) -> State:
    return build(spec, _digits().info.shape, generator=stream(seed, "init")).state_dict()


def _mask(spec: str, density: float) -> masks.Mask:
    network = build(spec, _digits().info.shape, generator=stream(0, "init"))
    generator = stream(0, "mask")
    return {
        name: torch.rand(one.shape, generator=generator) < density
        for name, one in masks.ones(network).items()
    }


def _training(
    spec: str,
    repulsion: Repulsion | None = None,
    *,
    density: float = 0.8,
    engine: Engine | None = None,
    **given: Any,
) -> Training:
    recipe = given.pop("recipe", _recipe())
    return Training(
        engine or build(spec, _digits().info.shape, generator=stream(9, "init")),
        _digits(),
        recipe,
        seed=0,
        state=_state(spec, 0),
        mask=_mask(spec, density),
        repulsion=repulsion,
        **given,
    )


def _end(training: Training) -> tuple[list[Epoch], str]:
    return list(training), state_digest(training.state())


@pytest.mark.parametrize("spec", SPECS)
def test_without_strength_or_optima_it_is_the_plain_training(spec: str) -> None:
    plain = _end(_training(spec))
    assert plain[0][-1].repulsion is None
    assert "repulsion" not in str(plain[0][-1])
    for repulsion in (Repulsion(2), Repulsion(0, [_state(spec, 1)])):
        assert _end(_training(spec, repulsion)) == plain


@pytest.mark.parametrize("density", [0.8, 0.2])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_training_against_a_loop_with_autograd(optimiser: str, spec: str, density: float) -> None:
    """Biases and batch normalisation have no part in J, and no cosine is of one layer alone."""
    recipe = _recipe(optimiser=optimiser, lr=0.02, weight_decay=1e-3, length=Step(5, "it"))
    optima, mask = [_state(spec, seed) for seed in (0, 1, 2)], _mask(spec, density)
    shape = _digits().info.shape
    run = Training(
        build(spec, shape, generator=stream(9, "init")).double(),
        _digits(),
        recipe,
        seed=0,
        state=_state(spec, 0),
        mask=mask,
        repulsion=Repulsion(2, optima),
    )
    (epoch,) = run

    slow = build(spec, shape, generator=stream(0, "init")).double().train()
    weights: dict[str, Tensor] = dict(slow.named_parameters())
    plain: Any = {"lr": 0.02, "weight_decay": 1e-3}
    step: Any = (
        torch.optim.Adam(slow.parameters(), **plain)
        if optimiser == "adam"
        else torch.optim.SGD(slow.parameters(), momentum=0.9, **plain)
    )
    losses = []
    with torch.no_grad():
        for name, kept in mask.items():
            weights[name].mul_(kept)
    for images, labels in _digits().train_batches(
        batch_size=128, augment="none", seed=0, epoch=0, stop=5
    ):
        step.zero_grad()
        own = torch.cat([weights[name].flatten() for name in mask])
        others = [torch.cat([(o[name] * mask[name]).flatten() for name in mask]) for o in optima]
        cosines = torch.stack([torch.cosine_similarity(own, o.double(), dim=0) for o in others])
        repelled = 2 / 3 * cosines.square().sum()
        losses.append(float(repelled.detach()))
        entropy = nn.functional.cross_entropy(slow(images.double()), labels)
        torch.autograd.backward(entropy + repelled)
        step.step()
        with torch.no_grad():
            for name, kept in mask.items():
                weights[name].mul_(kept)
    assert epoch.repulsion == pytest.approx(sum(losses) / 5, rel=1e-9)
    for name, expected in slow.state_dict().items():
        torch.testing.assert_close(
            run.state()[name].double(), expected.double(), rtol=1e-9, atol=1e-9
        )


def _cosine(first: Mapping[str, Tensor], second: Mapping[str, Tensor], mask: masks.Mask) -> float:
    one, other = (
        torch.cat([(state[name] * kept).flatten() for name, kept in mask.items()])
        for state in (first, second)
    )
    return float(torch.cosine_similarity(one, other, dim=0))


def test_it_repels_and_attracts() -> None:
    spec, recipe = SPECS[0], _recipe(length=Step(66, "it"), optimiser="adam", lr=0.02)
    plain = _training(spec, recipe=recipe)
    list(plain)
    optimum, mask = plain.state(), _mask(spec, 0.8)
    ends = {}
    for strength in (2, -1):
        run = _training(spec, Repulsion(strength, [optimum]), recipe=recipe)
        epochs = list(run)
        ends[strength] = _cosine(run.state(), optimum, mask)
        found = [epoch.repulsion for epoch in epochs]
        assert len(found) == 6
        assert all(a is not None and b is not None and a > b for a, b in itertools.pairwise(found))
        assert f", repulsion {found[-1]:.4f}, on the test set" in str(epochs[-1])
        assert epochs[-1].train_loss > 0, "the cross-entropy alone"
    assert abs(ends[2]) < 0.1
    assert ends[-1] > 0.99


@pytest.mark.parametrize("spec", SPECS)
def test_it_goes_on_from_a_checkpoint_bit_for_bit(spec: str, tmp_path: Any) -> None:
    repulsion = Repulsion(2, [_state(spec, 1), _state(spec, 0)])
    recipe = _recipe(batch_size=10, length=Step(260, "it"))
    kept: list[Checkpoint] = []
    whole = _training(
        spec, repulsion, recipe=recipe, at_check=lambda run: kept.append(run.checkpoint())
    )
    expected = _end(whole)
    assert [checkpoint.step for checkpoint in kept] == [100, 200]
    kept[1].write(tmp_path / "checkpoint", {})
    read, _ = Checkpoint.read(tmp_path / "checkpoint")
    assert read.repulsion == kept[1].repulsion > 0
    again = _training(spec, repulsion, recipe=recipe)
    again.resume(read)
    epochs, digest = _end(again)
    assert (epochs, digest) == (expected[0][-len(epochs) :], expected[1])


def test_a_checkpoint_of_before_there_was_a_repulsion(tmp_path: Any) -> None:
    path = tmp_path / "checkpoint"
    _training(SPECS[0]).checkpoint().write(path, {})
    tensors, metadata = read_tensors(path, kind="checkpoint")
    del metadata["repulsion"]
    write_tensors(path, tensors, metadata)
    assert Checkpoint.read(path)[0].repulsion == 0


def test_an_engine_forgets_what_it_was_repelled_from() -> None:
    spec = SPECS[0]
    engine = Engine(
        build(spec, _digits().info.shape, generator=stream(9, "init")),
        _recipe(),
        shape=_digits().info.shape.image,
    )
    plain = _end(_training(spec, engine=engine))
    repelled = _end(_training(spec, Repulsion(2, [_state(spec, 0)]), engine=engine))
    assert repelled != plain
    left = _training(spec, Repulsion(-1, [_state(spec, 1)]), engine=engine)  # in mid-epoch
    left.engine.step(torch.zeros(128, 1, 8, 8), torch.zeros(128, dtype=torch.int64), 0.1)
    assert _end(_training(spec, engine=engine)) == plain
    assert _end(_training(spec, Repulsion(2, [_state(spec, 0)]), engine=engine)) == repelled


class _Recorded:
    """What stands for a CUDA graph here: it does again what it was recorded with, in its place."""

    def __init__(self, engine: Engine) -> None:
        engine.network.train()
        self.engine, self.repellent = engine, engine._repellent
        self.gradients: dict[str, torch.Tensor] = {}
        for _ in range(2):  # as recording does, it trains
            self.replay()

    def replay(self) -> None:
        assert self.engine._repellent is self.repellent
        images, labels = self.engine._images, self.engine._labels
        self.engine._iterate(None, images, labels, len(labels))


def test_one_graph_serves_all_rounds_that_repel(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPECS[0]
    recorded: list[_Recorded] = []

    def record(engine: Engine) -> _Recorded:
        recorded.append(_Recorded(engine))
        return recorded[-1]

    def ends(engine: Engine | None) -> list[tuple[list[Epoch], State]]:
        found = []
        for count, density in ((0, 0.8), (1, 0.8), (3, 0.2), (0, 0.2), (2, 0.2), (33, 0.2)):
            optima = [_state(spec, seed) for seed in range(count)]
            run = _training(spec, Repulsion(2, optima), density=density, engine=engine)
            found.append((list(run), run.state()))
        return found

    expected = ends(None)
    shape = _digits().info.shape
    engine = Engine(build(spec, shape, generator=stream(9, "init")), _recipe(), shape=shape.image)
    monkeypatch.setattr(Engine, "_recorded", record)
    engine._capture(torch.zeros(128, *shape.image), torch.zeros(128, dtype=torch.int64))
    for (epochs, state), (others, other) in zip(ends(engine), expected, strict=True):
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=1e-5)
        for one, same in zip(epochs, others, strict=True):
            assert (one.repulsion is None) is (same.repulsion is None)
            assert (one.repulsion or 0) == pytest.approx(same.repulsion or 0, rel=1e-4)
    assert [one.repellent and one.repellent.rows for one in recorded] == [None, 32, 64]


def test_where_no_second_graph_is_recorded_it_repels_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = SPECS[0]
    shape = _digits().info.shape
    engine = Engine(build(spec, shape, generator=stream(9, "init")), _recipe(), shape=shape.image)

    def record(engine: Engine) -> _Recorded | None:
        return None if engine._repellent else _Recorded(engine)

    monkeypatch.setattr(Engine, "_recorded", record)
    engine._capture(torch.zeros(128, *shape.image), torch.zeros(128, dtype=torch.int64))
    repulsion = Repulsion(2, [_state(spec, 1)])
    found = list(_training(spec, repulsion, engine=engine))
    expected = list(_training(spec, repulsion))
    for one, same in zip(found, expected, strict=True):
        assert one.repulsion == pytest.approx(same.repulsion, rel=1e-4)


def test_a_loss_that_is_not_finite_ends_it_before_any_update() -> None:
    spec = SPECS[0]
    repulsion = Repulsion(2, [_state(spec, 1)])
    run = _training(spec, repulsion, recipe=_recipe(lr=1e30, momentum=0.0))
    with pytest.raises(NonFiniteLossError):
        list(run)
    assert all(bool(torch.isfinite(t).all()) for t in run.state().values())
