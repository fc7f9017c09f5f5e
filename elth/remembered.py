"""Answers that only torch can give, remembered on this machine so that a plan need not wait for it.

How large a network is, its code alone knows. A process that has not imported torch lets one beside
it work that out, and keeps the answer in a file, named by a digest of all that it depends on: the
question, every source file of this package, and the versions of torch and torchvision. So a file is
never out of date; whoever changes the code asks anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

from elth.apart import apart
from elth.errors import ElthError
from elth.files import cache_folder, write_atomic

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def remembered(call: Callable[[*Ts], T], *args: *Ts, also: str = "") -> T:
    """What a function gives, which is always the same for the same arguments.

    Where this process has imported torch anyway it is simply called. Else its answer is read from
    the file, or if there is none got from the process beside this one (``elth.apart``).

    Args:
        call: a function of a module that does not import torch before it is called.
        args: JSON values.
        also: what else the answer depends on, as a digest of files outside this package.

    Returns:
        JSON values, where a tuple may have become a list; shared by all who ask, so not to be
        altered.

    Raises:
        Exception: what the call raises, which is not remembered.
    """
    if "torch" in sys.modules:
        return call(*args)
    answer: T = _kept(call, args, also)
    return answer


@functools.lru_cache(maxsize=1024)
def _kept(call: Callable[..., Any], args: tuple[Any, ...], also: str) -> Any:
    question = json.dumps([call.__module__, call.__qualname__, args, also, _sources()])
    file = cache_folder("facts") / f"{_sha256(question.encode())}.json"
    with contextlib.suppress(OSError, ValueError):
        digest, _, text = file.read_text(encoding="utf-8").partition("\n")
        if digest == _sha256(text.encode()):
            return json.loads(text)
    answer, sources = apart(_answer, call, args)
    text = json.dumps(answer)
    if sources == _sources():  # else somebody changed the code in between
        with contextlib.suppress(OSError, ElthError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, f"{_sha256(text.encode())}\n{text}".encode())
    return json.loads(text)


def _answer(call: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, str]:
    """The answer, and of which sources it is."""
    return call(*args), _sources()


@functools.cache
def _sources() -> str:
    """Digest of the package's source files and of the versions of what they stand on."""
    sha = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        data = path.read_bytes()
        sha.update(f"{path.relative_to(root).as_posix()} {len(data)}\n".encode())
        sha.update(data)
    for name in ("torch", "torchvision"):
        with contextlib.suppress(PackageNotFoundError):
            sha.update(f"{name} {version(name)}\n".encode())
    return sha.hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
