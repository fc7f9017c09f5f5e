"""Calls in a process beside one that has not imported torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from elth.apart import apart
from elth.errors import ElthError
from tests.elth import apart_calls

pytestmark = pytest.mark.anywhere

ROOT = Path(__file__).parents[2]
ASKING = """\
import sys
sys.path.insert(0, {root!r})
from elth.apart import apart, end
from tests.elth import apart_calls as calls
{code}
assert "torch" not in sys.modules
"""


def _start(code: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ASKING.format(root=str(ROOT), code=code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


def _asked(code: str, cwd: Path) -> tuple[str, str]:
    asking = _start(code, cwd)
    out, err = asking.communicate(timeout=100)
    assert asking.returncode == 0, err
    return out, err


def test_a_result_comes_back_and_torch_does_not(tmp_path: Path) -> None:
    code = "print(apart(calls.version, 'torch', digits=False))"
    assert _asked(code, tmp_path)[0] == f"torch {torch.__version__.partition('+')[0]}\n"


def test_one_process_answers_until_it_is_ended(tmp_path: Path) -> None:
    code = "found = [apart(calls.process), apart(calls.process)]\n"
    code += "end()\nend()\nfound.append(apart(calls.process))\nprint(*found)"
    one, two, three = _asked(code, tmp_path)[0].split()
    assert one == two != three
    for process in (one, three):
        assert not psutil.pid_exists(int(process))


def test_what_a_call_prints_is_not_its_result(tmp_path: Path) -> None:
    assert _asked("print(apart(calls.talk, 3))", tmp_path) == ("[3, 3]\n", "3 words\n")


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        ("calls.refuse, 'no', because='not asked'", "ElthError", "no is not asked"),
        ("calls.fail", "ZeroDivisionError", "by nothing"),
        ("calls.odd", "RuntimeError", "1 and 2"),
        ("calls.end, 0", "GoneError", "to do 'end' was ended with code 0; was there too little"),
        ("calls.end, 7", "GoneError", "to do 'end' was ended with code 7; was there too little"),
        ("calls.end, -9", "GoneError", "to do 'end' was ended by SIGKILL; was there too little"),
    ],
)
def test_what_a_call_raises_is_raised_here(
    call: str, kind: str, message: str, tmp_path: Path
) -> None:
    code = f"try:\n    apart({call})\nexcept Exception as error:\n    found = error\n"
    code += "print(type(found).__name__, found, getattr(found, '__notes__', ''))\n"
    code += "print(apart(calls.talk, 1))"  # the next call is answered all the same
    first, last = _asked(code, tmp_path)[0].splitlines()
    assert first.startswith(f"{kind} ")
    assert message in first
    assert ("Traceback" in first) == (kind != "GoneError")
    assert last == "[1, 1]"


def test_modules_of_the_current_directory_are_none_of_its_business(tmp_path: Path) -> None:
    for name in ("random", "pickle", "torch", "elth"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a stranger')")
    code = ASKING.format(root=str(ROOT), code="print(apart(calls.talk, 2))")
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],  # -P: as for the command elth
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[2, 2]\n"), done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_process_that_asked(number: signal.Signals, tmp_path: Path) -> None:
    asking = _start("apart(calls.wait, 300)", tmp_path)
    assert asking.stderr is not None
    other = int(asking.stderr.readline())
    asking.send_signal(number)
    _, err = asking.communicate(timeout=60)
    assert asking.returncode == -number or number == signal.SIGINT
    assert ("KeyboardInterrupt" in err) == (number == signal.SIGINT)
    end = time.monotonic() + 30
    while psutil.pid_exists(other) and time.monotonic() < end:
        time.sleep(0.1)
    assert not psutil.pid_exists(other)


def test_ctrl_c_is_not_for_it(tmp_path: Path) -> None:
    code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    code += "apart(calls.wait, 2)\nprint(apart(calls.talk, 1))"
    asking = _start(code, tmp_path)
    assert asking.stderr is not None
    os.kill(int(asking.stderr.readline()), signal.SIGINT)
    assert asking.communicate(timeout=60)[0] == "[1, 1]\n"


def test_where_torch_is_there_it_is_called_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "5")
    assert apart(apart_calls.version, "torch", digits=True) == "5"
    assert apart(apart_calls.process) == os.getpid()
    with pytest.raises(ElthError, match="no is not asked"):
        apart(apart_calls.refuse, "no", because="not asked")


def test_threads_take_turns(tmp_path: Path) -> None:
    code = "from concurrent.futures import ThreadPoolExecutor as Pool\n"
    code += "print(*Pool(8).map(lambda n: apart(calls.talk, n)[0], range(100)))"
    assert _asked(code, tmp_path)[0].split() == [str(n) for n in range(100)]
