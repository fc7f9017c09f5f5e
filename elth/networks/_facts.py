"""What can be told of a network without importing torch: its options, its anatomy and its size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elth import plugins
from elth.errors import ElthError
from elth.flops import Cost
from elth.networks import _options
from elth.networks._anatomy import Anatomy, Stage
from elth.remembered import remembered
from elth.specs import Choice, DataShape, Spec


def options(name: str) -> dict[str, Any]:
    """Return the options of a network with their defaults, as ``{"width": 16}``."""
    return dict(_told(name)["defaults"])


def choices(name: str) -> dict[str, Choice]:
    """Return the options of a network: what they are, their defaults and what they may be."""
    told = _told(name)
    return {
        key: Choice(
            default=default,
            about=told["meanings"].get(key, ""),
            words=tuple(told["words"].get(key, ())),
        )
        for key, default in told["defaults"].items()
    }


def about(name: str) -> str:
    """What a network of ours is, in a line; nothing for one from outside."""
    return str(_told(name).get("about", ""))


def canonical(spec: str | Spec) -> Spec:
    """Check a name and its options; sort them, and leave out those that say the default.

    Raises:
        ElthError: unknown network or option, a value of another type than the default's, or a word
            that the option does not know.
    """
    spec = Spec.parse(spec)
    return _options.canonical(spec, _told(spec.name))


def names() -> tuple[str, ...]:
    """The networks that may be named: ours, and those that listed modules give."""
    given: tuple[str, ...] = ()
    if plugins.listed():
        given = tuple(remembered(_registered, plugins.in_use(), also=plugins.state()))
    return (*remembered(_catalogue), *given)


def version(name: str) -> str:
    """The version of a network from outside, as keys hold it; nothing for ours.

    What its author declares, else ``sha256:`` and the digest of its files.

    Raises:
        ElthError: there is no such network.
    """
    return plugins.known_as(_told(name))


def module(name: str) -> str:
    """The module that a network from outside is in; nothing for ours."""
    return str(_told(name).get("module", ""))


def _told(name: str) -> Mapping[str, Any]:
    """What the function of a network tells of itself.

    Raises:
        ElthError: there is none of this name.
    """
    ours = remembered(_catalogue)
    if name in ours:
        return ours[name]
    if not plugins.is_reference(name) and not plugins.listed():
        raise plugins.absent("network", name, ours)
    return remembered(_outside, name, plugins.in_use(), also=plugins.state(name))


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a plan needs to know of a network."""

    anatomy: Anatomy
    layers: int
    """Number of convolutions and linear layers."""
    prunable: int
    """Number of prunable weights."""
    unpruned: int
    """How many of them the anatomy leaves whole."""
    macs: int
    """Multiply-accumulate operations for one image, forward."""
    norm_values: int
    """Values of a channel of one image at the batch normalisation that sees the fewest; 0 for
    none."""
    strided_pixels: tuple[int, ...]
    """Input channels of the convolutions of one pixel with a stride."""
    sizes: Mapping[str, int]
    """Prunable weights of each layer, by the name of its tensor."""
    whole: Mapping[str, int]
    """Parameters that are never pruned, biases apart, by the kind of what holds them."""
    cost: Cost
    """What each prunable weight does for one image, forward."""


def facts(spec: str | Spec, shape: DataShape) -> Facts:
    """What a plan needs to know of a network for data of a shape.

    Raises:
        ElthError: unknown network or option, or a shape that the network cannot take.
    """
    return _facts(canonical(spec), shape)


def tensor_shapes(spec: str | Spec, shape: DataShape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a network's state dict, in its order.

    Raises:
        ElthError: as ``facts``.
    """
    return dict(_tensor_shapes(canonical(spec), shape))


@functools.lru_cache(maxsize=256)
def _facts(spec: Spec, shape: DataShape) -> Facts:
    told = _asked(_measured, spec, shape)
    anatomy = told["anatomy"]
    stages = (
        Stage(name=s["name"], units=tuple(s["units"]), fixed=tuple(s["fixed"]))
        for s in anatomy["stages"]
    )
    return Facts(
        anatomy=Anatomy(
            family=anatomy["family"],
            stages=tuple(stages),
            head=anatomy["head"],
            unpruned=tuple(anatomy["unpruned"]),
        ),
        **{
            **{key: value for key, value in told.items() if key != "anatomy"},
            "strided_pixels": tuple(told["strided_pixels"]),
            "cost": Cost.of(told["cost"]),
        },
    )


@functools.lru_cache(maxsize=256)
def _tensor_shapes(spec: Spec, shape: DataShape) -> dict[str, tuple[int, ...]]:
    told = _asked(_shapes, spec, shape)
    return {name: tuple(sides) for name, sides in told.items()}


def _asked(call: Callable[..., Any], spec: Spec, shape: DataShape) -> Any:
    sides = (shape.channels, shape.size, shape.classes)
    if spec.name in remembered(_catalogue):
        try:
            return remembered(call, str(spec), *sides, ())
        except RuntimeError as error:  # torch's: it is larger than can be counted
            reason = str(error).partition("\n")[0]
            raise ElthError(f"{spec} for {shape} cannot be built: {reason}") from error
    return remembered(call, str(spec), *sides, plugins.in_use(), also=plugins.state(spec.name))


def _catalogue() -> dict[str, dict[str, Any]]:
    from elth.networks import _registry

    return _registry.catalogue()


def _registered(paths: Sequence[str]) -> list[str]:
    plugins.use(paths)
    return list(plugins.registered("NETWORKS"))


def _outside(name: str, paths: Sequence[str]) -> dict[str, Any]:
    from elth.networks import _registry

    plugins.use(paths)
    return _registry.outside(name)


def _measured(
    spec: str, channels: int, size: int, classes: int, paths: Sequence[str]
) -> dict[str, Any]:
    from elth.networks import _registry

    plugins.use(paths)
    return _registry.measured(spec, DataShape(channels=channels, size=size, classes=classes))


def _shapes(
    spec: str, channels: int, size: int, classes: int, paths: Sequence[str]
) -> dict[str, list[int]]:
    from elth.networks import _registry

    plugins.use(paths)
    shape = DataShape(channels=channels, size=size, classes=classes)
    state = _registry.blueprint(spec, shape).state_dict()
    return {name: list(tensor.shape) for name, tensor in state.items()}
