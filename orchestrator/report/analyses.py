"""Analyses of a report: what was measured, of which networks, read from the store alone."""

from __future__ import annotations

import functools
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from elth.errors import ElthError
from elth.measures import LINE, MEASURES, PAIR, by_round, measure_of, numbers, settings_of
from orchestrator.experiment.axes import LEVEL, ON_NETWORK, USUAL
from orchestrator.experiment.methods import rank
from orchestrator.plan.only import Only
from orchestrator.plan.stage import ANALYSIS, LOOKS_AT, NOISE, PAIRED, Stage
from orchestrator.report.cells import finished_in, line_name, network_order
from orchestrator.store.content import Content, all_labels
from orchestrator.store.measured import MEASURED, read_measured
from orchestrator.store.tracker import RESULT, Tracker

AXES = (*ON_NETWORK, *LEVEL, "seed")
_ALWAYS = ("method", "source", "transform", "round", "seed")


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A trained network that an analysis looks at, by the axes of its cell."""

    method: str
    """``imp`` is a chain from its dense round on."""
    source: str = ""
    transform: str = ""
    ticket: str = ""
    variant: str = ""
    noise: int = 0
    round: int
    target: str = ""
    seed: int
    nonzeros: int | None = None
    """How many weights its mask keeps; None where the store does not know its run any more."""
    prunable: int | None = None

    @property
    def remaining(self) -> float | None:
        """The fraction of its weights that its mask keeps."""
        return (
            self.nonzeros / self.prunable if self.nonzeros is not None and self.prunable else None
        )

    @functools.cached_property
    def name(self) -> str:
        """The line that it belongs to."""
        return line_name(
            self.method, self.source, self.transform, self.ticket, self.variant, self.noise
        )

    @property
    def level(self) -> tuple[int, str]:
        """Round and exact sparsity."""
        return (self.round, self.target)

    def plain(self) -> dict[str, Any]:
        """As JSON values; an axis that is usual is left out."""
        axes = {name: getattr(self, name) for name in AXES}
        told = {n: value for n, value in axes.items() if value or n in _ALWAYS}
        return {**told, "nonzeros": self.nonzeros, "remaining": self.remaining}


@dataclass(frozen=True)
class Weights:
    """What is known of a network that is looked at."""

    labels: Mapping[str, Any]
    """Of its stage."""
    nonzeros: int
    prunable: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A finished analysis."""

    measure: str
    network: str
    dataset: str
    settings: Mapping[str, Any]
    """Those that differ from the defaults."""
    rate: str = ""
    """The fraction that a pruning takes, where the measure depends on it."""
    version: int = 1
    """Of the measure with these settings."""
    looks_at: str
    of: tuple[Looked, ...]
    """What it looks at, in its order."""
    result: Mapping[str, Any]
    """What was measured."""
    at: int | None = None
    """By which of them a pair is placed; by the denser one, when None."""

    @functools.cached_property
    def between(self) -> str:
        """Of what two networks are: ``rounds``, ``twins``, ``seeds`` or ``cells``; else nothing."""
        if measure_of(self.measure).looks_at != PAIR:
            return ""
        first, last = self.of
        differ = {axis for axis in AXES if getattr(first, axis) != getattr(last, axis)}
        kinds = ((set(LEVEL), "rounds"), ({NOISE}, "twins"), ({"seed"}, "seeds"))
        return next((kind for axes, kind in kinds if differ <= axes), "cells")

    @functools.cached_property
    def line(self) -> str:
        """The line that it is of, over its rounds and seeds: ``IMP, b512``."""
        names = [one.name for one in self.of]
        if self.between == "twins":
            return replace(self.of[0], noise=0).name
        return " and ".join(dict.fromkeys(names)) if self.between == "cells" else names[-1]

    @functools.cached_property
    def place(self) -> Looked:
        """By which of the networks a pair is placed: the one that keeps most weights.

        Of pairs that have one network in common it is the other.
        """
        if self.at is not None:
            return self.of[self.at]
        if all(one.remaining is not None for one in self.of):
            return max(self.of, key=lambda one: one.remaining or 0.0)
        return min(self.of, key=lambda one: one.level)

    @property
    def levels(self) -> tuple[tuple[int, str], ...]:
        """Of what it looks at, in its order."""
        return tuple(one.level for one in self.of)

    @functools.cached_property
    def numbers(self) -> dict[str, float]:
        """Its single numbers; none of a line."""
        return numbers(self.measure, self.result)

    @functools.cached_property
    def by_round(self) -> list[dict[str, float]]:
        """The numbers of each round of a line."""
        return by_round(self.measure, self.result)

    @functools.cached_property
    def points(self) -> list[tuple[Looked, dict[str, float]]]:
        """All its numbers, each set with the network that it is placed at."""
        if measure_of(self.measure).looks_at == LINE:
            return list(zip(self.of, self.by_round, strict=False))
        return [(self.place, self.numbers)]

    def plain(self) -> dict[str, Any]:
        """As JSON values: no times, hosts or runs."""
        whole = vars(settings_of(self.measure, self.settings))
        found: dict[str, Any] = {
            "measure": self.measure,
            "network": self.network,
            "dataset": self.dataset,
            **({"version": self.version} if self.version > 1 else {}),
            "settings": {**whole, **({"rate": self.rate} if self.rate else {})},
            "looks_at": self.looks_at,
            **({"between": self.between} if self.between else {}),
            "of": [one.plain() for one in self.of],
        }
        own = {"by_round": self.by_round} if self.by_round else {"numbers": self.numbers}
        return {**found, **own, "measured": self.result}


@dataclass(frozen=True, kw_only=True)
class Analyses:
    """The finished analyses of a grid, sorted."""

    found: tuple[Measured, ...] = ()
    lacking: tuple[str, ...] = ()
    """Those whose file is damaged or not there, with the reason."""
    variants: tuple[str, ...] = ()
    """The names of the grid's variants, in its order."""


NONE = Analyses()


def collect(
    tracker: Tracker, grid: str, asked: Content | None = None, only: Only | None = None
) -> Analyses:
    """Read the analyses of a grid from the store.

    Args:
        tracker: of the store.
        grid: its name.
        asked: what a file asks for, if the analyses are those of a file.
        only: what of them is chosen; all when None.

    Raises:
        ElthError: the store has no such grid, or does not answer.
    """
    content = asked or tracker.grids.content(grid)
    finished = finished_in(tracker, content)
    known = {
        one.key: Weights(one.stage.labels, one.nonzeros, one.prunable)
        for one in (*tracker.stages(), *finished.values())
    }
    found, lacking = [], []
    for key, one in finished.items():
        if one.stage.kind != ANALYSIS:
            continue
        called = [own for own in all_labels(content.keys[key]) if only is None or only.has(own)]
        if not called:
            continue
        try:
            with tracker.files.fetched(one.run_id, f"{RESULT}/{MEASURED}") as path:
                result = read_measured(path)
        except FileNotFoundError:
            lacking.append(f"{one.stage.title}: its file is not there")
            continue
        except ElthError as error:
            lacking.append(f"{one.stage.title}: {error}")
            continue
        for labels in called:
            stage = replace(one.stage, labels=labels)
            found.append(measured_of(stage, result, known, content.keys))
    variants = tuple(content.experiment.get("variants") or {})
    if not found and not lacking:
        return NONE
    return Analyses(
        found=tuple(sorted(found, key=_sort_key(variants))),
        lacking=tuple(sorted(lacking)),
        variants=variants,
    )


def measured_of(
    stage: Stage,
    result: Mapping[str, Any],
    known: Mapping[str, Weights],
    called: Mapping[str, Mapping[str, Any]] = {},
) -> Measured:
    """An analysis with what it looks at.

    Args:
        stage: the analysis, called as it is in a grid.
        result: what was measured.
        known: the networks that it looks at, by the keys of their stages.
        called: what stages are called in the grid, as of ``Content.keys``.
    """
    params = stage.params
    return Measured(
        measure=params["measure"],
        network=str(stage.labels["network"]),
        dataset=str(stage.labels["dataset"]),
        settings=dict(params.get("settings", {})),
        rate=str(params.get("rate", "")),
        version=int(params.get("version", 1)),
        looks_at=str(stage.labels.get(LOOKS_AT, "")),
        of=tuple(
            _looked(number, stage, known.get(key), called)
            for number, key in enumerate(stage.parents)
        ),
        result=result,
    )


def _looked(
    number: int, stage: Stage, known: Weights | None, called: Mapping[str, Mapping[str, Any]]
) -> Looked:
    own = _called(number, stage, known, called)
    values = {axis: own.get(axis, USUAL.get(axis, 0)) for axis in AXES}
    if values["method"] == "dense":
        values["method"] = "imp"
    counts: dict[str, Any] = {}
    if known is not None and known.prunable:
        counts = {"nonzeros": known.nonzeros, "prunable": known.prunable}
    return Looked(**values, **counts)


def _called(
    number: int, stage: Stage, known: Weights | None, called: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    """What one of the networks that an analysis looks at is called."""
    if PAIRED in stage.labels:
        return {**stage.labels, **stage.labels[PAIRED][number]}
    key = stage.parents[number]
    names: list[Mapping[str, Any]] = list(all_labels(called[key])) if key in called else []
    if not names:
        names = [known.labels] if known is not None else [stage.labels]
    # Called by several names it is that one which has most in common with the analysis.
    axes = [axis for axis in AXES if axis != "round"]
    return max(names, key=lambda n: sum(n.get(a) == stage.labels.get(a) for a in axes))


def _sort_key(variants: Sequence[str]) -> Callable[[Measured], tuple[Any, ...]]:
    order = {name: place for place, name in enumerate(("", *variants))}
    measures = {name: place for place, name in enumerate(MEASURES)}

    def key(one: Measured) -> tuple[Any, ...]:
        settings = json.dumps([one.settings, one.rate], sort_keys=True)
        return (
            *(measures[one.measure], one.dataset, network_order(one.network), settings),
            one.between,
            *(
                (
                    *(rank(each.method), each.source, each.transform, each.ticket),
                    *(order.get(each.variant, len(order)), each.variant),
                    *(each.noise, each.level, each.seed),
                )
                for each in one.of
            ),
        )

    return key


@dataclass(frozen=True, kw_only=True)
class Group:
    """Analyses that are of one picture or table: one measure, settings, network and pairing."""

    measure: str
    network: str
    dataset: str
    between: str
    settings: str
    """As ``points=71``, where analyses of the measure differ in them; else nothing."""
    found: tuple[Measured, ...]

    @property
    def title(self) -> str:
        """For people: ``barrier between rounds, resnet20 on cifar10``."""
        text = f"{self.measure} between {self.between}" if self.between else self.measure
        text += f", {self.network} on {self.dataset}"
        return f"{text}, {self.settings}" if self.settings else text

    @functools.cached_property
    def lines(self) -> dict[str, list[Measured]]:
        """By lines, in their order; what is of other rounds is a line of its own.

        Those have their rounds in their names: ``IMP, rounds 0 and 10``.
        """
        whole: dict[str, list[Measured]] = {}
        for one in self.found:
            whole.setdefault(one.line, []).append(one)
        lines: dict[str, list[Measured]] = {}
        for line, some in whole.items():
            parts = _alike(some)
            for part in parts:
                is_told = len(parts) > 1 or part[0].at is not None
                lines[f"{line}, {_rounds(part)}" if is_told else line] = part
        return lines

    @functools.cached_property
    def names(self) -> list[str]:
        """The names of all its numbers."""
        return list(dict.fromkeys(n for m in self.found for _, at in m.points for n in at))

    def curve(self, line: str, name: str) -> list[Point]:
        """One number of a line over its levels, densest first."""
        levels: dict[tuple[tuple[int, str], ...], list[tuple[Looked, float | None]]] = {}
        for one in self.lines[line]:
            for looked, at in one.points:
                own = one.levels if one.between else (looked.level,)
                levels.setdefault(own, []).append((looked, at.get(name)))
        found = []
        for values in levels.values():
            level = values[0][0].level
            remaining = [one.remaining for one, _ in values if one.remaining is not None]
            found.append(
                Point(
                    level=level,
                    remaining=statistics.fmean(remaining) if remaining else None,
                    values=tuple(value for _, value in values if value is not None),
                    of=len(values),
                )
            )
        found.sort(key=lambda one: (-(one.remaining or 0.0), one.level))
        there = [number for number, one in enumerate(found) if one.values]
        # What was not measured between others is told; the last round has no next one.
        return found[there[0] : there[-1] + 1] if there else []


@dataclass(frozen=True, kw_only=True)
class Point:
    """A number at one level, over its seeds."""

    level: tuple[int, str]
    remaining: float | None
    """Mean fraction of weights that remain."""
    values: tuple[float, ...]
    """Those that are defined and could be measured."""
    of: int
    """How many there would be."""

    @property
    def mean(self) -> float:
        """Over the seeds; NaN where there is no value."""
        return statistics.fmean(self.values) if self.values else math.nan


def _alike(found: Sequence[Measured]) -> list[list[Measured]]:
    """The analyses of a line in parts within which those of other rounds are not mixed."""
    if measure_of(found[0].measure).looks_at == LINE:
        return _alike_lines(found)
    if not _collide(found):
        return [list(found)]
    apart = _by(found, _steps)
    whole = [
        part for some in apart for part in ([some] if not _collide(some) else _by_levels(some))
    ]
    return sorted(whole, key=lambda part: found.index(part[0]))


def _alike_lines(found: Sequence[Measured]) -> list[list[Measured]]:
    """Lines of the same rounds, though those of a seed may end earlier than those of another."""
    parts: list[list[Measured]] = []
    for some in sorted(_by_levels(found), key=lambda some: -len(some[0].of)):  # the longest first
        begin, seeds = some[0].levels, {one.of[0].seed for one in some}
        for part in parts:
            theirs = {one.of[0].seed for one in part}
            if part[0].levels[: len(begin)] == begin and not seeds & theirs:
                part += some
                break
        else:
            parts.append(some)
    ordered = [[one for one in found if any(one is other for other in part)] for part in parts]
    return sorted(ordered, key=lambda part: found.index(part[0]))


def _collide(found: Sequence[Measured]) -> bool:
    """Whether pairs of unlike rounds would stand at one place of a line."""
    places = {one.levels: one.place.level for one in found}
    return len(set(places.values())) < len(places)


def _steps(one: Measured) -> Any:
    """How many rounds lie between the two of a pair; of exact sparsities both."""
    if any(target for _, target in one.levels):
        return one.levels
    return one.levels[-1][0] - one.levels[0][0]


def _by_levels(found: Sequence[Measured]) -> list[list[Measured]]:
    return _by(found, lambda one: one.levels)


def _by(found: Sequence[Measured], what: Callable[[Measured], Any]) -> list[list[Measured]]:
    parts: dict[Any, list[Measured]] = {}
    for one in found:
        parts.setdefault(what(one), []).append(one)
    return list(parts.values())


def _rounds(part: Sequence[Measured]) -> str:
    """The rounds of a part of a line, for its name: ``rounds 0 to 3``, ``5 rounds apart``."""
    levels = max((one.levels for one in part), key=len)
    if part[0].at is not None:
        k, target = levels[1 - part[0].at]
        return f"with sparsity {target}" if target else f"with round {k}"
    if measure_of(part[0].measure).looks_at != LINE and len({one.levels for one in part}) > 1:
        step = levels[-1][0] - levels[0][0]
        if not step:
            return "equal rounds"
        return f"{abs(step)} round{'s' if abs(step) > 1 else ''} {'apart' if step > 0 else 'back'}"
    numbers = [k for k, _ in levels]
    if any(target for _, target in levels):
        return " and ".join(f"sparsity {t}" if t else f"round {k}" for k, t in levels)
    if len(set(numbers)) == 1:
        return f"round {numbers[0]}"
    if len(numbers) == 2:
        return f"rounds {numbers[0]} and {numbers[1]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"rounds {numbers[0]} to {numbers[-1]}"
    return f"rounds {', '.join(map(str, numbers))}"


def grouped(found: Iterable[Measured]) -> list[Group]:
    """Analyses by what is compared, in their order."""
    groups: dict[tuple[Any, ...], list[Measured]] = {}
    settings: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for one in found:
        whole = vars(settings_of(one.measure, one.settings)) | {"rate": one.rate}
        whole |= {"version": one.version}
        text = json.dumps(whole, sort_keys=True)
        settings.setdefault((one.measure, one.between), {})[text] = whole
        place = (one.measure, one.network, one.dataset, one.between, text)
        groups.setdefault(place, []).append(one)
    return [
        Group(
            measure=place[0],
            network=place[1],
            dataset=place[2],
            between=place[3],
            settings=_differing(settings[place[0], place[3]], place[4]),
            found=_placed(some),
        )
        for place, some in groups.items()
    ]


def _placed(found: Sequence[Measured]) -> tuple[Measured, ...]:
    """Analyses of a group, pairs of one round with several others placed by those."""
    if measure_of(found[0].measure).looks_at != PAIR:
        return tuple(found)
    at: dict[str, int] = {}
    for some in _by(found, lambda one: one.line):
        first, second = ({one.levels[side] for one in some} for side in (0, 1))
        if _collide(some) and 1 in (len(first), len(second)):
            at[some[0].line] = 1 if len(first) == 1 else 0
    return tuple(replace(one, at=at[one.line]) if one.line in at else one for one in found)


def _differing(settings: Mapping[str, Mapping[str, Any]], own: str) -> str:
    """The settings in which analyses of one measure differ, as ``points=71``."""
    names = [n for n in settings[own] if len({repr(one.get(n)) for one in settings.values()}) > 1]
    return ", ".join(f"{name}={settings[own][name]}" for name in names)


def shown(group: Group) -> list[str]:
    """Of a group's numbers those that tables show, each in the definition that fits.

    A barrier between rounds is over the worse end (Maene et al. 2021, Figure 8), as the others are
    above 0 wherever the ends differ. That of twins or seeds is over the mean (Figure 2), and over
    the worse end besides (E-LTH, Figure 8).
    """
    if group.measure == "barrier":
        kinds = ("mean", "worse") if group.between in _ALIKE else ("worse",)
        ends = tuple(f"error_barrier_{kind}" for kind in kinds)
        return [name for name in group.names if name.endswith(ends)]
    chosen = _SHOWN.get(group.measure)
    return group.names if chosen is None else [name for name in group.names if name in chosen]


def drawn(group: Group) -> list[str]:
    """Of the numbers that tables show those that pictures show, too."""
    left_out = ("_barrier_worse",) if group.between in _ALIKE else ("residual", "trace_sd")
    return [name for name in shown(group) if not name.endswith(left_out)]


_ALIKE = ("twins", "seeds")
"""Of pairs in these nothing but chance makes one end better."""


_SHOWN = {
    "overlap": ("iou", "excess"),
    "damage": ("train_error_damage", "test_error_damage", "removed"),
    "distances": ("angular_to_next", "angular_to_start"),
    "travel": ("travel_angular", "travel_l2"),
}

_WORDS = {
    "train_error_barrier_worse": "barrier in training error (points, over the worse end)",
    "test_error_barrier_worse": "barrier in test error (points, over the worse end)",
    "train_error_barrier_mean": "instability in training error (points)",
    "test_error_barrier_mean": "instability in test error (points)",
    "train_disagreement": "disagreement on training images (share)",
    "test_disagreement": "disagreement on test images (share)",
    "train_relative": "disagreement on training images (over independent errors)",
    "test_relative": "disagreement on test images (over independent errors)",
    "train_error_damage": "training error added by the pruning (points)",
    "test_error_damage": "test error added by the pruning (points)",
    "removed": "norm that the pruning takes away (share)",
    "iou": "intersection over union of masks",
    "excess": "overlap of masks (0 by chance, 1 equal)",
    "agreement": "agreement of signs (0.5 by chance)",
    "top": "top eigenvalue of the Hessian",
    "residual": "residual of the top eigenvalue (so near to it one lies for sure)",
    "trace": "trace of the Hessian",
    "trace_sd": "standard deviation of the trace's estimates, each of a probe",
    "angular_to_next": "angular distance to the next round",
    "angular_to_start": "angular distance to the start",
    "bimodality": "bimodality of the weights",
    "threshold": "pruning threshold",
    "effective_sparsity": "effective sparsity",
    "dead_units": "dead units",
    "travel_angular": "angular distance from the start",
    "travel_l2": "Euclidean distance from the start",
}


def words(name: str) -> str:
    """A number's name for people."""
    return _WORDS.get(name, name.replace("_", " "))
