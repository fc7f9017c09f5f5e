"""Masks that change: what was computed by hand, method by method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from elth import masks
from elth.dynamic import Evolution, drawn, method
from elth.dynamic._updates import dropped_by_sign, spread
from elth.errors import ElthError
from elth.recipes import Recipe, Step
from elth.streams import Noise

EIGHT = {"w": (8, 1)}
MOVING = ("rigl", "set", "snfs", "gmp")


class Layers:
    """Weights and gradients that are what a test says."""

    def __init__(
        self, weights: Mapping[str, Any], gradients: Mapping[str, Any] | None = None
    ) -> None:
        self.weights = {n: torch.tensor(w, dtype=torch.float32) for n, w in weights.items()}
        self.gradients = {n: torch.tensor(g) for n, g in (gradients or {}).items()}
        self.moments = {n: torch.ones_like(w) for n, w in self.weights.items()}
        self.hidden = {n: torch.zeros_like(w) for n, w in self.weights.items()}
        self.masks = {n: torch.ones_like(w, dtype=torch.bool) for n, w in self.weights.items()}

    def weight(self, name: str) -> Tensor:
        return self.weights[name]

    def gradient(self, name: str) -> Tensor:
        return self.gradients[name]

    def momentum(self, name: str) -> Tensor:
        return self.moments[name]

    def dense(self, name: str) -> Tensor:
        return self.weights[name] + self.hidden[name]

    def exchange(self, masks: Mapping[str, Tensor], *, clear: bool) -> None:
        for name, mask in masks.items():
            if clear:
                self.moments[name] *= mask & self.masks[name]
            whole = self.dense(name)
            self.weights[name], self.hidden[name] = whole * mask, whole * ~mask
            self.masks[name] = mask


def evolution(
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    kept: int,
    mask: Mapping[str, Any] | None = None,
    *,
    length: int = 100,
    start: int = 0,
    **settings: Any,
) -> Evolution:
    """Of a mask that is given; without one, of a length that is, too."""
    given = {"every": "1it", **settings} if name != "static" else settings
    one = Evolution(method(name, given), shapes, kept, length=length, per_epoch=10, start=start)
    if mask is not None:
        fixed = {n: torch.tensor(m, dtype=torch.bool).reshape(shapes[n]) for n, m in mask.items()}
        assert one._counts == {n: int(m.sum()) for n, m in fixed.items()}
        one.mask = fixed
        one._explored = {n: fixed[n].clone() for n in one._explored}
        one._end = 10**9  # so that the fraction has not fallen yet
    return one


def column(values: list[float]) -> list[list[float]]:
    return [[value] for value in values]


def test_rigl_regrows_what_it_has_just_dropped() -> None:
    """Half of four: 1 and 3 go; 1 comes back with its weight and momentum, 5 is new and zero."""
    host = Layers(
        {"w": column([0.5, -0.1, 0.3, -0.05, 0, 0, 0, 0])},
        {"w": column([0.2, 0.9, 0.1, 0.05, 0.4, -0.8, 0.3, -0.6])},
    )
    one = evolution("rigl", EIGHT, 4, {"w": [1, 1, 1, 1, 0, 0, 0, 0]}, fraction=0.5)
    host.masks = dict(one.mask)
    assert one.before(host, 1)
    one.after(host, 1)
    assert one.mask["w"].flatten().tolist() == [True, True, True, False, False, True, False, False]
    assert host.weights["w"].flatten().tolist() == pytest.approx([0.5, -0.1, 0.3, 0, 0, 0, 0, 0])
    assert host.moments["w"].flatten().tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert one.changed() == 1
    assert one.changed() == 0
    assert one.exploration() == 5 / 8


def test_rigl_layer_by_layer_and_the_lower_index_of_equals() -> None:
    """Two layers without activation at the dropped unit; the output stays what it was."""
    shapes = {"first": (3, 2), "second": (1, 3)}
    host = Layers(
        {"first": [[0.5, 0], [0, 0.25], [0.1, 0]], "second": [[1, -2, 0]]},
        {"first": [[-1.0, -2.0], [2.0, 4.0], [0.0, 0.0]], "second": [[-0.5, -0.5, -0.1]]},
    )
    mask = {"first": [1, 0, 0, 1, 1, 0], "second": [1, 1, 0]}
    one = Evolution(
        method("rigl", {"every": "1it", "fraction": 0.5}), shapes, 5, length=10**9, per_epoch=10
    )
    one.mask = {n: torch.tensor(m).bool().reshape(shapes[n]) for n, m in mask.items()}
    one._counts, one._pruned = {"first": 3, "second": 2}, ("first", "second")
    one._explored = {n: m.clone() for n, m in one.mask.items()}
    host.masks = dict(one.mask)
    one.after(host, 1)
    assert one.mask["first"].tolist() == [[True, True], [False, True], [False, False]]
    assert one.mask["second"].tolist() == [[True, True, False]]
    assert host.weights["second"].tolist() == [[1, -2, 0]], "regrown: it keeps its weight"
    one.method = method("rigl", {"every": "1it", "fraction": 0.4})
    host.weights["second"], host.gradients["second"] = torch.tensor([[1.0, -2, 0], [9.0, 9, 9]])
    host.weights["second"] = host.weights["second"].reshape(1, 3)
    host.gradients["second"] = host.gradients["second"].reshape(1, 3)
    one.after(host, 2)
    assert one.mask["second"].tolist() == [[True, True, False]], "int(.8) is none"


def test_rigl_updates_where_it_should() -> None:
    given: Any = {"fraction": 0.5}
    one = evolution("rigl", EIGHT, 4, length=40, start=6, every="5it", **given)
    updates = [step for step in range(6, 40) if one._moves_at(step)]
    assert updates == [10, 15, 20, 25], "not at the start, and not at three quarters"
    first = evolution("rigl", EIGHT, 4, length=40, start=6, every="5it", at_start=True, **given)
    assert [step for step in range(6, 40) if first._moves_at(step)] == [6, *updates]
    by_epoch = evolution("rigl", EIGHT, 4, length=40, every="1ep", **given)
    assert [step for step in range(40) if by_epoch._moves_at(step)] == [10, 20]


def test_rigl_averages_gradients_of_several_batches() -> None:
    """One batch alone would grow place 2, both of them place 3; what is kept is forgotten then."""
    host = Layers({"w": column([1, 2, 0, 0])}, {"w": column([0, 0, 1, 0.9])})
    given: Any = {"every": "4it", "batches": 2, "fraction": 0.6}
    one = evolution("rigl", {"w": (4, 1)}, 2, {"w": [1, 1, 0, 0]}, **given)
    host.masks = dict(one.mask)
    for step in range(5):
        scores = {3: [9.0, 9.0, 0.0, 0.9], 4: [0.0, 0.0, 1.0, 0.9]}.get(step, [0.0, 0.0, 50.0, 0])
        host.gradients = {"w": torch.tensor(column(scores))}
        held = one.before(host, step)
        one.after(host, step)
        assert held == (step == 4)
        assert len(one._sums) == (step == 3)
    assert one.mask["w"].flatten().tolist() == [True, True, False, False], "9 is the highest"
    recipe = Recipe(length=Step(2, "ep"), rewind=Step(0, "ep"))
    with pytest.raises(ElthError, match="setting batches of method rigl is 3, more than the 2"):
        method("rigl", {"every": "2it", "batches": 3}).check(recipe, 10)


def test_set_grows_at_random_where_nothing_is() -> None:
    weights = column([0.5, -0.1, 0.3, -0.05, 0, 0, 0, 0])
    found = []
    for seed, noise in ((0, Noise()), (0, Noise()), (1, Noise()), (0, Noise(copy=1))):
        host = Layers({"w": weights})
        one = evolution("set", EIGHT, 4, {"w": [1, 1, 1, 1, 0, 0, 0, 0]}, fraction=0.5)
        one.seed, one.noise = seed, noise
        host.masks = dict(one.mask)
        assert not one.before(host, 4)
        one.after(host, 4)
        kept = one.mask["w"].flatten().tolist()
        assert sum(kept) == 4
        assert kept[0]
        assert kept[2]
        found.append(kept)
    assert found[0] == found[1]
    assert len({tuple(kept) for kept in found}) > 1


def test_set_by_signs_drops_of_both() -> None:
    weight = torch.tensor([0.5, 0.1, 0.3, 0.2, -0.4, -0.05, 0.0, 0.0])
    mask = torch.tensor([1, 1, 1, 1, 1, 1, 1, 0]).bool()
    left = dropped_by_sign(weight, mask, 0.5)
    assert left.tolist() == [True, False, True, False, True, False, True, False]


def test_snfs_gives_to_the_layers_of_the_largest_momentum() -> None:
    assert spread(4, {"a": 0.3, "b": 0.1}, {"a": 9, "b": 9}) == {"a": 3, "b": 1}
    assert spread(3, {"a": 0.0, "b": 0.0}, {"a": 9, "b": 9}) == {"a": 2, "b": 1}
    shapes = {"a": (4, 5), "b": (4, 5)}
    one = Evolution(method("snfs"), shapes, 16, length=100, per_epoch=10)
    host = Layers({n: [[0.0] * 5] * 4 for n in shapes})
    for name, size in (("a", 0.3), ("b", 0.1)):
        mask = one.mask[name]
        host.weights[name] = mask * torch.arange(1, 21).reshape(4, 5).float()
        host.moments[name] = torch.where(mask, size, torch.arange(20).reshape(4, 5) / 1000)
    host.masks = dict(one.mask)
    before = {n: m.clone() for n, m in one.mask.items()}
    one._end = 10**9
    one.after(host, 9)
    counts = {n: int(m.sum()) for n, m in one.mask.items()}
    assert counts == {"a": 4 + 6, "b": 4 + 2} == one._counts, "eight of sixteen were dropped"
    for name, mask in one.mask.items():
        new = (mask & ~before[name]).flatten().nonzero().flatten().tolist()
        free = (~before[name]).flatten().nonzero().flatten().tolist()
        assert new == free[len(free) - len(new) :], "grown where momentum is largest"
        assert bool((host.moments[name] > 0).any()), "momentum of what is pruned stays alive"


def test_gmp_prunes_layer_by_layer_and_ends_exactly() -> None:
    shapes = {"first": (2, 5), "a": (4, 5), "b": (5, 5)}
    host = Layers({n: torch.randn(s).tolist() for n, s in shapes.items()})
    one = Evolution(
        method("gmp", {"every": "10it", "begin": 0.2, "end": 0.8}),
        shapes,
        20,
        length=100,
        per_epoch=10,
    )
    sizes = []
    for step in range(100):
        assert not one.before(host, step)
        sizes.append(masks.nonzeros(one.mask))
        assert int(one.mask["first"].sum()) == 10
    assert set(sizes[:30]) == {55}, "the first pruning is of none"
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[80] == sizes[-1] == 20
    assert {n: int(m.sum()) for n, m in one.mask.items()} == {"first": 10, "a": 4, "b": 6}
    change = [step for step in range(1, 100) if sizes[step] != sizes[step - 1]]
    assert set(change) <= {30, 40, 50, 60, 70, 80}
    assert sizes[30] == 55 - sum(int(zeros * (1 - (5 / 6) ** 3)) for zeros in (16, 19))


def test_dpf_lets_a_weight_return() -> None:
    """The oracle: after a step with the gradient at the masked weights, index 2 is back."""
    host = Layers({"w": column([1, -0.4, 0.25, 0.1])})
    one = evolution("dpf", {"w": (4, 1)}, 2, length=10, end=0.1, layers="all")
    one.before(host, 1)
    assert one.mask["w"].flatten().tolist() == [True, True, False, False]
    target = torch.tensor(column([0.9, -0.2, 0.8, 0]))
    dense = host.dense("w") - 0.5 * (host.weight("w") - target)
    assert dense.flatten().tolist() == pytest.approx([0.95, -0.3, 0.65, 0.1])
    mask = one.mask["w"]
    host.weights["w"], host.hidden["w"] = dense * mask, dense * ~mask
    one.before(host, 2)
    assert one.mask["w"].flatten().tolist() == [True, False, True, False]
    assert host.dense("w").flatten().tolist() == pytest.approx([0.95, -0.3, 0.65, 0.1])
    assert one.changed() == 1


def test_dpf_ramps_over_all_convolutions_and_counts_linear_layers() -> None:
    shapes = {"conv": (10, 9, 1, 1), "fc": (2, 5)}
    host = Layers({n: torch.randn(s).tolist() for n, s in shapes.items()})
    one = Evolution(
        method("dpf", {"every": "1it", "end": 0.5}), shapes, 20, length=20, per_epoch=10
    )
    counts = []
    for step in range(20):
        one.before(host, step)
        counts.append(masks.nonzeros(one.mask))
    assert counts[0] == 100
    assert counts[5] == 100 - int(80 * 0.875)
    assert set(counts[10:]) == {20}
    assert int(one.mask["fc"].sum()) == 10


@pytest.mark.parametrize(("freeze", "expected"), [(False, True), (True, False)])
def test_dpf_goes_on_after_its_end_unless_it_is_frozen(freeze: bool, expected: bool) -> None:
    one = evolution("dpf", {"w": (4, 1)}, 2, length=40, end=0.5, layers="all", freeze=freeze)
    assert [one._prunes_at(step) for step in (19, 20, 21, 39)] == [True, True, expected, expected]


def test_the_end_is_reached_even_if_it_is_that_of_the_training() -> None:
    host = Layers({"w": column([1, 2, 3, 4])})
    one = evolution("dpf", {"w": (4, 1)}, 2, length=10, end=1.0, every="3it", layers="all")
    for step in range(10):
        one.before(host, step)
    assert int(one.mask["w"].sum()) == 2


def test_itop_counts_what_was_ever_trained() -> None:
    one = evolution("static", {"w": (4, 1)}, 2, {"w": [1, 1, 0, 0]})
    assert one.exploration() == 0.5
    host = Layers({"w": column([1, 1, 0, 0])})
    one._take(host, {"w": torch.tensor(column([0, 1, 1, 0])).bool()}, clear=True)
    one._take(host, {"w": torch.tensor(column([0, 1, 1, 0])).bool()}, clear=True)
    assert one.exploration() == 0.75


def test_a_mask_is_drawn_by_seed_and_count() -> None:
    shapes = {"a": (4, 5), "b": (3, 3, 3, 3)}
    one, same, other = (drawn(shapes, {"a": 7, "b": 20}, seed) for seed in (0, 0, 1))
    assert masks.digest(one) == masks.digest(same) != masks.digest(other)
    assert {n: int(m.sum()) for n, m in one.items()} == {"a": 7, "b": 20}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("rigl", {"fraction": 2}, "setting fraction of method rigl is a fraction between 0 and 1"),
        ("rigl", {"fraction": 0}, "setting fraction of method rigl is a fraction between 0 and 1"),
        ("rigl", {"drop": "signs"}, "unknown setting of method rigl 'drop'"),
        ("rigl", {"at_start": 1}, "setting at_start of method rigl is 1; expected .* like False"),
        ("rigl", {"batches": 0}, "setting batches of method rigl must be at least 1, is 0"),
        ("set", {"drop": "all"}, "unknown setting drop of method set 'all'"),
        ("gmp", {"begin": 0.9}, "method gmp would end to change its mask at 0.78125 .* at 0.9"),
        ("dpf", {"every": "0it"}, "setting every of method dpf must be at least 1it, is 0it"),
        ("dpf", {"every": "often"}, "cannot read the step 'often'"),
        ("lth", {}, "unknown method of sparse training 'lth'"),
    ],
)
def test_settings_that_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ElthError, match=message):
        method(name, settings)


@pytest.mark.parametrize(
    ("name", "settings", "start", "message"),
    [
        (
            "rigl",
            {},
            0,
            "rigl would never change its mask, .* every 100 .* between 0 and 15",
        ),
        (
            "set",
            {"every": "5it"},
            15,
            "set would never .* every 5 .* between 15 and 15 of 20",
        ),
        ("gmp", {"every": "15it"}, 0, "gmp would never .* or once at its end: .* between 6 and 15"),
        ("dpf", {"every": "4it"}, 16, "dpf would never .* between 16 and 15 of 20; lower its"),
        ("rigl", {"every": "1it"}, 0, "rigl would do nothing but change its mask, .* at least 2it"),
    ],
)
def test_what_would_do_nothing_is_refused(
    name: str, settings: dict[str, Any], start: int, message: str
) -> None:
    recipe = Recipe(length=Step(2, "ep"), rewind=Step(0, "ep"))
    with pytest.raises(ElthError, match=message):
        method(name, settings).check(recipe, 10, start)
    for one in ("rigl", "set", "gmp", "dpf", "snfs", "static"):
        own = {} if one == "static" else {"every": "3it"}
        method(one, own).check(recipe, 10)
    with pytest.raises(ElthError, match="least of method snfs is above its fraction"):
        method("snfs", {"least": 0.9})


def test_a_count_that_is_within_dense_layers_is_refused() -> None:
    shapes = {"conv": (10, 9, 1, 1), "fc": (2, 5)}
    with pytest.raises(
        ElthError, match=r"method dpf cannot keep 10 weights of 100: 10 are in .*fc"
    ):
        Evolution(method("dpf"), shapes, 10, length=10, per_epoch=5)


def test_plain_names_what_differs() -> None:
    assert method("rigl").plain() == {}
    given = {"every": "50it", "fraction": 0.5, "distribution": "uniform"}
    assert method("rigl", given).plain() == {
        "distribution": "uniform",
        "fraction": 0.5,
        "every": "50it",
    }


SIX_OF_24 = {"a": (3, 4), "b": (3, 4)}
"""Two layers alike: six weights in all are three in each."""


@pytest.mark.parametrize(
    ("name", "kept", "message"),
    [
        *((name, 24, f"method {name} would never .* as all 24 .* kept") for name in MOVING),
        ("rigl", 6, r"method rigl .* iteration 10, moves 0\.287 .* no layer .* more than 3"),
        ("set", 6, r"method set .* moves 0\.287 .* raise its setting fraction"),
    ],
)
def test_what_would_move_no_weight_is_refused(name: str, kept: int, message: str) -> None:
    """Of three weights, .3 (1 + cos(pi / 7.5)) / 2 = .287 are none: int(.86)."""
    with pytest.raises(ElthError, match=message):
        evolution(name, SIX_OF_24, kept, every="10it")


def test_what_moves_a_weight_at_first_is_not_refused() -> None:
    """int(.287 * 4) is 1, and int(.15 * 4), half way, none; a static mask moves none ever."""
    one = evolution("rigl", SIX_OF_24, 8, every="10it")
    assert [step for step in range(100) if one._moves_at(step)] == [10, 20, 30, 40, 50, 60, 70]
    assert masks.total(evolution("rigl", SIX_OF_24, 7, every="10it").mask) == 24
    at_start: Any = {"at_start": True, "fraction": 0.34}
    evolution("rigl", SIX_OF_24, 6, every="60it", **at_start)
    with pytest.raises(ElthError, match="its first update, at iteration 60"):
        evolution("rigl", SIX_OF_24, 6, every="60it", **{**at_start, "at_start": False})
    evolution("snfs", SIX_OF_24, 6, every="10it")
    evolution("static", SIX_OF_24, 6)
    evolution("static", SIX_OF_24, 24)
