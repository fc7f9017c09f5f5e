"""Pictures of analyses: real files, the same ones each time, with the right numbers on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from orchestrator.report import pictures
from orchestrator.report.analyses import Analyses, Looked, Measured
from tests.orchestrator.report.test_analyses import barrier, looked, made

KINDS = ("angular", "cosine", "l2_full", "l2_shared")


def _matrix(value: float | None, seed: int = 0, method: str = "imp", variant: str = "") -> Measured:
    rows = [[0.0, value, 0.5], [value, 0.0, 0.25], [0.5, 0.25, 0.0]]
    of = [looked(k, method, seed, variant=variant) for k in range(2)]
    return made("distances", of, dict.fromkeys(KINDS, rows))


def _drawn(*found: Measured, variants: tuple[str, ...] = ()) -> dict[str, Any]:
    return dict(pictures.plots(Analyses(found=found, variants=variants)))


def test_two_drawings_are_equal(tmp_path: Path) -> None:
    found = Analyses(found=(barrier([looked(0), looked(1)], 9), _matrix(0.1)))
    paths = pictures.draw(found, tmp_path)
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in pictures.draw(found, tmp_path)] == first
    assert {path.suffix for path in paths} == {".png", ".svg"}
    assert not any(b"<dc:date>" in content for content in first)
    assert pictures.draw(Analyses(), tmp_path) == []


def test_a_matrix_is_the_mean_over_seeds_from_bottom_left() -> None:
    drawn = _drawn(_matrix(0.1), _matrix(0.3, seed=1))
    assert list(drawn) == [f"distances_{kind}" for kind in KINDS]
    axis = drawn["distances_angular"].axes[0]
    (image,) = axis.images
    assert image.origin == "lower"
    assert image.get_array()[0, 1] == pytest.approx(0.2)
    assert image.get_clim() == (0, 1)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["100", "80", "start"]


def test_all_lines_of_a_picture_are_on_one_axis() -> None:
    """Where one cannot be placed by the weights that remain, none is."""
    known = [barrier([looked(k), looked(k + 1)], 9) for k in (0, 1)]
    found = [*known, barrier([unknown(0), unknown(1)], 9)]
    for whole, expected in ((known, [100, 80]), (found, [0, 1])):
        (axis,) = _drawn(*whole)["barrier_rounds"].axes
        line = axis.containers[0].lines[0]
        assert line.get_xdata() == pytest.approx(expected)
        assert axis.get_xlabel() == ("round" if whole is found else "weights remaining (%)")


def unknown(k: int) -> Looked:
    """Of a run that does not say how many weights its network has."""
    return dataclasses.replace(looked(k, "reinit"), nonzeros=None, prunable=None)


def test_only_the_name_of_a_variant_is_taken_from_a_line() -> None:
    assert pictures._but("IMP, r, rounds 0 and 10", "r") == "IMP, rounds 0 and 10"
    assert pictures._but("IMP, 1, 1 round apart", "1") == "IMP, 1 round apart"
    assert pictures._but("IMP, r and Reinit, r", "r") == "IMP and Reinit"
    assert pictures._but("IMP", "") == "IMP"


def test_what_is_not_defined_is_blank() -> None:
    image = _drawn(_matrix(None))["distances_l2_full"].axes[0].images[0]
    assert np.ma.getmaskarray(image.get_array())[0].tolist() == [False, True, False]


def test_a_row_for_each_method_and_a_column_for_each_variant() -> None:
    found = [_matrix(0.1, 0, m, v) for v in ("a", "b", "c") for m in ("imp", "reinit")]
    figure = _drawn(*found, variants=("a", "b", "c"))["distances_angular"]
    titles = [axis.get_title(loc="left") for axis in figure.axes[:6]]
    assert titles == [f"{name}, {v}" for name in ("IMP", "Reinit") for v in "abc"]


def test_barriers_are_over_the_weights_of_the_denser_with_lowest_and_highest() -> None:
    found = [
        barrier([looked(k, seed=s), looked(k + 1, seed=s)], 10 + k + 3 * s)
        for k in range(2)
        for s in range(2)
    ]
    drawn = _drawn(*found)
    assert list(drawn) == ["barrier_rounds", "barrier_rounds_path_test_error"]
    (axis,) = drawn["barrier_rounds"].axes
    (bars,) = axis.containers
    assert bars.lines[0].get_xydata().tolist() == [[100, 3.5], [80, 4.5]]
    ends = [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()]
    assert ends == [[2, 5], [3, 6]]
    low, high = axis.get_xlim()
    assert low > high
    lines = drawn["barrier_rounds_path_test_error"].axes[0].lines
    curves = [list(line.get_ydata()) for line in lines]
    assert curves[:2] == [[4, 11.5, 8], [4, 12.5, 8]]


def test_twins_are_over_variants_in_the_order_of_the_file() -> None:
    found = [
        barrier([looked(k, variant=v), looked(k, variant=v, noise=1)], top)
        for k in (1, 2)
        for v, top in (("large", 8), ("small", 30))
    ]
    figure = _drawn(*found, variants=("small", "large"))["barrier_twins"]
    first, second = figure.axes
    assert [label.get_text() for label in first.get_xticklabels()] == ["small", "large"]
    assert first.containers[0].lines[0].get_ydata().tolist() == [24, 2]
    assert [axis.get_title(loc="left") for axis in (first, second)] == [
        "80 % remain",
        "64 % remain",
    ]


def test_methods_of_any_panel_of_twins_are_in_the_key() -> None:
    found = [
        barrier([looked(k, method, variant=v), looked(k, method, variant=v, noise=1)], 9)
        for k, method in ((1, "imp"), (2, "reinit"))
        for v in ("large", "small")
    ]
    figure = _drawn(*found, variants=("small", "large"))["barrier_twins"]
    (key,) = figure.legends
    assert [text.get_text() for text in key.get_texts()] == ["IMP", "Reinit"]


def test_bands_of_paths_are_whole() -> None:
    found = [barrier([looked(0, seed=s), looked(1, seed=s)], top) for s, top in enumerate((9, 80))]
    (axis,) = _drawn(*found)["barrier_rounds_path_test_error"].axes
    assert axis.get_ylim() == (0, pytest.approx(1.08 * 80))


def test_a_heading_is_no_wider_than_its_picture() -> None:
    """That of one panel is narrow, and what stands above it is broken into lines."""
    one = barrier([looked(0), looked(1)], 9)
    points = [
        {name.replace("test", "train"): value for name, value in point.items()}
        for point in one.result["points"]
    ]
    trained = dataclasses.replace(one, result={**one.result, "points": points})
    drawn = _drawn(trained, _matrix(0.1))
    assert "barrier_rounds_path_train_error" in drawn
    for figure in drawn.values():
        figure.canvas.draw()
        heading = figure._suptitle.get_window_extent()
        assert heading.x0 >= 0
        assert heading.x1 <= figure.bbox.width


def _histogram(first: int, counts: list[int]) -> dict[str, Any]:
    edges = [(first + k) * 0.5 for k in range(len(counts) + 1)]
    return {"width": 0.5, "edges": edges, "counts": counts, "bimodality": 0.5}


def test_histograms_are_means_over_bins_in_common() -> None:
    found = [
        made("histograms", [looked(3, seed=0)], {"rounds": [_histogram(-1, [2, 4])]}),
        made("histograms", [looked(3, seed=1)], {"rounds": [_histogram(0, [2, 6])]}),
    ]
    drawn = _drawn(*found)
    (step,) = drawn["histograms"].axes[0].patches
    assert step.get_data().values.tolist() == [1, 3, 3]
    assert step.get_data().edges.tolist() == [-0.5, 0, 0.5, 1]


def test_a_point_that_could_not_be_measured_is_a_gap() -> None:
    one = barrier([looked(0), looked(1)], 9)
    points = [*one.result["points"], {"at": 1.2, "unmeasured": "a variance is negative"}]
    broken = made("barrier", list(one.of), {**one.result, "points": points})
    line = _drawn(broken)["barrier_rounds_path_test_error"].axes[0].lines[0]
    assert np.isnan(line.get_ydata()).tolist() == [False, False, False, True]


def test_of_single_numbers_an_analysis_has_no_picture() -> None:
    pooled = {"iou": 0.5, "expected": 0.2, "excess": 0.3}
    overlap = made("overlap", [looked(1), looked(1, seed=1)], {"pooled": pooled})
    assert pictures.png_of(overlap) is None
    assert list(_drawn(overlap)) == ["overlap_seeds"]
    for one in (_matrix(0.1), barrier([looked(0), looked(1)], 9)):
        assert (pictures.png_of(one) or b"").startswith(b"\x89PNG")


def _colours(figure: Any) -> list[dict[str, Any]]:
    """Of each panel the colours by what they stand for, and of the key."""
    found = []
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        found.append({n: _colour(h) for h, n in zip(handles, labels, strict=True)})
    (key,) = figure.legends
    names = [text.get_text() for text in key.get_texts()]
    found.append({n: _colour(h) for h, n in zip(key.legend_handles, names, strict=True)})
    return found


def _colour(drawn: Any) -> str:
    own = drawn.get_color() if hasattr(drawn, "get_color") else drawn.get_edgecolor()
    return str(to_hex(own))


@pytest.mark.parametrize(("dense", "drawn_anew"), [(3, 3), (32, 29)])
def test_a_level_has_one_colour_in_all_panels_and_in_the_key(dense: int, drawn_anew: int) -> None:
    found = [barrier([looked(k), looked(k + 1)], 10) for k in range(dense)]
    found += [
        barrier([looked(k, "reinit"), looked(k + 1, "reinit")], 10) for k in range(1, drawn_anew)
    ]
    first, second, key = _colours(_drawn(*found)["barrier_rounds_path_test_error"])
    assert len(second) > 1
    assert second.items() <= first.items()
    assert key.items() <= first.items()
    assert {"100 %", list(first)[-1]} <= set(key)


def test_histograms_of_a_level_have_one_colour_and_the_key_has_all_levels() -> None:
    found = [
        made(
            "histograms", [looked(k, method) for k in rounds], {"rounds": [_histogram(0, [2])] * n}
        )
        for method, rounds, n in (("imp", range(1, 4), 3), ("reinit", range(5), 5))
    ]
    first, second, key = _colours(_drawn(*found)["histograms"])
    assert list(second) == ["100 %", "80 %", "64 %", "51.2 %", "41 %"]
    assert first.items() < second.items()
    assert key == second


def test_histograms_of_other_rounds_are_panels_of_their_own() -> None:
    found = [
        made("histograms", [looked(10)], {"rounds": [_histogram(0, [3])]}),
        made(
            "histograms",
            [looked(0), looked(10)],
            {"rounds": [_histogram(0, [9]), _histogram(1, [3])]},
        ),
    ]
    figure = _drawn(*found)["histograms"]
    shares = {
        axis.get_title(loc="left"): [step.get_data().edges[0] for step in axis.patches]
        for axis in figure.axes
    }
    assert shares == {"IMP, round 10": [0], "IMP, rounds 0 and 10": [0, 0.5]}
