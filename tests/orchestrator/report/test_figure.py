"""The figure: real files, the same ones each time, with everything on it."""

from __future__ import annotations

import html
import itertools
import re
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

from orchestrator.experiment import methods
from orchestrator.report import figure
from orchestrator.report.cells import Cell, Report

METHODS = ("imp", "ett", "reinit", "random", "magnitude")


def _cell(network: str, method: str, k: int, seeds: int = 2, source: str = "resnet14") -> Cell:
    ett = methods.METHODS[method].base == methods.SOURCE
    return Cell(
        network=network,
        method=method,
        source=source if ett else "",
        transform="append" if ett else "",
        round=k,
        dataset="digits",
        sparsity=1 - 0.8**k,
        seeds=tuple(range(seeds)),
        nonzeros=(round(1000 * 0.8**k),) * seeds,
        accuracy=tuple(90.0 - k - 0.5 * seed - len(method) for seed in range(seeds)),
        runs=("r",) * seeds,
        numerics=("cpu",) * seeds,
        seconds=(1.0,) * seeds,
    )


def _report(*networks: str, rounds: int = 3, seeds: int = 2) -> Report:
    cells = [
        _cell(network, method, k, seeds)
        for network in networks
        for method, k in [("dense", 0), *((m, k) for m in METHODS for k in range(1, rounds + 1))]
    ]
    return Report(grid="drawn", cells=tuple(cells), missing=0)


def test_png_and_svg_are_valid(tmp_path: Path) -> None:
    png, svg = figure.draw(_report("resnet20", "resnet32"), tmp_path)
    assert (png.name, svg.name) == ("accuracy.png", "accuracy.svg")
    image = plt.imread(png)
    assert image.shape[2] == 4
    assert image.shape[1] == pytest.approx(10.0 * 150, abs=2)
    assert np.ptp(image[..., :3]) > 0.5
    text = svg.read_text(encoding="utf-8")
    assert text.startswith("<?xml")
    assert text.rstrip().endswith("</svg>")
    for word in ("IMP", "ETT ← resnet14 append", "Reinit", "Random", "Magnitude", "dense"):
        assert f">{word}</text>" in text
    for title in (
        "resnet20, digits",
        "resnet32, digits",
        "sparsity (%)",
        "test accuracy (%), seeds 0, 1",
    ):
        assert f">{title}</text>" in text


def test_two_drawings_are_equal(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in figure.draw(_report("resnet20"), tmp_path)]
    second = [path.read_bytes() for path in figure.draw(_report("resnet20"), tmp_path)]
    assert first == second
    assert b"<dc:date>" not in first[1]


@pytest.mark.parametrize("networks", [1, 2, 3, 4, 5])
def test_a_panel_for_each_network(tmp_path: Path, networks: int) -> None:
    names = [f"resnet{i}" for i in range(networks)]
    svg = figure.draw(_report(*names, rounds=1), tmp_path)[1].read_text(encoding="utf-8")
    assert len(re.findall(">resnet[0-9], digits</text>", svg)) == networks


@pytest.mark.parametrize(("rounds", "seeds"), [(1, 1), (1, 3), (25, 1)])
def test_few_and_many_points(tmp_path: Path, rounds: int, seeds: int) -> None:
    svg = figure.draw(_report("resnet20", rounds=rounds, seeds=seeds), tmp_path)[1]
    axis = re.findall(r">(\d[\d.]*)</text>", svg.read_text(encoding="utf-8"))
    assert axis  # numbers at the ticks


def test_every_method_has_a_colour() -> None:
    known = {"dense", "ett"}  # a line across; a colour for each source
    assert set(figure._COLOURS) | known == set(methods.METHODS)
    assert not set(figure._COLOURS) & known
    assert set(figure._MARKERS) <= set(methods.METHODS)
    baselines = [name for name, m in methods.METHODS.items() if m.base in ("chain", "rewind")]
    colours = [figure._COLOURS[name] for name in baselines if name != "dense"]
    assert len(set(colours)) == len(colours)
    assert not set(figure.ETT_COLOURS) & set(colours)
    assert len(set(figure.ETT_COLOURS)) == len(figure.ETT_COLOURS)


def test_many_lines(tmp_path: Path) -> None:
    names = [name for name in methods.METHODS if name != "dense"]
    cells = [_cell("resnet20", "dense", 0)]
    cells += [_cell("resnet20", name, k) for name in names for k in (1, 2, 3)]
    sources = [f"resnet{depth}" for depth in (32, 44, 56, 62, 68, 74, 80, 110)]
    cells += [_cell("resnet20", "ett", k, source=s) for s in sources for k in (1, 2, 3)]
    report = Report(grid="many", cells=tuple(cells), missing=0)
    svg = figure.draw(report, tmp_path)[1].read_text(encoding="utf-8")
    shown = [html.unescape(text) for text in re.findall(">([^<>]+)</text>", svg)]
    labels = {cell.name.replace("<-", "←") for cell in cells}
    assert len(labels) == 1 + len(names) + len(sources)
    assert {label: shown.count(label) for label in labels} == dict.fromkeys(labels, 1)


def test_one_round_has_its_sparsity_on_the_axis(tmp_path: Path) -> None:
    cells = [_cell("resnet20", "imp", 5)]
    svg = figure.draw(Report(grid="one", cells=tuple(cells), missing=0), tmp_path)[1]
    assert ">67.23</text>" in svg.read_text(encoding="utf-8")


def test_a_dense_network_alone(tmp_path: Path) -> None:
    cells = (_cell("resnet20", "dense", 0),)
    assert len(figure.draw(Report(grid="dense", cells=cells, missing=0), tmp_path)) == 2


def test_a_dense_network_that_variants_share_is_drawn_once() -> None:
    dense = [replace(_cell("resnet20", "dense", 0), variant=name) for name in ("", "a", "b")]
    other = replace(dense[2], runs=("s", "s"))
    report = Report(grid="shared", cells=(*dense[:2], other), missing=0)
    (axis,) = figure.plot(report).axes
    assert axis.get_legend_handles_labels()[1] == ["dense", "dense, b"]


@pytest.mark.parametrize("rounds", [3, 10, 20, 31])
def test_labels_of_sparsities_do_not_touch(rounds: int) -> None:
    cells = (_cell("resnet20", "reinit", 0), *_report("resnet20", rounds=rounds).cells)
    drawn = figure.plot(Report(grid="drawn", cells=cells, missing=0))
    drawn.canvas.draw()
    (axis,) = drawn.axes
    boxes = [label.get_window_extent() for label in axis.get_xticklabels() if label.get_text()]
    assert len(boxes) > 1
    for one, following in itertools.pairwise(boxes):
        assert one.x1 < following.x0


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert figure.draw(Report(grid="empty", cells=(), missing=3), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_no_figure_stays_open_and_no_setting_is_changed(tmp_path: Path) -> None:
    mpl.rcdefaults()
    before = dict(mpl.rcParams.items())
    figure.draw(_report("resnet20", rounds=1), tmp_path)
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams.items()) == before


def test_the_axis_is_even_in_rounds_and_can_be_undone() -> None:
    sparsity = np.array([1 - 0.8**k for k in range(1, 20)])
    places = figure._log(sparsity)
    assert np.allclose(np.diff(places), -np.log(0.8))
    assert np.allclose(figure._unlog(places), sparsity)
    assert np.isfinite(figure._log(1.0))


def test_panels_are_those_of_the_figure() -> None:
    report = _report("resnet20", "resnet32")
    drawn = figure.panels(report)
    assert [title for title, _ in drawn] == ["resnet20, digits", "resnet32, digits"]
    whole = [axis for axis in figure.plot(report).axes if axis.get_title(loc="left")]
    for (_, one), axis in zip(drawn, whole, strict=True):
        (own,) = one.axes
        assert own.get_legend_handles_labels()[1] == axis.get_legend_handles_labels()[1]
        assert own.get_ylim() == axis.get_ylim()
        assert [line.get_color() for line in own.lines] == [line.get_color() for line in axis.lines]
    assert figure.panels(Report(grid="empty", cells=(), missing=1)) == []
