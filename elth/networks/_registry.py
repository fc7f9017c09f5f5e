"""The networks by name: how they are built, initialised, measured and compared with a state."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from elth import meanings, plugins
from elth.convolutions import is_strided_pixel
from elth.errors import ElthError
from elth.flops import Cost, Layer
from elth.networks import _options, conv4, imagenet, mlp, mobilenet, resnet, vgg
from elth.networks._anatomy import Anatomy
from elth.networks._network import NAMES, Builder, Network
from elth.specs import DataShape, Described, Spec, shape_of
from elth.streams import stream

NETWORKS: dict[str, Builder] = {
    **resnet.NETWORKS,
    **vgg.NETWORKS,
    **imagenet.NETWORKS,
    **mobilenet.NETWORKS,
    **conv4.NETWORKS,
    **mlp.NETWORKS,
}


_OURS = tuple(NETWORKS)
"""What is added to the dict later has no version, and is not found: it is for a plugin to name."""


def catalogue() -> dict[str, dict[str, Any]]:
    """What the functions tell of their options, as JSON values.

    For each network the ``defaults``, the ``words`` that an option may be, the ``meanings`` of the
    options, and what it is ``about``.
    """
    return {name: _ours(NETWORKS[name]) for name in _OURS}


@functools.cache
def _ours(builder: Builder) -> dict[str, Any]:
    return {**_told(builder), "about": meanings.headline(builder)}


def outside(name: str) -> dict[str, Any]:
    """What the function of a network from outside tells, as ``catalogue``.

    And the ``version`` that it declares, and the ``module`` that names it.

    Raises:
        ElthError: there is none of this name, or it is no function of a network.
    """
    builder = _builder(name)
    return {
        **_told(builder),
        "version": plugins.declared(builder),
        "module": plugins.module_of("NETWORKS", name),
    }


def _builder(name: str) -> Builder:
    if name in _OURS:
        return NETWORKS[name]
    builder: Builder = plugins.named("NETWORKS", name, "network", _OURS)
    if not callable(builder):
        raise ElthError(
            f"{name} is no function of a network: expected def f(shape, *, option=default) -> "
            f"nn.Module, found {builder!r}"
        )
    return builder


@functools.cache
def _told(builder: Builder) -> dict[str, Any]:
    return plugins.keywords(builder, "network")


def _canonical(spec: str | Spec) -> Spec:
    spec = Spec.parse(spec)
    told = _told(NETWORKS[spec.name]) if spec.name in _OURS else outside(spec.name)
    return _options.canonical(spec, told)


def build(
    spec: str | Spec,
    shape: DataShape | Described,
    seed: int = 0,
    *,
    generator: torch.Generator | None = None,
) -> Network:
    """Make a network on the CPU, initialised from its seed alone (see ``initialise``).

    One from outside has the weights that its author gives it, with the global generator forked and
    seeded by ``generator``: one seed gives equal bits.

    Args:
        spec: the network, with its options.
        shape: the shape of its data, or a dataset.
        seed: fixes the weights, by the stream "init": those that IMP of this seed starts from.
        generator: what they are drawn from instead.

    Raises:
        ElthError: unknown network or option, or a shape that the network cannot take.
    """
    shape = shape_of(shape)
    generator = generator or stream(seed, "init")
    # Made on the CPU, as buffers are what their author made of them; what its modules draw for
    # their parameters is drawn anew, and nobody else's draws are disturbed.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        spec = _canonical(spec)
        network = _make(spec, shape)
    NAMES[network] = str(spec)
    if spec.name in _OURS:
        initialise(network, generator)
    return network


def _make(spec: Spec, shape: DataShape) -> Network:
    if spec.name in _OURS:
        return NETWORKS[spec.name](shape, **dict(spec.options))
    builder = _builder(spec.name)
    try:
        network = builder(shape, **dict(spec.options))
    except ElthError:
        raise
    except (Exception, SystemExit) as error:
        called = f"; it is called as {spec.name}(SHAPE{', OPTION=...' if spec.options else ''})"
        hint = called if isinstance(error, TypeError) else ""
        raise ElthError(f"making {spec} fails: {plugins.reason(error)}{hint}") from error
    _check(network, spec)
    if not isinstance(getattr(network, "anatomy", None), Anatomy):
        network.anatomy = Anatomy(family=str(spec), stages=(), head="")
    return network


def _check(network: Any, spec: Spec) -> None:
    """Refuse what is no network, or one whose weights cannot be told apart by their names."""
    if not isinstance(network, nn.Module):
        raise ElthError(f"{spec} gave a {type(network).__name__}; expected a torch.nn.Module")
    for name, tensor in network.state_dict().items():
        if nn.parameter.is_lazy(tensor):
            raise ElthError(f"'{name}' of {spec} has no shape yet: lazy modules cannot be used")
        if not isinstance(tensor, Tensor):
            raise ElthError(f"'{name}' in the state dict of {spec} is no tensor: found {tensor!r}")
    names: dict[int, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        first = names.setdefault(id(parameter), name)
        if first != name:
            raise ElthError(
                f"'{first}' and '{name}' of {spec} are one tensor, which a mask cannot tell apart: "
                "give each layer weights of its own"
            )
    if not prunable(network):
        raise ElthError(f"{spec} has no convolution, linear layer or attention to prune")


def _really(spec: Spec, shape: DataShape) -> Network:
    """A network with its storage; made so even where one from outside asks for real tensors."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return _make(spec, shape)


@functools.lru_cache(maxsize=256)
def _blueprint(spec: Spec, shape: DataShape) -> Network:
    if spec.name not in _OURS:
        return _really(spec, shape).to("meta")
    with torch.device("meta"):
        return _make(spec, shape)


def blueprint(spec: str | Spec, shape: DataShape) -> Network:
    """Return the network without storage (device "meta"): names, shapes and anatomy only."""
    return _blueprint(_canonical(spec), shape)


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw every parameter anew, in the order of the network's modules.

    Kaiming normal (fan-in) for the weights of convolutions and linear layers, or Kaiming uniform,
    by the fan-in or the fan-out, where the network's ``init`` says so; torch's own uniform law for
    their biases; batch normalisation: scale uniform in [0, 1), shift 0, running mean 0 and
    variance 1. The first are the settings of the experiments of E-LTH.

    Raises:
        ElthError: a module holds parameters of a kind for which no law is stated.
    """
    law = network.init if isinstance(network, Network) else "kaiming_normal"
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            if law == "kaiming_normal":
                module.weight.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
            else:
                fan_out = module.weight[:, 0].numel()
                bound = math.sqrt(6.0 / (fan_in if law == "kaiming_uniform" else fan_out))
                module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                bound = 1.0 / math.sqrt(fan_in)
                module.bias.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            if module.affine:
                module.weight.uniform_(0.0, 1.0, generator=generator)
                module.bias.zero_()
        elif next(module.parameters(recurse=False), None) is not None:
            raise ElthError(f"no initialisation is stated for {type(module).__name__} '{name}'")


def prunable(network: nn.Module) -> tuple[str, ...]:
    """Names of the prunable weights: of every convolution, linear layer and attention, in order.

    Raises:
        ElthError: a layer makes its weight of others, as weight normalisation does.
    """
    for name, module in network.named_modules():
        if isinstance(module, _LAYERS) and "weight" not in module._parameters:
            raise ElthError(
                f"the weight of '{name}', of {type(module).__name__}, is no parameter of its own: "
                "parametrizations and weight normalisation make it of others, of which no mask "
                "can prune it; take them off (torch.nn.utils.parametrize.remove_parametrizations)"
            )
    return tuple(
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        for name in _own_prunable(module)
    )


_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def _own_prunable(module: nn.Module) -> list[str]:
    names: tuple[str, ...] = ()
    if isinstance(module, _LAYERS):
        names = ("weight",)
    elif isinstance(module, nn.MultiheadAttention):
        names = _ATTENTION
    return [name for name in names if module._parameters.get(name) is not None]


def kept_whole(network: nn.Module) -> dict[str, int]:
    """What else holds parameters, biases apart, and how many: it is never pruned.

    By the kind of module, as ``LayerNorm``, or the parameter's name where a module that holds
    others has it.
    """
    found: dict[str, int] = {}
    for module in network.modules():
        own = {n: p for n, p in module._parameters.items() if p is not None}
        if any(name in own for name in _own_prunable(module)):
            own = {n: p for n, p in own.items() if n not in _own_prunable(module) and p.dim() > 1}
        is_leaf = next(module.children(), None) is None
        for name, parameter in own.items():
            kind = type(module).__name__ if is_leaf else name
            found[kind] = found.get(kind, 0) + parameter.numel()
    return found


def check_module(module: nn.Module, shape: DataShape) -> None:
    """Refuse a module that cannot be trained on data of a shape; it is left as it is.

    Raises:
        ElthError: a parameter has no values yet, or is in less than float32; or the module cannot
            take an image, or gives no row of logits.
    """
    name = type(module).__name__
    for own, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ElthError(
                f"'{own}' of {name} has no values yet: show the module an image first, as "
                f"module(torch.zeros(1, {', '.join(map(str, shape.image))}))"
            )
        if parameter.dtype not in (torch.float32, torch.float64):
            raise ElthError(
                f"'{own}' of {name} is in {parameter.dtype}; expected float32, of which what is "
                "computed in less is a copy (precision of the recipe): call module.float()"
            )
    with torch.random.fork_rng(devices=[]):
        _check_logits(copy.deepcopy(module).eval(), name, shape)


def _check_logits(network: nn.Module, name: str | Spec, shape: DataShape) -> None:
    """Show a network an image, and refuse one that makes no row of logits of it."""
    like = next(network.parameters(), torch.zeros(()))
    try:
        with torch.no_grad():
            logits = network(torch.zeros((1, *shape.image), dtype=like.dtype, device=like.device))
    except ElthError:
        raise
    except Exception as error:
        raise ElthError(
            f"{name} cannot take an image of {shape}: {plugins.reason(error)}"
        ) from error
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (1, shape.classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ElthError(
            f"{name} gives {found} for an image of {shape}; expected logits (N, classes), here "
            f"(1, {shape.classes})"
        )


def check_state(state: Mapping[str, Tensor], spec: Spec, shape: DataShape, *, what: str) -> None:
    """Refuse a state dict that does not fit its network.

    Raises:
        ElthError: naming the first tensor that is missing, superfluous or of another shape.
    """
    expected = blueprint(spec, shape).state_dict()
    for name, tensor in expected.items():
        if name not in state:
            raise ElthError(f"{what} does not fit {spec}: tensor '{name}' is missing")
        if state[name].shape != tensor.shape:
            raise ElthError(
                f"{what} does not fit {spec}: tensor '{name}' should have shape "
                f"{tuple(tensor.shape)}, found {tuple(state[name].shape)}"
            )
    for name in state:
        if name not in expected:
            raise ElthError(f"{what} does not fit {spec}: it has no tensor '{name}'")


def smallest_norm(network: nn.Module, shape: DataShape) -> tuple[str, int]:
    """The batch normalisation that sees the fewest values of a channel of an image, and how many.

    A layer that sees one value has no statistics of a single image. An empty name and 0 without
    batch normalisation. One image is shown to the network, in evaluation mode.
    """
    seen: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs:
                seen[name] = inputs[0][0, 0].numel()

        return hook

    hooks = [
        module.register_forward_pre_hook(note(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    if not hooks:
        return "", 0
    was_training, like = network.training, next(network.parameters())
    try:
        with torch.no_grad():
            network.eval()(torch.zeros((1, *shape.image), dtype=like.dtype, device=like.device))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return min(seen.items(), key=lambda item: item[1], default=("", 0))


def strided_pixels(network: nn.Module) -> tuple[int, ...]:
    """Input channels, in each group, of the convolutions of one pixel with a stride."""
    return tuple(
        module.in_channels // module.groups
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
        and is_strided_pixel(module.kernel_size, module.stride, module.padding)
    )


def macs(spec: str | Spec, shape: DataShape) -> int:
    """Multiply-accumulate operations of convolutions and linear layers for one image, forward."""
    return _counted(_canonical(spec), shape)[0]


def cost(spec: str | Spec, shape: DataShape) -> Cost:
    """What each prunable weight does for one image, forward, and what else is multiplied."""
    total, _, by_layer, made = _counted(_canonical(spec), shape)
    network = blueprint(spec, shape)
    layers = {}
    for prefix, module in network.named_modules():
        for own in _own_prunable(module):
            name, weight = f"{prefix}.{own}" if prefix else own, module.get_parameter(own)
            outputs = getattr(module, "out_channels", weight.shape[0])
            layer = Layer(weights=weight.numel(), outputs=outputs, macs=by_layer.get(name, 0))
            if made.get(name, layer.values) != layer.values:
                layer = dataclasses.replace(layer, made=made[name])
            layers[name] = layer
    return Cost(layers, total - sum(layer.macs for layer in layers.values()))


def norm_values(spec: str | Spec, shape: DataShape) -> int:
    """What ``smallest_norm`` counts, of a network that need not be made."""
    return _counted(_canonical(spec), shape)[1]


@functools.lru_cache(maxsize=256)
def _counted(spec: Spec, shape: DataShape) -> tuple[int, int, dict[str, int], dict[str, int]]:
    """Multiplications, and values at the smallest normalisation; then by weight what it multiplies.

    And what its layer makes, where that is noted: of ours, it follows from the multiplications.
    """
    if spec.name not in _OURS:
        return _counted_by_doing(spec, shape)
    with torch.device("meta"):
        network = _make(spec, shape)
    by_layer: dict[str, int] = {}
    values = [0]

    def stand_in(name: str, module: nn.Conv2d | nn.Linear) -> Callable[[Tensor], Tensor]:
        """Count, and give zeros of the right shape: no weight is needed and nothing computed."""

        def forward(x: Tensor) -> Tensor:
            size: list[int] = []
            if isinstance(module, nn.Conv2d):
                size = [
                    (x.shape[2 + i] + 2 * int(module.padding[i]) - module.kernel_size[i])
                    // module.stride[i]
                    + 1
                    for i in (0, 1)
                ]
            done = module.weight.numel() * math.prod(size)
            by_layer[name] = by_layer.get(name, 0) + done
            return torch.zeros(1, module.weight.shape[0], *size)

        return forward

    def pass_on(x: Tensor) -> Tensor:
        values.append(x[0, 0].numel())
        return x

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            vars(module)["forward"] = stand_in(f"{name}.weight", module)
        elif isinstance(module, nn.BatchNorm2d):
            vars(module)["forward"] = pass_on
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape.image))
    return sum(by_layer.values()), min(values[1:], default=0), by_layer, {}


def _counted_by_doing(
    spec: Spec, shape: DataShape
) -> tuple[int, int, dict[str, int], dict[str, int]]:
    """The same of a network of which nothing is known: an image is shown to it.

    Raises:
        ElthError: it cannot take the image, or its result is no row of logits.
    """
    network, again = _really(spec, shape).eval(), _really(spec, shape).state_dict()
    network.requires_grad_(False)  # the counter stumbles over a parameter that a module is given
    for name, tensor in network.state_dict().items():
        if not torch.equal(tensor, again[name]) and not bool(torch.isnan(tensor).any()):
            raise ElthError(
                f"'{name}' of {spec} differs when it is made twice: draw initial weights by "
                "torch's global generator, which is seeded then, and by nothing else"
            )
    like = next(network.parameters())
    before = torch.backends.mha.get_fastpath_enabled()  # attention as one operation is not counted
    torch.backends.mha.set_fastpath_enabled(False)
    by_layer: dict[str, int] = {}
    made: dict[str, int] = {}
    noting = _noting(network, by_layer, made)
    try:
        with FlopCounterMode(display=False) as counter, noting:
            _check_logits(network, spec, shape)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    _check_repeats(
        network,
        spec,
        torch.linspace(0, 1, math.prod(shape.image)).reshape(1, *shape.image).to(like.dtype),
    )
    return counter.get_total_flops() // 2, smallest_norm(network, shape)[1], by_layer, made


def _check_repeats(network: nn.Module, spec: Spec, image: Tensor) -> None:
    """Refuse a network that says something else of an image when it is asked again."""

    def twice(shown: nn.Module, images: Tensor) -> list[Tensor]:
        found = []
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for _ in range(2):
                torch.default_generator.manual_seed(0)
                found.append(shown(images).nan_to_num())
        return found

    try:
        seen = twice(network, image)
    except ElthError:
        raise
    except Exception as error:
        raise ElthError(f"{spec} cannot take an image: {plugins.reason(error)}") from error
    with contextlib.suppress(Exception):  # not of what cannot be copied, or takes no two images
        training = twice(copy.deepcopy(network).train(), image.repeat(2, 1, 1, 1))
        seen = training if torch.equal(*seen) else seen
    if not torch.equal(*seen):
        raise ElthError(
            f"{spec} gives other logits when it is shown an image again, with the same random "
            "state of torch: what its forward draws must come from torch's global generator, and "
            "from nothing else, nor from a clock or from earlier calls"
        )


def _attended(
    module: nn.MultiheadAttention, inputs: tuple[Any, ...], named: dict[str, Any]
) -> dict[str, int]:
    """Multiplications with each weight of attention, as it is called."""
    given = dict(zip(("query", "key", "value"), inputs, strict=False)) | named
    asks, keys, values = (
        given[name].numel() // given[name].shape[-1] for name in ("query", "key", "value")
    )
    places = {"q_proj_weight": asks, "k_proj_weight": keys, "v_proj_weight": values}
    found = {
        own: module.get_parameter(own).numel() * places[own]
        for own in _own_prunable(module)
        if own in places
    }
    if not found:  # the three are one weight
        found["in_proj_weight"] = module.embed_dim**2 * (asks + keys + values)
    # The layer within it is not called.
    return found | {"out_proj.weight": module.out_proj.weight.numel() * asks}


@contextlib.contextmanager
def _noting(network: nn.Module, by_layer: dict[str, int], made: dict[str, int]) -> Iterator[None]:
    """Note what the prunable weights of each module multiply while an image goes through.

    And, in ``made``, how many values come out of a convolution or a linear layer.

    Of attention, weights for queries are applied to the tokens that ask, those for keys and values
    to the tokens that are asked, which are others where a network looks at something else.
    """

    def note(name: str) -> Callable[..., None]:
        def hook(
            module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
        ) -> None:
            given = [one for one in (*inputs, *named.values()) if isinstance(one, Tensor)]
            if isinstance(module, nn.MultiheadAttention):
                for own, done in _attended(module, inputs, named).items():
                    full = f"{name}.{own}" if name else own
                    by_layer[full] = by_layer.get(full, 0) + done
                return
            places = 0
            if isinstance(module, nn.modules.conv._ConvNd):
                moved = given[0] if isinstance(module, nn.modules.conv._ConvTransposeNd) else output
                places = moved.numel() // moved.shape[1]
            elif given:  # of tokens, or of one vector
                places = given[0].numel() // given[0].shape[-1]
            for own in _own_prunable(module):
                full = f"{name}.{own}" if name else own
                done = module.get_parameter(own).numel() * places
                by_layer[full] = by_layer.get(full, 0) + done
                if isinstance(output, Tensor):
                    made[full] = made.get(full, 0) + output.numel()

        return hook

    hooks = [
        module.register_forward_hook(note(name), with_kwargs=True)
        for name, module in network.named_modules()
        if _own_prunable(module)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def measured(spec: str | Spec, shape: DataShape) -> dict[str, Any]:
    """The fields of ``Facts``, as JSON values, of the network as it is when it is built."""
    network = blueprint(spec, shape)
    sizes = {name: network.get_parameter(name).numel() for name in prunable(network)}
    return {
        "anatomy": dataclasses.asdict(network.anatomy),
        "layers": len(sizes),
        "prunable": sum(sizes.values()),
        "unpruned": sum(sizes[name] for name in network.anatomy.unpruned),
        "macs": macs(spec, shape),
        "norm_values": norm_values(spec, shape),
        "strided_pixels": strided_pixels(network),
        "sizes": sizes,
        "whole": kept_whole(network),
        "cost": cost(spec, shape).plain(),
    }
