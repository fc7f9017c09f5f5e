"""Augmentation: what is drawn for every image of an epoch, and what is done with it.

Draws are made for whole epochs by named streams, so an image's draw depends on the seed, the epoch,
the noise and the image alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from elth.streams import COMMON, Noise, stream

AREA = (0.1, 1.0)
"""Bounds of a resized crop's share of the image's area (the released settings of E-LTH)."""
RATIO = (0.8, 1.25)
"""Bounds of its width over its height (same)."""
_TRIES = 10

Box = tuple[int, int, int, int]
"""Top, left, height and width of a crop in pixels."""


def draw_flips(count: int, seed: int, epoch: int, noise: Noise = COMMON) -> Tensor:
    """Which images (count,) are mirrored: each with probability a half."""
    return torch.randint(0, 2, (count,), generator=stream(seed, "flip", epoch, noise)).bool()


def draw_offsets(count: int, padding: int, seed: int, epoch: int, noise: Noise = COMMON) -> Tensor:
    """Rows and columns (count, 2) at which crops of padded images begin, uniform."""
    generator = stream(seed, "crop", epoch, noise)
    return torch.randint(0, 2 * padding + 1, (count, 2), generator=generator)


def crop_flip(images: Tensor, offsets: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Cut each image out of its zero-padded self at its own place, and mirror some.

    Args:
        images: raw images (n, C, H, W).
        offsets: rows and columns (n, 2), from 0 to twice the padding.
        flips: which are mirrored (n,), after the crop.
        padding: pixels of zeros on each side.
    """
    count, channels, height, width = images.shape
    device = images.device
    padded = F.pad(images, (padding,) * 4)
    columns = torch.arange(width, device=device).expand(count, width)
    columns = torch.where(flips[:, None], columns.flip(1), columns)
    rows = torch.arange(height, device=device) + offsets[:, 0][:, None]
    columns = columns + offsets[:, 1][:, None]
    return padded[
        torch.arange(count, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


@dataclass(frozen=True)
class ResizedCrops:
    """Draws of the random resized crops of an epoch, for images of any size."""

    sides: Tensor
    """Heights and widths (n, tries, 2) that are tried, over the root of the image's area."""
    places: Tensor
    """Where the crop lies (n, 2), from 0 (top, left) to below 1."""

    @staticmethod
    def draw(count: int, seed: int, epoch: int, noise: Noise = COMMON) -> ResizedCrops:
        """Area uniform in ``AREA``, ratio log-uniform in ``RATIO``, place uniform."""
        tried = (count, _TRIES)

        def uniform(purpose: str, shape: tuple[int, int]) -> Tensor:
            return torch.rand(shape, generator=stream(seed, purpose, epoch, noise))

        area = AREA[0] + (AREA[1] - AREA[0]) * uniform("area", tried)
        low, high = math.log(RATIO[0]), math.log(RATIO[1])
        ratio = (low + (high - low) * uniform("ratio", tried)).exp()
        sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], 2)
        return ResizedCrops(sides, uniform("place", (count, 2)))

    def box(self, index: int, height: int, width: int) -> Box:
        """The crop of image ``index``, which has this size.

        It is the first of the tries that fits into the image; if none does, the largest crop
        within ``RATIO`` from the middle.
        """
        root = math.sqrt(height * width)
        for down, across in self.sides[index].tolist():
            h, w = max(1, round(down * root)), max(1, round(across * root))
            if h <= height and w <= width:
                top, left = self.places[index].tolist()
                return int(top * (height - h + 1)), int(left * (width - w + 1)), h, w
        h = min(height, round(width / RATIO[0]))
        w = min(width, round(height * RATIO[1]))
        return (height - h) // 2, (width - w) // 2, h, w


def resized_crop_flip(images: Tensor, boxes: Tensor, flips: Tensor, size: int) -> Tensor:
    """Cut each image at its own box, resize the crops bilinearly and mirror some.

    The result is that of resizing every crop alone: no pixel from outside its box plays a part.

    Args:
        images: raw images (n, C, H, W).
        boxes: top, left, height and width (n, 4).
        flips: which are mirrored (n,).
        size: side of the result, (n, C, size, size) as float32.
    """
    # Shrinking needs every pixel of a crop, of which sampling would take four: grow, then shrink.
    grown = max(size, images.shape[-2], images.shape[-1])
    middles = (torch.arange(grown, device=images.device) + 0.5) / grown
    top, left, height, width = boxes.to(torch.float32)[..., None].unbind(1)
    rows = (top + middles * height - 0.5).clamp(top, top + height - 1)
    columns = (left + middles * width - 0.5).clamp(left, left + width - 1)
    columns = torch.where(flips[:, None], columns.flip(1), columns)
    grid = torch.stack(
        [
            ((2 * columns + 1) / images.shape[-1] - 1)[:, None, :].expand(-1, grown, -1),
            ((2 * rows + 1) / images.shape[-2] - 1)[:, :, None].expand(-1, -1, grown),
        ],
        3,
    )
    result = F.grid_sample(
        images.to(torch.float32),
        grid,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return resize(result, size)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize square images (n, C, H, H) bilinearly to side ``size``, antialiased when smaller."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(
        images.to(torch.float32),
        size=(size, size),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )


def centre_crop(images: Tensor, size: int) -> Tensor:
    """Resize square images (n, C, H, H) to 256/224 of ``size``, and cut (n, C, size, size) out.

    So images are tested that are trained on by random resized crops, as those of ImageNet.
    """
    resized = resize(images, round(size * 256 / 224))
    first = (resized.shape[-1] - size) // 2
    return resized[..., first : first + size, first : first + size]
