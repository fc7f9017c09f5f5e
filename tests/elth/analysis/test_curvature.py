"""Curvature within the subspace of a mask."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from elth.analysis import (
    Curvature,
    Hessian,
    hessian,
    power_steps,
    subspace_curvature,
    trace_probes,
)
from elth.data import fixed_images
from elth.errors import ElthError
from elth.masks import ones
from elth.networks import build
from tests.elth.helpers import IMAGE, dataset


def _quadratic(diagonal: list[float], mask: list[bool]) -> Hessian:
    """Loss x^T diag x / 2, in two summands and by two weights."""
    x = torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64)
    first, rest = x[:1].clone().requires_grad_(), x[1:].clone().requires_grad_()
    d = torch.tensor(diagonal, dtype=torch.float64)

    def losses() -> list[Tensor]:
        squares = torch.cat([first, rest]).square() * d / 2
        return [squares[:2].sum(), squares[2:].sum()]

    kept = torch.tensor(mask)
    return Hessian(losses, [first, rest], [kept[:1], kept[1:]])


def test_oracle() -> None:
    """diag(1, 5, 9) without the third: top 5, trace 6."""
    operator = _quadratic([1, 5, 9], [True, True, False])
    assert (operator.size, operator.dimension) == (3, 2)
    assert operator(torch.tensor([1.0, 1, 1])).tolist() == [1, 5, 0]
    found = subspace_curvature(operator)
    assert found.top == pytest.approx(5, abs=1e-12)
    assert found.residual < 1e-9
    assert found.probes == (6,) * 10  # of a diagonal operator every probe is the trace
    assert (found.trace, found.trace_sd, found.dimension) == (6, 0, 2)


def test_a_power_iteration_begins_within_the_subspace() -> None:
    """5 times the identity: the first quotient is its eigenvalue, however few weights are kept."""
    x, kept = torch.zeros(1000, requires_grad=True), torch.arange(1000) < 10
    operator = Hessian(lambda: [x.square().sum() * 2.5], [x], [kept])
    found = subspace_curvature(operator, steps=1, probes=1)
    assert found.top == pytest.approx(5, rel=1e-6)
    assert found.residual == pytest.approx(0, abs=1e-5)
    assert not operator.start()[~kept].any()
    none = Hessian(lambda: [x.square().sum() * 2.5], [x], [~kept & kept])
    plain = subspace_curvature(none).plain()
    assert [plain[name] for name in ("dimension", "top", "residual", "trace", "trace_sd")] == [
        *(0, None, None, None, None)
    ]


def test_the_top_has_its_sign() -> None:
    assert subspace_curvature(_quadratic([1, -5, 3], [True] * 3)).top == pytest.approx(-5, abs=1e-6)


def test_a_flat_loss_has_none() -> None:
    found = subspace_curvature(_quadratic([0, 0, 9], [True, True, False]), steps=3, probes=2)
    assert (found.top, found.residual, found.trace) == (0, 0, 0)


def test_a_power_iteration_that_was_stopped_goes_on() -> None:
    operator = _quadratic([1, 5, 4], [True] * 3)
    whole = list(power_steps(operator, operator.start(), 12))
    begun = list(power_steps(operator, operator.start(), 5))
    rest = list(power_steps(operator, begun[-1].vector, 7))
    assert [step.value for step in (*begun, *rest)] == [step.value for step in whole]
    assert torch.equal(rest[-1].vector, whole[-1].vector)
    residuals = [step.residual for step in whole[4:]]
    assert all(later < earlier for earlier, later in pairwise(residuals))


def test_a_probe_depends_on_its_number_and_the_seed_alone() -> None:
    operator = _quadratic([1, 5, 4], [True] * 3)
    assert not torch.equal(operator.start(0), operator.start(1))
    big = Hessian(list, [torch.zeros(1000)], [torch.ones(1000).bool()])
    assert set(big.probe(3).tolist()) == {-1, 1}
    assert torch.equal(big.probe(3), big.probe(3))
    assert not torch.equal(big.probe(3), big.probe(4))
    assert not torch.equal(big.probe(3), big.probe(3, seed=1))


class _Small(nn.Module):
    """Batch normalisation, a product of two layers: a Hessian that is nowhere diagonal."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(16)
        self.one = nn.Linear(16, 2)
        self.two = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.two(torch.tanh(self.one(self.bn(x.flatten(1)))))
        return logits


def test_a_network_s_hessian_against_the_whole_matrix_in_float64() -> None:
    data = dataset(250, mean=128, deviation=70)
    network = _Small().double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state["bn.running_mean"] += 0.3
    mask = {
        name: torch.rand(state[name].shape, generator=generator) < 0.6
        for name in ("one.weight", "two.weight")
    }
    operator = hessian(network, state, mask, data, images=230)

    kept = torch.cat([m.flatten() for m in mask.values()])
    images, labels = data.sample(fixed_images(250, 230))
    flat = torch.cat([(state[name] * m).flatten() for name, m in mask.items()])

    def loss(flat: Tensor) -> Tensor:
        one, two = flat.split([32, 6])
        weights = {"one.weight": one.view(2, 16), "two.weight": two.view(3, 2)}
        logits = functional_call(network.eval(), {**state, **weights}, (images.double(),))
        return F.cross_entropy(logits, labels)

    whole = torch.autograd.functional.hessian(loss, flat) * kept * kept[:, None]
    columns = torch.stack([operator(one) for one in torch.eye(38, dtype=torch.float64)])
    torch.testing.assert_close(columns, whole, rtol=1e-10, atol=1e-12)

    eigenvalues = torch.linalg.eigvalsh(whole)
    found = subspace_curvature(operator, steps=100, probes=100)
    assert found.top == pytest.approx(float(eigenvalues[-1]), rel=1e-9)
    error = found.trace_sd / math.sqrt(100)
    assert error < 0.2 * found.trace
    assert abs(found.trace - float(whole.trace())) < 4 * error


def test_a_residual_network_is_looked_at_in_evaluation_mode_and_left_as_it_is() -> None:
    data = dataset(20, mean=128, deviation=70)
    network = build("resnet14(width=4)", IMAGE, 0).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    operator = hessian(network, before, ones(network), data, images=12)
    by_name = hessian("resnet14(width=4)", before, ones(network), data, images=12)
    vector = operator.start()
    found = operator(vector)
    assert torch.equal(found, by_name(vector))
    assert torch.equal(found, operator(vector))
    assert network.training
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    # Symmetric: u.Hv = v.Hu
    other = operator.probe(0)
    assert float(other @ found) == pytest.approx(float(vector @ operator(other)), rel=1e-3)
    assert len(list(trace_probes(operator, (0, 1)))) == 2


def test_a_network_that_has_diverged_is_refused() -> None:
    network = build("resnet14(width=4)", IMAGE, 0)
    state = network.state_dict()
    state["fc.bias"] = torch.full((3,), float("nan"))
    with pytest.raises(ElthError, match="the loss is nan at these weights: a network that has div"):
        hessian(network, state, ones(network), dataset())
    other = build("resnet14(width=8)", IMAGE, 0)
    with pytest.raises(ElthError, match="'bn1.bias' should be of shape 4, found 8"):
        hessian(network, other.state_dict(), ones(other), dataset())


def test_an_iteration_of_no_step_is_refused() -> None:
    with pytest.raises(ElthError, match="has at least 1 step, found steps 0"):
        subspace_curvature(_quadratic([1, 2, 3], [True] * 3), steps=0)


def test_plain_numbers() -> None:
    found = Curvature(dimension=2, top=5.0, residual=0.0, steps=20, probes=(5.0, 7.0))
    assert json.loads(json.dumps(found.plain())) == {
        "dimension": 2,
        "top": 5,
        "residual": 0,
        "steps": 20,
        "trace": 6,
        "trace_sd": math.sqrt(2),
        "probes": 2,
    }
    none = Curvature(dimension=2, top=5.0, residual=0.0, steps=20, probes=()).plain()
    assert (none["trace"], none["trace_sd"], none["probes"]) == (None, None, 0)
