"""Accuracy against what training costs, drawn by matplotlib."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from orchestrator.report.costs import Costs, Spent
from orchestrator.report.figure import ETT_COLOURS, STYLE, save, style_of


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
