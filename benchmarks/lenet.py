"""How far LeNet-300-100 moves on MNIST: ``python -m benchmarks.lenet --data DIR [--device cuda]``.

Maene et al. (2021, figure 18) print distances that the usual first weights do not give. Neither
the side by which Kaiming's law goes nor the scale of the images is in the paper: here are the
likely ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import elth
from elth.analysis.distances import distance_matrices
from elth.data import MemoryDataset
from elth.networks import Network, build
from elth.streams import stream

LAWS: dict[str, Callable[[int, int], float]] = {
    "Kaiming uniform, fan-in": lambda fan_in, _: math.sqrt(6 / fan_in),
    "Kaiming uniform, fan-out": lambda _, fan_out: math.sqrt(6 / fan_out),
    "torch's default": lambda fan_in, _: 1 / math.sqrt(fan_in),
}
"""The bound of the uniform law by the fan-in and the fan-out."""
SCALES: dict[str, tuple[float, float] | None] = {
    "mean 0, deviation 1": None,
    "0 to 1": (0.0, 255.0),
    "-1 to 1": (127.5, 127.5),
}


def _network(law: str, data: MemoryDataset, seed: int) -> Network:
    network = build("lenet_300_100", data.info.shape, generator=stream(seed, "init"))
    generator = stream(seed, "init")
    for module in network.modules():
        if isinstance(module, nn.Linear):
            fan_out, fan_in = module.weight.shape
            bound = LAWS[law](fan_in, fan_out)
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
    return network


def _data(root: Path, device: str, scale: str) -> MemoryDataset:
    data = elth.data.load("mnist", root).to(device)
    assert isinstance(data, MemoryDataset)
    if (by := SCALES[scale]) is None:
        return data
    info = dataclasses.replace(data.info, mean=by[:1], deviation=by[1:])
    return dataclasses.replace(data, info=info)


def main() -> None:
    """Train each, and print how far its rounds are from each other and from where they began."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lenet", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with MNIST")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=1, help="prunings by a fifth")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("first weights", "images", "accuracy, %", "d(k, k+1)", "d(k, first weights)")
    for law in LAWS:
        for scale in SCALES:
            data = _data(given.data, given.device, scale)
            how: dict[str, Any] = {"seed": given.seed, "rounds": given.rounds, "noise": "round"}
            network = _network(law, data, given.seed)
            rounds = list(elth.imp(network, data, "maene_lenet", compile=True, **how))
            found = distance_matrices(
                [{k: v.cpu() for k, v in r.trained.items()} for r in rounds],
                [{k: v.cpu() for k, v in r.mask.items()} for r in rounds],
                initial={k: v.cpu() for k, v in rounds[0].rewind.items()},
            )
            last, pairs = len(rounds), range(len(rounds))
            cells = (
                " ".join(f"{r.accuracy:.2f}" for r in rounds),
                " ".join(f"{found.of(k, k + 1).angular:.3f}" for k in pairs[:-1]),
                " ".join(f"{found.of(k, last).angular:.3f}" for k in pairs),
            )
            table.add_row(law, scale, *cells)
            print(law, scale, *cells, sep="; ", flush=True)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
