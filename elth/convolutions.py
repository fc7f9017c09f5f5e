"""Convolutions without faults of processors' kernels: the same function, by shapes that are sound.

oneDNN, to which PyTorch gives convolutions on processors, is wrong without a word for two kinds of
them (seen with PyTorch 2.13; ``make numerics`` looks for more):

* The weight gradient of a 1x1 convolution with a stride, where the input lies in channels-last
  layout, the instruction set is AVX2 and there are 2 to 7 channels, is written past the end of a
  workspace: it is wrong by as much as its own size, or the process dies. Here the pixels that count
  are taken by a slice, and what is left is a convolution of stride 1.
* The weight gradient in bfloat16 with AVX-512 of a convolution with a stride and padding, where the
  image is narrower than the stride, is partly read from memory that nobody has written; with three
  sides wherever the image is narrower than the kernel, and sometimes in float32. Here the taps of a
  kernel that meet nothing but padding are left out, and zeros are put around such an image first.

It holds in training, evaluation and second derivatives alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_KNOWN = ("torch.nn.", "torchvision.", "elth.")
"""Where modules are from that convolve by the modules of ``torch.nn`` alone."""


def convolve(
    convolution: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Do a convolution by a shape for which kernels are sound.

    Args:
        convolution: ``F.conv1d``, ``F.conv2d`` or ``F.conv3d``; the rest are its arguments.
        input: (N, C, *sides) or (C, *sides).
        weight: (out, C / groups, *kernel).
        bias: (out,).
        stride: of each side, or of all.
        padding: likewise, or ``"valid"`` or ``"same"``.
        dilation: likewise.
        groups: into how many the channels are divided.
    """
    kernel = weight.shape[2:]
    steps = _each(stride, len(kernel))
    if is_strided_pixel(kernel, steps, padding):
        places: Any = (..., *(slice(None, None, step) for step in steps))
        return convolution(input[places], weight, bias, groups=groups)
    if is_suspect(steps, padding):
        spaces = _each(dilation, len(kernel))
        around = _around(padding, kernel, spaces)
        sides = input.shape[-len(kernel) :]
        along = [
            _Along(_count(*of_side), *of_side)
            for of_side in zip(sides, kernel, steps, around, spaces, strict=True)
        ]
        if any(one.is_at_fault(len(kernel)) for one in along):
            return _padded_first(convolution, input, weight, bias, groups, along)
    return convolution(input, weight, bias, stride, padding, dilation, groups)


def is_strided_pixel(
    kernel: Sequence[int], stride: Sequence[int], padding: int | str | Sequence[int]
) -> bool:
    """Whether a convolution looks at single pixels, and passes over some."""
    if isinstance(padding, str):
        padded = False  # a kernel of one pixel needs none
    else:
        padded = any((padding,) if isinstance(padding, int) else padding)
    return all(k == 1 for k in kernel) and any(s > 1 for s in stride) and not padded


def is_suspect(stride: Sequence[int], padding: int | str | Sequence[int]) -> bool:
    """Whether a convolution may be computed wrongly where taps meet nothing but padding."""
    if len(stride) < 3 and all(s == 1 for s in stride):
        return False
    return padding == "same" or (
        not isinstance(padding, str) and any((padding,) if isinstance(padding, int) else padding)
    )


def _each(value: int | Sequence[int], sides: int) -> tuple[int, ...]:
    given = (value,) if isinstance(value, int) else tuple(value)
    return given * sides if len(given) == 1 else given


def _around(
    padding: int | str | Sequence[int], kernel: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """Zeros before and after each side."""
    if isinstance(padding, str):
        whole = [
            d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)
        ]
        return [(both // 2, both - both // 2) for both in whole]
    return [(one, one) for one in _each(padding, len(kernel))]


def _count(side: int, kernel: int, stride: int, around: tuple[int, int], dilation: int) -> int:
    """Places of the result along a side."""
    return (side + sum(around) - dilation * (kernel - 1) - 1) // stride + 1


class _Along:
    """A convolution along one side: which taps of its kernel meet pixels."""

    def __init__(
        self,
        count: int,
        side: int,
        kernel: int,
        stride: int,
        around: tuple[int, int],
        dilation: int,
    ) -> None:
        self.count, self.side, self.kernel = count, side, kernel
        self.stride, self.before, self.dilation = stride, around[0], dilation
        used = [tap for tap in range(kernel) if self._meets(tap)]
        self.first, self.last = (used[0], used[-1]) if used else (0, -1)

    def _meets(self, tap: int) -> bool:
        """Whether it is at a pixel at any of the places."""
        at = tap * self.dilation - self.before  # where it is at the first place
        place = max(0, -(at // self.stride))  # the first one at which it is not before the pixels
        return place < self.count and at + place * self.stride < self.side

    def is_at_fault(self, sides: int) -> bool:
        """Whether kernels get it wrong, if there are so many sides.

        Where taps meet nothing but padding; of three sides, where there is no place at which all
        of them meet a pixel.
        """
        if self.first > 0 or self.last < self.kernel - 1:
            return True
        place = -(-self.before // self.stride)  # the first one that is not before the pixels
        end = place * self.stride - self.before + (self.kernel - 1) * self.dilation
        return sides == 3 and (place >= self.count or end >= self.side)

    @property
    def step(self) -> int:
        """The stride, which is nothing to a single place."""
        return self.stride if self.count > 1 and self.last >= 0 else 1

    def margins(self) -> tuple[int, int]:
        """What to add before and after the pixels, or to take from them, for those taps alone."""
        if self.last < 0:
            return self.count, -self.side  # zeros alone
        end = (self.count - 1) * self.stride + self.last * self.dilation - self.before
        return self.before - self.first * self.dilation, end - (self.side - 1)


def _cropped(weight: Tensor, along: Sequence[_Along]) -> Tensor:
    """The kernel of the taps that meet pixels, and of the first one where there are none."""
    places: Any = (..., *(slice(one.first, max(one.last, 0) + 1) for one in along))
    return weight[places]


def _margins(pairs: Sequence[tuple[int, int]]) -> list[int]:
    """As ``F.pad`` takes them, from the last side to the first."""
    return [one for pair in reversed(pairs) for one in pair]


def _padded_first(
    convolution: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    along: Sequence[_Along],
) -> Tensor:
    """The convolution of the taps that meet pixels, without padding of its own."""
    input = F.pad(input, _margins([one.margins() for one in along]))
    steps, spaces = [one.step for one in along], [one.dilation for one in along]
    return convolution(input, _cropped(weight, along), bias, steps, 0, spaces, groups)


def convolve_transposed(
    convolution: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Do a transposed convolution by a shape for which kernels are sound.

    Args:
        convolution: ``F.conv_transpose1d``, ``2d`` or ``3d``; the rest are its arguments.
        input: (N, C, *sides) or (C, *sides).
        weight: (C, out / groups, *kernel).
        bias: (out,).
        stride: of each side of the result, or of all.
        padding: what is cut off each side of the result, before and after, or off all.
        output_padding: what is added to each side of the result, or to all.
        groups: into how many the channels are divided.
        dilation: of each side, or of all.
    """
    kernel = weight.shape[2:]
    steps = _each(stride, len(kernel))
    if is_suspect(steps, padding):
        spaces, cut = _each(dilation, len(kernel)), _each(padding, len(kernel))
        more = _each(output_padding, len(kernel))
        sides = input.shape[-len(kernel) :]
        # A tap of it takes a pixel to where one of the convolution back would have fetched it.
        results = [
            (side - 1) * step - 2 * p + space * (k - 1) + 1 + extra
            for side, k, step, p, space, extra in zip(
                sides, kernel, steps, cut, spaces, more, strict=True
            )
        ]
        along = [
            _Along(side, result, k, step, (p, p), space)
            for side, result, k, step, p, space in zip(
                sides, results, kernel, steps, cut, spaces, strict=True
            )
        ]
        if any(one.is_at_fault(len(kernel)) for one in along):
            whole = convolution(
                input,
                _cropped(weight, along),
                None,
                [one.step for one in along],
                0,
                0,
                groups,
                list(spaces),
            )
            margins = []
            for one, length in zip(along, whole.shape[-len(along) :], strict=True):
                before = one.first * one.dilation - one.before if one.last >= 0 else one.side
                margins.append((before, one.side - before - length))
            whole = F.pad(whole, _margins(margins))
            return whole if bias is None else whole + bias.view(-1, *(1,) * len(along))
    return convolution(input, weight, bias, stride, padding, output_padding, groups, dilation)


class _Safe:
    """A convolution of ``torch.nn`` that is computed so."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        module: Any = self
        return convolve(
            module.convolution,
            input,
            weight,
            bias,
            module.stride,
            module.padding,
            module.dilation,
            module.groups,
        )


class SafeConv1d(_Safe, nn.Conv1d):
    """``nn.Conv1d`` of a shape for which kernels are at fault."""

    convolution = staticmethod(F.conv1d)


class SafeConv2d(_Safe, nn.Conv2d):
    """``nn.Conv2d`` of a shape for which kernels are at fault."""

    convolution = staticmethod(F.conv2d)


class SafeConv3d(_Safe, nn.Conv3d):
    """``nn.Conv3d`` of a shape for which kernels are at fault."""

    convolution = staticmethod(F.conv3d)


_SAFE: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: SafeConv1d,
    nn.Conv2d: SafeConv2d,
    nn.Conv3d: SafeConv3d,
}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def arrange_convolutions(network: nn.Module) -> None:
    """Let the network's convolutions be computed by ``convolve`` where kernels may be at fault.

    In place: the modules stay the same objects with the same parameters, and compute the same
    function. Those that are none of ``torch.nn``'s own, transposed ones, and functions that a
    network calls, are left to ``safe_convolutions``.
    """
    for module in network.modules():
        kind = _SAFE.get(type(module))
        if kind is not None and _is_exposed(module):
            convolution: Any = module
            if convolution.padding_mode == "zeros":
                convolution.__class__ = kind


def _is_exposed(convolution: Any) -> bool:
    stride, padding = convolution.stride, convolution.padding
    return is_strided_pixel(convolution.kernel_size, stride, padding) or is_suspect(stride, padding)


class _Mode(TorchFunctionMode):
    """Computes every convolution that is called while it is entered by ``convolve``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.conv2d, F.conv1d, F.conv3d):
            return convolve(func, *args, **(kwargs or {}))
        if func in (F.conv_transpose2d, F.conv_transpose1d, F.conv_transpose3d):
            return convolve_transposed(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def calls_others(network: nn.Module) -> bool:
    """Whether a network may convolve in ways that ``arrange_convolutions`` does not reach.

    That are modules of other packages than PyTorch, torchvision and ``elth``, which may call
    functions, and convolutions that are transposed, or of ``torch.nn``'s kind and of a class of
    their own.
    """
    for module in network.modules():
        if not type(module).__module__.startswith(_KNOWN):
            return True
        others = isinstance(module, _TRANSPOSED) or (
            isinstance(module, tuple(_SAFE)) and not isinstance(module, _Safe)
        )
        if others and _is_exposed(module):
            return True
    return False


def safe_convolutions() -> contextlib.AbstractContextManager[Any]:
    """A context in which function calls of convolutions are computed by ``convolve``.

    It looks at every call of PyTorch's functions, which costs some microseconds each: a network of
    which ``calls_others`` is false needs none.
    """
    return _Mode()
