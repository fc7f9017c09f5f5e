"""Dies at named points; Python imports this if its folder is on PYTHONPATH.

``ELTH_FAULTS`` holds some of ``MODULE:FUNCTION:WHEN:ACTION:FILE``, divided by semicolons. Before
or after a call of the function (``before 6``: the sixth in a process), while the file is there (it
is removed first, so it happens once), the process is killed; or, with the action ``fill``, the file
system of the folder ``ELTH_FILL`` is filled to its last byte; ``crash`` reads a null pointer. With
``kill-always`` and ``crash-always`` the file stays, and it happens each time.
"""

import contextlib
import ctypes
import functools
import importlib.abc
import importlib.util
import itertools
import os
import signal
import sys


def _act(action: str, file: str) -> None:
    action, _, always = action.partition("-")
    try:
        if always:
            os.stat(file)
        else:
            os.unlink(file)  # of several processes one alone succeeds
    except FileNotFoundError:
        return
    if action == "crash":
        ctypes.string_at(0)
    if action == "fill":
        with (
            contextlib.suppress(OSError),
            open(f"{os.environ['ELTH_FILL']}/filler", "wb") as filler,
        ):
            while True:
                filler.write(bytes(4096))
                filler.flush()
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _wrapped(function, when: str, action: str, file: str):  # type: ignore[no-untyped-def]
    when, _, number = when.partition(" ")
    calls = itertools.count(1)

    @functools.wraps(function)
    def wrapper(*args, **kwargs):  # type: ignore[no-untyped-def]
        is_due = next(calls) == int(number) if number else True
        if is_due and when == "before":
            _act(action, file)
        result = function(*args, **kwargs)
        if is_due and when == "after":
            _act(action, file)
        return result

    return wrapper


class _Finder(importlib.abc.MetaPathFinder):
    """Changes one function of one module once that has been imported."""

    def __init__(self, module: str, name: str, when: str, action: str, file: str) -> None:
        self.module, self.name, self.rest = module, name, (when, action, file)

    def find_spec(self, fullname, path=None, target=None):  # type: ignore[no-untyped-def]
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module):  # type: ignore[no-untyped-def]
            run(module)
            *way, last = self.name.split(".")
            holder = functools.reduce(getattr, way, module)
            setattr(holder, last, _wrapped(getattr(holder, last), *self.rest))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


for _fault in filter(None, os.environ.get("ELTH_FAULTS", "").split(";")):
    sys.meta_path.insert(0, _Finder(*_fault.split(":")))
