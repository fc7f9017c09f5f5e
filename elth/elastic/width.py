"""Elastic ticket transformations along width: doubling and halving (E-LTH, arXiv v1, appendix B).

How a change is written, and what each does, stands in ``_notation.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from elth import networks
from elth.elastic._notation import Width, parse_width
from elth.elastic._tensors import check_width, interleaves
from elth.errors import ElthError
from elth.masks import Mask
from elth.networks import blueprint, canonical, prunable
from elth.specs import DataShape, Spec
from elth.streams import stream
from elth.tickets import Ticket

_ROUNDING = 1e-6
"""Of logits of networks that compute the same, in float64; weights are rounded to float32."""


def change_width(ticket: Ticket, target: str | Spec, width: str | Width, seed: int) -> Ticket:
    """Double or halve the width of a ticket (E-LTH, arXiv v1, appendix B).

    Doubled, W of (n, k, ...) becomes W'[i, j] = W[i mod n, j mod k] / 2 of (2n, 2k, ...); where the
    target does not double the inputs, W'[i, j] = W[i mod n, j]. Masks, biases and batch
    normalisation with its running statistics are copied along. Copies stand behind all channels so
    that a flattened image stays in order; with zero-padded shortcuts each stands beside its
    channel, i // 2 for i mod n, so that the zeros stay outside.

    Args:
        ticket: the source ticket.
        target: the network to go to; it is built for the shape of data of the ticket.
        width: notation or change of width.
        seed: noise and permutations are drawn from its stream "width".

    Returns:
        A ticket of the target, its history longer by this step. The sparsity of every layer is the
        source's where it is doubled.

    Raises:
        ElthError: the notation cannot be read, the networks do not fit (``check_width``), or a
            layer has attention, or groups whose number does not change with the width; or the
            doubled network, one from outside, does not compute what the ticket's does.
    """
    if isinstance(width, str):
        width = parse_width(width)
    spec = canonical(target)
    check_width(width, ticket.network, spec, ticket.shape)
    _check_layers(width, (ticket.network, spec), ticket.shape)
    network = blueprint(spec, ticket.shape)
    before = blueprint(ticket.network, ticket.shape)
    interleave = interleaves(spec)
    weights = prunable(network)
    rewind: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        old = ticket.rewind[name]
        rewind[name] = _resize(old, tensor.shape, interleave=interleave)
        if name in weights and (width.operation, width.manner) != ("halve", ""):
            rewind[name] *= _inputs(before, name, old) / _inputs(network, name, tensor)
    mask = {
        name: _resize(ticket.mask[name], rewind[name].shape, interleave=interleave)
        for name in weights
    }
    if width.operation == "double" and networks.module(spec.name):
        _check_function(ticket, Ticket(network=spec, shape=ticket.shape, rewind=rewind, mask=mask))
    _break_symmetry(width, rewind, mask, seed)
    step: dict[str, Any] = {
        "width": str(width),
        "source": str(ticket.network),
        "target": str(spec),
        "source_nonzeros": ticket.nonzeros,
    }
    return Ticket(
        network=spec,
        shape=ticket.shape,
        rewind=rewind,
        mask=mask,
        origin={**ticket.origin, "history": [*ticket.origin.get("history", ()), step]},
    )


def _check_layers(width: Width, names: tuple[Spec, Spec], shape: DataShape) -> None:
    """Refuse layers in whose tensors the channels of a group or head stand together.

    Copies behind all channels would be of another group.
    """
    narrow, wide = (
        dict(blueprint(spec, shape).named_modules())
        for spec in (names if width.operation == "double" else names[::-1])
    )
    for name, module in narrow.items():
        if isinstance(module, nn.MultiheadAttention):
            raise ElthError(
                f"'{name}' of {names[0]} is attention, whose queries, keys and values stand in one "
                f"tensor: {width.operation} cannot change its width; change the depth, by a plan"
            )
        groups = (getattr(module, "groups", 1), getattr(wide[name], "groups", 1))
        if groups[0] > 1 and groups[1] != 2 * groups[0]:
            raise ElthError(
                f"'{name}' has {groups[0]} groups in the narrower network and {groups[1]} in the "
                f"wider: {width.operation} needs twice as many, of channels as wide"
            )


def _inputs(network: nn.Module, name: str, weight: Tensor) -> int:
    """Over how many inputs each output of a layer sums, positions apart."""
    module = network.get_submodule(name.rpartition(".")[0])
    if isinstance(module, nn.modules.conv._ConvTransposeNd):  # of (inputs, outputs, ...)
        return int(weight.shape[0]) // module.groups
    return int(weight.shape[1])


def _check_function(before: Ticket, after: Ticket) -> None:
    """Refuse a doubled network whose logits are others, on two images of noise.

    Raises:
        ElthError: with how far they are apart.
    """
    shape = before.shape
    images = torch.randn(
        (2, shape.channels, shape.size, shape.size),
        generator=stream(0, "width"),
        dtype=torch.float64,
    )
    with torch.no_grad():
        expected, found = (one.make_network().double().eval()(images) for one in (before, after))
    apart, size = float((found - expected).abs().max()), float(expected.abs().max())
    if apart > _ROUNDING * max(size, 1.0):
        raise ElthError(
            f"doubled, {before.network} computes something else: of noise its logits are up to "
            f"{size:.2g} and those of {after.network} {apart:.2g} away. Copies stand behind all "
            "channels, so a layer that takes channels by their places (normalisation in groups, "
            "heads, channels that are concatenated) meets others: change its depth, by a plan"
        )


def _resize(tensor: Tensor, shape: torch.Size, *, interleave: bool) -> Tensor:
    """Copy a tensor to ``shape``: dimensions twice as long are filled by copies, halves dropped."""
    result = tensor.clone()
    for dimension, (old, new) in enumerate(zip(tensor.shape, shape, strict=True)):
        if new > old:
            places = torch.arange(new) // 2 if interleave else torch.arange(new) % old
        else:
            places = torch.arange(new) * (2 if interleave else 1)
        if new != old:
            result = result.index_select(dimension, places)
    return result


def _break_symmetry(width: Width, rewind: dict[str, Tensor], mask: Mask, seed: int) -> None:
    generator = stream(seed, "width")
    for name, m in mask.items():
        weight = rewind[name]
        if width.manner == "permute":
            places = torch.randperm(m.numel(), generator=generator)
            rewind[name] = weight.flatten()[places].reshape(weight.shape)
            mask[name] = m.flatten()[places].reshape(m.shape)
        elif width.manner == "gaussian":
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            # A layer of which nothing is kept has no mean, and none of its weights is touched.
            deviation = width.noise * weight[m].square().mean().sqrt()
            rewind[name] = torch.where(m, weight + deviation * noise, weight)
