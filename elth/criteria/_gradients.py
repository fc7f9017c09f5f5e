"""What the criteria that differentiate share: samples, a masked copy of the network, its loss."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Concatenate, Literal, ParamSpec, Protocol, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth import masks
from elth.convolutions import arrange_convolutions, calls_others, safe_convolutions
from elth.errors import ElthError, unknown
from elth.precision import computing
from elth.streams import seed_defaults

Batch = tuple[Tensor, Tensor]
"""Images (n, C, H, W) and labels (n,)."""

Mode = Literal["eval", "train"]
"""Batch normalisation by the running statistics, or by those of the batch."""


class Samples(Protocol):
    """What a criterion needs of a dataset."""

    @property
    def train_labels(self) -> Tensor:
        """Labels (N,) of the training set as int64."""

    def sample(self, indices: Tensor) -> Batch:
        """Give training images as normalised float32 (n, C, H, W), not augmented, and labels (n,).

        The indices (n,) are on the CPU; images and labels are where the dataset is.
        """


P = ParamSpec("P")
T = TypeVar("T")


def scoring(
    function: Callable[Concatenate[nn.Module, P], T],
) -> Callable[Concatenate[nn.Module, P], T]:
    """Let a function of a network compute with gradients, and in float32 on a GPU.

    So scores do not depend on what was trained in the process before.
    """

    @functools.wraps(function)
    def scored(network: nn.Module, /, *args: P.args, **kwargs: P.kwargs) -> T:
        device = next(network.parameters()).device
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # a network may draw, as one with dropout
            seed_defaults(0, device)
            with torch.enable_grad(), computing("float32", device):
                return function(network, *args, **kwargs)

    return scored


def required(data: Samples | None, criterion: str) -> Samples:
    """Return the dataset.

    Raises:
        ElthError: there is none.
    """
    if data is None:
        raise ElthError(f"the criterion {criterion} needs training images; give it a dataset")
    return data


def replica(
    network: nn.Module, mask: Mapping[str, Tensor], mode: Mode
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Copy a network with its pruned weights at zero; the weights of the mask want gradients.

    Returns:
        The copy, on the device of the network, and the weights that ``mask`` names.

    Raises:
        ElthError: the mask does not fit the network, or the mode is unknown.
    """
    if mode not in get_args(Mode):
        raise unknown("mode", mode, get_args(Mode))
    result = copy.deepcopy(network).train(mode == "train").requires_grad_(False)
    if next(result.parameters()).device.type == "cpu":
        arrange_convolutions(result)
    state = network.state_dict()
    placed = {name: m.to(state[name].device) for name, m in mask.items() if name in state}
    result.load_state_dict(masks.apply({**mask, **placed}, state))
    weights = {name: result.get_parameter(name).requires_grad_() for name in mask}
    return result, dict(weights)


def forward(network: nn.Module, images: Tensor) -> Tensor:
    """Logits of images, by sound convolutions."""
    others = images.device.type == "cpu" and calls_others(network)
    with safe_convolutions() if others else contextlib.nullcontext():
        logits: Tensor = network(images)
    return logits


def loss(
    network: nn.Module,
    batch: Batch,
    *,
    reduction: Literal["mean", "sum"],
    temperature: float = 1.0,
) -> Tensor:
    """Cross-entropy of logits / temperature in nats, the mean or the sum over the batch: ().

    Raises:
        ElthError: it is not finite.
    """
    images, labels = batch
    like = next(network.parameters())
    logits = forward(network, images.to(like)) / temperature
    value = F.cross_entropy(logits, labels.to(like.device), reduction=reduction)
    if not bool(torch.isfinite(value)):
        raise ElthError(
            f"the loss is {float(value.detach())} at the weights that are to be pruned; they have "
            "diverged: rewind to an earlier point, or train with a lower learning rate"
        )
    return value


def some(batches: Iterable[Batch], criterion: str) -> Iterator[Batch]:
    """The batches, of which there is one at least.

    Raises:
        ElthError: there is none.
    """
    is_any = False
    for batch in batches:
        is_any = True
        yield batch
    if not is_any:
        raise ElthError(
            f"the criterion {criterion} was given no batch; an iterator gives its batches once: "
            "give a list"
        )


def finite(scores: dict[str, Tensor], criterion: str) -> dict[str, Tensor]:
    """Return the scores.

    Raises:
        ElthError: one is infinite or not a number.
    """
    for name, score in scores.items():
        if not bool(torch.isfinite(score).all()):
            raise ElthError(
                f"a score of {criterion} in '{name}' is not finite: the weights are too large or "
                "have diverged; rewind to an earlier point, or train with a lower learning rate"
            )
    return scores
