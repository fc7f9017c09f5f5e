"""Figures as SVG of a page: well formed, small, their looks in rules, their ids their own."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from orchestrator.report.inline import PAPER, Palette, contrast, in_dark, inline

COLOURS = ("#000000", "#d55e00", "#0072b2", "#009e73", "#882255", "#999999", "#f0c808")


def _figure() -> Figure:
    figure = Figure(figsize=(4, 3))
    axis = figure.subplots()
    for number, colour in enumerate(COLOURS):
        values = [1 / (number + 1), 0.123456789, 0.5]
        label = f"<{number}> & b"
        axis.errorbar([1, 2, 3], values, yerr=0.1, color=colour, marker="o", label=label)
    axis.imshow(np.eye(3), extent=(1, 2, 0, 0.2), aspect="auto")
    axis.legend()
    return figure


def test_a_figure_is_one_element_that_is_well_formed() -> None:
    text = str(inline(_figure(), Palette(), name="a-", alt='what "it" shows & how'))
    root = ElementTree.fromstring(text)
    assert root.tag == "svg"
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'what "it" shows & how'
    assert float(root.attrib["viewBox"].split()[2]) == pytest.approx(288)
    words = {"".join(one.itertext()) for one in root.iter("text")}
    assert "<0> & b" in words
    assert not [one for one in root.iter() if "style" in one.attrib]


def test_looks_are_classes_whose_rules_name_colours_by_variables() -> None:
    palette = Palette()
    text = str(inline(_figure(), palette, name="a-", alt=""))
    assert not re.search(r"#[0-9a-f]{6}", text)
    used = {name for found in re.findall(r'class="([^"]+)"', text) for name in found.split()}
    rules = dict(re.findall(r"^\.(\w+)\{(.*)\}$", palette.rules, re.MULTILINE))
    assert used - {"plot"} == rules.keys()
    named = set(re.findall(r"var\((--\w+)\)", palette.rules))
    for paper in ("light", "dark"):
        said = dict(re.findall(r"(--\w+):(#[0-9a-f]{6});", palette.colours(paper)))
        assert named <= said.keys()
        assert f"--k{COLOURS[1][1:]}" in said
    assert "--k000000:#000000;" in palette.colours("light")


def test_the_ids_of_two_figures_are_apart_and_all_that_is_named_is_there() -> None:
    palette = Palette()
    texts = [str(inline(_figure(), palette, name=name, alt="")) for name in ("a-", "b-")]
    ids = [re.findall(r' id="([^"]+)"', text) for text in texts]
    assert not set(ids[0]) & set(ids[1])
    for text, own in zip(texts, ids, strict=True):
        assert len(set(own)) == len(own)
        named = re.findall(r'href="#([^"]+)"', text) + re.findall(r"url\(#([^)]+)\)", text)
        assert set(named) == set(own)
    assert texts[0] == str(inline(_figure(), Palette(), name="a-", alt="")), "the same each time"


def test_numbers_are_as_exact_as_a_screen_shows() -> None:
    text = str(inline(_figure(), Palette(), name="a-", alt=""))
    paths = re.findall(r' d="([^"]+)"', text)
    assert paths
    assert not [path for path in paths if re.search(r"\.\d\d", path)]
    assert "data:image/png;base64," in text, "an image is in the file itself"


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_can_be_told_from_dark_paper(colour: str) -> None:
    assert contrast(in_dark(colour), PAPER["dark"]) > 3.9


def test_paper_is_paper() -> None:
    assert in_dark("#ffffff") == PAPER["dark"]
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast(in_dark("#dddddd"), PAPER["dark"]) < contrast(in_dark("#999999"), PAPER["dark"])
