"""What batch normalisation goes by on a path between two networks.

The running statistics of the ends are no statistics of what lies between. Two choices are in use,
and which one is part of what a result is:

- ``interpolate``: running mean and variance are linear in a, as weights are. It needs no data. In
  the middle of distant networks the variance is wrong, so a barrier is an upper bound.
- ``recompute``: they are taken anew at every point, the ends too, from training images (Izmailov
  et al. 2018; Jordan et al. 2023). The barrier is lower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from elth.data import Batches
from elth.errors import ElthError, unknown
from elth.measures import BATCH_NORMS
from elth.parallel import GroupedBatchNorm2d

BatchNorm = Literal["interpolate", "recompute"]
"""What batch normalisation goes by."""


def check(choice: str) -> None:
    """Refuse what is none of the choices.

    Raises:
        ElthError: with those that there are.
    """
    if choice == "keep":
        raise ElthError(
            "batch_norm 'keep' would judge every point of a path by the statistics of one of its "
            f"ends, which means nothing: take one of {', '.join(BATCH_NORMS)}"
        )
    if choice not in BATCH_NORMS:
        raise unknown("batch_norm", choice, BATCH_NORMS)


def negative_variance(state: Mapping[str, Tensor]) -> str:
    """Name of a running variance that has become negative, or an empty string.

    Outside of the ends of a path a variance that is interpolated may be: there is then no such
    network.
    """
    for name, tensor in state.items():
        if name.rpartition(".")[2] == "running_var" and bool((tensor < 0).any()):
            return name
    return ""


@torch.no_grad()
def recompute(network: nn.Module, logits: Callable[[Tensor], Tensor], batches: Batches) -> None:
    """Take the running statistics of a network anew: the plain mean over those of the batches.

    Mean and unbiased variance of each batch, in the order of the batches; what was there before
    plays no part. As ``torch.optim.swa_utils.update_bn``, but that dropout and the like stay as
    they are when a network is evaluated.

    Args:
        network: its running statistics are changed in place; its layers are left in the modes in
            which they are found.
        logits: runs the network on images (n, C, H, W).
        batches: images and labels, of about equal size; they are closed at the end.

    Raises:
        ElthError: a layer other than batch normalisation has running statistics, or batch
            normalisation is by groups of a batch.
    """
    for name, module in network.named_modules():
        known = isinstance(module, _BatchNorm) or not isinstance(module, _NormBase)
        if not known and module.running_mean is not None:
            raise ElthError(
                f"'{name}' is a {type(module).__name__} with running statistics, and batch_norm "
                "'recompute' takes those of batch normalisation alone anew: take 'interpolate', or "
                "a layer without them (track_running_stats=False)"
            )
        if isinstance(module, GroupedBatchNorm2d):
            raise ElthError(
                f"'{name}' normalises by groups of a batch (batch_norm_group), which have no plain "
                "mean: give a network that is not arranged for a recipe"
            )
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if not norms:
        return
    modes = {module: module.training for module in network.modules()}
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's word for a cumulative mean
        norm.train()
    try:
        with closing(batches):
            for images, _ in batches:
                logits(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
