"""What is said where fields and keywords are defined, in one line."""

from __future__ import annotations

from typing import Annotated

from elth import meanings
from elth.dynamic import GMP, RigL
from elth.meanings import About

Width = Annotated[int, About("channels of the first stage")]


def _made(shape: str, *, width: Width = 1, depth: int = 2, rate: float = 0.5) -> None:
    """Make a network
    of two lines.

    Args:
        shape: of ``data``.
        depth (int): how many units: of each
            stage, as ``3``.

            Of the last one more.

    Returns:
        rate: nothing.
    """


def _silent() -> None: ...


def test_keywords_are_told_by_docstring_or_annotation() -> None:
    assert meanings.of_keywords(_made) == {
        "shape": "Of `data`.",
        "depth": "How many units: of each stage, as `3`. Of the last one more.",
        "width": "Channels of the first stage",
    }
    assert meanings.of_keywords(_silent) == {}


def test_a_function_without_words_is_told_by_its_file() -> None:
    assert meanings.headline(_made) == "Make a network"
    told = "What is said where fields and keywords are defined, in one line."
    assert meanings.headline(_silent) == told


def test_a_field_of_a_class_takes_the_place_of_one_that_it_inherits() -> None:
    general, own = meanings.of_fields(RigL), meanings.of_fields(GMP)
    assert general["dense_first"] == own["dense_first"]
    assert general["distribution"].startswith("How the weights are spread over the layers: `uni")
    assert own["distribution"].startswith("How the weights are spread over the layers at the end")
