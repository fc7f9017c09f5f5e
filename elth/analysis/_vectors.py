"""All prunable weights of a network as one vector, in parts and in one fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from elth.errors import ElthError

State = Mapping[str, Tensor]
"""Name to tensor: a state dict, or what it holds of the prunable weights."""

_VALUES = 2**22
"""Values of a part, over all of its vectors: 32 MiB in float64."""


def surviving(state: State, mask: Mapping[str, Tensor], name: str) -> Tensor:
    """The weights of a layer that its mask keeps: (kept,) in float64, in the order of positions."""
    kept = mask[name].detach().cpu().flatten()
    return state[name].detach().cpu().flatten()[kept].double()


def parts(
    states: Sequence[State], masks: Sequence[Mapping[str, Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give the vectors of several networks side by side, a part at a time.

    The order is that of the names, and within a layer that of positions; so it does not depend on
    how a state or mask was read. No more than a part is there in float64.

    Args:
        states: the weights of each network; what else they hold is not looked at.
        masks: the mask of each. They need not be nested.

    Yields:
        The weights (networks, n) in float64 on the CPU, exactly zero where they are pruned, and
        which are kept (networks, n).

    Raises:
        ElthError: a mask and its weights do not fit, or the masks are of different networks.
    """
    check(states, masks)
    width = max(1, _VALUES // max(1, len(states)))
    for name in sorted(masks[0]):
        flat = [state[name].detach().cpu().flatten().split(width) for state in states]
        kept = [mask[name].detach().cpu().flatten().split(width) for mask in masks]
        for weights, keeps in zip(zip(*flat, strict=True), zip(*kept, strict=True), strict=True):
            which = torch.stack(keeps)
            values = torch.stack([weight.double() for weight in weights])
            yield torch.where(which, values, 0.0), which


def check(states: Sequence[State], masks: Sequence[Mapping[str, Tensor]]) -> None:
    """Refuse weights and masks that do not fit each other.

    Raises:
        ElthError: naming the weight, what was found and what was expected.
    """
    if not states or len(states) != len(masks):
        raise ElthError(
            f"found weights of {len(states)} networks and {len(masks)} masks: give each its mask"
        )
    check_masks(masks)
    for number, (state, mask) in enumerate(zip(states, masks, strict=True)):
        for name, m in mask.items():
            if name not in state:
                raise ElthError(f"the mask names '{name}', which weights {number} lack")
            if state[name].shape != m.shape:
                raise ElthError(
                    f"'{name}' of weights {number} has shape {tuple(state[name].shape)}, its mask "
                    f"{tuple(m.shape)}"
                )


def check_masks(masks: Sequence[Mapping[str, Tensor]]) -> None:
    """Refuse masks that are not boolean, or not of one network.

    Raises:
        ElthError: naming the weight, what was found and what was expected.
    """
    first = masks[0]
    for number, mask in enumerate(masks):
        for name in [*first, *mask]:
            if name not in mask or name not in first:
                here, lacks = (0, number) if name in first else (number, 0)
                raise ElthError(
                    f"mask {here} names '{name}', which mask {lacks} lacks: they must be of one "
                    "network"
                )
            if mask[name].dtype is not torch.bool:
                raise ElthError(
                    f"mask {number} of '{name}' must be boolean, found {mask[name].dtype}"
                )
            if mask[name].shape != first[name].shape:
                raise ElthError(
                    f"mask {number} of '{name}' has shape {tuple(mask[name].shape)}, mask 0 "
                    f"{tuple(first[name].shape)}: they must be of one network"
                )
