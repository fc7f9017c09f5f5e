"""What several families share: parameter-free shortcuts and the smallest image."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from elth.errors import ElthError
from elth.meanings import About
from elth.specs import DataShape

Shortcut = Annotated[
    Literal["conv", "pad"],
    About(
        "Where a block changes the shape: `conv`, a 1x1 convolution with batch normalisation; "
        "`pad`, channels of zeros and no weights (He et al. 2016, option A)."
    ),
]
Affine = Annotated[bool, About("Whether batch normalisation has scale and shift.")]


class PadShortcut(nn.Module):
    """Subsample and pad with channels of zeros (He et al. 2016, option A of section 4.1).

    (N, in, H, W) to (N, out, H/stride, W/stride), sides rounded up. The zeros are split evenly
    before and after the channels; of an odd number, one more comes after.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        """Note the shapes; there are no parameters."""
        super().__init__()
        extra = channels_out - channels_in
        self.before, self.after, self.stride = extra // 2, extra - extra // 2, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return every ``stride``-th pixel between channels of zeros."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


def check_side(network: str, shape: DataShape, *, halvings: int) -> None:
    """Refuse an image that is less than one pixel after so many halvings.

    Raises:
        ElthError: saying what the network needs, and what was found.
    """
    if shape.size < 2**halvings:
        times = {2: "twice", 4: "four times", 5: "five times"}[halvings]
        raise ElthError(
            f"{network} halves its image {times} and needs a side of at least {2**halvings}, "
            f"found {shape.size}"
        )
