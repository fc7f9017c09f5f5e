"""One operation of PyTorch against the same operation in float64, with a bound for its rounding.

A sum of n products x * w, computed in float32 (unit roundoff u), differs from the exact one by
about ``u * sqrt(n) * sum |x| |w|`` (Higham & Mary 2019, theorem 2.4 and its use for inner products;
the worst case has n for the root). Convolutions, matrix products and their gradients are such sums,
and ``sum |x| |w|`` is the same operation on absolute values.

Where factors or results are narrower (TF32, bfloat16), their products are still added in float32:
u = 2^-8 in that bound would allow anything from n = 256 on. What is narrow adds its own roundoff
times the size of the result, ``|sum x w|``, and of sums on the way to it, ``sqrt(sum x^2 w^2)``.
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
"""A result may be off by so many times the bound of float32.

Generous: sound kernels have been off by less than twice (docs/numerics.md), those that transform
their input (Winograd's) lose another three bits, and one that writes where it should not is off by
tens of thousands."""
NARROW = 64.0
"""And by so many roundoffs of what is narrow: a processor that has no bfloat16 of its own adds the
images of a batch in it, and loses up to ten at sixteen images."""

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
        unit: unit roundoff of the factors, where it is not that of the result's type (TF32).
    """
    exact = _tensors(operation(*_double(args), **_double(kwargs)))
    found = _tensors(result)
    if all(own is None or own.dtype not in UNIT for own in found):
        return []
    narrow = unit or max(UNIT.get(own.dtype, 0.0) for own in found if own is not None)
    sizes = _sums(operation, args, kwargs, 1)
    squares = _sums(operation, args, kwargs, 2) if narrow > UNIT[torch.float32] else sizes
    told = []
    for index, (own, true) in enumerate(zip(found, exact, strict=True)):
        size, square = sizes[index], squares[index]
        if own is None or true is None or size is None or square is None:
            continue
        # Where both are no number, or infinite alike, the network itself has made it so.
        same = (own.double() == true) | (own.isnan() & true.isnan())
        error = torch.where(same, 0.0, (own.double() - true).abs())
        terms = _SUMS[operation](args)[index][0]
        # The second term is for the last rounding, and for numbers too small to be normal ones.
        allowed = size.double() * (FACTOR * UNIT[torch.float32] * math.sqrt(terms))
        allowed += 2 * UNIT[torch.float32] * true.abs() + torch.finfo(torch.float32).tiny
        if narrow > UNIT[torch.float32]:
            allowed += NARROW * narrow * (true.abs() + square.double().sqrt())
        times = torch.where(error == 0, 0.0, error / allowed)
        largest = float(torch.nan_to_num(times, nan=math.inf).max()) if times.numel() else 0.0
        norm = float(torch.linalg.vector_norm(torch.where(true.isfinite(), true, 0.0)))
        relative = float(torch.linalg.vector_norm(error)) / norm if norm else 0.0
        told.append(Deviation(index, largest, relative))
    return told


_LARGEST = torch.finfo(torch.float32).max


def _sums(
    operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any], power: int
) -> list[Tensor | None]:
    """For each result ``sum |x|^p |w|^p``, of floating point.

    The sums are computed in float32, by kernels that are in doubt themselves; float64 would take
    many times as long. So they count up to the largest that they can be, and one that is no number
    allows nothing.
    """
    sums = _tensors(operation(*_powers(args, power), **_powers(kwargs, power)))
    return [
        None if total is None else total.nan_to_num(nan=0.0).abs_().clamp_(max=min(most, _LARGEST))
        for total, (_, most) in zip(sums, _SUMS[operation](_powers(args, power)), strict=True)
    ]


def _tensors(value: Any) -> list[Tensor | None]:
    """The results of an operation that may have several, of which some are not asked for."""
    results: Iterable[Any] = (value,) if isinstance(value, Tensor) else value
    return [one if isinstance(one, Tensor) and one.numel() else None for one in results]


def _double(value: Any) -> Any:
    """The same arguments in float64, tensors copied."""
    return _mapped(value, lambda tensor: tensor.to(torch.float64, copy=True))


def _powers(value: Any, power: int) -> Any:
    """Their absolute values to a power, in float32; of what is no finite number 0."""

    def powers(tensor: Tensor) -> Tensor:
        return tensor.float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs_() ** power

    return _mapped(value, powers)


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value.detach()) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: _mapped(one, function) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(one, function) for one in value)
    return value
