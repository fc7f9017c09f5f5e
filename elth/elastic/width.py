"""Elastic ticket transformations along width: doubling and halving (E-LTH, arXiv v1, appendix B).

How a change is written, and what each does, stands in ``_notation.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elth.elastic._notation import Width, parse_width
from elth.errors import ElthError
from elth.masks import Mask
from elth.networks import (
    DataShape,
    Network,
    NetworkSpec,
    blueprint,
    canonical,
    options,
    prunable,
)
from elth.streams import stream
from elth.tickets import Ticket

_TIMES = {"double": "twice", "halve": "half"}


def check_width(
    width: Width, source: str | NetworkSpec, target: str | NetworkSpec, shape: DataShape
) -> None:
    """Refuse two networks of which one is not the other at double width and equal depth.

    A network is of double width where each tensor has twice the outputs and inputs, but for those
    that width does not set: the image, the classes, the one input of a depthwise convolution.

    Args:
        width: the change; ``double`` goes from the narrower to the wider network.
        source: the network that the ticket was found on.
        target: the network that it goes to.
        shape: the data's shape, for which both are built.

    Raises:
        ElthError: the networks differ otherwise; the message names the stage with both depths or
            the tensor with both shapes.
    """
    names = canonical(source), canonical(target)
    before, after = (blueprint(spec, shape) for spec in names)
    _check_depth(before, after, names)
    have, want = before.state_dict(), after.state_dict()
    for name in {**have, **want}:
        if name not in have or name not in want:
            there, lacking = names if name in have else names[::-1]
            raise ElthError(
                f"{there} has a tensor '{name}', {lacking} has none: "
                f"{width.operation} needs two networks that differ in width only"
            )
        old, new = tuple(have[name].shape), tuple(want[name].shape)
        narrow, wide = (old, new) if width.operation == "double" else (new, old)
        if len(old) != len(new) or any(
            b not in (a, 2 * a if dimension < 2 else a)
            for dimension, (a, b) in enumerate(zip(narrow, wide, strict=True))
        ):
            raise ElthError(
                f"'{name}' has shape {old} in {names[0]} and {new} in {names[1]}: "
                f"{width.operation} needs a target of {_TIMES[width.operation]} the width"
            )
    if all(have[name].shape == want[name].shape for name in have):
        name = next(iter(prunable(before)))
        raise ElthError(
            f"{names[0]} and {names[1]} are of one width ('{name}' has shape "
            f"{tuple(have[name].shape)} in both): {width.operation} needs a target of "
            f"{_TIMES[width.operation]} the width"
        )
    narrow_end = have if width.operation == "double" else want
    for name, tensor in narrow_end.items():
        if _interleaves(names[0]) and tensor.dim() == 4 and tensor.shape[0] % 2:
            raise ElthError(
                f"'{name}' has shape {tuple(have[name].shape)} in {names[0]} and "
                f"{tuple(want[name].shape)} in {names[1]}: beside a zero-padded shortcut an odd "
                "number of channels cannot be doubled evenly; choose an even width, or shortcuts "
                "with a convolution"
            )


def change_width(
    ticket: Ticket, target: str | NetworkSpec, width: str | Width, seed: int
) -> Ticket:
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
        ElthError: the notation cannot be read, or the networks do not fit (``check_width``).
    """
    if isinstance(width, str):
        width = parse_width(width)
    spec = canonical(target)
    check_width(width, ticket.network, spec, ticket.shape)
    network = blueprint(spec, ticket.shape)
    interleave = _interleaves(spec)
    weights = prunable(network)
    rewind: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        old = ticket.rewind[name]
        rewind[name] = _resize(old, tensor.shape, interleave=interleave)
        if name in weights and (width.operation, width.manner) != ("halve", ""):
            rewind[name] *= old.shape[1] / tensor.shape[1]
    mask = {
        name: _resize(ticket.mask[name], rewind[name].shape, interleave=interleave)
        for name in weights
    }
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


def _check_depth(before: Network, after: Network, names: tuple[NetworkSpec, NetworkSpec]) -> None:
    old, new = before.anatomy, after.anatomy
    if old.family != new.family or len(old.stages) != len(new.stages):
        raise ElthError(
            f"a ticket moves within one family of networks: found {old.family} with "
            f"{len(old.stages)} stages and {new.family} with {len(new.stages)}"
        )
    for s, t in zip(old.stages, new.stages, strict=True):
        if len(s.units) != len(t.units):
            raise ElthError(
                f"stage {t.name} has {len(s.units)} units in {names[0]} and {len(t.units)} in "
                f"{names[1]}: change the width between networks of one depth, and the depth by a "
                "plan"
            )


def _option(spec: NetworkSpec, name: str) -> Any:
    return dict(spec.options).get(name, options(spec.name).get(name))


def _interleaves(spec: NetworkSpec) -> bool:
    """Whether copies stand beside their channel (zero-padded shortcuts) or behind all of them."""
    return bool(_option(spec, "shortcut") == "pad")


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
