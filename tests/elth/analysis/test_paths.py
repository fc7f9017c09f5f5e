"""Straight paths: what lies between two networks, and what is measured there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elth.analysis import Curve, NotMeasurableError, Point, abscissae, along, barrier, interpolate
from elth.errors import ElthError
from elth.tickets import state_digest
from tests.elth.helpers import ticket

State = Mapping[str, Tensor]


def _state(*values: float, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {"w": torch.tensor(values, dtype=dtype)}


# What lies between.


def test_a_pair_of_rounds_by_hand() -> None:
    """A weight that the second round has pruned goes to zero linearly: no mask on the path."""
    first, second = _state(2, 1), _state(4, 0)
    assert interpolate(first, second, 0.5)["w"].tolist() == [3, 0.5]
    assert interpolate(first, second, 0)["w"].tolist() == [2, 1]
    assert interpolate(first, second, 1)["w"].tolist() == [4, 0]
    assert interpolate(first, second, -0.25)["w"].tolist() == [1.5, 1.25]
    assert interpolate(first, second, 1.25)["w"].tolist() == [4.5, -0.25]


def test_the_ends_are_the_ends_bit_for_bit() -> None:
    first, second = (ticket("resnet14(width=4)", seed=seed).weights() for seed in (0, 1))
    first["fc.bias"][0], second["fc.bias"][0] = -0.0, 1e-45
    found = [interpolate(first, second, a) for a in (0, 0.5, 1)]
    assert state_digest(found[0]) == state_digest(first)
    assert state_digest(found[2]) == state_digest(second)
    assert len({state_digest(state) for state in found}) == 3
    found[0]["fc.bias"].fill_(7)
    assert float(first["fc.bias"][0]) == 0  # the ends are not what is given out


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), st.floats(-1, 2, width=32))
def test_between_equal_networks_all_is_equal(values: list[float], a: float) -> None:
    state = _state(*values, dtype=torch.float32)
    twin = {name: tensor.clone() for name, tensor in state.items()}
    assert state_digest(interpolate(state, twin, a)) == state_digest(state)


@given(st.floats(-1e3, 1e3, width=32), st.floats(-1e3, 1e3, width=32), st.floats(-1, 2))
def test_it_is_the_line_between_them(x: float, y: float, a: float) -> None:
    found = float(interpolate(_state(x), _state(y), a)["w"])
    assert found == pytest.approx((1 - a) * x + a * y, rel=1e-12, abs=1e-9)


def test_the_counter_of_batches_is_copied() -> None:
    first, second = (ticket("resnet14(width=4)", seed=seed).weights() for seed in (0, 1))
    name = "bn1.num_batches_tracked"
    second[name] = first[name] + 100
    half = interpolate(first, second, 0.3)
    assert torch.equal(half[name], first[name])
    assert half[name].dtype is torch.int64
    assert torch.equal(interpolate(first, second, 1)[name], second[name])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"v": torch.zeros(2)}, r"must be of one network: one of them has no '(w|v)'"),
        (
            {"w": torch.zeros(3)},
            r"'w' is torch.float32 \(2,\) at one and torch.float32 \(3,\) at",
        ),
        ({"w": torch.zeros(2).double()}, r"'w' is torch.float32 .* and torch.float64 \(2,\) at th"),
    ],
)
def test_ends_of_two_networks_are_refused(second: State, message: str) -> None:
    with pytest.raises(ElthError, match=message):
        interpolate({"w": torch.zeros(2)}, second, 0.5)


def test_between_whole_numbers_there_is_nothing() -> None:
    first, second = ({"table": torch.tensor([0, 1 + i])} for i in range(2))
    with pytest.raises(ElthError, match="'table' holds torch.int64, and differs at the ends"):
        interpolate(first, second, 0.5)
    assert torch.equal(interpolate(first, first, 0.5)["table"], first["table"])


# Points.


def test_points_are_evenly_spaced_and_the_ends_exact() -> None:
    assert abscissae(20) == tuple(i / 19 for i in range(20))
    assert 0.5 in abscissae(21)
    assert 0.5 not in abscissae(20)
    wide = abscissae(71, -0.2, 1.2)
    assert (len(wide), wide[0], wide[10], wide[60], wide[-1]) == (71, -0.2, 0.0, 1.0, 1.2)


@pytest.mark.parametrize(
    ("points", "low", "high", "message"),
    [
        (1, 0, 1, "a path has two ends, so at least 2 points; found points 1"),
        (70, -0.2, 1.2, "70 points from -0.2 to 1.2 pass over an end of the path: choose them so"),
        (11, 0.1, 1, "11 points from 0.1 to 1 pass over an end"),
    ],
)
def test_points_that_pass_over_an_end_are_refused(
    points: int, low: float, high: float, message: str
) -> None:
    with pytest.raises(ElthError, match=message):
        abscissae(points, low, high)


# What is measured.


def _two_layers(state: State) -> dict[str, float]:
    """Squared loss of f(x) = w2 w1 x to y = x, at x = 1 and x = -1."""
    w1, w2 = state["w"].tolist()
    return {"loss": sum((w2 * w1 * x - x) ** 2 for x in (1, -1)) / 2}


@pytest.mark.parametrize(("points", "top"), [(21, 1.0), (20, (1 - 1 / 361) ** 2)])
def test_the_path_of_two_layers_by_hand(points: int, top: float) -> None:
    at = abscissae(points)
    curve = Curve(tuple(along(_state(1, 1), _state(-1, -1), at, _two_layers)))
    expected = [(1 - (1 - 2 * a) ** 2) ** 2 for a in at]
    assert curve.values("loss") == pytest.approx(expected, abs=1e-14)
    found = curve.barriers()["loss"]
    assert (found.mean, found.worse, found.chord) == pytest.approx((top,) * 3, abs=1e-14)
    assert top == pytest.approx(1.0 if points == 21 else 0.99447, abs=1e-5)
    assert found == barrier(at, curve.values("loss"))


def test_a_point_that_cannot_be_measured_says_why() -> None:
    def measured(state: State) -> dict[str, float]:
        if float(state["w"]) > 1:
            raise NotMeasurableError("the running variance 'bn' is negative")
        return {"error": float(state["w"]), "loss": 2.0}

    at = (0, 1, 1.2)
    points = list(along(_state(0), _state(1), at, measured))
    assert points[2] == Point(at=1.2, values={}, unmeasured="the running variance 'bn' is negative")
    curve = Curve(tuple(points))
    assert curve.names == ("error", "loss")
    assert curve.values("error")[:2] == (0, 1)
    assert math.isnan(curve.values("error")[2])
    assert curve.barriers()["error"].chord == 0
    plain = json.loads(json.dumps(curve.plain(), allow_nan=False))
    assert plain[2] == {"at": 1.2, "unmeasured": "the running variance 'bn' is negative"}
    assert Curve.of(plain) == curve


def test_other_errors_are_not_points() -> None:
    def measured(state: State) -> dict[str, float]:
        raise ElthError("another network")

    with pytest.raises(ElthError, match="another network"):
        list(along(_state(0), _state(1), (0,), measured))


def test_a_path_that_was_stopped_goes_on() -> None:
    first, second, at = _state(1, 1), _state(-1, 0.3), abscissae(20)
    whole = Curve(tuple(along(first, second, at, _two_layers)))
    calls: list[float] = []

    def counted(inner: Callable[[State], dict[str, float]]) -> Callable[[State], dict[str, float]]:
        def measured(state: State) -> dict[str, float]:
            calls.append(float(state["w"][0]))
            return inner(state)

        return measured

    path = along(first, second, at, counted(_two_layers))
    begun = Curve(tuple(next(path) for _ in range(7)))
    assert len(calls) == 7
    stored = json.loads(json.dumps(begun.plain()))
    begun = Curve.of(stored)
    assert begun.left(at) == at[7:]
    rest = along(first, second, begun.left(at), counted(_two_layers))
    assert Curve((*begun.points, *rest)) == whole
    assert len(calls) == 20
    assert whole.left(at) == ()


def test_a_curve_is_in_order_and_has_each_point_once() -> None:
    points = [Point(at=a, values={"error": v}) for a, v in ((1, 3.0), (0, 1.0), (1, 2.0))]
    curve = Curve(tuple(points))
    assert curve.at == (0, 1)
    assert curve.values("error") == (1, 2)
