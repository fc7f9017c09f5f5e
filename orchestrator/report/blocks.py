"""Blocks: the table of a network, lines by sparsity, before it takes any form.

What stands in a place of it is the same in a terminal, in Markdown and in LaTeX.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.experiment.methods import rank
from orchestrator.report.cells import Cell, Imps, Report, network_order
from orchestrator.store.content import spell_seeds

if TYPE_CHECKING:
    from orchestrator.report.judgement import Comparison, Judgement

COLUMNS = 6
"""Levels of sparsity that a table shows."""

_DENSE = (0, "")
"""The level of the dense network."""

MARKS = {"wins": "▲", "matches": "=", "loses": "▼"}
"""How the word against IMP is written beside a number; nothing where it is undecided."""
MATCHING = "†"
"""Stands where a ticket wins against the dense network or matches it."""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A cell in its place."""

    cell: Cell
    gap: float | None
    """Mean accuracy less that of IMP; None where there is no IMP."""
    is_best: bool
    """Whether no other line has a higher mean there."""
    elsewhere: float | None
    """Its sparsity, where that is another than the column's."""
    fewer: int | None
    """Of how many seeds it is, where others of the table have more."""
    imp: Comparison | None
    dense: Comparison | None

    @property
    def word(self) -> str:
        """Against IMP; empty where nothing is compared."""
        return self.imp.word if self.imp else ""

    @property
    def is_matching(self) -> bool:
        """Whether it is a matching ticket, by the dense network."""
        return self.dense is not None and self.dense.word in ("wins", "matches")

    @property
    def marks(self) -> str:
        """Both as signs."""
        return MARKS.get(self.word, "") + (MATCHING if self.is_matching else "")


@dataclass(frozen=True, kw_only=True)
class Block:
    """The lines of a network by sparsity."""

    network: str
    dataset: str
    title: str
    """As ``resnet20 on digits, seeds 0, 1``."""
    sparsities: tuple[float, ...]
    """Of each column, as a fraction."""
    nonzeros: tuple[float, ...]
    """Of each column; means over seeds."""
    lines: tuple[tuple[str, tuple[Spot | None, ...]], ...]
    """The name of each line, and what stands in each column."""

    @property
    def spots(self) -> list[Spot]:
        """All places that hold something."""
        return [spot for _, line in self.lines for spot in line if spot is not None]


def blocks(report: Report, judged: Judgement) -> list[Block]:
    """A block for each network and dataset, in the order of the report."""
    by_network: dict[tuple[str, str], list[Cell]] = {}
    for cell in report.shown:
        by_network.setdefault((cell.dataset, cell.network), []).append(cell)
    imps = Imps(report.compared, report.planned)
    return [_block(*where, cells, imps, judged) for where, cells in by_network.items()]


def _block(
    dataset: str,
    network: str,
    cells: Sequence[Cell],
    imps: Imps,
    judged: Judgement,
) -> Block:
    shown = _shown_levels(cells)
    heads = [_matched(cells, level) for level in shown]
    best = {
        level: max(c.mean for c in cells if c.level == level and c.method != "dense")
        for level in shown
        if level != _DENSE
    }
    found: dict[tuple[str, tuple[int, str]], Cell] = {}
    for cell in cells:
        found.setdefault((cell.name, cell.level), cell)
    seeds = spell_seeds(seed for cell in cells for seed in cell.seeds)
    most = max(len(cell.seeds) for cell in cells)
    return Block(
        network=network,
        dataset=dataset,
        title=f"{network} on {dataset}, {seeds}",
        sparsities=tuple(head.sparsity for head in heads),
        nonzeros=tuple(statistics.fmean(head.nonzeros) for head in heads),
        lines=tuple(
            (
                name,
                tuple(
                    _spot(found.get((name, level)), imps, head, best.get(level), judged, most)
                    for level, head in zip(shown, heads, strict=True)
                ),
            )
            for name in dict.fromkeys(cell.name for cell in sorted(cells, key=_row_key))
        ),
    )


def _spot(
    cell: Cell | None, imps: Imps, head: Cell, best: float | None, judged: Judgement, most: int
) -> Spot | None:
    if cell is None:
        return None
    return Spot(
        cell=cell,
        gap=imps.difference(cell),
        is_best=best == cell.mean,
        elsewhere=cell.sparsity if abs(cell.sparsity - head.sparsity) >= 5e-5 else None,
        fewer=len(cell.seeds) if len(cell.seeds) < most else None,
        imp=judged.against("imp", cell),
        dense=judged.against("dense", cell),
    )


def _row_key(cell: Cell) -> tuple[Any, ...]:
    return (rank(cell.method), network_order(cell.source), cell.transform)


def _shown_levels(cells: Sequence[Cell]) -> list[tuple[int, str]]:
    """Levels for a table's columns: where there are many, the dense one and those compared.

    And for each line that has none of these its last one, as it would stand there empty.
    """
    order = {cell.level: cell.sparsity for cell in sorted(cells, key=_row_key, reverse=True)}
    levels = sorted(order, key=lambda level: (order[level], level))
    compared = {c.level for c in cells if c.method not in ("dense", "imp")}
    if len(levels) <= COLUMNS or not compared:
        return levels
    shown = [level for level in levels if level[0] == 0 or level in compared]
    if len(shown) > COLUMNS:
        spread = sorted({round(i * (len(shown) - 1) / (COLUMNS - 1)) for i in range(COLUMNS)})
        shown = [shown[i] for i in spread]
    lines: dict[str, list[tuple[int, str]]] = {}
    for cell in cells:
        lines.setdefault(cell.name, []).append(cell.level)
    lacking = [line for line in lines.values() if not set(line) & set(shown)]
    last = {max(line, key=levels.index) for line in lacking}
    return [level for level in levels if level in last.union(shown)]


def _matched(cells: Sequence[Cell], level: tuple[int, str]) -> Cell:
    """The cell whose sparsity heads a column: IMP where there is one."""
    return min((c for c in cells if c.level == level), key=_row_key)
