"""Several tickets of one network on one device: one after the other, stacked, or in processes.

``python -m benchmarks packing``. Stacked: one set of weights for all of them with a leading axis,
by ``torch.func``; their convolutions become grouped ones. In processes: as trials that share the
device.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from benchmarks.rows import Row, interleaved, row
from elth import data
from elth.networks import Network, build
from elth.streams import stream

REPEATS = 5
CASES = (("mlp2", "mnist", 100), ("mlp2", "digits", 200), ("resnet14", "digits", 8))
COUNTS = (1, 2, 4, 8)
BATCH = 128


def _networks(name: str, dataset: str, count: int) -> list[Network]:
    shape = data.info(dataset).shape
    return [build(name, shape, generator=stream(i, "init")).train() for i in range(count)]


def _batch(dataset: str, device: str) -> tuple[Tensor, Tensor]:
    shape = data.info(dataset).shape
    generator = stream(0, "batch")
    images = torch.randn((BATCH, shape.channels, shape.size, shape.size), generator=generator)
    labels = torch.randint(0, shape.classes, (BATCH,), generator=generator)
    return images.to(device), labels.to(device)


def _optimiser(parameters: Any) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, fused=True)


def _timed(step: Callable[[], None], steps: int, device: str, count: int = 1) -> float:
    """Seconds of an iteration of one ticket, of ``count`` that a step trains."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps / count


def _alone(name: str, dataset: str, device: str) -> Callable[[], None]:
    module: Any = _networks(name, dataset, 1)[0]
    network: nn.Module = module.to(device=device, memory_format=torch.channels_last)
    images, labels = _batch(dataset, device)
    images = images.contiguous(memory_format=torch.channels_last)
    optimiser = _optimiser(network.parameters())

    def step() -> None:
        optimiser.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(images), labels))
        optimiser.step()

    return step


def _stacked(name: str, dataset: str, count: int, device: str) -> Callable[[], None]:
    networks = [network.to(device) for network in _networks(name, dataset, count)]
    stacked, buffers = stack_module_state(networks)
    parameters = {key: value.detach().requires_grad_() for key, value in stacked.items()}
    skeleton = networks[0].to("meta")
    images, labels = (t.expand(count, *t.shape).contiguous() for t in _batch(dataset, device))
    optimiser = _optimiser(parameters.values())

    def loss(p: Any, b: Any, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(skeleton, (p, b), (x,)), y)

    losses = vmap(loss)

    def step() -> None:
        optimiser.zero_grad()
        torch.autograd.backward(losses(parameters, buffers, images, labels).sum())
        optimiser.step()

    return step


def _serve(name: str, dataset: str, device: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    step = _alone(name, dataset, device)
    while (steps := pipe.recv()) is not None:
        pipe.send(_timed(step, steps, device))


class _Processes:
    """Processes that train one network each, at the same time."""

    def __init__(self, name: str, dataset: str, count: int, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(name, dataset, device, theirs))
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def seconds(self, steps: int) -> float:
        """Seconds of an iteration of one ticket, of all that are trained at the same time."""
        for pipe in self.pipes:
            pipe.send(steps)
        return max(pipe.recv() for pipe in self.pipes) / len(self.pipes)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def rows(device: str = "cpu") -> list[Row]:
    """Iterations a second of all tickets together, as a multiple of one ticket alone."""
    torch.set_num_threads(1)
    found: list[Row] = []
    for name, dataset, steps in CASES:
        alone = _alone(name, dataset, device)
        title = f"{name}, {dataset}"
        ways = {f"{title}: alone": partial(_timed, alone, steps, device)}
        for count in COUNTS:
            step = _stacked(name, dataset, count, device)
            ways[f"{title}: {count} stacked"] = partial(
                _timed, step, max(2, steps // count), device, count
            )
        pools = {count: _Processes(name, dataset, count, device) for count in COUNTS[1:]}
        for count, pool in pools.items():
            ways[f"{title}: {count} processes"] = partial(pool.seconds, steps)
        for way, (_, ratios) in interleaved(ways, REPEATS).items():
            found.append(row(way, "x throughput", ratios))
        for pool in pools.values():
            pool.close()
    return found
