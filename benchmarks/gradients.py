"""The first gradient of narrow ResNets against float64, as it was and as it is now.

``python -m benchmarks.gradients``: ResNet-14 of width 2 to 16 on 64 digits, with one thread and
two, with all of this machine's instructions and with AVX2's. *Before* gives strided 1x1
convolutions to PyTorch as they are, *after* as ``elth.convolutions`` has them. Each in a process of
its own, as it may die or hang.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from elth import data
from elth.arithmetic import processor
from elth.forward import Forward, channels_last
from elth.networks import build
from elth.recipes import Recipe, Step
from elth.streams import stream

WIDTHS = range(2, 17)
_SECONDS = 60.0


def _worst(width: int, *, as_it_was: bool) -> str:
    """The largest error of a shortcut's weight gradient, in percent of its size."""
    digits = data.load("digits")
    network = build(f"resnet14(width={width})", digits.info.shape, generator=stream(0, "init"))
    batches = digits.train_batches(batch_size=64, augment="none", seed=0, epoch=0, stop=1)
    ((images, labels),) = batches
    exact = copy.deepcopy(network).double().train()
    torch.autograd.backward(F.cross_entropy(exact(images.double()), labels))
    if as_it_was:
        own: nn.Module = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.autograd.backward(F.cross_entropy(own.train()(channels_last(images)), labels))
    else:
        recipe = Recipe(length=Step(1, "ep"), rewind=Step(0, "ep"))
        forward = Forward(network, recipe, torch.device("cpu"))
        own = forward.network.train()
        torch.autograd.backward(forward.loss(channels_last(images), labels))
    found = []
    for name, parameter in own.named_parameters():
        true = exact.get_parameter(name).grad
        if not name.endswith("downsample.0.weight") or true is None or parameter.grad is None:
            continue
        off = torch.linalg.vector_norm(parameter.grad.double() - true)
        found.append(100 * float(off / torch.linalg.vector_norm(true)))
    return f"{max(found):.2g}"


def _asked(width: int, threads: int, isa: str, way: str) -> str:
    command = [sys.executable, "-m", "benchmarks.gradients", str(width), way]
    variables = {"OMP_NUM_THREADS": str(threads), **({"ONEDNN_MAX_CPU_ISA": isa} if isa else {})}
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **variables},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    return done.stdout.strip() if done.returncode == 0 else "dies"


def main() -> None:
    """Print the table."""
    if len(sys.argv) == 3:
        print(_worst(int(sys.argv[1]), as_it_was=sys.argv[2] == "before"))
        return
    columns = [
        (way, isa, threads)
        for way in ("before", "after")
        for isa in ("AVX2", "")
        for threads in (1, 2)
    ]
    table = Table(title=f"error of the shortcuts' weight gradient in %: {processor()}")
    table.add_column("width")
    for way, isa, threads in columns:
        table.add_column(f"{way}\n{isa or 'all'}\n{threads} thread{'s'[: threads - 1]}")
    for width in WIDTHS:
        table.add_row(
            str(width), *(_asked(width, threads, isa, way) for way, isa, threads in columns)
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
