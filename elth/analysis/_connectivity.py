"""Which weights lie on a path from the input to the output, by the network's own forward pass.

Whether there is a path is a yes or no, so nothing is summed up along the way that could overflow or
vanish, however deep the network is: each layer is computed for those of its inputs that the image
reaches, and tells anew what is reached; backwards likewise from the logits. What lies between the
layers, as additions, poolings and reshapes, is done by the network itself, and handed back by its
own gradients, so no anatomy is needed.

* What is reached is told by numbers from 1/2 to 1, drawn for each value by itself, and what is not
  by 0. Of equal numbers nothing would be left where a network subtracts a mean of its own.
* The network is run twice: with an image of zeros, which tells what each layer sees without an
  image, and with one of such numbers. What differs is reached by the image. So constants make no
  path, whether biases, learned places or class tokens, in whatever way a network comes to them.
* Normalisations hand on each value by itself: that their statistics mix values is no path. One
  that a network writes out mixes them, as what it computes is not known.
* Max-pooling hands on each of its values, and so is done as a mean; nothing is dropped.
* A layer that makes another weight of its own, as one that is standardised, goes by what the mask
  keeps of its own.
* Attention mixes all tokens, whatever is masked. Its results are reached through the values;
  queries and keys are on a path where the other of the two and a value are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from elth.convolutions import convolve, convolve_transposed
from elth.errors import ElthError
from elth.masks import Mask
from elth.networks import prunable
from elth.specs import DataShape
from elth.streams import seed_defaults


def connected(
    network: nn.Module, mask: Mapping[str, Tensor], shape: DataShape
) -> tuple[Mask, Tensor]:
    """Find the weights on paths of kept weights, and the logits that an image reaches.

    Args:
        network: its weights do not matter, and it is left as it is.
        mask: which weights are kept.
        shape: of the images.

    Returns:
        Those weights of the mask that are on a path, and of each logit whether it is on one
        (classes,); on the CPU.

    Raises:
        ElthError: the mask does not fit the network, the network gives no logits, or they are not
            reached even where all weights are kept.
    """
    _check(network, mask)
    found, reached = _followed(network, mask, shape)
    if not bool(reached.any()):
        whole = {name: torch.ones_like(m) for name, m in mask.items()}
        if not bool(_followed(network, whole, shape)[1].any()):
            raise ElthError(
                f"no logit of {type(network).__name__} depends on the image even where all weights "
                "are kept, as far as this measure can follow the network: expected a path through "
                "PyTorch's own functions (torch.nn.functional); leave the measure out for it"
            )
    return found, reached


def _followed(
    network: nn.Module, mask: Mapping[str, Tensor], shape: DataShape
) -> tuple[Mask, Tensor]:
    drawn = _Drawn()
    model = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)  # neither the nothing of sums nor the one of products
        for name, m in mask.items():
            parameter = model.get_parameter(name)
            parameter.copy_(m.to(parameter.device) * drawn.like(parameter))
    calling = _calling(model)
    weights = [model.get_parameter(name).requires_grad_() for name in mask]
    like = weights[0]
    dark = torch.zeros((1, *shape.image), dtype=like.dtype, device=like.device)
    bright = drawn.like(dark)
    devices = [like.device] if like.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        seed_defaults(0, like.device)
        before = _Paths(drawn, calling)
        with before:
            without = _logits(model, dark)
        seed_defaults(0, like.device)
        with _Paths(drawn, calling, before.seen):
            logits = _logits(model, bright)
        reached = drawn.differs(logits, without)
        gradients = torch.autograd.grad(reached.sum(), weights, materialize_grads=True)
    found = {n: m.cpu() & (g != 0).cpu() for (n, m), g in zip(mask.items(), gradients, strict=True)}
    return found, (reached != 0).flatten().cpu()


def _check(network: nn.Module, mask: Mapping[str, Tensor]) -> None:
    names = prunable(network)
    for name in mask:
        if name not in names:
            raise ElthError(f"the mask names '{name}', which is no prunable weight of the network")
    for name in names:
        weight = network.get_parameter(name)
        if weight.is_meta:
            raise ElthError(f"'{name}' has no storage: build the network, a blueprint will not do")
        if name not in mask:
            raise ElthError(f"the mask of '{name}' is missing")
        if mask[name].shape != weight.shape or mask[name].dtype is not torch.bool:
            raise ElthError(
                f"the mask of '{name}' should be boolean of shape {tuple(weight.shape)}, found "
                f"{mask[name].dtype} {tuple(mask[name].shape)}"
            )
    if not names:
        raise ElthError("the network has no convolution, linear layer or attention")


def _logits(model: nn.Module, image: Tensor) -> Tensor:
    logits = model(image)
    if not isinstance(logits, Tensor):
        raise ElthError(f"the network gave a {type(logits).__name__} for an image; expected logits")
    return logits


def _calling(model: nn.Module) -> list[nn.Module]:
    """The layers that are being called, the innermost last; kept up to date by hooks."""
    calling: list[nn.Module] = []

    def begins(module: nn.Module, _: Any) -> None:
        calling.append(module)

    def ends(*_: Any) -> None:
        calling.pop()

    for name in prunable(model):
        owner, _, own = name.rpartition(".")
        if own == "weight":
            module = model.get_submodule(owner)
            module.register_forward_pre_hook(begins)
            module.register_forward_hook(ends)
    return calling


class _Drawn:
    """Numbers from 1/2 to 1, each by itself and the same in every process."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def like(self, value: Tensor) -> Tensor:
        """Of the shape, type and device of a value; 1/2 is one of them, 1 is not."""
        numbers = torch.rand(value.shape, generator=self._generator)
        return (0.5 + numbers / 2).to(value)

    def differs(self, value: Tensor, other: Tensor | float = 0.0) -> Tensor:
        """Such a number where two values differ, as float32; backwards where a gradient is not 0.

        Elsewhere 0.
        """
        return _Differs.apply(value, other, self)  # type: ignore[no-untyped-call]


class _Differs(torch.autograd.Function):
    """``_Drawn.differs``."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, other: Tensor | float, drawn: _Drawn) -> Tensor:
        ctx.dtype, ctx.drawn = value.dtype, drawn
        differs = (value != other).float()
        return differs * drawn.like(differs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        reached = (gradients[0] != 0).to(ctx.dtype)
        return reached * ctx.drawn.like(reached), None, None


class _Paths(TorchFunctionMode):
    """Computes layers for what is reached; ``seen`` is what each saw without an image, in order."""

    def __init__(
        self, drawn: _Drawn, calling: list[nn.Module], seen: list[Tensor] | None = None
    ) -> None:
        super().__init__()
        self.drawn, self._calling = drawn, calling
        self.seen: list[Tensor] = [] if seen is None else seen
        self._without = None if seen is None else iter(seen)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        handler = _HANDLERS.get(func)
        if handler is None:
            return func(*args, **(kwargs or {}))
        return handler(self, func, *args, **(kwargs or {}))

    def reached(self, value: Tensor) -> Tensor:
        """Which values the image reaches; none while there is no image."""
        if self._without is None:
            self.seen.append(value.detach().clone())
            return torch.zeros_like(value, dtype=torch.float32)
        other = next(self._without, None)
        if other is None or other.shape != value.shape:
            raise ElthError(
                "the network calls other layers for an image of noise than for one of zeros, so "
                "that its paths cannot be told: it must do the same for all images"
            )
        return self.drawn.differs(value, other)

    def layer(
        self, product: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor
    ) -> Tensor:
        """The result of a layer, without its bias: reached by a kept weight of a reached value."""
        kept = self.drawn.differs(self._own(weight))
        return self.drawn.differs(product(self.reached(x), kept))

    def _own(self, weight: Tensor) -> Tensor:
        """The weight of the layer that is called, where it multiplies by one that it made of it."""
        if weight.grad_fn is None or weight._is_view() or not self._calling:
            return weight
        own = self._calling[-1].get_parameter("weight")
        return own if own.shape == weight.shape else weight


def _linear(paths: _Paths, _: Any, input: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    return paths.layer(F.linear, input, weight)


def _convolution(
    paths: _Paths,
    func: Any,
    input: Tensor,
    weight: Tensor,
    bias: Any = None,
    *args: Any,
    **more: Any,
) -> Tensor:
    return paths.layer(lambda x, w: convolve(func, x, w, None, *args, **more), input, weight)


def _transposed(
    paths: _Paths,
    func: Any,
    input: Tensor,
    weight: Tensor,
    bias: Any = None,
    *args: Any,
    **more: Any,
) -> Tensor:
    return paths.layer(
        lambda x, w: convolve_transposed(func, x, w, None, *args, **more), input, weight
    )


def _norm(paths: _Paths, _: Any, input: Tensor, *args: Any, **more: Any) -> Tensor:
    return paths.reached(input)


def _whole(_: _Paths, __: Any, input: Tensor, *args: Any, **more: Any) -> Tensor:
    return input


def _pooled(mean: Callable[..., Tensor]) -> Callable[..., Any]:
    def pool(
        _: _Paths,
        func: Any,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        if return_indices or dilation not in [1, (1,), (1, 1), (1, 1, 1)]:
            return func(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        return mean(input, kernel_size, stride, padding, ceil_mode)

    return pool


def _adaptively_pooled(mean: Callable[..., Tensor]) -> Callable[..., Any]:
    def pool(
        _: _Paths, func: Any, input: Tensor, output_size: Any, return_indices: bool = False
    ) -> Any:
        return func(input, output_size, True) if return_indices else mean(input, output_size)

    return pool


def _largest(_: _Paths, func: Any, input: Tensor, *args: Any, **more: Any) -> Any:
    """Of a dimension, or two: reached by all that it compares, and not by the largest alone."""
    other = args[0] if args else more.get("other")
    if isinstance(other, Tensor):
        return (input + other) / 2
    found = func(input, *args, **more)
    if isinstance(found, Tensor):
        return input.mean()
    dim = args[0] if args else more["dim"]
    return type(found)((input.mean(dim, found.values.dim() == input.dim()), found.indices))


def _extreme(
    _: _Paths, __: Any, input: Tensor, dim: Any = (), keepdim: bool = False, **more: Any
) -> Tensor:
    """Of some dimensions, or all: likewise."""
    return input.mean(dim, keepdim)


def _softmax(_: _Paths, __: Any, input: Tensor, dim: int | None = -1, *a: Any, **more: Any) -> Any:
    """Above 0, and each of its results reached by all that it compares."""
    finite = torch.where(torch.isfinite(input), input, 0.0)
    return (1 + finite.mean(-1 if dim is None else dim, keepdim=True)).expand(input.shape)


def _attended(
    paths: _Paths, _: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **more: Any
) -> Tensor:
    """Queries (..., tokens, width) of keys and values."""
    return _softmax(paths, None, query @ key.transpose(-2, -1)) @ value


def _multi_head(
    paths: _Paths,
    _: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    heads: int,
    in_weight: Tensor | None,
    in_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout: float,
    out_weight: Tensor,
    out_bias: Any,
    **more: Any,
) -> tuple[Tensor, None]:
    """Of (tokens, N, width), as ``F.multi_head_attention_forward``; it tells no weights."""
    weights = (
        [more[f"{kind}_proj_weight"] for kind in "qkv"] if in_weight is None else in_weight.chunk(3)
    )
    q, k, v = (
        _linear(paths, None, x, w).unflatten(-1, (heads, -1)).movedim(0, -2)  # (N, heads, L, width)
        for x, w in zip((query, key, value), weights, strict=True)
    )
    mixed = _attended(paths, None, q, k, v).movedim(-2, 0).flatten(-2)
    return _linear(paths, None, mixed, out_weight), None


_HANDLERS: dict[Any, Callable[..., Any]] = {
    F.linear: _linear,
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _convolution),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _transposed),
    **dict.fromkeys(
        (
            F.batch_norm,
            F.layer_norm,
            F.group_norm,
            F.instance_norm,
            F.rms_norm,
            F.local_response_norm,
            F.normalize,
            # These are level where the numbers may lie that what is reached is told by.
            F.relu,
            F.relu_,
            torch.relu,
            Tensor.relu,
            Tensor.relu_,
            F.relu6,
            F.hardtanh,
            F.softshrink,
            F.hardshrink,
            F.threshold,
        ),
        _norm,
    ),
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout), _whole),
    F.max_pool1d: _pooled(F.avg_pool1d),
    F.max_pool2d: _pooled(F.avg_pool2d),
    F.max_pool3d: _pooled(F.avg_pool3d),
    F.adaptive_max_pool1d: _adaptively_pooled(F.adaptive_avg_pool1d),
    F.adaptive_max_pool2d: _adaptively_pooled(F.adaptive_avg_pool2d),
    F.adaptive_max_pool3d: _adaptively_pooled(F.adaptive_avg_pool3d),
    **dict.fromkeys(
        (
            F.softmax,
            F.softmin,
            torch.softmax,
            Tensor.softmax,
            F.log_softmax,
            torch.log_softmax,
            Tensor.log_softmax,
        ),
        _softmax,
    ),
    **dict.fromkeys(
        (
            *(torch.max, Tensor.max, torch.maximum, Tensor.maximum),
            *(torch.min, Tensor.min, torch.minimum, Tensor.minimum),
        ),
        _largest,
    ),
    **dict.fromkeys((torch.amax, Tensor.amax, torch.amin, Tensor.amin), _extreme),
    F.scaled_dot_product_attention: _attended,
    F.multi_head_attention_forward: _multi_head,
}
