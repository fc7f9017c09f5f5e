"""What the author of a dataset from outside declares of it, above the function that reads it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from elth.errors import ElthError
from elth.specs import DataShape, Option

T = TypeVar("T")

_ATTRIBUTE = "declarations"


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a plan must know of a dataset from outside; ``str`` gives it as a decorator."""

    channels: int
    size: int
    """Side of the square images, as they are read."""
    classes: int
    train_size: int
    test_size: int
    fingerprint: str
    """``elth.data.fingerprint`` of the four tensors that it is read into."""
    mean: tuple[float, ...]
    """Mean of each channel, on the scale of 0 to 255."""
    deviation: tuple[float, ...]
    """Standard deviation of each channel, on this scale."""
    options: tuple[tuple[str, Option], ...] = ()
    """Options of the function with which it is all this."""

    def __post_init__(self) -> None:
        """Refuse what cannot be so.

        Raises:
            ElthError: naming the field, with what was expected.
        """
        shape = self.shape
        for name in ("train_size", "test_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ElthError(f"{name} must be a whole number of at least 1, found {value!r}")
        if not re.fullmatch("[0-9a-f]{64}", str(self.fingerprint)):
            raise ElthError(
                "fingerprint must be the 64 hexadecimal digits that elth data describe prints, "
                f"found {self.fingerprint!r}"
            )
        for name in ("mean", "deviation"):
            values = getattr(self, name)
            if len(values) != shape.channels or not all(math.isfinite(v) for v in values):
                raise ElthError(
                    f"{name} must be a number for each of the {shape.channels} channels, found "
                    f"{list(values)}"
                )
        if min(self.deviation) <= 0:
            raise ElthError(f"deviation must be above 0, found {list(self.deviation)}")

    @property
    def shape(self) -> DataShape:
        """The shape of the data, as they are read."""
        return DataShape(channels=self.channels, size=self.size, classes=self.classes)

    def __str__(self) -> str:
        """The decorator, ready to be put above the function."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        options = dict(fields.pop("options"))
        lines = [f"    {name}={_written(value)},\n" for name, value in fields.items()]
        if options:
            lines.insert(0, f"    options={_written(options)},\n")
        return f"@elth.dataset(\n{''.join(lines)})"

    def plain(self) -> dict[str, Any]:
        """As JSON values; ``Declaration.of`` undoes it."""
        return {**dataclasses.asdict(self), "options": dict(self.options)}

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Declaration:
        """Read what ``plain`` gave."""
        options = tuple(sorted(plain["options"].items()))
        pairs = {name: tuple(plain[name]) for name in ("mean", "deviation")}
        return Declaration(**{**plain, **pairs, "options": options})


def _written(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_written(k)}: {_written(v)}' for k, v in value.items())}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(str(one) for one in value)}]"
    return f"{value:_}" if type(value) is int else repr(value)


def dataset(
    *,
    channels: int,
    size: int,
    classes: int,
    train_size: int,
    test_size: int,
    fingerprint: str,
    mean: float | Sequence[float],
    deviation: float | Sequence[float],
    options: Mapping[str, Option] | None = None,
) -> Callable[[T], T]:
    """Declare what a function reads, so that a plan can be made before anything is read.

    ``elth data describe my_lab.data:cells`` reads it once and prints this with all its numbers::

        @elth.dataset(
            channels=1,
            size=28,
            classes=3,
            train_size=600,
            test_size=100,
            fingerprint="6b1f...",
            mean=[33.3],
            deviation=[78.6],
        )
        def cells(root: Path, *, stain: str = "both"):
            return (train_images, train_labels), (test_images, test_labels)

    The function takes the folder that ``data.root`` names, and its keywords are options, as
    ``my_lab.data:cells(stain=blue)``. It gives two parts, for training and for testing. Each is a
    pair of images and labels, tensors or arrays; or a thing with ``__len__`` and ``__getitem__``
    that gives an image and its label, as the datasets of torchvision. Images are square and all
    of one size, as uint8: (N, C, H, H), or (N, H, H, C), or (N, H, H) of grey ones; of which an
    image alone is one, or a PIL image of mode L or RGB. Floats are refused: images are kept as
    they were stored and normalised by mean and deviation when they are shown. Labels are whole
    numbers from 0 to below ``classes``, (N,) or (N, 1). What it gives is the same each time, so
    nothing random is done to images: augmentation is the recipe's.

    All of it is kept in memory; large images are for ``elth data manifest``. Every process that
    reads the dataset compares it with what is declared, and refuses another.

    Args:
        channels: of the images as they are read.
        size: their side, in pixels.
        classes: number of classes.
        train_size: number of training images.
        test_size: number of test images.
        fingerprint: sha256 of what is read. Results depend on it, so keys hold it, and need no
            version of the code that reads.
        mean: of each channel, on the scale of 0 to 255. What ``describe`` prints is that of the
            training images; who wants others, as ImageNet's for a network that was trained with
            them, writes them here. Keys hold it.
        deviation: standard deviation of each channel, likewise.
        options: options of the function with which it is all this. One without says what it is
            with their defaults; decorators for others are put above each other.

    Raises:
        ElthError: something declared cannot be so.
    """
    made = Declaration(
        channels=channels,
        size=size,
        classes=classes,
        train_size=train_size,
        test_size=test_size,
        fingerprint=fingerprint,
        mean=_each(mean),
        deviation=_each(deviation),
        options=tuple(sorted((options or {}).items())),
    )

    def declare(function: T) -> T:
        vars(function)[_ATTRIBUTE] = (made, *declarations(function))
        return function

    return declare


def declarations(function: object) -> tuple[Declaration, ...]:
    """What is declared of a function, the uppermost decorator's first."""
    found = getattr(function, _ATTRIBUTE, ())
    return found if isinstance(found, tuple) else ()


def _each(values: float | Sequence[float]) -> tuple[float, ...]:
    given = (values,) if isinstance(values, int | float) else tuple(values)
    return tuple(float(value) for value in given)
