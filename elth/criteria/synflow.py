"""SynFlow: the weights stay through which most flows, found without data (Tanaka et al. 2020)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from elth.criteria._gradients import Samples, finite, forward, replica, scoring
from elth.criteria._selection import check_count, keep_highest, on_cpu, spared
from elth.masks import Mask, nonzeros
from elth.specs import DataShape


def scores(network: nn.Module, mask: Mapping[str, Tensor], shape: DataShape) -> dict[str, Tensor]:
    """Score ``|w * dR/dw|`` with R the sum of the logits (Tanaka et al. 2020, algorithm 1).

    R is computed in float64 and evaluation mode, for one image of ones, by the network with the
    absolute value of its whole state, running statistics included; the network is left as it is.

    Returns:
        For each weight of the mask its scores in float64, on the network's device.

    Raises:
        ElthError: the mask does not fit, or a score is not finite.
    """
    return _flow(*_positive(network, mask), shape)


def counts(have: int, keep: int, iterations: int) -> Iterator[int]:
    """Number of weights left after each iteration k of n: have * (keep / have)^(k/n), as integers.

    Rounded down, but never below ``keep``, which the last one is.

    Example:
        >>> list(counts(1000, 10, 4))
        [316, 100, 31, 10]
    """
    for k in range(1, iterations):
        yield max(keep, int(have * (keep / max(have, 1)) ** (k / iterations)))
    yield keep


def prune(
    network: nn.Module,
    mask: Mapping[str, Tensor],
    keep: int,
    *,
    shape: DataShape,
    data: Samples | None = None,
    seed: int = 0,
    unpruned: Collection[str] | None = None,
    iterations: int = 100,
) -> Mask:
    """Score and prune ``iterations`` times, down to ``keep`` weights (algorithm 1).

    Args:
        network: the network with its weights; it is left as it is.
        mask: what is left so far.
        keep: the number of weights that are left afterwards.
        shape: shape of the image of ones.
        data: not used.
        seed: not used: nothing is drawn.
        unpruned: names of weights that are left whole; None for the anatomy's.
        iterations: how often is scored and pruned; the density falls exponentially.

    Raises:
        ElthError: the count is impossible, or as ``scores``.
    """
    whole = spared(network, unpruned)
    check_count(mask, keep, whole)
    model, weights = _positive(network, mask)
    mask = {name: m.to(weights[name].device) for name, m in mask.items()}
    for count in counts(nonzeros(mask), keep, iterations):
        mask = keep_highest(_flow(model, weights, shape), mask, count, unpruned=whole)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.mul_(mask[name])
    return on_cpu(mask)


def _positive(
    network: nn.Module, mask: Mapping[str, Tensor]
) -> tuple[nn.Module, dict[str, Tensor]]:
    model, _ = replica(network, mask, "eval")
    model = model.double()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.abs_()
    return model, {name: model.get_parameter(name) for name in mask}


@scoring
def _flow(model: nn.Module, weights: Mapping[str, Tensor], shape: DataShape) -> dict[str, Tensor]:
    like = next(model.parameters())
    image = torch.ones(
        (1, shape.channels, shape.size, shape.size), dtype=like.dtype, device=like.device
    )
    flow = forward(model, image).sum()
    gradient = torch.autograd.grad(flow, list(weights.values()), materialize_grads=True)
    return finite(
        {n: (w.detach() * g).abs() for (n, w), g in zip(weights.items(), gradient, strict=True)},
        "synflow",
    )
