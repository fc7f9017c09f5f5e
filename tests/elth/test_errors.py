"""Suggestions for words that are not known."""

from __future__ import annotations

from elth.errors import ElthError, nearest, unknown


def test_nearest() -> None:
    assert nearest("apend", ["append", "drop"]) == "; did you mean 'append'?"
    assert nearest("zzz", ["append", "drop"]) == ""


def test_unknown_lists_what_there_is() -> None:
    error = unknown("plan", "drp", iter(["append", "drop"]))
    assert isinstance(error, ElthError)
    assert str(error) == "unknown plan 'drp'; did you mean 'drop'? (there is: append, drop)"


def test_it_is_a_value_error() -> None:
    assert issubclass(ElthError, ValueError)
