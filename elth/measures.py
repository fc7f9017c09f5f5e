"""What measures there are, what each looks at and what may be set: known without importing torch.

What they compute is in ``elth.analysis``; ``elth.analysis.measure`` does one by its name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, cast

from elth.errors import ElthError, unknown

NETWORK, PAIR, LINE = "network", "pair", "line"
"""What a measure looks at: one trained network, two of them, or all rounds of a line."""
FIRST, ALL = "first", "all"
"""Of which of them it looks at what they were trained from, too."""

_MOST_POINTS = 10_000
PARTS = ("both", "train", "test")
BATCH_NORMS = ("interpolate", "recompute")


def abscissae(points: int, low: float = 0.0, high: float = 1.0) -> tuple[float, ...]:
    """Evenly spaced a, both ends of the range included: low + i (high - low) / (points - 1).

    They are rounded once, so that 0 and 1 are exactly that.

    Example:
        >>> abscissae(5)
        (0.0, 0.25, 0.5, 0.75, 1.0)
        >>> abscissae(8, -0.2, 1.2)
        (-0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)

    Raises:
        ElthError: there are fewer than two, or 0 and 1, the ends of the path, are not among them.
    """
    if points < 2:
        raise ElthError(f"a path has two ends, so at least 2 points; found points {points}")
    if points > _MOST_POINTS:
        raise ElthError(f"a path has at most {_MOST_POINTS:,} points, found {points:,}")
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ElthError(f"a path runs between two numbers, found {low:g} to {high:g}")
    start, end = Fraction(str(low)), Fraction(str(high))
    found = tuple(float(start + (end - start) * i / (points - 1)) for i in range(points))
    if 0.0 not in found or 1.0 not in found:
        raise ElthError(
            f"{points} points from {low:g} to {high:g} pass over an end of the path: choose them "
            "so that 0 and 1 are among them, as 71 from -0.2 to 1.2"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What may be set of a measure: nothing of most that look at weights alone."""

    def __post_init__(self) -> None:
        """Refuse a value that is of another type than the default, or that cannot be.

        Raises:
            ElthError: with the name of the setting.
        """
        for field in fields(self):
            value, usual = getattr(self, field.name), cast(Any, field.default)
            if isinstance(usual, float) and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, field.name, value := float(value))
            known = int if usual is None else type(usual)
            if (usual is not None or value is not None) and type(value) is not known:
                raise ElthError(
                    f"{field.name} must be {_KINDS[known]}{' or none' * (usual is None)}, found "
                    f"{value!r}"
                )
            if known is int and value is not None and value < 1:
                raise ElthError(f"{field.name} must be at least 1, found {value}")
        self.check()

    def check(self) -> None:
        """Refuse values that cannot be."""

    def passes(self, train: int, test: int) -> float:
        """About how many images are passed through a network, for estimates of time.

        Args:
            train: training images that there are.
            test: test images.
        """
        return 0.0

    @property
    def revision(self) -> int:
        """By how much a measure's version is raised by a new meaning of these settings alone."""
        return 0

    def plain(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON values: the identity of a measure's settings."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) != f.default}


_KINDS = {int: "a whole number", float: "a number", str: "a word"}


@dataclass(frozen=True, kw_only=True)
class OnImages(Settings):
    """Of measures that look at what networks do with images."""

    data: str = "both"
    """``train``, training images without augmentation; ``test``; or ``both``."""
    images: int | None = None
    """How many training images, fixed ones; all, when left out."""
    batch_norm: str = "interpolate"
    """``interpolate``: the running statistics are as the state has them; ``recompute``: they are
    taken anew from training images."""
    batch_norm_images: int = 10_000
    """From how many."""

    def check(self) -> None:
        """Refuse words that are none."""
        if self.data not in PARTS:
            raise unknown("data", self.data, PARTS)
        if self.batch_norm not in BATCH_NORMS:
            raise unknown("batch_norm", self.batch_norm, BATCH_NORMS)

    def passes(self, train: int, test: int) -> float:
        """Both networks on every image, statistics of batch normalisation apart."""
        own = min(train, self.images or train) * ("train" in self.on) + test * ("test" in self.on)
        again = min(train, self.batch_norm_images) * (self.batch_norm == "recompute")
        return 2.0 * (own + again)

    @property
    def revision(self) -> int:
        """1 where statistics are taken anew: at first their batches were in the dataset's order."""
        return int(self.batch_norm == "recompute")

    @property
    def on(self) -> tuple[str, ...]:
        """The parts of the dataset that are looked at."""
        return ("train", "test") if self.data == "both" else (self.data,)


@dataclass(frozen=True, kw_only=True)
class OnPaths(OnImages):
    """Of measures of the straight path between two networks."""

    points: int = 20
    """How many, both ends included."""
    low: float = 0.0
    """Where the range begins: 0 is the first network."""
    high: float = 1.0
    """Where it ends: 1 is the second network."""

    def passes(self, train: int, test: int) -> float:
        """Every image at every point."""
        return self.points * super().passes(train, test) / 2

    def check(self) -> None:
        """Refuse a path without its ends."""
        super().check()
        abscissae(self.points, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class OnBins(Settings):
    """Of histograms."""

    width: float = 0.02
    """Of a bin."""

    def check(self) -> None:
        """Refuse no width."""
        if not 0 < self.width < float("inf"):
            raise ElthError(f"width must be above 0, found {self.width}")


@dataclass(frozen=True, kw_only=True)
class OnCurvature(Settings):
    """Of the Hessian within the subspace of a mask."""

    images: int = 1000
    """Over how many training images the loss is the mean."""
    steps: int = 20
    """Of the power iteration."""
    probes: int = 10
    """Estimates of the trace."""

    @property
    def revision(self) -> int:
        """1 of a single step, which at first began outside of the subspace."""
        return int(self.steps == 1)

    def passes(self, train: int, test: int) -> float:
        """A product with the Hessian costs about as much as five forward passes."""
        return 5.0 * (self.steps + self.probes) * min(train, self.images)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What is known of a measure without computing anything."""

    looks_at: str
    """``NETWORK``, ``PAIR`` or ``LINE``."""
    settings: type[Settings] = Settings
    needs_data: bool = False
    needs_rate: bool = False
    """Whether it must know which fraction of the weights the next pruning takes."""
    starts: str = ""
    """Of which it looks at the weights that trainings began with: ``FIRST``, ``ALL`` or none."""
    version: int = 1
    """Raised when it comes to mean something else; see ``version_of``."""
    about: str
    """One line for people."""


MEASURES: dict[str, Measure] = {
    "barrier": Measure(
        looks_at=PAIR,
        settings=OnPaths,
        needs_data=True,
        about="error and loss on the straight path between two networks, and its barriers",
    ),
    "functions": Measure(
        looks_at=PAIR,
        settings=OnImages,
        needs_data=True,
        about="how differently two networks judge the same images",
    ),
    "damage": Measure(
        looks_at=PAIR,
        settings=OnImages,
        needs_data=True,
        about="what the second network's mask does to the first, before anything is retrained",
    ),
    "overlap": Measure(looks_at=PAIR, about="weights that two masks share, against chance"),
    "signs": Measure(looks_at=PAIR, about="signs that surviving weights of two networks share"),
    "distances": Measure(
        looks_at=LINE,
        starts=FIRST,
        about="angular distance, cosine similarity and Euclidean distances of all pairs of rounds "
        "and of the weights that they start from",
    ),
    "histograms": Measure(
        looks_at=LINE, settings=OnBins, about="how surviving weights are distributed"
    ),
    "thresholds": Measure(
        looks_at=LINE,
        needs_rate=True,
        about="the magnitude up to which the pruning after each round removes",
    ),
    "effective": Measure(
        looks_at=LINE, about="weights on some path from input to output, and dead units"
    ),
    "travel": Measure(
        looks_at=LINE, starts=ALL, about="how far the weights of each round have come"
    ),
    "curvature": Measure(
        looks_at=NETWORK,
        settings=OnCurvature,
        needs_data=True,
        about="top eigenvalue and trace of the Hessian within the subspace of the mask",
    ),
}


def measure_of(name: str) -> Measure:
    """A measure by its name.

    Raises:
        ElthError: there is none of this name.
    """
    if name not in MEASURES:
        raise unknown("measure", name, MEASURES)
    return MEASURES[name]


def starts_of(name: str, count: int) -> range:
    """Of how many networks, by their numbers, a measure looks at what they were trained from.

    Example:
        >>> starts_of("distances", 3), starts_of("travel", 3), starts_of("signs", 2)
        (range(0, 1), range(0, 3), range(0, 0))

    Raises:
        ElthError: there is no such measure.
    """
    return range({FIRST: min(1, count), ALL: count}.get(measure_of(name).starts, 0))


def check_count(name: str, count: int) -> None:
    """Refuse more networks than a measure looks at, or fewer.

    Raises:
        ElthError: there is no such measure; or with how many it looks at.
    """
    looks_at = measure_of(name).looks_at
    expected, told = _LOOKED_AT[looks_at]
    if not count or count != (expected or count):
        raise ElthError(f"measure {name} looks at {told}, found {count}")


_LOOKED_AT = {
    NETWORK: (1, "one trained network"),
    PAIR: (2, "two trained networks"),
    LINE: (0, "one trained network or more"),
}


def settings_of(name: str, given: Mapping[str, Any]) -> Settings:
    """The settings of a measure, of which some are given.

    Raises:
        ElthError: there is no such measure or setting, or a value cannot be; the message names it.
    """
    known = measure_of(name).settings
    names = [field.name for field in dataclasses.fields(known)]
    for key in given:
        if key not in names:
            if not names:
                raise ElthError(f"measure {name} has no settings, found {key}")
            raise unknown(f"setting of measure {name}", key, names)
    try:
        return known(**given)
    except ElthError as error:
        raise ElthError(f"measure {name}: {error}") from error


def version_of(name: str, settings: Settings) -> int:
    """The version of a measure with some settings; 1 stands in no key."""
    return measure_of(name).version + settings.revision


def numbers(name: str, result: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers of a result by which analyses are compared; of a line none.

    Args:
        name: the measure.
        result: what ``elth.analysis.measure`` returned.
    """
    found: dict[str, Any] = {}
    if name == "barrier":
        for part, barriers in result["barriers"].items():
            found |= {f"{part}_barrier_{kind}": barriers[kind] for kind in _BARRIERS}
    elif name == "functions":
        for part, values in result.items():
            found |= {f"{part}_{kind}": values[kind] for kind in ("disagreement", "relative")}
    elif name == "damage":
        found = {f"{part}_damage": value for part, value in result["damage"].items()}
        found["removed"] = result["removed"]["relative"]
    elif name in ("overlap", "signs"):
        names = ("iou", "expected", "excess") if name == "overlap" else ("agreement",)
        found = {kind: result["pooled"][kind] for kind in names}
    elif name == "curvature":
        found = {kind: result[kind] for kind in ("top", "residual", "trace", "trace_sd")}
    return _defined(found)


_BARRIERS = ("mean", "worse", "chord")


def by_round(name: str, result: Mapping[str, Any]) -> list[dict[str, float]]:
    """The numbers of each round of a line, in its order; nothing of what is no line.

    A matrix of distances is told by how far each round is from the next one and from the weights
    that the line starts from.

    Args:
        name: the measure.
        result: what ``elth.analysis.measure`` returned.
    """
    if name == "distances":
        return [_defined(one) for one in _apart(result)]
    if name == "histograms":
        found = [{"bimodality": one["bimodality"]} for one in result["rounds"]]
    elif name == "thresholds":
        found = [{"threshold": one["value"]} for one in result["rounds"]]
    elif name == "effective":
        found = [
            {"effective_sparsity": one["sparsity"], "dead_units": one["dead"]}
            for one in result["rounds"]
        ]
    elif name == "travel":
        found = [
            {f"travel_{kind}": value for kind, value in one.items()} for one in result["rounds"]
        ]
    else:
        found = []
    return [_defined(one) for one in found]


_MATRICES = ("angular", "cosine", "l2_full", "l2_shared")


def _apart(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each round: how far it is from the next one, of the last none, and from the start."""
    start = len(result["angular"]) - 1
    found: list[dict[str, Any]] = []
    for k in range(start):
        one: dict[str, Any] = {}
        for kind in _MATRICES:
            row: Sequence[Any] = result[kind][k]
            one |= {f"{kind}_to_next": row[k + 1]} if k + 1 < start else {}
            one[f"{kind}_to_start"] = row[start]
        found.append(one)
    return found


def _defined(found: Mapping[str, Any]) -> dict[str, float]:
    return {kind: float(value) for kind, value in found.items() if value is not None}
