"""A judgement as tables of a terminal, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from orchestrator.experiment.axes import CELL, Axes
from orchestrator.experiment.claims import Claim
from orchestrator.report.cells import Cell
from orchestrator.report.judgement import (
    FAILS,
    HOLDS,
    LOSES,
    MATCHES,
    UNDECIDED,
    WINS,
    WORDS,
    Comparison,
    Difference,
    Judged,
    Judgement,
    Part,
)
from orchestrator.report.sheets import heading

STYLES = {WINS: "green", HOLDS: "green", LOSES: "red", FAILS: "red", MATCHES: "cyan"}
"""The colour of each word in a terminal."""


def spell_interval(one: Difference) -> str:
    """The interval that decides, as ``[+0.10, +0.70]``.

    Where it tells nothing it is said so; where there is none, why.
    """
    if one.interval is None:
        return one.why
    low, high = one.interval
    is_idle = low < -100 and high > 100  # no difference is larger
    return "beyond ± 100" if is_idle else f"[{low:+.2f}, {high:+.2f}]"


def spell_p(one: Difference) -> str:
    """The corrected p value, as ``0.031`` or ``< 0.001``."""
    if one.interval is None:
        return ""
    return "< 0.001" if one.corrected < 0.001 else f"{min(one.corrected, 1):.3f}"


def spell_confidence(one: Difference) -> str:
    """As ``99.5 %``: so many digits that it is not 100."""
    return f"{level_of(one)} %"


def level_of(one: Difference) -> str:
    """The level of its interval in percent, as ``99.5`` or ``99.9958``."""
    error = 100 * (1 - one.confidence)
    digits = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 2
    return f"{100 * one.confidence:.{digits}f}".rstrip("0").rstrip(".")


def place_of(cell: Cell) -> str:
    """Where a cell is compared, as ``resnet20 at 97.19 %``."""
    return f"{cell.network} at {100 * cell.sparsity:.2f} %"


def claims_table(judged: Judgement) -> Table:
    """The claims of an experiment, and whether they hold; a row for each of their parts."""
    table = _table("Claims", ("claim", *_COLUMNS))
    for claim in judged.claims:
        table.add_section()
        for line in claim_lines(claim):
            told = Text(f"  {line.text}", style="dim") if line.is_part else line.text
            table.add_row(told, *_spelled(line.numbers, line.verdict))
    return table


@dataclass(frozen=True, kw_only=True)
class Line:
    """A claim, or a part of it, as a line of a table."""

    text: str
    verdict: str
    numbers: Difference | None = None
    is_part: bool = False

    @property
    def more(self) -> str:
        """How many more seeds, as people read it; empty where nothing is to be told."""
        return self.numbers.more_spelled() if self.numbers else ""


def claim_lines(one: Judged) -> list[Line]:
    """A claim as lines: itself, with its numbers if it has one part, else its parts below it."""
    if len(one.parts) == 1 and not one.missing:
        return [Line(text=one.claim.text, verdict=one.verdict, numbers=one.parts[0])]
    lines = [Line(text=one.claim.text, verdict=one.verdict)]
    for part in one.parts:
        name = part_name(part, one.parts)
        lines.append(Line(text=name, verdict=part.verdict, numbers=part, is_part=True))
    if one.missing:
        text = f"{one.missing} without a result"
        lines.append(Line(text=text, verdict=UNDECIDED, is_part=True))
    return lines


def part_name(part: Part, among: Sequence[Part] = ()) -> str:
    """As ``above Reinit, resnet20 at 97.19 %``.

    Args:
        part: of a claim.
        among: all parts of the claim: the cell and its dataset are named where those differ.
    """
    is_named = part.cell.source or len({one.cell.name for one in among}) > 1
    own = f"{part.cell.name} " if is_named else ""
    data = f" on {part.cell.dataset}" if len({one.cell.dataset for one in among}) > 1 else ""
    return f"{own}{part.relation} {part.baseline.name}, {place_of(part.cell)}{data}"


def verdicts_tables(judged: Judgement) -> list[Table]:
    """Every comparison, in a table for each network."""
    found: dict[tuple[str, str], list[Comparison]] = {}
    for one in judged.comparisons:
        found.setdefault((one.cell.network, one.cell.dataset), []).append(one)
    return [_verdicts(f"{network} on {data}", some) for (network, data), some in found.items()]


def _verdicts(title: str, comparisons: Sequence[Comparison]) -> Table:
    table = _table(title, ("sparsity %", "", "against", *_COLUMNS))
    for one in comparisons:
        where = (f"{100 * one.cell.sparsity:.2f}", one.cell.name, one.baseline.name)
        table.add_row(*where, *_spelled(one, one.word))
    return table


_COLUMNS = ("n", "difference", "interval", "of", "p", "verdict", "more seeds")


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=heading(title), title_justify="left", header_style="")
    for name in columns:
        is_text = name in ("", "claim", "against", "verdict")
        table.add_column(
            name,
            justify="left" if is_text else "right",
            no_wrap=name in ("interval", "of", "verdict"),
            max_width=8 if name == "more seeds" else None,
        )
    return table


def _spelled(one: Difference | None, word: str) -> list[str | Text]:
    """A comparison in ``_COLUMNS``."""
    verdict = Text(word, style=STYLES.get(word, "dim"))
    if one is None:
        return ["", "", "", "", "", verdict, ""]
    level = "" if one.interval is None else spell_confidence(one)
    mean, p = "" if one.mean is None else f"{one.mean:+.2f}", spell_p(one)
    return [str(one.n), mean, spell_interval(one), level, p, verdict, more_csv(one)]


def counts_of(judged: Judgement) -> list[str]:
    """How often each word came out, in a line for each baseline."""
    found: dict[str, Counter[str]] = {}
    for one in judged.comparisons:
        found.setdefault(one.baseline.name, Counter())[one.word] += 1
    verbs = {WINS: ("wins", "win"), MATCHES: ("matches", "match"), LOSES: ("loses", "lose")}
    lines = []
    for name, counts in found.items():
        told = [
            f"{counts[word]} {verbs.get(word, (word, word))[counts[word] != 1]}"
            for word in WORDS
            if counts[word]
        ]
        lines.append(f"{name}: {', '.join(told)}")
    return lines


def is_told(judged: Judgement) -> bool:
    """Whether anything can be said: of one seed nothing can."""
    return any(one.n > 1 for one in judged.comparisons) or bool(judged.claims)


def verdicts_json(judged: Judgement) -> str:
    """Claims, comparisons and families as JSON."""
    plain = {
        "margin": judged.margin,
        "families": dict(judged.families),
        "claims": [one.plain() for one in judged.claims],
        "comparisons": [
            {"cell": Axes.of(one.cell)._asdict(), **one.plain()} for one in judged.comparisons
        ],
    }
    return json.dumps(plain, indent=1) + "\n"


_OTHER = tuple(axis for axis in CELL if axis not in ("network", "dataset"))
"""What may be another of the cell that one is compared with."""
_NUMBERS = (
    *("n", "which_seeds", "difference", "difference_sd", "low_95", "high_95", "p"),
    *("p_corrected", "confidence", "low", "high", "verdict", "more_seeds"),
)


def verdicts_csv(judged: Judgement) -> str:
    """One line for each part of a claim, then one for each comparison."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    against = [f"against_{name}" for name in _OTHER]
    writer.writerow(("family", "claim", "relation", *CELL, *against, *_NUMBERS))
    for claim, one, relation, word in _rows(judged):
        writer.writerow(
            (
                one.family,
                claim.text if claim else "",
                relation,
                *(getattr(one.cell, name) for name in CELL),
                *(getattr(one.baseline, name) for name in _OTHER),
                *csv_numbers(one),
                word,
                more_csv(one),
            )
        )
    return out.getvalue()


def _rows(judged: Judgement) -> Iterator[tuple[Claim | None, Difference, str, str]]:
    for claim in judged.claims:
        for part in claim.parts:
            yield claim.claim, part, part.relation, part.verdict
    for one in judged.comparisons:
        yield None, one, "", one.word


def csv_numbers(one: Difference) -> tuple[Any, ...]:
    """The numbers of a comparison, in the columns up to ``high``."""
    plain = one.numbers()
    alone, shown = plain["interval_95"] or ("", ""), plain["interval"] or ("", "")
    values = (plain["difference"], plain["difference_sd"], *alone, plain["p"], plain["p_corrected"])
    return (
        one.n,
        " ".join(map(str, one.seeds)),
        *("" if value is None else value for value in values),
        plain["confidence"],
        *shown,
    )


def more_csv(one: Difference) -> str:
    """How many more seeds, as ``3`` or ``>100``."""
    told = one.more_spelled().replace("more than ", ">").split()
    return told[0] if told else ""
