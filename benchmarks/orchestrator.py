"""What the system itself costs: listing a full store, planning, a stage's overhead, memory.

    python -m benchmarks.orchestrator [--quick]

The large store holds 10,560 finished runs: Figure 6 with 16 seeds (see ``benchmarks.fill``). Real
stages are those of a small MLP on the digits, trained for one iteration, on Ray with two trials at
a time: 10,020 of them, in one run. An MLflow server and Ray are started on the loopback address.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

import psutil
from rich.console import Console

from benchmarks import fill, servers
from benchmarks.rows import row, show
from elth.training import Epoch
from orchestrator import plan as plans
from orchestrator.experiment.reading import load
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.graph import Plan
from orchestrator.plan.schedule import Schedule
from orchestrator.plan.walking import Course
from orchestrator.store.address import Store
from orchestrator.store.tracker import Tracker
from orchestrator.work import driver

CONFIG = Path(__file__).parent.parent / "tune_configs/fig6_cifar_resnets.yaml"
SEEDS = 16
TRIALS_SEEDS = 334
REPEATS = 5
_WARM, _EPOCHS = 10, 40


def rows(*, seeds: int = SEEDS, trials_seeds: int = TRIALS_SEEDS) -> list[dict[str, Any]]:
    """Measure everything; ``seeds`` of the large store (660 runs each), and of real stages (30)."""
    experiment = large(seeds)
    plan = plans.build(experiment)
    with tempfile.TemporaryDirectory(prefix="elth-bench-") as place:
        folder = Path(place)
        fill.fill(folder / "full", experiment, plan)
        found = planning(experiment, plan)
        found += served(folder)
        found += listing(folder / "full", len(plan.stages))
        found += start(folder / "full", experiment, plan)
        found += logging(folder / "logging")
        found += memory(folder / "full", seeds)
        return found + stages(folder / "stages", trials_seeds)


def large(seeds: int) -> Experiment:
    """Figure 6 with more seeds, so that any machine may plan it."""
    numbers = ",".join(map(str, range(seeds)))
    return load(CONFIG, (f"seeds=[{numbers}]", "resources.gpus=0", "resources.cpus=1"))


def timed(
    what: Callable[[], object],
    repeats: int = REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds of each repetition: of wall time, or by another clock."""
    result = []
    for _ in range(repeats):
        began = clock()
        what()
        result.append(clock() - began)
    return result


def listing(folder: Path, count: int) -> list[dict[str, Any]]:
    """``Tracker.stages`` on sqlite, without an index and with one; finding one run."""
    store = Store.of(folder)
    reader, keeper = Tracker(store), Tracker(store, keep_index=True)
    words = f"Tracker.stages, {count:,} runs, sqlite"
    without = timed(reader.stages, 2)
    keeper.stages()
    one = reader.stages()[count // 2]
    return [
        row(f"{words}, no index", "s", without),
        row(f"{words}, index", "s", timed(reader.stages), "< 3"),
        row("Tracker.get by the beginning of a key", "s", timed(lambda: reader.get(one.key[:8]))),
        row(
            "Tracker.get by the beginning of a run id",
            "s",
            timed(lambda: reader.get(one.run_id[:8])),
        ),
        row("Tracker.run_of", "s", timed(lambda: reader.run_of(one.key))),
    ]


def served(folder: Path) -> list[dict[str, Any]]:
    """The same through a server, which also serves the index as an artifact."""
    copy = folder / "served"
    shutil.copytree(folder / "full", copy)
    database, settings = f"sqlite:///{copy}/mlflow.db", servers.Settings(processes=1)
    with servers.mlflow(folder / "server", database, settings) as server:
        store = Store.of(server.uri)
        reader, keeper = Tracker(store), Tracker(store, keep_index=True)
        without = timed(keeper.stages, 1)
        within = timed(reader.stages)
    shutil.rmtree(copy)
    words = "Tracker.stages, mlflow server over http"
    return [
        row(f"{words}, no index", "s", without, note="with writing an index"),
        row(f"{words}, index", "s", within, "< 10"),
    ]


def planning(experiment: Experiment, plan: Plan) -> list[dict[str, Any]]:
    """The plan with its keys, and the schedule's queue."""
    count = len(plan.stages)

    def all_keys() -> None:
        for stage in plan.stages.values():
            _ = dataclasses.replace(stage).key

    schedule = Schedule(plan, (), {}, slots=2, seconds_per_work=1.0)
    costs = {key: plans.work(stage) for key, stage in plan.stages.items()}
    course = Course(plan, (), costs)

    def whole() -> None:
        found = Course(plan, (), costs)
        for slots in (*(2**i for i in range(10)), found.width, found.enough):
            found.walk(slots)

    def drain() -> None:
        queue, trial = Schedule(plan, (), {}, slots=2), 0
        while (job := queue.take(str(trial))) is not None:
            queue.advance(str(trial), len(job.stages), 0.0, None)
            queue.end(str(trial))
            trial += 1

    return [
        row(f"planning {count:,} stages", "s", timed(lambda: plans.build(experiment)), "< 3"),
        row(
            f"walking {count:,} stages on 512 slots, of the processor",
            "s",
            timed(lambda: course.walk(512), clock=time.process_time),
        ),
        row(
            "the same on 1, 2, 4 to 512 slots, with width and enough",
            "s",
            timed(whole, clock=time.process_time),
            "< 2",
        ),
        row(f"keys of {count:,} stages alone", "s", timed(all_keys)),
        row("a schedule of all, worked through without trials", "s", timed(drain)),
        row("a schedule's snapshot with time left", "s", timed(schedule.snapshot)),
    ]


def start(folder: Path, experiment: Experiment, plan: Plan) -> list[dict[str, Any]]:
    """``elth run`` on a grid that is finished: from the plan to the report, imports apart."""

    def again() -> None:
        console = Console(file=io.StringIO(), width=120)
        driver.execute(experiment, plan, Store.of(folder), console, retry_failed=False)

    again()
    name = f"elth run with {len(plan.stages):,} of {len(plan.stages):,} finished, with its report"
    return [row(name, "s", timed(again, 3))]


def logging(folder: Path) -> list[dict[str, Any]]:
    """What tracking takes from the training: of the thread that trains, and of the processor."""
    experiment = _small(1)
    stage = next(iter(plans.build(experiment).stages.values()))
    log = fill.write(tracker := Tracker(Store.of(folder)), stage, experiment)  # warm
    log = fill.begin(tracker, stage, experiment)
    epoch = Epoch(epoch=1, step=1, lr=0.1, train_loss=1.0, test_loss=1.0, test_accuracy=50.0)
    calls: list[float] = []
    cpu = 0.0
    for number in range(1, _WARM + _EPOCHS + 1):
        if number == _WARM + 1:
            calls, cpu = [], time.process_time()
        one = dataclasses.replace(epoch, epoch=number)
        calls += timed(lambda one=one: log.epoch(one), 1)  # type: ignore[misc]
        time.sleep(1)
    spent = (time.process_time() - cpu) / _EPOCHS
    log.fail("measured", final=False, details="")
    return [
        row(
            "log.epoch in the training thread, of a 1 s epoch", "%", [100 * t for t in calls], "< 1"
        ),
        row("all processor time of tracking, of a 1 s epoch", "%", [100 * spent], "< 1"),
    ]


def memory(folder: Path, seeds: int) -> list[dict[str, Any]]:
    """Peak of a driver's imports alone, and with a plan, the list of a full store and a report."""
    numbers = ",".join(map(str, range(seeds)))
    words = ["run", str(CONFIG), f"seeds=[{numbers}]", "resources.gpus=0", "resources.cpus=1"]
    imports = "from orchestrator import driver, runner\nfrom orchestrator.cli import main\n"
    imports += "import sys\nsys.argv = ['elth', *sys.argv[1:]]\n"
    return [
        row("driver, peak RSS of imports alone", "MB", [_peak(imports, "--version")]),
        row(
            "driver, peak RSS with plan, schedule, store and report",
            "MB",
            [_peak(imports, *words, "--store", str(folder))],
            "< 1000",
        ),
    ]


def _peak(imports: str, *words: str) -> float:
    """Peak RSS in MB of a process that does some imports and then a command."""
    # Not getrusage: its peak is handed on from the process that started this one.
    code = (
        f"{imports}try:\n    main()\nfinally:\n"
        "    print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return float(done.stdout.split()[-1]) * 1024 / 1e6


def _small(seeds: int) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "costs",
            "dataset": "digits",
            "seeds": list(range(seeds)),
            "recipe": {"base": "digits_resnet", "length": "2it", "rewind": "1it", "milestones": []},
            "pruning": {"rate": 0.2, "rounds": 7},
            "grid": [
                {"method": "imp", "network": "mlp2"},
                {"method": ["random", "magnitude", "reinit"], "network": "mlp2", "round": "all"},
            ],
            "resources": {"cpus": 1, "gpus": 0, "concurrent": 2},
        }
    )


def stages(folder: Path, seeds: int) -> list[dict[str, Any]]:
    """Real stages of one iteration on Ray: wall time of each, and the driver's growth."""
    experiment = _small(seeds)
    folder.mkdir()
    config = folder / "costs.yaml"
    config.write_text(experiment.resolved(), encoding="utf-8")
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(config)]
    command += ["--store", str(folder / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    samples: list[tuple[int, float]] = []
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error, sqlite3.Error):
            samples.append((len(_ends(folder / "runs")), watched.memory_info().rss / 1e6))
        time.sleep(1)
    ends = _ends(folder / "runs")
    expected = len(plans.build(experiment).stages)
    if process.returncode or len(ends) != expected:
        text = (folder / "log").read_text(encoding="utf-8")[-2000:]
        raise RuntimeError(f"{len(ends)} of {expected} stages finished: {text}")
    tenth = len(ends) // 10
    parts = [(ends[i + tenth] - ends[i]) / 1000 / tenth for i in range(0, len(ends) - tenth, tenth)]
    growth = _slope([one for one in samples if len(ends) // 4 < one[0] < len(ends)])
    return [
        row(
            f"wall time of a stage of one iteration, 2 at a time, {len(ends)} stages",
            "s",
            parts,
            "< 0.3",
            note="each value a tenth of the run, first to last end",
        ),
        row("driver, peak RSS of that run", "MB", [max(rss for _, rss in samples)], "< 1000"),
        row(
            "driver, growth with each stage of that run",
            "kB",
            [1000 * growth],
            note="a line through what it had, the first quarter left out",
        ),
    ]


def _ends(folder: Path) -> list[int]:
    """Times of end of the finished stages, sorted, in milliseconds."""
    uri = f"file:{folder / 'mlflow.db'}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30)) as database:
        found = database.execute(
            "select end_time from runs where status = 'FINISHED' and experiment_id = "
            "(select experiment_id from experiments where name = 'elth') order by end_time"
        )
        return [end for (end,) in found]


def _slope(points: list[tuple[int, float]]) -> float:
    """The slope of a line by least squares; nan for fewer than two places."""
    if len({x for x, _ in points}) < 2:
        return float("nan")
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x, _ in points)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small store and few stages")
    quick = parser.parse_args().quick
    found = rows(seeds=2, trials_seeds=10) if quick else rows()
    show("the system's own cost", found)


if __name__ == "__main__":
    main()
