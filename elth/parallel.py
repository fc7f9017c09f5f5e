"""Training one network by several processes, each with its part of every batch.

Plain ``torch.distributed``: processes that torchrun started call ``group``, others give their
process group. What is computed does not depend on the number of workers but for the order of sums,
and for what a network draws by itself, as dropout does: the batch of the recipe is divided,
gradients are those of the mean over the whole batch, and batch normalisation takes its statistics
over the whole batch or over groups of the recipe's size.

Workers may compile what lies between these sums. Compiling asks for a first call, in which one
worker may fail while the others wait for it; so it is rehearsed (``rehearsing``): nothing is sent,
and the sums are noted, to be compared before anything is trained.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from elth.data import Part
from elth.errors import ElthError
from elth.tickets import state_digest

_REHEARSED: list[list[str]] = []
"""The sums of a step that is rehearsed now, if one is."""


@contextlib.contextmanager
def rehearsing() -> Iterator[list[str]]:
    """A context in which this worker computes as if it were alone.

    No sum waits for the other workers: each is what this one has. Gives a list, which grows by a
    line for each of them, in their order.
    """
    _REHEARSED.append([])
    try:
        yield _REHEARSED[-1]
    finally:
        _REHEARSED.pop()


def _sum_in_place(tensor: Tensor, what: str) -> None:
    """Make a tensor its sum over all workers."""
    if _REHEARSED:
        _REHEARSED[-1].append(f"{what}: {tuple(tensor.shape)}")
    else:
        dist.all_reduce(tensor)


@dataclass(frozen=True)
class Group:
    """The workers that train one network together, as one of them sees them."""

    rank: int
    """Number of this worker, from 0."""
    workers: int
    """How many there are."""
    device: torch.device
    """Where this worker computes."""
    waiting: dist.ProcessGroup | None = None
    """By what workers wait for one another, on processors, where sums are given up soon."""

    def part(self, unit: int = 1) -> Part:
        """Which part of each batch is this worker's."""
        return Part(self.rank, self.workers, unit)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all workers, in a tensor of its own."""
        total = tensor.detach().clone()
        _sum_in_place(total, "a sum")
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over all workers."""
        return self.sum(tensor) / self.workers

    def share(self, value: Any = None) -> Any:
        """Give all workers the first one's value; the others' is not looked at."""
        given = [value]
        dist.broadcast_object_list(given, src=0, group=self.waiting, device=self._told_on)
        return given[0]

    def gather(self, digest: bytes) -> list[bytes]:
        """What each worker gives, in their order; all give as many bytes."""
        own = torch.tensor(list(digest), dtype=torch.uint8, device=self._told_on)
        found = [torch.empty_like(own) for _ in range(self.workers)]
        dist.all_gather(found, own, group=self.waiting)
        return [bytes(one.tolist()) for one in found]

    def meet(self) -> None:
        """Wait for all workers, where they would not wait long in the next sum."""
        if self.waiting is not None:
            dist.barrier(group=self.waiting)

    @property
    def _told_on(self) -> torch.device:
        """Where what workers tell each other lies."""
        return self.device if self.waiting is None else torch.device("cpu")

    def check_same(self, tensors: Mapping[str, Tensor], what: str) -> None:
        """Compare tensors by their checksums.

        Raises:
            ElthError: they are not the same for all workers; all of them raise it.
        """
        found = self.gather(bytes.fromhex(state_digest(tensors)))
        other = [rank for rank, one in enumerate(found) if one != found[0]]
        if other:
            raise ElthError(
                f"{what} of worker 0 and of worker {', '.join(map(str, other))} differ: have all "
                "the same data, versions and kind of device?"
            )


@contextlib.contextmanager
def group() -> Iterator[Group]:
    """The group of the processes that torchrun started: nccl on GPUs, gloo elsewhere.

    A process group that exists already is taken as it is, and left.

    Raises:
        ElthError: this process was not started by torchrun or the like, or is not told which of
            several GPUs is its own.
    """
    begun = dist.is_initialized()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        count = dist.get_world_size() if begun else int(os.environ.get("WORLD_SIZE", "1"))
        device = torch.device("cuda", _own_gpu(count))
        torch.cuda.set_device(device)
    if not begun:
        missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR") if name not in os.environ]
        if missing:
            raise ElthError(
                f"this process has no {', '.join(missing)} in its environment: start it with "
                "torchrun --nproc-per-node N"
            )
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if not begun:
            dist.destroy_process_group()


_NUMBERS = ("SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK")
"""What srun and Open MPI call the number of a process on its machine."""


def _own_gpu(workers: int) -> int:
    """Which GPU of this machine is this process's."""
    gpus = torch.cuda.device_count()
    if gpus == 1 or (workers == 1 and "LOCAL_RANK" not in os.environ):
        return 0  # as srun gives each process one to see
    for name in ("LOCAL_RANK", *_NUMBERS):
        if name not in os.environ:
            continue
        own = int(os.environ[name])
        if own < gpus:
            return own
        raise ElthError(
            f"this process is number {own} of its machine ({name}) and sees {gpus} GPUs: begin at "
            "most one process a GPU, or let each see one by CUDA_VISIBLE_DEVICES"
        )
    raise ElthError(
        f"this process is one of {workers}, sees {gpus} GPUs and is not told which is its own: set "
        "LOCAL_RANK to its number on this machine, from 0, as torchrun does, or "
        "CUDA_VISIBLE_DEVICES to one GPU"
    )


class Gradients:
    """The mean over all workers of the gradients of a network's weights.

    All gradients of a type lie in one vector, each in the same place for good: where more than two
    workers add numbers, the order depends on the place. So a training that goes on from a
    checkpoint has the bits of one that was never interrupted.

    Args:
        weights: the trained weights; the layout of each is that of its gradient.
        workers: how many workers there are.
        differing: whether a weight may have a gradient on some workers only, as of a network that
            passes over a layer: then one more sum an iteration tells which have one anywhere.
    """

    def __init__(self, weights: Sequence[Tensor], workers: int, *, differing: bool = False) -> None:
        """Make room for them."""
        self._workers = workers
        self._anywhere = weights[0].detach().new_zeros(len(weights)) if differing else None
        self._vectors: list[Tensor] = []
        self._places: list[tuple[Tensor, Tensor]] = []
        for kind in dict.fromkeys(weight.dtype for weight in weights):
            own = [weight for weight in weights if weight.dtype == kind]
            vector = own[0].detach().new_zeros(sum(weight.numel() for weight in own))
            at = 0
            for weight in own:
                place = vector[at : at + weight.numel()].as_strided(
                    weight.shape, _dense(weight).stride(), at
                )
                self._places.append((weight, place))
                at += weight.numel()
            self._vectors.append(vector)

    @torch.no_grad()
    def average(self) -> None:
        """Give each weight the mean of its gradients; one that has none anywhere is left without.

        A worker on which the loss does not depend on a weight counts as one with a gradient of 0.
        """
        lacking = [pair for pair in self._places if pair[0].grad is None]
        anywhere = self._anywhere
        if anywhere is not None:
            has = [float(weight.grad is not None) for weight, _ in self._places]
            anywhere.copy_(torch.tensor(has, dtype=anywhere.dtype))
            _sum_in_place(anywhere, "which weights have gradients")
            if lacking:
                told = zip(self._places, anywhere.tolist(), strict=True)
                lacking = [pair for pair, count in told if count and pair[0].grad is None]
        for weight, place in self._places:
            if weight.grad is None:
                place.zero_()
            else:
                place.copy_(weight.grad)
                weight.grad = place
        for vector in self._vectors:
            vector /= self._workers
            _sum_in_place(vector, "gradients")
        if anywhere is not None:
            for weight, place in lacking:
                weight.grad = place


def _dense(tensor: Tensor) -> Tensor:
    """A tensor of the shape and layout of another, without holes."""
    return torch.empty_like(tensor, device="meta")


# Batch normalisation


def arrange_norms(
    network: nn.Module, images: int, group: Group | None, *, compiled: bool = False
) -> None:
    """Let the layers of batch normalisation take their statistics as a recipe says.

    Parameters and buffers stay the same objects under the same names.

    Args:
        network: is changed in place.
        images: images of a group; 0 for the whole batch.
        group: the workers that share the batch; None where there is one.
        compiled: whether it is to be compiled, which PyTorch's own layer for GPUs is not made for.

    Raises:
        ElthError: there are groups or workers, and a layer with statistics of the batch is none of
            ``torch.nn.BatchNorm2d`` itself, or keeps no running ones.
    """
    if images or group is not None:
        _check_norms(network)
    number = 0
    for parent in list(network.modules()):
        children: list[tuple[str, Any]] = list(parent.named_children())
        for name, child in children:
            if type(child) not in _ARRANGED:
                continue
            new: Any
            if not images and group is None:
                if type(child) is nn.BatchNorm2d:
                    continue
                new = _Normalisation(child)  # it was arranged for another recipe
                new.__class__ = nn.BatchNorm2d
            elif images:
                new = GroupedBatchNorm2d(images, child)
            elif group is not None and group.device.type == "cuda" and not compiled:
                new = nn.SyncBatchNorm.convert_sync_batchnorm(child)
                new.__class__ = _OnGpu
            else:
                assert group is not None
                number += 1
                new = SyncBatchNorm2d(child, group, number)
            setattr(parent, name, new)


def _check_norms(network: nn.Module) -> None:
    for name, module in network.named_modules():
        follows = isinstance(module, _NormBase) and module.track_running_stats
        if type(module) not in _ARRANGED and (isinstance(module, _BatchNorm) or follows):
            raise ElthError(
                f"'{name}' is {type(module).__module__}.{type(module).__qualname__}: its "
                "statistics of a batch cannot be taken over groups of images or several workers; "
                "make it torch.nn.BatchNorm2d, or leave batch_norm_group out and train with one "
                "worker"
            )


class _Normalisation(nn.BatchNorm2d):
    """Batch normalisation with the parameters and buffers of another."""

    def __init__(self, like: nn.BatchNorm2d) -> None:
        super().__init__(like.num_features, like.eps, like.momentum, like.affine, device="meta")
        if like.momentum is None or not like.track_running_stats:
            raise ElthError("batch normalisation without running statistics cannot be shared")
        self._parameters, self._buffers = dict(like._parameters), dict(like._buffers)
        self.training = like.training

    def _follow(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        running: Any = (self.running_mean, self.running_var)
        with torch.no_grad():
            for old, new in zip(running, (mean, var), strict=True):
                old.lerp_(new.to(old.dtype), self.momentum or 0.0)
        self._count()

    def _count(self) -> None:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class GroupedBatchNorm2d(_Normalisation):
    """Statistics over each group of so many consecutive images.

    The running statistics follow the mean over this worker's groups; the engine takes the mean over
    all workers. The last group of a batch may be smaller.
    """

    def __init__(self, images: int, like: nn.BatchNorm2d) -> None:
        super().__init__(like)
        self.images = images

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (n, C, H, W)."""
        if not self.training:
            return _fixed(self, input)
        if not len(input):  # a small last batch may leave a worker without a group
            self._count()
            return _fixed(self, input)
        stats = []
        outputs = []
        for images in input.split(self.images):
            mean, var = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)  # type: ignore[arg-type]
            outputs.append(
                nn.functional.batch_norm(
                    images, mean, var, self.weight, self.bias, True, 1.0, self.eps
                )
            )
            stats.append(torch.stack((mean, var)))
        mean, var = torch.stack(stats).mean(0)
        self._follow(mean, var)
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


class SyncBatchNorm2d(_Normalisation):
    """Statistics over the batch of all workers; for processors, and for compiled code.

    PyTorch's own is for GPUs, operation by operation.
    """

    def __init__(self, like: nn.BatchNorm2d, group: Group, number: int) -> None:
        super().__init__(like)
        self.number = number
        # Of this worker 1, of the others 0. It is a tensor, so that the code of all is the same.
        place = torch.zeros((group.workers, 1), device=group.device)
        place[group.rank] = 1
        self._place = place

    def forward(self, input: Tensor) -> Tensor:
        """Normalise this worker's images (n, C, H, W) of the batch."""
        if not self.training:
            return _fixed(self, input)
        # As float32 at least: in bfloat16 the sums would lose what distinguishes the images.
        images = input if input.dtype == torch.float64 else input.float()
        # Each worker's count, mean and squared deviations, combined without loss of precision.
        values = images.numel() // max(1, images.shape[1])
        mean = images.sum((0, 2, 3)) / max(1, values)
        squares = (images - mean[:, None, None]).square().sum((0, 2, 3))
        own = torch.cat((mean.new_full((1,), float(values)), mean, squares))
        told = _all_sum(self._place.to(own.dtype) * own, self.number)
        counts, means, deviations = told.split((1, *[len(mean)] * 2), dim=1)
        total = counts.detach().sum()
        mean = (counts.detach() * means).sum(0) / total
        var = (deviations + counts.detach() * (means - mean).square()).sum(0) / total
        self._follow(mean.detach(), var.detach() * (total / (total - 1)))
        scaled = (images - mean[:, None, None]) * (var + self.eps).rsqrt()[:, None, None]
        if self.weight is not None:
            scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        return scaled.to(input.dtype)


class _OnGpu(nn.SyncBatchNorm):
    """PyTorch's own, for parts of a batch that may be empty.

    Of images in bfloat16 the workers send float32, and one that has none would send bfloat16.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise this worker's images (n, C, H, W) of the batch."""
        if len(input) or input.dtype not in (torch.bfloat16, torch.float16):
            return super().forward(input)
        return super().forward(input.float()).to(input.dtype)


_ARRANGED = (nn.BatchNorm2d, GroupedBatchNorm2d, SyncBatchNorm2d, nn.SyncBatchNorm, _OnGpu)
"""What ``arrange_norms`` makes others of: PyTorch's own, and what it made before."""


def _fixed(module: nn.BatchNorm2d, input: Tensor) -> Tensor:
    return nn.functional.batch_norm(
        input,
        module.running_mean,
        module.running_var,
        module.weight,
        module.bias,
        False,
        0.0,
        module.eps,
    )


@torch.library.custom_op(
    "elth::all_sum", mutates_args=(), schema="(Tensor tensor, int number) -> Tensor"
)
def _all_sum_of(tensor: Tensor, number: int) -> Tensor:
    """The sum over all workers, as one operation into which no compiler looks.

    Its number tells a layer's sum from those of others, and of its gradient, which is negative.
    """
    total = tensor.clone()
    _sum_in_place(total, f"normalisation {number}")
    return total


def _all_sum(tensor: Tensor, number: int) -> Tensor:
    """The sum over all workers; a worker's part has the sum of all workers' gradients of it."""
    result: Tensor = torch.ops.elth.all_sum(tensor, number)
    return result


def _remember(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
    ctx.number = inputs[1]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    return _all_sum(gradient, -ctx.number), None


_all_sum_of.register_fake(lambda tensor, number: torch.empty_like(tensor))
_all_sum_of.register_autograd(_backward, setup_context=_remember)


def average(buffers: Sequence[Tensor], share: float) -> None:
    """Make buffers their weighted mean over all workers, in place.

    Args:
        buffers: of floating point.
        share: weight of this worker; those of all are 1 together.
    """
    if not buffers:
        return
    flat = torch.cat([buffer.flatten() for buffer in buffers]) * share
    _sum_in_place(flat, "statistics")
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))
