"""Names of networks with options, and shapes of data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elth.errors import ElthError
from elth.networks import DataShape
from elth.specs import Spec, written

words = st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True).filter(
    lambda word: word not in ("true", "false")
)
values = st.one_of(st.integers(), st.booleans(), words)


@given(words, st.dictionaries(words, values, max_size=4))
def test_text_round_trip(name: str, options: dict[str, int | bool | str]) -> None:
    spec = Spec(name, tuple(sorted(options.items())))
    again = Spec.parse(str(spec))
    assert again == spec
    assert [type(value) for _, value in again.options] == [type(v) for _, v in spec.options]


def test_parse() -> None:
    assert Spec.parse("resnet20") == Spec("resnet20")
    assert Spec.parse("resnet20()") == Spec("resnet20")
    parsed = Spec.parse(" vgg13( n=2 , bias=True,kind = deep )")
    assert parsed == Spec("vgg13", (("bias", True), ("kind", "deep"), ("n", 2)))
    assert Spec.parse(parsed) is parsed


@pytest.mark.parametrize("text", ["", "20", "resnet20(width=32", "resnet 20", "resnet20)", "a(b)c"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ElthError, match=r"cannot read the network '.*': write a name, or a name"):
        Spec.parse(text)


@pytest.mark.parametrize("text", ["a(b)", "a(=3)", "a(b=)", "a(b=1, c)"])
def test_an_option_without_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(ElthError, match=r"cannot read the option '.*' of network .* option=value"):
        Spec.parse(text)


def test_what_is_no_network_is_called_by_what_it_is() -> None:
    like = "ways:fold(k=2)"
    with pytest.raises(ElthError, match=r"read the transformation 'a\(': .* as ways:fold\(k=2\)$"):
        Spec.parse("a(", "transformation", like)
    with pytest.raises(ElthError, match="cannot read the option '3' of transformation"):
        Spec.parse("a(3)", "transformation", like)
    with pytest.raises(ElthError, match=r"the transformation .* gives the option k twice"):
        Spec.parse("a(k=1,k=2)", "transformation", like)


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(ElthError, match="gives the option width twice"):
        Spec.parse("resnet20(width=32, width=16)")


@pytest.mark.parametrize("field", ["channels", "size", "classes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", None])
def test_shapes_are_whole_numbers(field: str, value: object) -> None:
    arguments: dict[str, Any] = {field: value}
    with pytest.raises(ElthError, match=f"{field} must be a whole number of at least 1, found"):
        DataShape(**arguments)


def test_shape_defaults_to_cifar() -> None:
    assert DataShape() == DataShape(channels=3, size=32, classes=10)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('folder(manifest="/a,b/c.json", size=8)', "/a,b/c.json"),
        ("folder(size=8, manifest='/a,b/c.json')", "/a,b/c.json"),
        ("folder(manifest=/it's/c.json, size=8)", "/it's/c.json"),
        ("folder(manifest='/say \"x, y\"/c.json', size=8)", '/say "x, y"/c.json'),
        ("folder(manifest=/a(1)/c=d.json, size=8)", "/a(1)/c=d.json"),
        ('folder(manifest="8", size=8)', "8"),
        ('folder(manifest="", size=8)', ""),
        ('folder(manifest=" x ", size=8)', " x "),
    ],
)
def test_words_with_commas_stand_in_quotes(text: str, value: str) -> None:
    spec = Spec.parse(text)
    assert dict(spec.options) == {"manifest": value, "size": 8}
    assert Spec.parse(str(spec)) == spec


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(ElthError, match="has commas and both kinds of quotes in it"):
        written("""a,"b",'c'""")
