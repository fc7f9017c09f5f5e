"""What hundreds of trials take of a driver, and how long a driver lets them stand still.

    python -m benchmarks driver

``benchmarks.played`` says what is stood in for. Each load is played in a process of its own, as
its memory is measured. What a driver could take a second is told by the time of its processor, not
by the clock: on a busy machine it would wait for that as well.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.orchestrator import SEEDS, large
from benchmarks.played import TRIALS, Load
from benchmarks.rows import Row, row
from orchestrator import plan as plans
from orchestrator.plan.graph import Plan
from orchestrator.plan.schedule import Schedule
from orchestrator.work.progress import display
from orchestrator.work.search import PlanSearch

LOADS = {
    "227 results a second": Load(epoch=2.2, epochs=24, pause=0.0, seconds=60),
    "as many as are to be had": Load(epoch=0.25, epochs=240, pause=0.0, seconds=40),
    "epochs of a second, as in earnest": Load(epoch=1.0, epochs=60, seconds=60),
    "stages of ten seconds": Load(epoch=2.2, epochs=4, pause=0.0, seconds=60),
    "half as many trials, 113 results a second": Load(
        trials=TRIALS // 2, epoch=2.2, epochs=24, pause=0.0, seconds=40
    ),
}
_HEIGHT = 50
_REPEATS = 5


def rows() -> list[Row]:
    """Measure everything."""
    found = alone(plans.build(large(SEEDS)))
    with tempfile.TemporaryDirectory(prefix="elth-bench-") as place:
        for name, load in LOADS.items():
            found += told(name, load, played(load, Path(place)))
    return found


def alone(plan: Plan) -> list[Row]:
    """What is ours, without Tune: the search, the schedule and the display."""
    count = len(plan.stages)
    busy = Schedule(plan, (), {}, slots=TRIALS, seconds_per_work=1.0)
    retrainings = [key for key, stage in plan.stages.items() if stage.kind != "retraining"]
    wide = Schedule(plan, retrainings, {}, slots=TRIALS, seconds_per_work=1.0)
    search = PlanSearch(wide)
    for number in range(TRIALS):
        search.suggest(str(number))
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=_HEIGHT)
    now = wide.snapshot()
    words = f"of {count:,} stages"
    return [
        row(f"suggest where {TRIALS} trials run, {words}", "ms", _each(search.suggest, 1000)),
        row(f"a job of a plan {words}: suggest, results and end", "ms", _jobs(plan, "")),
        row(
            f"the same with {count // 100} stages failed",
            "ms",
            _jobs(plan, "a loss that is not finite"),
        ),
        row(f"a snapshot {words} with time left", "ms", _ms(busy.snapshot)),
        row(
            f"the live display of {len(now.running)} trials in {_HEIGHT} lines",
            "ms",
            _ms(lambda: console.print(display(now, "shown", 1.0, height=_HEIGHT))),
        ),
        row(
            f"the live display of all {len(now.running)} trials",
            "ms",
            _ms(lambda: console.print(display(now, "shown", 1.0))),
        ),
    ]


def _ms(what: Callable[[], object], repeats: int = _REPEATS) -> list[float]:
    """Milliseconds of the processor of each repetition."""
    found = []
    for _ in range(repeats):
        began = time.process_time()
        what()
        found.append(1e3 * (time.process_time() - began))
    return found


def _each(what: Callable[[str], object], times: int) -> list[float]:
    def all_of_them() -> None:
        for number in range(times):
            what(f"more {number}")

    return [one / times for one in _ms(all_of_them)]


def _jobs(plan: Plan, failed: str) -> list[float]:
    """Milliseconds of each job, of all the jobs of a plan."""
    keys = list(plan.stages)[-len(plan.stages) // 100 :] if failed else []
    found = []
    for _ in range(3):
        search = PlanSearch(Schedule(plan, (), dict.fromkeys(keys, failed), slots=TRIALS))
        began, number = time.process_time(), 0
        while isinstance(job := search.suggest(str(number)), dict):
            count = len(job["stages"])
            for index in range(count):
                search.on_trial_result(str(number), {"report": (index, 0.5, 50.0)})
                search.on_trial_result(str(number), {"report": (index + 1, 0.0, None)})
            search.on_trial_complete(str(number), None)
            number += 1
        found.append(1e3 * (time.process_time() - began) / number)
    return found


def played(load: Load, folder: Path) -> dict[str, Any]:
    """Play a load in a process of its own."""
    given, found = folder / "load.json", folder / "found.json"
    given.write_text(json.dumps(asdict(load)), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.played", str(given), str(found)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise RuntimeError(f"{load}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return result


def told(name: str, load: Load, found: dict[str, Any]) -> list[Row]:
    """The rows of what was seen of a load."""
    first, last = found["samples"][0], found["samples"][-1]
    spent = {key: last[key] - first[key] for key in first}
    took, results, stages = spent["at"], spent["results"], spent["stages"]
    title = f"{load.trials} trials, {name}"
    still = sum(found["still"]) / (load.trials * took)
    result = [
        row(f"{title}: results taken", "1/s", [results / took], note="by the clock"),
        row(f"{title}: the driver", "cores", [spent["cpu"] / took]),
        row(f"{title}: processor of a result", "ms", [1e3 * spent["cpu"] / results]),
        row(f"{title}: of these of Tune's loop", "ms", [1e3 * spent["loop"] / results]),
        row(f"{title}: trials stand still, of their time", "%", [100 * still]),
        *_spread(f"{title}: from a result to the next step", found["still"]),
        *_spread(f"{title}: from the end of a trial to the next", found["turned"]),
        row(f"{title}: memory of the driver", "MB", [last["rss"] / 1e6]),
        row(f"{title}: its growth with a result", "kB", [spent["rss"] / 1e3 / results]),
    ]
    if stages >= 100:
        grown = spent["rss"] / 1e3 / stages
        result.append(row(f"{title}: its growth with 1,000 stages", "MB", [grown]))
    trials, seconds = found["snapshots"][-1]
    result.append(row(f"{title}: Tune's snapshot of {trials:,} trials", "s", [seconds]))
    return result


def _spread(name: str, values: Sequence[float]) -> list[Row]:
    """The median and the 99th percentile of some seconds; nothing of none."""
    if not values:
        return []
    ordered = sorted(values)
    return [
        row(f"{name}, {share} of 100", "s", [ordered[int(share / 100 * (len(ordered) - 1))]])
        for share in (50, 99)
    ]
