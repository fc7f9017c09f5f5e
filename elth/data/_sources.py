"""Where datasets come from: what each source knows without reading it, and how it is read."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from elth.data._info import IMAGENET_DEVIATION, IMAGENET_MEAN, DatasetInfo, Option
from elth.errors import ElthError, unknown
from elth.networks import DataShape, NetworkSpec

if TYPE_CHECKING:
    from elth.data._dataset import Dataset
    from elth.data._memory import MemoryDataset, Parts
    from elth.data._stream import FolderDataset

PARTS = ("train", "val")
"""The two parts of an image folder."""
FORMAT = 1
"""The format of manifests of folders."""
PREPARED = 2
"""The format of manifests of prepared stores."""
SIZE = 224
"""Default side of the images of a folder."""
_AUGMENTATIONS = ("none", "resized_crop_flip")


class Source(Protocol):
    """How a dataset of the registry is described and read."""

    @property
    def defaults(self) -> Mapping[str, Option]:
        """The options with their defaults."""

    def describe(self, spec: NetworkSpec) -> DatasetInfo:
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


@dataclass(frozen=True, kw_only=True)
class MemorySource:
    """A dataset of small images: its description and how to read it.

    Options: ``size``, the side to which images are resized in every batch; ``channels``, to which
    grey images are repeated; ``centre_crop``, whether images that are not augmented are resized to
    256/224 of the size and cut from the middle, as those of ImageNet are; and, where ``own`` is
    known, ``statistics``: ``imagenet`` or ``own``.
    """

    info: DatasetInfo
    """Without options."""
    read: Reader
    verifies: bool = False
    """The reader checks the files itself; the fingerprint is that of the files."""
    own: Statistics | None = None
    """Mean and deviation of its own images, where the usual ones are those of ImageNet."""

    @property
    def defaults(self) -> Mapping[str, Option]:
        """The images as they are stored, normalised as the papers do."""
        shape = self.info.shape
        return {
            "channels": shape.channels,
            "size": shape.size,
            "centre_crop": False,
            **({"statistics": "imagenet"} if self.own is not None else {}),
        }

    def describe(self, spec: NetworkSpec) -> DatasetInfo:
        """What is known of the dataset with these options.

        Raises:
            ElthError: colour images should get another number of channels, or other statistics
                than there are.
        """
        if not spec.options:
            return self.info
        options = {**self.defaults, **dict(spec.options)}
        native, channels = self.info.shape.channels, int(options["channels"])
        if channels != native != 1:
            raise ElthError(
                f"option channels of dataset {self.info.name} is {channels}: only grey images can "
                f"be repeated, and these have {native} channels; leave the option out"
            )
        mean, deviation = self.info.mean, self.info.deviation
        chosen = str(options.get("statistics", "imagenet"))
        if chosen not in STATISTICS:
            raise unknown(f"statistics of dataset {self.info.name}", chosen, STATISTICS)
        if chosen == "own" and self.own is not None:
            mean, deviation = self.own
        return dataclasses.replace(
            self.info,
            name=str(spec),
            known_as=self.info.name,
            shape=DataShape(
                channels=channels, size=int(options["size"]), classes=self.info.shape.classes
            ),
            mean=mean * (channels // native),
            deviation=deviation * (channels // native),
            options=spec.options,
        )

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
        images, labels, test_images, test_labels = parts
        return MemoryDataset(
            info=info,
            train_images=images,
            train_labels=labels,
            test_images=test_images,
            test_labels=test_labels,
        )


# Image folders, prepared stores and their manifests.


def check_name(name: str) -> str:
    """Return the name of a dataset that is made of a folder.

    Raises:
        ElthError: it has another form.
    """
    if re.fullmatch(r"[A-Za-z][\w-]*", name) is None:
        raise ElthError(
            f"a dataset cannot be called '{name}': write letters, digits, _ and -, letter first"
        )
    return name


def digest(lines: Iterable[str]) -> str:
    """sha256 over the sorted lines."""
    text = "".join(f"{line}\n" for line in sorted(lines))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def folder_fingerprint(classes: Sequence[str], parts: Mapping[str, tuple[int, str]]) -> str:
    """What an image folder is known by: its classes and, of each part, images and sha256."""
    return digest(
        [
            f"{FORMAT}",
            *(f"{number}\t{name}" for number, name in enumerate(classes)),
            *(f"{part}\t{images}\t{sha256}" for part, (images, sha256) in parts.items()),
        ]
    )


def _prepared_fingerprint(manifest: Mapping[str, Any]) -> str:
    """What a prepared store is known by: preprocessing, classes and the checksums of its shards."""
    return digest(
        [
            f"prepared {PREPARED}",
            json.dumps(manifest["preprocessing"], sort_keys=True),
            *(f"{number}\t{name}" for number, name in enumerate(manifest["classes"])),
            *(
                f"{part}\t{number}\t{shard['images']}\t{shard['sha256']}"
                for part in PARTS
                for number, shard in enumerate(manifest["parts"][part]["shards"])
            ),
        ]
    )


def _is_prepared(manifest: Mapping[str, Any]) -> bool:
    """Whether the manifest of a store has the right form, and names no file outside it."""
    short, quality = (manifest["preprocessing"][key] for key in ("short", "quality"))
    shards = [(part, shard) for part in PARTS for shard in manifest["parts"][part]["shards"]]
    return (
        isinstance(short, int)
        and isinstance(quality, int)
        and {part for part, _ in shards} == set(PARTS)
        and all(
            re.fullmatch(rf"{part}-\d{{5,}}\.safetensors", shard["file"]) is not None
            and all(isinstance(shard[key], int) for key in ("bytes", "images"))
            and isinstance(shard["sha256"], str)
            for part, shard in shards
        )
        and all(
            one["images"] == sum(shard["images"] for shard in one["shards"])
            for one in (manifest["parts"][part] for part in PARTS)
        )
    )


@functools.lru_cache(maxsize=16)
def _read_manifest(path: Path, changed: int) -> dict[str, Any]:
    """A manifest and its fingerprint; ``changed`` is the file's time of modification."""
    try:
        manifest = json.loads(path.read_text())
        described = {part: manifest["parts"][part] for part in PARTS}
        if manifest["format"] == PREPARED:
            whole = _is_prepared(manifest)
            manifest["fingerprint"] = _prepared_fingerprint(manifest)
        else:
            whole = manifest["format"] == FORMAT and all(
                list(one["classes"]) == manifest["classes"] for one in described.values()
            )
            manifest["fingerprint"] = folder_fingerprint(
                manifest["classes"],
                {part: (one["images"], one["sha256"]) for part, one in described.items()},
            )
        check_name(manifest["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ElthError(_no_manifest(path, f"{type(error).__name__}: {error}")) from error
    if not whole:
        raise ElthError(_no_manifest(path, "it has another format"))
    return manifest


def _no_manifest(path: Path, reason: str) -> str:
    return (
        f"{path} is no manifest of an image folder ({reason}); make one with "
        "elth.data.make_manifest(FOLDER, NAME, write_to=PATH)"
    )


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read a file of ``make_manifest``; a ``fingerprint`` is added.

    Raises:
        ElthError: no such file, or one of another format.
    """
    path = Path(path).expanduser().absolute()
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise ElthError(_no_manifest(path, str(error.strerror))) from error
    return _read_manifest(path, changed)


def manifest_path(info: DatasetInfo) -> Path:
    """The manifest of a described folder or store."""
    return Path(str(dict(NetworkSpec.parse(info.name).options)["manifest"])).expanduser()


@dataclass(frozen=True)
class FolderSource:
    """Any folder or prepared store that a manifest describes: ``folder(manifest=PATH, size=224)``.

    A folder has the manifest's name and lies in the data root or beside the manifest; a store may
    also hold its manifest.
    """

    @property
    def defaults(self) -> Mapping[str, Option]:
        """The manifest has none."""
        return {"manifest": "", "size": SIZE}

    def describe(self, spec: NetworkSpec) -> DatasetInfo:
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
    """A folder that is known by its numbers of classes and images: ImageNet.

    Option: ``size``.
    """

    info: DatasetInfo
    """Without options."""

    @property
    def defaults(self) -> Mapping[str, Option]:
        """The size of the papers."""
        return {"size": self.info.shape.size}

    def describe(self, spec: NetworkSpec) -> DatasetInfo:
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
