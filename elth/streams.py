"""Named streams of random numbers: one integer seed fixes every draw of a run.

A draw depends on (seed, purpose, epoch, position in the stream) and on nothing else: not on what
was drawn before for another purpose, and not on the epoch at which a process was started again.
Draws of SGD depend on the noise of their training, too.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, SupportsIndex

from elth.errors import ElthError, unknown

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Noise:
    """Which noise of SGD a training has: two trainings that differ in it alone are twins.

    It enters the names of the streams of what SGD draws: the order of the images, their
    augmentation, and what the network itself draws, as dropout does. Initialisation, masks that are
    drawn and the choices of criteria are not SGD's, and do not know it (Frankle et al. 2020,
    section 2: instability analysis).

    Example:
        >>> Noise(round=3, copy=1).plain()
        {'round': 3, 'copy': 1}
        >>> Noise.of({}) == Noise() == COMMON
        True

    Raises:
        ElthError: a field is no whole number of at least 0.
    """

    round: int = 0
    """The round of a chain whose rounds have each their own noise; 0: that of all others."""
    copy: int = 0
    """Number of the twin; 0 is the training itself."""

    def __post_init__(self) -> None:
        """Check both numbers."""
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ElthError(
                    f"{name} of a noise must be a whole number of at least 0, found {value!r}"
                )

    @property
    def suffix(self) -> str:
        """What it adds to the name of a stream; nothing when both numbers are 0."""
        return "".join(f" of {name} {value}" for name, value in self.plain().items())

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Noise:
        """Read what ``plain`` gave.

        Raises:
            ElthError: there is another field in it, or a value is no whole number.
        """
        for name in plain:
            if name not in {"round", "copy"}:
                raise unknown("field of a noise", name, ("round", "copy"))
        return Noise(**plain)

    def plain(self) -> dict[str, int]:
        """The fields that are not 0: its identity."""
        return {name: value for name, value in asdict(self).items() if value}


COMMON = Noise()
"""The noise that trainings of one seed have in common, unless they are told otherwise."""


def stream(seed: int, purpose: str, epoch: int = 0, noise: Noise = COMMON) -> torch.Generator:
    """Return a CPU generator for one purpose of one seed.

    Args:
        seed: the run's seed.
        purpose: what is drawn, as ``"init"``, ``"order"``, ``"crop"`` or ``"shuffle"``.
        epoch: the epoch (counted from 0) for draws that are made anew in each one.
        noise: the noise of the training, for what SGD draws.

    Raises:
        ElthError: the seed is no whole number.

    Example:
        >>> import torch
        >>> a = torch.rand(2, generator=stream(0, "init"))
        >>> b = torch.rand(2, generator=stream(0, "init"))
        >>> bool((a == b).all())
        True
    """
    import torch  # a plan knows noises, and not torch

    if isinstance(seed, bool) or not isinstance(seed, SupportsIndex):
        raise ElthError(f"a seed is a whole number, as 0; found {seed!r}")
    name = f"elth/{operator.index(seed)}/{purpose}{noise.suffix}/{epoch}"
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def seed_defaults(number: int, device: torch.device) -> None:
    """Seed what PyTorch draws from by default, on the CPU and on a device, and on no other."""
    import torch

    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(number)
