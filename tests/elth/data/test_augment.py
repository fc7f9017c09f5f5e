"""The law of random resized crops."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.transforms import Compose, RandomCrop, RandomHorizontalFlip, RandomResizedCrop

from elth.data._augment import ResizedCrops, crop_flip, draw_flips, draw_offsets

COUNT = 4000


@pytest.mark.parametrize(("height", "width"), [(224, 224), (300, 400), (500, 333)])
def test_boxes_keep_their_bounds(height: int, width: int) -> None:
    crops = ResizedCrops.draw(COUNT, 0, 0)
    boxes = [crops.box(i, height, width) for i in range(COUNT)]
    assert len(set(boxes)) > 0.99 * COUNT
    areas, ratios = [], []
    for top, left, h, w in boxes:
        assert 0 <= top <= top + h <= height
        assert 0 <= left <= left + w <= width
        areas.append(h * w / (height * width))
        ratios.append(w / h)
    # A side of at least 50 pixels is rounded by half of one.
    assert 0.098 < min(areas) < 0.11
    # The largest that fits and keeps the bounds of the ratio.
    largest = min(1, width / height / 0.8, 1.25 * height / width)
    assert 0.95 * largest < max(areas) < 1.01 * largest
    assert 0.79 < min(ratios) < 0.81
    assert 1.24 < max(ratios) < 1.27
    assert any(box[0] == 0 for box in boxes)
    assert any(top + h == height for top, _, h, _ in boxes)
    assert any(box[1] == 0 for box in boxes)
    assert any(left + w == width for _, left, _, w in boxes)


def test_area_is_uniform_ratio_log_uniform_and_place_uniform() -> None:
    """Of the first try; that it must fit makes large crops rarer."""
    crops = ResizedCrops.draw(COUNT, 1, 0)
    down, across = crops.sides.double().unbind(2)
    laws = {
        "area": ((down * across) - 0.1) / 0.9,
        "ratio": ((across / down).log() - math.log(0.8)) / (math.log(1.25) - math.log(0.8)),
        "row": crops.places[:, 0],
        "column": crops.places[:, 1],
    }
    for values in laws.values():
        count = values.numel()
        shares = torch.histc(values.float(), bins=10, min=0, max=1) / count
        # Five standard deviations of a share of a tenth.
        assert float((shares - 0.1).abs().max()) < 5 * math.sqrt(0.09 / count)
        assert float(shares.sum()) == pytest.approx(1, abs=1e-3)


def test_no_draw_depends_on_another() -> None:
    crops = ResizedCrops.draw(COUNT, 2, 0)
    down, across = crops.sides[:, 0].unbind(1)
    values = torch.stack([down * across, across / down, *crops.places.unbind(1)])
    neighbours = torch.cat([values[:, :-1], values[:, 1:]])
    # Eight columns: four of an image, and the same four of the next.
    correlations = torch.corrcoef(neighbours) - torch.eye(8)
    assert float(correlations.abs().max()) < 5 / math.sqrt(COUNT)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (256, 341), (375, 500), (500, 256)])
def test_boxes_follow_the_law_of_torchvision(height: int, width: int) -> None:
    """The test of Kolmogorov and Smirnov, for sizes of images in folders and in prepared stores."""
    crops = ResizedCrops.draw(COUNT, 0, 0)
    ours = torch.tensor([crops.box(i, height, width) for i in range(COUNT)])
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    law = RandomResizedCrop(224, scale=(0.1, 1.0), ratio=(0.8, 1.25))
    theirs = torch.tensor(
        [law.get_params(image, list(law.scale), list(law.ratio)) for _ in range(COUNT)]
    )
    for mine, other in zip(
        _measures(ours, height, width), _measures(theirs, height, width), strict=True
    ):
        values = torch.cat([mine, other]).sort().values
        below = [
            torch.searchsorted(sample.sort().values, values, right=True) / COUNT
            for sample in (mine, other)
        ]
        # Two samples of one law differ by more in one test of ten thousand.
        assert float((below[0] - below[1]).abs().max()) < 2.23 * math.sqrt(2 / COUNT)


def _measures(boxes: torch.Tensor, height: int, width: int) -> list[torch.Tensor]:
    """Area, ratio, sides and middle of boxes (n, 4)."""
    top, left, h, w = boxes.double().unbind(1)
    return [h * w, w / h, h, w, top + h / 2, left + w / 2, top, left]


def test_crops_and_flips_follow_the_law_of_torchvision() -> None:
    """The same outcomes, and as often: the test of chi squared over two samples."""
    size, padding, count = 8, 1, 3600
    image = torch.arange(1, 65, dtype=torch.uint8).reshape(1, size, size)
    ours = crop_flip(
        image.expand(count, 1, size, size),
        draw_offsets(count, padding, 0, 0),
        draw_flips(count, 0, 0),
        padding,
    )
    torch.manual_seed(0)
    law = Compose([RandomCrop(size, padding=padding), RandomHorizontalFlip()])
    theirs = torch.stack([law(image) for _ in range(count)])
    outcomes, which = torch.cat([ours, theirs]).flatten(1).unique(dim=0, return_inverse=True)
    assert len(outcomes) == (2 * padding + 1) ** 2 * 2
    a, b = (torch.bincount(part, minlength=18).double() for part in which.split(count))
    assert bool((a > 0).all() & (b > 0).all())
    # Of 17 degrees of freedom; more in one test of ten thousand.
    assert float(((a - b) ** 2 / (a + b)).sum()) < 46.0


def test_flips_are_fair() -> None:
    flips = torch.stack([draw_flips(COUNT, 0, epoch) for epoch in range(4)]).double()
    assert flips.mean(1).sub(0.5).abs().max() < 4 * 0.5 / math.sqrt(COUNT)
    assert float((torch.corrcoef(flips) - torch.eye(4)).abs().max()) < 5 / math.sqrt(COUNT)


def test_a_box_by_hand() -> None:
    sides = torch.tensor([[[0.9, 1.1], [0.5, 0.25]], [[1.5, 1.5], [1.2, 1.2]]])
    crops = ResizedCrops(sides, torch.tensor([[0.0, 0.999], [0.5, 0.5]]))
    # 20 by 20: the first try of image 0 is 18 by 22 and too wide, the second 10 by 5.
    assert crops.box(0, 20, 20) == (0, 15, 10, 5)
    # 10 by 40, of which the root of the area is 20: 18 is too high, 10 by 5 fits.
    assert crops.box(0, 10, 40) == (0, 35, 10, 5)
    # Nothing fits: the largest crop within the bounds of the ratio, from the middle.
    assert crops.box(1, 20, 20) == (0, 0, 20, 20)
    assert crops.box(1, 20, 40) == (0, 7, 20, 25)
    assert crops.box(1, 40, 20) == (7, 0, 25, 20)
    assert ResizedCrops(torch.full((1, 1, 2), 0.01), torch.zeros(1, 2)).box(0, 8, 8) == (0, 0, 1, 1)


def test_draws_are_those_of_seed_and_epoch() -> None:
    first, again = ResizedCrops.draw(9, 3, 4), ResizedCrops.draw(9, 3, 4)
    assert torch.equal(first.sides, again.sides)
    assert torch.equal(first.places, again.places)
    for other in (ResizedCrops.draw(9, 4, 4), ResizedCrops.draw(9, 3, 5)):
        assert not bool((first.sides == other.sides).all(2).any())
        assert not bool((first.places == other.places).any())
