"""What is in an image folder, before any file is opened: ``PART/CLASS/*``, and what is left out.

Classes and the order of images are those of torchvision's ``ImageFolder``: folders by name, images
by path, those that lie deeper below a class among its own. What the desktop, the archive or the
notebook left behind is no part of a dataset (``is_hidden``); ``ImageFolder`` would take it for one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from elth.data._images import SUFFIXES, decode, shown
from elth.data._manifests import PARTS
from elth.errors import ElthError

Tell = Callable[[str], None]
"""Is told, in lines, what a user should know."""
_LAYOUT = "lay it out as train/CLASS/*, val/CLASS/*"
_HIDDEN = ("__MACOSX", "@eaDir")
"""Folders of archives made on macOS and of Synology's servers, full of images that are none."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out: ``.*``, ``__MACOSX`` and the like."""
    return name.startswith(".") or name in _HIDDEN


@dataclass
class Found:
    """How often something was found, and its first example."""

    count: int = 0
    example: str = ""

    def add(self, path: str) -> None:
        """Count one; the first is the example."""
        self.count += 1
        self.example = self.example or path

    def __str__(self) -> str:
        return f"({self.count:,}, as {shown(self.example)})"


@dataclass
class Aside:
    """What was found in a part beside its images, or in an unusual place."""

    hidden: Found = field(default_factory=Found)
    suffixes: Counter[str] = field(default_factory=Counter)
    """Of files that are no images, in lower case."""
    loose: Found = field(default_factory=Found)
    """Images in no class folder."""
    deeper: Found = field(default_factory=Found)
    """Images that lie deeper than CLASS/."""

    def other(self, name: str) -> None:
        """Count a file that is no image."""
        self.suffixes[os.path.splitext(name)[1].lower()] += 1


@dataclass(frozen=True)
class Part:
    """The images of one part of a folder, by class and then by path."""

    root: Path
    classes: tuple[str, ...]
    paths: Sequence[str]
    labels: Tensor
    """Number of each image's class (N,), as int64 on the CPU."""
    aside: Aside = field(default_factory=Aside)

    def name(self, index: int) -> str:
        """The path of image ``index`` within the part."""
        return self.paths[index][len(str(self.root)) + 1 :]

    def where(self, index: int) -> str:
        """Image ``index`` for a message."""
        return shown(self.paths[index])

    def decode(self, index: int) -> Tensor:
        """Decode image ``index`` to (3, H, W) as uint8.

        Raises:
            ElthError: the file cannot be read, or is not one of the images that are.
        """
        return decode(self.paths[index])


def list_part(root: Path, *, hidden: bool = False) -> Part:
    """List ``root/CLASS/*``.

    Args:
        root: the folder of classes.
        hidden: whether hidden files and folders are of it too, as in manifests of a time when they
            were.

    Raises:
        OSError: a folder cannot be listed; links that lead in a circle.
        ElthError: there is no class, or one without an image.
    """
    aside = Aside()
    classes = []
    with os.scandir(root) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not hidden and is_hidden(entry.name):
                aside.hidden.add(entry.path)
            elif entry.is_dir():
                classes.append(entry.name)
            elif _is_image(entry.name):
                aside.loose.add(entry.path)
            else:
                aside.other(entry.name)
    if not classes:
        loose = f"; it holds {aside.loose.count:,} images itself" if aside.loose.count else ""
        raise ElthError(f"{shown(str(root))} holds no class folder{loose}: {_LAYOUT}")
    paths: list[str] = []
    labels: list[Tensor] = []
    empty = []
    for number, name in enumerate(classes):
        mine = list(_images(os.path.join(root, name), aside, hidden=hidden))
        if not mine:
            empty.append(name)
        paths += mine
        labels.append(torch.full((len(mine),), number, dtype=torch.int64))
    if empty:
        others = f" (and {len(empty) - 1:,} more hold none)" if len(empty) > 1 else ""
        raise ElthError(
            f"the class folder {shown(os.path.join(root, empty[0]))} holds no image{others}: put "
            f"images ({' '.join(SUFFIXES)}) into it, or remove it"
        )
    return Part(root, tuple(classes), paths, torch.cat(labels), aside)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _images(root: str, aside: Aside, *, hidden: bool) -> Iterator[str]:
    """The images of a class, in the order of ``ImageFolder``."""
    folders = []
    for folder, below, names in os.walk(root, followlinks=True, onerror=_raise):
        left = [] if hidden else [name for name in (*below, *names) if is_hidden(name)]
        below[:] = [name for name in below if name not in left]
        for name in below:
            _no_circle(folder, os.path.join(folder, name))
        folders.append((folder, names, left))
    for folder, names, left in sorted(folders):
        for name in sorted(left):
            aside.hidden.add(os.path.join(folder, name))
        for name in sorted(set(names).difference(left)):
            if not _is_image(name):
                aside.other(name)
                continue
            path = os.path.join(folder, name)
            if folder != root:
                aside.deeper.add(path)
            yield path


def _raise(error: OSError) -> None:
    raise error


def _no_circle(folder: str, path: str) -> None:
    """Refuse a link to a folder that it lies in.

    Raises:
        ElthError: naming it.
    """
    if os.path.islink(path):
        here, there = (os.path.join(os.path.realpath(p), "") for p in (folder, path))
        if here.startswith(there):
            raise ElthError(
                f"{shown(path)} is a link to {shown(there[:-1])}, in which it lies: remove it"
            )


def list_parts(folder: Path, what: str, advice: str, *, hidden: bool = False) -> dict[str, Part]:
    """List both parts of a folder.

    Raises:
        ElthError: it cannot be listed, or a class has no image; ``what`` and ``advice`` say whose.
    """
    try:
        return {part: list_part(folder / part, hidden=hidden) for part in PARTS}
    except OSError as error:
        reason = f"{error.strerror}: {shown(str(error.filename))}"
        raise ElthError(f"{what} cannot be listed ({reason}); {advice}") from error


def list_folder(folder: Path, tell: Tell | None = None) -> dict[str, Part]:
    """List the parts of a folder that is to become a dataset, and tell what is left out.

    Raises:
        ElthError: it has another layout, its parts have different classes, or fewer than two.
    """
    parts = list_parts(folder, f"the folder {shown(str(folder))}", _LAYOUT)
    classes = parts["train"].classes
    for part, one in parts.items():
        same_classes(f"part {part} of {shown(str(folder))}", one.classes, classes)
    if len(classes) < 2:
        raise ElthError(
            f"{shown(str(folder))} has one class, {shown(classes[0])}; at least 2 are expected: "
            f"{_LAYOUT}"
        )
    if tell is not None:
        for line in _lines(folder, parts):
            tell(line)
    return parts


def same_classes(what: str, found: Sequence[str], expected: Sequence[str]) -> None:
    """Compare the classes of a part with those that it should have.

    Raises:
        ElthError: naming the first that is missing or too many.
    """
    for word, names in (
        ("lacks", sorted(set(expected) - set(found))),
        ("has", sorted(set(found) - set(expected))),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ElthError(
                f"{what} {word} the class {shown(names[0])}{more}; {len(expected)} classes are "
                "expected"
            )


def _lines(folder: Path, parts: dict[str, Part]) -> Iterator[str]:
    """What a user should know of the listing."""
    beside = sorted(set(os.listdir(folder)) - set(PARTS))
    if beside:
        yield f"left out beside {' and '.join(PARTS)}: {_some([shown(name) for name in beside])}"
    for part, one in parts.items():
        aside = one.aside
        if aside.hidden.count:
            yield f"left out of {part}: hidden files and folders {aside.hidden}"
        if aside.suffixes:
            kinds = sorted(aside.suffixes.items(), key=lambda item: (-item[1], item[0]))
            counts = [f"{count:,} {shown(suffix) or 'without suffix'}" for suffix, count in kinds]
            yield f"left out of {part}: files that are not {' '.join(SUFFIXES)} ({_some(counts)})"
        if aside.loose.count:
            yield f"left out of {part}: images in no class folder {aside.loose}"
        if aside.deeper.count:
            label = Path(aside.deeper.example).relative_to(one.root).parts[0]
            yield (
                f"in {part}: images deeper than CLASS/ {aside.deeper} are of the class that is the "
                f"folder in {part}, here {shown(label)}"
            )


def _some(words: Sequence[str], most: int = 8) -> str:
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
