"""How far apart trained weights lie: by angle, as Maene et al. 2021 measure it, and otherwise.

A network is the vector of all its prunable weights; what is compared of two is, where nothing else
is said, the weights that both masks keep, m = m_a * m_b, which of two rounds of a chain is the
sparser mask. What is not defined, as the angle to a vector of zeros or of two networks that have no
weight in common, is not a number, and never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elth.analysis._numbers import number, rows
from elth.analysis._vectors import State, parts

_NEAR = 1e-4
"""1 - |cos| below which the products of two vectors cancel, and their difference is taken."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far two networks are apart."""

    angular: float
    """2 angle(a * m, b * m) / pi: 0 same direction, 1 orthogonal, 2 opposite."""
    cosine: float
    """cos(a * m, b * m), in [-1, 1]: a similarity."""
    l2_shared: float
    """abs(a * m - b * m): of the weights that both keep."""
    l2_full: float
    """abs(a * m_a - b * m_b): a weight that one has pruned is 0 there."""

    def plain(self) -> dict[str, float | None]:
        """The numbers by name; None for what is not defined."""
        return {name: number(value) for name, value in vars(self).items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Distances:
    """All pairs of several networks: symmetric matrices (networks, networks) in float64."""

    angular: Tensor
    """As of ``Distance``, and so the others."""
    cosine: Tensor
    l2_shared: Tensor
    l2_full: Tensor
    kept: tuple[int, ...]
    """How many weights each network keeps."""
    total: int
    """Number of prunable weights, kept or not."""

    def of(self, first: int, second: int) -> Distance:
        """How far two of the networks are apart."""
        matrices = (self.angular, self.cosine, self.l2_shared, self.l2_full)
        angular, cosine, shared, full = (float(matrix[first, second]) for matrix in matrices)
        return Distance(angular=angular, cosine=cosine, l2_shared=shared, l2_full=full)

    def plain(self) -> dict[str, Any]:
        """Rows by name, as JSON values; None for what is not defined."""
        return {
            "angular": rows(self.angular),
            "cosine": rows(self.cosine),
            "l2_shared": rows(self.l2_shared),
            "l2_full": rows(self.l2_full),
            "kept": list(self.kept),
            "total": self.total,
        }


def distance_matrices(
    states: Sequence[State],
    masks: Sequence[Mapping[str, Tensor]],
    *,
    initial: State | None = None,
) -> Distances:
    """Measure all pairs of rounds (Maene et al. 2021, figures 4 and 9 to 11).

    By products of all vectors with all, G = W W^T and S = (W * W) M^T, so that
    cos = G_ij / sqrt(S_ij S_ji); where that would cancel, as of weights that have hardly moved, by
    the difference of the two.

    Args:
        states: the trained weights of each round; float32 will do, all is computed in float64.
        masks: the mask of each round. They need not be nested: rounds of two seeds will do.
        initial: the weights at the initialisation, which become the last row and column. Nothing of
            them is pruned, so that round k is compared with them on its own mask.

    Raises:
        ElthError: weights and masks do not fit each other.
    """
    if initial is not None:
        dense = {name: torch.ones_like(m) for name, m in masks[0].items()} if masks else {}
        states, masks = [*states, initial], [*masks, dense]
    return _measured(states, masks, near=_NEAR)


def distance(
    a: State, mask_a: Mapping[str, Tensor], b: State, mask_b: Mapping[str, Tensor]
) -> Distance:
    """Measure two networks; angles as small as 1e-15 are told from none.

    The angle is 2 atan2(abs(u - v), abs(u + v)) of the unit vectors u and v: arccos of the cosine
    sees none below 1e-8 in float64, and none below 3e-4 in float32.

    Raises:
        ElthError: weights and masks do not fit each other.
    """
    return _measured([a, b], [mask_a, mask_b], near=math.inf).of(0, 1)


def angular(
    a: State, mask_a: Mapping[str, Tensor], b: State, mask_b: Mapping[str, Tensor]
) -> float:
    """The angular distance d of two networks (Maene et al. 2021, section 3), in [0, 2]."""
    return distance(a, mask_a, b, mask_b).angular


def cosine_similarity(
    a: State, mask_a: Mapping[str, Tensor], b: State, mask_b: Mapping[str, Tensor]
) -> float:
    """The cosine of two networks, in [-1, 1]; Maene et al. 2021, figure 10, plots this."""
    return distance(a, mask_a, b, mask_b).cosine


def l2_shared(
    a: State, mask_a: Mapping[str, Tensor], b: State, mask_b: Mapping[str, Tensor]
) -> float:
    """The Euclidean distance of two networks by the weights that both keep."""
    return distance(a, mask_a, b, mask_b).l2_shared


def l2_full(
    a: State, mask_a: Mapping[str, Tensor], b: State, mask_b: Mapping[str, Tensor]
) -> float:
    """The Euclidean distance of two whole vectors; figure 11 of Maene et al. 2021 plots this."""
    return distance(a, mask_a, b, mask_b).l2_full


def _measured(
    states: Sequence[State], masks: Sequence[Mapping[str, Tensor]], *, near: float
) -> Distances:
    count = len(states)
    inner, squares, common = torch.zeros(3, count, count, dtype=torch.float64)
    for weights, kept in parts(states, masks):
        on = kept.double()
        inner += weights @ weights.T
        squares += weights.square() @ on.T
        common += on @ on.T
    inner = (inner + inner.T) / 2
    mine, theirs = squares, squares.T  # (i, j): of i's and of j's weights what both keep, squared
    whole = squares.diagonal()
    cosine = inner / (mine.sqrt() * theirs.sqrt())
    cosine[~(torch.isfinite(cosine) & torch.isfinite(mine + theirs))] = math.nan
    cosine = cosine.clamp(-1, 1)
    result = Distances(
        angular=torch.arccos(cosine) * (2 / math.pi),
        cosine=cosine,
        l2_shared=(mine + theirs - 2 * inner).clamp(min=0).sqrt(),
        l2_full=(whole[:, None] + whole - 2 * inner).clamp(min=0).sqrt(),
        kept=tuple(int(kept) for kept in common.diagonal()),
        total=sum(m.numel() for m in masks[0].values()),
    )
    closely = torch.nonzero(torch.triu(1 - cosine.abs() <= near)).tolist()
    _look_closely(result, states, masks, squares.sqrt(), closely)
    result.l2_shared[common == 0] = math.nan
    return result


def _look_closely(
    result: Distances,
    states: Sequence[State],
    masks: Sequence[Mapping[str, Tensor]],
    norms: Tensor,
    pairs: Iterable[tuple[int, int]],
) -> None:
    """Measure pairs by differences, in place; ``norms`` (i, j) is i's of what both keep."""
    sums = {(i, j): torch.zeros(4, dtype=torch.float64) for i, j in pairs}
    if not sums:
        return
    for weights, kept in parts(states, masks):
        for (i, j), found in sums.items():
            both = kept[i] & kept[j]
            a, b = (torch.where(both, weights[k], 0.0) for k in (i, j))
            u, v = a / norms[i, j], b / norms[j, i]
            for place, difference in enumerate((u - v, u + v, a - b, weights[i] - weights[j])):
                found[place] += difference @ difference
    for (i, j), found in sums.items():
        apart, together, shared, full = found.sqrt()
        result.angular[i, j] = result.angular[j, i] = torch.atan2(apart, together) * (4 / math.pi)
        result.l2_shared[i, j] = result.l2_shared[j, i] = shared
        result.l2_full[i, j] = result.l2_full[j, i] = full
