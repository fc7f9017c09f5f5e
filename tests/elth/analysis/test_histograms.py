"""Histograms by hand, and against numpy's."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elth.analysis import bimodality, histogram, layer_histograms
from elth.errors import ElthError
from tests.elth.analysis.helpers import drawn, drawn_mask, flat, keeps, one


def test_by_hand() -> None:
    found = histogram(one(-0.03, -0.01, 0.01, 0.05, 0), keeps(1, 1, 1, 1, 0))
    assert found.edges == pytest.approx((-0.04, -0.02, 0, 0.02, 0.04, 0.06))
    assert found.counts == (1, 1, 1, 0, 1)
    assert found.total == 4
    assert (found.width, found.first) == (0.02, -2)


def test_a_kept_zero_counts_and_a_pruned_one_does_not() -> None:
    found = histogram(one(0.0, 0.0, 0.03), keeps(1, 0, 1))
    assert (found.first, found.counts) == (0, (1, 1))


def test_a_bin_holds_its_lower_edge() -> None:
    """Also where the quotient by the width is rounded to the other side: .06 / .02 is below 3."""
    values = [k * 0.02 for k in range(-40, 41)]
    found = histogram(one(*values), keeps(*[1] * len(values)))
    assert (found.first, found.counts) == (-40, (1,) * 81)
    below = [math.nextafter(value, -1) for value in values]
    found = histogram(one(*below), keeps(*[1] * len(below)))
    assert (found.first, found.counts) == (-41, (1,) * 81)


@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.1, 0.37, 3.0]))
def test_against_numpy(seed: int, width: float) -> None:
    state, mask = drawn(seed), drawn_mask(seed, 0.5)
    found = histogram(state, mask, width=width)
    weights, kept = flat(state, mask)
    expected, _ = np.histogram(weights[kept], bins=np.array(found.edges))
    assert list(found.counts) == expected.tolist()
    assert found.total == int(kept.sum())
    assert found.counts[0] > 0
    assert found.counts[-1] > 0
    assert [round(edge / width) for edge in found.edges] == list(
        range(found.first, found.first + len(found.counts) + 1)
    )


def test_layers_add_up_to_the_whole() -> None:
    state, mask = drawn(0), drawn_mask(0, 0.5)
    layers = layer_histograms(state, mask, width=0.5)
    assert list(layers) == list(mask)
    whole = histogram(state, mask, width=0.5)
    for number, count in enumerate(whole.counts, whole.first):
        places = (number - layer.first for layer in layers.values())
        parts = [
            layer.counts[place]
            for layer, place in zip(layers.values(), places, strict=True)
            if 0 <= place < len(layer.counts)
        ]
        assert sum(parts) == count


def test_bimodality_by_hand() -> None:
    # Magnitudes 1, 2, 4, 8, 10: the median is 4, and one lies below 2.
    assert bimodality(torch.tensor([1.0, -2.0, 4.0, -8.0, 10.0])) == 0.2
    # Of an even number the middle is (2 + 4) / 2 = 3, and one lies below 1.5.
    assert bimodality(torch.tensor([1.0, -2.0, 4.0, 8.0])) == 0.25
    assert bimodality(torch.tensor([3.0, -3.0, 3.5, -3.2])) == 0
    assert math.isnan(bimodality(torch.empty(0)))


def test_bimodality_of_known_laws() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(200_000, generator=generator) - 0.5
    assert bimodality(uniform) == pytest.approx(0.25, abs=0.005)
    normal = torch.randn(200_000, generator=generator)
    assert bimodality(normal) == pytest.approx(0.264, abs=0.005)
    peaks = torch.sign(normal) * (5 + normal)
    assert bimodality(peaks) < 0.02
    assert bimodality(7 * normal) == bimodality(normal)


def test_nothing_kept() -> None:
    found = histogram(one(1, 2), keeps(0, 0))
    assert found.counts == ()
    assert found.edges == (0,)
    assert found.plain() == {"width": 0.02, "edges": [0], "counts": [], "bimodality": None}


def test_plain_is_json() -> None:
    found = histogram(drawn(0), drawn_mask(0, 0.5), width=0.5).plain()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert len(found["edges"]) == len(found["counts"]) + 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_diverged_have_no_histogram(value: float) -> None:
    with pytest.raises(ElthError, match="a weight is not finite.*has diverged"):
        histogram(one(1, value), keeps(1, 1))
    assert histogram(one(0.01, value), keeps(1, 0)).counts == (1,)


def test_bins_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ElthError, match="the width of a bin must be above 0, found -1"):
        histogram(one(1), keeps(1), width=-1)
    with pytest.raises(ElthError, match=r"weights up to 1e\+09 make over 1,000,000 bins of 0.02"):
        histogram(one(1e9), keeps(1))
