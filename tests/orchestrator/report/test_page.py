"""The page of a report: what is on it, that it is one file, and that no name is taken for code."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from orchestrator.experiment.papers import Paper, Printed
from orchestrator.report import analyses
from orchestrator.report.cells import Report, collect
from orchestrator.report.flops import Costs, Spent, costs
from orchestrator.report.judgement import judge
from orchestrator.report.page import NAME, Missing, gather, html, page_of, write
from orchestrator.store.address import Store
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import Finished
from tests.orchestrator.report.pages import (
    HOSTILE,
    cell_of,
    figure_6,
    report_of,
    resnet_layers,
    told_of,
)


class Reader(HTMLParser):
    """What a browser finds: elements with their attributes, texts, and unclosed elements."""

    VOID = ("meta", "br", "input", "img", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def _html(report: Report, **changes: Any) -> str:
    counted: Costs | None = changes.pop("counted", None)
    return html(page_of(report, told_of(report, **changes), judge(report), counted=counted))


def _rows(text: str, of: str) -> list[list[str]]:
    """The texts of the rows of a table, by what the region around it is called."""
    (table,) = re.findall(rf'aria-label="{re.escape(of)}">\n<table.*?</table>', text, re.DOTALL)
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]*>", " ", cell).strip() for cell in row] for row in cells]


def _data(text: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return dict(json.loads(found))


# One file


def test_nothing_is_asked_of_anyone_and_no_code_stands_in_an_attribute() -> None:
    text = _html(report_of(), server="https://runs.example.org", experiment="1")
    read = Reader(text)
    for tag, attributes in read.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        assert tag not in ("link", "iframe", "object", "img", "base", "form")
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name, "")
            links_out = tag == "a" and value == "https://runs.example.org"
            assert value.startswith(("#", "data:")) or not value or links_out, (tag, value)
    (policy,) = [one["content"] for one in read.all("meta") if "http-equiv" in one]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)", text)


def test_what_people_wrote_is_text() -> None:
    name = f"net{HOSTILE}"
    cells = [cell_of(one, network=name) for one in ("dense", "imp", HOSTILE)]
    cells += [cell_of("ett", network=name, source=HOSTILE, transform='a"b', variant="<i>v</i>")]
    report = report_of(*cells, endings=(HOSTILE,), beside=HOSTILE, dataset=HOSTILE, ended=1)
    missing = {"failed": (Missing(reason=HOSTILE, titles=(HOSTILE,), log=(HOSTILE,)),)}
    text = _html(
        report,
        missing=missing,
        fields={"description": HOSTILE, "plugins": [HOSTILE]},
        layers=[{HOSTILE: 0.5}] * 4,
        origins={"machine": (HOSTILE,)},
        server=f"https://runs.example.org/{HOSTILE}",
    )
    read = Reader(text)
    assert len(read.all("script")) == 2, "the data and ours"
    assert not read.all("img")
    assert not read.all("i")
    assert "alert(1)" in read.text
    assert not re.search(r"<script>alert|onerror=\"alert|<i>v", text)
    assert _data(text)["names"] == [[HOSTILE]]


def test_it_is_the_same_file_each_time(tmp_path: Path, finished: Finished) -> None:
    found = finished
    written = []
    for name in ("one", "two"):
        report = collect(found.tracker, found.experiment.name)
        counted = costs(found.tracker, found.experiment.name)
        written.append(write(found.tracker, report, tmp_path / name, counted=counted))
    assert [path.name for path in written] == [NAME, NAME]
    assert written[0].read_bytes() == written[1].read_bytes()


# What is on it


def test_each_cell_has_its_row() -> None:
    report = report_of()
    read = _rows(_html(report), "Cells of resnet20 on digits")
    assert read[0] == [
        *("ticket", "zeros&nbsp;%", "accuracy&nbsp;%", "spread", "minus IMP", "minus dense"),
        *("round", "non-zeros", "layers", "seeds 0, 1, 2, one by one"),
    ]
    assert [row[0] for row in read[1:]] == ["dense", "IMP", "Reinit", "Random"]
    imp = read[2]
    assert imp[1] == "93.75"
    # 87, 87.125 and 87.5: mean 87.2083, deviation 0.2602, t(.975, 2) = 4.3027.
    assert imp[2].split() == ["87.21", "±", "0.26", "86.6", "to", "87.9"]
    assert imp[4] == ""
    assert imp[5].startswith("+2.00 ")
    assert judge(report).comparisons[0].why in imp[5], "3 equal differences tell no spread"
    assert imp[6:8] == ["4", "1,000"]
    assert imp[9].split() == ["87.00", "87.12", "87.50"]
    assert read[3][4].startswith("\u22123.00 ")


def test_a_cell_of_other_seeds_says_which() -> None:
    report = report_of(cell_of("imp"), cell_of("reinit", seeds=(0, 2)))
    read = _rows(_html(report), "Cells of resnet20 on digits")
    assert read[1][-1] == "87.00 87.12 87.50"
    assert read[2][-1].split() == ["84.00", "84.50", "seeds", "0,", "2"]


def test_words_stand_beside_differences() -> None:
    wins = cell_of("reinit", accuracy=(91.0, 92.1, 93.0))
    loses = cell_of("random", accuracy=(71.0, 72.1, 73.0))
    cells = (cell_of("imp", accuracy=(81.0, 82.0, 83.0)), wins, loses)
    text = _html(report_of(*cells))
    read = _rows(text, "Cells of resnet20 on digits")
    told = [row[4].split()[:2] for row in read[1:]]
    assert told == [[], ["+10.03", "wins"], ["\u22129.97", "loses"]]
    said = (
        "Against IMP's own ticket of the same sparsity, a control wins in 1 of 2 cells and loses in"
    )
    assert said in Reader(text).text
    assert "matches: not that, and it lies within ± 0.5 points" in text


def test_of_one_seed_no_word_is_said() -> None:
    report = report_of(*(cell_of(name, seeds=(0,)) for name in ("dense", "imp", "reinit")))
    text = _html(report)
    read = _rows(text, "Cells of resnet20 on digits")
    assert read[3][2:6] == ["84.00", "", "\u22123.00", "\u22121.00"]
    assert 'class="word' not in text
    assert "matches: not that" not in text


def test_costs_have_columns_where_they_are_known() -> None:
    report = report_of()
    spent = [
        Spent(cell=cell, inference=0.25, training=0.3, search=2.0, shared=1.0)
        for cell in report.cells[1:]
    ]
    counted = Costs(grid="tiny", spent=tuple(spent), reference="resnet20", unit={"digits": 1e9})
    text = _html(report, counted=counted)
    read = _rows(text, "Cells of resnet20 on digits")
    at = read[0].index("inference")
    assert read[0][at : at + 3] == ["inference", "training", "with its search"]
    assert [row[at : at + 3] for row in read[1:3]] == [["", "", ""], ["0.25", "0.3", "1.3"]]
    assert "in dense runs of resnet20" in Reader(text).text


def test_the_papers_numbers_stand_beside_ours() -> None:
    printed = (Printed(network="resnet20", method="imp", accuracy=91.5),)
    paper = Paper(title="A Table", layout="by_method", round=4, printed=printed, note="As it is.")
    text = _html(report_of(paper=paper, dataset="digits", rounds=4))
    (title,) = re.findall(r"<caption><span>(.*)</span></caption>", text)
    read = _rows(text, title)
    assert title == "A Table, round 4 (93.75 % sparsity): resnet20 on digits"
    assert read[0] == ["method", "accuracy", "paper"]
    assert ["IMP", "87.21 ± 0.26", "91.50"] in read
    assert "As it is." in Reader(text).text


def test_what_is_missing_is_told_with_its_reason() -> None:
    missing = {
        "failed": (Missing(reason="the loss is not finite", titles=("a",), log=("line 1", "2")),),
        "waiting": (Missing(reason="needs a", titles=tuple(f"b{n}" for n in range(45))),),
    }
    read = Reader(_html(report_of(missing=46), missing=missing))
    for told in ("the loss is not finite", "line 1", "needs a", "b39", "and 5 more"):
        assert told in read.text
    assert "b40" not in read.text
    assert "(1 failed, 45 waiting)" in read.text


def test_links_are_made_of_a_server_alone() -> None:
    report = report_of()
    here = _data(_html(report))
    assert here.keys() == {"names", "layers"}
    there = _data(_html(report, server="http://runs:5000", experiment="7"))
    assert there["server"] == "http://runs:5000"
    assert there["experiment"] == "7"
    assert there["runs"] == [list(cell.runs) for cell in report.cells]
    assert there["names"] == [["conv1.weight", "fc.weight"]]
    assert there["layers"][1] == [0, 2500, 9375]


def test_it_says_how_to_repeat_it() -> None:
    origins = {"elth": ("0.1.0",), "commit": ("0f0f", "1a1a"), "machine": ("Linux x86_64",)}
    text = _html(report_of(), origins=origins)
    read = Reader(text)
    assert "elth run tiny.yaml" in read.text
    assert "0f0f, 1a1a" in read.text
    assert "cpu/one" in read.text
    assert "description: Tiny tickets." in read.text
    (link,) = [one for one in read.all("a") if "download" in one]
    assert link["download"] == "tiny.yaml"


def test_a_grid_of_which_nothing_is_finished_has_a_page() -> None:
    empty = Report(grid="tiny", cells=(), missing=3)
    waiting = {"waiting": (Missing(reason="can start", titles=("a", "b", "c")),)}
    read = Reader(_html(empty, missing=waiting))
    assert "Nothing of this grid is finished yet" in read.text
    assert "can start" in read.text


# Of real stores


def test_a_store_tells_of_layers_and_versions(finished: Finished) -> None:
    report = collect(finished.tracker, finished.experiment.name)
    told = gather(finished.tracker, report)
    assert all(told.layers)
    for cell, layers in zip(report.cells, told.layers, strict=True):
        assert layers is not None
        assert max(layers.values()) >= cell.sparsity - 1e-9
    assert len(told.origins["PyTorch"]) == 1
    assert not told.missing
    assert not told.server
    assert told.content.keys == finished.tracker.grids.keys(finished.experiment.name)


def test_ended_chains_are_told(stopped: Finished) -> None:
    report = collect(stopped.tracker, stopped.experiment.name)
    told = gather(stopped.tracker, report)
    text = html(page_of(report, told, judge(report)))
    assert report.endings[0] in Reader(text).text


def test_analyses_have_tables_and_pictures(inside: Finished) -> None:
    name = inside.experiment.name
    report = collect(inside.tracker, name)
    found = analyses.collect(inside.tracker, name)
    page = page_of(report, gather(inside.tracker, report), judge(report), found)
    assert [measure for measure, _, _ in page.analyses] == ["barrier", "overlap", "distances"]
    for _, spreads, drawn in page.analyses:
        assert spreads
        assert drawn
    read = Reader(html(page))
    assert "barrier between twins" in read.text
    titles = {one.get("aria-label", "") for one in read.all("svg")}
    assert any(one.startswith("barrier between twins") for one in titles)


def test_layers_that_cannot_be_read_are_left_out(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finished.tracker.files.read

    def read(run_id: str, name: str) -> bytes:
        return b"[1" if name == "layers.json" else whole(run_id, name)

    report = collect(finished.tracker, finished.experiment.name)
    monkeypatch.setattr(finished.tracker.files, "read", read)
    told = gather(finished.tracker, report)
    assert told.layers == [None] * len(report.cells)
    text = html(page_of(report, told, judge(report)))
    assert ">layers<" not in text


def test_the_page_of_figure_6_at_16_seeds_is_small() -> None:
    report = figure_6(16)
    assert len(report.cells) == 655
    told = told_of(
        report,
        layers=[resnet_layers(cell.network, cell.sparsity) for cell in report.cells],
        server="http://mlflow.lab.example.org:5000",
        experiment="1",
    )
    spent = [
        Spent(cell=cell, inference=1 - cell.sparsity, training=0.31, search=9.9, shared=0.77)
        for cell in report.cells
    ]
    counted = Costs(grid="6", spent=tuple(spent), reference="resnet56", unit={"cifar10": 1e15})
    text = html(page_of(report, told, judge(report), counted=counted))
    assert len(text.encode()) < 2_000_000
    assert len(_data(text)["runs"]) == 655
    assert text.count("<tr data-i") + text.count('<tr class="first" data-i') == 655


def test_a_store_on_a_server_has_its_address_without_a_password(finished: Finished) -> None:
    report = collect(finished.tracker, finished.experiment.name)
    tracker = Tracker(finished.tracker.store, reading=True)
    tracker.store = Store("https://me:secret@runs.example.org/mlflow", finished.store.folder)
    told = gather(tracker, report)
    assert told.server == "https://runs.example.org/mlflow"
    assert "secret" not in html(page_of(report, told, judge(report)))
