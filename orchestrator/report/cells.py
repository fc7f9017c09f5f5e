"""Cells of a report: finished stages gathered over seeds, read from the store alone.

A report can be made on any machine that reaches the store.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from elth.errors import ElthError
from orchestrator.experiment.axes import Axes
from orchestrator.experiment.claims import MARGIN, Claim
from orchestrator.experiment.methods import rank, title
from orchestrator.experiment.papers import Paper
from orchestrator.plan.only import Only
from orchestrator.plan.stage import LOOKS_AT, NOISE, VARIANT
from orchestrator.store.content import Content, all_labels, beside
from orchestrator.store.listing import Tracked
from orchestrator.store.marks import STALE
from orchestrator.store.redo import marked
from orchestrator.store.soundness import faulty
from orchestrator.store.tracker import Tracker


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of axes, over its seeds. Lists are in the order of seeds."""

    network: str
    method: str
    source: str
    transform: str
    round: int
    dataset: str
    target: str = ""
    """Exact sparsity that was asked for, as ``0.9``, where it is not that of a whole round."""
    variant: str = ""
    """The variant of the experiment; empty for the experiment itself."""
    noise: int = 0
    """Number of the twin; 0 is the cell itself."""
    ticket: str = ""
    """The imported ticket from which its rounds are counted, if there is one."""
    sparsity: float
    """Mean fraction of prunable weights that are zero."""
    seeds: tuple[int, ...]
    nonzeros: tuple[int, ...]
    accuracy: tuple[float, ...]
    """Test accuracy in percent after the last epoch."""
    runs: tuple[str, ...]
    """MLflow run ids."""
    numerics: tuple[str, ...]
    seconds: tuple[float, ...]
    collapsed: tuple[str, ...] = ()
    """Weights of which no element is left, for any seed: through such a layer no signal passes."""

    @property
    def level(self) -> tuple[int, str]:
        """Round and exact sparsity: what is compared stands at one level.

        Rounds of an imported ticket are counted from that, and are levels of their own.
        """
        return (self.round, " ".join(filter(None, (self.ticket, self.target))))

    @functools.cached_property
    def mean(self) -> float:
        """Mean accuracy."""
        return statistics.fmean(self.accuracy)

    @functools.cached_property
    def deviation(self) -> float | None:
        """Standard deviation of a sample (n - 1); None for one seed."""
        return statistics.stdev(self.accuracy) if len(self.accuracy) > 1 else None

    @property
    def name(self) -> str:
        """How the line is written: ``ETT <- resnet14 append``, ``IMP from theirs, b512``."""
        return line_name(
            self.method, self.source, self.transform, self.ticket, self.variant, self.noise
        )

    @property
    def is_moved(self) -> bool:
        """Whether its ticket was found on another network or dataset."""
        return bool(self.source)

    def plain(self, *, provenance: bool = False) -> dict[str, Any]:
        """The cell as JSON values; with ``provenance`` also runs, numerics classes and times."""
        result: dict[str, Any] = {
            "network": self.network,
            "method": self.method,
            "source": self.source,
            "transform": self.transform,
            "round": self.round,
            "dataset": self.dataset,
            **({"target": self.target} if self.target else {}),
            **({VARIANT: self.variant} if self.variant else {}),
            **({NOISE: self.noise} if self.noise else {}),
            **({"ticket": self.ticket} if self.ticket else {}),
            "sparsity": self.sparsity,
            "seeds": list(self.seeds),
            "nonzeros": list(self.nonzeros),
            "accuracy": list(self.accuracy),
            "accuracy_mean": self.mean,
            "accuracy_sd": self.deviation,
        }
        if provenance:
            result |= {
                "runs": list(self.runs),
                "numerics": list(self.numerics),
                "seconds": list(self.seconds),
                "collapsed": list(self.collapsed),
            }
        return result


@dataclass(frozen=True, kw_only=True)
class Report:
    """The cells of a grid, sorted, and what is missing of it."""

    grid: str
    cells: tuple[Cell, ...]
    missing: int
    """Stages of the grid that are not finished, ended ones apart."""
    ended: int = 0
    """Stages that are no part of the grid as a chain ended before them."""
    endings: tuple[str, ...] = ()
    """Which rounds are the last of their chains, and why."""
    paper: Paper | None = None
    """The table or figure that the grid is the setting of."""
    dataset: str = ""
    """The dataset of the experiment."""
    criteria: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings of pruning criteria that differ from the published ones."""
    rounds: int = 0
    """The last round that the experiment asks for."""
    faulty: tuple[str, ...] = ()
    """Stages whose gradients may have been wrong, as they were computed by an earlier version."""
    stale: tuple[str, ...] = ()
    """Stages made of what came out different when it was done again, and not done again yet."""
    asked: frozenset[tuple[str, str]] = frozenset()
    """Datasets and networks that the grid names as targets; others are only on the way."""
    beside: str = ""
    """How the grid in the store differs, of a report of a file."""
    claims: tuple[Claim, ...] = ()
    """What the experiment claims of its cells."""
    margin: float = MARGIN
    """Points of accuracy within which two cells count as equal."""
    planned: tuple[Axes, ...] = ()
    """Where its cells stand, those that are not finished, or are ended, included."""
    only: str = ""
    """What of the grid was chosen, of a report of a part."""
    whole: tuple[Cell, ...] = ()
    """Of a part, the cells of all: what is compared is looked for among these, too."""

    @property
    def compared(self) -> tuple[Cell, ...]:
        """The cells among which those that others are compared with are looked for."""
        return (*self.cells, *self.whole)

    @property
    def shown(self) -> tuple[Cell, ...]:
        """The cells for tables and figures: those on the way to others are in JSON and CSV only."""
        shown = tuple(c for c in self.cells if (c.dataset, c.network) in self.asked)
        return shown or self.cells

    @property
    def numerics(self) -> tuple[str, ...]:
        """The numerics classes that the results come from; more than one is worth a word."""
        return tuple(sorted({name for cell in self.cells for name in cell.numerics}))


def line_name(
    method: str,
    source: str = "",
    transform: str = "",
    ticket: str = "",
    variant: str = "",
    noise: int = 0,
) -> str:
    """How a line of a report is written."""
    text = title(method)
    if source:
        text += f" <- {source}{'' if transform == 'identity' else f' {transform}'}"
    text += f" from {ticket}" if ticket else ""
    text += f", {variant}" if variant else ""
    return text + (f", noise {noise}" if noise else "")


def finished_in(tracker: Tracker, content: Content) -> dict[str, Tracked]:
    """The finished stages of a grid or a file by their keys, called as they are there.

    What is marked counts where nothing has taken its place.
    """
    again = marked(tracker)
    found: dict[str, Tracked] = {}
    for tracked in sorted(tracker.stages(), key=lambda one: one.run_id in again):
        if tracked.key in content.keys and tracked.status == "finished":
            own = all_labels(content.keys[tracked.key])[0]
            stage = replace(tracked.stage, labels=own)
            found.setdefault(tracked.key, replace(tracked, stage=stage))
    return found


def collect(
    tracker: Tracker, grid: str, asked: Content | None = None, only: Only | None = None
) -> Report:
    """Read a grid from the store.

    Args:
        tracker: of the store.
        grid: its name.
        asked: what a file asks for: the report is of that, and says how the grid differs.
        only: what of it is chosen; all when None.

    Raises:
        ElthError: the store has no such grid, or it has nothing of the kind that is chosen.
    """
    held = tracker.grids.content(grid)
    labels = (asked or held).keys
    wrong = {one.run_id for one in faulty(tracker.stages())}
    again = marked(tracker)
    by_key = finished_in(tracker, asked or held)
    experiment = (asked or held).experiment
    ended = (asked or held).ended(by_key)
    by_key = {key: one for key, one in by_key.items() if key not in ended}
    called = [
        replace(one, stage=replace(one.stage, labels=own))
        for key, one in by_key.items()
        for own in all_labels(labels[key])
    ]
    variants = experiment.get("variants", {})
    cells = every = cells_of(called, variants)
    left = labels.keys() - by_key.keys() - ended.keys()
    if only is not None:
        names = {key: all_labels(one) for key, one in labels.items()}
        only.check((one for own in names.values() for one in own), grid)
        cells = cells_of([one for one in called if only.has(one.stage.labels)], variants)
        left &= only.keys(names)
        ended = {key: why for key, why in ended.items() if key in only.keys(names)}
    paper, dataset = experiment.get("paper"), str(experiment.get("dataset", ""))
    # An image folder is called by its manifest in the experiment, and by its own name in labels.
    titles = {one["place"]: one["dataset"] for one in labels.values() if "place" in one}
    return Report(
        grid=grid,
        cells=cells,
        missing=len(left),
        ended=len(labels.keys() & ended.keys()),
        endings=tuple(dict.fromkeys(ended.values())),
        paper=Paper.stored(paper) if paper else None,
        dataset=titles.get(dataset, dataset),
        criteria={name: given for name, given in experiment.get("criteria", {}).items() if given},
        faulty=tuple(one.stage.title for one in by_key.values() if one.run_id in wrong),
        stale=tuple(
            one.stage.title
            for one in by_key.values()
            if one.run_id in again and STALE in again[one.run_id].data.tags
        ),
        rounds=int(experiment.get("pruning", {}).get("rounds", 0)),
        asked=frozenset(
            (titles.get(name, name), network)
            for entry in experiment.get("grid", ())
            for name in entry.get("dataset") or [dataset]
            for network in entry["network"]
        ),
        beside=beside(grid, held, asked) if asked else "",
        claims=tuple(Claim.stored(one) for one in experiment.get("claims", ())),
        margin=float(experiment.get("margin", MARGIN)),
        planned=_planned(labels.values()),
        only="" if only is None else str(only),
        whole=() if only is None else every,
    )


def _planned(found: Iterable[Mapping[str, Any]]) -> tuple[Axes, ...]:
    """Where the cells of a grid stand, by what its stages are called."""
    called = (labels for one in found for labels in all_labels(one))
    cells = (one for one in called if "seed" in one and one["method"] != "rewind")
    return tuple(dict.fromkeys(Axes.of(one) for one in cells if LOOKS_AT not in one))


def cells_of(tracked: Iterable[Tracked], variants: Iterable[str] = ()) -> tuple[Cell, ...]:
    """Gather finished stages into cells, sorted by network, sparsity, method, plan and variant.

    Args:
        tracked: the finished stages.
        variants: the names of variants, in the order of the experiment.

    Raises:
        ElthError: two results claim the same cell and seed.
    """
    groups: dict[Axes, list[Tracked]] = {}
    for one in tracked:
        if one.stage.kind == "rewind_point" or one.accuracy is None:
            continue
        groups.setdefault(Axes.of(one.stage.labels), []).append(one)
    cells = []
    for place, group in groups.items():
        group.sort(key=lambda one: one.stage.labels["seed"])
        seeds = tuple(one.stage.labels["seed"] for one in group)
        if len(set(seeds)) != len(seeds):
            raise ElthError(
                f"two results for {place.method} on {place.network}, round {place.round}: the grid "
                "mixes recipes"
            )
        sparsity = [1 - one.nonzeros / one.prunable for one in group]
        cells.append(
            Cell(
                **place._asdict(),
                sparsity=statistics.fmean(sparsity),
                seeds=seeds,
                nonzeros=tuple(one.nonzeros for one in group),
                accuracy=tuple(one.accuracy or 0.0 for one in group),
                runs=tuple(one.run_id for one in group),
                numerics=tuple(one.numerics for one in group),
                seconds=tuple(one.seconds or 0.0 for one in group),
                collapsed=tuple(dict.fromkeys(n for one in group for n in one.collapsed)),
            )
        )
    order = {name: place for place, name in enumerate(("", *variants))}
    return tuple(sorted(cells, key=lambda cell: _sort_key(cell, order)))


def _sort_key(cell: Cell, variants: Mapping[str, int]) -> tuple[Any, ...]:
    size = network_order(cell.network)
    line = (rank(cell.method), cell.source, cell.transform)
    variant = (variants.get(cell.variant, len(variants)), cell.variant)
    # An exact sparsity lies between the round before its own and that.
    level = (cell.round, not cell.target, *cell.level)
    return (cell.dataset, *size, *level, *line, *variant, cell.noise)


class Imps:
    """The IMP cells of a report, with which others are compared; none of their twins."""

    def __init__(self, cells: Iterable[Cell], planned: Iterable[Axes] = ()) -> None:
        """Find them among all cells; what is planned tells which variants IMP has besides."""
        self._found: dict[tuple[Any, ...], Cell] = {}
        for one in cells:
            if one.method == "imp" and not one.noise:
                self._found.setdefault((*self._place(one), one.variant), one)
        self._variants = {
            (one.network, one.dataset, one.variant)
            for one in (*map(Axes.of, self._found.values()), *planned)
            if one.method == "imp"
        }

    @staticmethod
    def _place(cell: Cell) -> tuple[Any, ...]:
        return (cell.network, cell.level, cell.dataset)

    def of(self, cell: Cell) -> Cell | None:
        """The one of the same network, level, dataset and variant; see ``Baseline`` of claims."""
        has_own = (cell.network, cell.dataset, cell.variant) in self._variants
        return self._found.get((*self._place(cell), cell.variant if has_own else ""))

    def difference(self, cell: Cell) -> float | None:
        """Mean accuracy less that of IMP, over the seeds that both have; None without IMP."""
        imp = self.of(cell)
        if imp is None or imp == cell:
            return None
        reference = dict(zip(imp.seeds, imp.accuracy, strict=True))
        pairs = [
            accuracy - reference[seed]
            for seed, accuracy in zip(cell.seeds, cell.accuracy, strict=True)
            if seed in reference
        ]
        return statistics.fmean(pairs) if pairs else None


def network_order(network: str) -> tuple[str, int, str]:
    """A key that sorts networks by family and depth: ``vgg13(fc=2)`` before ``vgg16``."""
    name = network.split("(", maxsplit=1)[0]
    stem = name.rstrip("0123456789")
    return (stem, int(name[len(stem) :] or 0), network)
