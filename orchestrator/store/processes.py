"""Who a process is, and whether it is known to have ended.

A process is told by the boot of its machine, its PID namespace, its number there, and its start in
ticks since that boot. Host names are shared by containers, numbers are used again, and a wall clock
may be set: none of them says who a process is.

Only who shares boot and namespace can look. Of all others nothing is known here, and signs of life
alone judge them (``leases``). That holds for a boot before this one as well: its processes have
ended, but those of another machine made from the same image look the same.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Process:
    """The identity of a process; an empty part is one that its system does not tell."""

    host: str
    """For people; nothing is concluded from it."""
    pid: int
    """Its number in its own PID namespace."""
    start: str
    """Field 22 of ``/proc/PID/stat``: ticks from the boot to its start."""
    boot: str
    """Of the machine, another after each start of it."""
    namespace: str
    """Its PID and time namespaces: a time namespace shifts the ticks that are read in it."""
    mark: str
    """Drawn at random, as where the system tells little two processes might seem one."""

    def __str__(self) -> str:
        parts = (self.host, self.pid, self.start, self.boot, self.namespace, self.mark)
        return "/".join(map(str, parts))

    @staticmethod
    def of(owner: str) -> Process | None:
        """Read what ``owner`` gave; None for what an older version wrote (HOST:PID:TIME)."""
        host, *parts = owner.rsplit("/", 5)
        if len(parts) != 5 or not parts[0].isdecimal():
            return None
        pid, start, boot, namespace, mark = parts
        return Process(
            host=host, pid=int(pid), start=start, boot=boot, namespace=namespace, mark=mark
        )


def owner() -> str:
    """Who this process is, as text."""
    pid = os.getpid()
    return str(
        Process(
            host=socket.gethostname(),
            pid=pid,
            start=_stat("self")[0],
            boot=_boot(),
            namespace=_namespace(),
            mark=_mark(pid),
        )
    )


def is_alive(owner: str) -> bool | None:
    """Whether the process that ``owner`` named is there; None where that cannot be told from here.

    It can on the same boot of the same machine, in the same PID namespace.
    """
    process = Process.of(owner)
    if process is None or not process.boot or not process.namespace:
        return None
    if (process.boot, process.namespace) != (_boot(), _namespace()):
        return None
    try:
        os.kill(process.pid, 0)  # asks the kernel: /proc may hide it, or show another namespace
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    except OverflowError:  # no process has such a number
        return None
    start, state = _stat(str(process.pid)) if _shows_this_namespace() else ("", "")
    if not start or not process.start:
        return None
    return start == process.start and state not in {"Z", "X"}  # ended, and nobody has asked how


def is_gone(owner: str) -> bool:
    """Whether the process that ``owner`` named is known to have ended."""
    return is_alive(owner) is False


def in_words(owner: str) -> str:
    """Which process it is, for people."""
    process = Process.of(owner)
    if process is None:
        host, _, rest = owner.partition(":")
        return (
            f"process {rest.partition(':')[0] or '?'} on {host}" if host else "an unknown process"
        )
    space = process.namespace.partition(".")[0]
    where = f" (PID namespace {space})" if space.isdecimal() else ""
    return f"process {process.pid} on {process.host}{where}"


def _stat(name: str) -> tuple[str, str]:
    """Start and state of a process in ``/proc``; empty where that is not told."""
    try:
        text = (_PROC / name / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    fields = text.rpartition(")")[2].split()  # from the third on; the second is any name
    return (fields[19], fields[0]) if len(fields) > 19 else ("", "")


def _shows_this_namespace() -> bool:
    """Whether ``/proc`` has the numbers of this process's own namespace, and not those of another.

    In that of a namespace above, a process has several numbers.
    """
    with contextlib.suppress(OSError):
        for line in (_PROC / "self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("NSpid:"):
                return len(line.split()) == 2
    return False


def _namespace() -> str:
    if sys.platform == "darwin":
        return "-"  # it has none
    try:
        pids = os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""
    times = ""
    with contextlib.suppress(OSError):  # before Linux 5.6 there were none
        times = os.readlink(_PROC / "self/ns/time")
    return ".".join("".join(filter(str.isdecimal, name)) for name in (pids, times))


def _boot() -> str:
    with contextlib.suppress(OSError):
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return _boot_of_macos() if sys.platform == "darwin" else ""


@functools.cache
def _boot_of_macos() -> str:
    words = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", check=True)
        return done.stdout.strip()
    return ""


@functools.cache
def _mark(pid: int) -> str:
    """Of this process: one that is forked from it has another number."""
    return uuid.uuid4().hex[:8]
