"""Calls in a process beside this one, so that this one need not import torch.

torch takes two seconds to import and half a gigabyte of memory: much for a process that has a few
questions, or that lives for days beside those that train.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import IO, Any, ParamSpec, TypeVar

from elth.errors import ElthError

P = ParamSpec("P")
T = TypeVar("T")

_SERVE = "import sys; sys.path[:] = {path!r}; from elth import apart; apart.serve({parent})"
_BETWEEN_LOOKS = 0.5
"""Seconds after which a process looks again whether the one that it answers is still there."""

_others: list[subprocess.Popen[bytes]] = []
"""The process beside this one, if there is one."""
_turn = threading.RLock()
"""Of several threads one at a time asks it."""


class GoneError(ElthError):
    """The process beside this one ended without an answer."""


def apart(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of a module in the process beside this one, which stays for the next call.

    Where this process has imported torch anyway, it is called here. What it prints goes to standard
    error. Arguments, result and errors are pickled; both ends are this program.

    Raises:
        Exception: what the call raises.
        GoneError: its process ended without an answer.
    """
    if "torch" in sys.modules:
        return call(*args, **kwargs)
    with _turn:
        return _asked(call, args, kwargs)


def _asked(call: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    if not _others:
        _others.append(_start())
    (other,) = _others
    assert other.stdin is not None
    assert other.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((call, args, kwargs), other.stdin)
            other.stdin.flush()
        is_result, answer = pickle.load(other.stdout)
    except EOFError:
        code = other.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        end()
        raise GoneError(
            f"a process that was to do '{call.__qualname__}' was ended {how}; was there too little "
            "memory?"
        ) from None
    except BaseException:  # interrupted: what it answers now is of no use
        end()
        raise
    if not is_result:
        raise answer
    result: T = answer
    return result


def end() -> None:
    """End the process beside this one, if there is one; the next call starts another."""
    while _others:
        other = _others.pop()
        other.kill()
        with contextlib.suppress(BrokenPipeError):
            other.communicate()


atexit.register(end)


def _start() -> subprocess.Popen[bytes]:
    """Start it, with the modules of this process and deaf to Ctrl-C, which is for this one."""
    code = _SERVE.format(path=sys.path, parent=os.getpid())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it inherits that
    try:
        return subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(parent: int) -> None:
    """Answer calls from standard input until it ends, or the parent's death."""
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    with os.fdopen(os.dup(0), "rb") as calls, os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        while _answer(calls, answers):
            answers.flush()


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGKILL)  # whatever is being done


def _answer(calls: IO[bytes], answers: IO[bytes]) -> bool:
    try:
        call, args, kwargs = pickle.load(calls)
    except EOFError:
        return False
    answer: tuple[bool, Any]
    try:
        answer = (True, call(*args, **kwargs))
    except SystemExit as error:
        answer = (False, RuntimeError(f"{call.__qualname__} ended its process ({error})"))
    except Exception as error:
        answer = (False, _sent(error))
    pickle.dump(answer, answers)
    return True


def _sent(error: Exception) -> Exception:
    """An error as it can be sent, with where it was raised."""
    text = traceback.format_exc()
    try:
        sent: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # of an error's own making
        sent = RuntimeError(str(error))
    sent.add_note(f"In the process beside this one:\n{text}")
    return sent
