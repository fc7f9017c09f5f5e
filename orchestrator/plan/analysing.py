"""From the analyses of an experiment to stages: which trained networks each of them looks at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from typing import Any

from elth.errors import ElthError, nearest
from elth.measures import LINE, PAIR, measure_of, settings_of, starts_of, version_of
from elth.ways import STAY
from orchestrator.experiment.analyses import Analysis, Selection
from orchestrator.experiment.axes import CELL, IN_CONFIGS, USUAL
from orchestrator.experiment.variants import PLAIN
from orchestrator.plan.stage import ANALYSIS, LOOKS_AT, MEASURE, NOISE, PAIRED, VARIANT, Stage

_AXES = (*CELL, "seed")
_SHARED = ("network", "network_version", "dataset")
"""What all that an analysis looks at have in common, and its key holds."""
_LISTED = 12
_COMPARED = 300
"""Cells of each of two selections, of which the nearest are told."""
_OF_DATA = ("place", "shape", "sizes")
"""Labels that tell of the dataset, not of the cell."""


@dataclass(frozen=True)
class _Cell:
    """A training of the plan, as it is called in one variant."""

    stage: Stage
    labels: Mapping[str, Any]

    def __getitem__(self, axis: str) -> Any:
        """What it is on an axis; round 0 of a chain is IMP's."""
        value = self.labels.get(axis, USUAL.get(axis))
        return "imp" if (axis, value) == ("method", "dense") else value

    def but(self, *axes: str) -> tuple[Any, ...]:
        """What it is on all axes but some."""
        return tuple(self[axis] for axis in _AXES if axis not in axes)

    def values(self, axis: str) -> list[Any]:
        """What it may be selected by on an axis; round 0 of a chain is IMP's and dense."""
        if axis == "round" and self["target"]:
            return []  # its round is no whole one
        return list(dict.fromkeys((self.labels.get(axis, self[axis]), self[axis])))

    def has(self, selection: Selection) -> bool:
        """Whether it is selected."""
        if selection.has(self.labels):
            return True
        is_dense = self.labels.get("method") == "dense"
        return is_dense and selection.has({**self.labels, "method": "imp"})


def stages_of(
    number: int,
    analysis: Analysis,
    trained: Iterable[tuple[Stage, Mapping[str, Any]]],
    rates: Mapping[str, float],
    *,
    is_stored: bool = False,
) -> list[Stage]:
    """The stages that an analysis comes to.

    Args:
        number: its place in the file, for messages.
        analysis: the analysis.
        trained: the trainings of a plan, each with what it is called; rewind points among them are
            passed over.
        rates: by variant, the fraction that a pruning takes.
        is_stored: as of ``building.build``.

    Raises:
        ElthError: it, or a value in it, selects nothing, or it compares different networks.
    """
    cells = [_Cell(stage, labels) for stage, labels in trained if stage.kind != "rewind_point"]
    try:
        groups = list(_groups(analysis, cells))
        if not groups:
            raise ElthError(_nothing(analysis, cells))
        if not is_stored:
            _check_values(analysis, cells)
        return [_stage(analysis, group, rates) for group in groups]
    except ElthError as error:
        raise ElthError(f"in analyses.{number}: {error}") from error


def _check_values(analysis: Analysis, cells: Sequence[_Cell]) -> None:
    """Refuse a value that no cell has: a slip of the pen would else select less in silence.

    But seeds, which may be given one after the other.
    """
    for selection in (analysis.of, *_pair(analysis)):
        for axis, values in selection.axes.items():
            if axis == "seed":
                continue
            there = dict.fromkeys(value for cell in cells for value in cell.values(axis))
            name = IN_CONFIGS.get(axis, axis)
            for value in values:
                if value not in there:
                    known = [str(one) or PLAIN for one in there if one != "" or axis != "target"]
                    raise ElthError(
                        f"no cell of the grid has {name} {str(value) or PLAIN}"
                        f"{nearest(str(value), known)} (there is: {', '.join(known[:_LISTED])}"
                        f"{', ...' * (len(known) > _LISTED)})"
                    )


def _groups(analysis: Analysis, cells: Sequence[_Cell]) -> Iterator[Sequence[_Cell]]:
    """The cells that each stage looks at, in their order."""
    looks_at = measure_of(analysis.measure).looks_at
    chosen = _chosen(analysis, cells)
    if isinstance(analysis.between, tuple):
        yield from _matched(*analysis.between, chosen)
    elif looks_at == LINE:
        yield from _by(chosen, "round")
    elif looks_at == PAIR:
        axis = {"rounds": "round", "twins": NOISE, "seeds": "seed"}[str(analysis.between)]
        for group in _by(chosen, axis):
            yield from pairwise(group) if axis == "round" else combinations(group, 2)
    else:
        yield from ([cell] for cell in chosen)


def _chosen(analysis: Analysis, cells: Sequence[_Cell]) -> list[_Cell]:
    """The cells that an analysis is of: twins only for who names them, in any of its selections."""
    chosen = {cell.but(): cell for cell in cells if cell.has(analysis.of)}.values()
    if analysis.of.noise or analysis.between == "twins":
        return list(chosen)
    pair = [one for one in _pair(analysis) if one.noise]
    return [cell for cell in chosen if not cell[NOISE] or any(map(cell.has, pair))]


def _pair(analysis: Analysis) -> tuple[Selection, ...]:
    """The two selections that are matched, if these are what it is between."""
    return analysis.between if isinstance(analysis.between, tuple) else ()


def _by(cells: Iterable[_Cell], axis: str) -> Iterator[list[_Cell]]:
    """Cells that differ on one axis alone, in its order; a line is one of whole rounds."""
    found: dict[tuple[Any, ...], list[_Cell]] = {}
    for cell in cells:
        if axis != "round" or not cell["target"]:
            found.setdefault(cell.but(axis), []).append(cell)
    for group in found.values():
        yield sorted(group, key=lambda cell: cell[axis])


def _matched(
    first: Selection, second: Selection, cells: Sequence[_Cell]
) -> Iterator[Sequence[_Cell]]:
    """Pairs of two selections that are equal on the axes that both leave open."""
    axes = {*first.axes, *second.axes}
    others: dict[tuple[Any, ...], list[_Cell]] = {}
    for cell in cells:
        if cell.has(second):
            others.setdefault(cell.but(*axes), []).append(cell)
    for cell in cells:
        if cell.has(first):
            for other in others.get(cell.but(*axes), ()):
                if other.stage.key != cell.stage.key:
                    yield cell, other


def weights_of(analysis: Stage, stages: Mapping[str, Stage]) -> Iterator[str]:
    """Keys of the stages whose trained weights an analysis looks at.

    They are its parents, and of those that it is to compare with what they were trained from, and
    that were not rewound, the round before.

    Args:
        analysis: the analysis.
        stages: what is known of its parents, by key.
    """
    yield from analysis.parents
    for number in starts_of(analysis.params["measure"], len(analysis.parents)):
        one = stages.get(analysis.parents[number])
        if one is not None and one.params.get("weights") in STAY:
            yield one.parents[-1]


def check_alike(stages: Sequence[Stage]) -> None:
    """Refuse to compare trainings of different networks or datasets.

    Raises:
        ElthError: with two that differ, and in what.
    """
    first = stages[0]
    for name, one in ((name, one) for name in _SHARED for one in stages):
        if one.params.get(name) != first.params.get(name):
            what = name.replace("_", " ")
            raise ElthError(
                f"{first.title} and {one.title} are of different {what}s, which nothing compares"
            )


def _stage(analysis: Analysis, group: Sequence[_Cell], rates: Mapping[str, float]) -> Stage:
    first, last = group[0], group[-1]
    known = measure_of(analysis.measure)
    chosen = settings_of(analysis.measure, analysis.settings)
    version, settings = version_of(analysis.measure, chosen), chosen.plain()
    check_alike([cell.stage for cell in group])
    usual = {axis: value for axis, value in USUAL.items() if axis != "round"}
    labels = {axis: first[axis] for axis in _AXES if first[axis] != usual.get(axis)}
    more = {name: first.labels[name] for name in _OF_DATA if name in first.labels}
    return Stage(
        kind=ANALYSIS,
        params={
            "measure": analysis.measure,
            **({"version": version} if version > 1 else {}),
            **({"settings": settings} if settings else {}),
            **({"rate": str(rates[first[VARIANT]])} if known.needs_rate else {}),
            **{name: first.stage.params[name] for name in _SHARED if name in first.stage.params},
        },
        parents=tuple(cell.stage.key for cell in group),
        labels={
            **{axis: labels.get(axis, "") for axis in ("source", "transform")},
            **labels,
            "round": last["round"],
            MEASURE: analysis.measure,
            LOOKS_AT: _looked_at(group),
            **({PAIRED: _apart(group)} if known.looks_at == PAIR else {}),
            **more,
        },
    )


def _apart(group: Sequence[_Cell]) -> list[dict[str, Any]]:
    """Of each cell of a group the axes in which they differ."""
    differ = [axis for axis in _AXES if len({cell[axis] for cell in group}) > 1]
    return [{axis: cell[axis] for axis in differ} for cell in group]


def _looked_at(group: Sequence[_Cell]) -> str:
    """What is looked at, beside what all of a group have in common: ``rounds 3 and 4``."""
    first, last = group[0], group[-1]
    if len(group) > 2 or len({cell["round"] for cell in group}) == len(group) > 1:
        rounds = [cell["round"] for cell in group]
        if all(cell.but("round") == first.but("round") for cell in group):
            between = " and " if len(rounds) == 2 else " to "
            return f"rounds {rounds[0]}{between}{rounds[-1]}"
    own = f"sparsity {first['target']}" if first["target"] else f"round {first['round']}"
    if len(group) == 1:
        return own
    differ = [axis for axis in _AXES if first[axis] != last[axis]]
    told = [" ".join(_spelled(axis, cell[axis]) for axis in differ) for cell in (first, last)]
    return f"{own}, {' and '.join(told)}" if "round" not in differ else " and ".join(told)


def _spelled(axis: str, value: Any) -> str:
    if axis in ("round", NOISE, "seed"):
        return f"{axis} {value}"
    return str(value) or "none"


def _nothing(analysis: Analysis, cells: Sequence[_Cell]) -> str:
    """Why an analysis selects nothing."""
    between, chosen, pair = analysis.between, _chosen(analysis, cells), _pair(analysis)
    for selection, among in ((analysis.of, cells), *((one, chosen) for one in pair)):
        if not any(cell.has(selection) for cell in among):
            return f"no cell of the grid has {_told(selection)}: see elth plan for what it has"
    if not chosen:
        return f"all cells with {_told(analysis.of)} are twins: name them in it, as noise: 1"
    if isinstance(between, str):
        ways = {
            "twins": "ask for twins in the grid, as noise: [0, 1]",
            "seeds": "give at least two seeds",
            "rounds": "a line needs two rounds at least",
        }
        return f"there is no pair between {between}: {ways[between]}"
    if not pair:
        return f"{analysis.measure} is of whole rounds, and these have exact sparsities"
    told = "no two cells of its selections are equal on the axes that both leave open"
    differ = _nearest(pair, chosen)
    if not differ:
        return told
    return f"{told}: they differ in {' and '.join(differ)} at least; name that in one of the two"


def _nearest(pair: tuple[Selection, ...], cells: Sequence[_Cell]) -> list[str]:
    """The fewest axes left open in which a cell of one selection differs from one of the other."""
    first, second = pair
    left_open = [axis for axis in _AXES if axis not in {*first.axes, *second.axes}]
    sides = (
        dict.fromkeys(tuple(cell[axis] for axis in left_open) for cell in cells if cell.has(one))
        for one in pair
    )
    ways = (
        [IN_CONFIGS.get(a, a) for a, x, y in zip(left_open, one, other, strict=True) if x != y]
        for one, other in product(*(list(side)[:_COMPARED] for side in sides))
        if one != other
    )
    return min(ways, key=len, default=[])


def _told(selection: Selection) -> str:
    """A selection in words: ``method imp or reinit, variant none``."""
    words = {axis: [str(one) or PLAIN for one in found] for axis, found in selection.axes.items()}
    return ", ".join(
        f"{IN_CONFIGS.get(axis, axis)} {' or '.join(one)}" for axis, one in words.items()
    )
