"""A report as Markdown: for a pull request, a wiki or a README."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.report.blocks import MARKS, MATCHING, Block, Spot, blocks
from orchestrator.report.judgement import TICKETS
from orchestrator.report.notes import notes_of
from orchestrator.report.verdicts import (
    Line,
    claim_lines,
    is_told,
    spell_confidence,
    spell_interval,
    spell_p,
)

if TYPE_CHECKING:
    from orchestrator.report.cells import Report
    from orchestrator.report.judgement import Judgement


def to_markdown(report: Report, judged: Judgement) -> str:
    """A table for each network, and one of the claims; with what their signs mean.

    Args:
        report: the cells.
        judged: of the report.
    """
    found = blocks(report, judged)
    parts = [_block(block) for block in found]
    if judged.claims:
        parts.append(_claims(judged))
    notes = ""
    if found:
        several = any(cell.deviation is not None for cell in report.cells)
        spread = "mean ± standard deviation over seeds" if several else "of one seed"
        notes = f"Test accuracy in % after the last epoch, {spread}; in brackets the difference to "
        notes += "IMP. Bold: the best of a column."
    if any(spot.fewer is not None for block in found for spot in block.spots):
        notes += " n: of how many seeds it is, where others have more."
    if is_told(judged):
        signs = ", ".join(f"{sign} {word}" for word, sign in MARKS.items())
        notes += f" Against IMP: {signs}; {MATCHING} wins against dense or matches it. "
        notes += f"{judged.meaning[:1].upper()}{judged.meaning[1:]} {TICKETS}"
    more = [f"\n* {escaped(note)}" for note in notes_of(report, [])]
    return "\n".join([*parts, notes]) + "\n" + "".join(more) + ("\n" if more else "")


def escaped(text: str) -> str:
    """Text that Markdown takes as it is, within a table."""
    arrowed = text.replace("<-", "←")
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", arrowed)


def _block(block: Block) -> str:
    head = ["sparsity", *(f"{100 * sparsity:.2f} %" for sparsity in block.sparsities)]
    rows = [["non-zeros", *(f"{count:,.0f}" for count in block.nonzeros)]]
    for name, spots in block.lines:
        rows.append([escaped(name), *("" if spot is None else _entry(spot) for spot in spots)])
    return _table(block.title, head, rows)


def _entry(spot: Spot) -> str:
    cell = spot.cell
    text = f"**{cell.mean:.2f}**" if spot.is_best else f"{cell.mean:.2f}"
    text += "" if cell.deviation is None else f" ± {cell.deviation:.2f}"
    text += "" if spot.gap is None else f" ({spot.gap:+.2f})"
    text += f" {spot.marks}" if spot.marks else ""
    text += "" if spot.fewer is None else f", n = {spot.fewer}"
    return text + ("" if spot.elsewhere is None else f" at {100 * spot.elsewhere:.2f} %")


def _claims(judged: Judgement) -> str:
    rows = [_claim(line) for one in judged.claims for line in claim_lines(one)]
    head = ["claim", "difference", "interval", "of", "corrected p", "n", "verdict"]
    return _table("Claims", head, rows)


def _claim(line: Line) -> list[str]:
    text = ("· " if line.is_part else "") + escaped(line.text)
    told = f"**{line.verdict}**" if not line.is_part else line.verdict
    told += f" ({line.more})" if line.more else ""
    one = line.numbers
    if one is None:
        return [text, "", "", "", "", "", told]
    mean = "" if one.mean is None else f"{one.mean:+.2f}"
    level = "" if one.interval is None else spell_confidence(one)
    numbers = [mean, escaped(spell_interval(one)), level, escaped(spell_p(one)), str(one.n)]
    return [text, *numbers, told]


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    texts = ("claim", "sparsity", "interval", "verdict")
    rule = ["---" if name in texts else "---:" for name in head]
    lines = [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]
    return "\n".join([f"**{escaped(title)}**", "", *lines, ""])
