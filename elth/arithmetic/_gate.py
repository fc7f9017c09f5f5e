"""Before a network is trained here for the first time: is a step of it computed rightly?

A step on a few images is watched, and refused where a layer's result is off by more than rounding
explains. On a processor this is done in a process of its own, as a broken kernel may end it; that
process also times a step, for who plans (``elth.step_times``). What was found well is remembered on
this machine.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import inspect
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from elth.arithmetic import _machine
from elth.arithmetic._compare import TF32_UNIT, UNIT
from elth.arithmetic._watch import Watch, Worst
from elth.errors import ElthError, unknown
from elth.files import cache_folder, write_atomic
from elth.forward import Forward, channels_last
from elth.networks import NAMES
from elth.precision import computing
from elth.recipes import Recipe
from elth.step_times import Step
from elth.streams import stream

VARIABLE = "ELTH_ARITHMETIC"
"""What to do about arithmetic that is found wrong: ``refuse`` it, ``warn``, or look not at all."""
CHOICES = ("refuse", "warn", "off")
_SECONDS = 600.0
"""A step that takes longer than this hangs: a broken kernel may do that, too."""
_PATIENCE = 60.0
"""Seconds for which a process waits for another one that looks."""
_TIMES, _TIMING_SECONDS = 4, 1.0
"""How often a step is timed, and for how long at most."""
_PERTURB = -6
"""M_PERTURB of glibc's malloc.h."""
_CRASHES = {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"}
_LARGE = 100
"""Sides of images from which on there are two of them in a step, and sixteen below."""

_FILLED = "glibc.malloc.perturb=128"
"""Lets glibc fill memory before it gives it: what a kernel reads unwritten is a large number, where
fresh memory is often zero, which may be right by chance."""

_CHILD = "import sys; sys.path[:] = {path!r}; from elth.arithmetic import _gate; _gate.serve()"


class WrongArithmeticError(ElthError):
    """This machine computes a network wrongly; nothing was trained."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of watching a step."""

    worst: Worst | None
    """The largest error; None where there was nothing to compare, or the process died."""
    compared: int = 0
    """How many results were compared."""
    died: str = ""
    """How the process that computed it ended, if it did not come to its end."""
    pace: tuple[float, float] | None = None
    """Seconds of an iteration: those whatever the batch, and those for each image; None where it
    was not timed."""

    @property
    def is_sound(self) -> bool:
        """Whether rounding explains what was found."""
        return not self.died and (self.worst is None or self.worst.times <= 1.0)


def ensure(
    network: nn.Module, recipe: Recipe, device: torch.device, shape: tuple[int, int, int]
) -> None:
    """Refuse a network that this machine computes wrongly; look only once on a kind of machine.

    On a GPU a finding is a warning.

    Args:
        network: the network as it is given to an engine; it is left as it is.
        recipe: precision, batch size and groups of batch normalisation are taken.
        device: where it is to be trained.
        shape: channels, height and width of an image.

    Raises:
        WrongArithmeticError: with the layer, the size of the error and the processor.
    """
    if choice() == "off":
        return
    found = look(network, recipe, device, shape)
    if not found.is_sound:
        act(
            told(found, recipe, device),
            device,
            "another version of PyTorch may be right, and so may older instructions "
            "(ONEDNN_MAX_CPU_ISA=SSE41)",
        )


def choice() -> str:
    """What is to be done about wrong arithmetic, by the environment.

    Raises:
        ElthError: the variable has another value.
    """
    chosen = os.environ.get(VARIABLE) or CHOICES[0]
    if chosen not in CHOICES:
        raise unknown(f"value of {VARIABLE}", chosen, CHOICES)
    return chosen


def act(text: str, device: torch.device, remedy: str) -> None:
    """Refuse or warn, as was chosen; on a GPU, where no finding has proved itself yet, warn.

    Raises:
        WrongArithmeticError: what the text says.
    """
    if choice() == "refuse" and device.type == "cpu":
        raise WrongArithmeticError(
            f"{text}. Nothing was trained: {remedy}; {VARIABLE}=warn trains all the same"
        )
    if choice() != "off":
        warnings.warn(text, stacklevel=5)


def look(
    network: nn.Module, recipe: Recipe, device: torch.device, shape: tuple[int, int, int]
) -> Found:
    """Watch a step of a network, unless one like it was found well on this machine before.

    Args and shapes as of ``ensure``.
    """
    key = _key(network, recipe, device, shape)
    if (known := _known(key)) is not None:
        _note(known, network, recipe, shape)
        return known
    with _only_one(key):
        if (known := _known(key)) is not None:  # of the process that was first
            return known
        try:
            if device.type == "cpu":
                found = _in_another_process(network, recipe, shape)
            else:
                found = watch(network, recipe, device, shape)
        except _UncopiedError as error:
            warnings.warn(f"this machine's arithmetic was not looked at: {error}", stacklevel=5)
            return Found(worst=None)
        _REMEMBERED[key] = found
        if found.is_sound:
            with contextlib.suppress(
                ElthError, OSError, RuntimeError
            ):  # it is looked at again then
                content = json.dumps(asdict(found), sort_keys=True).encode()
                write_atomic(_place(key), content)
            _note(found, network, recipe, shape)
        return found


def _note(found: Found, network: nn.Module, recipe: Recipe, shape: tuple[int, int, int]) -> None:
    """Keep how long a step takes, for who plans, if that is not known yet."""
    name = NAMES.get(network)
    if name is None or found.pace is None:
        return
    step = Step(network=name, image=shape, recipe=recipe, threads=torch.get_num_threads())
    if step.known() is None:
        step.keep(found.pace[0] + found.pace[1] * recipe.batch_size)


_REMEMBERED: dict[str, Found] = {}
"""What was found in this process, by key; what was found wrong is kept nowhere else."""


class _UncopiedError(ElthError):
    """A network of which no copy could be made, or not on a GPU with what is free there."""


def watch(
    network: nn.Module, recipe: Recipe, device: torch.device, shape: tuple[int, int, int]
) -> Found:
    """Do a training step of a copy of the network and compare what its layers compute.

    Sixteen images of noise are shown, or two where they are large, and weights are drawn: what is
    found does not depend on what the network was left with.
    """
    try:
        copied = copy.deepcopy(network)
    except Exception as error:  # PyTorch copies no tensor that another one was computed to be
        raise _UncopiedError(f"the network cannot be copied ({error})") from error
    try:
        return _watched(copied, recipe, device, shape)
    except RuntimeError as error:
        if device.type == "cpu":
            raise
        raise _UncopiedError(f"a step of it failed on {device} ({error})") from error


def _watched(
    network: nn.Module, recipe: Recipe, device: torch.device, shape: tuple[int, int, int]
) -> Found:
    forward = Forward(network, recipe, device)
    forward.network.train()
    generator = stream(0, "arithmetic")
    _draw(forward.network, generator)
    count = _images(recipe, shape)
    images = channels_last(torch.randn((count, *shape), generator=generator).to(device))
    like = next(forward.network.parameters(), images)
    unit = unit_of(recipe) if recipe.precision == "tf32" else None
    watched = Watch(forward.network, unit=unit)
    others = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=others):  # a network may draw, as one with dropout
        torch.default_generator.manual_seed(0)
        with computing(recipe.precision, device), torch.enable_grad(), watched:
            logits = forward.logits(images.to(like.dtype))
            labels = torch.randint(0, logits.shape[1], (count,), generator=generator)
            torch.autograd.backward(F.cross_entropy(logits, labels.to(device)))
    return Found(worst=watched.worst, compared=watched.compared)


def _images(recipe: Recipe, shape: tuple[int, int, int]) -> int:
    """How many images are shown: in whole groups of batch normalisation, if there are groups."""
    most = 2 if shape[1] >= _LARGE else 16
    group = recipe.batch_norm_group
    return group * max(1, most // group) if group else min(recipe.batch_size, most)


@torch.no_grad()
def _draw(network: nn.Module, generator: torch.Generator) -> None:
    """Weights of a fan-in's size, and all else that is no finite number."""
    for parameter in network.parameters():
        if parameter.dim() > 1:
            scale = math.sqrt(2.0 / parameter[0].numel())
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
        elif not bool(torch.isfinite(parameter).all()):
            parameter.copy_(torch.rand(parameter.shape, generator=generator))


def unit_of(recipe: Recipe) -> float:
    """Unit roundoff of the products of a recipe's precision."""
    units = {"tf32": TF32_UNIT, "bf16": UNIT[torch.bfloat16]}
    return units.get(recipe.precision, UNIT[torch.float32])


def told(found: Found, recipe: Recipe, device: torch.device) -> str:
    """What was found wrong, in a sentence without its end."""
    if found.died:
        return (
            f"a training step of this network {found.died} on this machine "
            f"({where(recipe, device)})"
        )
    assert found.worst is not None
    worst = found.worst
    return (
        f"this machine computes the network wrongly: the {worst.what} of '{worst.layer}' is off by "
        f"{100 * worst.relative:,.3g} % of its size, {worst.times:,.3g} times what rounding allows "
        f"({where(recipe, device)})"
    )


def where(recipe: Recipe, device: torch.device) -> str:
    """What computes, for a message."""
    threads = torch.get_num_threads()
    machine = f"{_machine.processor()}, {threads} thread{'s' if threads > 1 else ''}"
    if device.type != "cpu":
        machine = torch.cuda.get_device_name(device)
    return f"{machine}, PyTorch {torch.__version__}, {recipe.precision}"


# In a process of its own


def _in_another_process(network: nn.Module, recipe: Recipe, shape: tuple[int, int, int]) -> Found:
    cpu = torch.device("cpu")
    try:
        task = pickle.dumps((network, recipe, shape, torch.get_num_threads()))
    except Exception:  # a network that only this process knows, as one of a notebook
        return watch(network, recipe, cpu, shape)
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for this process
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD.format(path=sys.path)],
            env=os.environ | {"GLIBC_TUNABLES": ":".join(filter(None, (tunables, _FILLED)))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        out, _ = child.communicate(task, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        known = _told(error.output or b"")
        return known or Found(worst=None, died=f"does not end within {_SECONDS:.0f} s")
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
            if child.stdin is not None:  # open where it had not read all of its task
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.close()
    known = _told(out)
    if child.returncode < 0 and known is None:
        name = signal.Signals(-child.returncode).name
        if name in _CRASHES:
            return Found(worst=None, died=f"ends its process by {name}")
        raise ElthError(
            f"the process that was to check this machine's arithmetic was ended by {name}: is "
            "there too little memory?"
        )
    # Without one it could not be imported there, or cannot be trained: the error is shown by doing
    # it here.
    return known or watch(network, recipe, cpu, shape)


def _told(out: bytes) -> Found | None:
    """The last that the other process told whole: it may have died of timing a step, after that."""
    for line in reversed(out.decode(errors="replace").splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return _found(json.loads(line))
    return None


def serve() -> None:
    """Watch the step that standard input describes; print what was found as JSON."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # Linux: end with whoever asks
    network, recipe, shape, threads = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(threads)
    found = watch(network, recipe, torch.device("cpu"), shape)
    print(json.dumps(asdict(found)), flush=True)
    with contextlib.suppress(Exception):  # it is of no consequence
        print(json.dumps(asdict(replace(found, pace=_pace(network, recipe, shape)))))


def _pace(network: nn.Module, recipe: Recipe, shape: tuple[int, int, int]) -> tuple[float, float]:
    """How long an iteration takes here, from two batches of few images: ``Found.pace``."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).mallopt(_PERTURB, 0)  # else memory is filled, which takes time
    forward = Forward(network, recipe, torch.device("cpu"))
    forward.network.train()
    parameters = [p for p in forward.network.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(parameters, lr=0.0, momentum=0.9)

    def seconds(count: int) -> float:
        images = channels_last(torch.randn((count, *shape)))
        labels = torch.zeros(count, dtype=torch.int64)
        times: list[float] = []
        while len(times) < _TIMES and sum(times) < _TIMING_SECONDS:
            began = time.perf_counter()
            optimiser.zero_grad()
            forward.loss(images, labels).backward()
            optimiser.step()
            times.append(time.perf_counter() - began)
        return min(times)  # the first one is slower, and others may be at work

    few = _images(recipe, shape)
    many = 4 * few
    seconds(few)
    less, more = seconds(few), seconds(many)
    each = max((more - less) / (many - few), 0.0)
    return max(less - few * each, 0.0), each


def _found(plain: Any) -> Found:
    """Read what was written as JSON; what an earlier version wrote lacks times: KeyError."""
    pace = plain["pace"]
    return Found(
        worst=plain["worst"] and Worst(**plain["worst"]),
        compared=plain["compared"],
        pace=pace and (float(pace[0]), float(pace[1])),
    )


# What is remembered


def _key(
    network: nn.Module, recipe: Recipe, device: torch.device, shape: tuple[int, int, int]
) -> str:
    """A digest of all that the outcome may depend on."""
    sha = hashlib.sha256()
    for part in (
        _machine.NUMBER,
        torch.__version__,
        _machine.processor() if device.type == "cpu" else torch.cuda.get_device_name(device),
        torch.get_num_threads() if device.type == "cpu" else 0,
        (recipe.precision, recipe.batch_norm_group, _images(recipe, shape), shape),
        repr(network).replace("SafeConv", "Conv"),  # as an engine may have had it before
        [(name, tuple(p.shape), str(p.dtype)) for name, p in network.named_parameters()],
        [_source(kind) for kind in dict.fromkeys(type(m) for m in network.modules())],
    ):
        sha.update(f"{part}\n".encode())
    return sha.hexdigest()


def _source(kind: type[nn.Module]) -> str:
    """A class's name, its file's digest and what its forward pass does; PyTorch has a version."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name.startswith("torch."):
        return name
    try:
        content = Path(inspect.getsourcefile(kind) or "").read_bytes()
    except (OSError, TypeError):
        content = b""
    code = getattr(kind.forward, "__code__", None)
    done = _done(code) if code is not None else ()
    return f"{name}:{hashlib.sha256(content).hexdigest()}:{done}"


def _done(code: CodeType) -> tuple[Any, ...]:
    """What code does, without where it lies in memory."""
    consts = (_done(one) if isinstance(one, CodeType) else one for one in code.co_consts)
    return (code.co_code, *consts, code.co_names)


def _place(key: str) -> Path:
    return cache_folder("arithmetic") / f"{key}.json"


def _known(key: str) -> Found | None:
    """What was found before, by this process or another."""
    if key in _REMEMBERED:
        return _REMEMBERED[key]
    with contextlib.suppress(OSError, RuntimeError, ValueError, TypeError, KeyError):
        found = _found(json.loads(_place(key).read_text(encoding="utf-8")))
        return _REMEMBERED.setdefault(key, found)
    return None


@contextlib.contextmanager
def _only_one(key: str) -> Iterator[None]:
    """Let one process look at a time; where that cannot be had, or takes too long, go ahead."""
    lock: Any = None
    with contextlib.suppress(OSError, RuntimeError):  # no room, no right, or no home
        folder = cache_folder("arithmetic")
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / f"{key[:2]}.lock").open("ab")
    try:
        end = time.monotonic() + _PATIENCE
        while lock is not None and time.monotonic() < end:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
            except OSError:  # a file system that has no locks
                break
        yield
    finally:
        if lock is not None:
            lock.close()
