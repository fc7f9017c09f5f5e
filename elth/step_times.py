"""How long an iteration takes on this machine, remembered for those who plan.

A step is timed when a network's arithmetic is looked at (``elth.arithmetic``), and by whoever asks.
What was found is kept by what it depends on: the network, its images and recipe, how many threads
or which kind of GPU, and the machine by its name. Nothing here needs torch to be read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import socket
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from elth.errors import ElthError
from elth.files import cache_folder, write_atomic
from elth.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is timed: an iteration of a network by a recipe."""

    network: str
    """With its options, as ``resnet20(width=8)``."""
    image: tuple[int, int, int]
    """Channels, height and width."""
    recipe: Recipe
    threads: int = 1
    """Of a processor; on another device it does not matter."""
    device: str = "cpu"
    """``cpu`` or ``cuda``."""
    kind: str = ""
    """Of a GPU its name, as a machine may be given another one; of a processor it says nothing."""
    compiled: bool = False

    @property
    def _file(self) -> str:
        try:
            torch = version("torch")
        except PackageNotFoundError:
            torch = ""
        told = (
            *(self.network, self.image, self.recipe.batch_size),
            *(self.recipe.precision, self.recipe.batch_norm_group, self.recipe.optimiser),
            *(self.threads if self.device == "cpu" else 0, self.device, self.compiled),
            *(socket.gethostname(), os.cpu_count(), torch),
            *([] if self.device == "cpu" else [self.kind]),
        )
        return f"{hashlib.sha256(json.dumps(told).encode()).hexdigest()}.json"

    def known(self) -> float | None:
        """Seconds that it took when it was last timed here; None if it never was."""
        with contextlib.suppress(OSError, RuntimeError, ValueError, TypeError, KeyError, ElthError):
            text = (cache_folder("steps") / self._file).read_text(encoding="utf-8")
            seconds = float(json.loads(text)["seconds"])
            if math.isfinite(seconds) and seconds > 0:
                return seconds
        return None

    def keep(self, seconds: float) -> None:
        """Remember how long it took; where that cannot be written, it is not remembered."""
        content = {"network": self.network, "seconds": seconds}
        with contextlib.suppress(OSError, RuntimeError, ElthError):
            folder = cache_folder("steps")
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / self._file, json.dumps(content).encode())
