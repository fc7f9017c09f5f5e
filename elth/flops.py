"""What a sparse network costs: floating-point operations of inference and of training.

Two conventions. RigL's (Evci et al. 2020, appendix H) counts, of every convolution and linear
layer, a multiplication and an addition for each weight at each place that it is applied, a bias and
a ReLU for each output, and nothing else; the backward pass is two forward ones. E-LTH's (footnote
2) is density times epochs, the density taken as that of all prunable weights at once.
Known without importing torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from elth.errors import ElthError, unknown

METHODS = ("dense", "static", "set", "snfs", "rigl", "gmp", "dpf")
"""Ways of training of which a step's cost is known; ``static`` is any with a fixed mask."""
DPF = ("elth", "careful")
"""How a step of DPF is counted: ``elth``: both products of the backward pass are dense, as E-LTH's
numbers have it; ``careful``: the gradient that is passed on goes through the masked weights, and
only that of the weights is dense."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one prunable weight has to do for one image, forward."""

    weights: int
    """Number of weights."""
    outputs: int
    """Output channels, or units."""
    macs: int
    """Multiplications with them, when none is pruned: each weight is applied at so many places."""
    made: int | None = None
    """Numbers that come out of the layer, where they are not its output channels at each place that
    a weight is applied: a transposed convolution with a stride makes more. None where they are, and
    in a cost that was stored before it told."""

    @property
    def values(self) -> Fraction:
        """Numbers that come out of the layer for one image."""
        if self.made is not None:
            return Fraction(self.made)
        return Fraction(self.macs * self.outputs, self.weights)


@dataclass(frozen=True)
class Cost:
    """The layers of a network for images of a size."""

    layers: Mapping[str, Layer]
    """By name of the weight."""
    other: int = 0
    """Multiplications of no prunable weight, as those of attention among tokens: never sparse."""

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Cost:
        """Read what ``plain`` gave."""
        layers = {
            name: Layer(weights=weights, outputs=outputs, macs=macs, made=next(iter(made), None))
            for name, (weights, outputs, macs, *made) in plain["layers"].items()
        }
        return Cost(layers, plain["other"])

    def plain(self) -> dict[str, Any]:
        """As JSON values: of each layer weights, outputs and multiplications.

        And a fourth number, what the layer makes, where that does not follow from those.
        """
        layers = {
            name: [one.weights, one.outputs, one.macs, *([] if one.made is None else [one.made])]
            for name, one in self.layers.items()
        }
        return {"layers": layers, "other": self.other}

    def macs(self, kept: Mapping[str, int | Fraction] | None = None) -> Fraction:
        """Multiplications for one image, forward.

        Args:
            kept: how many weights each layer keeps; all of those that are not named.
        """
        return sum(
            (layer.macs * self._density(name, kept) for name, layer in self.layers.items()),
            Fraction(self.other),
        )

    def inference(self, kept: Mapping[str, int | Fraction] | None = None) -> Fraction:
        """Operations for one image, forward (Evci et al. 2020, appendix H).

        Of a layer with v inputs to each of its n output values, of density d: n (2 v d + 1).

        Args:
            kept: how many weights each layer keeps; all of those that are not named.

        Example:
            >>> cost = Cost({"w": Layer(weights=288, outputs=8, macs=10_368)})
            >>> int(cost.inference()), int(cost.inference({"w": 144}))
            (21024, 10656)
        """
        return 2 * self.macs(kept) + sum(layer.values for layer in self.layers.values())

    def _density(self, name: str, kept: Mapping[str, int | Fraction] | None) -> Fraction:
        weights = self.layers[name].weights
        found = weights if kept is None else kept.get(name, weights)
        if not 0 <= found <= weights:
            raise ElthError(f"'{name}' has {weights:,} weights, and cannot keep {found}")
        return Fraction(found) / weights


def step(
    method: str,
    sparse: Fraction,
    dense: Fraction,
    *,
    every: int = 100,
    batches: int = 1,
    dpf: str = "careful",
) -> Fraction:
    """Operations of an iteration, for each of its images.

    Updates of a mask, the optimiser and batch normalisation are not counted.

    Args:
        method: one of ``METHODS``. One whose density changes has the cost of the density at hand.
        sparse: operations of inference with the mask.
        dense: those without.
        every: iterations between two updates of RigL's mask.
        batches: in how many of them its dense gradient is needed.
        dpf: how one of DPF is counted, one of ``DPF``.

    Example:
        >>> round(float(step("rigl", Fraction(10_656), Fraction(21_024))), 3)
        32070.653

    Raises:
        ElthError: an unknown method, or an unknown way of counting.
    """
    if method not in METHODS:
        raise unknown("way of training, to be counted", method, METHODS)
    if dpf not in DPF:
        raise unknown("way of counting DPF", dpf, DPF)
    if method == "dense":
        return 3 * dense
    if method == "snfs":
        return 2 * sparse + dense
    if method == "rigl":
        return (3 * sparse * (every + 1 - batches) + batches * (2 * sparse + dense)) / (every + 1)
    if method == "dpf":
        return sparse + 2 * dense if dpf == "elth" else 2 * sparse + dense
    return 3 * sparse


def elth_units(
    kept: Iterable[int | Fraction], weights: int, *, epochs: float = 1, ratio: float = 1
) -> Fraction:
    """Cost of trainings in units of one dense run, by E-LTH's footnote 2: density times length.

    Args:
        kept: how many weights each of the trainings has.
        weights: prunable weights of the network.
        epochs: length of each, in lengths of the dense run.
        ratio: what the network costs, dense, in units of the one that is 1.

    Example: RigL-5x on ResNet-34 at 73.79 % sparsity, 1.31; the paper rounds to .26 first.
        >>> round(float(elth_units([262_144], 1_000_000, epochs=5)), 2)
        1.31
    """
    return Fraction(sum(kept)) / weights * Fraction(str(epochs)) * Fraction(str(ratio))
