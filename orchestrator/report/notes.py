"""Notes: what a reader must know of a report beside its numbers, the same in every form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.experiment.methods import title
from orchestrator.report.layouts import LAYOUTS
from orchestrator.store.soundness import DO_AGAIN

if TYPE_CHECKING:
    from orchestrator.report.cells import Report
    from orchestrator.report.sheets import Sheet

_TOLD = 8


def notes_of(report: Report, laid_out: Sequence[Sheet]) -> list[str]:
    """What a reader must know of a report beside its numbers; of a paper's table, its sheets."""
    notes = [report.beside] if report.beside else []
    if report.only:
        notes.append(f"Only {report.only} is shown.")
    tickets = dict.fromkeys(cell.ticket for cell in report.shown if cell.ticket)
    if tickets:
        notes.append(
            f"Rounds of lines from {', '.join(tickets)} are counted from an imported ticket, "
            "whose round 0 is its own mask."
        )
    for name, given in report.criteria.items():
        settings = ", ".join(f"{key}={value}" for key, value in given.items())
        notes.append(f"{title(name)} differs from its published settings: {settings}.")
    if report.paper is not None and report.paper.printed:
        notes.append(f"paper: as printed in {report.paper.title}.")
    if report.paper is not None and report.paper.layout not in LAYOUTS and not laid_out:
        notes.append(f"The layout {report.paper.layout} is code from outside, which is not here.")
    if report.paper is not None and report.paper.note:
        notes.append(report.paper.note)
    lost = [cell for cell in report.cells if cell.collapsed]
    for cell in lost[:_TOLD]:
        notes.append(
            f"{cell.name} on {cell.network} at {100 * cell.sparsity:.2f} % has lost every weight "
            f"of {', '.join(cell.collapsed)}."
        )
    if len(lost) > _TOLD:
        notes.append(f"So have {len(lost) - _TOLD} more cells: see provenance.json.")
    if report.ended:
        notes.append(_ended(report))
    if report.missing:
        of = "part" if report.only else "report" if report.beside else "grid"
        notes.append(f"{_stages(report.missing, f'of this {of}')} not finished.")
    if report.faulty:
        notes.append(
            f"{len(report.faulty)} stages come from gradients that may be wrong "
            f"(docs/numerics.md): {_first(report.faulty)}. {DO_AGAIN}."
        )
    if report.stale:
        notes.append(
            f"{len(report.stale)} stages were made of what came out different when it was done "
            f"again: {_first(report.stale)}. The next elth run does them again."
        )
    if len(report.numerics) > 1:
        notes.append(
            "These results come from several numerics classes, in which the same seed gives other "
            f"bits: {'; '.join(report.numerics)}."
        )
    return notes


def _first(titles: Sequence[str]) -> str:
    more = f" and {len(titles) - _TOLD} more" if len(titles) > _TOLD else ""
    return f"{'; '.join(titles[:_TOLD])}{more}"


def _stages(count: int, of: str) -> str:
    return f"1 stage {of} is" if count == 1 else f"{count} stages {of} are"


def _ended(report: Report) -> str:
    told = "; ".join(report.endings[:_TOLD])
    more = len(report.endings) - _TOLD
    seeds = {seed for cell in report.cells for seed in cell.seeds}
    fewer = any(len(cell.seeds) < len(seeds) for cell in report.cells)
    them = "it" if report.ended == 1 else "them"
    return (
        f"{_stages(report.ended, 'of this grid')} ended by pruning.stop, as a chain ended before "
        f"{them}: {told}{f'; and {more} more' if more > 0 else ''}."
        f"{' Means after that are of the seeds whose chains went on.' if fewer else ''}"
    )
