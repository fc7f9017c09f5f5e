"""The faults: what is done to a run, and what has to hold after it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults import scenes
from faults.project import ALONE, LONG, TOGETHER, Project, require, same

WRITES = (
    "grid noted",
    "run begun",
    "checkpoint due",
    "training over",
    "metrics sent",
    "stage tracked",
    "report due",
)
"""Points at which the disk becomes full: before the next writing of each kind."""

POINTS = {
    "grid noted": ("orchestrator.tracking", "Tracker.open_grid", "after"),
    "run begun": ("orchestrator.tracking", "Tracker.begin", "after"),
    "checkpoint due": ("orchestrator.inflight", "InFlight.save_if_due", "before"),
    "checkpoint written": ("orchestrator.inflight", "InFlight.save_if_due", "after"),
    "training over": ("orchestrator.runlog", "RunLog.finish", "before"),
    "files written": ("orchestrator.stages", "write", "after"),
    "metrics sent": ("orchestrator.runlog", "RunLog._drain", "after"),
    "stage tracked": ("orchestrator.runlog", "RunLog.finish", "after"),
    "report due": ("orchestrator.report", "write", "before"),
    "report made": ("orchestrator.report", "write", "after"),
    "report tracked": ("orchestrator.tracking", "Tracker.add_report", "after"),
}
"""Where a process can be killed by itself: module, function, before or after its first call."""


@dataclass(frozen=True)
class Case:
    """One thing that is done, on a fresh project."""

    name: str
    config: str
    disturb: Callable[[Project], Any]
    """Runs the experiment and does harm; the same command is then given until it ends well."""


class References:
    """What undisturbed runs leave, made once each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[str, tuple[dict[str, Any], float]] = {}

    def of(self, config: str) -> tuple[dict[str, Any], float]:
        """What the undisturbed run of a config leaves, and how many seconds it took."""
        if config not in self.known:
            project = Project(self.root / f"undisturbed-{len(self.known)}", config)
            began = time.monotonic()
            require(project.run() == 0, f"the undisturbed run failed:\n{project.output()}")
            self.known[config] = project.state(), time.monotonic() - began
        return self.known[config]


def check(case: Case, path: Path, references: References) -> None:
    """Do a case on a fresh project, and compare with the undisturbed run.

    Raises:
        Fault: something that is promised does not hold.
    """
    expected, _ = references.of(case.config)
    project = Project(path, case.config)
    try:
        case.disturb(project)
        code = project.run()
        require(code == 0, f"the same command again ended with {code}:\n{project.output()}")
        same(project.state(), expected)
        project.nothing_left()
    finally:
        project.clear()


def _at_points(*points: str) -> Callable[[Project], None]:
    """Kill the process that comes to a point, at each once; again until nothing is left to kill."""

    def disturb(project: Project) -> None:
        variables = project.arm({point: POINTS[point] for point in points}, "kill")
        while left := project.still_armed():
            project.run(**variables)
            require(project.still_armed() != left, f"nothing came to {', '.join(left)}")

    return disturb


def _after(share: float, references: References) -> Callable[[Project], None]:
    def disturb(project: Project) -> None:
        _, seconds = references.of(project.config)
        driver = project.begin()
        time.sleep(share * seconds)
        driver.send_signal(signal.SIGKILL)
        driver.wait()

    return disturb


def _process(name: str, done: int) -> Callable[[Project], None]:
    """Kill a process of Ray's once so many stages are finished."""

    def disturb(project: Project) -> None:
        driver = project.begin()
        require(project.wait_for(lambda: project.done() >= done, driver), "it was over before")
        victims = project.processes(name)
        require(bool(victims), f"there is no process {name}")
        victims[0].send_signal(signal.SIGKILL)
        project.wait(driver)

    return disturb


def _signalled(number: int, times: int, expected: int) -> Callable[[Project], None]:
    """Send the driver a signal once a stage is finished."""

    def disturb(project: Project) -> None:
        driver = project.begin()
        require(project.wait_for(lambda: project.done() >= 1, driver), "it was over before")
        for _ in range(times):
            driver.send_signal(number)
            time.sleep(0.3)
        code = project.wait(driver)
        require(code == expected, f"it ended with {code}, not {expected}:\n{project.output()}")

    return disturb


def _damaged(pattern: str, harm: Callable[[Path], None]) -> Callable[[Project], None]:
    """Kill a run in the middle, and harm a file that it has left."""

    def disturb(project: Project) -> None:
        driver = project.begin()
        found: list[Path] = []

        def there() -> bool:
            found[:] = sorted((project.path / "runs").glob(pattern))
            return bool(found) and project.done() >= 3

        require(project.wait_for(there, driver), f"there was no {pattern}")
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        time.sleep(2)  # what the driver began ends after it
        left = [path for path in found if path.exists()]
        require(bool(left), f"{pattern} was gone")
        harm(left[-1])

    return disturb


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


FILES = {
    "rewind point": "artifacts/*/artifacts/result/rewind.safetensors",
    "mask": "artifacts/*/artifacts/result/mask.safetensors",
    "trained weights": "artifacts/*/artifacts/result/trained.safetensors",
    "checkpoint": "inflight/*/*.safetensors",
}
HARMS: dict[str, Callable[[Path], None]] = {
    "a byte flipped": _flip,
    "the tail cut off": _cut,
    "deleted": Path.unlink,
}


def cases(references: References, moments: int, together: int) -> Iterator[Case]:
    """All cases.

    Args:
        references: the undisturbed runs.
        moments: at how many random moments a run of one process is killed.
        together: the same for jobs of two workers.
    """
    yield Case("killed at every point", ALONE, _at_points(*POINTS))
    for point in POINTS:
        yield Case(f"killed at: {point}", ALONE, _at_points(point))
    for name in ("ray::IDLE", "ray::JobTrial", "raylet", "gcs_server"):
        yield Case(f"killed: {name}", ALONE, _process(_path_of(name), 2))
    yield Case("killed: ray::RayTrainWorker", TOGETHER, _process("ray::RayTrainWorker", 2))
    yield Case("Ctrl-C", ALONE, _signalled(signal.SIGINT, 1, 130))
    yield Case("Ctrl-C twice", ALONE, _signalled(signal.SIGINT, 2, 130))
    yield Case("SIGTERM", ALONE, _signalled(signal.SIGTERM, 1, 130))
    for kind, pattern in FILES.items():
        for what, harm in HARMS.items():
            yield Case(f"{kind}: {what}", ALONE, _damaged(pattern, harm))
    for point in WRITES:
        fills = scenes.full_disk({point: POINTS[point]})
        yield Case(f"disk full at: {point}", ALONE, fills)
    yield Case("two drivers at once", ALONE, scenes.drivers(2))
    yield Case("ten drivers at once", ALONE, scenes.drivers(10))
    sleeps = scenes.stopped_for_longer_than_its_lease
    yield Case("stopped for longer than its lease", LONG, sleeps)
    broken = scenes.slow_failing_and_killed_tracker
    yield Case("the tracker slow, failing, killed", LONG, broken)
    yield Case("on a cluster: driver killed", ALONE, scenes.killed_driver_on_a_cluster)
    yield Case("on a cluster: node killed", ALONE, scenes.killed_node_under_a_submitted_job)
    yield Case("on a cluster: large and small", TOGETHER, scenes.large_and_small_on_one_cluster)
    for config, count in ((ALONE, moments), (TOGETHER, together)):
        drawn = random.Random(0)
        workers = 2 if config == TOGETHER else 1
        for number in range(count):
            share = drawn.random()
            yield Case(
                f"killed at random: {workers} workers, moment {number} ({share:.3f} of the whole)",
                config,
                _after(share, references),
            )


def _path_of(name: str) -> str:
    if name.startswith("ray::"):
        return name
    import ray

    return str(next(Path(ray.__file__).parent.rglob(name)))
