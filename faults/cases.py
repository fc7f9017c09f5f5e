"""The faults: what is done to a run, and what has to hold after it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from faults import scenes
from faults.project import (
    ALONE,
    CHANGING,
    LONG,
    LOOKED,
    SELDOM,
    SELDOM_TOGETHER,
    TOGETHER,
    Project,
    require,
    same,
)

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
    "grid noted": ("orchestrator.store.grids", "Grids.extend", "after"),
    "run begun": ("orchestrator.store.runlog", "begin_run", "after"),
    "checkpoint due": ("orchestrator.store.inflight", "InFlight.save_if_due", "before"),
    "checkpoint written": ("orchestrator.store.inflight", "InFlight.save_if_due", "after"),
    "part of an analysis due": ("orchestrator.store.partial", "Partial.save_if_due", "before"),
    "part of an analysis kept": ("orchestrator.store.partial", "Partial.save_if_due", "after"),
    "training over": ("orchestrator.store.runlog", "RunLog.finish", "before"),
    "files written": ("orchestrator.store.result", "write", "after"),
    "metrics sent": ("orchestrator.store.runlog", "RunLog._drain", "after"),
    "stage tracked": ("orchestrator.store.runlog", "RunLog.finish", "after"),
    "report due": ("orchestrator.report.forms", "write", "before"),
    "report made": ("orchestrator.report.forms", "write", "after"),
    "report tracked": ("orchestrator.store.grids", "Grids.add_report", "after"),
    "RigL's update due": ("elth.dynamic._evolution", "Evolution._move", "before 6"),
    "RigL's update done": ("elth.dynamic._evolution", "Evolution._move", "after 7"),
    "DPF's update due": ("elth.dynamic._evolution", "Evolution._prune", "before 8"),
    "DPF's update done": ("elth.dynamic._evolution", "Evolution._prune", "after 9"),
}
"""Where a process can be killed by itself: module, function, before or after its first call, or
that of a number."""

IN_ANALYSES = ("part of an analysis due", "part of an analysis kept")
"""Points that only a grid with analyses comes to."""

OF_MASKS = (
    "RigL's update due",
    "RigL's update done",
    "DPF's update due",
    "DPF's update done",
)
"""Points that only sparse training comes to: an update in the second epoch, or after it is gone on
with, in that or the next."""

BY_A_WORKER = (
    ("run begun", "checkpoint due", "checkpoint written"),
    ("training over", "files written"),
    ("metrics sent", "stage tracked"),
)
"""Points that a worker comes to; a group of workers outlives three deaths."""

DRIVER = "the driver"
ALONE_VICTIMS = (DRIVER, "ray::JobTrial", DRIVER, "raylet")
TOGETHER_VICTIMS = (DRIVER, "ray::RayTrainWorker", "raylet")
"""Who is killed at random moments, in turn."""


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


def check(case: Case, path: Path, references: References) -> Project:
    """Do a case on a fresh project, and compare with the undisturbed run.

    Returns:
        The project, of which nothing may be left (``Project.nothing_left``) and that is to be
        cleared: a Ray whose driver was killed takes a minute to end.

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
    except BaseException:
        project.clear()
        raise
    project.around.close()
    return project


def _at_points(*points: str) -> Callable[[Project], None]:
    """Kill the process that comes to a point, at each once; again until nothing is left to kill."""

    def disturb(project: Project) -> None:
        variables = project.arm({point: POINTS[point] for point in points}, "kill")
        while left := project.still_armed():
            project.run(**variables)
            require(project.still_armed() != left, f"nothing came to {', '.join(left)}")

    return disturb


def _at_moment(name: str, share: float, references: References) -> Callable[[Project], None]:
    """Kill the driver, or a process of Ray's, after a share of the time of the whole run."""

    def disturb(project: Project) -> None:
        moment = share * references.of(project.config)[1]
        while not _killed(project, name, moment):  # it was over before
            shutil.rmtree(project.path / "runs")
            moment *= 0.9

    return disturb


def _killed(project: Project, name: str, moment: float) -> bool:
    """Whether there was something to kill, so many seconds after the begin of a run or later."""
    driver = project.begin()
    try:
        driver.wait(moment)
    except subprocess.TimeoutExpired:
        pass
    else:
        return False
    while driver.poll() is None:
        victims = [psutil.Process(driver.pid)] if name == DRIVER else project.processes(name)
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                project.wait(driver)
                return True
        time.sleep(0.05)
    return False


def _process(name: str, done: int) -> Callable[[Project], None]:
    """Kill a process of Ray's once so many stages are finished, and there is one."""

    def disturb(project: Project) -> None:
        driver = project.begin()
        require(project.wait_for(lambda: project.done() >= done, driver), "it was over before")
        there = project.wait_for(lambda: bool(project.processes(name)), driver)
        require(there, f"there was no process {name} any more")
        project.processes(name)[0].send_signal(signal.SIGKILL)
        project.wait(driver)

    return disturb


def _dies_each_time(said: str, action: str = "", **variables: str) -> Callable[[Project], None]:
    """Have each process die that trains, until no more are begun; the reason is told and kept.

    Args:
        said: what the reason has to say.
        action: what is done to it once its run is begun.
        variables: of the environment, which do it harm.
    """

    def disturb(project: Project) -> None:
        point = {"run begun": POINTS["run begun"]}
        injected = project.arm(point, f"{action}-always") if action else {}
        code = project.run(**injected, **variables)
        text = (project.path / "output.txt").read_text(encoding="utf-8")
        require(code == 3, f"it ended with {code}, not 3:\n{text}")
        require("common causes" not in text, f"all that Ray says is on the screen:\n{text}")
        code = project.wait(project.start("status", project.name))
        status = (project.path / "output.txt").read_text(encoding="utf-8").removeprefix(text)
        for name, shown in (("the end of elth run", text), ("elth status", status)):
            found = [line for line in shown.splitlines() if "failed: " in line and said in line]
            require(bool(found), f"{name} does not say '{said}':\n{shown}")
            require(f"runs/logs/{project.name}.log" in found[-1], f"no log: {found[-1]}")
        if action == "crash":
            require("string_at" in status, f"the place of the crash is not shown:\n{status}")

    return disturb


def _signalled(number: int, times: int = 1) -> Callable[[Project], None]:
    """Send the driver a signal once a stage is finished."""

    def disturb(project: Project) -> None:
        driver = project.begin()
        require(project.wait_for(lambda: project.done() >= 1, driver), "it was over before")
        for _ in range(times):
            driver.send_signal(number)
            time.sleep(0.3)
        code = project.wait(driver)
        require(code == 130, f"it ended with {code}, not 130:\n{project.output()}")

    return disturb


def _last_checkpoint(project: Project) -> None:
    """Send a signal in mid-training to a run that has written no checkpoint by then."""
    driver = project.begin()
    trained = "select 1 from metrics join runs using (run_uuid) where status = 'RUNNING'"
    there = project.wait_for(lambda: bool(project.query(trained)), driver)
    require(there, f"it was over before a training:\n{project.output()}")
    require(not project.inflight(), "a checkpoint was written before the signal")
    driver.send_signal(signal.SIGTERM)
    code = project.wait(driver)
    require(code == 130, f"it ended with {code}, not 130:\n{project.output()}")
    require(bool(project.inflight()), "no checkpoint was written on the signal")


def _damaged_result(name: str, harm: Callable[[Path], None]) -> Callable[[Project], None]:
    """Kill a run in the middle, harm a file of a finished stage, and have it noticed."""

    def disturb(project: Project) -> None:
        driver = project.begin()
        there = project.wait_for(lambda: project.done() >= 4, driver)
        require(there, f"it was over before:\n{project.output()}")
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        files = [place / "result" / f"{name}.safetensors" for place in project.places()]
        harm(next(file for file in files if file.exists()))
        code = project.wait(project.start("verify", project.name))
        text = (project.path / "output.txt").read_text(encoding="utf-8")
        noticed = "1 whose files are not there" if harm is Path.unlink else "1 damaged"
        require(code == 3 and noticed in text, f"it was not noticed ({code}):\n{text}")
        words = ("--set-aside", "--absent") if harm is Path.unlink else ("--set-aside",)
        code = project.wait(project.start("verify", project.name, *words))
        text = (project.path / "output.txt").read_text(encoding="utf-8")
        marked = f"{noticed} and set aside" in text
        require(code == 3 and marked, f"it was not set aside ({code}):\n{text}")

    return disturb


def _damaged_checkpoint(harm: Callable[[Path], None]) -> Callable[[Project], None]:
    """Kill a run in the middle of a training, and harm what it has saved of that."""

    def disturb(project: Project) -> None:
        driver = project.begin()
        there = project.wait_for(lambda: bool(project.inflight() and project.done()), driver)
        require(there, f"it was over before:\n{project.output()}")
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        time.sleep(2)  # what the driver began ends after it
        left = sorted((project.path / "runs/inflight").glob("*/*.safetensors"))
        require(bool(left), "there was no checkpoint any more")
        for path in left:
            harm(path)
        if harm is not Path.unlink:
            project.run()
            text = (project.path / "output.txt").read_text(encoding="utf-8")
            require("a checkpoint is set aside and not used" in text, f"not noticed:\n{text}")

    return disturb


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


RESULTS = {"rewind point": "rewind", "mask": "mask", "trained weights": "trained"}
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
    usual = [point for point in POINTS if point not in {*IN_ANALYSES, *OF_MASKS}]
    yield Case("killed at every point", ALONE, _at_points(*usual))
    yield Case("killed in an analysis", LOOKED, _at_points(*IN_ANALYSES, "files written"))
    yield Case("killed at an update of the mask", CHANGING, _at_points(*OF_MASKS))
    for points in BY_A_WORKER:
        name = f"killed at, of two workers: {', '.join(points)}"
        yield Case(name, TOGETHER, _at_points(*points))
    for name in ("ray::IDLE", "ray::JobTrial", "raylet", "gcs_server"):
        yield Case(f"killed: {name}", ALONE, _process(_path_of(name), 2))
    yield Case("killed: ray::RayTrainWorker", TOGETHER, _process("ray::RayTrainWorker", 2))
    killed = _dies_each_time("killed without a word in its log, as SIGKILL does", "kill")
    crashed = _dies_each_time("crashed in native code (SIGSEGV), in string_at", "crash")
    starved = _dies_each_time(
        "killed by Ray as memory ran out",
        RAY_memory_usage_threshold="0.01",
        RAY_memory_monitor_refresh_ms="100",
    )
    for what, config in (("one process", ALONE), ("two workers", TOGETHER)):
        yield Case(f"killed each time, {what}", config, killed)
        yield Case(f"a crash in native code each time, {what}", config, crashed)
        yield Case(f"no memory each time, {what}", config, starved)
    yield Case("Ctrl-C", ALONE, _signalled(signal.SIGINT))
    yield Case("Ctrl-C twice", ALONE, _signalled(signal.SIGINT, times=2))
    yield Case("SIGTERM", ALONE, _signalled(signal.SIGTERM))
    yield Case("a last checkpoint", SELDOM, _last_checkpoint)
    yield Case("a last checkpoint of two workers", SELDOM_TOGETHER, _last_checkpoint)
    for what, harm in HARMS.items():
        for kind, name in RESULTS.items():
            yield Case(f"{kind}: {what}", ALONE, _damaged_result(name, harm))
        yield Case(f"checkpoint: {what}", LONG, _damaged_checkpoint(harm))
    for point in WRITES:
        fills = scenes.full_disk({point: POINTS[point]})
        yield Case(f"disk full at: {point}", ALONE, fills)
    yield Case("the store moved in the middle", ALONE, scenes.moved_in_the_middle)
    yield Case("a grid carried to a server and back", ALONE, scenes.carried)
    yield Case("the store at another path, read-only", ALONE, scenes.mounted_elsewhere)
    yield Case("the disk of a server away and back", ALONE, scenes.away_and_back)
    yield Case("two drivers at once", ALONE, scenes.drivers(2))
    yield Case("ten drivers at once", ALONE, scenes.drivers(10))
    apart = scenes.in_two_namespaces(references)
    yield Case("two drivers in two namespaces", LONG, apart)
    sleeps = scenes.stopped_for_longer_than_its_lease
    yield Case("stopped for longer than its lease", LONG, sleeps)
    broken = scenes.slow_failing_and_killed_tracker
    yield Case("the tracker slow, failing, killed", LONG, broken)
    for what, config in (("one process", ALONE), ("two workers", TOGETHER)):
        yield Case(f"nobody else can connect, {what}", config, scenes.machine_with_a_route)
    yield Case("on a cluster: driver killed", ALONE, scenes.killed_driver_on_a_cluster)
    yield Case("on a cluster: node killed", ALONE, scenes.killed_node_under_a_submitted_job)
    yield Case("on a cluster: large and small", TOGETHER, scenes.large_and_small_on_one_cluster)
    for config, victims, count in (
        (ALONE, ALONE_VICTIMS, moments),
        (TOGETHER, TOGETHER_VICTIMS, together),
    ):
        drawn = random.Random(0)
        workers = "two workers" if config == TOGETHER else "one process"
        for number in range(count):
            share, victim = drawn.random(), victims[number % len(victims)]
            yield Case(
                f"killed at random, {workers}, {number}: {victim} after {share:.3f} of the whole",
                config,
                _at_moment(_path_of(victim), share, references),
            )


def _path_of(name: str) -> str:
    """With what the command line of a process begins."""
    if name == DRIVER or name.startswith("ray::"):
        return name
    import ray

    return str(next(Path(ray.__file__).parent.rglob(name)))
