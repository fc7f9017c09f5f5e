"""Why a process died, from errors and logs as Ray 2.60 makes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError, RayTaskError

from orchestrator.work import deaths
from orchestrator.work.deaths import (
    MORE_MEMORY,
    Death,
    Deaths,
    LostGpuError,
    _killed_for_memory,
)

BROKEN = (
    "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes "
    "include: (1) the process was killed by the OOM killer due to high memory usage, (2) ray stop "
    "--force was called, or (3) the worker crashed unexpectedly due to SIGSEGV or another "
    "unexpected error."
)
EXITED = "Worker exits unexpectedly. Worker exits with an exit code 4."
TERMINATED = "Worker exits with an exit code 1. The process receives a SIGTERM."
FULL = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: "
    "127.0.0.1, ID: db4d) was 23.18GB used / 23.54GB limit (0.98)\n"
    "Selected to kill: (Task: job ID=01000000, pid=4711, actual memory used=0.05GB)"
)
CRASH = """\
:job_id:01000000
:actor_name:JobTrial
a warning of some library
*** SIGSEGV received at time=1795677623 on cpu 1 ***
PC: @     0x7f172cb85ad8  (unknown)  (unknown)
[2026-11-26 07:20:23,928 E 16666 16666] logging.cc:474: *** SIGSEGV received at time=1795677623 ***
Fatal Python error: Segmentation fault

Stack (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/home/me/elth/engine.py", line 9 in step
  File "/home/me/ray/worker.py", line 1069 in main_loop

Extension modules: msgpack._cmsgpack, google._upb._message (total: 16)
"""


def _died(said: str) -> RayActorError:
    """The error of an actor that has died."""
    text = "The actor died unexpectedly before finishing this task.\n\tpid: 4711\n\tip: 10.0.0.7\n"
    return RayActorError(error_msg=f"{text}Worker exit type: SYSTEM_ERROR. {said}")


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Logs in which nothing but Ray's own lines are."""
    for kind in ("err", "out"):
        (tmp_path / f"worker-af0c-01000000-4711.{kind}").write_text(":job_id:01000000\n")
        (tmp_path / f"worker-beef-01000000-47110.{kind}").write_text("of another process\n")
    return tmp_path


@pytest.fixture(autouse=True)
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the kernel has counted."""
    counts = [3]
    monkeypatch.setattr(deaths, "_killed_for_memory", lambda: counts[0])
    return counts


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (_died(EXITED), "its process ended with exit code 4"),
        (_died(TERMINATED), "its process was ended by SIGTERM, by a person or a batch system"),
        (
            _died(BROKEN),
            "its process was killed without a word in its log, as SIGKILL does: by a person, a "
            "batch system, or a system without memory",
        ),
        (
            OutOfMemoryError(FULL),
            "its process was killed by Ray as memory ran out (23.18 of 23.54 GB used): "
            + MORE_MEMORY,
        ),
        (RayActorError(error_msg="The actor died because its node has died."), "its node is gone"),
        (
            RayTaskError("f", "Traceback\nValueError: no\n", ValueError("no")),
            "ValueError: no",
        ),
        (
            RayTaskError("f", "Traceback\nLostGpuError: no", LostGpuError("CUDA error: ECC")),
            "the GPU failed and its process was ended (CUDA error: ECC)",
        ),
        (
            ActorDiedError(RayTaskError("f", "Trace\nModuleNotFoundError: No x", ValueError("x"))),
            "ModuleNotFoundError: No x",
        ),
        (RuntimeError("first\n\x1b[36mlast\x1b[39m\n"), "last"),
        (None, "its process died"),
    ],
    ids=str,
)
def test_the_reason_is_one_line(logs: Path, error: Exception | None, reason: str) -> None:
    death = Deaths(logs).look(error)
    assert death.reason == reason
    assert death.told == str(error or "").replace("\x1b[36m", "").replace("\x1b[39m", "")


def test_a_crash_is_named_with_its_place_and_its_stack_ends_there(logs: Path) -> None:
    log = logs / "worker-af0c-01000000-4711.err"
    log.write_text(CRASH)
    death = Deaths(logs).look(_died(BROKEN))
    assert death.reason == (
        "its process crashed in native code (SIGSEGV), in string_at (ctypes/__init__.py:519)"
    )
    assert death.log == str(log)
    assert death.lines == (
        "a warning of some library",
        "*** SIGSEGV received at time=1795677623 on cpu 1 ***",
        "PC: @     0x7f172cb85ad8  (unknown)  (unknown)",
        "Fatal Python error: Segmentation fault",
        '  File "/home/me/ray/worker.py", line 1069 in main_loop',
        '  File "/home/me/elth/engine.py", line 9 in step',
        '  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at',
    )


def test_a_crash_is_named_however_deep_its_stack_is(logs: Path) -> None:
    stack = [f'  File "/lib/torch/layer.py", line {depth} in layer' for depth in range(100)]
    before, rest = CRASH.split('  File "', maxsplit=1)
    (logs / "worker-af0c-01000000-4711.err").write_text(
        "\n".join([before.rstrip(), *stack, f'  File "{rest}'])
    )
    death = Deaths(logs).look(_died(BROKEN))
    assert (
        death.reason == "its process crashed in native code (SIGSEGV), in layer (torch/layer.py:0)"
    )
    assert len(death.lines) <= deaths.LINES
    assert death.lines[-1] == stack[0], "what was called last"


def test_what_the_kernel_kills_for_memory_is_told_from_other_killing(
    logs: Path, killed: list[int]
) -> None:
    found = Deaths(logs)
    killed[0] += 1
    first, second = found.look(_died(BROKEN)), found.look(_died(BROKEN))
    assert first.reason == f"its process was killed by the system as memory ran out: {MORE_MEMORY}"
    assert "SIGKILL" in second.reason, "it has killed no other one meanwhile"


def test_killing_is_counted_in_the_own_group_or_else_on_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, whole = tmp_path / "memory.events", tmp_path / "vmstat"
    whole.write_text("nr_free 7\noom_kill 40\n", encoding="utf-8")
    monkeypatch.setattr(deaths, "_of_own_group", lambda: iter([str(group)]))
    monkeypatch.setattr(deaths, "_OF_ALL", str(whole))
    assert _killed_for_memory() == 40
    group.write_text("oom 5\noom_kill 2\noom_group_kill 1\n", encoding="utf-8")
    assert _killed_for_memory() == 2


def test_of_a_long_log_the_end_is_kept_and_the_other_file_is_read_if_one_is_empty(
    logs: Path,
) -> None:
    text = "".join(f"line {number}\n" for number in range(100))
    (logs / "worker-af0c-01000000-4711.out").write_text(text)
    death = Deaths(logs).look(_died(BROKEN))
    assert death.lines == tuple(f"line {number}" for number in range(60, 100))


def test_the_log_on_another_machine_is_named(tmp_path: Path) -> None:
    death = Deaths(tmp_path).look(_died(BROKEN))
    assert death.lines == ()
    assert death.log == "worker-*-4711.err in the folder of Ray's logs on node 10.0.0.7"


class Group(Exception):
    """As Ray Train's error of a group."""

    def __init__(self, **failures: Exception) -> None:
        super().__init__("Training failed due to worker errors")
        self.worker_failures = failures


class Unhealthy(Exception):
    """As Ray Train's error of a worker that does not answer."""

    def __init__(self, failure: Exception) -> None:
        super().__init__("A worker health check failed.")
        self.health_check_failure = failure


def test_of_a_group_it_is_the_process_that_died_and_not_those_that_miss_it(logs: Path) -> None:
    missing = RuntimeError("Connection closed by peer")
    error = Group(first=missing, second=Unhealthy(_died(EXITED)))
    assert Deaths(logs).look(error).reason == "its process ended with exit code 4"


def test_a_group_of_which_none_died_says_the_last_line(logs: Path) -> None:
    assert Deaths(logs).look(Group(first=ValueError("no"))) == Death(
        "Training failed due to worker errors", told="Training failed due to worker errors"
    )


def test_what_ray_says_of_memory_is_found_in_an_error_of_another_kind(tmp_path: Path) -> None:
    """As where Tune has kept the text of an error alone."""
    advice = "Refer to the documentation on how to address the out of memory issue: https://..."
    death = Deaths(tmp_path).look(RuntimeError(f"ray::JobTrial.train()\n{FULL}\n{advice}"))
    assert death.reason.startswith(
        "its process was killed by Ray as memory ran out (23.18 of 23.54 GB used): fewer trials"
    )
    death = Deaths(tmp_path).look(RuntimeError(advice))
    assert death.reason.startswith("its process was killed by Ray as memory ran out: fewer trials")
