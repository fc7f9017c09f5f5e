"""A project directory in which runs are begun, disturbed, and compared with an undisturbed one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

LIMIT = 300.0
"""Seconds that a command may take."""

LEFT_LIMIT = 60.0
"""Seconds after which nothing may be left of a command that was killed."""


def config(
    *grid: str, resources: str, name: str = "faults", epochs: int = 4, rounds: int = 2
) -> str:
    """An experiment on the embedded digits, of some rows of a grid."""
    rows = "".join(f"  - {{{row}}}\n" for row in grid)
    return (
        f"name: {name}\ndataset: digits\nseeds: [0]\n"
        f"recipe: {{base: digits_resnet, length: {epochs}ep, batch_size: 64, "
        f"milestones: [{3 * epochs // 4}ep]}}\n"
        f"pruning: {{rate: 0.5, rounds: {rounds}}}\ngrid:\n{rows}resources: {{{resources}}}\n"
    )


_SMALL = "network: resnet14(width=8)"
_CHAIN = f"method: imp, {_SMALL}"
_ETT = "method: ett, source: resnet14(width=8), network: resnet20(width=8), transform: append"

ALONE = config(
    _CHAIN, _ETT, f"method: [reinit, magnitude], {_SMALL}", resources="checkpoint_minutes: 0"
)
"""Seven stages in about 15 seconds, a checkpoint whenever one can be."""

_PATHS = "{measure: barrier, between: rounds, of: {method: imp}, points: 5}"
LOOKED = (
    config(_CHAIN, resources="checkpoint_minutes: 0", name="looked")
    + f"analyses: [{_PATHS}, {{measure: distances, of: {{method: imp}}}}]\n"
)
"""A chain, the paths between its rounds, and their distances."""

CHANGING = (
    config(
        f"method: [rigl, dpf], {_SMALL}, sparsity: 0.9",
        resources="checkpoint_minutes: 0",
        name="changing",
    )
    + "criteria: {rigl: {every: 5it}, dpf: {every: 4it}}\n"
)
"""Two sparse trainings of 84 iterations, whose masks change at 12 and at 21 of them."""

LONG = config(
    f"method: [imp, reinit, magnitude], {_SMALL}",
    resources="concurrent: 1, checkpoint_minutes: 0",
    epochs=60,
)
"""Six stages, one after the other, of some ten seconds each."""

TOGETHER = config(_CHAIN, resources="workers: 2, checkpoint_minutes: 0", name="faults2")
"""A chain by two workers of Ray Train: four stages."""

SELDOM = config(_CHAIN, resources="concurrent: 1, checkpoint_minutes: 60", epochs=60, rounds=1)
SELDOM_TOGETHER = config(
    _CHAIN, resources="workers: 2, checkpoint_minutes: 60", epochs=20, rounds=1
)
"""A checkpoint only where there is a reason for one."""

INJECT = Path(__file__).parent / "inject"
"""Its module is imported by every process of a command that has it on its path."""


class Fault(AssertionError):
    """What was promised did not hold."""


class NotHere(Exception):
    """This machine cannot do the case, for a reason that the message says."""


def require(holds: bool, what: str) -> None:
    """Fail with a reason unless something holds."""
    if not holds:
        raise Fault(what)


@dataclass
class Project:
    """A directory with a config and a store."""

    path: Path
    config: str = ALONE
    environment: dict[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    """Further words of ``elth run``."""
    before: tuple[str, ...] = ()
    """Words before every command, as of a namespace, which end in running it."""
    around: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """What is there until the case is over, as a server or a cluster."""
    begun: list[subprocess.Popen[str]] = field(default_factory=list)
    ended: float = 0.0
    """When the last command did, by the monotonic clock."""

    def __post_init__(self) -> None:
        """Write the config."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "faults.yaml").write_text(self.config, encoding="utf-8")

    @property
    def name(self) -> str:
        """The grid's name."""
        return self.config.split("\n", 1)[0].removeprefix("name: ")

    @property
    def armed(self) -> Path:
        """A folder of files, each there until what was injected at its point has happened."""
        return self.path / "armed"

    def arm(self, points: Mapping[str, tuple[str, str, str]], action: str) -> dict[str, str]:
        """Prepare for something to happen once at each point; the variables for a command.

        Args:
            points: module, function, and ``before`` or ``after`` its first call, by name; with a
                number, as ``before 6``, its sixth in a process.
            action: ``kill``, ``crash`` or ``fill``; ``kill-always`` for each time.
        """
        self.armed.mkdir(exist_ok=True)
        faults = []
        for name, point in points.items():
            file = self.armed / name.replace(" ", "-")
            file.touch()
            faults.append(":".join((*point, action, str(file))))
        path = os.pathsep.join((str(INJECT), str(INJECT.parents[1])))
        return {"ELTH_FAULTS": ";".join(faults), "PYTHONPATH": path}

    def still_armed(self) -> list[str]:
        """Points at which nothing has happened yet."""
        return sorted(path.name for path in self.armed.iterdir())

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Begin a command; its output goes to a file."""
        with (self.path / "output.txt").open("a", encoding="utf-8") as output:
            process = subprocess.Popen(
                [*self.before, sys.executable, "-m", "orchestrator.cli", *words],
                cwd=self.path,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": str(Path(__file__).parents[1]),
                    **self.environment,
                    **environment,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        self.begun.append(process)
        return process

    def begin(self, **environment: str) -> subprocess.Popen[str]:
        """Give ``elth run``."""
        return self.start("run", "faults.yaml", *self.words, **environment)

    def run(self, **environment: str) -> int:
        """Give ``elth run`` and wait; returns its exit code."""
        return self.wait(self.begin(**environment))

    def wait(self, process: subprocess.Popen[str], limit: float = LIMIT) -> int:
        """Wait for a command."""
        try:
            code = process.wait(limit)
            self.ended = time.monotonic()
            return code
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            raise Fault(f"a command took more than {limit:g} s:\n{self.output()}") from None

    def wait_for(self, so: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
        """Wait until something is so; False if the process ends before."""
        end = time.monotonic() + LIMIT
        while not so():
            if process.poll() is not None:
                return False
            require(time.monotonic() < end, f"it did not come to that:\n{self.output()}")
            time.sleep(0.05)
        return True

    def output(self) -> str:
        """The last lines that commands printed."""
        return "\n".join((self.path / "output.txt").read_text(encoding="utf-8").splitlines()[-15:])

    def processes(self, name: str) -> list[psutil.Process]:
        """Processes of this project's commands whose command line begins with a name."""
        roots = {process.pid for process in self.begun}
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if not " ".join(process.info["cmdline"] or []).startswith(name):
                continue
            try:
                mine = roots & {parent.pid for parent in process.parents()}
            except psutil.NoSuchProcess:
                continue
            if mine:
                found.append(process)
        return found

    def left(self) -> list[psutil.Process]:
        """Processes that were begun by commands of this project and live on."""
        sessions = {process.pid for process in self.begun}
        found = []
        for process in psutil.process_iter(["cmdline"]):
            try:
                if os.getsid(process.pid) in sessions and process.status() != "zombie":
                    found.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found

    def nothing_left(self) -> None:
        """Fail if commands that have ended, however they did, have left processes behind them."""
        end = self.ended + LEFT_LIMIT
        while (left := self.left()) and time.monotonic() < end:
            time.sleep(0.2)
        names = sorted({" ".join(process.info["cmdline"] or [])[:60] for process in left})
        require(not left, f"processes are left: {names}")

    def clear(self) -> None:
        """End whatever a killed command has left, only what it began, and what is around it."""
        for process in self.left():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.around.close()

    # What the store holds

    def query(self, sql: str) -> list[Any]:
        """Ask the store's database; nothing while it is being made."""
        database = self.path / "runs/mlflow.db"
        if not database.exists():
            return []
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as known:
            try:
                return known.execute(sql).fetchall()
            except sqlite3.OperationalError:
                return []

    def done(self) -> int:
        """How many stages are finished."""
        return len(self.stages())

    def stages(self) -> list[tuple[str, str, str]]:
        """Key, run id and place of files of each finished stage."""
        return self.query(
            "select t.value, r.run_uuid, r.artifact_uri from runs r join tags t "
            "on t.run_uuid = r.run_uuid and t.key = 'elth.key' "
            "where r.lifecycle_stage = 'active' and r.status = 'FINISHED'"
        )

    def state(self) -> dict[str, Any]:
        """All that has to be the same: report, tickets by key, metrics by key.

        Raises:
            Fault: a stage is tracked twice, a point of a metric doubled, or something left over.
        """
        stages = self.stages()
        twice = [key for key, count in Counter(key for key, _, _ in stages).items() if count > 1]
        require(not twice, f"stages are tracked twice: {twice}")
        points = self.query("select run_uuid, key, step, count(*) from metrics group by 1, 2, 3")
        runs = {run for _, run, _ in stages}
        doubled = [point for point in points if point[0] in runs and point[3] > 1]
        require(not doubled, f"points of metrics are doubled: {doubled[:3]}")
        values = self.query("select run_uuid, key, step, value from metrics")
        keys = {run: key for key, run, _ in stages}
        metrics = sorted(
            [keys[run], name, step, value] for run, name, step, value in values if run in keys
        )
        require(self.inflight() == [], f"checkpoints are left over: {self.inflight()}")
        folder = self.path / "reports"  # where the store is a server
        if not folder.exists():
            folder = self.path / "runs/reports"
        reports = sorted((folder / self.name).glob("*.json"))
        return {
            "report": {
                one.name: one.read_text(encoding="utf-8")
                for one in reports
                if one.name != "provenance.json"
            },
            "tickets": {key: dict(_digests(self._place(uri))) for key, _, uri in sorted(stages)},
            "metrics": metrics,
        }

    def places(self) -> list[Path]:
        """The folders of the artifacts of all finished stages, always in one order."""
        return [self._place(uri) for _, _, uri in sorted(self.stages())]

    def _place(self, uri: str) -> Path:
        """The folder of a run's artifacts."""
        if uri.startswith("mlflow-artifacts:/"):
            return self.path / "runs/artifacts" / uri.removeprefix("mlflow-artifacts:/")
        return Path(uri.removeprefix("file://"))

    def inflight(self) -> list[str]:
        """Checkpoints that lie beside the store."""
        files = (self.path / "runs/inflight").glob("*/*")
        return sorted(p.name for p in files if p.suffix in (".safetensors", ".json"))


def _digests(place: Path) -> Iterator[tuple[str, str]]:
    """sha256 of each file of a finished stage's result."""
    for file in sorted((place / "result").iterdir()):
        yield file.name, hashlib.sha256(file.read_bytes()).hexdigest()


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare what ``state`` gave.

    Raises:
        Fault: something differs.
    """
    for part in ("tickets", "report", "metrics"):
        if found[part] != expected[part]:
            left, right = (json.dumps(s[part], sort_keys=True)[:400] for s in (found, expected))
            raise Fault(f"{part} differ:\n{left}\n{right}")
