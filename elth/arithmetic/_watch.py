"""A step of a network, watched: each operation is compared with float64 as it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from elth.arithmetic._compare import deviations, is_compared

_GRADIENTS = ("input gradient", "weight gradient", "bias gradient")


@dataclass(frozen=True, kw_only=True)
class Worst:
    """The largest error of all that were found, by what is allowed for it."""

    layer: str
    """The module whose operation it was, as ``layer2.0.downsample.0``."""
    what: str
    """``output``, ``input gradient``, ``weight gradient`` or ``bias gradient``."""
    times: float
    """Error over what is allowed: above 1 it is too large."""
    relative: float
    """Norm of the error over the norm of the exact tensor."""


class Watch(TorchDispatchMode):
    """A context in which convolutions and matrix products are compared with float64.

    Each gets the inputs and the upstream gradient that were really there, so the errors of one
    layer are no errors of the next.
    """

    worst: Worst | None = None
    """The largest error so far."""
    compared: int = 0
    """How many operations were compared."""

    def __init__(self, network: nn.Module, *, unit: float | None = None) -> None:
        """Note which weights are whose.

        Args:
            network: its modules name the operations.
            unit: unit roundoff, where it is not that of the type (TF32).
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._unit = unit
        self._layers: dict[int, str] = {}
        self._inputs: dict[int, str] = {}
        self._kept: list[Tensor] = []  # or another tensor might come to lie in the same place
        for name, module in network.named_modules():
            for parameter in module.parameters(recurse=False):
                self._layers[_place(parameter)] = name

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation and compare it."""
        kwargs = kwargs or {}
        layer, is_of_weight = self._layer_of(args)
        result = func(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default and is_of_weight:  # as autocast has it
            self._layers[_place(result)] = layer
            self._kept.append(result)
        if not is_compared(func):
            return result
        in_backward = torch._C._current_graph_task_id() != -1
        if is_of_weight and not in_backward:
            for tensor in args:
                if isinstance(tensor, Tensor) and _place(tensor) not in self._layers:
                    self._inputs[_place(tensor)] = layer
                    self._kept.append(tensor)
        for one in deviations(func, args, kwargs, result, unit=self._unit):
            self.compared += 1
            if self.worst is not None and one.times <= self.worst.times:
                continue
            what = "output"
            if func is torch.ops.aten.convolution_backward.default:
                what = _GRADIENTS[one.output]
            elif in_backward:
                what = _GRADIENTS[0 if is_of_weight else 1]
            self.worst = Worst(
                layer=layer,
                what=what,
                times=one.times,
                relative=one.relative,
            )
        return result

    def _layer_of(self, args: Any) -> tuple[str, bool]:
        """The layer of an operation, and whether one of its arguments is a weight of that layer."""
        places = [_place(one) for one in args if isinstance(one, Tensor)]
        for place in places:
            if place in self._layers:
                return self._layers[place], True
        for place in places:
            if place in self._inputs:
                return self._inputs[place], False
        return "an operation without weights", False


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
