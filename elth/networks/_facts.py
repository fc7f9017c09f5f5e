"""What can be told of a network without building it: its options, its anatomy and its size."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from elth.errors import ElthError, unknown
from elth.facts import known
from elth.networks._anatomy import Anatomy, Stage
from elth.networks._spec import DataShape, NetworkSpec


def options(name: str) -> dict[str, Any]:
    """Return the options of a network with their defaults, as ``{"width": 16}``."""
    if name in known()["options"]:
        return dict(known()["options"][name]["defaults"])
    from elth.networks._registry import options_in_code

    return options_in_code(name)


def _words(name: str) -> dict[str, tuple[str, ...]]:
    """The words that an option may be, for the options that are words."""
    if name in known()["options"]:
        return {key: tuple(words) for key, words in known()["options"][name]["words"].items()}
    from elth.networks._registry import words_in_code

    return words_in_code(name)


def canonical(spec: str | NetworkSpec) -> NetworkSpec:
    """Check a name and its options; sort them, and leave out those that say the default.

    Raises:
        ElthError: unknown network or option, a value of another type than the default's, or a word
            that the option does not know.
    """
    spec = NetworkSpec.parse(spec)
    defaults, words = options(spec.name), _words(spec.name)
    kept = []
    for key, value in spec.options:
        if key not in defaults:
            raise unknown(f"option of network {spec.name}", key, defaults)
        if type(value) is not type(defaults[key]):
            raise ElthError(
                f"option {key} of network {spec.name} is {value!r}; expected a value like "
                f"{defaults[key]!r}"
            )
        if key in words and value not in words[key]:
            raise unknown(f"{key} of network {spec.name}", str(value), words[key])
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ElthError(f"option {key} of network {spec.name} must be at least 1, is {value}")
        if value != defaults[key]:
            kept.append((key, value))
    return NetworkSpec(spec.name, tuple(sorted(kept)))


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


def facts(spec: str | NetworkSpec, shape: DataShape) -> Facts:
    """What a plan needs to know of a network for data of a shape.

    Raises:
        ElthError: unknown network or option, or a shape that the network cannot take.
    """
    return _facts(canonical(spec), shape)


def is_listed(spec: str | NetworkSpec, shape: DataShape) -> bool:
    """Whether ``facts`` are listed, so that the network is not built for them."""
    return spell(shape) in _entry(canonical(spec))["shapes"]


def _entry(spec: NetworkSpec) -> dict[str, Any]:
    entry: dict[str, Any] = known()["networks"].get(str(spec), {"shapes": {}})
    return entry


@functools.lru_cache(maxsize=256)
def _facts(spec: NetworkSpec, shape: DataShape) -> Facts:
    if not is_listed(spec, shape):
        return work_out(spec, shape)
    entry = _entry(spec)
    anatomy = entry["anatomy"]
    stages = (
        Stage(name=s["name"], units=tuple(s["units"]), fixed=tuple(s["fixed"]))
        for s in anatomy["stages"]
    )
    told = entry["shapes"][spell(shape)]
    return Facts(
        anatomy=Anatomy(
            family=anatomy["family"],
            stages=tuple(stages),
            head=anatomy["head"],
            unpruned=tuple(anatomy["unpruned"]),
        ),
        **{**told, "strided_pixels": tuple(told["strided_pixels"])},
    )


def spell(shape: DataShape) -> str:
    """A shape as ``facts.json`` has it: ``3x32x32/10``."""
    return f"{shape.channels}x{shape.size}x{shape.size}/{shape.classes}"


def work_out(spec: NetworkSpec, shape: DataShape) -> Facts:
    """The facts of a network as it is when it is built."""
    from elth.networks._registry import blueprint, macs, norm_values, prunable, strided_pixels

    network = blueprint(spec, shape)
    sizes = {name: network.get_parameter(name).numel() for name in prunable(network)}
    return Facts(
        anatomy=network.anatomy,
        layers=len(sizes),
        prunable=sum(sizes.values()),
        unpruned=sum(sizes[name] for name in network.anatomy.unpruned),
        macs=macs(spec, shape),
        norm_values=norm_values(spec, shape),
        strided_pixels=strided_pixels(network),
    )
