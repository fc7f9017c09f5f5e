"""Each criterion against slow code that is written from its paper alone, in float64."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from elth import masks
from elth.criteria import CRITERIA, Mode, grasp, needs_data, prune, snip, synflow
from elth.masks import Mask
from elth.networks import DataShape, Network
from tests.elth.criteria.helpers import SHAPE, batch, half, network, noise

Batch = tuple[Tensor, Tensor]
NETWORKS = ("tiny", "mlp2(width=4,last_width=3)", "resnet14(width=1)")


def _close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Equal to nine digits of the largest score of each layer."""
    assert list(found) == list(expected)
    alive = sum(bool(score.any()) for score in expected.values())
    assert alive > len(expected) / 2
    for name, score in expected.items():
        assert found[name].dtype is torch.float64
        torch.testing.assert_close(
            found[name], score, rtol=1e-9, atol=1e-9 * float(score.abs().max()), msg=name
        )


def _chosen(scores: Mapping[str, Tensor], keep: int) -> Mask:
    """The ``keep`` highest scores, one at a time; of equal ones the first."""
    places = [
        (-value, layer, place)
        for layer, score in enumerate(scores.values())
        for place, value in enumerate(score.flatten().tolist())
    ]
    result = {name: torch.zeros(score.shape, dtype=torch.bool) for name, score in scores.items()}
    flat = [m.view(-1) for m in result.values()]
    for _, layer, place in sorted(places)[:keep]:
        flat[layer][place] = True
    return result


def _same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def _forward(state: Mapping[str, Tensor], x: Tensor, mode: Mode) -> Tensor:
    """The network ``tiny``, written again with loops instead of layers."""
    padded = F.pad(x, (1, 1, 1, 1))
    windows = torch.stack(
        [padded[:, 0, i : i + 4, j : j + 4] for i in range(3) for j in range(3)], dim=-1
    )
    x = torch.einsum("nhwk,ck->nchw", windows, state["conv.weight"].reshape(2, 9))
    x = x + state["conv.bias"][:, None, None]
    mean, variance = state["bn.running_mean"], state["bn.running_var"]
    if mode == "train":
        mean = x.mean((0, 2, 3))
        variance = ((x - mean[:, None, None]) ** 2).mean((0, 2, 3))
    x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    x = x * state["bn.weight"][:, None, None] + state["bn.bias"][:, None, None]
    x = x.clamp(min=0)
    pooled = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    return pooled.reshape(-1, 8) @ state["fc.weight"].T + state["fc.bias"]


def _logits(net: Network, mode: Mode) -> Callable[[Mapping[str, Tensor], Tensor], Tensor]:
    """A function of the network's tensors and of images."""
    fixed = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    if "conv.weight" in fixed:
        return lambda changed, x: _forward({**fixed, **changed}, x, mode)
    model = copy.deepcopy(net).train(mode == "train")
    return lambda changed, x: functional_call(
        model, {n: t.clone() if n not in changed else changed[n] for n, t in fixed.items()}, (x,)
    )


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the images of log(sum(exp(z))) - z of the class."""
    return (logits.logsumexp(1) - logits[torch.arange(len(labels)), labels]).mean()


def _loss(
    net: Network, mode: Mode, images: Batch, temperature: float = 1.0
) -> Callable[..., Tensor]:
    """The loss as a function of the weights, one tensor for each layer that is prunable."""
    logits = _logits(net, mode)
    names = list(masks.ones(net))

    def loss(*weights: Tensor) -> Tensor:
        changed = dict(zip(names, weights, strict=True))
        return _cross_entropy(logits(changed, images[0]) / temperature, images[1])

    return loss


def _weights(net: Network) -> dict[str, Tensor]:
    return {name: net.get_parameter(name).detach().clone() for name in masks.ones(net)}


# SNIP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("masked", [False, True])
def test_snip_is_the_derivative_by_the_mask(name: str, mode: Mode, masked: bool) -> None:
    """Lee et al. 2019, equation 4: dL(c * w)/dc at c = 1, that is at c = mask."""
    net, data = network(name), noise()
    mask = half(net) if masked else masks.ones(net)
    weights = _weights(net)
    loss = _loss(net, mode, batch(data, 0, 20))
    connections = [m.double().requires_grad_() for m in mask.values()]
    value = loss(*(c * w for c, w in zip(connections, weights.values(), strict=True)))
    derivative = torch.autograd.grad(value, connections)
    expected = {n: (d * mask[n]).abs() for n, d in zip(mask, derivative, strict=True)}
    _close(snip.scores(net, mask, [batch(data, 0, 20)], mode=mode), expected)


def test_snip_by_central_differences() -> None:
    net, data, step = network("tiny"), noise(), 1e-6
    weights = _weights(net)
    loss = _loss(net, "eval", batch(data, 0, 20))
    expected = {}
    for name, weight in weights.items():
        slope = torch.zeros(weight.numel(), dtype=torch.float64)
        for place in range(weight.numel()):
            sides = []
            for sign in (1, -1):
                connection = torch.ones(weight.numel(), dtype=torch.float64)
                connection[place] += sign * step
                moved = {**weights, name: weight * connection.view_as(weight)}
                sides.append(float(loss(*moved.values())))
            slope[place] = abs(sides[0] - sides[1]) / (2 * step)
        expected[name] = slope.view_as(weight)
    found = snip.scores(net, masks.ones(net), [batch(data, 0, 20)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_snip_of_parts_is_snip_of_the_whole() -> None:
    net, data = network("resnet14(width=1)"), noise()
    whole = snip.scores(net, masks.ones(net), [batch(data, 0, 20)])
    parts = [batch(data, 0, 3), batch(data, 3, 20)]
    _close(snip.scores(net, masks.ones(net), parts), whole)


@pytest.mark.parametrize(("samples", "passes"), [(20, [20]), (0, [100, 100, 100]), (129, [65, 64])])
def test_snip_draws_its_images_once_each(samples: int, passes: list[int]) -> None:
    net, data = network("tiny"), noise(300)
    found = snip.prune(net, masks.ones(net), 20, data=data, seed=5, samples=samples)
    assert [len(part) for part in data.asked] == passes
    asked = list(itertools.chain(*data.asked))
    assert len(set(asked)) == (samples or 300)
    loss = _loss(net, "eval", (data.images[asked].double(), data.train_labels[asked]))
    weights = [w.requires_grad_() for w in _weights(net).values()]
    gradient = torch.autograd.grad(loss(*weights), weights)
    scores = [(w * g).abs() for w, g in zip(weights, gradient, strict=True)]
    _same(found, _chosen(dict(zip(masks.ones(net), scores, strict=True)), 20))


# GraSP ------------------------------------------------------------------------------------------


def _hessian_product(
    net: Network, mask: Mask, first: list[Batch], second: list[Batch], mode: Mode, heat: float
) -> dict[str, Tensor]:
    """w * Hg over the weights that are left, with the whole Hessian, row by row."""
    weights = _weights(net)
    left = torch.cat([m.flatten() for m in mask.values()]).nonzero()[:, 0]
    everything = torch.cat([w.flatten() for w in weights.values()])

    def loss_of(images: Batch) -> Callable[[Tensor], Tensor]:
        loss = _loss(net, mode, images, heat)

        def of_those_left(values: Tensor) -> Tensor:
            flat = torch.zeros_like(everything).index_put((left,), values)
            parts = flat.split([w.numel() for w in weights.values()])
            return loss(*(p.view_as(w) for p, w in zip(parts, weights.values(), strict=True)))

        return of_those_left

    at = everything[left]
    gradient = sum(torch.autograd.functional.jacobian(loss_of(b), at) for b in first)
    hessian = sum(torch.autograd.functional.hessian(loss_of(b), at) for b in second)
    assert isinstance(hessian, Tensor)
    flat = torch.zeros_like(everything).index_put((left,), at * (hessian @ gradient))
    parts = flat.split([w.numel() for w in weights.values()])
    return {n: p.view_as(w) for (n, w), p in zip(weights.items(), parts, strict=True)}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NETWORKS[:2])
def test_grasp_is_the_full_hessian_times_the_gradient(name: str, mode: Mode, masked: bool) -> None:
    net, data = network(name), noise()
    mask = half(net) if masked else masks.ones(net)
    first, second = [batch(data, 0, 9)], [batch(data, 9, 17)]
    found = grasp.scores(net, mask, first, second, temperature=7.0, mode=mode)
    _close(found, _hessian_product(net, mask, first, second, mode, 7.0))


def test_grasp_of_a_residual_network_and_several_batches() -> None:
    net, data = network("resnet14(width=1)"), noise()
    mask = {n: m & half(net, 1)[n] for n, m in half(net).items()}
    first = [batch(data, 0, 6), batch(data, 6, 12)]
    second = [batch(data, 12, 18)]
    found = grasp.scores(net, mask, first, second)
    _close(found, _hessian_product(net, mask, first, second, "train", 200.0))


@pytest.mark.parametrize("criterion", ["grasp", "grasp_absolute"])
@pytest.mark.parametrize("halves", ["disjoint", "joint"])
def test_grasp_keeps_the_right_sign_from_the_right_halves(criterion: str, halves: str) -> None:
    net, data = network("tiny"), noise()
    settings: dict[str, Any] = {
        "samples_per_class": 5,
        "batches": 2,
        "temperature": 3.0,
        "halves": halves,
    }
    found = prune(criterion, net, masks.ones(net), 20, shape=SHAPE, data=data, seed=4, **settings)
    drawn = grasp.draw(data.train_labels, 3, samples_per_class=5, batches=2, parts=2, seed=4)
    first, second = (
        [(data.images[pair[i]].double(), data.train_labels[pair[i]]) for pair in drawn]
        for i in (0, 1)
    )
    if halves == "joint":
        first = second = [part for pair in zip(first, second, strict=True) for part in pair]
    kept = _hessian_product(net, masks.ones(net), first, second, "train", 3.0)
    if criterion == "grasp":
        removed = {n: -s for n, s in kept.items()}  # S = -w * Hg: the highest are removed
        _same(found, {n: ~m for n, m in _chosen(removed, masks.total(found) - 20).items()})
    else:
        _same(found, _chosen({n: s.abs() for n, s in kept.items()}, 20))


@pytest.mark.parametrize(("samples", "batches"), [(10, 1), (1, 4), (3, 2), (2, 3)])
def test_the_halves_of_grasp_hold_every_class_alike(samples: int, batches: int) -> None:
    labels = noise(60).train_labels
    drawn = grasp.draw(labels, 3, samples_per_class=samples, batches=batches, parts=2, seed=1)
    assert len(drawn) == batches
    everything = torch.cat([half for pair in drawn for half in pair]).tolist()
    assert len(set(everything)) == len(everything) == 3 * samples * batches
    totals = torch.zeros(2, 3, dtype=torch.int64)
    for pair in drawn:
        counts = torch.stack([torch.bincount(labels[half], minlength=3) for half in pair])
        assert counts.sum(0).tolist() == [samples] * 3
        assert int((counts[0] - counts[1]).abs().max()) <= samples % 2
        assert abs(len(pair[0]) - len(pair[1])) <= 1
        totals += counts
    # What one batch gives to a half, the next gives to the other.
    assert int((totals[0] - totals[1]).abs().max()) <= (samples * batches) % 2


# SynFlow ----------------------------------------------------------------------------------------


def _paths(state: Mapping[str, Tensor], mask: Mask, layers: tuple[str, ...]) -> dict[str, Tensor]:
    """Sum over the paths through a weight, from pixels of 1 or from biases, of their products."""
    weights = {n: (state[f"{n}.weight"].abs() * mask[f"{n}.weight"]).tolist() for n in layers}
    biases = {n: state[f"{n}.bias"].abs().tolist() for n in layers}
    result = {f"{n}.weight": torch.zeros_like(state[f"{n}.weight"]) for n in layers}

    def walk(depth: int, unit: int, product: float, steps: list[tuple[str, int, int]]) -> None:
        if depth == len(layers):
            for name, i, j in steps:
                result[f"{name}.weight"][i, j] += product
            return
        name = layers[depth]
        for i, row in enumerate(weights[name]):
            walk(depth + 1, i, product * row[unit], [*steps, (name, i, unit)])

    for pixel in range(len(weights[layers[0]][0])):
        walk(0, pixel, 1.0, [])
    for depth, name in enumerate(layers):
        for unit, bias in enumerate(biases[name]):
            walk(depth + 1, unit, bias, [])
    return result


@pytest.mark.parametrize("masked", [False, True])
def test_synflow_is_the_sum_over_paths(masked: bool) -> None:
    shape = DataShape(channels=1, size=2, classes=3)
    net = network("mlp2(width=3,last_width=2)", shape=shape)
    mask = half(net, 1) if masked else masks.ones(net)
    expected = _paths(net.state_dict(), mask, ("stem", "hidden.0", "tail", "head"))
    _close(synflow.scores(net, mask, shape), expected)


def test_synflow_with_batch_normalisation() -> None:
    """In evaluation mode, with the absolute value of every tensor, running statistics included."""
    net = network("tiny")
    net.train()
    mask = half(net)
    state = {n: t.abs() for n, t in net.state_dict().items()}
    weights = {n: (state[n] * m).requires_grad_() for n, m in mask.items()}
    flow = _forward({**state, **weights}, torch.ones(1, 1, 4, 4, dtype=torch.float64), "eval")
    gradient = torch.autograd.grad(flow.sum(), list(weights.values()))
    expected = {n: (w * g).detach() for (n, w), g in zip(weights.items(), gradient, strict=True)}
    _close(synflow.scores(net, mask, SHAPE), {n: s.abs() for n, s in expected.items()})


def test_synflow_is_computed_in_float64() -> None:
    net = network("resnet14(width=1)")
    single = copy.deepcopy(net).float()
    _close(
        synflow.scores(single, masks.ones(net), SHAPE),
        synflow.scores(copy.deepcopy(single).double(), masks.ones(net), SHAPE),
    )


@pytest.mark.parametrize(("iterations", "keep"), [(1, 9), (7, 9), (7, 20), (100, 5)])
def test_synflow_prunes_by_an_exponential_schedule(iterations: int, keep: int) -> None:
    shape = DataShape(channels=1, size=2, classes=3)
    net = network("mlp1(width=3,last_width=2)", shape=shape)
    mask = masks.ones(net)
    total = masks.total(mask)
    for k in range(1, iterations + 1):
        scores = _paths(net.state_dict(), mask, ("stem", "tail", "head"))
        # A weight without a path scores 0, as one that is pruned does, which must not return.
        scores = {n: torch.where(mask[n], s, -1.0) for n, s in scores.items()}
        count = keep if k == iterations else math.floor(total * (keep / total) ** (k / iterations))
        mask = _chosen(scores, max(count, keep))
    found = synflow.prune(
        net, masks.ones(net), keep, shape=shape, iterations=iterations, unpruned=()
    )
    _same(found, mask)


# A second device --------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_gpu_gives_the_mask_of_the_cpu(criterion: str) -> None:
    net, data = network("resnet14(width=1)"), noise()
    there = copy.deepcopy(net).cuda()
    small: dict[str, Any] = {"samples": 20} if criterion == "snip" else {}
    found, expected = (
        prune(
            criterion,
            n,
            half(net),
            100,
            shape=SHAPE,
            data=data if needs_data(criterion) else None,
            seed=2,
            **small,
        )
        for n in (there, net)
    )
    assert all(m.device.type == "cpu" for m in found.values())
    _same(found, expected)


@pytest.mark.gpu
def test_a_gpu_gives_the_scores_of_the_cpu() -> None:
    net, data = network("resnet14(width=1)"), noise()
    mask = masks.ones(net)
    first, second = [batch(data, 0, 9)], [batch(data, 9, 17)]

    def scores(on: Network) -> list[dict[str, Tensor]]:
        return [
            snip.scores(on, mask, first),
            grasp.scores(on, mask, first, second),
            synflow.scores(on, mask, SHAPE),
        ]

    for found, expected in zip(scores(copy.deepcopy(net).cuda()), scores(net), strict=True):
        for name, score in expected.items():
            assert found[name].device.type == "cuda"
            largest = float(score.abs().max())
            torch.testing.assert_close(found[name].cpu(), score, rtol=1e-6, atol=1e-6 * largest)
