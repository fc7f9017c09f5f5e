"""A mask that changes at given iterations within one training."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from elth.dynamic._methods import DPF, GMP, SET, SNFS, Method, RigL
from elth.dynamic._schedule import fraction_at, ramp
from elth.dynamic._updates import drawn, dropped, dropped_by_sign, grown, highest, spread
from elth.errors import ElthError
from elth.masks import Mask
from elth.recipes import Step
from elth.streams import COMMON, Noise, stream

_ROOM = 0.99
"""Of the places of a layer that are free, the most that SNFS fills (its released code)."""


class Host(Protocol):
    """What trains the network: it holds weights and masks, and knows the last gradient."""

    def weight(self, name: str) -> Tensor:
        """A weight as it is trained, its pruned places zero."""

    def gradient(self, name: str) -> Tensor:
        """Its dense gradient of the last iteration; the mean of all workers'."""

    def momentum(self, name: str) -> Tensor:
        """What the optimiser has as its momentum."""

    def dense(self, name: str) -> Tensor:
        """The weight with the values that its pruned places have kept."""

    def exchange(self, masks: Mapping[str, Tensor], *, clear: bool) -> None:
        """Train with other masks from now on.

        Args:
            masks: those that change; what they prune becomes zero, and what they bring is zero.
            clear: forget what the optimiser knows of places that are not in both masks.
        """


class Evolution:
    """The mask of a sparse training from iteration to iteration.

    Args:
        method: how it changes.
        shapes: of each prunable weight, in the network's order.
        kept: how many weights there are in all at the end.
        length: iterations of the whole training, from initialisation.
        per_epoch: iterations of an epoch.
        start: the first iteration of this training.
        unpruned: names of weights that are left whole, as the anatomy's.
        seed: fixes what is drawn.
        noise: the noise of the training, for connections that are grown at random.

    Raises:
        ElthError: the count is impossible, or no update would move a weight.
    """

    mask: Mask
    """Which weights are trained now."""

    def __init__(
        self,
        method: Method,
        shapes: Mapping[str, tuple[int, ...]],
        kept: int,
        *,
        length: int,
        per_epoch: int,
        start: int = 0,
        unpruned: Collection[str] = (),
        seed: int = 0,
        noise: Noise = COMMON,
    ) -> None:
        """Draw the first mask."""
        self.method, self.kept, self.seed, self.noise = method, kept, seed, noise
        self._sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        self._final = method.counts(shapes, kept, unpruned)
        given = {"length": length, "per_epoch": per_epoch, "start": start}
        method.check_moves(self._final, self._sizes, kept, **given)
        never = method.dense(shapes, unpruned)
        if self._final is not None:
            never = tuple(n for n, size in self._sizes.items() if self._final[n] == size)
        self._pruned = tuple(name for name in shapes if name not in never)
        self._start, self._length, self._per_epoch = start, length, per_epoch
        settings: Any = method
        every: Step = getattr(settings, "every", Step(1, "it"))
        self._every = every.iterations(per_epoch)
        self._end = int(getattr(settings, "end", 0.0) * length)
        self._begin = int(getattr(settings, "begin", 0.0) * length)
        if method.starts_dense:
            self.mask = {n: torch.ones(s, dtype=torch.bool) for n, s in shapes.items()}
        else:
            self.mask = drawn(shapes, cast("dict[str, int]", self._final), seed)
        self._counts = {name: int(torch.count_nonzero(m)) for name, m in self.mask.items()}
        self._explored = {name: self.mask[name].clone() for name in self._pruned}
        self._changed = torch.zeros((), dtype=torch.int64)
        self._sums: dict[str, Tensor] = {}
        self._is_taken = False

    # What is told of it

    def exploration(self) -> float:
        """ITOP's rate: of all weights that may be pruned, how many were ever trained.

        Layers that are dense throughout are left out (Liu et al. 2021); the device is waited for.
        """
        total = sum(self._sizes[name] for name in self._pruned)
        seen = sum(int(torch.count_nonzero(m)) for m in self._explored.values())
        return seen / total if total else 1.0

    def changed(self) -> int:
        """Connections that came since this was asked; the device is waited for."""
        found = int(self._changed)
        self._changed.zero_()
        return found

    # A training goes through it

    def check_new(self) -> None:
        """Refuse a mask that is not what it began as.

        Raises:
            ElthError: it has gone through one before.
        """
        if self._is_taken:
            raise ElthError(
                f"this mask of method {self.method.name} has gone through another training, and is "
                "not what it began as: make an Evolution for each"
            )

    def check_span(self, *, length: int, per_epoch: int, start: int) -> None:
        """Refuse a training that ends before the mask has changed, or counts otherwise.

        Raises:
            ElthError: with what differs.
        """
        made = f"{self._length} iterations, {self._per_epoch} an epoch, from {self._start} on"
        found = f"{length} iterations, {per_epoch} an epoch, from {start} on"
        if self._length > length or (self._per_epoch, self._start) != (per_epoch, start):
            raise ElthError(
                f"the mask of method {self.method.name} is made for {made}, and this training has "
                f"{found}: it would not come to its count of weights"
            )

    def take(self) -> None:
        """Go through a training, which changes the mask."""
        self.check_new()
        self._is_taken = True

    def to(self, device: torch.device) -> None:
        """Go to the device of the network."""
        self.mask = {name: m.to(device) for name, m in self.mask.items()}
        self._explored = {name: m.to(device) for name, m in self._explored.items()}
        self._sums = {name: s.to(device) for name, s in self._sums.items()}
        self._changed = self._changed.to(device)

    def before(self, host: Host, step: int) -> bool:
        """Before an iteration: change the mask, if the method does so then.

        Returns whether this iteration is to leave the weights as they are: its gradient is for the
        mask.
        """
        if isinstance(self.method, GMP | DPF) and self._prunes_at(step):
            self._prune(host, step)
        return isinstance(self.method, RigL) and self._moves_at(step)

    def after(self, host: Host, step: int) -> None:
        """After an iteration: change the mask, if the method does so then."""
        if isinstance(self.method, RigL):
            if self.method.batches > 1:
                self._add_gradient(host, step)
            if self._moves_at(step):
                self._move(host, step)
        elif isinstance(self.method, SET | SNFS) and self._moves_at(step + 1):
            self._move(host, step + 1)

    # What goes on in another process

    def tensors(self) -> dict[str, Tensor]:
        """All that has become of it, by name; on the device."""
        parts = {"mask": self.mask, "explored": self._explored, "sum": self._sums}
        named = {f"{part}.{n}": t for part, some in parts.items() for n, t in some.items()}
        return {**named, "changed": self._changed}

    def resume(self, tensors: Mapping[str, Tensor]) -> None:
        """Take in what ``tensors`` gave.

        Raises:
            ElthError: it is of another network, or of another count of weights.
        """
        parts: dict[str, dict[str, Tensor]] = {"mask": {}, "explored": {}, "sum": {}}
        for key, tensor in tensors.items():
            part, _, name = key.partition(".")
            if part in parts:
                parts[part][name] = tensor.to(self._changed.device, copy=True)
        if set(parts["mask"]) != set(self.mask) or set(parts["explored"]) != set(self._pruned):
            raise ElthError("the checkpoint is of another sparse training: its masks do not fit")
        masks = {name: parts["mask"][name] for name in self.mask}
        kept = sum(int(torch.count_nonzero(m)) for m in masks.values())
        moves = not self.method.starts_dense
        if moves and kept != sum(self._counts.values()):
            raise ElthError(
                f"the checkpoint is of another sparse training: it keeps {kept:,} weights, and "
                f"this one {sum(self._counts.values()):,}"
            )
        self.mask = masks
        self._explored, self._sums = parts["explored"], parts["sum"]
        self._changed = tensors["changed"].to(self._changed.device, copy=True)
        self._counts = {name: int(torch.count_nonzero(m)) for name, m in self.mask.items()}

    # Methods that move connections

    def _moves_at(self, step: int) -> bool:
        """Whether the mask changes when so many iterations are done."""
        if step == self._start:
            return isinstance(self.method, RigL) and self.method.at_start and step < self._end
        return step % self._every == 0 and self._start < step < self._end

    def _move(self, host: Host, step: int) -> None:
        method = self.method
        assert isinstance(method, RigL | SET | SNFS)
        least = method.least if isinstance(method, SNFS) else 0.0
        fraction = fraction_at(step, self._end, method.fraction, least)
        counts = {
            name: self._counts[name] - int(fraction * self._counts[name]) for name in self._now
        }
        left = {}
        for name in self._now:
            weight, mask = host.weight(name), self.mask[name]
            if isinstance(method, SET) and method.drop == "signs":
                left[name] = dropped_by_sign(weight, mask, fraction)
                counts[name] = int(torch.count_nonzero(left[name]))
            else:
                left[name] = dropped(weight, mask, counts[name])
        wanted = {name: self._counts[name] for name in left}
        if isinstance(method, SNFS) and method.redistribute:
            wanted = self._redistributed(host, counts)
        new = {
            name: grown(one, self._score(host, name, step), wanted[name] - counts[name])
            for name, one in left.items()
        }
        self._sums.clear()
        self._take(host, new, clear=not isinstance(method, SNFS))
        self._counts |= wanted

    @property
    def _now(self) -> Iterator[str]:
        """Layers that are not full: in one that is, all that is dropped grows again."""
        redistributes = isinstance(self.method, SNFS) and self.method.redistribute
        return (
            name for name in self._pruned if redistributes or self._counts[name] < self._sizes[name]
        )

    def _score(self, host: Host, name: str, step: int) -> Tensor:
        """By what a connection is grown."""
        if isinstance(self.method, RigL):
            gradient = self._sums[name] if name in self._sums else host.gradient(name)
            return gradient.abs()
        if isinstance(self.method, SNFS):
            return host.momentum(name).abs()
        generator = stream(self.seed, f"grown {name}", step, self.noise)
        like = self.mask[name]
        return torch.rand(like.shape, generator=generator).to(like.device)

    def _add_gradient(self, host: Host, step: int) -> None:
        """Sum the gradients of the batches before an update, and of its own."""
        assert isinstance(self.method, RigL)
        ahead = range(step, step + self.method.batches)
        if not any(self._moves_at(one) for one in ahead):
            return
        for name in self._now:
            gradient = host.gradient(name).detach()
            if name in self._sums:
                self._sums[name] += gradient
            else:
                self._sums[name] = gradient.clone()

    def _redistributed(self, host: Host, left: Mapping[str, int]) -> dict[str, int]:
        """How many weights each layer has then, by the mean magnitude of momentum."""
        means = {
            name: float(host.momentum(name).abs()[self.mask[name]].mean(dtype=torch.float64))
            if self._counts[name]
            else 0.0
            for name in left
        }
        room = {name: int(_ROOM * (self._sizes[name] - count)) for name, count in left.items()}
        count = sum(self._counts[name] for name in left) - sum(left.values())
        if sum(room.values()) < count:  # all but dense: each grows what it has dropped
            return {name: self._counts[name] for name in left}
        more = spread(count, means, room)
        return {name: left[name] + more[name] for name in left}

    # Methods that prune more and more

    @property
    def _last(self) -> int:
        """The iteration before which the number of weights is reached."""
        return max(min(self._end, self._length - 1), self._start)

    def _prunes_at(self, step: int) -> bool:
        last = self._last
        if step == last:
            return True
        frozen = not (isinstance(self.method, DPF) and not self.method.freeze)
        return step % self._every == 0 and step >= self._begin and (step < last or not frozen)

    def _prune(self, host: Host, step: int) -> None:
        done = ramp(step, self._begin, min(self._end, self._last))
        if self._final is not None:
            counts = {
                name: self._sizes[name] - int(done * (self._sizes[name] - self._final[name]))
                for name in self._pruned
            }
            new = {name: highest(host.dense(name).abs(), counts[name]) for name in self._pruned}
        else:
            zeros = int(done * (sum(self._sizes.values()) - self.kept))
            flat = torch.cat([host.dense(name).abs().flatten() for name in self._pruned])
            kept = highest(flat, len(flat) - zeros)
            parts = kept.split([self._sizes[name] for name in self._pruned])
            new = {
                name: part.reshape(self.mask[name].shape)
                for name, part in zip(self._pruned, parts, strict=True)
            }
        self._take(host, new, clear=False)

    def _take(self, host: Host, new: Mapping[str, Tensor], *, clear: bool) -> None:
        for name, mask in new.items():
            self._changed += torch.count_nonzero(mask & ~self.mask[name])
            self._explored[name] |= mask
        host.exchange(new, clear=clear)
        self.mask |= new
