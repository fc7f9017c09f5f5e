"""What tests of reports share."""

from __future__ import annotations

import io

from rich.console import Console

from orchestrator.experiment.papers import Paper
from orchestrator.report.cells import Report
from orchestrator.report.forms import to_tables

PAPER = Paper.model_validate(
    {
        "title": "A paper, Table 9",
        "layout": "by_network",
        "note": "Its seeds are unknown.",
        "printed": [
            {"network": "resnet20", "method": "imp", "accuracy": 95.5},
            {"network": "resnet32", "method": "imp", "accuracy": 96.5},
        ],
    }
)


def printed(report: Report, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(to_tables(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
