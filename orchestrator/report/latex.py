r"""A report as LaTeX: tables that go into a paper, by ``booktabs`` and ``graphicx`` alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from orchestrator.report.blocks import Block, Spot, blocks
from orchestrator.report.notes import notes_of
from orchestrator.report.verdicts import Line, claim_lines, is_told, level_of

if TYPE_CHECKING:
    from orchestrator.report.cells import Report
    from orchestrator.report.judgement import Judgement

_SIGNS = {"wins": r"$\uparrow$", "matches": "$=$", "loses": r"$\downarrow$"}
_MATCHING = r"\dag{}"
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "←": r"$\leftarrow$",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return re.sub(
        "|".join(map(re.escape, _SPECIAL)), lambda m: _SPECIAL[m[0]], text.replace("<-", "←")
    )


def to_latex(report: Report, judged: Judgement) -> str:
    """A table for each network, and one of the claims, with captions that tell what stands there.

    Args:
        report: the cells.
        judged: of the report.
    """
    told = is_told(judged)
    parts = ["% In the preamble: \\usepackage{booktabs,graphicx}\n"]
    notes = [f"% {escaped(note)}\n" for note in notes_of(report, [])]
    parts += ["".join(notes)] if notes else []
    parts += [_block(block, report.grid, judged, told=told) for block in blocks(report, judged)]
    if judged.claims:
        parts.append(_claims(judged, report.grid))
    return "\n".join(parts)


def _block(block: Block, grid: str, judged: Judgement, *, told: bool) -> str:
    head = ["Sparsity", *(rf"{100 * sparsity:.2f}\,\%" for sparsity in block.sparsities)]
    counts = ["Non-zeros", *(f"{count:,.0f}".replace(",", r"\,") for count in block.nonzeros)]
    rows = [
        [escaped(name), *("" if spot is None else _entry(spot) for spot in spots)]
        for name, spots in block.lines
    ]
    several = any(spot.cell.deviation is not None for spot in block.spots)
    caption = f"Test accuracy (\\%) of {escaped(block.title)}"
    caption += ", mean $\\pm$ standard deviation" if several else ""
    caption += ". Bold: the best of a column."
    if any(spot.elsewhere is not None for spot in block.spots):
        caption += " In brackets the sparsity of a ticket that is another than the column's."
    if any(spot.fewer is not None for spot in block.spots):
        caption += " $n$: of how many seeds it is, where others have more."
    if told:
        signs = ", ".join(f"{sign} {word}" for word, sign in _SIGNS.items())
        caption += f" Against IMP: {signs}; {_MATCHING} wins against dense or matches it. "
        caption += escaped(judged.meaning[:1].upper() + judged.meaning[1:])
    label = f"{grid}-{block.network}-{block.dataset}"
    return _table(caption, label, head, [counts], rows)


def _entry(spot: Spot) -> str:
    cell = spot.cell
    text = rf"\mathbf{{{cell.mean:.2f}}}" if spot.is_best else f"{cell.mean:.2f}"
    text += "" if cell.deviation is None else rf" \pm {cell.deviation:.2f}"
    text = f"${text}$"
    signs = _SIGNS.get(spot.word, "") + (_MATCHING if spot.is_matching else "")
    text += rf"\textsuperscript{{{signs}}}" if signs else ""
    text += "" if spot.fewer is None else rf" ($n = {spot.fewer}$)"
    return text + ("" if spot.elsewhere is None else rf" ({100 * spot.elsewhere:.2f}\,\%)")


def _claims(judged: Judgement, grid: str) -> str:
    head = ["Claim", "Difference", "Interval", "of", "$p$", "$n$", "Verdict"]
    rows = [_claim(line) for one in judged.claims for line in claim_lines(one)]
    count = judged.families.get("claims", 0)
    caption = (
        "Claims: differences of test accuracy in points, paired over $n$ seeds, with intervals at "
        rf"the level that decides, and $p$ corrected by Holm over {count} comparison"
        f"{'s' if count != 1 else ''}. Within the margin are $\\pm${judged.margin:g} points."
    )
    return _table(caption, f"{grid}-claims", head, [], rows, columns="lrrrrrl")


def _claim(line: Line) -> list[str]:
    text = (r"\quad " if line.is_part else "") + escaped(line.text)
    told = escaped(line.verdict + (f" ({line.more})" if line.more else ""))
    one = line.numbers
    if one is None:
        return [text, "", "", "", "", "", told]
    mean = "" if one.mean is None else f"${one.mean:+.2f}$"
    if one.interval is None:
        return [text, mean, escaped(one.why), "", "", str(one.n), told]
    low, high = one.interval
    p = "$< 0.001$" if one.corrected < 0.001 else f"${one.corrected:.3f}$"
    level = rf"{level_of(one)}\,\%"
    return [text, mean, f"$[{low:+.2f}, {high:+.2f}]$", level, p, str(one.n), told]


def _table(
    caption: str,
    label: str,
    head: Sequence[str],
    above: Iterable[Sequence[str]],
    rows: Iterable[Sequence[str]],
    *,
    columns: str = "",
) -> str:
    """A table by booktabs, made smaller if a line of the page is too short for it.

    Args:
        caption: above it.
        label: by which it is referred to, as ``tab:LABEL``.
        head: of the columns.
        above: rows that stand apart.
        rows: the others.
        columns: their alignment; the first to the left, others to the right, if it is not given.
    """
    name = re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-").lower()
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{name}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{columns or 'l' + 'r' * (len(head) - 1)}}}",
        r"\toprule",
        _row(head),
        *map(_row, above),
        r"\midrule",
        *map(_row, rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(texts: Sequence[str]) -> str:
    return rf"{' & '.join(texts)} \\"
