"""The papers' figure: accuracy against sparsity, one line a method, error bars over seeds."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from elth.files import write_atomic
from orchestrator.experiment.methods import rank
from orchestrator.report.cells import network_order
from orchestrator.store.content import spell_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from orchestrator.report.cells import Cell, Report

# Colour-blind safe (Okabe and Ito 2008): IMP black, as the reference; ETT in strong colours and
# drawn through, as the papers have it; what is pruned in other ways is dashed, and what comes of an
# imported ticket dotted.
_COLOURS = {
    "imp": "#000000",
    "reinit": "#CC79A7",
    "random": "#999999",
    "shuffle_global": "#BBBBBB",
    "magnitude": "#E69F00",
    "snip": "#F0C808",
    "grasp": "#8C510A",
    "grasp_absolute": "#BF812D",
    "synflow": "#7B3294",
    "random_global": "#666666",
    "random_layerwise": "#444444",
    "ett_head": "#DDCC77",
    "ett_reinit": "#CC79A7",
    "ett_random": "#999999",
    "ett_reinit_random": "#666666",
    "ett_snip_extra": "#E69F00",
    "ett_random_extra": "#7B3294",
    "rigl": "#1B7837",
    "set": "#A6761D",
    "snfs": "#66A61E",
    "static": "#888888",
    "gmp": "#7570B3",
    "dpf": "#E7298A",
}
ETT_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#56B4E9", "#882255", "#44AA99", "#AA4499")
_MARKERS = {
    "imp": "o",
    "ett": "s",
    "ett_head": "h",
    "reinit": "v",
    "random": "x",
    "magnitude": "^",
    "snip": "D",
    "grasp": "P",
    "grasp_absolute": "p",
    "synflow": "*",
    "random_global": "+",
    "random_layerwise": "1",
    "shuffle_global": "2",
    "rigl": "<",
    "set": ">",
    "snfs": "d",
    "static": "X",
    "gmp": "H",
    "dpf": "8",
}

_LINES = 10
"""Lines of a panel, over which each variant has one of its own."""

_TITLE = 40
"""Characters of a panel's title that fit on a line."""

_LABEL = 0.075
"""Of an axis' length what the longest label of a sparsity takes."""

_SHORT = 28
"""Characters of a legend's entry up to which two stand beside each other."""

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "elth",
    "svg.fonttype": "none",
}


@mpl.rc_context(STYLE)
def draw(report: Report, folder: Path) -> list[Path]:
    """Draw a panel for each network, as PNG and SVG; returns the files, none if there is none."""
    if not report.shown:
        return []
    return save(plot(report), folder, "accuracy")


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG, whole or not at all; returns the files."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    settings: tuple[dict[str, Any], ...] = ({"dpi": 150}, {"metadata": {"Date": None}})
    for path, given in zip(paths, settings, strict=True):
        drawn = io.BytesIO()
        figure.savefig(drawn, format=path.suffix[1:], **given)
        write_atomic(path, drawn.getvalue())
    return paths


@mpl.rc_context(STYLE)
def plot(report: Report) -> Figure:
    """A figure with a panel for each network of a report, of which there is at least one.

    It is none of pyplot's, which would keep it and has one way of showing figures in a process.
    """
    panels = _panels(report.shown)
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    lines = max(len({cell.name for cell in cells}) for cells in panels.values())
    legend = max(len(cell.name) for cell in report.shown)
    beside = 2 if legend <= _SHORT else 1
    fig = Figure(
        figsize=(5.0 * columns, (3.8 + 0.2 * -(-lines // beside)) * rows), layout="constrained"
    )
    axes = fig.subplots(rows, columns, squeeze=False)
    for axis, (title, cells) in zip(axes.flat, panels.items(), strict=False):
        _panel(fig, axis, title, cells, beside, colours_of(report.shown))
        axis.set_ylim(*_range([c for c in report.shown if c.dataset == cells[0].dataset]))
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    return fig


@mpl.rc_context(STYLE)
def panels(report: Report) -> list[tuple[str, Figure]]:
    """The panels of ``plot`` as figures of their own, with their titles."""
    found = []
    for title, cells in _panels(report.shown).items() if report.shown else ():
        lines = len({cell.name for cell in cells})
        beside = 2 if max(len(cell.name) for cell in cells) <= _SHORT else 1
        fig = Figure(figsize=(5.0, 3.6 + 0.2 * -(-lines // beside)), layout="constrained")
        axis = fig.subplots()
        _panel(fig, axis, "", cells, beside, colours_of(report.shown))
        axis.set_ylim(*_range([c for c in report.shown if c.dataset == cells[0].dataset]))
        found.append((title, fig))
    return found


def _panels(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells by panels: one for each network, and for each variant where the lines are too many."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(f"{cell.network}, {cell.dataset}", []).append(cell)
    if max(len({cell.name for cell in some}) for some in found.values()) <= _LINES:
        return found
    parted: dict[str, list[Cell]] = {}
    for title, some in found.items():
        for cell in some:
            own = f"{title}, {cell.variant}" if cell.variant else title
            parted.setdefault(own, []).append(cell)
    return parted


def _shades(cells: Sequence[Cell]) -> dict[str, str]:
    """A colour for each variant of a panel; none where there is but one."""
    variants = list(dict.fromkeys(cell.variant for cell in cells))
    if len(variants) < 2:
        return {}
    own = [name for name in variants if name]
    chosen = {name: ETT_COLOURS[i % len(ETT_COLOURS)] for i, name in enumerate(own)}
    return {"": _COLOURS["imp"], **chosen}


def colours_of(cells: Sequence[Cell]) -> dict[tuple[str, str], str]:
    """A colour for each source and plan of ETT: by source where each has one plan in a panel."""
    moved = [c for c in cells if c.method == "ett"]
    plans: dict[tuple[str, str, str], set[str]] = {}
    for cell in moved:
        plans.setdefault((cell.dataset, cell.network, cell.source), set()).add(cell.transform)
    by_source = all(len(found) == 1 for found in plans.values())
    order = sorted({(c.source, "" if by_source else c.transform) for c in moved}, key=_by_depth)
    chosen = {kind: ETT_COLOURS[i % len(ETT_COLOURS)] for i, kind in enumerate(order)}
    return {
        (c.source, c.transform): chosen[c.source, "" if by_source else c.transform] for c in moved
    }


def _by_depth(kind: tuple[str, str]) -> tuple[Any, ...]:
    return (network_order(kind[0]), kind[1])


def _panel(
    figure: Figure,
    axis: Axes,
    title: str,
    cells: Sequence[Cell],
    beside: int,
    colours: Mapping[tuple[str, str], str],
) -> None:
    axis.set_title(textwrap.fill(title, _TITLE), loc="left", fontweight="bold")
    shades = _shades(cells)
    dense = [c for c in cells if c.method == "dense"]
    drawn: set[tuple[str, ...]] = set()
    for cell in dense:
        if cell.runs in drawn:  # that of another variant, which does not change it
            continue
        drawn.add(cell.runs)
        colour = shades.get(cell.variant, "#000000")
        axis.axhline(cell.mean, color=colour, linewidth=0.8, linestyle=":", label=cell.name)
        if cell.deviation:
            low, high = cell.mean - cell.deviation, cell.mean + cell.deviation
            axis.axhspan(low, high, color=colour, alpha=0.06, linewidth=0)
    lines = list(dict.fromkeys(c.name for c in cells if c not in dense))
    lines.sort(key=lambda n: next(_rank(c) for c in cells if c.name == n))
    for place, name in enumerate(lines):
        points = sorted((c for c in cells if c.name == name), key=lambda c: c.sparsity)
        method = points[0].method
        colour = _COLOURS.get(method, "#444444")
        if method == "ett":
            colour = colours[points[0].source, points[0].transform]
        colour = shades.get(points[0].variant, colour)
        axis.errorbar(
            [c.sparsity for c in points],
            [c.mean for c in points],
            yerr=[c.deviation or 0.0 for c in points],
            label=name.replace("<-", "←"),
            **style_of(points[0], colour),
            transform=axis.transData + _aside(figure, place - (len(lines) - 1) / 2),
        )
    _sparsity_axis(axis, [c.sparsity for c in cells if c not in dense])
    seeds = spell_seeds(seed for cell in cells for seed in cell.seeds)
    axis.set_ylabel(f"test accuracy (%), {seeds}")
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    axis.legend(
        frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=beside
    )


def style_of(cell: Cell, colour: str = "") -> dict[str, Any]:
    """How the line of a cell is drawn; in the colour of its method unless another is given."""
    colour = colour or _COLOURS.get(cell.method, "#444444")
    return {
        "color": colour,
        "marker": _MARKERS.get(cell.method, "o"),
        "markerfacecolor": "white" if cell.noise else colour,
        "linestyle": _style(cell),
        "zorder": 3 if cell.method in ("imp", "ett") else 2,
        "linewidth": 1.6,
        "markersize": 4.5,
        "capsize": 2.5,
        "elinewidth": 0.9,
    }


def _style(cell: Cell) -> str:
    """How the line of a cell is drawn."""
    if cell.noise or cell.ticket:
        return ":"
    return "-" if cell.method in ("imp", "ett") else "--"


def _aside(figure: Figure, steps: float) -> ScaledTranslation:
    """A shift of some points to the side, so that error bars at one sparsity can be told apart."""
    return ScaledTranslation(steps * 2.5 / 72, 0, figure.dpi_scale_trans)


def _range(cells: Sequence[Cell]) -> tuple[float, float]:
    """One range of accuracy for all panels of a dataset, so that they can be compared."""
    low = min(c.mean - (c.deviation or 0.0) for c in cells)
    high = max(c.mean + (c.deviation or 0.0) for c in cells)
    margin = max(0.05 * (high - low), 0.1)
    return low - margin, high + margin


def _rank(cell: Cell) -> tuple[Any, ...]:
    return (rank(cell.method), network_order(cell.source), cell.transform)


def _sparsity_axis(axis: Axes, values: Sequence[float]) -> None:
    """An axis in the logarithm of what remains, labelled by sparsity, as rounds are even on it."""
    axis.set_xlabel("sparsity (%)")
    if not values:
        return
    axis.set_xscale("function", functions=(_log, _unlog))
    ticks = [0.0, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999]
    low, high = min(values), max(values)
    margin = 0.06 * max(_log(high) - _log(low), 0.5)
    axis.set_xlim(_unlog(_log(low) - margin), _unlog(_log(high) + margin))
    left, right = axis.get_xlim()
    room = _LABEL * (_log(right) - _log(left))
    shown: list[float] = []
    for tick in ticks:
        if left <= tick <= right and (not shown or _log(tick) - _log(shown[-1]) >= room):
            shown.append(tick)
    axis.xaxis.set_major_locator(FixedLocator(shown if len(shown) > 1 else sorted({low, high})))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.4g}"))


def _log(sparsity: Any) -> Any:
    """Minus the logarithm of the density, which a round raises by a constant."""
    return -np.log(np.clip(1.0 - np.asarray(sparsity), 1e-9, None))


def _unlog(value: Any) -> Any:
    return 1.0 - np.exp(-np.asarray(value))
