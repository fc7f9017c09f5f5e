"""Small pictures of rows: where marks stand, and how dark layers are."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from orchestrator.report.strips import layers_strip, seeds_strip, shade_of


def _places(text: str, kind: str) -> list[float]:
    (path,) = re.findall(rf'<path class="{kind}" d="([^"]+)"', text)
    return [float(one) for one in re.findall(r"M([-\d.]+) ", path)]


def test_seeds_stand_between_the_ends_of_their_table() -> None:
    text = str(seeds_strip([90.0, 95.0, 100.0], 95.0, (80.0, 97.5), (90.0, 100.0), 92.5))
    ElementTree.fromstring(text)
    assert _places(text, "d") == [4, 60, 116]
    assert _places(text, "m") == [60]
    assert _places(text, "r") == [32]
    (low,) = _places(text, "i")
    assert low == pytest.approx(0.6, abs=0.1), "what lies outside is cut off"
    assert "H88" in text


def test_one_value_stands_in_the_middle() -> None:
    text = str(seeds_strip([50.0], 50.0, None, (50.0, 50.0), None))
    assert _places(text, "d") == [60]
    assert 'class="i"' not in text
    assert 'class="r"' not in text


@pytest.mark.parametrize(
    ("sparsity", "shade"),
    [
        (0.0, 0),
        (0.5, 0),
        (0.51, 1),
        (0.85, 2),
        (0.93, 3),
        (0.96, 4),
        (0.985, 5),
        (0.999, 6),
        (1, 7),
    ],
)
def test_shades(sparsity: float, shade: int) -> None:
    assert shade_of(sparsity) == shade


def test_layers_stand_in_the_order_of_the_network() -> None:
    layers = {"conv1.weight": 0.2, "a.weight": 0.6, "b.weight": 0.7, "c.weight": 0.3, "fc": 1.0}
    text = str(layers_strip(layers))
    root = ElementTree.fromstring(text)
    assert root.attrib["viewBox"] == "0 0 5 1"
    assert root.attrib["aria-label"] == ("5 layers, zeros from 20.0 % in conv1 to 100.0 % in fc")
    assert [(p.attrib["class"], p.attrib["d"]) for p in root] == [
        ("s0", "M0 .5h1M3 .5h1"),
        ("s1", "M1 .5h2"),
        ("s7", "M4 .5h1"),
    ]


def test_names_of_layers_are_text() -> None:
    text = str(layers_strip({'"><script>': 0.5}))
    assert "<script>" not in text
    assert "&#34;&gt;&lt;script&gt;" in text
