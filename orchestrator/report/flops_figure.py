"""Accuracy against what training costs, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from orchestrator.report.figure import ETT_COLOURS, STYLE, colours_of, save, style_of
from orchestrator.report.flops import Costs, Spent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_NARROW = 4
"""Costs that differ by no larger factor stand on a linear axis, which has more ticks."""


@mpl.rc_context(STYLE)
def draw(found: Costs, folder: Path) -> list[Path]:
    """Accuracy against the operations of training, a panel for each network, as PNG and SVG."""
    panels = _panels(found)
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    lines = max(len({one.cell.name for one in some}) for some in panels.values())
    fig = Figure(figsize=(5.0 * columns, (3.8 + 0.2 * -(-lines // 2)) * rows), layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False)
    for axis, (title, some) in zip(axes.flat, panels.items(), strict=False):
        _panel(axis, some, found)
        axis.set_title(title, loc="left", fontweight="bold")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    return save(fig, folder, "flops")


@mpl.rc_context(STYLE)
def panels(found: Costs) -> list[tuple[str, Figure]]:
    """The panels of ``draw`` as figures of their own, with their titles."""
    drawn = []
    for title, some in _panels(found).items():
        lines = len({one.cell.name for one in some})
        fig = Figure(figsize=(5.0, 3.6 + 0.2 * -(-lines // 2)), layout="constrained")
        _panel(fig.subplots(), some, found)
        drawn.append((title, fig))
    return drawn


def _panels(found: Costs) -> dict[str, list[Spent]]:
    panels: dict[str, list[Spent]] = {}
    for one in found.spent:
        panels.setdefault(f"{one.cell.network}, {one.cell.dataset}", []).append(one)
    return panels


def _panel(axis: Axes, some: Sequence[Spent], found: Costs) -> None:
    colours = colours_of([one.cell for one in found.spent])
    by_line: dict[str, list[Spent]] = {}
    for one in some:
        by_line.setdefault(one.cell.name, []).append(one)
    own = [name for name, line in by_line.items() if line[0].cell.variant]
    for name, line in by_line.items():
        line.sort(key=lambda one: one.total)
        cell = line[0].cell
        colour = colours[cell.source, cell.transform] if cell.method == "ett" else ""
        if name in own:
            colour = ETT_COLOURS[own.index(name) % len(ETT_COLOURS)]
        axis.errorbar(
            [one.total for one in line],
            [one.cell.mean for one in line],
            yerr=[one.cell.deviation or 0 for one in line],
            label=name.replace("<-", "←"),
            **style_of(cell, colour),
        )
    spent = [one.total for one in some]
    if max(spent) > _NARROW * min(spent):
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
