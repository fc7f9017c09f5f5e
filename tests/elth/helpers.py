"""Small networks, tickets and datasets, made by hand or drawn from a seed."""

from __future__ import annotations

import functools

import torch

from elth.data import DatasetInfo, MemoryDataset
from elth.networks import Anatomy, DataShape, Stage, blueprint, build, prunable
from elth.specs import Spec
from elth.tickets import Ticket

IMAGE = DataShape(channels=1, size=4, classes=3)
"""The smallest image that a ResNet takes."""


@functools.cache
def anatomy(spec: str, shape: DataShape = IMAGE) -> Anatomy:
    """The anatomy of a network of ``elth``."""
    return blueprint(spec, shape).anatomy


def staged(*depths: int, fixed: tuple[int, ...] = (0,), family: str = "made up") -> Anatomy:
    """An anatomy with stages of these numbers of units."""
    return Anatomy(
        family=family,
        stages=tuple(
            Stage(name=f"stage{i}", units=tuple(f"stage{i}.{u}" for u in range(d)), fixed=fixed)
            for i, d in enumerate(depths, 1)
        ),
    )


@functools.cache
def ticket(spec: str, shape: DataShape = IMAGE, seed: int = 0) -> Ticket:
    """A ticket of random numbers at a density of a half: no two of its tensors are alike."""
    generator = torch.Generator().manual_seed(seed)
    state = build(spec, shape, generator=generator).state_dict()
    for number, (name, tensor) in enumerate(state.items(), 1):
        if name.endswith("num_batches_tracked"):
            tensor.fill_(number)
        else:
            tensor.copy_(number + torch.rand(tensor.shape, generator=generator))
    mask = {
        name: torch.rand(state[name].shape, generator=generator) < 0.5
        for name in prunable(blueprint(spec, shape))
    }
    return Ticket(network=Spec.parse(spec), shape=shape, rewind=state, mask=mask)


def dataset(
    train: int = 10,
    test: int = 5,
    *,
    shape: DataShape = IMAGE,
    mean: float = 0.0,
    deviation: float = 1.0,
    seed: int = 0,
) -> MemoryDataset:
    """A dataset of noise."""
    generator = torch.Generator().manual_seed(seed)
    size = (shape.channels, shape.size, shape.size)
    return MemoryDataset(
        info=DatasetInfo(
            name="noise",
            shape=shape,
            train_size=train,
            test_size=test,
            fingerprint="",
            mean=(mean,) * shape.channels,
            deviation=(deviation,) * shape.channels,
            how_to_get="make it",
        ),
        train_images=torch.randint(0, 256, (train, *size), generator=generator).to(torch.uint8),
        train_labels=torch.randint(0, shape.classes, (train,), generator=generator),
        test_images=torch.randint(0, 256, (test, *size), generator=generator).to(torch.uint8),
        test_labels=torch.randint(0, shape.classes, (test,), generator=generator),
    )
