"""Every image of a folder is read once: its checksum, whether it can be shown, and how.

Threads read and decode, as nearly all of the time is spent in libraries that release the GIL. What
is kept of an image beside its path is 41 bytes, and few are under way at a time, so that there may
be millions.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from elth.data._header import Trait, read_header
from elth.data._images import Unfit, decode_bytes, read_bytes
from elth.data._listing import Found, Part, Tell
from elth.errors import ElthError

T = TypeVar("T")
Given = TypeVar("Given")

Progress = Callable[[int, int], None]
"""Is told of how many images are done, and of how many in all."""

_CHUNK = 16
"""Images that a thread takes at a time: handing one over costs more Python than decoding it."""
_NAMED = 5
"""Images that an error names in its one line."""


class ImagesError(ElthError):
    """Something is wrong with some images of a folder; the message names the first ones."""

    def __init__(self, head: str, images: Sequence[str], advice: str) -> None:
        """Say what is wrong.

        Args:
            head: how many images, and what of them.
            images: every one, with its reason.
            advice: what to do.
        """
        self.head, self.images, self.advice = head, tuple(images), advice
        more = f"; and {len(images) - _NAMED:,} more" if len(images) > _NAMED else ""
        super().__init__(f"{head}: {'; '.join(images[:_NAMED])}{more}. {advice}")

    @property
    def all_named(self) -> bool:
        """Whether the message names all of them."""
        return len(self.images) <= _NAMED


@dataclass(frozen=True)
class Looks:
    """What was seen of the images of a part."""

    sizes: npt.NDArray[np.int64]
    """Bytes of each file (N,)."""
    sha256: npt.NDArray[np.uint8]
    """Of the bytes of each file (N, 32)."""
    traits: npt.NDArray[np.uint8]
    """``Trait`` of each image (N,)."""
    bad: Mapping[int, str]
    """Why images cannot be read, by number."""


@dataclass(frozen=True)
class _Look:
    size: int = 0
    sha256: bytes = bytes(32)
    traits: int = 0
    bad: str = ""


def processors() -> int:
    """How many processors this process may use; macOS binds none."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[Given], T], items: Iterable[Given], ahead: int
) -> Iterator[T]:
    """``map`` in threads, with at most ``ahead`` items under way or waiting to be taken."""
    waiting: deque[Future[T]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def look(
    parts: Mapping[str, Part],
    *,
    decode: bool,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Looks]:
    """Read every file of the parts of a folder.

    Args:
        parts: what was listed.
        decode: whether images are decoded too; else only their bytes are read.
        threads: how many work; as many as there are processors when None.
        progress: is told of every few images that are done.
    """

    def seen(paths: Sequence[str]) -> list[_Look]:
        return [_look(path, decode) for path in paths]

    done, total = 0, sum(len(part.paths) for part in parts.values())
    threads = threads or processors()
    pool = ThreadPoolExecutor(threads, "look")
    found = {}
    try:
        for name, part in parts.items():
            count = len(part.paths)
            sizes, traits = np.zeros(count, np.int64), np.zeros(count, np.uint8)
            sha256, bad = np.zeros((count, 32), np.uint8), {}
            chunks = (part.paths[at : at + _CHUNK] for at in range(0, count, _CHUNK))
            number = 0
            for looks in in_order(pool, seen, chunks, 4 * threads):
                for one in looks:
                    sizes[number], traits[number] = one.size, one.traits
                    sha256[number] = np.frombuffer(one.sha256, np.uint8)
                    if one.bad:
                        bad[number] = one.bad
                    number += 1
                done += len(looks)
                if progress is not None:
                    progress(done, total)
            found[name] = Looks(sizes, sha256, traits, bad)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return found


def _look(path: str, decode: bool) -> _Look:
    try:
        data = read_bytes(path)
        header = decode_bytes(data)[1] if decode else read_header(data)
    except Unfit as error:
        return _Look(bad=str(error))
    traits = int(header.traits) if header is not None else 0
    return _Look(len(data), hashlib.sha256(data).digest(), traits)


def refuse_bad(parts: Mapping[str, Part], looks: Mapping[str, Looks], advice: str) -> None:
    """Refuse a folder with images that cannot be read.

    Raises:
        ImagesError: naming all of them, each with its reason.
    """
    bad = [
        f"{part.where(number)} ({reason})"
        for name, part in parts.items()
        for number, reason in looks[name].bad.items()
    ]
    if bad:
        total = sum(len(part.paths) for part in parts.values())
        raise ImagesError(f"{len(bad):,} of {total:,} images cannot be read", bad, advice)


def refuse_shared(parts: Mapping[str, Part], sha256: Mapping[str, npt.NDArray[np.uint8]]) -> None:
    """Refuse a folder whose test images are among its training images, by their bytes.

    Args:
        parts: what was listed.
        sha256: of the bytes of each file (N, 32), by part.

    Raises:
        ImagesError: naming all of them, each with the one that it is the same as.
    """
    train, val = parts["train"], parts["val"]
    tested = [one.tobytes() for one in sha256["val"]]
    wanted = set(tested)
    twins: dict[bytes, int] = {}
    for number, one in enumerate(sha256["train"]):
        if (mine := one.tobytes()) in wanted:
            twins.setdefault(mine, number)
    shared = [
        f"{val.where(number)} is {train.where(twins[mine])}"
        for number, mine in enumerate(tested)
        if mine in twins
    ]
    if shared:
        raise ImagesError(
            "train and val hold the same images, byte for byte "
            f"({len(shared):,} of the {len(tested):,} of val)",
            shared,
            "A test on images of the training says little: remove them from one part, or allow it "
            "by --allow-shared (allow_shared=True)",
        )


def tell_traits(
    parts: Mapping[str, Part], traits: Mapping[str, npt.NDArray[np.uint8]], tell: Tell
) -> None:
    """Tell how unusual images are shown, given the ``Trait`` of each (N,), by part."""
    for name, part in parts.items():
        for trait, text in _SHOWN.items():
            numbers = np.flatnonzero(traits[name] & trait)
            if len(numbers):
                found = Found(len(numbers), part.paths[numbers[0]])
                tell(f"in {name}: {text.format(found)}")


def tell_copies(
    parts: Mapping[str, Part], sha256: Mapping[str, npt.NDArray[np.uint8]], tell: Tell
) -> None:
    """Tell which images are more than once in a part, by the bytes of their files."""
    for name, part in parts.items():
        copies, classes = _copies(part, sha256[name])
        for found, text in ((copies, "there more than once"), (classes, "in more than one class")):
            if found.count:
                tell(f"in {name}: images that are {text}, byte for byte {found}")


_SHOWN = {
    Trait.TURNED: "images that EXIF asks to turn or mirror {} are shown as they are stored, as is "
    "usual for ImageNet",
    Trait.TRANSPARENT: "images with transparency {} are shown without it, in the colours below it",
    Trait.OTHERS: "files of more than one picture {} show the first, or the still one",
}


def _copies(part: Part, sha256: npt.NDArray[np.uint8]) -> tuple[Found, Found]:
    """Images that are the same as one before: in their class, and in another."""
    copies, classes = Found(), Found()
    # Sorted by the first 8 bytes, as equal ones are then neighbours, and few others are.
    starts = np.ascontiguousarray(sha256[:, :8]).view(np.uint64)[:, 0]
    order = np.argsort(starts, kind="stable")
    near = np.flatnonzero(starts[order[1:]] == starts[order[:-1]])
    for first, second in zip(order[near].tolist(), order[near + 1].tolist(), strict=True):
        if (sha256[first] == sha256[second]).all():
            found = copies if part.labels[first] == part.labels[second] else classes
            found.add(f"{part.paths[first]} is {part.paths[second]}")
    return copies, classes
