"""Our numbers in the shape of the papers' tables, from cells and printed numbers made by hand."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.experiment import papers
from orchestrator.experiment.papers import Paper
from orchestrator.experiment.reading import load
from orchestrator.report.cells import Cell, network_order
from orchestrator.report.layouts import LAYOUTS, lay_out
from orchestrator.report.sheets import (
    Entry,
    Sheet,
    sheet_csv,
    sheet_markdown,
    sheet_table,
    texts_of,
)

CONFIGS = Path(__file__).parents[3] / "tune_configs"

LEVEL = "T, round 6 (75.00 % sparsity)"
"""The title where there are cells of IMP as ``_cell`` makes them."""


def _cell(method: str, network: str, accuracy: float | Sequence[float], **changes: Any) -> Cell:
    """A cell of 1,000 weights on CIFAR-10, at three quarters of sparsity."""
    accuracies = (accuracy,) if isinstance(accuracy, float) else tuple(accuracy)
    count = len(accuracies)
    fields: dict[str, Any] = {
        "source": "",
        "transform": "",
        "round": 0 if method == "dense" else 6,
        "dataset": "cifar10",
        "sparsity": 0.0 if method == "dense" else 0.75,
        "seeds": tuple(range(count)),
        "nonzeros": (250,) * count,
        "runs": ("r",) * count,
        "numerics": ("cpu",) * count,
        "seconds": (1.0,) * count,
    }
    fields |= {"method": method, "network": network, "accuracy": accuracies}
    return Cell(**{**fields, **changes})


def _paper(layout: str, *printed: tuple[Any, ...], **fields: Any) -> Paper:
    """A paper; each printed number is method, network, accuracy and what else there is."""
    rows = [
        {"method": m, "network": n, "accuracy": a, **(rest[0] if rest else {})}
        for m, n, a, *rest in printed
    ]
    return Paper.model_validate({"title": "T", "layout": layout, "printed": rows, **fields})


def _texts(sheet: Sheet) -> list[list[str]]:
    head, rows = texts_of(sheet)
    return [head, *rows]


# Places


def test_an_entry_is_our_number_and_the_printed_one() -> None:
    cell = _cell("imp", "resnet20", (90.0, 92.0))
    both = Entry(cell=cell, printed=91.2)
    assert (both.ours, both.theirs) == ("91.00 ± 1.41", "91.20")
    assert Entry(cell=_cell("imp", "resnet20", 90.128)).ours == "90.13"
    assert (Entry().ours, Entry().theirs) == ("", "")


def test_networks_are_sorted_by_family_and_depth() -> None:
    names = ["vgg16", "resnet110", "mlp2", "resnet20(width=32)", "resnet20", "vgg13(fc=2)", "conv4"]
    assert sorted(names, key=network_order) == [
        *("conv4", "mlp2", "resnet20", "resnet20(width=32)", "resnet110"),
        *("vgg13(fc=2)", "vgg16"),
    ]
    assert network_order("lenet_300_100") == ("lenet_300_", 100, "lenet_300_100")


# Levels


def _rounds(*rounds: int, method: str = "imp", **changes: Any) -> list[Cell]:
    """Cells of rounds that remove a fifth each; the accuracy of round k is k."""
    return [
        _cell(method, "resnet20", float(k), **{"round": k, "sparsity": 1 - 0.8**k, **changes})
        for k in rounds
    ]


def test_the_last_round_that_is_asked_for_is_shown() -> None:
    (sheet,) = lay_out(_rounds(1, 3, 2), _paper("by_method"), "cifar10", 3)
    # 1 - 0.8^3 = 0.488.
    assert sheet.title == "T, round 3 (48.80 % sparsity): resnet20 on cifar10"
    assert _texts(sheet) == [["method", "accuracy"], ["IMP", "3.00"]]


def test_the_round_of_the_paper_is_shown_where_it_names_one() -> None:
    (sheet,) = lay_out(_rounds(1, 2, 3), _paper("by_method", round=2), "cifar10", 3)
    assert sheet.title == "T, round 2 (36.00 % sparsity): resnet20 on cifar10"
    assert _texts(sheet) == [["method", "accuracy"], ["IMP", "2.00"]]


@pytest.mark.parametrize("layout", ["by_method", "by_network"])
@pytest.mark.parametrize("round_", [None, 3])
def test_a_half_finished_grid_shows_no_other_round(layout: str, round_: int | None) -> None:
    paper = _paper(layout, ("imp", "resnet20", 91.5), round=round_)
    (sheet,) = lay_out(_rounds(1, 2), paper, "cifar10", 3)
    assert sheet.title.startswith("T, round 3: ")  # its sparsity is not known yet
    assert _texts(sheet)[1:] == [["IMP", "-", "91.50"]]


@pytest.mark.parametrize(
    ("layout", "rows"),
    [
        (
            "by_source",
            [["resnet14", "-", "80.00", "-", "90.25"], ["resnet20", "-", "-", "3.00", "-"]],
        ),
        (
            "across_datasets",
            [
                ["resnet14 on cifar10 -> resnet14 on cifar10", "-", "80.00", "-", "80.00"],
                ["resnet14 on cifar10 -> resnet20 on cifar10", "-", "90.25", "3.00", "-"],
            ],
        ),
    ],
)
def test_a_half_finished_grid_leaves_gaps_beside_what_is_finished(
    layout: str, rows: list[list[str]]
) -> None:
    moved = ("ett", "resnet20", 90.25, {"source": "resnet14"})
    paper = _paper(layout, moved, ("imp", "resnet14", 80.0))
    early = _rounds(1, 2, method="ett", source="resnet14", transform="append")
    (sheet,) = lay_out([*early, *_rounds(1, 2, 3)], paper, "cifar10", 3)
    assert _texts(sheet)[1:] == rows


def test_a_finer_level_than_a_round_is_left_out() -> None:
    exact = _rounds(3, target="0.4", sparsity=0.4, seeds=(1,))
    (sheet,) = lay_out([*exact, *_rounds(3)], _paper("by_method"), "cifar10", 3)
    assert sheet.title == "T, round 3 (48.80 % sparsity): resnet20 on cifar10"
    assert [entry.cell for _, (entry,) in sheet.rows] == _rounds(3)
    assert lay_out(exact, _paper("by_method"), "cifar10", 3) == []


def test_the_dense_network_stands_beside_every_round() -> None:
    cells = [_cell("dense", "resnet20", 95.0), *_rounds(1, 2)]
    for k in (1, 2, 3):
        (sheet,) = lay_out(cells, _paper("by_method", round=k), "cifar10", 2)
        rows = [["IMP", f"{k}.00"]] if k < 3 else []
        assert _texts(sheet)[1:] == [["dense", "95.00"], *rows]


def test_the_sparsity_of_a_title_is_the_mean_of_imp() -> None:
    cells = [
        _cell("imp", "resnet20", 90.0, sparsity=0.70),
        _cell("imp", "resnet32", 91.0, sparsity=0.74),
        _cell("ett", "resnet32", 91.0, sparsity=0.1, source="resnet20", transform="append"),
        _cell("dense", "resnet32", 92.0),
    ]
    (sheet,) = lay_out(cells, _paper("by_source"), "cifar10", 6)
    assert sheet.title == "T, round 6 (72.00 % sparsity): cifar10"
    (sheet,) = lay_out(cells[2:], _paper("by_source"), "cifar10", 6)
    assert sheet.title == "T, round 6: cifar10"


@pytest.mark.parametrize("round_", [0, -1, 1.5, "all"])
def test_the_round_of_a_paper_is_a_pruning(round_: Any) -> None:
    with pytest.raises(ValidationError, match=r"round\n  Input should be "):
        _paper("by_method", round=round_)


# Layouts


def test_by_network() -> None:
    cells = [
        _cell("dense", "resnet34", 73.0),
        _cell("dense", "resnet18", 69.0),
        _cell("imp", "resnet18", (70.0, 72.0)),
        _cell("ett", "resnet34", 71.5, source="resnet18", transform="append"),
        _cell("ett", "resnet18", 68.5, source="resnet34", transform="drop"),
        _cell("snip", "resnet18", 62.0),
        _cell("snip", "resnet18", 55.0, dataset="svhn"),
    ]
    paper = _paper(
        "by_network",
        ("dense", "resnet18", 69.96),
        ("imp", "resnet26", 72.94),
        ("ett", "resnet34", 71.86, {"source": "resnet18"}),
    )
    ours, other = lay_out(cells, paper, "cifar10", 6)
    assert (ours.title, other.title) == (f"{LEVEL}: cifar10", f"{LEVEL}: svhn")
    # A column of printed numbers stands beside each network of which any is printed.
    assert _texts(ours) == [
        ["method", "resnet18", "paper", "resnet26", "paper", "resnet34", "paper"],
        ["dense", "69.00", "69.96", "-", "-", "73.00", "-"],
        ["IMP", "71.00 ± 1.41", "-", "-", "72.94", "-", "-"],
        ["ETT <- resnet18", "-", "-", "-", "-", "71.50", "71.86"],
        ["ETT <- resnet34", "68.50", "-", "-", "-", "-", "-"],
        ["SNIP", "62.00", "-", "-", "-", "-", "-"],
    ]
    assert _texts(other) == [["method", "resnet18"], ["SNIP", "55.00"]]


@pytest.mark.parametrize(
    ("layout", "rows"),
    [
        (
            "by_network",
            {
                "IMP": "90.00",
                "ETT <- resnet14 append": "70.00",
                "ETT <- resnet14 interpolate": "88.00",
                "ETT <- resnet32": "60.00",
            },
        ),
        (
            "by_source",
            {
                "resnet14 append": "70.00",
                "resnet14 interpolate": "88.00",
                "resnet20": "90.00",
                "resnet32": "60.00",
            },
        ),
        (
            "across_datasets",
            {
                "resnet14 on cifar10 -> resnet20 on cifar10 append": "70.00",
                "resnet14 on cifar10 -> resnet20 on cifar10 interpolate": "88.00",
                "resnet32 on cifar10 -> resnet20 on cifar10": "60.00",
            },
        ),
    ],
)
def test_each_of_several_transforms_of_a_source_has_a_row(
    layout: str, rows: dict[str, str]
) -> None:
    cells = [
        _cell("imp", "resnet20", 90.0),
        _cell("ett", "resnet20", 70.0, source="resnet14", transform="append"),
        _cell("ett", "resnet20", 88.0, source="resnet14", transform="interpolate"),
        _cell("ett", "resnet20", 60.0, source="resnet32", transform="drop"),
    ]
    (sheet,) = lay_out(cells, _paper(layout), "cifar10", 6)
    assert {row[0]: row[1] for row in _texts(sheet)[1:] if row[1] != "-"} == rows


def test_by_source() -> None:
    cells = [
        _cell("dense", "mlp2", 99.0),
        _cell("imp", "mlp2", 98.0),
        _cell("imp", "mlp3", 97.0),
        _cell("ett", "mlp3", 96.5, source="mlp2", transform="append"),
        _cell("reinit", "mlp3", 50.0),
    ]
    paper = _paper(
        "by_source",
        ("imp", "mlp3", 97.83),
        ("ett", "mlp2", 97.91, {"source": "mlp3"}),
        ("ett", "mlp4", 97.99, {"source": "mlp2"}),
    )
    (sheet,) = lay_out(cells, paper, "cifar10", 6)
    assert sheet.title == f"{LEVEL}: cifar10"
    assert _texts(sheet) == [
        ["source", "mlp2", "paper", "mlp3", "paper", "mlp4", "paper"],
        ["mlp2", "98.00", "-", "96.50", "-", "-", "97.99"],
        ["mlp3", "-", "97.91", "97.00", "97.83", "-", "-"],
        ["mlp4", "-", "-", "-", "-", "-", "-"],
    ]


def test_by_source_on_two_datasets() -> None:
    mnist = {"dataset": "mnist"}
    cells = [
        _cell("imp", "vgg13(fc=2)", 93.0),
        _cell("imp", "mlp2", 98.0, **mnist),
        _cell("ett", "mlp3", 96.5, source="mlp2", transform="append", **mnist),
    ]
    moved = {"source": "mlp2", "source_dataset": "mnist", "dataset": "mnist"}
    paper = _paper("by_source", ("ett", "mlp3", 97.95, moved), ("imp", "mlp2", 98.06, mnist))
    cifar, other = lay_out(cells, paper, "cifar10", 6)
    assert (cifar.title, other.title) == (
        f"{LEVEL}: cifar10",
        f"{LEVEL}: mnist",
    )  # the experiment's first
    assert _texts(cifar) == [["source", "vgg13(fc=2)"], ["vgg13(fc=2)", "93.00"]]
    assert _texts(other) == [
        ["source", "mlp2", "paper", "mlp3", "paper"],
        ["mlp2", "98.00", "98.06", "96.50", "97.95"],
        ["mlp3", "-", "-", "-", "-"],
    ]


def test_across_datasets() -> None:
    cells = [
        _cell("imp", "resnet20", 91.0),
        _cell("imp", "resnet20", 95.0, dataset="svhn"),
        _cell("ett", "resnet20", 87.0, source="resnet20@svhn", transform="identity"),
        _cell("ett", "resnet32", 90.5, source="resnet20", transform="append"),
    ]
    paper = _paper(
        "across_datasets",
        ("imp", "resnet20", 95.95, {"dataset": "svhn"}),
        ("imp", "resnet32", 92.22),
        ("ett", "resnet20", 87.21, {"source": "resnet20", "source_dataset": "svhn"}),
        ("ett", "resnet32", 95.79, {"source": "resnet20", "dataset": "svhn"}),
    )
    (sheet,) = lay_out(cells, paper, "cifar10", 6)
    assert sheet.title == LEVEL
    assert _texts(sheet) == [
        ["ticket", "moved", "paper", "IMP on the target", "paper"],
        # The ticket of a source on its own dataset is that of IMP in both columns.
        ["resnet20 on cifar10 -> resnet20 on cifar10", "91.00", "-", "91.00", "-"],
        ["resnet20 on cifar10 -> resnet32 on cifar10", "90.50", "-", "-", "92.22"],
        ["resnet20 on cifar10 -> resnet32 on svhn", "-", "95.79", "-", "-"],
        ["resnet20 on svhn -> resnet20 on cifar10", "87.00", "87.21", "91.00", "-"],
        ["resnet20 on svhn -> resnet20 on svhn", "95.00", "95.95", "95.00", "95.95"],
    ]


def test_table_6_has_eight_rows() -> None:
    """From ResNet-20 on either dataset to ResNet-20 and 32 on either."""
    experiment = load(CONFIGS / "table6_datasets.yaml")
    assert experiment.paper is not None
    last = experiment.pruning.rounds
    (sheet,) = lay_out([], experiment.paper, experiment.dataset, last)
    names = ("cifar10", "svhn")
    tickets = [
        f"resnet20 on {source} -> resnet{depth} on {target}"
        for source in names
        for target in names
        for depth in (20, 32)
    ]
    assert [name for name, _ in sheet.rows] == tickets
    assert sheet.columns == ("moved", "with its head", "IMP on the target")
    entries = {name: [entry.printed for entry in row] for name, row in sheet.rows}
    assert entries[tickets[0]] == [91.07, None, 91.07]
    assert entries[tickets[6]] == [95.95, None, 95.95]
    # From one dataset to the other the printed tickets have taken their head along.
    assert entries[tickets[2]] == [None, 95.44, 95.95]
    assert all((row[0] is None) != (row[1] is None) for row in entries.values())


WIDE = "resnet20(width=32)"
DOUBLED = {"source": "resnet20"}
WIDTHS = (
    ("dense", WIDE, 93.71),
    ("ett", WIDE, 91.92, {**DOUBLED, "transform": "double"}),
    ("ett", WIDE, 92.12, {**DOUBLED, "transform": "double:gaussian"}),
    ("ett", WIDE, 91.56, {**DOUBLED, "transform": "double:permute"}),
)


def test_by_method() -> None:
    transforms = ("double:permute", "double", "double:gaussian")
    cells = [_cell("ett", WIDE, 91.0, source="resnet20", transform=t) for t in transforms]
    cells += [_cell("imp", "resnet20", 90.5), _cell("dense", WIDE, 93.0)]
    narrow, wide = lay_out(cells, _paper("by_method", *WIDTHS), "cifar10", 6)
    assert (narrow.title, wide.title) == (
        f"{LEVEL}: resnet20 on cifar10",
        f"{LEVEL}: {WIDE} on cifar10",
    )
    assert _texts(narrow) == [["method", "accuracy"], ["IMP", "90.50"]]
    assert _texts(wide) == [
        ["method", "accuracy", "paper"],
        ["dense", "93.00", "93.71"],
        ["ETT <- resnet20 double", "91.00", "91.92"],
        ["ETT <- resnet20 double:gaussian", "91.00", "92.12"],
        ["ETT <- resnet20 double:permute", "91.00", "91.56"],
    ]


def test_a_printed_number_is_shown_while_its_cell_is_missing() -> None:
    cells = [_cell("ett", WIDE, 91.0, source="resnet20", transform="double")]
    (sheet,) = lay_out(cells, _paper("by_method", *WIDTHS), "cifar10", 6)
    assert _texts(sheet) == [
        ["method", "accuracy", "paper"],
        ["dense", "-", "93.71"],
        ["ETT <- resnet20 double", "91.00", "91.92"],
        ["ETT <- resnet20 double:gaussian", "-", "92.12"],
        ["ETT <- resnet20 double:permute", "-", "91.56"],
    ]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "curves"])
def test_without_any_cell_the_printed_numbers_are_there(layout: str) -> None:
    moved = ("ett", "resnet20", 87.21, {"source": "resnet14"})
    paper = _paper(layout, moved, ("imp", "resnet14", 80.0))
    text = "".join(map(sheet_markdown, lay_out([], paper, "cifar10", 6)))
    assert text.count("87.21") == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_laid_out_as_nothing(layout: str) -> None:
    sheets = lay_out([], _paper(layout), "cifar10", 6)
    assert all(sheet.rows == () for sheet in sheets)
    assert len(sheet_csv(sheets).splitlines()) == 1


def test_curves_are_drawn_only() -> None:
    paper = _paper("curves", ("imp", "resnet20", 90.0))
    assert lay_out([_cell("imp", "resnet20", 90.0)], paper, "cifar10", 6) == []
    assert Paper(title="T").layout == "curves"


def test_an_unknown_layout_is_refused() -> None:
    message = (
        r"unknown layout 'by_sorce'; did you mean 'by_source'\? \(there is: curves, by_network, "
    )
    with pytest.raises(ValidationError, match=message):
        _paper("by_sorce")
    later = Paper.model_construct(title="T", layout="by_sorce", printed=())  # of a newer version
    with pytest.raises(ElthError, match=message):
        lay_out([], later, "cifar10", 6)


# Forms


@pytest.fixture
def sheet() -> Sheet:
    """Two networks, of which one has printed numbers."""
    cells = [_cell("imp", "resnet20", (90.0, 92.0)), _cell("snip", "resnet32", 80.0)]
    (found,) = lay_out(cells, _paper("by_network", ("snip", "resnet20", 85.5)), "cifar10", 6)
    return found


def test_markdown(sheet: Sheet) -> None:
    assert sheet_markdown(sheet).splitlines() == [
        f"**{LEVEL}: cifar10, seeds 0, 1**",
        "",
        "| method | resnet20 | paper | resnet32 |",
        "| --- | ---: | ---: | ---: |",
        "| IMP | 91.00 ± 1.41 | - | - |",
        "| SNIP | - | 85.50 | 80.00 |",
    ]


def test_csv(sheet: Sheet) -> None:
    rows = list(csv.reader(io.StringIO(sheet_csv([sheet, sheet]))))
    names = ["accuracy_mean", "accuracy_sd", "seeds", "sparsity", "paper"]
    assert rows[0] == ["table", "row", "column", *names]
    # A place without any number has no line.
    once = [
        [f"{LEVEL}: cifar10", "IMP", "resnet20", "91.0000", "1.4142", "2", "0.750000", ""],
        [f"{LEVEL}: cifar10", "SNIP", "resnet20", "", "", "", "", "85.50"],
        [f"{LEVEL}: cifar10", "SNIP", "resnet32", "80.0000", "", "1", "0.750000", ""],
    ]
    assert rows[1:] == [*once, *once]


def test_a_table_for_a_terminal(sheet: Sheet) -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(sheet_table(sheet))
    assert isinstance(console.file, io.StringIO)
    title, *lines = console.file.getvalue().splitlines()
    assert title.strip() == f"{LEVEL}: cifar10, seeds 0, 1"
    rows = [[text.strip() for text in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert rows == [["IMP", "91.00 ± 1.41", "-", "-"], ["SNIP", "-", "85.50", "80.00"]]


# The configurations that come with the project


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(CONFIGS.glob("*.yaml")) if "paper:" in path.read_text("utf-8")],
    ids=lambda path: path.stem,
)
def test_every_printed_number_stands_beside_a_cell_of_its_grid(path: Path) -> None:
    experiment = load(path)
    assert experiment.paper is not None
    axes = ("source", "transform", "dataset", "round", "target")
    cells = [
        _cell(
            stage.labels["method"],
            stage.labels["network"],
            50.0,
            **{axis: stage.labels[axis] for axis in axes if axis in stage.labels},
        )
        for stage in plan.build(experiment).stages.values()
        if stage.kind != "rewind_point" and stage.labels["seed"] == 0
    ]
    sheets = lay_out(cells, experiment.paper, experiment.dataset, experiment.pruning.rounds)
    entries = [entry for sheet in sheets for _, row in sheet.rows for entry in row]
    printed = [entry for entry in entries if entry.printed is not None]
    assert all(entry.cell is not None for entry in printed)
    assert {entry.printed for entry in printed} == {
        one.accuracy for one in experiment.paper.printed
    }


def test_every_layout_that_a_config_may_name_has_a_function() -> None:
    assert tuple(LAYOUTS) == papers.LAYOUTS
