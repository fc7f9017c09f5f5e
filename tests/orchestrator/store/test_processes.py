"""Who is alive: by boot, namespace and ticks, and nothing is concluded of who cannot be seen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from orchestrator.store import processes
from orchestrator.store.processes import Process, in_words, is_alive, is_gone, owner
from tests.orchestrator.helpers import ELSEWHERE, GONE, like_this_one

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
STAT = "{pid} (a) (name) {state} " + "0 " * 18 + "{start} 0 0\n"


def _here() -> Process:
    process = Process.of(owner())
    assert process is not None
    return process


Fake = Callable[..., Path]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A ``/proc`` of this process (number 7), and of process 42, which lives."""

    def make(
        *,
        boot: str = "boot-a",
        pids: str = "pid:[11]",
        times: str = "time:[22]",
        numbers: str = "7",
        start: str = "900",
        state: str = "S",
    ) -> Path:
        proc = tmp_path / f"proc-{len(list(tmp_path.iterdir()))}"
        for name in ("self/ns", "42", "sys/kernel/random"):
            (proc / name).mkdir(parents=True)
        (proc / "sys/kernel/random/boot_id").write_text(f"{boot}\n")
        (proc / "self/ns/pid").symlink_to(pids)
        (proc / "self/ns/time").symlink_to(times)
        (proc / "self/stat").write_text(STAT.format(pid=7, state="R", start="800"))
        (proc / "self/status").write_text(f"Name:\tx\nNSpid:\t{numbers}\n")
        (proc / "42/stat").write_text(STAT.format(pid=42, state=state, start=start))
        monkeypatch.setattr(processes, "_PROC", proc)
        return proc

    monkeypatch.setattr(os, "kill", _kernel)
    return make


def _kernel(pid: int, number: int) -> None:
    assert number == 0
    if pid not in (1, 7, 42):
        raise ProcessLookupError
    if pid == 1:
        raise PermissionError


def _named(pid: int = 42, start: str = "900", **changes: str) -> str:
    parts = {"host": "box", "boot": "boot-a", "namespace": "11.22", "mark": "m", **changes}
    return str(Process(pid=pid, start=start, **parts))


# This machine as it is


def test_an_owner_tells_boot_namespace_number_and_ticks() -> None:
    here = _here()
    assert (here.host, here.pid) == (socket.gethostname(), os.getpid())
    assert Process.of(str(here)) == here
    assert owner() == str(here), "it is the same as long as the process lives"
    assert Process.of(str(Process(**{**vars(here), "host": "a/b"}))) is not None


@LINUX
def test_its_parts_are_those_of_the_kernel() -> None:
    here = _here()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    assert here.boot == boot
    assert here.namespace.partition(".")[0] in os.readlink("/proc/self/ns/pid")
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    age = since_boot - int(here.start) / os.sysconf("SC_CLK_TCK")
    assert abs(time.time() - age - psutil.Process().create_time()) < 5


@LINUX
def test_who_lives_here_and_who_has_ended() -> None:
    assert is_alive(owner()) is True
    assert is_alive(GONE) is False, "its number is of another process now"
    assert is_gone(like_this_one(pid=2**22 + 1))  # beyond the largest process id
    ended = subprocess.Popen([sys.executable, "-c", ""])
    start, _ = processes._stat(str(ended.pid))
    name = like_this_one(pid=ended.pid, start=start)
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert processes._stat(str(ended.pid)) == (start, "Z")
    assert is_gone(name), "it has ended, and nobody has asked how"
    ended.wait()
    assert is_gone(name)


@LINUX
def test_a_process_is_not_its_namesake_where_little_is_told() -> None:
    code = "from orchestrator.store.processes import owner; print(owner())"
    words = [sys.executable, "-c", code]
    there = Process.of(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert there is not None
    assert there.mark != _here().mark
    assert (there.boot, there.namespace) == (_here().boot, _here().namespace)


@pytest.mark.parametrize(
    "name",
    [
        ELSEWHERE,
        f"{socket.gethostname()}:{os.getpid()}:1",  # of an older version, by the wall clock
        like_this_one(start="1", boot="another"),
        like_this_one(start="1", namespace="1.1"),
        like_this_one(start="1", boot=""),
        like_this_one(start="1", namespace=""),
        like_this_one(pid=2**80),
        "",
        "x",
        "a/b/c/d/e/f",
    ],
    # Names hold this process's id, and all workers of a test run have to know a test alike.
    ids=[
        *("elsewhere", "of an older version", "another boot", "another namespace", "no boot"),
        *("no namespace", "too large", "empty", "a letter", "letters"),
    ],
)
def test_nothing_is_concluded_of_who_cannot_be_seen(name: str) -> None:
    assert is_alive(name) is None
    assert not is_gone(name)


def test_a_clock_set_forward_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = owner()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 30)
    monkeypatch.setattr(psutil, "boot_time", lambda: now + 30)
    assert owner() == before
    assert not is_gone(before)


def test_older_versions_do_not_take_it_for_one_of_their_host() -> None:
    assert owner().partition(":")[0] != socket.gethostname()


def test_who_it_is_for_people() -> None:
    assert in_words(_named()) == "process 42 on box (PID namespace 11)"
    assert in_words(_named(namespace="-")) == "process 42 on box"
    assert in_words("node7:42:1764140000") == "process 42 on node7"
    assert in_words("") == "an unknown process"


# Made-up machines


def test_the_same_boot_and_namespace_judge_by_ticks(fake: Fake) -> None:
    fake()
    here = _here()
    assert (here.start, here.boot, here.namespace) == ("800", "boot-a", "11.22")
    assert is_alive(_named()) is True
    assert is_alive(_named(start="899")) is False
    assert is_alive(_named(pid=43)) is False
    assert is_alive(_named(host="renamed")) is True


@pytest.mark.parametrize(
    "changes",
    [{"boot": "boot-b"}, {"pids": "pid:[12]"}, {"times": "time:[23]"}],
    ids=["a reboot, or another machine of one image", "another container", "a time namespace"],
)
def test_another_boot_or_namespace_cannot_judge(fake: Fake, changes: dict[str, str]) -> None:
    fake(**changes)
    assert is_alive(_named()) is None
    assert is_alive(_named(start="899")) is None
    assert is_alive(_named(pid=43)) is None, "its number means nothing here"


def test_a_proc_of_a_namespace_above_shows_other_processes(fake: Fake) -> None:
    fake(numbers="4711\t7")  # as after `unshare --pid --fork` without --mount-proc
    assert is_alive(_named(start="899")) is None
    assert is_alive(_named(pid=43)) is False, "the kernel itself says so"


def test_a_process_that_proc_hides_is_not_gone(fake: Fake) -> None:
    fake()
    assert is_alive(_named(pid=1, start="1")) is None  # hidepid: another user's


def test_who_has_ended_and_was_not_waited_for_is_gone(fake: Fake) -> None:
    fake(state="Z")
    assert is_alive(_named()) is False


@LINUX
def test_without_proc_nobody_is_judged(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake()
    name = owner()
    monkeypatch.setattr(processes, "_PROC", tmp_path / "none")
    assert (_here().start, _here().boot, _here().namespace) == ("", "", "")
    assert is_alive(owner()) is None
    assert is_alive(name) is None


@pytest.fixture
def macos(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake()
    monkeypatch.setattr(processes, "_PROC", tmp_path / "none")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(processes, "_boot_of_macos", lambda: "session-1")


@pytest.mark.usefixtures("macos")
def test_macos_has_a_session_of_its_boot_and_no_ticks() -> None:
    here = _here()
    assert (here.start, here.boot, here.namespace) == ("", "session-1", "-")
    assert is_alive(_named(start="", boot="session-1", namespace="-")) is None
    assert is_alive(_named(pid=43, start="", boot="session-1", namespace="-")) is False
    assert is_alive(_named(pid=43, start="", boot="session-0", namespace="-")) is None


# Real namespaces

JUDGE = """
import os, sys
from orchestrator.store.processes import is_alive, owner
print(owner(), is_alive(owner()), *map(is_alive, sys.argv[1:]))
"""


def _in_a_namespace(*names: str, proc: bool = True) -> list[str]:
    """What a process in a PID namespace of its own says of itself, and of others."""
    words = ["unshare", "--pid", "--fork", *(["--mount-proc"] if proc else [])]
    try:
        probe = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if probe.returncode:
        pytest.skip(f"no PID namespace can be made here: {probe.stderr.strip()}")
    done = subprocess.run(
        [*words, sys.executable, "-c", JUDGE, *names],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    return done.stdout.split()


@LINUX
@pytest.mark.parametrize("proc", [True, False], ids=["own proc", "proc of the namespace above"])
def test_processes_in_two_namespaces_do_not_judge_each_other(proc: bool) -> None:
    inside, itself, *others = _in_a_namespace(owner(), GONE, like_this_one(pid=1), proc=proc)
    process = Process.of(inside)
    assert process is not None
    assert process.boot == _here().boot
    assert process.namespace != _here().namespace
    assert process.host == _here().host
    assert process.pid == 1
    assert itself == ("True" if proc else "None")
    assert others == ["None"] * 3, "whether they live cannot be seen from there"
    assert is_alive(inside) is None, "it has ended, which cannot be seen from here"
