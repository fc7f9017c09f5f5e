"""The papers' figure: accuracy against sparsity, one line a method, error bars over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestrator.report import Cell, Report

# Colour-blind safe (Okabe and Ito 2008): IMP black, as the reference; ETT in strong colours.
_COLOURS = {
    "imp": "#000000",
    "reinit": "#CC79A7",
    "random": "#999999",
    "magnitude": "#E69F00",
}
_ETT_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#56B4E9")
_MARKERS = {"imp": "o", "ett": "s", "reinit": "v", "random": "x", "magnitude": "^"}


_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "elth",
    "svg.fonttype": "none",
}


@mpl.rc_context(_STYLE)
def draw(report: Report, folder: Path) -> list[Path]:
    """Draw a panel for each network, as PNG and SVG; returns the files."""
    panels = dict.fromkeys((cell.dataset, cell.network) for cell in report.cells)
    if not panels:
        return []
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    fig, axes = plt.subplots(
        rows,
        columns,
        figsize=(5.0 * columns, 4.8 * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis, (dataset, network) in zip(axes.flat, panels, strict=False):
        cells = [c for c in report.cells if (c.dataset, c.network) == (dataset, network)]
        _panel(fig, axis, f"{network}, {dataset}", cells)
        axis.set_ylim(*_range([c for c in report.cells if c.dataset == dataset]))
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    paths = [folder / "accuracy.png", folder / "accuracy.svg"]
    fig.savefig(paths[0], dpi=150)
    fig.savefig(paths[1], metadata={"Date": None})
    plt.close(fig)
    return paths


def _panel(figure: Figure, axis: Axes, title: str, cells: Sequence[Cell]) -> None:
    axis.set_title(title, loc="left", fontweight="bold")
    dense = next((c for c in cells if c.method == "dense"), None)
    if dense is not None:
        axis.axhline(dense.mean, color="#000000", linewidth=0.8, linestyle=":", label="dense")
        if dense.deviation:
            low, high = dense.mean - dense.deviation, dense.mean + dense.deviation
            axis.axhspan(low, high, color="#000000", alpha=0.06, linewidth=0)
    lines = [n for n in dict.fromkeys(c.name for c in cells) if n != "dense"]
    lines.sort(key=lambda n: next(_rank(c) for c in cells if c.name == n))
    ett = [n for n in lines if any(c.name == n and c.method == "ett" for c in cells)]
    for place, name in enumerate(lines):
        points = sorted((c for c in cells if c.name == name), key=lambda c: c.sparsity)
        method = points[0].method
        colour = _COLOURS.get(method, "#444444")
        if name in ett:
            colour = _ETT_COLOURS[ett.index(name) % len(_ETT_COLOURS)]
        axis.errorbar(
            [c.sparsity for c in points],
            [c.mean for c in points],
            yerr=[c.deviation or 0.0 for c in points],
            label=name.replace("<-", "←"),
            color=colour,
            marker=_MARKERS.get(method, "o"),
            linestyle="-" if method in ("imp", "ett") else "--",
            linewidth=1.6,
            markersize=4.5,
            capsize=2.5,
            elinewidth=0.9,
            transform=axis.transData + _aside(figure, place - (len(lines) - 1) / 2),
        )
    _sparsity_axis(axis, [c.sparsity for c in cells if c.round])
    axis.set_ylabel("test accuracy (%)")
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    axis.legend(
        frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2
    )


def _aside(figure: Figure, steps: float) -> ScaledTranslation:
    """A shift of some points to the side, so that error bars at one sparsity can be told apart."""
    return ScaledTranslation(steps * 2.5 / 72, 0, figure.dpi_scale_trans)


def _range(cells: Sequence[Cell]) -> tuple[float, float]:
    """One range of accuracy for all panels of a dataset, so that they can be compared."""
    low = min(c.mean - (c.deviation or 0.0) for c in cells)
    high = max(c.mean + (c.deviation or 0.0) for c in cells)
    margin = max(0.05 * (high - low), 0.1)
    return low - margin, high + margin


def _rank(cell: Cell) -> tuple[int, str, str]:
    order = ("imp", "ett", "magnitude", "random", "reinit")
    place = order.index(cell.method) if cell.method in order else len(order)
    return (place, cell.source, cell.transform)


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
    shown = [t for t in ticks if left <= t <= right]
    axis.xaxis.set_major_locator(FixedLocator(shown if len(shown) > 1 else sorted({low, high})))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.4g}"))


def _log(sparsity: Any) -> Any:
    """Minus the logarithm of the density, which a round raises by a constant."""
    return -np.log(np.clip(1.0 - np.asarray(sparsity), 1e-9, None))


def _unlog(value: Any) -> Any:
    return 1.0 - np.exp(-np.asarray(value))
