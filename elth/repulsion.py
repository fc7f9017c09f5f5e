"""A loss that keeps a training away from optima that were found before, or near them.

Maene, Li and Moens 2021, section 3. With theta the prunable weights as one vector, m the mask,
theta_r the optima (r = 1..k), c_r = cos(theta * m, theta_r * m)::

    J(theta) = strength / k * sum_r c_r^2

which is added to the cross-entropy. A positive strength repels to where theta is orthogonal to the
optima, a negative one attracts to the line through one of them and the origin. With the rows of R
the theta_r * m at norm 1, a = theta * m and u = a / |a|, c = R u, the gradient is::

    m * 2 strength / (k |a|) * (R^T c - (c . c) u)

orthogonal to a, and zero off the mask. It is added to that of the cross-entropy before the
optimiser's step, with no graph of operations behind it. Weight decay has no part in J. Weights that
are not trained are part of all vectors, and get no gradient.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from elth.errors import ElthError

TINY = 1e-8
"""A vector of at most this norm has no direction: its cosines are 0, and so are their gradients."""
_PACKED = 0.5
"""Share of weights up to which those that are left are gathered: more are quicker as a whole."""


@dataclass(frozen=True, eq=False)
class Repulsion:
    """What a training is kept away from, or near.

    Raises:
        ElthError: the strength is no finite number.
    """

    strength: float
    """lambda: above 0 repels (Maene et al.: 2), below 0 attracts (-1)."""
    optima: Sequence[Mapping[str, Tensor]] = ()
    """State dicts of trained rounds; of each only what the mask keeps of prunable weights is used.
    Without any there is no such loss."""

    def __post_init__(self) -> None:
        """Check the strength."""
        number = isinstance(self.strength, int | float) and not isinstance(self.strength, bool)
        if not number or not math.isfinite(self.strength):
            raise ElthError(
                "the strength of a repulsion must be a finite number, as 2 to repel or -1 to "
                f"attract; found {self.strength!r}"
            )

    @property
    def acts(self) -> bool:
        """Whether there is anything to compute."""
        return self.strength != 0 and len(self.optima) > 0


class Repellent:
    """A repulsion from fixed optima under a mask, on the device of the weights.

    The optima are taken in once; each ``add`` then reads them twice. Where few weights are left,
    the table holds no others.

    Args:
        weights: the prunable weights, by name; pruned ones are zero whenever ``add`` is called. A
            parameter that requires no gradient gets none.
        mask: which are kept; all of a weight that it does not name.
        repulsion: one that acts.
        rows: for how many optima there is to be room. With it every weight has a place, kept or
            not, so that ``load`` takes in other optima and another mask without any tensor
            changing its place or shape, as a CUDA graph needs it.

    Raises:
        ElthError: an optimum lacks a weight, has one of another shape, or is not finite.
    """

    vanished: Tensor
    """Whether the kept weights themselves had no direction at any ``add`` so far: bool, ()."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        mask: Mapping[str, Tensor],
        repulsion: Repulsion,
        *,
        rows: int = 0,
    ) -> None:
        """Make the tables, and take the optima in."""
        self._weights = dict(weights)
        self.rows = max(rows, len(repulsion.optima))
        like = next(iter(self._weights.values())).detach()
        whole = sum(weight.numel() for weight in self._weights.values())
        kept = [
            mask[name].flatten().nonzero().flatten() if name in mask else torch.arange(w.numel())
            for name, w in self._weights.items()
        ]
        left = sum(map(len, kept))
        self._index: list[Tensor] = []
        sizes = [weight.numel() for weight in self._weights.values()]
        if not rows and left <= _PACKED * whole:
            self._index = [index.to(like.device) for index in kept]
            sizes = list(map(len, kept))
        # The optima, one a row, and last the weights: one product gives all cosines and the norm.
        self._table = like.new_zeros((self.rows + 1, sum(sizes)))
        self._gradient = like.new_zeros(sum(sizes))
        self._own = self._shaped(self._table[-1], sizes)
        self._parts = self._shaped(self._gradient, sizes)
        self._scale = like.new_zeros(())
        self.vanished = torch.zeros((), dtype=torch.bool, device=like.device)
        self.load(mask, repulsion)

    def _shaped(self, flat: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Views of a vector: what it holds of each weight."""
        parts = flat.split(list(sizes))
        if self._index:
            return list(parts)
        return [part.view(w.shape) for part, w in zip(parts, self._weights.values(), strict=True)]

    @torch.no_grad()
    def load(self, mask: Mapping[str, Tensor], repulsion: Repulsion) -> None:
        """Take in other optima; another mask only where there are ``rows``.

        Raises:
            ElthError: as the class.
        """
        self._table.zero_()
        for number, state in enumerate(repulsion.optima):
            _check(state, self._weights, number)
            parts = []
            for position, (name, weight) in enumerate(self._weights.items()):
                values = state[name].to(device=weight.device, dtype=torch.float64)
                if self._index:
                    values = values.take(self._index[position])
                elif name in mask:
                    values = values * mask[name].to(weight.device)
                parts.append(values.flatten())
            row = torch.cat(parts)
            norm = float(torch.linalg.vector_norm(row))
            if not math.isfinite(norm):
                raise ElthError(
                    f"optimum {number} of a repulsion is not finite: give the state dicts of "
                    "rounds that trained to their end"
                )
            if norm > TINY:
                self._table[number].copy_(row / norm)
            else:
                _warn(
                    f"optimum {number} of a repulsion has no weight that this round keeps: it does "
                    "not repel, and is counted among the others all the same"
                )
        self._scale.fill_(repulsion.strength / len(repulsion.optima))
        self.vanished.fill_(False)

    @torch.no_grad()
    def add(self) -> Tensor:
        """Add the gradient of J to those of the weights that are trained; gives J: ().

        Nothing waits for the device.
        """
        self._gather()
        products = self._table @ self._table[-1]
        norm = products[-1].sqrt()
        inverse = torch.where(norm > TINY, 1 / norm, 0)
        self.vanished |= norm <= TINY
        cosines = products[:-1] * inverse
        squares = (cosines * cosines).sum()
        factors = torch.cat([cosines, -(squares * inverse)[None]])
        factors *= 2 * self._scale * inverse
        torch.mv(self._table.t(), factors, out=self._gradient)
        self._scatter()
        return self._scale * squares

    def warn(self) -> None:
        """Tell, once, if the weights had no direction; the device is waited for."""
        if bool(self.vanished):
            self.vanished.fill_(False)
            _warn(
                f"the kept weights of a round have a norm of at most {TINY}, and so no direction: "
                "its repulsion was 0 there"
            )

    def _gather(self) -> None:
        weights = list(self._weights.values())
        if not self._index:
            torch._foreach_copy_(self._own, weights)
            return
        for weight, index, place in zip(weights, self._index, self._own, strict=True):
            if weight.is_contiguous():  # which is quicker
                torch.index_select(weight.view(-1), 0, index, out=place)
            else:
                torch.take(weight, index, out=place)

    def _scatter(self) -> None:
        gradients, parts, indices = [], [], []
        for position, weight in enumerate(self._weights.values()):
            if isinstance(weight, nn.Parameter) and not weight.requires_grad:
                continue
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            gradients.append(weight.grad)
            parts.append(self._parts[position])
            indices += self._index[position : position + 1]
        if not self._index:
            if gradients:
                torch._foreach_add_(gradients, parts)
            return
        for gradient, index, part in zip(gradients, indices, parts, strict=True):
            if gradient.is_contiguous():
                gradient.view(-1).index_add_(0, index, part)
            else:
                gradient.put_(index, part, accumulate=True)


def loss_and_gradient(
    state: Mapping[str, Tensor], mask: Mapping[str, Tensor], repulsion: Repulsion
) -> tuple[float, dict[str, Tensor]]:
    """J of some weights, and its gradient, as a training adds it.

    Args:
        state: a state dict; what the mask names of it is theta.
        mask: which of these weights are kept.
        repulsion: the strength, and the optima.

    Example:
        >>> theta = {"w": torch.tensor([3.0, 4.0], dtype=torch.float64)}
        >>> optimum, mask = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([True, True])}
        >>> loss, gradient = loss_and_gradient(theta, mask, Repulsion(2.0, [optimum]))
        >>> round(loss, 4), gradient["w"].round(decimals=4).tolist()
        (0.72, [0.3072, -0.2304])

    Raises:
        ElthError: as ``Repellent``.
    """
    weights = {name: state[name].detach() * kept for name, kept in mask.items()}
    if not repulsion.acts:
        return 0.0, {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    loss = Repellent(weights, mask, repulsion).add()
    gradients = {name: weight.grad for name, weight in weights.items()}
    return float(loss), {name: g for name, g in gradients.items() if g is not None}


def _check(state: Mapping[str, Tensor], weights: Mapping[str, Tensor], number: int) -> None:
    for name, weight in weights.items():
        found = state[name].shape if name in state else None
        if found != weight.shape:
            raise ElthError(
                f"optimum {number} of a repulsion does not fit the network: '{name}' should have "
                f"shape {tuple(weight.shape)}, found {'none' if found is None else tuple(found)}"
            )


def _warn(what: str) -> None:
    warnings.warn(what, stacklevel=3)
