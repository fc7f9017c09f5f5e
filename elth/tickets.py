"""Tickets: a mask and the weights at the rewind point, with where they came from.

A ticket is one safetensors file. ``rewind/NAME`` holds a tensor of the network's state dict at the
rewind point (dense: the weights outside the mask too, which the control Random needs),
``mask/NAME`` the mask of a weight packed to bits, the first weight in the lowest bit. The metadata
is JSON.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elth import masks
from elth.errors import ElthError
from elth.files import expanded, write_atomic
from elth.masks import Mask
from elth.networks import Network, blueprint, build, canonical, check_state, prunable
from elth.specs import DataShape, Spec
from elth.streams import stream
from elth.tensors import read_tensors, write_tensors

FORMAT = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Ticket:
    """A sparse subnetwork at its rewind point: ``f(x; m * theta_r)`` (E-LTH, section 3).

    Raises:
        ElthError: weights or mask do not fit the network; the message names the tensor.
    """

    network: Spec
    shape: DataShape
    rewind: dict[str, Tensor]
    """The whole state dict at the rewind point, BN statistics included, not masked."""
    mask: Mask
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where it came from: dataset, recipe, seed, and ``history``, oldest first; ``start`` and
    ``stop``, where its training starts at another iteration than the recipe's rewind point, and
    ends at another than the recipe's end; ``noise``, where it has its own (``elth.streams``);
    ``way``, where a chain is pruned in another one (``elth.ways``); ``weights``, which is
    ``trained`` where they are those after a training."""

    def __post_init__(self) -> None:
        """Check weights and mask against the network."""
        object.__setattr__(self, "network", canonical(self.network))
        check_state(self.rewind, self.network, self.shape, what="ticket")
        masks.check(self.mask, self.network, self.shape)

    def __repr__(self) -> str:
        """One line: what it is of, and how much is left."""
        seed = f", seed {self.origin['seed']}" if "seed" in self.origin else ""
        return (
            f"<Ticket {self.network} ({self.shape}): {self.nonzeros:,} of "
            f"{masks.total(self.mask):,} weights, {100 * self.sparsity:.2f} % sparse{seed}>"
        )

    @property
    def nonzeros(self) -> int:
        """Number of prunable weights that are kept."""
        return masks.nonzeros(self.mask)

    @property
    def sparsity(self) -> float:
        """Fraction of the prunable weights that are zero."""
        return masks.sparsity(self.mask)

    @property
    def digest(self) -> str:
        """sha256 of its weights and mask; where it came from is no part of it."""
        sums = f"rewind {state_digest(self.rewind)}\nmask {masks.digest(self.mask)}\n"
        return hashlib.sha256(sums.encode()).hexdigest()

    def weights(self) -> dict[str, Tensor]:
        """The state dict with every pruned weight exactly zero."""
        return masks.apply(self.mask, self.rewind)

    def make_network(self) -> Network:
        """Build the network and load the masked weights."""
        network = build(self.network, self.shape, generator=stream(0, "init"))
        network.load_state_dict(self.weights())
        return network

    def save(self, path: str | Path) -> None:
        """Write the ticket to one safetensors file."""
        tensors = {f"rewind/{name}": tensor for name, tensor in self.rewind.items()}
        tensors |= {f"mask/{name}": bits for name, bits in masks.pack(self.mask).items()}
        metadata = {
            "kind": "ticket",
            "format": FORMAT,
            "network": str(self.network),
            "shape": vars(self.shape),
            "mask_sha256": masks.digest(self.mask),
            "rewind_sha256": state_digest(self.rewind),
            "nonzeros": self.nonzeros,
            "prunable": masks.total(self.mask),
            "origin": dict(self.origin),
        }
        write_tensors(expanded(path), tensors, metadata)

    def save_state(self, path: str | Path) -> None:
        """Write ``weights()`` for ``torch.load`` with ``weights_only`` and ``load_state_dict``."""
        plain = {name: tensor.cpu().contiguous() for name, tensor in self.weights().items()}
        whole = io.BytesIO()
        torch.save(plain, whole)
        write_atomic(expanded(path), whole.getvalue())

    @staticmethod
    def load(path: str | Path) -> Ticket:
        """Read a file of ``save``.

        Raises:
            ElthError: no such file, a truncated or foreign one, a network that is not known, or
                weights or mask that do not fit it or are not those that were written.
        """
        path = expanded(path)
        tensors, metadata = read_tensors(path, kind="ticket")
        if metadata.get("format") != FORMAT:
            raise ElthError(
                f"{path} has ticket format {metadata.get('format')!r}; this version reads {FORMAT}"
            )
        try:
            ticket = _assemble(tensors, metadata)
        except ElthError as error:
            raise ElthError(f"cannot read the ticket {path}: {error}") from error
        for what, found in (
            ("mask_sha256", masks.digest(ticket.mask)),
            ("rewind_sha256", state_digest(ticket.rewind)),
        ):
            if metadata.get(what) != found:
                raise ElthError(f"{path} is damaged: its {what} is not that of its content")
        return ticket


def state_digest(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes of a state dict, in the order of names."""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        sha.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _assemble(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Ticket:
    try:
        network = canonical(str(metadata["network"]))
        shape = DataShape(**metadata["shape"])
    except (KeyError, TypeError) as error:
        raise ElthError(f"it does not say for which network it is ({error})") from error
    plan = blueprint(network, shape)
    shapes = {name: plan.get_parameter(name).shape for name in prunable(plan)}
    packed = _below("mask/", tensors)
    for name in packed:
        if name not in shapes:
            raise ElthError(f"mask does not fit {network}: it has no prunable weight '{name}'")
    return Ticket(
        network=network,
        shape=shape,
        rewind=_below("rewind/", tensors),
        mask=masks.unpack(packed, shapes),
        origin=metadata.get("origin", {}),
    )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
