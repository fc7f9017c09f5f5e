"""Compiled code against the same step done operation by operation.

Compiled code cannot be watched, so its loss and gradients are compared as a whole. Rounding grows
on the way through a network, and a ReLU that flips is no small change: two sound ways differ by
some percent of a gradient, and by more in bfloat16 (docs/numerics.md). So only what is off by a
good part of itself, and by more than a change of the images by a unit roundoff does, is refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from elth.arithmetic._compare import UNIT
from elth.arithmetic._gate import act, choice, unit_of, where
from elth.arithmetic._machine import kind
from elth.recipes import Recipe
from elth.streams import stream

_SHARE = 0.5
"""Of the norm of a gradient, by which compiled code may be off."""
_SMALL = 1e-3
"""Of the norm of all gradients: less may be nothing but rounding, as for a bias before a mean."""
_LOSS = 1e-3
"""Of the loss, by which it may be off."""
_SHAKES = 4.0
"""How often what a unit roundoff of the images does may be exceeded."""

_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
"""PyTorch's variable for the folder of what it has compiled."""

Loss = Callable[[Tensor, Tensor], Tensor]


def keep_apart() -> None:
    """Have this process find compiled code only of machines of its kind.

    PyTorch looks up what it has compiled by the network, not by the processor's instructions: of a
    folder that machines share, as one at home, it takes the code that was written for vectors of
    512 bits and builds it for 256, which gives wrong numbers or harms memory (2.13.0). So each kind
    of machine has a folder of its own in it, and a tag in PyTorch's keys.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    own, config = kind(), torch.compiler.config
    if os.path.basename(cache_dir()) != own:
        os.environ[_FOLDER] = os.path.join(cache_dir(), own)
    if own not in config.cache_key_tag:
        config.cache_key_tag += own


def ensure_alike(
    network: nn.Module, loss: Loss, fast_loss: Loss, recipe: Recipe, like: Tensor
) -> None:
    """Refuse compiled code whose loss or gradients are not those of the network.

    A network that draws at random, as one with dropout, is not looked at.

    Args:
        network: it is in training mode afterwards, and its running statistics have moved.
        loss: from images and labels to the mean loss, operation by operation.
        fast_loss: the same, compiled.
        recipe: its precision is taken.
        like: images (n, C, H, W), of which shape, layout and device are taken.

    Raises:
        WrongArithmeticError: with the gradient that is off most, or the loss.
    """
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if choice() == "off" or not trained:
        return
    network.train()
    names, parameters = list(trained), list(trained.values())
    generator = stream(0, "compiled")
    images = torch.empty_like(like).copy_(torch.randn(like.shape, generator=generator))
    signs = 2 * torch.randint(0, 2, like.shape, generator=generator).to(images) - 1
    shaken = torch.empty_like(images).copy_(images * (1 + unit_of(recipe) * signs))
    labels = torch.randint(0, 2, (len(like),), generator=generator).to(like.device)
    with torch.no_grad():
        if not torch.equal(loss(images, labels), loss(images, labels)):
            return

    def of(function: Loss, shown: Tensor) -> list[Tensor]:
        value = function(shown, labels)
        gradients = torch.autograd.grad(value, parameters, materialize_grads=True)
        return [value.detach(), *gradients]

    own, moved, fast = of(loss, images), of(loss, shaken), of(fast_loss, images)
    size = float(torch.stack([_norm(gradient) for gradient in own[1:]]).norm())

    def offs() -> Iterator[tuple[float, float, str]]:
        """Error over what is allowed, error over the whole, and of what."""
        told = ["loss", *(f"gradient of '{name}'" for name in names)]
        for what, a, b, c in zip(told, own, moved, fast, strict=True):
            whole, off = float(_norm(a)), float(_norm(c - a))
            least = 4 * unit_of(recipe) if what == "loss" else _SMALL * size
            share = _LOSS if what == "loss" else _SHARE
            allowed = share * whole + least + _SHAKES * float(_norm(b - a))
            times = off / max(allowed, UNIT[torch.float32])
            yield math.inf if math.isnan(times) else times, off / max(whole, 1e-30), what

    times, relative, what = max(offs())
    if times > 1:
        act(
            f"compiled code computes the network wrongly here: its {what} is off by "
            f"{100 * relative:,.3g} % ({where(recipe, like.device)})",
            like.device,
            "without compiling (resources.compile: false) it may be right",
        )


def _norm(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor.detach().double())
