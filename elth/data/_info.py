"""What is known of a dataset before it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from elth.errors import ElthError
from elth.recipes import AUGMENTATIONS
from elth.specs import DataShape, Option, Spec

# ImageNet's statistics, on the scale of 0 to 255, which the experiments of E-LTH use for CIFAR too.
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_DEVIATION = (0.229 * 255, 0.224 * 255, 0.225 * 255)


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known of a dataset before it is read: enough to plan and to check it."""

    name: str
    """Name and options, as ``cifar10(size=224)``: what ``load`` takes."""
    shape: DataShape
    """What a network is shown, after the options."""
    train_size: int
    test_size: int
    fingerprint: str
    """What the content is known by: a sha256, or a name where the content is not checked whole."""
    mean: tuple[float, ...]
    """Mean of each channel, on the raw scale of the stored pixels."""
    deviation: tuple[float, ...]
    """Standard deviation of each channel, on the raw scale."""
    how_to_get: str
    """One sentence for the error when it is not there."""
    options: tuple[tuple[str, Option], ...] = ()
    """Options that the results depend on."""
    known_as: str = ""
    """Name without options, and without the place of a manifest; ``name`` when empty."""
    preprocessing: str = ""
    """What was done to the images of a prepared store, as ``quality=95 short=256``."""
    augmentations: tuple[str, ...] = AUGMENTATIONS
    """Augmentations of a recipe that have a meaning for it."""

    @property
    def title(self) -> str:
        """Name and options for people: as ``name``, but never a path."""
        return str(Spec(self.known_as, self.options)) if self.known_as else self.name

    def identity(self) -> dict[str, Any]:
        """What the results of a training depend on, as JSON values."""
        return {
            "name": self.known_as or self.name,
            "fingerprint": self.fingerprint,
            "mean": list(self.mean),
            "deviation": list(self.deviation),
            **({"preprocessing": self.preprocessing} if self.preprocessing else {}),
            **dict(self.options),
        }

    def check_augment(self, augment: str) -> None:
        """Refuse the augmentation of a recipe that has no meaning for this dataset.

        Raises:
            ElthError: with those that have.
        """
        if augment not in self.augmentations:
            raise ElthError(
                f"the dataset {self.name} cannot be augmented by {augment}: set augment of the "
                f"recipe to one of {', '.join(self.augmentations)}"
            )
