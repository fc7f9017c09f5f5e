"""Convolutions of processors without a fault of theirs: strided ones of one pixel.

oneDNN computes the weight gradient of a 1x1 convolution with a stride by gathering the pixels that
count into a workspace first. For inputs in channels-last layout with more than one and fewer
channels than a vector holds, it writes past the end of it: the gradient is wrong, by as much as its
own size, or the process dies (seen with PyTorch 2.13 where the instruction set is AVX2, channels 2
to 7; ``make numerics`` looks for it). Here the pixels are gathered by a slice, and what is left is
a convolution of stride 1, in training, evaluation and second derivatives alike.
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


def in_unit_steps(
    convolution: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Do a convolution, a strided one of one pixel as a slice and one of stride 1.

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
    sides = weight.dim() - 2
    steps = (stride,) * sides if isinstance(stride, int) else tuple(stride)
    if len(steps) == 1:
        steps *= sides
    if is_strided_pixel(weight.shape[2:], steps, padding):
        places: Any = (..., *(slice(None, None, step) for step in steps))
        input = input[places]
        return convolution(input, weight, bias, groups=groups)
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


class _UnitSteps:
    """A convolution of ``torch.nn`` that is computed so."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        module: Any = self
        return in_unit_steps(
            module.convolution, input, weight, bias, module.stride, groups=module.groups
        )


class UnitStepConv1d(_UnitSteps, nn.Conv1d):
    """``nn.Conv1d`` of kernel 1 with a stride."""

    convolution = staticmethod(F.conv1d)


class UnitStepConv2d(_UnitSteps, nn.Conv2d):
    """``nn.Conv2d`` of kernel 1 with a stride."""

    convolution = staticmethod(F.conv2d)


class UnitStepConv3d(_UnitSteps, nn.Conv3d):
    """``nn.Conv3d`` of kernel 1 with a stride."""

    convolution = staticmethod(F.conv3d)


_SOUND: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: UnitStepConv1d,
    nn.Conv2d: UnitStepConv2d,
    nn.Conv3d: UnitStepConv3d,
}


def arrange_convolutions(network: nn.Module) -> None:
    """Let the network's strided convolutions of one pixel be computed as a slice, in place.

    The modules stay the same objects with the same parameters, and compute the same function.
    Those that are none of ``torch.nn``'s own, and functions that a network calls, are left to
    ``unit_steps``.
    """
    for module in network.modules():
        kind = _SOUND.get(type(module))
        if kind is None:
            continue
        convolution: Any = module
        is_zeros = convolution.padding_mode == "zeros"
        if is_zeros and is_strided_pixel(
            convolution.kernel_size, convolution.stride, convolution.padding
        ):
            convolution.__class__ = kind


class _Mode(TorchFunctionMode):
    """Computes every convolution that is called while it is entered by ``in_unit_steps``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.conv2d, F.conv1d, F.conv3d):
            return in_unit_steps(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def calls_others(network: nn.Module) -> bool:
    """Whether a network may convolve in ways that ``arrange_convolutions`` does not reach.

    That are modules of other packages than PyTorch, torchvision and ``elth``, which may call
    functions, and convolutions that are of ``torch.nn``'s kind and have a class of their own.
    """
    for module in network.modules():
        if not type(module).__module__.startswith(_KNOWN):
            return True
        if isinstance(module, tuple(_SOUND)) and not isinstance(module, _UnitSteps):
            convolution: Any = module
            if is_strided_pixel(convolution.kernel_size, convolution.stride, convolution.padding):
                return True
    return False


def unit_steps() -> contextlib.AbstractContextManager[Any]:
    """A context in which no function call is a strided convolution of one pixel.

    It looks at every call of PyTorch's functions, which costs some microseconds each: a network of
    which ``calls_others`` is false needs none.
    """
    return _Mode()
