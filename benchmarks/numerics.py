"""``make numerics``: convolutions and matrix products against float64, under every instruction set.

oneDNN has kernels for each instruction set, and chooses among them by shape, layout and type: a
fault of one is seen on some processors, for some shapes. ``ONEDNN_MAX_CPU_ISA`` limits a process to
fewer instructions than the processor has, so one machine can try the kernels of the lesser ones.

Shapes are drawn from a fixed seed; strided convolutions of one pixel are tried for every number of
channels. They are computed as a training computes them (``elth.convolutions``), or with ``--as-is``
as PyTorch would, forwards and backwards. The exit code is 3 where anything is wrong.

It is a finding like a wrong result if a process dies or hangs. The case that it was at is told, but
memory may have been harmed by one before it of the same family. What a bfloat16 result may be off
by is computed by the kernels of float32, so with ``--as-is`` these may be the ones that fall.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.rows import machine
from elth.arithmetic import _machine
from elth.arithmetic._compare import deviations, is_compared
from elth.convolutions import convolve, convolve_transposed

KERNELS = (1, 2, 3, 5, 7)
STRIDES = (1, 2, 3)
BATCHES = (1, 2, 5, 16, 64, 128)
SIDES = (1, 2, 3, 4, 7, 8, 15, 16, 32)
CHANNELS = 64
"""The largest number of channels."""
VECTOR = 8
"""Up to so many channels more is tried: they fill no vector, so kernels treat them in their own
ways."""
LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 128, 129, 255, 256, 513)
"""Of the sides of matrices."""
LAYOUTS = ("channels-last", "contiguous")
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LARGEST = 2**25
"""Multiplications of the largest case, or float64 would take seconds; a pixel counts as 32, as it
is read and written so often on the way."""
AS_IT_IS = "DEFAULT"
"""In place of an instruction set: as the environment has it, which is all that the processor has
where no variable limits it."""
FALLS = 3
"""After so many deaths of its processes, or one that hangs, a family is left."""
SHOWN = 5
"""How many findings of a family are told in full."""
MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.perturb=128:glibc.malloc.mmap_threshold=33554432"
    ":glibc.malloc.trim_threshold=1073741824"
}
"""Variables by which glibc fills memory before it gives it, so that what is read unwritten is a
large number, and keeps what it gets back."""
CHECKS = {
    "LD_PRELOAD": "libc_malloc_debug.so.0",
    "GLIBC_TUNABLES": f"{MEMORY['GLIBC_TUNABLES']}:glibc.malloc.check=3",
}
"""Those by which it looks for writes past the end of what it gave, besides."""

_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
_CONVOLUTIONS: dict[int, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    1: (F.conv1d, F.conv_transpose1d),
    2: (F.conv2d, F.conv_transpose2d),
    3: (F.conv3d, F.conv_transpose3d),
}
_PRODUCTS: dict[str, Callable[..., Tensor]] = {
    "mm": torch.mm,
    "addmm": torch.addmm,
    "bmm": torch.bmm,
    "baddbmm": torch.baddbmm,
}
_FORK = multiprocessing.get_context("fork")


class Case(Protocol):
    """Something to compute forwards and backwards."""

    @property
    def family(self) -> str:
        """The row in which it is counted."""

    def run(self, as_is: bool) -> None:
        """Compute it and its gradients."""


def _drawn(shape: Sequence[int], type: str, generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator).to(TYPES[type])


def _backwards(result: Tensor, generator: torch.Generator) -> None:
    """Compute the gradients, the upstream one being laid out as the result is."""
    result.backward(torch.empty_like(result).normal_(generator=generator))


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution, of as many dimensions as it has ``sides``, all of the same length."""

    sides: int
    kernel: int
    stride: int
    padding: int
    inputs: int
    outputs: int
    groups: int
    batch: int
    side: int
    layout: str
    type: str
    bias: bool
    transposed: bool = False

    @property
    def family(self) -> str:
        """Kernel and stride count for those of two dimensions, which networks have."""
        name = f"conv{'_transpose' if self.transposed else ''}{self.sides}d"
        if self.sides == 2 and not self.transposed:
            name += f" kernel {self.kernel} stride {self.stride}"
        return f"{name}, {self.layout}, {self.type}"

    def fits(self) -> bool:
        """Whether there is such a convolution, and it is not too large."""
        result = (self.side + 2 * self.padding - self.kernel) // self.stride + 1
        if self.transposed:
            result = (self.side - 1) * self.stride - 2 * self.padding + self.kernel
        if result < 1:
            return False
        weights = self.inputs * self.outputs // self.groups * self.kernel**self.sides
        places = (self.side if self.transposed else result) ** self.sides
        pixels = self.inputs * self.side**self.sides + self.outputs * result**self.sides
        return self.batch * (places * weights + 32 * pixels) <= LARGEST

    def run(self, as_is: bool) -> None:
        """Compute the result and the gradients of input, weight and bias.

        Args:
            as_is: by PyTorch's function, not by that of ``elth``.
        """
        generator = torch.Generator().manual_seed(1)
        x = _drawn((self.batch, self.inputs, *(self.side,) * self.sides), self.type, generator)
        ends = (self.outputs, self.inputs // self.groups)
        if self.transposed:
            ends = (self.inputs, self.outputs // self.groups)
        weight = _drawn((*ends, *(self.kernel,) * self.sides), self.type, generator)
        if self.layout == "channels-last":
            if self.sides == 1:
                x = x.transpose(1, 2).contiguous().transpose(1, 2)
            else:
                x = x.contiguous(memory_format=_FORMATS[self.sides])
                weight = weight.contiguous(memory_format=_FORMATS[self.sides])
        bias = _drawn((self.outputs,), self.type, generator) if self.bias else None
        for tensor in (x, weight, bias):
            if tensor is not None:
                tensor.requires_grad_()
        function = _CONVOLUTIONS[self.sides][self.transposed]
        given: dict[str, Any] = {
            "stride": self.stride,
            "padding": self.padding,
            "groups": self.groups,
        }
        if as_is:
            result = function(x, weight, bias, **given)
        else:
            safe = convolve_transposed if self.transposed else convolve
            result = safe(function, x, weight, bias, **given)
        _backwards(result, generator)


@dataclass(frozen=True, kw_only=True)
class Product:
    """A product of matrices, or a batch of them."""

    operation: str
    batch: int
    rows: int
    inner: int
    columns: int
    left_transposed: bool
    right_transposed: bool
    type: str

    @property
    def family(self) -> str:
        """By operation and type."""
        return f"{self.operation}, {self.type}"

    def fits(self) -> bool:
        """Whether it is not too large."""
        return self.batch * self.rows * self.inner * self.columns <= LARGEST

    def run(self, as_is: bool) -> None:
        """Compute the product and the gradients of its factors.

        Args:
            as_is: either way it is the same.
        """
        generator = torch.Generator().manual_seed(1)
        many = (self.batch,) if self.operation in ("bmm", "baddbmm") else ()

        def factor(rows: int, columns: int, is_transposed: bool) -> Tensor:
            if is_transposed:
                return _drawn((*many, columns, rows), self.type, generator).mT.requires_grad_()
            return _drawn((*many, rows, columns), self.type, generator).requires_grad_()

        factors = [
            factor(self.rows, self.inner, self.left_transposed),
            factor(self.inner, self.columns, self.right_transposed),
        ]
        if self.operation in ("addmm", "baddbmm"):
            factors.insert(0, factor(1, self.columns, False))
        _backwards(_PRODUCTS[self.operation](*factors), generator)


def cases(number: int, only: str = "", seed: int = 0) -> list[Case]:
    """What is tried, the same for the same arguments.

    Args:
        number: how many of a kernel, stride, layout and type in two dimensions. Of others it is a
            fifth, as it is of strided ones of a pixel for each number of channels, besides (four
            times that for few channels); of products of an operation and type four times as many.
        only: of families in whose names this regular expression is found.
        seed: of the generator.
    """
    few = math.ceil(number / 5)
    tried: list[Case] = []
    for layout, type, kernel, stride in itertools.product(LAYOUTS, TYPES, KERNELS, STRIDES):
        draw = random.Random(f"{seed} {layout} {type} {kernel} {stride}")
        for sides, transposed in itertools.product((1, 2, 3), (False, True)):
            is_usual = sides == 2 and not transposed
            for _ in range(number if is_usual else few):
                tried.append(
                    _convolution(
                        draw,
                        sides=sides,
                        kernel=kernel,
                        stride=stride,
                        layout=layout,
                        type=type,
                        transposed=transposed,
                    )
                )
        if kernel == 1 and stride > 1:
            for channels in range(1, CHANNELS + 1):
                for _ in range(few if channels > VECTOR else 4 * few):
                    tried.append(
                        _convolution(
                            draw,
                            sides=2,
                            kernel=kernel,
                            stride=stride,
                            layout=layout,
                            type=type,
                            inputs=channels,
                            groups=1,
                        )
                    )
    for operation, type in itertools.product(_PRODUCTS, TYPES):
        draw = random.Random(f"{seed} {operation} {type}")
        tried += [_product(draw, operation, type) for _ in range(4 * number)]
    tried = [case for case in tried if re.search(only, case.family)]
    random.Random(seed).shuffle(tried)  # there may not be time for the last
    return sorted(tried, key=lambda case: case.family)


def _convolution(draw: random.Random, **given: Any) -> Convolution:
    while True:
        inputs, outputs, groups = _channels(draw)
        drawn: dict[str, Any] = {
            "inputs": inputs,
            "outputs": outputs,
            "groups": groups,
            "padding": draw.choice((0, given["kernel"] // 2)),
            "batch": draw.choice(BATCHES),
            "side": draw.choice(SIDES),
            "bias": draw.random() < 0.5,
        }
        case = Convolution(**drawn | given)
        if case.fits():
            return case


def _channels(draw: random.Random) -> tuple[int, int, int]:
    """Channels in and out, and into how many groups they are divided; often there are few."""
    most = draw.choice((8, 16, CHANNELS))
    inputs, outputs = draw.randint(1, most), draw.randint(1, most)
    kind = draw.choice(("whole", "whole", "grouped", "depthwise"))
    if kind == "depthwise":
        return inputs, inputs * draw.randint(1, CHANNELS // most), inputs
    if kind == "grouped":
        groups = draw.randint(2, most // 2)
        return (
            groups * draw.randint(1, most // groups),
            groups * draw.randint(1, most // groups),
            groups,
        )
    return inputs, outputs, 1


def _product(draw: random.Random, operation: str, type: str) -> Product:
    while True:
        case = Product(
            operation=operation,
            batch=draw.choice(BATCHES) if "bmm" in operation else 1,
            rows=draw.choice(LENGTHS),
            inner=draw.choice(LENGTHS),
            columns=draw.choice(LENGTHS),
            left_transposed=draw.random() < 0.5,
            right_transposed=draw.random() < 0.5,
            type=type,
        )
        if case.fits():
            return case


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A tensor of a case that was compared with float64, or a case that did not end."""

    case: str
    what: str
    """``weight gradient``, or how its process ended."""
    times: float | None = None
    """Error over what is allowed; None where it did not end."""
    relative: float = math.nan
    """Norm of the error over the norm of the exact tensor."""

    @property
    def size(self) -> float:
        """By which findings are ordered."""
        return math.inf if self.times is None else self.times


@dataclass(kw_only=True)
class Tally:
    """What was found in a family of cases."""

    family: str
    cases: int = 0
    """How many were computed."""
    worst: float = 0.0
    """The largest error over what is allowed."""
    at: str = ""
    """Where that was."""
    wrong: int = 0
    """How many cases have a tensor that is off by more than is allowed."""
    crashes: int = 0
    hangs: int = 0
    refused: int = 0
    """How many PyTorch or oneDNN say that they cannot compute, which harms nobody."""
    refusal: str = ""
    """The first of their messages."""
    left_out: int = 0
    """How many there was no time for, or too many crashes before."""
    findings: list[Finding] = field(default_factory=list)
    """The largest of what is wrong."""

    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.wrong or self.crashes or self.hangs)

    def note(self, case: Case, outcome: list[Finding] | str) -> None:
        """Count a case: what was compared, or the message of an error."""
        if isinstance(outcome, str):
            self.refused += 1
            self.refusal = self.refusal or f"{outcome} ({case})"
            return
        self.cases += 1
        worst = max(outcome, key=lambda one: one.size)
        if worst.size > self.worst:
            self.worst, self.at = worst.size, f"{worst.what} of {worst.case}"
        if worst.size > 1:
            self.wrong += 1
            self.findings.append(worst)
            self.findings.sort(key=lambda one: -one.size)
            del self.findings[SHOWN:]

    def note_fall(self, case: Case, code: int | None, said: str) -> None:
        """Count a case in which the process died with a code, or hung where there is none."""
        if code is None:
            self.hangs += 1
            how = "it hangs"
        else:
            self.crashes += 1
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            how = f"it dies: {how}{said and f', {said}'}"
        self.findings.insert(0, Finding(case=str(case), what=how))


_GRADIENTS = ("input gradient", "weight gradient", "bias gradient")


class _Compared(TorchDispatchMode):
    """A context in which every convolution and product that is computed is compared."""

    def __init__(self, case: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._case = case
        self.found: list[Finding] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if is_compared(func):
            for one in deviations(func, args, kwargs, result):
                what = "output"
                if func is torch.ops.aten.convolution_backward.default:
                    what = _GRADIENTS[one.output]
                elif torch._C._current_graph_task_id() != -1:  # the backward pass
                    what = "gradient"
                self.found.append(
                    Finding(
                        case=self._case,
                        what=what,
                        times=one.times,
                        relative=one.relative,
                    )
                )
        return result


def _outcome(case: Case, as_is: bool) -> list[Finding] | str:
    """Every comparison of a case, or the message of the error by which it is refused."""
    try:
        with _Compared(str(case)) as compared:
            case.run(as_is)
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return compared.found


@dataclass(frozen=True, kw_only=True)
class How:
    """In which way cases are tried."""

    threads: int = 1
    as_is: bool = False
    seconds: float = 60.0
    """For all of them; what is left then is left out."""
    patience: float = 15.0
    """Seconds after which a case that has not ended hangs."""


def scan(tried: Iterable[Case], how: How) -> list[Tally]:
    """Try cases in processes that are forked off this one, for each family anew.

    This process is to have computed nothing in parallel before.
    """
    families: dict[str, list[Case]] = {}
    for case in tried:
        families.setdefault(case.family, []).append(case)
    with _Compared(""):  # the first such mode imports for a second
        torch.ones(())
    tallies = {family: Tally(family=family, left_out=len(own)) for family, own in families.items()}
    end = time.monotonic() + how.seconds
    for _ in range(2):  # the time that some do not need is for the others
        left = sum(tally.left_out for tally in tallies.values())
        for tally in tallies.values():
            now, own = time.monotonic(), tally.left_out
            share = (end - now) * own / max(left, 1)
            left -= own
            _go_through(tally, families[tally.family], how, now + share)
    return list(tallies.values())


def _go_through(tally: Tally, own: Sequence[Case], how: How, deadline: float) -> None:
    """Try the cases of a family that are left, one at least if none is tried."""
    done = len(own) - tally.left_out
    while (
        done < len(own)
        and tally.crashes < FALLS
        and not tally.hangs
        and (done == 0 or time.monotonic() < deadline)
    ):
        done = _go_on(tally, own, done, how, deadline)
    tally.left_out = len(own) - done


def _go_on(tally: Tally, own: Sequence[Case], done: int, how: How, deadline: float) -> int:
    """Try cases in one process, from a given one to the last or until it falls.

    Returns:
        How many are done then.
    """
    ours, theirs = _FORK.Pipe(duplex=False)
    with tempfile.TemporaryFile() as log, ours:
        arguments = (theirs, log.fileno(), own[done:], how, deadline)
        process = _FORK.Process(target=_work, args=arguments)
        process.start()
        theirs.close()
        while ours.poll(how.patience):
            try:
                outcome = ours.recv()
            except (EOFError, OSError):
                process.join(how.patience)
                break
            tally.note(own[done], outcome)
            done += 1
        code = process.exitcode
        process.kill()
        process.join()
        if code == 0:
            return done
        log.seek(0)
        said = log.read().decode(errors="replace").strip().rpartition("\n")[2]
    tally.note_fall(own[min(done, len(own) - 1)], code, said)
    return min(done + 1, len(own))


def _work(
    pipe: Connection, log: int, own: Sequence[Case], how: How, deadline: float
) -> None:  # in a process of its own
    os.dup2(log, 2)
    torch.set_num_threads(how.threads)
    for number, case in enumerate(own):
        if number and time.monotonic() > deadline:
            break
        pipe.send(_outcome(case, how.as_is))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a process is limited to."""

    isa: str = AS_IT_IS
    threads: int = 1
    checked: bool = False
    """Whether glibc looks at its memory."""

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.isa}, {threads}{', malloc checked' if self.checked else ''}"

    def environment(self) -> dict[str, str]:
        """Variables of the process."""
        own = {
            "OMP_NUM_THREADS": "1",  # or libraries start threads on import
            "OMP_WAIT_POLICY": "passive",  # or threads of a busy machine wait long for each other
        }
        if self.isa != AS_IT_IS:
            own[_machine.LIMITS[0]] = self.isa
        return os.environ | own | (CHECKS if self.checked else MEMORY)


def levels() -> list[str]:
    """The instruction sets to which oneDNN can be limited here, and at last no limit."""
    flags: set[str] = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                flags.update(line.partition(":")[2].split())
    own = [name for name, needs in _machine._LEVELS if flags.issuperset(needs.split())]
    return [*own[:-1], AS_IT_IS]


def has_checks() -> bool:
    """Whether glibc's checks are there and find a write of one byte too many."""
    probe = (
        "import ctypes; c = ctypes.pythonapi; c.PyMem_RawMalloc.restype = ctypes.c_void_p;"
        "p = ctypes.c_void_p(c.PyMem_RawMalloc(20)); ctypes.memset(p, 1, 21); c.PyMem_RawFree(p)"
    )
    command = [sys.executable, "-c", probe]
    ended = subprocess.run(command, env=os.environ | CHECKS, capture_output=True, check=False)
    return ended.returncode == -signal.SIGABRT


def examine(setting: Setting, number: int, how: How, only: str = "") -> list[Tally]:
    """Try the cases of ``cases(number, only)`` in a process that is limited to a setting."""
    program = "import sys; from benchmarks import numerics; numerics.answer(*sys.argv[1:])"
    command = [sys.executable, "-c", program, str(number), json.dumps(asdict(how)), only]
    try:
        ended = subprocess.run(
            command,
            env=setting.environment(),
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=how.seconds + how.patience + 120,
        )
    except subprocess.TimeoutExpired:
        return [_fallen("it hangs")]
    if ended.returncode:
        said = ended.stderr.strip().rpartition("\n")[2]
        return [_fallen(f"it ends with {ended.returncode}: {said}")]
    return [_read(one) for one in json.loads(ended.stdout)]


def _fallen(what: str) -> Tally:
    """The tally where not even the process came through that tries no case itself."""
    return Tally(family="all", crashes=1, findings=[Finding(case="the scan", what=what)])


def _read(told: dict[str, Any]) -> Tally:
    findings = [Finding(**one) for one in told.pop("findings")]
    return Tally(**told, findings=findings)


def answer(number: str, how: str, only: str) -> None:
    """Scan in this process, and print the tallies for ``examine``."""
    tallies = scan(cases(int(number), only), How(**json.loads(how)))
    print(json.dumps([asdict(one) for one in tallies]))


def _settings(given: argparse.Namespace) -> Iterator[Setting]:
    for isa, threads in itertools.product(given.isa or levels(), given.threads):
        yield Setting(isa=isa, threads=threads)
    if not given.malloc_checks:
        return
    if not has_checks():
        print(f"No malloc checks: {CHECKS['LD_PRELOAD']} is not here, or finds nothing.")
        return
    for isa in given.isa or levels():
        yield Setting(isa=isa, threads=given.threads[0], checked=True)


_COUNTS = ("cases", "worst", "wrong", "crashes", "hangs", "refused", "left out")


def _counts(tallies: Sequence[Tally]) -> list[str]:
    """Columns of a row that is the sum of some."""
    names = ("wrong", "crashes", "hangs", "refused", "left_out")
    sums = [sum(getattr(one, name) for one in tallies) for name in names]
    worst = max(one.worst for one in tallies)
    return [str(sum(one.cases for one in tallies)), f"{worst:.3g}", *(str(n or "") for n in sums)]


def _table(title: str, first: str, rows: Iterable[tuple[str, Sequence[Tally]]]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in _COUNTS:
        table.add_column(name, justify="right")
    for name, tallies in rows:
        style = None if all(one.is_sound() for one in tallies) else "bold red"
        table.add_row(name, *_counts(tallies), style=style)
    Console(width=None if Console().is_terminal else 130).print(table)


def _tell(found: dict[Setting, list[Tally]]) -> None:
    """The sums of all settings, and what is wrong."""
    _table("All families", "setting", ((str(one), tallies) for one, tallies in found.items()))
    for setting, tallies in found.items():
        for one in (finding for tally in tallies for finding in tally.findings):
            error = ""
            if one.times is not None:
                error = f", {one.times:.3g} times what is allowed, {one.relative:.2g} of the norm"
            print(f"{setting}: {one.what}{error}: {one.case}")


def _written(found: dict[Setting, list[Tally]], given: argparse.Namespace) -> str:
    told = {
        **machine(),
        "processor": _machine.processor(),
        "as_is": given.as_is,
        "cases": given.cases,
        "settings": [
            {**asdict(setting), "families": [asdict(one) for one in tallies]}
            for setting, tallies in found.items()
        ],
    }
    return json.dumps(_plain(told), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """The same with ``"inf"`` and ``"nan"`` for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def main() -> None:
    """Scan, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.numerics", description=__doc__)
    add = parser.add_argument
    add("--as-is", action="store_true", help="by PyTorch's own functions")
    names = [*(name for name, _ in _machine._LEVELS), AS_IT_IS]
    add("--isa", nargs="+", choices=names, metavar="ISA", help=f"of {', '.join(names)}")
    add("--threads", type=int, nargs="+", default=[1, 2])
    add("--cases", type=int, default=10, help="for each kernel, stride, layout and type")
    add("--only", default="", help="families in whose names this regular expression is found")
    add("--seconds", type=float, default=600.0, help="for all; what is left then is left out")
    add("--patience", type=float, default=15.0, help="seconds after which a case hangs")
    add("--malloc-checks", action=argparse.BooleanOptionalAction, default=True)
    add("--output", type=Path, help="JSON to write")
    given = parser.parse_args()
    if not cases(given.cases, given.only):
        parser.error(f"no family has {given.only!r} in its name")
    end = time.monotonic() + given.seconds
    settings = list(_settings(given))
    found: dict[Setting, list[Tally]] = {}
    for number, setting in enumerate(settings):
        how = How(
            threads=setting.threads,
            as_is=given.as_is,
            seconds=(end - time.monotonic()) / (len(settings) - number),
            patience=given.patience,
        )
        found[setting] = examine(setting, given.cases, how, given.only)
        _table(str(setting), "family", ((one.family, [one]) for one in found[setting]))
    _tell(found)
    if given.output:
        given.output.write_text(_written(found, given), encoding="utf-8")
        print(f"wrote {given.output}")
    if not all(one.is_sound() for tallies in found.values() for one in tallies):
        raise SystemExit(3)


if __name__ == "__main__":
    main()
