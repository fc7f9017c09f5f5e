"""Convolutions are right under each instruction set, and the scan of them notices what is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import numerics
from benchmarks.numerics import AS_IT_IS, Finding, How, Setting, Tally

pytestmark = pytest.mark.anywhere

FAULTY = """
import json, os, signal, time
from dataclasses import asdict
import torch
from benchmarks import numerics

backward = torch.ops.aten.convolution_backward.default
fault = ""

def faulty(*args):
    results = backward._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args)
    if args[0].dtype == torch.float32:
        if fault == "wrong":
            results[1].mul_(1.01)
        elif fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif fault == "hang":
            time.sleep(60)
        elif fault == "refusal":
            raise RuntimeError("could not create a primitive")
    return results

library = torch.library.Library("aten", "IMPL")
library.impl("convolution_backward", faulty, "CPU")
tried = numerics.cases(5, "conv2d kernel 3 stride 1, contiguous, float32")
told = {}
for fault in ("none", "wrong", "crash", "refusal"):
    told[fault] = [asdict(one) for one in numerics.scan(tried, numerics.How())]
fault = "hang"
told[fault] = [asdict(one) for one in numerics.scan(tried[:1], numerics.How(patience=0.5))]
print(json.dumps(told))
"""


@pytest.mark.parametrize("isa", [AS_IT_IS, "AVX2"])
def test_nothing_is_wrong(isa: str) -> None:
    setting = Setting(isa=isa, checked=numerics.has_checks())
    only = "conv2d .* channels-last, float32|conv2d kernel 3"
    tallies = numerics.examine(setting, 1, How(), only)
    assert len(tallies) == 15 + 9
    for tally in tallies:
        assert tally.is_sound(), tally
        assert 0 < tally.worst < 0.5, tally
        assert (tally.refused, tally.left_out) == (0, 0)


def test_what_is_wrong_is_found() -> None:
    command = [sys.executable, "-c", FAULTY]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(ended.stdout)
    tallies = {fault: numerics._read(tally) for fault, [tally] in told.items()}

    assert tallies["none"].is_sound()
    assert tallies["none"].cases == 5

    wrong = tallies["wrong"]
    assert not wrong.is_sound()
    assert wrong.wrong > 0
    assert {one.what for one in wrong.findings} == {"weight gradient"}
    assert wrong.findings[0].times == wrong.worst > 1
    assert wrong.findings[0].relative == pytest.approx(0.01, rel=1e-3)

    crash = tallies["crash"]
    assert not crash.is_sound()
    assert (crash.crashes, crash.cases, crash.left_out) == (numerics.FALLS, 0, 2)
    assert {one.what for one in crash.findings} == {"it dies: SIGSEGV"}
    assert "kernel=3, stride=1" in crash.findings[0].case

    hang = tallies["hang"]
    assert not hang.is_sound()
    assert (hang.hangs, hang.cases, hang.left_out) == (1, 0, 0)

    refusal = tallies["refusal"]
    assert (refusal.refused, refusal.cases) == (5, 0)
    assert refusal.refusal.startswith("could not create a primitive (")


def test_every_number_of_channels_is_tried_with_strided_pixels() -> None:
    tried = numerics.cases(1)
    assert tried == numerics.cases(1)
    for layout in numerics.LAYOUTS:
        channels = {
            one.inputs
            for one in tried
            if isinstance(one, numerics.Convolution)
            and (one.kernel, one.padding, one.groups) == (1, 0, 1)
            and (one.sides, one.stride, one.layout) == (2, 2, layout)
        }
        assert channels == set(range(1, 65))


def test_the_command_tells_and_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = Finding(case="the case", what="weight gradient", times=7.0)

    def examine(setting: Setting, *_: Any) -> list[Tally]:
        if setting.threads == 1:
            return [Tally(family="a family", cases=3, worst=0.1)]
        return [Tally(family="a family", cases=3, worst=7.0, wrong=1, findings=[finding])]

    monkeypatch.setattr(numerics, "examine", examine)
    output = tmp_path / "numerics.json"
    arguments = ["numerics", "--isa", "AVX2", "--no-malloc-checks", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        numerics.main()
    assert ended.value.code == 3
    assert "AVX2, 2 threads: weight gradient, 7 times what is allowed" in capsys.readouterr().out
    [one, two] = json.loads(output.read_text())["settings"]
    assert (one["isa"], one["threads"], one["families"][0]["wrong"]) == ("AVX2", 1, 0)
    [told] = two["families"][0]["findings"]
    assert (told["case"], told["times"], told["relative"]) == ("the case", 7.0, "nan")

    monkeypatch.setattr(sys, "argv", [*arguments, "--threads", "1"])
    numerics.main()
