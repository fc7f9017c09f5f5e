"""Settings of the criteria: their names, their defaults, and what they may be."""

from __future__ import annotations

from typing import Any, cast

import pytest

from elth.criteria import CRITERIA, check_settings, choices, grasp, needs_data, options
from elth.errors import ElthError

GRASP = {
    "samples_per_class": 10,
    "batches": 1,
    "temperature": 200.0,
    "mode": "train",
    "parts": 2,
    "halves": "joint",
}


def test_the_defaults_are_frozen() -> None:
    """They are left out of keys: another default would give old results a new meaning."""
    assert {name: options(name) for name in CRITERIA} == {
        "magnitude": {},
        "snip": {"samples": 128, "mode": "eval"},
        "grasp": GRASP,
        "grasp_absolute": GRASP,
        "synflow": {"iterations": 100},
        "random_global": {},
        "random_layerwise": {},
    }


def test_every_setting_says_what_it_is() -> None:
    for name in CRITERIA:
        known = choices(name)
        assert {key: one.default for key, one in known.items()} == options(name)
        assert [key for key, one in known.items() if not one.about] == []
    assert choices("grasp") == choices("grasp_absolute")
    assert choices("grasp")["halves"].words == ("disjoint", "joint")
    samples = choices("snip")["samples"]
    assert (samples.least, samples.about.endswith("0 for all.")) == (0, True)


def test_which_need_data() -> None:
    assert [name for name in CRITERIA if needs_data(name)] == ["snip", "grasp", "grasp_absolute"]


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("magnitude", {}, {}),
        ("snip", {"samples": 128, "mode": "eval"}, {}),
        ("snip", {"mode": "train", "samples": 0}, {"samples": 0, "mode": "train"}),
        ("grasp", {"temperature": 200, "halves": "joint"}, {}),
        (
            "grasp",
            {"halves": "disjoint", "temperature": 1},
            {"temperature": 1.0, "halves": "disjoint"},
        ),
        (
            "grasp_absolute",
            {"batches": 150, "samples_per_class": 1, "mode": "train"},
            {"samples_per_class": 1, "batches": 150},
        ),
        ("synflow", {"iterations": 1}, {"iterations": 1}),
    ],
)
def test_what_differs_from_the_default_is_returned(
    name: str, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = check_settings(name, given)
    assert list(found.items()) == list(expected.items())
    assert [type(v) for v in found.values()] == [type(v) for v in expected.values()]


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("snop", {}, "unknown criterion 'snop'; did you mean 'snip'?"),
        ("snip", {"sample": 1}, "unknown setting of criterion snip 'sample'; did you mean 'samp"),
        ("magnitude", {"samples": 1}, "unknown setting of criterion magnitude 'samples'"),
        ("snip", {"seed": 1}, "unknown setting of criterion snip 'seed'"),
        ("snip", {"samples": 1.5}, "setting samples of criterion snip is 1.5; expected a value l"),
        ("snip", {"samples": True}, "is True; expected a value like 128"),
        ("snip", {"samples": -1}, "setting samples of criterion snip must be at least 0, is -1"),
        ("snip", {"mode": "trian"}, "mode of criterion snip 'trian'; did you mean 'train'?"),
        ("grasp", {"settings": 1}, "unknown setting of criterion grasp 'settings'"),
        ("grasp", {"halves": "join"}, "halves of criterion grasp 'join'; did you mean 'joint'?"),
        ("grasp", {"batches": 0}, "batches of criterion grasp must be at least 1, is 0"),
        (
            "grasp",
            {"temperature": 0},
            "temperature of criterion grasp must be a positive number, i",
        ),
        ("grasp", {"temperature": float("inf")}, "must be a positive number, is inf"),
        ("grasp", {"temperature": "hot"}, "is 'hot'; expected a value like 200.0"),
        ("grasp", {"halves": 2}, "is 2; expected a value like 'joint'"),
        ("synflow", {"iterations": 0}, "iterations of criterion synflow must be at least 1, is 0"),
    ],
)
def test_what_cannot_be_is_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ElthError, match=message.replace("?", r"\?")):
        check_settings(name, given)


def test_settings_that_are_taken_together_are_checked_where_they_are_made() -> None:
    assert vars(grasp.Settings()) == options("grasp") == options("grasp_absolute")
    with pytest.raises(ElthError, match=r"unknown kind of halves 'join'; did you mean 'joint'\?"):
        grasp.Settings(halves=cast(Any, "join"))
    message = "disjoint halves needs at least 2 parts, found 1; raise parts, or take halves joint"
    with pytest.raises(ElthError, match=message):
        grasp.Settings(halves="disjoint", parts=1)


@pytest.mark.parametrize("function", [options, needs_data])
def test_an_unknown_criterion_is_refused(function: Any) -> None:
    with pytest.raises(ElthError, match="unknown criterion 'gasp'; did you mean 'grasp'"):
        function("gasp")
