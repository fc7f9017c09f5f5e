"""Checkpoints: a training in its middle, from which it goes on bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from elth.errors import ElthError
from elth.tensors import read_tensors, write_tensors
from elth.tickets import state_digest


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What has become of a training; what it was made with, as recipe and mask, is not in it.

    There is no state of a random generator in it: every draw is made by a stream that the seed, the
    noise and the epoch name (``elth.streams``).
    """

    step: int
    """Iterations done since initialisation, which is the position in the data, too."""
    seen: int
    """Images of the current epoch that were trained on in this training."""
    loss: float
    """Sum of their losses in nats."""
    weights: Mapping[str, Tensor]
    """The state dict, running statistics included."""
    optimiser: Mapping[str, Tensor]
    """What the optimiser keeps of each parameter, as ``fc.weight.momentum_buffer``."""
    repulsion: float = 0.0
    """Sum of the repellent losses of those images; 0 where there is none."""
    evolution: Mapping[str, Tensor] = field(default_factory=dict)
    """What has become of a mask that changes (``elth.dynamic.Evolution.tensors``)."""
    hidden: Mapping[str, Tensor] = field(default_factory=dict)
    """The values that pruned weights have kept, where they may return."""

    def write(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write a file, whole or not at all.

        Args:
            path: where to.
            about: JSON values that come back with it.
        """
        tensors = {f"weights.{name}": tensor for name, tensor in self.weights.items()}
        tensors |= {f"optimiser.{name}": tensor for name, tensor in self.optimiser.items()}
        tensors |= {f"evolution.{name}": tensor for name, tensor in self.evolution.items()}
        tensors |= {f"hidden.{name}": tensor for name, tensor in self.hidden.items()}
        metadata = {
            "kind": "checkpoint",
            "sha256": state_digest(tensors),
            "step": self.step,
            "seen": self.seen,
            "loss": self.loss.hex(),
            "repulsion": self.repulsion.hex(),
            "about": dict(about),
        }
        write_tensors(path, tensors, metadata)

    @staticmethod
    def read(path: Path) -> tuple[Checkpoint, dict[str, Any]]:
        """Read what ``write`` wrote.

        Raises:
            ElthError: the file is damaged, or is none.
        """
        tensors, metadata = read_tensors(path, kind="checkpoint")
        if metadata.get("sha256") != state_digest(tensors):
            raise ElthError(f"{path} is damaged: its checksum is not that of its content")
        parts: dict[str, dict[str, Tensor]] = {
            part: {} for part in ("weights", "optimiser", "evolution", "hidden")
        }
        try:
            for name, tensor in tensors.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = tensor
            checkpoint = Checkpoint(
                step=int(metadata["step"]),
                seen=int(metadata["seen"]),
                loss=float.fromhex(metadata["loss"]),
                weights=parts["weights"],
                optimiser=parts["optimiser"],
                repulsion=float.fromhex(metadata.get("repulsion", "0x0p0")),
                evolution=parts["evolution"],
                hidden=parts["hidden"],
            )
            return checkpoint, dict(metadata["about"])
        except (KeyError, TypeError, ValueError) as error:
            raise ElthError(f"{path} is a checkpoint of another version ({error})") from error
