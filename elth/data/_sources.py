"""Where datasets come from: what each source knows without reading it, and how it is read."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from elth.data._info import IMAGENET_DEVIATION, IMAGENET_MEAN, DatasetInfo
from elth.data._manifests import read_manifest
from elth.errors import ElthError, unknown
from elth.specs import Choice, DataShape, Option, Spec

if TYPE_CHECKING:
    from elth.data._dataset import Dataset
    from elth.data._memory import MemoryDataset, Parts
    from elth.data._stream import FolderDataset

SIZE = 224
"""Default side of the images of a folder."""
_AUGMENTATIONS = ("none", "resized_crop_flip")
_NORMALISED = "normalised by ImageNet's mean and deviation"
_FROM_FILES = (
    f"images of any size, decoded batch by batch and {_NORMALISED}; the only augmentation is "
    f"`{_AUGMENTATIONS[1]}`; test images, and all that are not augmented, are resized to a "
    "shorter side of 256/224 of the size and cut from the middle"
)


class Source(Protocol):
    """How a dataset of the registry is described and read."""

    @property
    def about(self) -> str:
        """What it is, in a line of Markdown."""

    @property
    def choices(self) -> Mapping[str, Choice]:
        """The options: what they are, their defaults and what they may be."""

    @property
    def defaults(self) -> Mapping[str, Option]:
        """The options with their defaults."""

    def describe(self, spec: Spec) -> DatasetInfo:
        """What is known of it, given options that were checked against the defaults.

        Raises:
            ElthError: the options cannot be met.
        """

    def load(self, info: DatasetInfo, root: Path, *, download: bool, full: bool) -> Dataset:
        """Read what ``describe`` gave and check that it is that.

        Raises:
            ElthError: it is not there (with how to get it), or it is another one.
        """


# Images in memory.

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, on the raw scale."""
STATISTICS = ("imagenet", "own")


class Reader(Protocol):
    """Reads a dataset below a root; may download it first."""

    def __call__(self, root: Path, *, download: bool) -> Parts:
        """Return the decoded parts.

        Raises:
            FileNotFoundError: it is not there.
        """


def defaults_of(choices: Mapping[str, Choice]) -> dict[str, Option]:
    """Options with their defaults."""
    return {name: one.default for name, one in choices.items()}


def showing(shape: DataShape) -> dict[str, Choice]:
    """Options of every dataset in memory: how images of this shape are shown."""
    return {
        "channels": Choice(
            default=shape.channels,
            about="To how many channels grey images are repeated; colour images have no other "
            "number than their own.",
        ),
        "size": Choice(
            default=shape.size, about="Side in pixels to which images are resized in every batch."
        ),
        "centre_crop": Choice(
            default=False,
            about="Whether images that are not augmented are resized to 256/224 of the size and "
            "cut from the middle, as those of ImageNet are.",
        ),
    }


def seen(info: DatasetInfo, spec: Spec, *, channels: int, size: int) -> DatasetInfo:
    """What is known of a dataset in memory when its images are shown otherwise than stored.

    Args:
        info: the dataset as it is stored.
        spec: its name with the options that ask for this.
        channels: to which grey images are repeated.
        size: side to which images are resized.

    Raises:
        ElthError: colour images should get another number of channels.
    """
    native = info.shape.channels
    if channels != native != 1:
        raise ElthError(
            f"option channels of dataset {info.name} is {channels}: only grey images can "
            f"be repeated, and these have {native} channels; leave the option out"
        )
    return dataclasses.replace(
        info,
        name=str(spec),
        known_as=info.name,
        shape=DataShape(channels=channels, size=size, classes=info.shape.classes),
        mean=info.mean * (channels // native),
        deviation=info.deviation * (channels // native),
        options=spec.options,
    )


def held_out(parts: Parts, name: str, count: int) -> Parts:
    """Keep training images apart, which take the place of the test images.

    They are those with the least sha256 of ``elth/hold_out/NAME/POSITION``: the same for every
    seed, and with every version of Python, numpy and PyTorch.
    """
    images, labels = parts[:2]

    def lot(position: int) -> bytes:
        return hashlib.sha256(f"elth/hold_out/{name}/{position}".encode()).digest()

    order = sorted(range(len(labels)), key=lot)
    apart, kept = sorted(order[:count]), sorted(order[count:])
    return images[kept], labels[kept], images[apart], labels[apart]


@dataclass(frozen=True, kw_only=True)
class MemorySource:
    """A dataset of small images: its description and how to read it."""

    info: DatasetInfo
    """Without options."""
    read: Reader
    verifies: bool = False
    """The reader checks the files itself; the fingerprint is that of the files."""
    own: Statistics | None = None
    """Mean and deviation of its own images, where the usual ones are those of ImageNet."""
    what: str = ""
    """What it is, without how it is normalised."""

    @property
    def about(self) -> str:
        """What it is, and by whose mean and deviation its images are normalised."""
        by = (
            _NORMALISED
            if self.info.mean == IMAGENET_MEAN
            else "normalised by its own mean and deviation"
        )
        other = " by default, by its own with `statistics=own`" if self.own is not None else ""
        return f"{self.what}; {by}{other}"

    @property
    def choices(self) -> Mapping[str, Choice]:
        """The images as they are stored, normalised as the papers do."""
        statistics = Choice(
            default="imagenet",
            about="Mean and deviation by which images are normalised: `imagenet`, those of "
            "ImageNet, as in the experiments of E-LTH; `own`, those of its own training images.",
            words=STATISTICS,
        )
        hold_out = Choice(
            default=0,
            least=0,
            about="How many training images, the same for every seed, are kept apart and tested on "
            "instead of the test images, which are not looked at then; 0: none.",
        )
        return {
            **showing(self.info.shape),
            "hold_out": hold_out,
            **({"statistics": statistics} if self.own is not None else {}),
        }

    @property
    def defaults(self) -> Mapping[str, Option]:
        """The options with their defaults."""
        return defaults_of(self.choices)

    def describe(self, spec: Spec) -> DatasetInfo:
        """What is known of the dataset with these options.

        Raises:
            ElthError: colour images should get another number of channels, or other statistics
                than there are, or more images be held out.
        """
        if not spec.options:
            return self.info
        options = {**self.defaults, **dict(spec.options)}
        info = self.info
        chosen = str(options.get("statistics", "imagenet"))
        if chosen not in STATISTICS:
            raise unknown(f"statistics of dataset {self.info.name}", chosen, STATISTICS)
        if chosen == "own" and self.own is not None:
            info = dataclasses.replace(info, mean=self.own[0], deviation=self.own[1])
        if apart := int(options["hold_out"]):
            if not 0 < apart < info.train_size:
                raise ElthError(
                    f"option hold_out of dataset {info.name} is {apart:,}: of its "
                    f"{info.train_size:,} training images from 1 to {info.train_size - 1:,} can "
                    "be held out"
                )
            info = dataclasses.replace(info, train_size=info.train_size - apart, test_size=apart)
        return seen(info, spec, channels=int(options["channels"]), size=int(options["size"]))

    def load(self, info: DatasetInfo, root: Path, *, download: bool, full: bool) -> MemoryDataset:
        """Read the dataset; it is always checked whole.

        Raises:
            ElthError: it is not there (with how to get it), or it is another one.
        """
        from elth.data._memory import MemoryDataset, fingerprint

        try:
            parts = self.read(root, download=download)
        except (OSError, RuntimeError, ImportError) as error:
            raise ElthError(
                f"the dataset {self.info.name} is not in {root} ({error}); {info.how_to_get}"
            ) from error
        found = self.info.fingerprint if self.verifies else fingerprint(parts)
        if found != self.info.fingerprint:
            raise ElthError(
                f"the dataset {self.info.name} in {root} is not the published one: its fingerprint "
                f"is {found[:12]}, expected {self.info.fingerprint[:12]}; {info.how_to_get}"
            )
        if apart := int(dict(info.options).get("hold_out", 0)):
            parts = held_out(parts, self.info.name, apart)
        images, labels, test_images, test_labels = parts
        return MemoryDataset(
            info=info,
            train_images=images,
            train_labels=labels,
            test_images=test_images,
            test_labels=test_labels,
        )


# Image folders and prepared stores.

_SIDE = "Side in pixels of the images that a network is shown."


@dataclass(frozen=True)
class FolderSource:
    """Any folder or prepared store that a manifest describes: ``folder(manifest=PATH, size=224)``.

    A folder has the manifest's name and lies in the data root or beside the manifest; a store may
    also hold its manifest.
    """

    @property
    def about(self) -> str:
        """What may be described by a manifest."""
        return f"a folder of images or a prepared store, by its manifest: {_FROM_FILES}"

    @property
    def choices(self) -> Mapping[str, Choice]:
        """The manifest has no default."""
        manifest = Choice(
            default="",
            about="Needed: the file that `elth data manifest` or `elth data prepare` writes; "
            "relative to the current directory.",
        )
        return {"manifest": manifest, "size": Choice(default=SIZE, about=_SIDE)}

    @property
    def defaults(self) -> Mapping[str, Option]:
        """The options with their defaults."""
        return defaults_of(self.choices)

    def describe(self, spec: Spec) -> DatasetInfo:
        """What the manifest tells.

        Raises:
            ElthError: no manifest, or a bad one.
        """
        options: dict[str, Any] = {**self.defaults, **dict(spec.options)}
        if not options["manifest"]:
            raise ElthError(
                "the dataset folder needs a manifest: write folder(manifest=PATH), and make it "
                "with elth.data.make_manifest(FOLDER, NAME, write_to=PATH)"
            )
        manifest = read_manifest(options["manifest"])
        name, classes = manifest["name"], len(manifest["classes"])
        made = manifest.get("preprocessing", {})
        return DatasetInfo(
            name=str(spec),
            shape=DataShape(channels=3, size=options["size"], classes=classes),
            train_size=manifest["parts"]["train"]["images"],
            test_size=manifest["parts"]["val"]["images"],
            fingerprint=manifest["fingerprint"],
            mean=IMAGENET_MEAN,
            deviation=IMAGENET_DEVIATION,
            how_to_get=f"put it into DIR/{name} and give data.root=DIR",
            options=(("size", options["size"]),),
            known_as=name,
            augmentations=_AUGMENTATIONS,
            preprocessing=" ".join(f"{key}={value}" for key, value in sorted(made.items())),
        )

    def load(self, info: DatasetInfo, root: Path, *, download: bool, full: bool) -> FolderDataset:
        """Compare names and sizes, or all bytes, of the folder or store with the manifest.

        Raises:
            ElthError: it is not there, or is another one, with the first difference.
        """
        if info.preprocessing:
            from elth.data.prepared import load_prepared

            return load_prepared(info, root, full=full)
        from elth.data.folders import load_described

        return load_described(info, root, full=full)


@dataclass(frozen=True, kw_only=True)
class CountedSource:
    """A folder that is known by its numbers of classes and images: ImageNet."""

    info: DatasetInfo
    """Without options."""

    @property
    def about(self) -> str:
        """What it is, and how its images are shown."""
        return f"ILSVRC2012, checked by its numbers of classes and images: {_FROM_FILES}"

    @property
    def choices(self) -> Mapping[str, Choice]:
        """The size of the papers."""
        return {"size": Choice(default=self.info.shape.size, about=_SIDE)}

    @property
    def defaults(self) -> Mapping[str, Option]:
        """The options with their defaults."""
        return defaults_of(self.choices)

    def describe(self, spec: Spec) -> DatasetInfo:
        """What is known of the dataset at this size."""
        if not spec.options:
            return self.info
        size = int(dict(spec.options)["size"])
        return dataclasses.replace(
            self.info,
            name=str(spec),
            known_as=self.info.name,
            shape=dataclasses.replace(self.info.shape, size=size),
            options=spec.options,
        )

    def load(self, info: DatasetInfo, root: Path, *, download: bool, full: bool) -> FolderDataset:
        """List the folder and count. There is no content to compare with, so ``full`` adds nothing.

        Raises:
            ElthError: it is not there, or the numbers are others.
        """
        from elth.data.folders import load_counted

        return load_counted(info, root)


FOLDER = FolderSource()

IMAGENET = CountedSource(
    info=DatasetInfo(
        name="imagenet",
        shape=DataShape(channels=3, size=SIZE, classes=1000),
        train_size=1_281_167,
        test_size=50_000,
        fingerprint="ILSVRC2012 classification",
        mean=IMAGENET_MEAN,
        deviation=IMAGENET_DEVIATION,
        how_to_get=(
            "get ILSVRC2012 from image-net.org, lay it out as DIR/imagenet/train/CLASS/*.JPEG and "
            "DIR/imagenet/val/CLASS/*.JPEG, and give data.root=DIR"
        ),
        augmentations=_AUGMENTATIONS,
    )
)
