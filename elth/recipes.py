"""Recipes: how a network is trained, as printed in the papers."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any

from elth.errors import ElthError, unknown

_MOST = 10**12 - 1
"""Epochs or iterations of a step, so that a slip of the hand is told where it was made."""
_STEP = re.compile(r"\s*(\d{1,12})\s*(ep|it)\s*", re.ASCII)


@dataclass(frozen=True)
class Step:
    """A point or a length of training, in epochs or in iterations: ``160ep``, ``1000it``.

    Example:
        >>> Step.parse("2ep").iterations(391)
        782
        >>> str(Step.parse("1000it"))
        '1000it'
    """

    count: int
    unit: str
    """``ep`` or ``it``."""

    def __post_init__(self) -> None:
        """Refuse another unit, and what is not a whole number of at least 0."""
        whole = isinstance(self.count, int) and not isinstance(self.count, bool)
        if self.unit not in ("ep", "it") or not whole or self.count < 0:
            raise ElthError(
                f"a step is a whole number of epochs (ep) or iterations (it), found "
                f"{self.count!r} {self.unit!r}"
            )
        if self.count > _MOST:
            raise ElthError(f"a step is of at most {_MOST:,}{self.unit}, found {self.count:,}")

    @staticmethod
    def parse(text: str | Step) -> Step:
        """Read ``160ep`` (epochs) or ``1000it`` (iterations).

        Raises:
            ElthError: the text has another form.
        """
        if isinstance(text, Step):
            return text
        match = _STEP.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ElthError(
                f"cannot read the step {text!r}: write epochs as 160ep or iterations as 1000it"
            )
        return Step(int(match[1]), match[2])

    def iterations(self, per_epoch: int) -> int:
        """The number of iterations, given how many there are in an epoch."""
        return self.count * (per_epoch if self.unit == "ep" else 1)

    def __str__(self) -> str:
        """Write the form that ``parse`` reads."""
        return f"{self.count}{self.unit}"


OPTIMISERS = ("sgd", "adam")
SCHEDULES = ("step", "constant", "cosine")
AUGMENTATIONS = ("none", "crop_flip", "resized_crop_flip")
PRECISIONS = ("float32", "tf32", "bf16")
DECAYS = ("all", "kernels")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that fixes how a network is trained, apart from network, data and seed.

    Raises:
        ElthError: a value is out of its range; the message names the field.
    """

    length: Step
    """Length of the whole training, from initialisation: ``160ep``."""
    rewind: Step
    """The rewind point, counted from initialisation: ``1000it``; ``0ep`` is initialisation."""
    batch_size: int = 128
    """Images in an iteration; the last one of an epoch may be smaller."""
    optimiser: str = "sgd"
    """``sgd`` or ``adam``."""
    lr: float = 0.1
    """Learning rate after warm-up."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-4
    """L2 penalty, on what ``decay`` says."""
    schedule: str = "step"
    """``step`` (times ``gamma`` at each milestone), ``constant`` or ``cosine``."""
    milestones: tuple[Step, ...] = ()
    """Where the learning rate drops."""
    gamma: float = 0.1
    """Factor of each drop."""
    warmup: Step = Step(0, "ep")
    """Linear rise of the learning rate from 0."""
    augment: str = "none"
    """``none``; ``crop_flip``: zero-pad by an eighth, random crop, horizontal flip; or
    ``resized_crop_flip``: a random crop of .1 to 1 of the area, resized, horizontal flip."""
    precision: str = "float32"
    """``float32``; ``tf32``: its products on a GPU's tensor cores; ``bf16``: autocast to bfloat16.
    Weights, batch normalisation and the optimiser are in float32 throughout."""
    batch_norm_group: int = 0
    """Images over which batch normalisation takes its statistics in training: each batch is cut
    into groups of so many. 0: the whole batch. Either way it does not depend on how many workers
    share the batch."""
    nesterov: bool = False
    """Whether the momentum of SGD is Nesterov's."""
    label_smoothing: float = 0.0
    """Share of a label that is spread evenly over all classes, in the training loss alone."""
    decay: str = "all"
    """What ``weight_decay`` acts on: ``all`` parameters, or ``kernels``: weights of convolutions,
    linear layers and attention, and no bias, scale or shift."""

    def __post_init__(self) -> None:
        """Check every field; ``20ep`` becomes a step, and numbers floats, so equals are equal."""
        for field in ("length", "rewind", "warmup"):
            object.__setattr__(self, field, Step.parse(getattr(self, field)))
        object.__setattr__(self, "milestones", tuple(map(Step.parse, self.milestones)))

        def require(ok: bool, field: str, expected: str) -> None:
            if not ok:
                raise ElthError(
                    f"{field} of a recipe must be {expected}, is {getattr(self, field)}"
                )

        require(self.length.count >= 1, "length", "at least 1ep or 1it")
        require(self.batch_size >= 1, "batch_size", "at least 1")
        require(
            self.batch_norm_group == 0
            or (self.batch_norm_group >= 2 and self.batch_size % self.batch_norm_group == 0),
            "batch_norm_group",
            f"0, or at least 2 and a divisor of the batch size {self.batch_size}",
        )
        require(0 < self.lr < math.inf, "lr", "greater than 0")
        require(0 <= self.momentum < 1, "momentum", "at least 0 and below 1")
        require(0 <= self.weight_decay < math.inf, "weight_decay", "at least 0")
        require(0 < self.gamma <= 1, "gamma", "above 0 and at most 1")
        for field, known in (
            ("optimiser", OPTIMISERS),
            ("schedule", SCHEDULES),
            ("augment", AUGMENTATIONS),
            ("precision", PRECISIONS),
            ("decay", DECAYS),
        ):
            require(getattr(self, field) in known, field, f"one of {', '.join(known)}")
        require(0 <= self.label_smoothing < 1, "label_smoothing", "at least 0 and below 1")
        require(
            isinstance(self.nesterov, bool)
            and not (self.nesterov and (self.optimiser != "sgd" or not self.momentum)),
            "nesterov",
            "true or false, and true only where optimiser is sgd and momentum greater than 0",
        )
        for field in ("lr", "momentum", "weight_decay", "gamma", "label_smoothing"):
            object.__setattr__(self, field, float(getattr(self, field)))
        if self.length.unit == self.rewind.unit and self.rewind.count >= self.length.count:
            raise ElthError(
                f"rewind of a recipe must come before its end: rewind is {self.rewind}, "
                f"length {self.length}"
            )

    def check(self, per_epoch: int) -> None:
        """Refuse a schedule of which a part would never be reached.

        Raises:
            ElthError: a milestone, or the end of the warm-up, does not lie before the end.
        """
        end = self.length.iterations(per_epoch)
        late = [m for m in self.milestones if m.iterations(per_epoch) >= end]
        if self.schedule == "step" and late:
            raise ElthError(
                f"the learning rate is to drop at {late[0]}, and the training ends at "
                f"{self.length}: give milestones that lie before, or none"
            )
        if self.warmup.iterations(per_epoch) >= end:
            raise ElthError(
                f"the warm-up ends at {self.warmup}, and the training at {self.length}: "
                "shorten the warm-up"
            )

    def check_division(self, workers: int) -> None:
        """Refuse batches that cannot be divided among so many workers.

        Raises:
            ElthError: the parts would be unequal, or a group of batch normalisation torn apart.
        """
        if self.batch_size % workers:
            raise ElthError(
                f"a batch of {self.batch_size} images cannot be divided evenly among {workers} "
                "workers: take a number of workers that divides it"
            )
        unit = self.batch_norm_group
        if unit and self.batch_size // workers % unit:
            most = self.batch_size // unit
            raise ElthError(
                f"batch normalisation is over groups of {unit} images, and {workers} workers have "
                f"{self.batch_size // workers} images of a batch each: take at most {most} "
                f"workers, a divisor of {most}"
            )

    def lr_at(self, step: int, per_epoch: int) -> float:
        """Learning rate of iteration ``step`` (counted from 0 at initialisation)."""
        warmup = self.warmup.iterations(per_epoch)
        if step < warmup:
            return self.lr * step / warmup
        if self.schedule == "cosine":
            end = self.length.iterations(per_epoch)
            return self.lr * 0.5 * (1 + math.cos(math.pi * step / end))
        if self.schedule == "step":
            drops = sorted(m.iterations(per_epoch) for m in self.milestones)
            return self.lr * self.gamma ** bisect_right(drops, step)
        return self.lr

    def stretched(self, factor: float | str) -> Recipe:
        """The recipe so many times as long: length, milestones and warm-up are multiplied.

        The rewind point stays where it is. Steps are multiplied in exact decimal arithmetic.

        Args:
            factor: above 0; below 1 the training becomes shorter.

        Example:
            >>> RECIPES["maene_resnet20"].stretched(2).milestones
            (Step(count=112, unit='ep'), Step(count=142, unit='ep'))

        Raises:
            ElthError: the factor is no number above 0, a step times it is not whole, or the
                rewind point does not come before the new end.
        """
        try:  # not of an exponent that would take all memory
            exact = Fraction(0 if re.search("[eE][+-]?[0-9]{4}", str(factor)) else str(factor))
        except (ValueError, ZeroDivisionError):
            exact = Fraction(0)
        if isinstance(factor, bool) or exact <= 0:
            raise ElthError(
                f"stretch of a recipe must be a number greater than 0, as 5 or 0.5; is {factor}"
            )

        def times(field: str, step: Step) -> Step:
            count = step.count * exact
            if count.denominator != 1:
                raise ElthError(
                    f"{field} of the recipe is {step}, and {factor} times that is no whole number "
                    f"of {step.unit}: stretch by another factor, or write its steps in iterations"
                )
            return Step(int(count), step.unit)

        return replace(
            self,
            length=times("length", self.length),
            milestones=tuple(times("a milestone", one) for one in self.milestones),
            warmup=times("warmup", self.warmup),
        )

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Recipe:
        """Read what ``plain`` gave."""
        return Recipe(**plain)

    def full(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {field.name: _json(getattr(self, field.name)) for field in fields(self)}

    def plain(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as JSON values; the identity of a recipe.

        Defaults are part of the meaning of stored keys: a default never changes.
        """
        return {
            field.name: _json(getattr(self, field.name))
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }


def _json(value: Any) -> Any:
    if isinstance(value, Step):
        return str(value)
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return value


def _steps(*texts: str) -> tuple[Step, ...]:
    return tuple(Step.parse(text) for text in texts)


RECIPES: dict[str, Recipe] = {
    # E-LTH, Table 4; second drop as in the released settings (the table prints 160, the end).
    "cifar10_resnet": Recipe(
        length=Step(160, "ep"),
        rewind=Step(1000, "it"),
        milestones=_steps("80ep", "120ep"),
        augment="crop_flip",
    ),
    # E-LTH, Table 4: as above but for the rewind point.
    "cifar10_vgg": Recipe(
        length=Step(160, "ep"),
        rewind=Step(200, "it"),
        milestones=_steps("80ep", "120ep"),
        augment="crop_flip",
    ),
    # E-LTH, Table 4; crops as in the released settings.
    "imagenet_resnet": Recipe(
        length=Step(90, "ep"),
        rewind=Step(5, "ep"),
        batch_size=1024,
        lr=0.4,
        milestones=_steps("30ep", "60ep", "80ep"),
        warmup=Step(5, "ep"),
        augment="resized_crop_flip",
    ),
    # No setting is printed for MLPs: those released with E-LTH, rewound to initialisation.
    "mnist_mlp": Recipe(
        length=Step(40, "ep"),
        rewind=Step(0, "ep"),
        momentum=0.0,
        weight_decay=0.0,
        schedule="constant",
    ),
    # Maene et al., LeNet-300-100: Adam, rewound to initialisation as all of theirs.
    "maene_lenet": Recipe(
        length=Step(25, "ep"),
        rewind=Step(0, "ep"),
        batch_size=60,
        optimiser="adam",
        lr=1.2e-3,
        weight_decay=0.0,
        schedule="constant",
    ),
    # Maene et al., ResNet-20 at 128, of their batches of 64 to 2,048, without warm-up;
    # augmentation is printed nowhere: that of the other CIFAR recipes.
    "maene_resnet20": Recipe(
        length=Step(85, "ep"),
        rewind=Step(0, "ep"),
        weight_decay=1e-5,
        milestones=_steps("56ep", "71ep"),
        augment="crop_flip",
    ),
    # Maene et al., Conv-4; augmentation as above.
    "maene_conv4": Recipe(
        length=Step(75, "ep"),
        rewind=Step(0, "ep"),
        lr=0.01,
        weight_decay=1e-5,
        schedule="cosine",
        augment="crop_flip",
    ),
    # Maene et al., ResNet-50 at the learning rate of the result that they copy (their own run: .1).
    "maene_resnet50": Recipe(
        length=Step(90, "ep"),
        rewind=Step(0, "ep"),
        batch_size=1024,
        lr=0.4,
        weight_decay=1e-5,
        milestones=_steps("30ep", "60ep", "80ep"),
        augment="resized_crop_flip",
    ),
    # Evci et al. 2020, ResNet-50 for once the usual length: 32,000 iterations of 4,096 images.
    "rigl_imagenet": Recipe(
        length=Step(32_000, "it"),
        rewind=Step(0, "ep"),
        batch_size=4096,
        lr=1.6,
        milestones=_steps("30ep", "70ep", "90ep"),
        warmup=Step(5, "ep"),
        augment="resized_crop_flip",
        nesterov=True,
        label_smoothing=0.1,
        decay="kernels",
    ),
    # DPF (Lin et al. 2020) on CIFAR-10, as its re-implementations agree: the paper was not at hand.
    "cifar10_dpf": Recipe(
        length=Step(300, "ep"),
        rewind=Step(0, "ep"),
        lr=0.2,
        milestones=_steps("150ep", "225ep"),
        augment="crop_flip",
        nesterov=True,
    ),
    # Ours, for a laptop: the CIFAR recipe's shape, short enough for the embedded digits.
    "digits_resnet": Recipe(
        length=Step(20, "ep"),
        rewind=Step(1, "ep"),
        milestones=_steps("10ep", "15ep"),
    ),
}
"""Named recipes. An experiment may start from one and change single fields."""


def named(recipe: str | Recipe) -> Recipe:
    """A recipe, or the one of this name.

    Raises:
        ElthError: there is none of this name.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise unknown("recipe", recipe, RECIPES)
    return RECIPES[recipe]
