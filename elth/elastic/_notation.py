"""How a change of width is written (E-LTH, arXiv v1, appendix B).

=========================  ======================================================================
``double``                 binary splitting: every channel twice, weights into copied inputs
                           halved; the wider network computes the same function
``double:gaussian``        the same, then Gaussian noise on the kept weights, not on the masks
``double:gaussian:0.05``   with this deviation, relative to the layer's weights (default 0.1)
``double:permute``         the same, then weights and mask of each layer permuted alike
``halve``                  drop the channels that ``double`` adds, weights and masks as they are
``halve:rescale``          the inverse of ``double``: also double the weights into dropped inputs
=========================  ======================================================================

The paper prints no deviation; 0.1 of the root mean square of a layer's kept weights is our choice.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from elth.errors import ElthError, unknown

NOISE = 0.1
"""Deviation of ``double:gaussian``, relative to the root mean square of the kept weights."""

_MANNERS = {"double": ("gaussian", "permute"), "halve": ("rescale",)}
_WIDTH = re.compile(r"([a-z]+)(?::([a-z]+)(?::(\d+(?:\.\d*)?(?:e[-+]?\d+)?|\.\d+))?)?")


@dataclass(frozen=True)
class Width:
    """A change of width; ``str`` writes the canonical notation.

    Raises:
        ElthError: no such operation or manner, or a noise that is not a positive number where the
            manner is gaussian, or not 0 where it is another.
    """

    operation: str
    """``double`` or ``halve``."""
    manner: str = ""
    """What is done besides: ``gaussian``, ``permute``, ``rescale``, or nothing."""
    noise: float = 0.0
    """Deviation of the Gaussian noise, relative to the layer's kept weights."""

    def __post_init__(self) -> None:
        """Refuse what the notation cannot say."""
        if self.operation not in _MANNERS:
            raise unknown("change of width", self.operation, _MANNERS)
        if self.manner and self.manner not in _MANNERS[self.operation]:
            raise unknown(f"way to {self.operation}", self.manner, _MANNERS[self.operation])
        if (self.manner == "gaussian") != (self.noise > 0) or not math.isfinite(self.noise):
            raise ElthError(
                f"the noise of '{self.operation}{self.manner and ':' + self.manner}' is "
                f"{self.noise}; expected a number above 0 for double:gaussian, and 0 otherwise"
            )

    def __str__(self) -> str:
        """Write the notation that ``parse_width`` reads."""
        noise = "" if self.noise in (0, NOISE) else repr(float(self.noise)).removesuffix(".0")
        return ":".join(filter(None, (self.operation, self.manner, noise)))


def is_width(text: str) -> bool:
    """Whether a notation means a change of width and not a plan of depth, well written or not."""
    return text.partition(":")[0].strip() in _MANNERS


def parse_width(text: str) -> Width:
    """Read the notation of a change of width (see the module's table).

    Example:
        >>> parse_width("double:gaussian:0.1")
        Width(operation='double', manner='gaussian', noise=0.1)
        >>> str(parse_width("double:gaussian:0.1"))
        'double:gaussian'

    Raises:
        ElthError: the notation cannot be read.
    """
    match = _WIDTH.fullmatch(text.strip())
    if match is None:
        raise ElthError(
            f"cannot read the change of width '{text}': write double, double:gaussian, "
            "double:gaussian:0.05, double:permute, halve or halve:rescale"
        )
    operation, manner, noise = match.groups(default="")
    return Width(operation, manner, float(noise or (NOISE if manner == "gaussian" else 0)))
