"""Training one network by several processes, each with its part of every batch.

Plain ``torch.distributed``: processes that torchrun started call ``group``, others give their
process group. What is computed does not depend on the number of workers but for the order of sums:
the batch of the recipe is divided, gradients are those of the mean over the whole batch, and batch
normalisation takes its statistics over the whole batch or over groups of the recipe's size.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from elth.data import Part
from elth.errors import ElthError
from elth.tickets import state_digest


@dataclass(frozen=True)
class Group:
    """The workers that train one network together, as one of them sees them."""

    rank: int
    """Number of this worker, from 0."""
    workers: int
    """How many there are."""
    device: torch.device
    """Where this worker computes."""

    def part(self, unit: int = 1) -> Part:
        """Which part of each batch is this worker's."""
        return Part(self.rank, self.workers, unit)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all workers, in a tensor of its own."""
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over all workers."""
        return self.sum(tensor) / self.workers

    def share(self, value: Any = None) -> Any:
        """Give all workers the first one's value; the others' is not looked at."""
        given = [value]
        dist.broadcast_object_list(given, src=0, device=self.device)
        return given[0]

    def check_same(self, tensors: Mapping[str, Tensor], what: str) -> None:
        """Compare tensors by their checksums.

        Raises:
            ElthError: they are not the same for all workers; all of them raise it.
        """
        own = torch.tensor(list(bytes.fromhex(state_digest(tensors))), dtype=torch.uint8)
        found = [torch.empty_like(own, device=self.device) for _ in range(self.workers)]
        dist.all_gather(found, own.to(self.device))
        other = [rank for rank, one in enumerate(found) if not torch.equal(one, found[0])]
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
        ElthError: this process was not started by torchrun or the like.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    begun = dist.is_initialized()
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


def data_parallel(network: nn.Module) -> nn.Module:
    """The network with gradients that are the mean over all workers; they start with equal weights.

    Its buffers stay each worker's own (``arrange_norms``, ``average``).
    """
    kind = nn.parallel.DistributedDataParallel
    known = inspect.signature(kind).parameters
    own_buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: Any = {own_buffers: False, "gradient_as_bucket_view": True}
    return kind(network, **options)


# Batch normalisation


def arrange_norms(network: nn.Module, images: int, group: Group | None) -> None:
    """Let the layers of batch normalisation take their statistics as a recipe says.

    Parameters and buffers stay the same objects under the same names.

    Args:
        network: is changed in place.
        images: images of a group; 0 for the whole batch.
        group: the workers that share the batch; None where there is one.
    """
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
            elif group is not None and group.device.type == "cuda":
                new = nn.SyncBatchNorm.convert_sync_batchnorm(child)
            else:
                new = SyncBatchNorm2d(child)
            setattr(parent, name, new)


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
    """Statistics over the batch of all workers; for processors, as PyTorch's own is for GPUs."""

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
        own = torch.cat((images.new_tensor([float(values)]), mean, squares))
        rank, workers = dist.get_rank(), dist.get_world_size()
        places = own.new_zeros((workers, 1)).index_fill(0, torch.tensor([rank]), 1.0)
        counts, means, deviations = _all_sum(places * own).split((1, *[len(mean)] * 2), dim=1)
        total = counts.detach().sum()
        mean = (counts.detach() * means).sum(0) / total
        var = (deviations + counts.detach() * (means - mean).square()).sum(0) / total
        self._follow(mean.detach(), var.detach() * (total / (total - 1)))
        scaled = (images - mean[:, None, None]) * (var + self.eps).rsqrt()[:, None, None]
        if self.weight is not None:
            scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        return scaled.to(input.dtype)


_ARRANGED = (nn.BatchNorm2d, GroupedBatchNorm2d, SyncBatchNorm2d, nn.SyncBatchNorm)
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


class _AllSum(torch.autograd.Function):
    """The sum over all workers; a worker's part has the sum of all workers' gradients of it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _all_sum(tensor: Tensor) -> Tensor:
    result: Tensor = _AllSum.apply(tensor)  # type: ignore[no-untyped-call]
    return result


def average(buffers: Sequence[Tensor], share: float) -> None:
    """Make buffers their weighted mean over all workers, in place.

    Args:
        buffers: of floating point.
        share: weight of this worker; those of all are 1 together.
    """
    if not buffers:
        return
    flat = torch.cat([buffer.flatten() for buffer in buffers]) * share
    dist.all_reduce(flat)
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))
