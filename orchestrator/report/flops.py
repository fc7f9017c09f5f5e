"""What the tickets of a grid cost: operations of inference, of training, and of the search before.

A search is all that a ticket's training needs to have been trained: for IMP its chain, for a ticket
that ETT moved the chain of its source. One chain serves several tickets, and is shared among them.
"""

from __future__ import annotations

import functools
import json
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from mlflow.exceptions import MlflowException

from elth.data import info
from elth.errors import ElthError
from elth.flops import Cost
from elth.networks import canonical
from elth.recipes import Recipe
from orchestrator.experiment.methods import METHODS, SPARSE
from orchestrator.plan.flops import Operations, cost_of, dense_run, operations
from orchestrator.plan.stage import ANALYSIS, Stage, info_of, shape_of
from orchestrator.report.cells import Cell, Report, collect, finished_in, network_order
from orchestrator.store.content import Content
from orchestrator.store.listing import Tracked
from orchestrator.store.runlog import COST
from orchestrator.store.tracker import Tracker

_AT_ONCE = 8
"""Files of a server that are asked for at a time."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The cost of a cell, as means over its seeds."""

    cell: Cell
    inference: float
    """Operations for an image, in units of the dense network's."""
    training: float
    """Of its own training, in units of one dense run of the reference; so are the others."""
    search: float
    """Of all that had to be trained before, in full."""
    shared: float
    """The same, each training divided by how many tickets need it that no other ticket needs."""

    @property
    def total(self) -> float:
        """Its training and its share of the search."""
        return self.training + self.shared

    def plain_cost(self) -> dict[str, float]:
        """Its cost as JSON values."""
        own = ("inference", "training", "search", "shared", "total")
        return {f"flops_{name}": getattr(self, name) for name in own}

    def plain(self) -> dict[str, Any]:
        """As JSON values: the cell, and its cost."""
        return {**self.cell.plain(), **self.plain_cost()}


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a grid costs."""

    grid: str
    spent: tuple[Spent, ...]
    reference: str
    """The network whose dense run is the unit."""
    unit: Mapping[str, float]
    """Operations of that run, by dataset."""
    lacking: tuple[str, ...] = ()
    """Trainings that tickets need and whose cost is not known, as they are not finished here."""
    on_the_way: tuple[Spent, ...] = ()
    """Of cells that no table shows; of the search before each, its share as if it were shown."""

    @functools.cached_property
    def by_cell(self) -> Mapping[Cell, Spent]:
        """What each cell costs, where that is known."""
        return {one.cell: one for one in (*self.spent, *self.on_the_way)}


def costs(
    tracker: Tracker,
    grid: str,
    asked: Content | None = None,
    *,
    of: str = "",
    dpf: str = "careful",
) -> Costs:
    """What the finished tickets of a grid cost.

    Args:
        tracker: of the store.
        grid: its name.
        asked: what a file asks for, as of ``collect``.
        of: the network whose dense run is the unit; by default the costliest of the grid.
        dpf: how a step of DPF is counted (``elth.flops.DPF``).

    Raises:
        ElthError: the store has no such grid, nothing of it is finished, or there is no network
            ``of``.
    """
    report = collect(tracker, grid, asked)
    return _costs(tracker, report, asked, of, dpf, report)


def known(
    tracker: Tracker,
    report: Report,
    asked: Content | None = None,
    *,
    whole: Report | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> Costs | None:
    """What the cells of a report cost; None where that is not to be known.

    Args:
        tracker: of the store.
        report: as of ``collect``.
        asked: what a file asks for, as of ``collect``.
        whole: of which it is a part, if it is one: a search is shared among all tickets.
        tell: is told why it is not known, as where a file that says so cannot be read.
    """
    if not report.shown:
        return None
    try:
        return _costs(tracker, report, asked, "", "careful", whole or report)
    except ElthError as error:
        tell(f"what training costs is left out: {error}")
        return None


def _costs(
    tracker: Tracker, report: Report, asked: Content | None, of: str, dpf: str, whole: Report
) -> Costs:
    if not report.shown:
        raise ElthError(f"nothing of {report.grid} is finished, so nothing can be counted")
    content = asked or tracker.grids.content(report.grid)
    all_keys = finished_in(tracker, content)
    by_key = {
        key: one
        for key, one in all_keys.items()
        if one.stage.kind != ANALYSIS and not one.stage.is_given
    }
    layers = _Layers(tracker)
    costs = [layers.of(one) for one in by_key.values()]
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # each reads a file, of a server by a call
        counted = pool.map(functools.partial(_counted, tracker, dpf), by_key.values(), costs)
        found = dict(zip(by_key, counted, strict=True))
    above = {key: _above(key, by_key) for key in by_key}
    keys = {one.run_id: key for key, one in by_key.items()}
    # A training that two variants have in common is one ticket by two names.
    wanted = dict.fromkeys(keys[run] for cell in whole.shown for run in cell.runs if run in keys)
    needed = frozenset(one for key in wanted for one in above[key])
    users = Counter(one for key in wanted if key not in needed for one in above[key])
    reference, unit = _unit(content, whole, by_key, of, layers)
    spent: dict[Cell, Spent] = {}
    for cell in report.cells:
        own = [keys[run] for run in cell.runs if run in keys]
        if not own or cell.dataset not in unit:
            continue
        scale = unit[cell.dataset]

        def before(key: str, by: Mapping[str, int] | None = None) -> float:
            return sum(
                found[one].training / max(1, by[one] if by else 1)
                for one in above[key]
                if one in found
            )

        spent[cell] = Spent(
            cell=cell,
            inference=statistics.fmean(found[k].inference / found[k].dense for k in own),
            training=statistics.fmean(found[k].training for k in own) / scale,
            search=statistics.fmean(before(k) for k in own) / scale,
            shared=statistics.fmean(before(k, users) for k in own) / scale,
        )
    given = {key for key, one in all_keys.items() if one.stage.is_given}
    lacking = tuple(sorted(one[:12] for one in needed - found.keys() - given))
    shown = [cell for cell in report.shown if cell in spent]
    return Costs(
        grid=report.grid,
        spent=tuple(spent[cell] for cell in shown),
        reference=reference,
        unit={name: unit[name] for name in unit if name in {c.dataset for c in report.shown}},
        lacking=lacking,
        on_the_way=tuple(one for cell, one in spent.items() if cell not in shown),
    )


def has_sparse_training(report: Report) -> bool:
    """Whether tickets are compared with sparse training, so that tables tell of costs."""
    names = {cell.method for cell in report.shown}
    return any(name in METHODS and METHODS[name].base == SPARSE for name in names)


class _Layers:
    """What the layers of networks do for an image; of one from outside as its runs tell."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._known: dict[tuple[Any, ...], Cost] = {}

    def of(self, one: Tracked) -> Cost:
        """Those of the network of a run."""
        network, shape = one.stage.params["network"], shape_of(one.stage)
        place = (network, shape, one.stage.params.get("network_version"))
        if place not in self._known:
            self._known[place] = self._told(one) or cost_of(network, shape)
        return self._known[place]

    def _told(self, one: Tracked) -> Cost | None:
        if "network_version" not in one.stage.params:
            return None
        try:
            return Cost.of(json.loads(self.tracker.files.read(one.run_id, COST)))
        except (OSError, MlflowException, ValueError, KeyError, TypeError):
            return None


def _counted(tracker: Tracker, dpf: str, one: Tracked, cost: Cost) -> Operations:
    kept = None
    if one.stage.kind != "rewind_point":
        kept = kept_of(tracker, one.run_id, one.stage, cost)
    return operations(one.stage, kept, dpf=dpf, cost=cost)


def kept_of(tracker: Tracker, run_id: str, stage: Stage, cost: Cost) -> dict[str, int]:
    """How many weights each layer of a run's mask keeps.

    Raises:
        ElthError: its file of layers cannot be read.
    """
    try:
        zeros: dict[str, float] = json.loads(tracker.files.read(run_id, "layers.json"))
        return {n: round((1 - zeros[n]) * one.weights) for n, one in cost.layers.items()}
    except (OSError, MlflowException, ValueError, KeyError, TypeError) as error:
        raise ElthError(
            f"layers.json of {stage.title} (run {run_id[:8]}) cannot be read, which says how dense "
            f"its layers are: {type(error).__name__}: {error}"
        ) from error


def _above(key: str, by_key: Mapping[str, Tracked]) -> frozenset[str]:
    """Keys of all that has to be trained for a stage, whether it is finished here or not.

    What a retraining takes of a round is its mask, which is known before that round is trained.
    """
    found: set[str] = set()
    seen, waiting = {key}, [key]
    while waiting:
        one = by_key.get(waiting.pop())
        for parent in one.stage.parents if one is not None else ():
            above = by_key.get(parent)
            of_mask = one is not None and one.stage.kind == "retraining"
            if not (of_mask and above is not None and above.stage.kind == "round"):
                found.add(parent)
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return frozenset(found)


def _unit(
    content: Content,
    report: Report,
    by_key: Mapping[str, Tracked],
    of: str,
    layers: _Layers,
) -> tuple[str, dict[str, float]]:
    """The network that is the unit, and what a dense run of it takes on each dataset.

    On those of cells that no table shows, where the network can be built for their images.
    """
    stages = {one.stage.labels["dataset"]: one.stage for one in by_key.values()}
    plain, others = content.experiment["recipe"], content.experiment.get("recipes", {})
    own = {(o.stage.params["network"], o.stage.labels["dataset"]): o for o in by_key.values()}
    if not of:
        places = {(cell.network, cell.dataset) for cell in report.shown} & own.keys()
        if not places:
            raise ElthError(f"nothing of {report.grid} was trained, so nothing can be counted")
        dense: dict[str, Fraction] = {}
        for name, dataset in places:
            macs = layers.of(own[name, dataset]).macs()
            dense[name] = max(dense.get(name, Fraction(0)), macs)
        of = max(dense, key=lambda name: (dense[name], network_order(name)))
    network = of if any(of == name for name, _ in own) else str(canonical(of))
    unit: dict[str, float] = {}
    shown = {cell.dataset for cell in report.shown}
    for dataset, stage in stages.items():
        place = str(stage.labels.get("place", dataset))
        size = (info_of(place) if "sizes" not in stage.labels else info(place)).train_size
        recipe = Recipe.of(others.get(place, plain))
        run = own.get((network, dataset))
        try:
            cost = layers.of(run) if run else cost_of(network, shape_of(stage))
        except ElthError:
            if dataset in shown:
                raise
            continue
        unit[dataset] = dense_run(cost, recipe, size)
    return network, unit


def to_json(found: Costs) -> str:
    """The costs as JSON."""
    given = asdict(found) | {"spent": [one.plain() for one in found.spent]}
    del given["on_the_way"]
    return json.dumps(given, indent=1) + "\n"
