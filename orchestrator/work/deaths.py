"""Why a process died: from what Ray says of it, what it left in its log, and the kernel's counts.

Ray tells an exit code or its own killing for memory where it knows of one, and of all other ends
that the connection broke. A crash in native code is in the process's log, with the lines of Python
that led there, as Ray has ``faulthandler`` write them. SIGKILL leaves no word: what is left then is
whether the kernel has counted another process that it killed for lack of memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayActorError, RayTaskError

LINES = 40
"""Lines of a log that are kept."""

MORE_MEMORY = (
    "fewer trials at a time (resources.concurrent) or a machine with more of it would help; so "
    "would a smaller recipe.batch_size, which is another experiment"
)

_RAYS = re.compile(r"^(:job_id:|:actor_name:|:task_name:|\[\d{4}-.*logging\.cc|Extension modules:)")
"""Lines of a log that are Ray's or of no use."""
_MEMORY = re.compile(r"running low on memory|memory pressure|address the out of memory issue")
"""What Ray says of a process that it has killed, in an error of its own or in another's text."""
_FATAL = "Fatal Python error: "
_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<name>.+)$')
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PID = re.compile(r"\bpid[:=] ?(\d+)")
_OF_ALL = "/proc/vmstat"
_CAUSES = ("health_check_failure", "controller_failure", "cause", "__cause__")


class LostGpuError(RuntimeError):
    """A process ends by it, as its GPU answers it no longer; says what the GPU said, in a line."""


@dataclass(frozen=True)
class Death:
    """What is known of the end of a process."""

    reason: str
    """In one line."""
    lines: tuple[str, ...] = ()
    """The last lines of its log; of a crash what was called last is at the end."""
    log: str = ""
    """Where its log lies; empty where that is not known."""
    told: str = ""
    """All that Ray tells, many lines."""


class Deaths:
    """Looks into the deaths of a run's processes."""

    def __init__(self, logs: Path | None = None) -> None:
        """Begin to count; ``logs``: the folder of Ray's logs on this machine (that of its node)."""
        self._logs = logs or _folder_of_logs()
        self._killed = _killed_for_memory()

    def look(self, error: BaseException | None) -> Death:
        """Say why a process has died.

        Args:
            error: what Ray raised where an answer of the process was waited for.
        """
        root = _root(error) if error is not None else None
        text = _COLOURS.sub("", str(error or ""))
        said = str(root or "")
        if root is not None and not _is_death(root) and not _MEMORY.search(text):
            return Death(reason=_last_line(root), told=text)
        said = said if _MEMORY.search(said) or not _MEMORY.search(text) else text
        files = self._files(said)
        lines = _lines(files)
        where = str(files[0]) if files else _elsewhere(said)
        killed = _killed_for_memory()
        grown, self._killed = killed > self._killed, killed
        return Death(_reason(said, lines, grown=grown), _ordered(_last(lines)), where, text)

    def _files(self, said: str) -> list[Path]:
        """The logs of a process on this machine."""
        found = _PID.search(said)
        if found is None or self._logs is None:
            return []
        return [
            path
            for kind in ("err", "out")
            for path in sorted(self._logs.glob(f"worker-*-{found[1]}.{kind}"))
        ]


def _root(error: BaseException) -> BaseException:
    """What an error comes from: that of a process that died, if it is among the causes."""
    seen: list[BaseException] = []
    todo = [error]
    while todo:
        one = todo.pop(0)
        if one in seen:
            continue
        seen.append(one)
        causes = [getattr(one, name, None) for name in _CAUSES]
        causes += list(getattr(one, "worker_failures", {}).values())
        todo += [cause for cause in causes if isinstance(cause, BaseException)]
    return next((one for one in seen if _is_death(one)), error)


def _is_death(error: BaseException) -> bool:
    if isinstance(error, RayActorError):
        return not getattr(error, "_actor_init_failed", False)
    kinds = (
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.LocalRayletDiedError,
    )
    return isinstance(error, kinds)


def _last_line(error: BaseException) -> str:
    """What is said of an error that is no death."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, LostGpuError):
        return f"the GPU failed and its process was ended ({cause})"
    text = _COLOURS.sub("", str(cause))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(error, RayTaskError) and isinstance(cause, Exception):
        return f"{type(cause).__name__}: {lines[-1] if lines else ''}"
    return lines[-1] if lines else type(error).__name__


def _reason(said: str, lines: Iterable[str], *, grown: bool) -> str:
    """The end of a process in one line.

    Args:
        said: what Ray says.
        lines: its log.
        grown: whether the kernel has killed a process for lack of memory meanwhile.
    """
    if _MEMORY.search(said):
        found = re.search(r"was ([\d.]+)GB used / ([\d.]+)GB", said)
        used = f" ({found[1]} of {found[2]} GB used)" if found else ""
        return f"its process was killed by Ray as memory ran out{used}: {MORE_MEMORY}"
    crash = _crash(lines)
    if crash:
        return crash
    code = re.search(r"exit code (\d+)", said)
    if "SIGTERM" in said:
        return "its process was ended by SIGTERM, by a person or a batch system"
    if code:
        return f"its process ended with exit code {code[1]}"
    if re.search(r"node (was terminated|has died|is dead|failed)|[Nn]ode .*dead", said):
        return "its node is gone"
    if grown:
        return f"its process was killed by the system as memory ran out: {MORE_MEMORY}"
    if "End of file" in said:
        return (
            "its process was killed without a word in its log, as SIGKILL does: by a person, a "
            "batch system, or a system without memory"
        )
    first = [line.strip() for line in said.splitlines() if line.strip()]
    return f"its process died: {first[-1][:160]}" if first else "its process died"


def _crash(lines: Iterable[str]) -> str:
    """What faulthandler or Ray has written of a fatal signal, with the place in Python."""
    signal = error = place = ""
    for line in lines:
        if found := re.search(r"\*\*\* (SIG\w+) received", line):
            signal = found[1]
        elif found := re.match(rf"{_FATAL}(.+)$", line):
            error = found[1]
        elif not place and (found := _FRAME.match(line)):
            file = "/".join(Path(found["file"]).parts[-2:])
            place = f", in {found['name']} ({file}:{found['line']})"
    if not signal and not error:
        return ""
    return f"its process crashed in native code ({signal or error}){place}"


def _lines(files: Iterable[Path]) -> list[str]:
    """The lines of the first log that has any of use."""
    for path in files:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        # Ray's own handler writes a crash down as well, again and again.
        found = [line for line in lines if not _RAYS.match(line)]
        if found:
            return found
    return []


def _last(lines: Sequence[str]) -> Sequence[str]:
    """The last lines; of a crash with a deep stack the first of that, which were called last."""
    ends = max(len(lines) - LINES, 0)
    crash = (i for i, line in enumerate(lines[:ends]) if line.startswith(_FATAL))
    first = next(crash, ends)
    return lines[first : first + LINES]


def _ordered(lines: Sequence[str]) -> tuple[str, ...]:
    """Lines in which the stack of a crash ends with what was called last, as a traceback does."""
    frames = [line for line in lines if _FRAME.match(line)]
    if not frames:
        return tuple(lines)
    rest = [line for line in lines if line not in frames and "most recent call first" not in line]
    return (*rest, *reversed(frames))


def _elsewhere(said: str) -> str:
    """Where the log lies on another machine."""
    pid, address = _PID.search(said), re.search(r"ip: (\S+)", said)
    if pid is None or address is None:
        return ""
    return f"worker-*-{pid[1]}.err in the folder of Ray's logs on node {address[1]}"


def _folder_of_logs() -> Path | None:
    node = ray._private.worker._global_node
    return None if node is None else Path(node.get_logs_dir_path())


def _killed_for_memory() -> int:
    """How many processes the kernel has killed for lack of memory, as far as can be seen here.

    A control group's count has those of the group, for whatever lack; that of the whole machine,
    which is taken where there is none, has those of others as well.
    """
    found = [*_counts(_of_own_group())] or [*_counts([_OF_ALL])]
    return sum(found)


def _counts(files: Iterable[str]) -> Iterator[int]:
    for name in files:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except OSError:
            continue
        if found := re.search(r"^oom_kill (\d+)$", text, re.MULTILINE):
            yield int(found[1])


def _of_own_group() -> Iterator[str]:
    """The files in which the kernel counts for this process's control group, of both versions."""
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    yield "/sys/fs/cgroup/memory.events"  # of a container's own
    for group in groups:
        _, _, rest = group.partition(":")
        kind, _, path = rest.partition(":")
        if not kind and path.strip("/"):
            yield f"/sys/fs/cgroup{path}/memory.events"
        elif kind == "memory":
            yield f"/sys/fs/cgroup/memory{path}/memory.oom_control"
