"""What a process may use of its machine: cores and memory, also where a container has less of them.

The quotas of a container are those of its cgroup and of every one above it, of either version.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, kw_only=True)
class Cores:
    """The cores that a process may use at once."""

    count: int
    told: str
    """Where the number comes from, as ``cgroup quota of 2.0``."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The memory that a process and those that it starts may still take."""

    free: int
    """Bytes."""
    told: str
    """How much that is and of what, as ``1.5 GB free within a cgroup limit of 4.0 GB``."""


def cores(root: Path = Path("/")) -> Cores:
    """The least of the machine's cores, those that this process is bound to, and its quotas.

    Args:
        root: where ``proc`` and ``sys`` lie.
    """
    whole = os.cpu_count() or 1
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else whole
    quota = min(_quotas(root), default=float(whole))
    if quota < bound:
        return Cores(count=max(1, int(quota)), told=f"cgroup quota of {quota:.1f}")
    if bound < whole:
        return Cores(count=bound, told=f"bound to {bound} of {whole}")
    return Cores(count=bound, told=f"{bound} of this machine")


def memory(root: Path = Path("/")) -> Memory:
    """The least of what the machine has free and what the limits leave; caches count as free."""
    host = psutil.virtual_memory()
    least = Memory(free=host.available, told=f"{host.available / 1e9:.1f} GB free")
    for limit, used in _limits(root):
        if limit < host.total and limit - used < least.free:
            free = max(0, limit - used)
            told = f"{free / 1e9:.1f} GB free within a cgroup limit of {limit / 1e9:.1f} GB"
            least = Memory(free=free, told=told)
    return least


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's cgroup and of those above it.

    Within a container the path may be that of the host, of which nothing but the mount is seen.
    """
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            number, names, path = line.split(":", 2)
            base = root / "sys/fs/cgroup"
            if number != "0":
                if controller not in names.split(","):
                    continue
                base /= controller if (base / controller).is_dir() else names
            inside = Path(path.strip("/"))
            for part in (inside, *inside.parents):
                if ".." not in part.parts and (base / part).is_dir():
                    yield base / part


def _quotas(root: Path) -> Iterator[float]:
    """Cores that the quotas allow, as a fraction."""
    for group in _groups(root, "cpu"):
        with contextlib.suppress(OSError, ValueError):  # none, or "max"
            quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
            yield int(quota) / int(period)
        with contextlib.suppress(OSError, ValueError):
            quota, period = (
                (group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")
                for name in ("quota", "period")
            )
            if int(quota) > 0:
                yield int(quota) / int(period)


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limits of memory and what of each is used and cannot be dropped, in bytes."""
    for group in _groups(root, "memory"):
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(OSError, ValueError):
                most, now = (
                    int((group / name).read_text(encoding="utf-8")) for name in (limit, used)
                )
                stat = (group / "memory.stat").read_text(encoding="utf-8").split()
                kept = dict(zip(stat[::2], stat[1::2], strict=False))
                yield most, now - int(kept.get(cache, 0))
