"""The methods of sparse training and their settings; known without importing torch."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_args, get_type_hints

from elth import meanings
from elth.dynamic._distributions import Shape, layer_counts
from elth.dynamic._schedule import fraction_at
from elth.errors import ElthError, unknown
from elth.recipes import Recipe, Step
from elth.specs import Choice

Distribution = Literal["uniform", "er", "erk"]
_16IT, _100IT, _1000IT = Step(16, "it"), Step(100, "it"), Step(1000, "it")
_1EP = Step(1, "ep")


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way of sparse training; its fields are its settings.

    Raises:
        ElthError: a setting has a value that it cannot have.
    """

    name: ClassVar[str] = ""
    """As it is called in YAML and tables."""
    cost: ClassVar[str] = ""
    """Which of ``elth.flops.METHODS`` it is when its cost is counted."""
    starts_dense: ClassVar[bool] = False
    """Whether its first mask keeps every weight."""
    hides: ClassVar[Literal["", "frozen", "trained"]] = ""
    """Whether pruned weights keep a value that may return: ``frozen`` ones get no gradient."""
    needs_momentum: ClassVar[bool] = False
    """Whether it goes by the momentum of SGD."""

    @property
    def prunes_more(self) -> str:
        """What to say of the setting that leaves fewer layers dense, where there is one."""
        return ""

    def __post_init__(self) -> None:
        """Check every setting against its type and its bounds; a step may be given as text."""
        for field in fields(self):
            object.__setattr__(self, field.name, self._checked(field.name, field.default))

    @classmethod
    @functools.cache
    def plain_types(cls) -> dict[str, Any]:
        """The type of each setting, by its name."""
        hints = get_type_hints(cls)
        return {field.name: hints[field.name] for field in fields(cls)}

    def _checked(self, name: str, default: Any) -> Any:
        value, kind = getattr(self, name), self.plain_types()[name]
        what = f"setting {name} of method {self.name}"
        if kind is Step:
            value = Step.parse(value)
            if not value.count:
                raise ElthError(f"{what} must be at least 1it, is {value}")
            return value
        if words := get_args(kind):
            if value not in words:
                raise unknown(what, value, words)
            return value
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ElthError(f"{what} is {value!r}; expected a value like {default!r}")
        if kind is int and value < 1:
            raise ElthError(f"{what} must be at least 1, is {value}")
        least = 0 if name in ("begin", "least") else math.ulp(0.0)
        if kind is float and not least <= value <= 1:
            raise ElthError(f"{what} is a fraction between 0 and 1, is {value:g}")
        return value

    def check(self, recipe: Recipe, per_epoch: int, start: int = 0) -> None:
        """Refuse a recipe by which it cannot be done.

        Args:
            recipe: how is trained.
            per_epoch: iterations of an epoch.
            start: the iteration at which the training starts.

        Raises:
            ElthError: it goes by a momentum that there is not, would never change its mask, would
                do nothing else, or would average more gradients than there are between two updates.
        """
        if self.needs_momentum and (recipe.optimiser != "sgd" or not recipe.momentum):
            raise ElthError(
                f"method {self.name} goes by the momentum of SGD: give a recipe with optimiser sgd "
                f"and momentum above 0, found {recipe.optimiser} with {recipe.momentum:g}"
            )
        between: Step = getattr(self, "every", _1EP)
        batches, every = getattr(self, "batches", 1), between.iterations(per_epoch)
        if batches > every:
            raise ElthError(
                f"setting batches of method {self.name} is {batches}, more than the {every} "
                "iterations between two updates: take at most as many"
            )
        if "every" not in self.plain_types():
            return
        length = recipe.length.iterations(per_epoch)
        first = max(int(getattr(self, "begin", 0.0) * length), start)
        end = int(getattr(self, "end", 1) * length)
        if every * (first // every + 1) >= end:
            raise ElthError(
                f"method {self.name} would never change its mask, or once at its end: it does so "
                f"every {every} iterations between {first} and {end} of {length}; lower its "
                "setting every, raise end, or train for longer"
            )
        if self.cost == "rigl" and every == 1:
            raise ElthError(
                f"method {self.name} would do nothing but change its mask, as an update takes the "
                "place of a step: every must be at least 2it"
            )

    def check_moves(
        self,
        counts: Mapping[str, int] | None,
        sizes: Mapping[str, int],
        kept: int,
        *,
        length: int,
        per_epoch: int,
        start: int = 0,
    ) -> None:
        """Refuse layers in which it would never change its mask.

        Where the first update moves no weight, none does: the fraction falls from there on. That
        later ones move none is no fault.

        Args:
            counts: how many weights each layer keeps, as ``counts`` tells.
            sizes: how many each has.
            kept: how many weights there are in all at the end.
            length: iterations of the whole training, from initialisation.
            per_epoch: iterations of an epoch.
            start: the iteration at which the training starts.

        Raises:
            ElthError: no update would move a weight.
        """
        known = self.plain_types()
        if "every" not in known:
            return
        if kept == sum(sizes.values()):
            raise ElthError(
                f"method {self.name} would never change its mask, as all {kept:,} weights are "
                "kept: ask for a sparsity above 0, or train the dense network instead"
            )
        if counts is None or "fraction" not in known:
            return
        settings: Any = self
        every, end = settings.every.iterations(per_epoch), int(settings.end * length)
        first = start if getattr(self, "at_start", False) else every * (start // every + 1)
        if first >= end:
            return
        fraction = fraction_at(first, end, settings.fraction, getattr(self, "least", 0.0))
        most = max(count for name, count in counts.items() if count < sizes[name])
        if not int(fraction * most):
            raise ElthError(
                f"method {self.name} would never change its mask: its first update, at iteration "
                f"{first}, moves {fraction:.3g} of a layer's weights, rounded down, and no layer "
                f"that is sparse has more than {most}; raise its setting fraction, keep more "
                "weights, or take method static"
            )

    def plain(self) -> dict[str, Any]:
        """The settings that differ from their defaults, as JSON values: its identity.

        Defaults are part of the meaning of stored keys: a default never changes.
        """
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            f.name: str(found[f.name]) if isinstance(found[f.name], Step) else found[f.name]
            for f in fields(self)
            if found[f.name] != f.default
        }

    def dense(self, shapes: Mapping[str, Shape], unpruned: Collection[str] = ()) -> tuple[str, ...]:
        """Names of the weights that are never pruned, in the network's order."""
        return tuple(name for name in shapes if name in unpruned)

    def counts(
        self, shapes: Mapping[str, Shape], kept: int, unpruned: Collection[str] = ()
    ) -> dict[str, int] | None:
        """How many weights each layer has at the end; None where the weights themselves decide.

        Args:
            shapes: of each prunable weight, in the network's order.
            kept: how many weights there are in all at the end.
            unpruned: names of weights that are left whole, as the anatomy's.

        Raises:
            ElthError: the count is impossible.
        """
        dense = self.dense(shapes, unpruned)
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        least = sum(sizes[name] for name in dense)
        if not least < kept <= sum(sizes.values()):
            raise ElthError(
                f"method {self.name} cannot keep {kept:,} weights of {sum(sizes.values()):,}: "
                f"{least:,} are in layers that it leaves dense ({', '.join(dense) or 'none'})"
                f"{self.prunes_more}"
            )
        return None


@dataclass(frozen=True, kw_only=True)
class _Spread(Method):
    """A method that says how many weights each layer has at the end."""

    distribution: Distribution = "erk"
    """How the weights are spread over the layers: ``uniform``, every layer is as dense; ``er``, by
    Erdős-Rényi, small layers are denser; ``erk``, the same with the sides of kernels."""
    dense_first: bool = True
    """Whether the first layer is dense where the distribution is uniform."""

    @property
    def prunes_more(self) -> str:
        """That the first layer need not be dense."""
        leaves_first = self.distribution == "uniform" and self.dense_first
        return "; with dense_first: false the first one is pruned, too" if leaves_first else ""

    def dense(self, shapes: Mapping[str, Shape], unpruned: Collection[str] = ()) -> tuple[str, ...]:
        """With a uniform distribution the first layer as well."""
        first = self.distribution == "uniform" and self.dense_first
        names = {*unpruned, *[*shapes][: 1 if first else 0]}
        return super().dense(shapes, names)

    def counts(
        self, shapes: Mapping[str, Shape], kept: int, unpruned: Collection[str] = ()
    ) -> dict[str, int]:
        """By the distribution, exactly."""
        super().counts(shapes, kept, unpruned)
        return layer_counts(shapes, kept, self.distribution, dense=self.dense(shapes, unpruned))


@dataclass(frozen=True, kw_only=True)
class Static(_Spread):
    """A mask that is drawn, and stays (RigL's baseline *Static*)."""

    name: ClassVar[str] = "static"
    cost: ClassVar[str] = "static"


@dataclass(frozen=True, kw_only=True)
class RigL(_Spread):
    """Drop the smallest weights, grow where the gradient is largest (Evci et al. 2020)."""

    name: ClassVar[str] = "rigl"
    cost: ClassVar[str] = "rigl"
    fraction: float = 0.3
    """Of a layer's weights that are moved at first; it falls to 0 as half a cosine."""
    every: Step = _100IT
    """Between two updates, each of which takes the place of an optimiser's step."""
    end: float = 0.75
    """Fraction of the training after which the mask stays."""
    at_start: bool = False
    """Whether the first update is before any step, as in the released code."""
    batches: int = 1
    """Batches over which the gradient is averaged: that of the update, and those before it."""


@dataclass(frozen=True, kw_only=True)
class SET(_Spread):
    """Drop the smallest weights, grow others at random (Mocanu et al. 2018; as in RigL)."""

    name: ClassVar[str] = "set"
    cost: ClassVar[str] = "set"
    fraction: float = 0.3
    """Of a layer's weights that are moved at first; it falls to 0 as half a cosine."""
    every: Step = _100IT
    """Between two updates, each after a step."""
    end: float = 0.75
    """Fraction of the training after which the mask stays."""
    drop: Literal["magnitude", "signs"] = "magnitude"
    """``magnitude``: the smallest are dropped; ``signs``: those of the positive and of the negative
    ones apart."""


@dataclass(frozen=True, kw_only=True)
class SNFS(_Spread):
    """Drop the smallest weights, grow where momentum is largest (Dettmers & Zettlemoyer 2019)."""

    name: ClassVar[str] = "snfs"
    cost: ClassVar[str] = "snfs"
    needs_momentum: ClassVar[bool] = True
    fraction: float = 0.5
    """Of a layer's weights that are dropped at first; it falls as half a cosine."""
    least: float = 0.005
    """What the fraction falls to at ``end``."""
    every: Step = _1EP
    """Between two updates, each after a step."""
    end: float = 1.0
    """Fraction of the training after which the mask stays."""
    redistribute: bool = True
    """Whether what is grown goes to the layers of the largest mean momentum."""

    def __post_init__(self) -> None:
        """And that the fraction falls."""
        super().__post_init__()
        if self.least > self.fraction:
            raise ElthError(
                f"setting least of method {self.name} is above its fraction, from which it falls"
            )


@dataclass(frozen=True, kw_only=True)
class GMP(_Spread):
    """Prune by magnitude more and more, layer by layer (Zhu & Gupta 2017)."""

    name: ClassVar[str] = "gmp"
    cost: ClassVar[str] = "gmp"
    starts_dense: ClassVar[bool] = True
    hides: ClassVar[Literal["", "frozen", "trained"]] = "frozen"
    distribution: Distribution = "uniform"
    """How the weights are spread over the layers at the end: ``uniform``, every layer is as dense;
    ``er``, by Erdős-Rényi, small layers are denser; ``erk``, the same with the sides of kernels."""
    begin: float = 0.3125
    """Fraction of the training at which pruning begins."""
    end: float = 0.78125
    """Fraction of the training at which the number of weights is reached."""
    every: Step = _1000IT
    """Between two prunings; there is one at ``end``, too."""

    def __post_init__(self) -> None:
        """And that it begins before it ends."""
        super().__post_init__()
        if self.begin >= self.end:
            raise ElthError(
                f"method {self.name} would end to change its mask at {self.end} of the training "
                f"and begin at {self.begin}: let begin be below end"
            )


@dataclass(frozen=True, kw_only=True)
class DPF(Method):
    """Prune by magnitude over all layers, and let pruned weights return (Lin et al. 2020).

    The gradient is taken at the masked weights, and all dense weights are stepped with it.
    """

    name: ClassVar[str] = "dpf"
    cost: ClassVar[str] = "dpf"
    starts_dense: ClassVar[bool] = True
    hides: ClassVar[Literal["", "frozen", "trained"]] = "trained"
    every: Step = _16IT
    """Between two masks; there is one at ``end``, too."""
    end: float = 0.75
    """Fraction of the training at which the number of weights is reached."""
    freeze: bool = False
    """Whether the mask stays after ``end``."""
    layers: Literal["convolutions", "all"] = "convolutions"
    """Which layers are pruned: ``convolutions``, and linear ones stay dense, but count; or
    ``all``."""

    @property
    def prunes_more(self) -> str:
        """That linear layers need not be dense."""
        leaves_linear = self.layers == "convolutions"
        return "; with layers: all linear ones are pruned, too" if leaves_linear else ""

    def dense(self, shapes: Mapping[str, Shape], unpruned: Collection[str] = ()) -> tuple[str, ...]:
        """Linear layers as well, unless all are to be pruned."""
        linear = {n for n, s in shapes.items() if len(s) == 2 and self.layers == "convolutions"}
        return super().dense(shapes, {*unpruned, *linear})


METHODS: Mapping[str, type[Method]] = {
    kind.name: kind for kind in (RigL, SET, SNFS, Static, GMP, DPF)
}


def method(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """A method by its name, with its settings.

    Raises:
        ElthError: there is no such method or setting, or as ``Method``.
    """
    if name not in METHODS:
        raise unknown("method of sparse training", name, METHODS)
    kind = METHODS[name]
    for key in settings or {}:
        if key not in kind.plain_types():
            raise unknown(f"setting of method {name}", key, kind.plain_types())
    return kind(**settings or {})


def choices(name: str) -> dict[str, Choice]:
    """The settings of a method: what they are, their defaults and what they may be.

    Raises:
        ElthError: there is no such method.
    """
    known, said = defaults(name), meanings.of_fields(METHODS[name])
    return {
        key: Choice(default=known[key], about=said.get(key, ""), words=get_args(kind))
        for key, kind in METHODS[name].plain_types().items()
    }


def defaults(name: str) -> dict[str, Any]:
    """The settings of a method with their defaults, as JSON values.

    Raises:
        ElthError: there is no such method.
    """
    one = method(name)
    return {
        f.name: str(f.default) if isinstance(f.default, Step) else f.default for f in fields(one)
    }
