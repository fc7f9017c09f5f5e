"""The forward pass of a network as a recipe has it: layout, precision, normalisation."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth.convolutions import arrange_convolutions, calls_others, safe_convolutions
from elth.parallel import Group, arrange_norms
from elth.recipes import Recipe


class Forward:
    """A network on a device, ready for images.

    Args:
        network: it is moved to the device, and laid out there in channels-last.
        recipe: its precision, smoothing of labels and groups of batch normalisation are taken.
        device: where to compute.
        group: the workers that train it together, if there are several.
        compiled: whether what is called here is to be compiled.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        device: torch.device,
        group: Group | None = None,
        *,
        compiled: bool = False,
    ) -> None:
        """Arrange the network in place; its parameters stay the same objects."""
        self._device, self._precision = device, recipe.precision
        self._smoothing = recipe.label_smoothing
        arrange_norms(network, recipe.batch_norm_group, group, compiled=compiled)
        if device.type == "cpu":
            arrange_convolutions(network)
        self.network = network.to(device=device)
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.dim() == 4:  # convolutions of one and three sides have no such layout
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        self._looks = device.type == "cpu" and calls_others(network)

    def logits(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of normalised images (n, C, H, W) in channels-last.

        They are never of bfloat16.
        """
        with safe_convolutions() if self._looks else contextlib.nullcontext():
            if self._precision != "bf16":
                return self.network(images)
            with torch.autocast(self._device.type, torch.bfloat16):
                return self.network(images).float()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean training loss in nats: ()."""
        return self.loss_of(self.logits(images), labels)

    def loss_of(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy of logits (n, classes) in nats, with the recipe's smoothing of labels."""
        return F.cross_entropy(logits, labels, reduction=reduction, label_smoothing=self._smoothing)


def draws(network: nn.Module) -> bool:
    """Whether a network may draw random numbers while it trains.

    That are modules of PyTorch and torchvision that drop something, and all that are from outside,
    of which it is not known.
    """
    for module in network.modules():
        if not type(module).__module__.startswith(("torch.nn.", "torchvision.", "elth.")):
            return True
        if isinstance(module, nn.FractionalMaxPool2d | nn.FractionalMaxPool3d):
            return True
        for name, rate in vars(module).items():
            is_rate = name in ("p", "lower") or "drop" in name
            if is_rate and isinstance(rate, int | float) and rate > 0:
                return True
    return False


def channels_last(images: Tensor) -> Tensor:
    """Images (n, C, H, W) with the strides of channels last, copied only if they lie otherwise.

    Strides of a dimension of one are anything; code compiled for some serves no others.
    """
    _, channels, height, width = images.shape
    laid_out = images.contiguous(memory_format=torch.channels_last)
    return laid_out.as_strided(
        images.shape, (height * width * channels, 1, width * channels, channels)
    )
