"""One operation of PyTorch against the same operation in float64, with a bound for its rounding.

A sum of n products x * w, computed in an arithmetic of unit roundoff u, differs from the exact one
by about ``u * sqrt(n) * sum |x| |w|`` (Higham & Mary 2019, theorem 2.4 and its use for inner
products; the worst case has n for the root). Convolutions, matrix products and their gradients are
such sums, and ``sum |x| |w|`` is the same operation on absolute values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
"""Unit roundoff by type."""
TF32_UNIT = 2.0**-11
"""Unit roundoff of the factors of a product in TF32."""
FACTOR = 16.0
"""A result may be off by so many times the bound.

Sound kernels were never off by more than 1.3 times (docs/numerics.md), those that transform their
input (Winograd's) lose another three bits, and one that writes where it should not is off by tens
of thousands."""

aten = torch.ops.aten


@dataclass(frozen=True)
class Deviation:
    """How far a tensor that an operation gave is from the exact one."""

    output: int
    """Which of the operation's results."""
    times: float
    """Largest error over what is allowed; infinite where a number is none that should be one."""
    relative: float
    """Norm of the error over the norm of the exact tensor."""


Sum = tuple[float, float]
"""Number of terms of a sum of products, and the largest that the sum of their sizes can be."""


def _largest(tensor: Tensor | None) -> float:
    return 0.0 if tensor is None or not tensor.numel() else float(tensor.detach().abs().max())


def _sum(terms: float, x: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Sum:
    factor = 1.0 if weight is None else _largest(weight)
    return terms, terms * _largest(x) * factor + _largest(bias)


def _convolution(args: Sequence[Any]) -> list[Sum]:
    x, weight, bias, transposed = args[0], args[1], args[2], args[6]
    return [_sum(weight.numel() / weight.shape[1 if transposed else 0], x, weight, bias)]


def _convolution_backward(args: Sequence[Any]) -> list[Sum]:
    gradient, x, weight, transposed = args[0], args[1], args[2], args[7]
    inner = weight.numel() / weight.shape[0 if transposed else 1]
    places = gradient.numel() / max(1, gradient.shape[1])
    pairs = x.numel() / max(1, x.shape[1]) if transposed else places
    return [_sum(inner, gradient, weight), _sum(pairs, gradient, x), _sum(places, gradient, None)]


def _product(first: int) -> Callable[[Sequence[Any]], list[Sum]]:
    def of(args: Sequence[Any]) -> list[Sum]:
        left, right = args[first : first + 2]
        return [_sum(float(left.shape[-1]), left, right, args[0] if first else None)]

    return of


_SUMS: dict[Any, Callable[[Sequence[Any]], list[Sum]]] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten.mm.default: _product(0),
    aten.bmm.default: _product(0),
    aten.addmm.default: _product(1),
    aten.baddbmm.default: _product(1),
}
"""Operations whose results are sums of products."""


def is_compared(operation: Any) -> bool:
    """Whether ``deviations`` has a bound for an operation."""
    return operation in _SUMS


def deviations(
    operation: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    result: Any,
    *,
    unit: float | None = None,
) -> list[Deviation]:
    """Compare the result of an operation with that in float64, on the device where it was computed.

    Args:
        operation: an overload in ``torch.ops.aten`` for which ``is_compared``.
        args: what it was given.
        kwargs: likewise.
        result: what it gave.
        unit: unit roundoff of a sum, where it is not that of the result's type.
    """
    exact = _tensors(operation(*_double(args), **_double(kwargs)))
    scales = _sizes(operation, args, kwargs)
    told = []
    for index, (own, true, scale) in enumerate(zip(_tensors(result), exact, scales, strict=True)):
        if own is None or true is None or scale is None or own.dtype not in UNIT:
            continue
        error = (own.double() - true).abs_()
        # The second term is for the last rounding, and for numbers too small to be normal ones.
        allowed = scale.double().mul_(FACTOR * (unit or UNIT[own.dtype]))
        allowed = allowed + (2 * UNIT[own.dtype] * true.abs() + torch.finfo(own.dtype).tiny)
        times = torch.where(error == 0, 0.0, error / allowed)
        largest = float(torch.nan_to_num(times, nan=math.inf).max()) if times.numel() else 0.0
        norm = float(torch.linalg.vector_norm(true))
        relative = float(torch.linalg.vector_norm(error)) / norm if norm else 0.0
        told.append(Deviation(index, largest, relative))
    return told


def _sizes(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor | None]:
    """For each result of a sum ``sqrt(n) * sum |x| |w|``.

    The sums are computed in float32, by kernels that are in doubt themselves; float64 would take
    many times as long. So they count up to the largest that they can be, and one that is no number
    allows nothing.
    """
    sums = _tensors(operation(*_absolute(args), **_absolute(kwargs)))
    return [
        None
        if total is None
        else total.nan_to_num(nan=0.0).abs_().clamp_(max=most).mul_(math.sqrt(terms))
        for total, (terms, most) in zip(sums, _SUMS[operation](args), strict=True)
    ]


def _tensors(value: Any) -> list[Tensor | None]:
    """The results of an operation that may have several, of which some are not asked for."""
    results: Iterable[Any] = (value,) if isinstance(value, Tensor) else value
    return [one if isinstance(one, Tensor) and one.numel() else None for one in results]


def _double(value: Any) -> Any:
    """The same arguments in float64, tensors copied."""
    return _mapped(value, lambda tensor: tensor.to(torch.float64, copy=True))


def _absolute(value: Any) -> Any:
    """Their absolute values in float32."""
    return _mapped(value, lambda tensor: tensor.float().abs())


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value.detach()) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: _mapped(one, function) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(one, function) for one in value)
    return value
