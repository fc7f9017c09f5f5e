"""What is known of measures without torch: the numbers by which results are compared."""

from __future__ import annotations

import pytest

from elth.errors import ElthError
from elth.measures import abscissae, by_round, numbers


def test_what_is_not_defined_is_no_number() -> None:
    overlap = {"pooled": {"iou": 0.5, "expected": None, "excess": 0.25}}
    assert numbers("overlap", overlap) == {"iou": 0.5, "excess": 0.25}
    assert by_round("overlap", overlap) == []


def test_a_path_runs_between_numbers() -> None:
    for low, high in ((0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(ElthError, match="a path runs between two numbers"):
            abscissae(20, low, high)


def test_a_matrix_is_told_by_next_rounds_and_the_start() -> None:
    angular = [[0, 0.1, 0.2, 0.3], [0.1, 0, 0.4, 0.5], [0.2, 0.4, 0, None], [0.3, 0.5, None, 0]]
    result = dict.fromkeys(("angular", "cosine", "l2_full", "l2_shared"), angular)
    found = by_round("distances", result)
    near, far = "angular_to_next", "angular_to_start"
    shown = [{name: one[name] for name in (near, far) if name in one} for one in found]
    assert shown == [{near: 0.1, far: 0.3}, {near: 0.4, far: 0.5}, {}]
    assert numbers("distances", result) == {}


def test_a_line_has_numbers_of_each_round() -> None:
    result = {"rounds": [{"value": 0.5, "kept": 4}, {"value": None, "kept": 0}]}
    assert by_round("thresholds", result) == [{"threshold": 0.5}, {}]
