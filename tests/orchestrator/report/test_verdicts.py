"""A judgement in every form: terminal, CSV, JSON, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.experiment.claims import Claim
from orchestrator.report import latex, markdown
from orchestrator.report.cells import Cell, Report
from orchestrator.report.forms import to_csv, to_json, to_tables
from orchestrator.report.judgement import Judgement, judge
from orchestrator.report.latex import to_latex
from orchestrator.report.markdown import to_markdown
from orchestrator.report.verdicts import (
    claims_table,
    counts_of,
    part_name,
    verdicts_csv,
    verdicts_json,
    verdicts_tables,
)

SEEDS = (0, 1, 2, 3)
NOISE = (0.05, -0.05, 0.1, -0.1)
SPREADS = {"dense": 1, "imp": 2, "ett": 3, "reinit": 1.5, "random": 2.5, "snip": 1}


def _cell(method: str, mean: float, spread: float = 1.0, k: int = 2, **changes: Any) -> Cell:
    """A cell whose differences to others have a spread of some tenths, in no order with theirs."""
    values = [mean + spread * gap * SPREADS[method] for gap in NOISE]
    fields: dict[str, Any] = {
        "network": "resnet20(width=4)",
        "method": method,
        "source": "",
        "transform": "",
        "round": k,
        "dataset": "digits",
        "sparsity": 0.75 if k else 0.0,
        "seeds": SEEDS,
        "nonzeros": (1250,) * 4,
        "accuracy": tuple(values),
        "runs": ("",) * 4,
        "numerics": ("cpu",) * 4,
        "seconds": (1.0,) * 4,
    }
    return Cell(**fields | changes)


CLAIMS: list[dict[str, Any]] = [
    {"ett": "above", "of": ["reinit", "random"], "round": 2},
    {"imp": "reaches", "of": "dense"},
    {"imp": "above", "of": "ett"},
    {"snip": "above", "of": "imp"},
]


def _report(claims: Sequence[dict[str, Any]] = CLAIMS, one_seed: bool = False) -> Report:
    moved: dict[str, Any] = {"source": "resnet14(a|b)", "transform": "drop:1_2", "sparsity": 0.74}
    cells = [
        _cell("dense", 95.0, k=0),
        _cell("imp", 95.05),
        _cell("ett", 96.5, **moved),
        _cell("reinit", 90.0),
        _cell("random", 89.0),
        _cell("snip", 94.0, spread=30),
    ]
    if one_seed:
        names = ("seeds", "nonzeros", "accuracy", "runs", "numerics", "seconds")
        short = [{name: getattr(one, name)[:1] for name in names} for one in cells]
        cells = [Cell(**{**vars(one), **few}) for one, few in zip(cells, short, strict=True)]
    found = tuple(Claim.model_validate(one) for one in claims)
    return Report(grid="my_grid", cells=tuple(cells), missing=0, claims=found)


@pytest.fixture(scope="module")
def report() -> Report:
    return _report()


@pytest.fixture(scope="module")
def judged(report: Report) -> Judgement:
    return judge(report)


def _text(*parts: Any) -> str:
    console = Console(file=io.StringIO(), width=160)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_words(judged: Judgement) -> None:
    """What the other tests show in their forms."""
    words = [(one.cell.method, one.baseline.method, one.word) for one in judged.comparisons]
    assert words == [
        ("imp", "dense", "matches"),
        ("ett", "dense", "wins"),
        ("ett", "imp", "wins"),
        ("reinit", "dense", "loses"),
        ("reinit", "imp", "loses"),
        ("random", "dense", "loses"),
        ("random", "imp", "loses"),
        ("snip", "dense", "undecided"),
        ("snip", "imp", "undecided"),
    ]
    verdicts = [one.verdict for one in judged.claims]
    assert verdicts == ["holds", "holds", "does not hold", "undecided"]


# Terminal


def test_signs_stand_beside_the_difference_to_imp(report: Report, judged: Judgement) -> None:
    text = _text(to_tables(report, judged=judged))
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if "│" in line}
    assert "(+1.45) ▲†" in lines["ETT <- resnet14(a|b) drop:1_2"]
    assert re.search(r"95\.05 ± \d\.\d\d † ", lines["IMP"])
    assert "(-5.05) ▼ " in lines["Reinit"]
    assert re.search(r"\(-1\.05\) +│", lines["SNIP"]), "none where it is undecided"
    words = " ".join(text.split())
    assert "Against IMP: ▲ wins, = matches, ▼ loses, none where it is undecided." in words
    assert "wins: the interval of the difference lies above 0; matches: not that" in words
    assert "matching one (Frankle et al. 2020), and a winning ticket (Frankle & Carbin" in words
    assert "dense: 1 wins, 1 matches, 2 lose, 1 undecided; IMP: 1 wins, 2 lose, 1 und" in words


def test_of_one_seed_no_word_is_said() -> None:
    text = _text(to_tables(_report([], one_seed=True)))
    assert "Frankle" not in text
    assert not re.search(r"[▲▼†]|undecided", text)


def test_claims_in_a_terminal(judged: Judgement) -> None:
    rows = [line.split("│")[1:-1] for line in _text(claims_table(judged)).splitlines()]
    found = [[one.strip() for one in row] for row in rows if row]
    names = [row[0] for row in found]
    assert names[0] == "ETT above Reinit, Random: round 2"
    assert names[1].startswith("ETT <- resnet14(a|b) drop:1_2 above Reinit")
    (refuted,) = [row for row in found if row[0] == "IMP above ETT"]
    assert refuted[1:3] == ["4", "-1.45"]
    assert refuted[-2] == "does not hold"
    (opened,) = [row for row in found if row[0] == "SNIP above IMP"]
    assert opened[-2] == "undecided"
    assert re.fullmatch(r"\d+|>100", opened[-1])


def test_parts_of_a_claim_name_what_tells_them_apart(judged: Judgement) -> None:
    (claim,) = (one for one in judged.claims if one.claim.text == "SNIP above IMP")
    (part,) = claim.parts
    place = "resnet20(width=4) at 59.04 %"
    assert re.sub(r"\d+\.\d\d", "59.04", part_name(part)) == f"above IMP, {place}"
    other = replace(part.cell, dataset="mnist", variant="lrr")
    both = (part, replace(part, cell=other))
    told = [re.sub(r"\d+\.\d\d", "59.04", part_name(one, both)) for one in both]
    assert told == [
        f"SNIP above IMP, {place} on digits",
        f"SNIP, lrr above IMP, {place} on mnist",
    ]


def test_every_comparison_in_a_terminal(judged: Judgement) -> None:
    text = _text(*verdicts_tables(judged))
    assert text.splitlines()[0].strip() == "resnet20(width=4) on digits"
    lines = [line for line in text.splitlines() if "│" in line]
    assert len(lines) == 9
    snip = next(line for line in lines if "SNIP" in line)
    assert "undecided" in snip
    assert counts_of(judged)[1] == "IMP: 1 wins, 2 lose, 1 undecided"


# Data


def test_json_has_what_a_cell_is_compared_with(report: Report, judged: Judgement) -> None:
    cells = json.loads(to_json(report, judged=judged))
    found = {one["method"]: one["judgement"] for one in cells}
    assert found["dense"] == []
    assert [(o["against"]["method"], o["verdict"]) for o in found["ett"]] == [
        ("dense", "wins"),
        ("imp", "wins"),
    ]
    one = found["ett"][0]
    assert set(one) == {
        *("against", "verdict", "family", "seeds", "difference", "difference_sd", "interval_95"),
        *("p", "p_corrected", "interval", "confidence", "more_seeds", "more_seeds_over"),
    }
    assert one["difference"] == pytest.approx(1.5)
    assert one["interval"][0] < one["interval_95"][0] < 1.5 < one["interval_95"][1]
    assert one["confidence"] > 0.95
    assert to_json(report) == to_json(report, judged=judged)


def test_a_judgement_as_json(judged: Judgement) -> None:
    plain = json.loads(verdicts_json(judged))
    assert (plain["margin"], plain["families"]) == (
        0.5,
        {"claims": 5, "dense": 4, "IMP": 2},
    )
    assert len(plain["comparisons"]) == 9
    assert [one["verdict"] for one in plain["claims"]] == [one.verdict for one in judged.claims]
    part = plain["claims"][0]["parts"][1]
    assert (part["of"]["method"], part["verdict"], part["seeds"]) == ("random", "holds", [*SEEDS])


def test_a_judgement_as_csv(report: Report, judged: Judgement) -> None:
    rows = list(csv.DictReader(io.StringIO(verdicts_csv(judged))))
    assert [row["family"] for row in rows][:6] == ["claims"] * 5 + ["claims"]
    assert len(rows) == 5 + 9
    assert (rows[0]["claim"], rows[0]["relation"]) == ("ETT above Reinit, Random: round 2", "above")
    assert (rows[0]["method"], rows[0]["against_method"]) == ("ett", "reinit")
    assert (rows[0]["round"], rows[0]["against_round"]) == ("2", "2")
    assert {row["against_round"] for row in rows if row["against_method"] == "dense"} == {"0"}
    assert rows[0]["verdict"] == "holds"
    assert float(rows[0]["low"]) <= float(rows[0]["low_95"]) < float(rows[0]["difference"])
    cells = list(csv.DictReader(io.StringIO(to_csv(report, judged=judged))))
    (ett,) = [row for row in cells if row["method"] == "ett"]
    assert (ett["imp_verdict"], ett["dense_verdict"], ett["imp_n"]) == ("wins", "wins", "4")
    assert ett["minus_imp"] == "1.4500"
    assert float(ett["imp_difference"]) == pytest.approx(1.45)


# Documents


def test_markdown(report: Report, judged: Judgement) -> None:
    text = to_markdown(report, judged)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for block in text.split("\n\n"):
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines() if "|" in line}
        assert len(counts) <= 1, block
    (ett,) = [row for row in rows if row.startswith("| ETT ← ")]
    assert "ETT ← resnet14(a\\|b) drop:1\\_2 |" in ett
    assert "**96.50** ± " in ett
    assert "(+1.45) ▲† at 74.00 %" in ett
    assert any("**does not hold**" in row for row in rows)
    assert any(row.startswith("| · ETT ←") and "| holds |" in row for row in rows)
    assert "Wins: the interval of the difference" in text
    assert markdown.escaped("a<b*c_d") == "a\\<b\\*c\\_d"


def _commands(text: str) -> None:
    """Refuse what LaTeX would: most machines have none, so its rules are checked one by one."""
    bare = re.sub(r"^%.*$|(?<=\{)%$", "", text, flags=re.MULTILINE)
    bare = bare.replace(r"\ifdim\width>\linewidth", "")
    bare = re.sub(r"\\[\\&%$#_{}]", "", bare)
    assert bare.count("{") == bare.count("}")
    depth = 0
    for letter in bare:
        depth += (letter == "{") - (letter == "}")
        assert depth >= 0
    assert bare.count("$") % 2 == 0
    outside = "".join(bare.split("$")[::2])
    assert not re.search(r"[%#_^<>|±←†▲▼]", re.sub(r"\\label\{[^}]*\}", "", outside))
    assert text.isascii()
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert opened == []
    for columns, body in re.findall(
        r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL
    ):
        rows = [line for line in body.splitlines() if not line.endswith("rule")]
        assert [line for line in body.splitlines() if line.endswith("rule")] == [
            "\\toprule",
            "\\midrule",
            "\\bottomrule",
        ]
        for row in rows:
            assert row.endswith(" \\\\")
            assert len(re.findall(r"(?<!\\)&", row)) == len(columns) - 1, row
    known = {
        *("begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule"),
        *("pm", "mathbf", "leftarrow", "uparrow", "downarrow", "dag", "textsuperscript"),
        *("textbar", "textless", "textgreater", "textbackslash", "textasciitilde", "quad"),
        *("textasciicircum", "usepackage"),
        *("resizebox", "ifdim", "width", "linewidth", "else", "fi"),
    }
    assert set(re.findall(r"\\([A-Za-z]+)", text)) <= known


def test_latex(report: Report, judged: Judgement) -> None:
    text = to_latex(report, judged)
    _commands(text)
    assert text.startswith("% In the preamble: \\usepackage{booktabs,graphicx}\n")
    assert "\\label{tab:my-grid-resnet20-width-4-digits}" in text
    assert "\\label{tab:my-grid-claims}" in text
    assert "ETT $\\leftarrow$ resnet14(a\\textbar{}b) drop:1\\_2" in text
    assert "$\\mathbf{96.50} \\pm 0.27$\\textsuperscript{$\\uparrow$\\dag{}} (74.00\\,\\%)" in text
    assert "Non-zeros & 1\\,250 & 1\\,250 \\\\" in text
    assert "does not hold \\\\" in text
    assert "by Holm over 5 comparisons" in text
    _commands(to_latex(_report([], one_seed=True), judge(_report([], one_seed=True))))


def test_a_table_is_no_wider_than_a_line(report: Report, judged: Judgement, tmp_path: Path) -> None:
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex here")
    single = _report([], one_seed=True)
    tables = to_latex(report, judged) + to_latex(single, judge(single))
    (tmp_path / "tables.tex").write_text(tables, encoding="utf-8")
    page = "\\documentclass[twocolumn]{article}\\usepackage{booktabs,graphicx}"
    page += "\\begin{document}\\input{tables}\\end{document}"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(
        command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout
    assert "Overfull" not in done.stdout


def test_fewer_seeds_than_others_have_are_told() -> None:
    whole = _report([])
    few = [
        replace(cell, seeds=SEEDS[:3], accuracy=cell.accuracy[:3])
        if cell.method == "snip"
        else cell
        for cell in whole.cells
    ]
    report = replace(whole, cells=tuple(few))
    judged = judge(report)
    markdown_, latex_ = to_markdown(report, judged), to_latex(report, judged)
    (row,) = [line for line in markdown_.splitlines() if line.startswith("| SNIP")]
    assert ", n = 3" in row
    assert "n: of how many seeds it is" in markdown_
    (row,) = [line for line in latex_.splitlines() if line.startswith("SNIP")]
    assert "($n = 3$)" in row
    _commands(latex_)
    assert "n = " not in to_markdown(whole, judge(whole))


def test_what_a_reader_must_know_is_in_every_form(report: Report, judged: Judgement) -> None:
    short = replace(report, missing=3, faulty=("a_b round 1",))
    assert "\n* 3 stages of this grid are not finished.\n" in to_markdown(short, judged)
    assert "gradients that may be wrong (docs/numerics.md): a\\_b" in to_markdown(short, judged)
    text = to_latex(short, judged)
    _commands(text)
    assert "\n% 3 stages of this grid are not finished.\n" in text
    assert "not finished" not in to_markdown(report, judged) + to_latex(report, judged)


def test_latex_escapes_every_letter_that_means_something_to_it() -> None:
    odd = "\\~^<>|±&%$#_{}<-"
    assert latex.escaped(odd) == (
        "\\textbackslash{}\\textasciitilde{}\\textasciicircum{}\\textless{}\\textgreater{}"
        "\\textbar{}$\\pm$\\&\\%\\$\\#\\_\\{\\}$\\leftarrow$"
    )


def test_a_claim_without_an_interval_in_every_form() -> None:
    claims = [{"ett": "above", "of": "imp"}]
    report = _report(claims, one_seed=True)
    judged = judge(report)
    for text in (to_markdown(report, judged), to_latex(report, judged)):
        assert "one seed" in text
    assert "one seed" in _text(claims_table(judged))
    _commands(to_latex(report, judged))
