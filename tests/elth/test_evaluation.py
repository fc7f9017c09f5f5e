"""How well a network does on images."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from elth.evaluation import evaluation_batch, tally
from elth.specs import DataShape
from tests.elth.helpers import dataset


def test_what_is_counted_by_hand() -> None:
    """Three images: right with two thirds, wrong with a quarter, and a draw that the first wins."""
    data = dataset(1, 3)
    data = dataclasses.replace(data, test_labels=torch.tensor([0, 2, 1]))
    logits = iter(torch.tensor([[4.0, 1, 1], [2, 1, 1], [3, 3, 0]]).log().split(2))
    correct, loss = tally(lambda images: next(logits), data.test_batches(2), data.device)
    assert (correct.dtype, loss.dtype) == (torch.int64, torch.float64)
    assert int(correct) == 1
    assert float(loss) == pytest.approx(math.log(6 / 4) + math.log(4) + math.log(2), rel=1e-6)


def test_images_are_gone_through_to_the_end_and_the_batches_closed() -> None:
    data = dataset(1, 5)
    batches = data.test_batches(2)
    seen: list[int] = []

    def failing(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        if len(seen) == 2:
            raise RuntimeError("out of memory")
        return torch.zeros(len(images), 3)

    with pytest.raises(RuntimeError, match="out of memory"):
        tally(failing, batches, data.device)
    assert seen == [2, 2]
    assert list(batches) == []


@pytest.mark.parametrize(
    ("size", "test", "batch"), [(32, 10_000, 1000), (8, 500, 500), (224, 50_000, 168)]
)
def test_a_batch_is_bounded_by_images_and_pixels(size: int, test: int, batch: int) -> None:
    info = dataclasses.replace(
        dataset().info, shape=DataShape(channels=3, size=size, classes=10), test_size=test
    )
    assert evaluation_batch(info) == batch
