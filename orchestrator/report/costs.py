"""What the tickets of a grid cost: operations of inference, of training, and of the search before.

A search is all that a ticket's training needs to have been trained: for IMP its chain, for a ticket
that ETT moved the chain of its source. One chain serves several tickets, and is shared among them.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
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
from orchestrator.report.figure import ETT_COLOURS, STYLE, save, style_of
from orchestrator.store.content import Content
from orchestrator.store.listing import Tracked
from orchestrator.store.runlog import COST
from orchestrator.store.tracker import Tracker


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
    """The same, each training divided by how many tickets need it."""

    @property
    def total(self) -> float:
        """Its training and its share of the search."""
        return self.training + self.shared

    def plain(self) -> dict[str, Any]:
        """As JSON values: the cell, and its cost."""
        own = ("inference", "training", "search", "shared", "total")
        return {**self.cell.plain(), **{f"flops_{name}": getattr(self, name) for name in own}}


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
    if not report.shown:
        raise ElthError(f"nothing of {grid} is finished, so nothing can be counted")
    content = asked or tracker.grids.content(grid)
    all_keys = finished_in(tracker, content)
    by_key = {
        key: one
        for key, one in all_keys.items()
        if one.stage.kind != ANALYSIS and not one.stage.is_given
    }
    layers = _Layers(tracker)
    found = {key: _counted(tracker, one, dpf, layers.of(one)) for key, one in by_key.items()}
    above = {key: _above(key, by_key) for key in by_key}
    keys = {one.run_id: key for key, one in by_key.items()}
    wanted = [keys[run] for cell in report.shown for run in cell.runs if run in keys]
    ends = [key for key in wanted if not any(key in above[other] for other in wanted)]
    users = {key: sum(key in above[end] for end in ends) for key in by_key}
    reference, unit = _unit(content, report.shown, by_key, of, layers)
    spent = []
    for cell in report.shown:
        own = [keys[run] for run in cell.runs if run in keys]
        if not own:
            continue
        scale = unit[cell.dataset]

        def before(key: str, by: Mapping[str, int] | None = None) -> float:
            return sum(
                found[one].training / max(1, by[one] if by else 1)
                for one in above[key]
                if one in found
            )

        spent.append(
            Spent(
                cell=cell,
                inference=statistics.fmean(found[k].inference / found[k].dense for k in own),
                training=statistics.fmean(found[k].training for k in own) / scale,
                search=statistics.fmean(before(k) for k in own) / scale,
                shared=statistics.fmean(before(k, users) for k in own) / scale,
            )
        )
    given = {key for key, one in all_keys.items() if one.stage.is_given}
    needed = {one for key in wanted for one in above[key]} - found.keys() - given
    lacking = tuple(sorted(one[:12] for one in needed))
    return Costs(grid=grid, spent=tuple(spent), reference=reference, unit=unit, lacking=lacking)


def of_sparse_training(
    tracker: Tracker, report: Report, asked: Content | None = None
) -> Costs | None:
    """What the tickets of a report cost, where it compares them with sparse training.

    None elsewhere, and where a file that tells of it cannot be read.
    """
    if not any(_is_sparse_training(cell) for cell in report.shown):
        return None
    with contextlib.suppress(ElthError):
        return costs(tracker, report.grid, asked)
    return None


def _is_sparse_training(cell: Cell) -> bool:
    """Whether a cell is of a method of sparse training."""
    return cell.method in METHODS and METHODS[cell.method].base == SPARSE


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


def _counted(tracker: Tracker, one: Tracked, dpf: str, cost: Cost) -> Operations:
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
    cells: Sequence[Cell],
    by_key: Mapping[str, Tracked],
    of: str,
    layers: _Layers,
) -> tuple[str, dict[str, float]]:
    """The network that is the unit, and what a dense run of it takes on each dataset."""
    stages = {one.stage.labels["dataset"]: one.stage for one in by_key.values()}
    plain, others = content.experiment["recipe"], content.experiment.get("recipes", {})
    own = {(o.stage.params["network"], o.stage.labels["dataset"]): o for o in by_key.values()}
    if not of:
        dense = {c.network: layers.of(own[c.network, c.dataset]).macs() for c in cells}
        of = max(dense, key=lambda name: (dense[name], network_order(name)))
    network = of if any(of == name for name, _ in own) else str(canonical(of))
    unit = {}
    for dataset in {cell.dataset for cell in cells}:
        stage = stages[dataset]
        place = str(stage.labels.get("place", dataset))
        size = (info_of(place) if "sizes" not in stage.labels else info(place)).train_size
        recipe = Recipe.of(others.get(place, plain))
        known = own.get((network, dataset))
        cost = layers.of(known) if known else cost_of(network, shape_of(stage))
        unit[dataset] = dense_run(cost, recipe, size)
    return network, unit


def to_json(found: Costs) -> str:
    """The costs as JSON."""
    given = asdict(found) | {"spent": [one.plain() for one in found.spent]}
    return json.dumps(given, indent=1) + "\n"


@mpl.rc_context(STYLE)
def draw(found: Costs, folder: Path) -> list[Path]:
    """Accuracy against the operations of training, a panel for each network, as PNG and SVG."""
    panels: dict[str, list[Spent]] = {}
    for one in found.spent:
        panels.setdefault(f"{one.cell.network}, {one.cell.dataset}", []).append(one)
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    lines = max(len({one.cell.name for one in some}) for some in panels.values())
    fig = Figure(figsize=(5.0 * columns, (3.8 + 0.2 * -(-lines // 2)) * rows), layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False)
    for axis, (title, some) in zip(axes.flat, panels.items(), strict=False):
        by_line: dict[str, list[Spent]] = {}
        for one in some:
            by_line.setdefault(one.cell.name, []).append(one)
        own = [n for n, line in by_line.items() if line[0].cell.method == "ett"]
        own += [n for n, line in by_line.items() if line[0].cell.variant and n not in own]
        for name, line in by_line.items():
            line.sort(key=lambda one: one.total)
            colour = ETT_COLOURS[own.index(name) % len(ETT_COLOURS)] if name in own else ""
            axis.errorbar(
                [one.total for one in line],
                [one.cell.mean for one in line],
                yerr=[one.cell.deviation or 0 for one in line],
                label=name.replace("<-", "←"),
                **style_of(line[0].cell, colour),
            )
        axis.set_title(title, loc="left", fontweight="bold")
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
        axis.set_xlabel(f"training and search, in dense runs of {found.reference}")
        axis.set_ylabel("test accuracy (%)")
        axis.legend(
            frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2
        )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    return save(fig, folder, "flops")
