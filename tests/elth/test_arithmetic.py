"""What a machine computes wrongly is found, told and refused; what is right is not."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elth import arithmetic, step_times
from elth.arithmetic import WrongArithmeticError, _compare, _gate, _machine
from elth.arithmetic._compare import aten, deviations
from elth.engine import Engine
from elth.errors import ElthError
from elth.networks import NETWORKS, DataShape, build
from elth.recipes import Recipe, Step
from elth.streams import stream
from elth.training import Training
from tests.elth.helpers import dataset

CPU = torch.device("cpu")
SHAPE = DataShape(channels=3, size=8, classes=3)
NARROW = "resnet14(width=4)"

BROKEN = """\
import os, signal, torch

library = torch.library.Library("aten", "IMPL")
own = torch.ops.aten.convolution_backward.default
key = torch._C.DispatchKey.CompositeExplicitAutograd


def broken(gradient, x, weight, *rest):
    results = list(own._op_dk(key, gradient, x, weight, *rest))
    if gradient.dtype == torch.float32 and tuple(weight.shape) == {shape}:
        {fault}
    return tuple(results)


library.impl("convolution_backward", broken, "CPU")
"""
"""A kernel of this process, and of those that it starts, that is wrong for one shape of weights."""


def _recipe(precision: str = "float32", **fields: Any) -> Recipe:
    return Recipe(length=Step(1, "ep"), rewind=Step(0, "ep"), precision=precision, **fields)


def _network(name: str = NARROW, shape: DataShape = SHAPE) -> nn.Module:
    return build(name, shape, generator=stream(0, "init"))


@pytest.fixture(autouse=True)
def looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are looked at, and nothing is known of this machine yet."""
    monkeypatch.setenv("ELTH_ARITHMETIC", "refuse")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_gate, "_REMEMBERED", {})


Break = Callable[[str], None]


@pytest.fixture
def breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Break:
    """Gives other processes a wrong kernel for the weight of layer2.0.downsample.0."""

    def breaks(fault: str) -> None:
        code = BROKEN.format(shape=(8, 4, 1, 1), fault=fault)
        (tmp_path / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return breaks


def test_a_gradient_that_is_off_by_a_percent_is_refused_by_all_who_train(breaks: Break) -> None:
    breaks("results[1] = results[1] * 1.01")
    message = (
        r"^this machine computes the network wrongly: the weight gradient of "
        r"'layer2\.0\.downsample\.0' is off by 1 % of its size, [\d.,e+]+ times what rounding "
        rf"allows \({arithmetic.processor()}, 1 thread, PyTorch .*, float32\)\. Nothing was "
        r"trained: .*ELTH_ARITHMETIC=warn trains all the same$"
    )
    data = dataset(64, shape=SHAPE)
    for _ in range(2):  # what is wrong is remembered, too
        network = _network()
        with pytest.raises(WrongArithmeticError, match=message):
            Training(network, data, _recipe(), seed=0, state=network.state_dict())
    with pytest.raises(WrongArithmeticError, match=message):
        Engine(_network(), _recipe(), shape=SHAPE.image)


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ends its process by SIGSEGV"),
        ("os.abort()", "ends its process by SIGABRT"),
        ("results[1] = results[1] * float('nan')", "is off by nan % of its size, inf times"),
        # What nobody has written is a large number there, where it mostly is zero.
        ("results[1] += (torch.empty_like(results[1]) > 1e30).float()", "times what rounding"),
    ],
)
def test_a_kernel_that_crashes_is_refused(fault: str, told: str, breaks: Break) -> None:
    breaks(fault)
    with pytest.raises(WrongArithmeticError, match=f"{told}.*Nothing was trained"):
        arithmetic.ensure(_network(), _recipe(), CPU, SHAPE.image)


@pytest.mark.anywhere
def test_one_that_hangs_is_refused(breaks: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks("import time; time.sleep(60)")
    monkeypatch.setattr(_gate, "_SECONDS", 8.0)
    with pytest.raises(WrongArithmeticError, match="does not end within 8 s"):
        arithmetic.ensure(_network(), _recipe(), CPU, SHAPE.image)


@pytest.mark.anywhere
def test_one_that_is_killed_is_no_finding(breaks: Break) -> None:
    breaks("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ElthError, match="ended by SIGKILL: is there too little memory") as error:
        arithmetic.ensure(_network(), _recipe(), CPU, SHAPE.image)
    assert not isinstance(error.value, WrongArithmeticError)


@pytest.mark.anywhere
def test_it_may_be_a_warning_or_nothing(breaks: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks("results[1] = results[1] * 1.01")
    monkeypatch.setenv("ELTH_ARITHMETIC", "warn")
    with pytest.warns(UserWarning, match="the weight gradient of 'layer2.0.downsample.0' is off"):
        Engine(_network(), _recipe(), shape=SHAPE.image)
    monkeypatch.setenv("ELTH_ARITHMETIC", "off")
    Engine(_network(), _recipe(), shape=SHAPE.image)
    monkeypatch.setenv("ELTH_ARITHMETIC", "warm")
    with pytest.raises(ElthError, match="unknown value of ELTH_ARITHMETIC 'warm'; did you mean"):
        Engine(_network(), _recipe(), shape=SHAPE.image)


@pytest.mark.anywhere
def test_a_network_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = arithmetic.look(_network(), _recipe(), CPU, SHAPE.image)
    assert first.is_sound
    assert first.worst is not None
    assert first.compared > 3 * 15
    monkeypatch.setattr(_gate, "_in_another_process", None)  # would raise
    assert arithmetic.look(_network(), _recipe(lr=0.5), CPU, SHAPE.image) is first
    monkeypatch.setattr(_gate, "_REMEMBERED", {})
    assert arithmetic.look(_network(), _recipe(), CPU, SHAPE.image) == first  # from the disk
    for network, recipe, shape in (
        (_network("resnet14(width=5)"), _recipe(), SHAPE.image),
        (_network(), _recipe("bf16"), SHAPE.image),
        (_network(), _recipe(batch_size=8, batch_norm_group=4), SHAPE.image),
        (_network(), _recipe(), (3, 16, 16)),
    ):
        with pytest.raises(TypeError, match="not callable"):
            arithmetic.look(network, recipe, CPU, shape)
    here = _machine.processor()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    if _machine.processor() != here:  # such a limit may hold already
        with pytest.raises(TypeError, match="not callable"):
            arithmetic.look(_network(), _recipe(), CPU, SHAPE.image)


@pytest.mark.anywhere
@pytest.mark.parametrize("content", ["", "{}", '{"worst": 3, "compared": 1}', "\0"])
def test_a_damaged_memory_is_looked_past(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        _gate,
        "_in_another_process",
        lambda net, recipe, shape: _gate.watch(net, recipe, CPU, shape),
    )
    first = arithmetic.look(_network(), _recipe(), CPU, SHAPE.image)
    (file,) = (Path(os.environ["XDG_CACHE_HOME"]) / "elth" / "arithmetic").glob("*.json")
    file.write_text(content)
    monkeypatch.setattr(_gate, "_REMEMBERED", {})
    assert arithmetic.look(_network(), _recipe(), CPU, SHAPE.image) == first
    assert json.loads(file.read_text())["compared"] == first.compared


@pytest.mark.anywhere
def test_without_a_place_to_remember_it_is_looked_at_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert arithmetic.look(_network(), _recipe(), CPU, SHAPE.image).is_sound


@pytest.mark.anywhere
def test_a_network_that_another_process_cannot_import_is_looked_at_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is written in a notebook."""
    path = tmp_path / "notebook_cell.py"
    path.write_text("from torch import nn\nclass Net(nn.Sequential):\n    pass\n")
    spec = importlib.util.spec_from_file_location("notebook_cell", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.Net(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    found = arithmetic.look(network, _recipe(), CPU, SHAPE.image)
    assert found.is_sound
    assert found.compared == 2  # output and weight gradient; the images want none
    network[1].register_forward_hook(lambda *_: 1 / 0)
    monkeypatch.setattr(_gate, "_REMEMBERED", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    with pytest.raises(ZeroDivisionError):  # its own error, not that of a process that has died
        arithmetic.look(network, _recipe(), CPU, SHAPE.image)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_network_here_is_refused(name: str, precision: str) -> None:
    """On this machine, and by CI's second pass with older instructions; one thread."""
    size = {"resnet18": 32, "resnet26": 32, "resnet34": 32, "resnet50": 32}.get(name, 16)
    narrow = {"vgg": "(width=8)", "mob": "(width=4)"}.get(name[:3], "")
    shape = DataShape(channels=3, size=size, classes=10)
    found = _gate.watch(_network(name + narrow, shape), _recipe(precision), CPU, shape.image)
    assert found.worst is not None
    assert found.worst.times < 0.5, found.worst


def test_the_bound_is_that_of_rounding() -> None:
    """sqrt(n) u sum |x||w|, sixteen times, and what is beyond it is told with its place."""
    generator = stream(0, "x")
    x, w = (torch.randn(shape, generator=generator) for shape in ((8, 100), (100, 5)))
    exact = x.double() @ w.double()
    allowed = 16 * 2.0**-24 * 10 * (x.abs().double() @ w.abs().double())
    for times in (0.5, 3.0):
        found = exact.float()
        found[3, 2] = float(exact[3, 2] + times * allowed[3, 2])
        (told,) = deviations(aten.mm.default, (x, w), {}, found)
        assert told.times == pytest.approx(times, rel=0.2)


def test_what_the_network_makes_no_number_is_not_the_machine_s() -> None:
    """Its loss is refused where it is trained; a number that should be finite still counts."""
    multiply = torch.ops.aten.mm.default
    x, w = torch.randn(4, 3), torch.randn(3, 2)
    for bad in (math.nan, math.inf, -math.inf):
        args = (x.clone().index_put_((torch.tensor(0), torch.tensor(0)), torch.tensor(bad)), w)
        (found,) = deviations(multiply, args, {}, multiply(*args))
        assert found.times < 1
        assert math.isfinite(found.relative)
    huge = torch.full((4, 3), 1e30)
    (found,) = deviations(multiply, (huge, huge.T), {}, multiply(huge, huge.T))
    assert found.times > 1e300, "in float64 it is finite"
    result = multiply(x, w)
    result[0, 0] = math.nan
    (found,) = deviations(multiply, (x, w), {}, result)
    assert found.times == math.inf


@pytest.mark.parametrize("garbage", [1e30, math.inf, math.nan, 0.0])
def test_sums_in_doubt_do_not_widen_the_bound(
    garbage: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums of absolute values come from the same kernels: garbage in them allows little."""

    def broken(x: Tensor, w: Tensor) -> Tensor:
        return x @ w if x.dtype is torch.float64 else x @ w + garbage

    monkeypatch.setitem(_compare._SUMS, broken, _compare._product(0))
    x, w = torch.randn(4, 9), torch.randn(9, 3)
    (told,) = deviations(broken, (x, w), {}, 1.5 * (x @ w))
    assert told.times > 1e3


@pytest.mark.parametrize("change", [0.0, -1.0, 2.0, 0.5])
@pytest.mark.parametrize(("dtype", "unit"), [(torch.bfloat16, None), (torch.float32, 2.0**-11)])
def test_what_is_narrow_is_not_allowed_anything(
    change: float, dtype: torch.dtype, unit: float | None
) -> None:
    """u sqrt(n) sum |x||w| with 2^-8 for u would allow a gradient of zero, or of the other sign."""
    generator = stream(0, "x")
    for terms in (16, 256, 16384):
        x = torch.randn(20, terms, generator=generator).to(dtype)
        w = torch.randn(terms, 20, generator=generator).to(dtype)
        right = (x.float() @ w.float()).to(dtype)
        (told,) = deviations(aten.mm.default, (x, w), {}, right, unit=unit)
        assert told.times < 0.1
        (told,) = deviations(aten.mm.default, (x, w), {}, change * right, unit=unit)
        assert told.times > 1.2, terms


def test_a_wrong_kernel_of_bfloat16_is_refused(breaks: Break, tmp_path: Path) -> None:
    breaks("results[1] = 2 * results[1]")
    file = tmp_path / "sitecustomize.py"
    file.write_text(file.read_text().replace("torch.float32", "torch.bfloat16"))
    with pytest.raises(
        WrongArithmeticError, match="'layer2.0.downsample.0' is off by (99|100).*bf16"
    ):
        arithmetic.ensure(_network(), _recipe("bf16"), CPU, SHAPE.image)


def test_what_the_weights_are_does_not_matter() -> None:
    """They are overwritten before anything is trained."""
    network = _network()
    first = _gate.watch(network, _recipe(), CPU, SHAPE.image)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(math.nan)
    assert _gate.watch(network, _recipe(), CPU, SHAPE.image).is_sound
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1 if parameter.dim() == 1 else 0)
    again = _gate.watch(network, _recipe(), CPU, SHAPE.image)
    assert again.worst is not None
    assert first.worst is not None
    assert again.worst.times > 0.1 * first.worst.times


def test_groups_of_batch_normalisation_are_whole() -> None:
    """Sixteen images would make a group of one of these fifteen."""
    network = _network(shape=DataShape(channels=3, size=4, classes=3))  # one value in layer3
    recipe = _recipe(batch_size=30, batch_norm_group=15)
    assert _gate.watch(network, recipe, CPU, (3, 4, 4)).is_sound
    data = dataset(60, shape=DataShape(channels=3, size=4, classes=3))
    list(Training(network, data, recipe, seed=0, state=network.state_dict()))


def test_a_network_that_cannot_be_copied_is_not_looked_at() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    kept: Any = network[1]
    kept.activation = network(torch.randn(1, 3, 8, 8))  # of no leaf, which PyTorch does not copy
    kept.made_by = lambda: None  # and which cannot be sent to another process
    with pytest.warns(UserWarning, match="arithmetic was not looked at: the network cannot be cop"):
        arithmetic.ensure(network, _recipe(), CPU, SHAPE.image)


@pytest.mark.anywhere
def test_looking_at_a_network_that_draws_disturbs_nobody() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 3))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert _gate.watch(network, _recipe(), CPU, SHAPE.image).is_sound
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.anywhere
def test_a_file_system_without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    monkeypatch.setattr(_gate, "_in_another_process", lambda *_: _gate.Found(worst=None))
    assert arithmetic.look(_network(), _recipe(), CPU, SHAPE.image).is_sound


@pytest.mark.anywhere
def test_a_process_that_looks_for_too_long_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def taken(*_: Any) -> None:
        raise BlockingIOError

    monkeypatch.setattr("fcntl.flock", taken)
    monkeypatch.setattr(_gate, "_PATIENCE", 0.3)
    monkeypatch.setattr(_gate, "_in_another_process", lambda *_: _gate.Found(worst=None))
    assert arithmetic.look(_network(), _recipe(), CPU, SHAPE.image).is_sound


class _Scaled(torch.autograd.Function):
    """Passes on, and doubles the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return 2 * gradients[0]


def test_compiled_code_is_compared_as_a_whole() -> None:
    network = _network()
    like = torch.zeros(64, 3, 8, 8)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(network(images), labels)

    def doubled(images: Tensor, labels: Tensor) -> Tensor:
        result: Tensor = _Scaled.apply(loss(images, labels))  # type: ignore[no-untyped-call]
        return result

    arithmetic.ensure_alike(network, loss, loss, _recipe(), like)
    with pytest.raises(WrongArithmeticError, match="its gradient of '.*' is off by 100 %"):
        arithmetic.ensure_alike(network, loss, doubled, _recipe(), like)
    with pytest.raises(WrongArithmeticError, match="its loss is off by 10 %.*compile: false"):
        arithmetic.ensure_alike(network, loss, lambda x, y: 1.1 * loss(x, y), _recipe(), like)
    with pytest.raises(WrongArithmeticError, match="is off by nan %"):
        arithmetic.ensure_alike(network, loss, lambda x, y: loss(x, y) * math.nan, _recipe(), like)

    def random(images: Tensor, labels: Tensor) -> Tensor:
        return loss(F.dropout(images), labels)

    arithmetic.ensure_alike(network, random, random, _recipe(), like)  # nothing to compare
    network.get_parameter("conv1.weight").requires_grad_(False)
    arithmetic.ensure_alike(network, loss, loss, _recipe(), like)
    with pytest.raises(WrongArithmeticError):
        arithmetic.ensure_alike(network, loss, doubled, _recipe(), like)


@pytest.mark.parametrize(
    ("has", "limit", "used"),
    [
        ("AVX512_CORE_BF16", "", "AVX512_CORE_BF16"),
        ("AVX512_CORE_BF16", "avx2", "AVX2"),
        ("AVX512_CORE_BF16", "AVX512_CORE_AMX", "AVX512_CORE_BF16"),
        ("AVX512_CORE_AMX", "AVX10_1_512", "AVX512_CORE_FP16"),
        ("AVX2", "ALL", "AVX2"),
        ("AVX2", "nonsense", "AVX2"),
        ("", "AVX2", ""),
    ],
)
def test_limits_of_instructions(has: str, limit: str, used: str) -> None:
    assert _machine.limited(has, limit) == used


def test_the_processor_names_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*_machine.LIMITS, *_machine._FURTHER):
        monkeypatch.delenv(name, raising=False)
    vendor, isa, _ = _machine._hardware()
    plain = arithmetic.processor()
    assert plain.startswith(f"{vendor}-{isa}")
    assert plain.endswith(torch.backends.cpu.get_cpu_capability())
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    assert arithmetic.processor() == f"{plain}-ONEDNN_DEFAULT_FPMATH_MODE=BF16"
    monkeypatch.delenv("ONEDNN_DEFAULT_FPMATH_MODE")
    if isa not in ("", "SSE41"):
        monkeypatch.setenv("DNNL_MAX_CPU_ISA", "SSE41")
        assert arithmetic.processor().split("-")[1] == "SSE41"
    assert "/" not in plain


@pytest.mark.anywhere
def test_ctrl_c_is_not_for_the_other_process() -> None:
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    arithmetic.look(_network(), _recipe(), CPU, SHAPE.image)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.anywhere
def test_a_step_is_timed_beside_for_who_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = _recipe(batch_size=64)
    step = step_times.Step(network=NARROW, image=SHAPE.image, recipe=recipe)
    found = arithmetic.look(_network(), recipe, CPU, SHAPE.image)
    assert found.pace is not None
    fixed, each = found.pace
    assert fixed >= 0
    assert each >= 0
    assert step.known() == pytest.approx(fixed + 64 * each)
    # What is remembered of a machine tells it again, where the time itself was lost.
    monkeypatch.setattr(_gate, "_REMEMBERED", {})
    (cache,) = Path(os.environ["XDG_CACHE_HOME"]).glob("elth/steps/*.json")
    before = step.known()
    cache.unlink()
    assert step.known() is None
    assert arithmetic.look(_network(), recipe, CPU, SHAPE.image) == found
    assert step.known() == before
    # Batches of another size are told by the same times; a network without a name by none.
    larger = dataclasses.replace(recipe, batch_size=256)
    arithmetic.look(_network(), larger, CPU, SHAPE.image)
    other = dataclasses.replace(step, recipe=larger)
    assert other.known() == pytest.approx(fixed + 256 * each)
    count = len(list(cache.parent.iterdir()))
    arithmetic.look(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), recipe, CPU, SHAPE.image)
    assert len(list(cache.parent.iterdir())) == count


@pytest.mark.anywhere
def test_what_an_earlier_version_remembered_has_no_times_and_is_looked_at_again() -> None:
    recipe = _recipe()
    place = _gate._place(_gate._key(_network(), recipe, CPU, SHAPE.image))
    place.parent.mkdir(parents=True)
    place.write_text('{"worst": null, "compared": 3, "died": ""}', encoding="utf-8")
    found = arithmetic.look(_network(), recipe, CPU, SHAPE.image)
    assert found.compared > 3
    assert found.pace is not None
    assert json.loads(place.read_text(encoding="utf-8"))["pace"] == list(found.pace)
