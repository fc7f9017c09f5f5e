"""How a dataset from outside is read into memory, and what is found when it is.

What its author's function gives is looked at closely: a training on images that are not what they
seem ends well and means nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elth import plugins
from elth.data._declaration import Declaration
from elth.data._info import DatasetInfo
from elth.data._memory import MemoryDataset, Parts, fingerprint
from elth.errors import ElthError
from elth.specs import Spec
from elth.streams import stream

_AGAIN = 30
"""How many items, drawn at random, are read twice, beside the first and the last."""
_MODES = ("L", "RGB")
"""PIL's modes whose bytes are grey values or colours."""


def read(function: Callable[..., Any], spec: Spec, root: Path) -> Parts:
    """Read what a function gives, as images (N, C, H, H) of uint8 and labels (N,) of int64.

    Draws of the global generator that it makes disturb nobody else's.

    Args:
        function: what ``elth.dataset`` is put above.
        spec: its name and its options.
        root: the folder that it is given.

    Raises:
        ElthError: it fails, or gives something else, or something else when asked again.
    """
    with torch.random.fork_rng(devices=[]):
        with _theirs(f"reading {spec} from {root}"):
            given = function(root, **dict(spec.options))
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise ElthError(f"{spec} gave {_kind(given)}; expected two parts: return train, test")
        images, labels = _part(given[0], f"the training part of {spec}")
        test_images, test_labels = _part(given[1], f"the test part of {spec}")
    if images.shape[1:] != test_images.shape[1:]:
        raise ElthError(
            f"{spec} has training images of {_sides(images)} and test images of "
            f"{_sides(test_images)}: give all one size"
        )
    return images, labels, test_images, test_labels


def checked(parts: Parts, declared: Declaration, info: DatasetInfo, command: str) -> MemoryDataset:
    """Make a dataset of what was read, if it is what is declared.

    Args:
        parts: what ``read`` gave.
        declared: what its author says of it.
        info: how it is to be shown.
        command: what gives another declaration, for the messages.

    Raises:
        ElthError: shape, numbers, labels or content are others, with what was found.
    """
    images, labels, test_images, test_labels = parts
    sides = "x".join(str(side) for side in declared.shape.image)
    if tuple(images.shape[1:]) != declared.shape.image:
        raise ElthError(
            f"the dataset {info.name} declares images of {sides}, and has images of "
            f"{_sides(images)}; if they are meant, give {command}"
        )
    made = MemoryDataset(
        info=info,
        train_images=images,
        train_labels=labels,
        test_images=test_images,
        test_labels=test_labels,
    )
    found = fingerprint(parts)
    if found != declared.fingerprint:
        raise ElthError(
            f"the dataset {info.name} is not the declared one: its fingerprint is {found[:12]}, "
            f"expected {declared.fingerprint[:12]}; if this one is meant, give {command}, and if "
            "it draws anything, seed that"
        )
    return made


def measured(parts: Parts, spec: Spec) -> Declaration:
    """What is to be declared of what was read.

    Mean and deviation are those of the training images, to six digits; the deviation of a channel
    that is the same everywhere is given as 1.

    Raises:
        ElthError: a label is below 0.
    """
    images, labels, _, test_labels = parts
    least = min(int(labels.min()), int(test_labels.min()))
    if least < 0:
        raise ElthError(f"{spec} has the label {least}: labels are numbers from 0")
    mean, deviation = _statistics(images)
    return Declaration(
        channels=images.shape[1],
        size=images.shape[2],
        classes=1 + max(int(labels.max()), int(test_labels.max())),
        train_size=len(labels),
        test_size=len(test_labels),
        fingerprint=fingerprint(parts),
        mean=mean,
        deviation=deviation,
        options=spec.options,
    )


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, counted exactly, so the same on every machine."""
    means, deviations = [], []
    for channel in images.unbind(1):
        counts = torch.zeros(256, dtype=torch.int64)
        for some in channel.split(4096):
            counts += torch.bincount(some.flatten().int(), minlength=256)
        total = int(counts.sum())
        first = sum(value * count for value, count in enumerate(counts.tolist()))
        second = sum(value**2 * count for value, count in enumerate(counts.tolist()))
        means.append(_short(first / total))
        deviations.append(_short(((total * second - first**2) / total**2) ** 0.5) or 1.0)
    return tuple(means), tuple(deviations)


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _part(given: Any, what: str) -> tuple[Tensor, Tensor]:
    """Images and labels of a part."""
    if isinstance(given, tuple) and len(given) == 2:
        with _theirs(f"reading {what}"):
            images, labels = _tensor(given[0]), _tensor(given[1])
        images, labels = _channels_first(images, what), _whole(labels, what)
        if len(images) != len(labels):
            raise ElthError(f"{what} has {len(images):,} images and {len(labels):,} labels")
    elif isinstance(given, Tensor | np.ndarray | str | dict) or not (
        hasattr(given, "__len__") and hasattr(given, "__getitem__")
    ):
        raise ElthError(
            f"{what} is {_kind(given)}; expected (images, labels), or a dataset with __len__ and "
            "__getitem__ as torchvision's"
        )
    else:
        images, labels = _items(given, what)
    if not len(images):
        raise ElthError(f"{what} has no image")
    return images, labels


def _items(given: Any, what: str) -> tuple[Tensor, Tensor]:
    """Images and labels of a dataset that gives one after the other."""
    with _theirs(f"counting the images of {what}"):
        count = len(given)
    images, labels = torch.empty(0), torch.empty(count, dtype=torch.int64)
    for number in range(count):
        image, labels[number] = _item(given, number, what)
        if number == 0:
            images = torch.empty((count, *image.shape), dtype=torch.uint8)
        elif image.shape != images.shape[1:]:
            raise ElthError(
                f"image {number} of {what} has {_sides(image[None])}, and image 0 has "
                f"{_sides(images)}: give all one size"
            )
        images[number] = image
    drawn = torch.randperm(count, generator=stream(0, "again"))[:_AGAIN].tolist()
    for number in sorted({*drawn, *((0, count - 1) if count else ())}):
        image, label = _item(given, number, what)
        if not torch.equal(image, images[number]) or label != labels[number]:
            raise ElthError(
                f"image {number} of {what} is another one when it is read again: leave out what "
                "is random, and augment by augment of the recipe"
            )
    return images, labels


def _item(given: Any, number: int, what: str) -> tuple[Tensor, int]:
    """An image (C, H, H) and its label."""
    this = f"image {number} of {what}"
    with _theirs(f"reading {this}"):
        image, label = given[number]
        mode = getattr(image, "mode", None)
        if isinstance(mode, str) and mode not in _MODES:
            raise ElthError(
                f"{this} has PIL's mode {mode}; expected one of {', '.join(_MODES)}: convert it, "
                'as by image.convert("RGB")'
            )
        tensor, word = _tensor(image), _tensor(label)
    if tensor.dim() not in (2, 3):
        raise ElthError(
            f"{this} has shape {tuple(tensor.shape)}; expected (C, H, H), (H, H, C) or (H, H)"
        )
    if word.numel() != 1:
        raise ElthError(f"{this} has the label {label!r}; expected one whole number")
    return _channels_first(tensor[None], this)[0], int(_whole(word.reshape(1), this))


def _tensor(given: Any) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach().cpu()
    return torch.from_numpy(np.array(given))


def _channels_first(images: Tensor, what: str) -> Tensor:
    """Images (N, C, H, H). Of (N, 3, 3, 3) the first three are the channels."""
    if images.dtype != torch.uint8:
        raise ElthError(
            f"{what} has images of {_dtype(images)}; expected uint8, from 0 to 255, which are "
            "normalised when they are shown: leave out ToTensor and Normalize, or round to whole "
            "numbers"
        )
    sides = tuple(images.shape[1:])
    if len(sides) == 2 and sides[0] == sides[1]:
        return images[:, None].contiguous()
    if len(sides) == 3 and sides[1] == sides[2]:
        return images.contiguous()
    if len(sides) == 3 and sides[0] == sides[1]:
        return images.permute(0, 3, 1, 2).contiguous()
    raise ElthError(
        f"{what} has images of shape {sides}; expected square ones, (C, H, H), (H, H, C) or (H, H)"
    )


def _whole(labels: Tensor, what: str) -> Tensor:
    """Labels (N,) as int64."""
    if labels.is_floating_point() or labels.is_complex():
        raise ElthError(f"{what} has labels of {_dtype(labels)}; expected whole numbers")
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() != 1:
        raise ElthError(f"{what} has labels of shape {tuple(labels.shape)}; expected (N,)")
    return labels.to(torch.int64).contiguous()


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _sides(images: Tensor) -> str:
    return "x".join(str(side) for side in images.shape[1:])


def _kind(given: Any) -> str:
    return "nothing" if given is None else f"a {type(given).__name__}"


@contextlib.contextmanager
def _theirs(doing: str) -> Iterator[None]:
    """Tell what an author's code fails at."""
    try:
        yield
    except ElthError:
        raise
    except Exception as error:
        where = "; data.root=DIR names its folder" if isinstance(error, OSError) else ""
        raise ElthError(f"{doing} fails: {plugins.reason(error)}{where}") from error
