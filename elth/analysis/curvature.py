"""Curvature of the loss within the subspace of a mask.

The operator is v -> m * H(m * v), with H the Hessian of the mean cross-entropy over fixed training
images by the prunable weights, batch normalisation by its running statistics. Flat directions are
what pruning may go along: how much a round may prune without leaving the basin depends on them
(Paul et al. 2023).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from elth import masks
from elth.analysis._networks import fill, make
from elth.analysis._numbers import number
from elth.data import Dataset, fixed_images
from elth.errors import ElthError
from elth.forward import Forward
from elth.precision import computing
from elth.recipes import Recipe, Step
from elth.specs import Spec
from elth.streams import stream

_FLOAT32 = Recipe(length=Step(1, "ep"), rewind=Step(0, "ep"))
"""As ``Forward`` asks for a recipe; its precision alone is taken."""
_BATCH = 100
"""Images that are differentiated twice at a time, which takes much memory."""


class Hessian:
    """The operator v -> m * H(m * v) on vectors (size,) of all weights, one after the other.

    Args:
        losses: gives the summands of the loss, each (), anew each time.
        weights: by what they are differentiated.
        mask: which entries of each weight are in the subspace.
    """

    def __init__(
        self,
        losses: Callable[[], Iterable[Tensor]],
        weights: Sequence[Tensor],
        mask: Sequence[Tensor],
    ) -> None:
        """Keep weights and mask; the mask goes to where the weights are."""
        self._losses, self._weights = losses, list(weights)
        self._mask = torch.cat([m.flatten() for m in mask]).to(self._weights[0])
        self._shapes = [weight.shape for weight in self._weights]
        self.size = len(self._mask)
        self.dimension = int(torch.count_nonzero(self._mask))
        """How many weights the mask keeps."""

    @torch.enable_grad()
    def __call__(self, vector: Tensor) -> Tensor:
        """Apply it to a vector (size,)."""
        masked = vector.to(self._mask) * self._mask
        sizes = [shape.numel() for shape in self._shapes]
        parts = [
            one.view(shape) for one, shape in zip(masked.split(sizes), self._shapes, strict=True)
        ]
        total = torch.zeros_like(self._mask)
        # The other ways to compute attention have no second derivative.
        with computing("float32", total.device), sdpa_kernel(SDPBackend.MATH):
            for loss in self._losses():
                gradient = torch.autograd.grad(
                    loss, self._weights, create_graph=True, materialize_grads=True
                )
                inner = torch.stack(
                    [(g * v).sum() for g, v in zip(gradient, parts, strict=True)]
                ).sum()
                product = torch.autograd.grad(inner, self._weights, materialize_grads=True)
                total += torch.cat([p.flatten() for p in product])
        return total * self._mask

    def start(self, seed: int = 0) -> Tensor:
        """A vector (size,) of the stream "curvature start": where a power iteration begins.

        It lies within the subspace; what is drawn for a weight does not depend on the mask.
        """
        drawn = torch.randn(self.size, generator=stream(seed, "curvature start"))
        return drawn.to(self._mask) * self._mask

    def probe(self, index: int, seed: int = 0) -> Tensor:
        """A vector (size,) of signs, that of epoch ``index`` of the stream "curvature probe"."""
        generator = stream(seed, "curvature probe", index)
        signs = 2.0 * torch.randint(0, 2, (self.size,), generator=generator) - 1.0
        return signs.to(self._mask)


def hessian(
    network: str | Spec | nn.Module,
    state: Mapping[str, Tensor],
    mask: Mapping[str, Tensor],
    data: Dataset,
    *,
    images: int | None = 1000,
) -> Hessian:
    """The operator of a network at its weights, in float32, on the device of the data.

    Args:
        network: a network of ``elth`` or ``module:function``, with its options; or a module, which
            is left as it is.
        state: its weights; those that the mask prunes become zero.
        mask: which weights span the subspace.
        data: the dataset, on the device to compute on.
        images: over how many training images the loss is the mean, those of ``fixed_images``,
            without augmentation; all, when there is none.

    Raises:
        ElthError: state and mask do not fit the network, or the loss is not finite.
    """
    forward = Forward(make(network, data.info.shape), _FLOAT32, data.device)
    fill(forward.network, masks.apply(mask, state))
    forward.network.eval().requires_grad_(False)
    weights = [forward.network.get_parameter(name).requires_grad_() for name in mask]
    chosen = fixed_images(len(data.train_labels), images)

    def losses() -> Iterator[Tensor]:
        with closing(data.samples(chosen.split(_BATCH))) as batches:
            for shown, labels in batches:
                logits = forward.logits(shown.to(weights[0]))
                yield F.cross_entropy(logits, labels, reduction="sum") / len(chosen)

    with torch.no_grad(), computing("float32", data.device):
        value = float(torch.stack(list(losses())).sum())
    if not math.isfinite(value):
        raise ElthError(
            f"the loss is {value} at these weights: a network that has diverged has no curvature"
        )
    return Hessian(losses, weights, list(mask.values()))


@dataclass(frozen=True, kw_only=True, eq=False)
class PowerStep:
    """A step of the power iteration."""

    value: float
    """Rayleigh quotient v.Hv / v.v of the vector that the step began with."""
    residual: float
    """|Hv - value v| / |v|: an eigenvalue lies within so much of the value."""
    vector: Tensor
    """Hv / |Hv|, with which the next step begins; v itself where Hv is zero."""


def power_steps(operator: Hessian, vector: Tensor, steps: int) -> Iterator[PowerStep]:
    """Multiply a vector by the operator again and again.

    The quotient comes to the eigenvalue of largest magnitude, with its sign; the loss of a trained
    network has its greatest curvature upwards. An iteration that was stopped goes on with the
    vector of its last step, and comes to the same bits.

    Args:
        operator: what is looked at.
        vector: a vector (size,) to begin with, as ``operator.start()``.
        steps: how many steps are done.

    Yields:
        Each step as it is done.
    """
    for _ in range(steps):
        image = operator(vector)
        v, w = vector.to(image.device).double(), image.double()
        value = float(v @ w) / (float(v @ v) or 1.0)  # 0 of a mask that keeps nothing
        length = float(w.norm())
        if length:
            vector = (w / length).to(image.dtype)
        yield PowerStep(
            value=value,
            residual=float((w - value * v).norm()) / (float(v.norm()) or 1.0),
            vector=vector,
        )


def trace_probes(operator: Hessian, indices: Iterable[int], seed: int = 0) -> Iterator[float]:
    """Hutchinson's estimates z.Hz of the trace, one for each index, with z of random signs.

    Each depends on its index alone, so that more of them can be added later.

    Args:
        operator: what is looked at.
        indices: numbers of the probes.
        seed: fixes what is drawn.

    Yields:
        Each estimate as it is made.
    """
    for index in indices:
        probe = operator.probe(index, seed)
        yield float(probe.double() @ operator(probe).double())


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """Curvature within the subspace of a mask."""

    dimension: int
    """How many weights the mask keeps."""
    top: float
    """Eigenvalue of the largest magnitude; NaN of a mask that keeps nothing."""
    residual: float
    """Distance from it within which an eigenvalue lies for sure."""
    steps: int
    """Steps of the power iteration."""
    probes: tuple[float, ...]
    """Estimates of the trace."""

    def __post_init__(self) -> None:
        """A mask that keeps nothing has no eigenvalue."""
        if not self.dimension:
            object.__setattr__(self, "top", math.nan)
            object.__setattr__(self, "residual", math.nan)

    @property
    def trace(self) -> float:
        """Mean of the estimates; NaN without one, and of a mask that keeps nothing."""
        return statistics.fmean(self.probes) if self.probes and self.dimension else math.nan

    @property
    def trace_sd(self) -> float:
        """Standard deviation of the estimates; NaN of fewer than two, or where trace is."""
        enough = len(self.probes) > 1 and self.dimension
        return statistics.stdev(self.probes) if enough else math.nan

    def plain(self) -> dict[str, Any]:
        """All of it as JSON values; None for what is not a number."""
        return {
            "dimension": self.dimension,
            "top": number(self.top),
            "residual": number(self.residual),
            "steps": self.steps,
            "trace": number(self.trace),
            "trace_sd": number(self.trace_sd),
            "probes": len(self.probes),
        }


def subspace_curvature(
    operator: Hessian, *, steps: int = 20, probes: int = 10, seed: int = 0
) -> Curvature:
    """Top eigenvalue by power iteration, and trace by Hutchinson's estimator.

    ``power_steps`` and ``trace_probes`` do the same step by step.

    Args:
        operator: as ``hessian`` gives it.
        steps: of the power iteration.
        probes: how many estimates of the trace are made.
        seed: fixes what is drawn.

    Raises:
        ElthError: there is to be no step.
    """
    if steps < 1:
        raise ElthError(f"a power iteration has at least 1 step, found steps {steps}")
    *_, last = power_steps(operator, operator.start(seed), steps)
    return Curvature(
        dimension=operator.dimension,
        top=last.value,
        residual=last.residual,
        steps=steps,
        probes=tuple(trace_probes(operator, range(probes), seed)),
    )
