"""Names of networks and datasets with their options, and the shape of the data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from elth.errors import ElthError, unknown

Option = int | float | bool | str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What may be chosen: an option of a network or dataset, or a setting of a criterion."""

    default: Option
    about: str = ""
    """What it is."""
    words: tuple[str, ...] = ()
    """Those that it may be, if it is a word and not any."""
    least: int = 1
    """The smallest that it may be, if it is a whole number."""


LARGEST_SIDE = 4096
"""Of an image: a batch of more takes more memory than machines have."""

_SPEC = re.compile(r"\s*((?:[A-Za-z_][\w.]*:)?[A-Za-z][\w-]*)\s*(?:\((.*)\))?\s*", re.DOTALL)
_QUOTES = ('"', "'")
_PART = re.compile(r"""\s*(?:[^,=]+=\s*(?:"[^"]*"|'[^']*')\s*(?=,|$)|[^,]+)""")
_FLOAT = re.compile(r"-?(\d+\.\d*|\.\d+|\d+(?=e))(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class DataShape:
    """What a network must know of a dataset: channels, side of the square image, classes."""

    channels: int = 3
    size: int = 32
    classes: int = 10

    def __post_init__(self) -> None:
        """Refuse what is not a whole number of at least 1."""
        for name in ("channels", "size", "classes"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ElthError(f"{name} must be a whole number of at least 1, found {value!r}")
        if self.size > LARGEST_SIDE:
            raise ElthError(
                f"images have at most {LARGEST_SIDE:,} pixels a side, found a size of {self.size:,}"
            )

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.size, self.size

    def __str__(self) -> str:
        """As people write it: ``3x32x32, 10 classes``."""
        return f"{self.channels}x{self.size}x{self.size}, {self.classes} classes"


class Described(Protocol):
    """What knows of itself what a network must know of it, as a dataset does."""

    @property
    def info(self) -> Shaped:
        """What is known of it."""


class Shaped(Protocol):
    """What has a shape."""

    @property
    def shape(self) -> DataShape:
        """What a network is shown."""


def shape_of(data: DataShape | Described) -> DataShape:
    """The shape of data: its own, where a shape is given."""
    return data if isinstance(data, DataShape) else data.info.shape


@dataclass(frozen=True)
class Spec:
    """The name of a network or a dataset, and the options that differ from its defaults.

    Example:
        >>> Spec.parse("resnet20(width=32)")
        Spec(name='resnet20', options=(('width', 32),))
        >>> str(Spec("resnet20", (("width", 32),)))
        'resnet20(width=32)'
    """

    name: str
    options: tuple[tuple[str, Option], ...] = ()

    @staticmethod
    def parse(text: str | Spec, kind: str = "network", like: str = "resnet20(width=32)") -> Spec:
        """Read ``name`` or ``name(option=value, ...)``: numbers, true or false, words.

        A word with a comma in it stands in quotes, as ``folder(manifest="/a,b/c.json")``.
        A name may be that of something in a module, as ``my_lab.nets:wide``.

        Args:
            text: what is read; a ``Spec`` is given back as it is.
            kind: what it names, for messages.
            like: an example of such a name with an option, for messages.

        Raises:
            ElthError: the text has another form, or gives an option twice. Names and options are
                checked where they are used.
        """
        if isinstance(text, Spec):
            return text
        if not isinstance(text, str):
            raise ElthError(f"expected the name of a {kind}, as {like}; found {text!r}")
        match = _SPEC.fullmatch(text)
        if match is None:
            raise ElthError(
                f"cannot read the {kind} '{text}': write a name, or a name with options as {like}"
            )
        name, inside = match.groups()
        options: dict[str, Option] = {}
        for part in filter(None, (p.strip() for p in _PART.findall(inside or ""))):
            key, equals, value = (p.strip() for p in part.partition("="))
            if not (key and equals and value):
                raise ElthError(
                    f"cannot read the option '{part}' of {kind} '{text}': write option=value"
                )
            if key in options:
                raise ElthError(f"the {kind} '{text}' gives the option {key} twice")
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in _QUOTES
            options[key] = value[1:-1] if quoted else _value(value)
        return Spec(name, tuple(sorted(options.items())))

    def __str__(self) -> str:
        """Write the notation that ``parse`` reads."""
        if not self.options:
            return self.name
        inside = ", ".join(f"{key}={written(value)}" for key, value in self.options)
        return f"{self.name}({inside})"


def split(text: str, mark: str) -> list[str]:
    """A text split at a mark, but not within the brackets of a name with options.

    Example:
        >>> split("recipes.digits(size=16).lr", ".")
        ['recipes', 'digits(size=16)', 'lr']
    """
    parts, depth = [""], 0
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == mark and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _value(text: str) -> Option:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return {"true": True, "false": False}.get(text.lower(), text)


def spell(value: Option) -> str:
    """An option as it is written: ``true`` for True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def written(value: Option) -> str:
    """An option as ``Spec.parse`` reads it again: in quotes where it must be.

    Raises:
        ElthError: it has commas and both kinds of quotes in it.
    """
    if not isinstance(value, str):
        return spell(value)
    bare = value.strip() == value != "" and value[0] not in _QUOTES and "," not in value
    if bare and _value(value) == value:
        return value
    quotes = [quote for quote in _QUOTES if quote not in value]
    if not quotes:
        raise ElthError(f"{value} has commas and both kinds of quotes in it: give it another name")
    return f"{quotes[0]}{value}{quotes[0]}"


def canonical(
    spec: Spec,
    kind: str,
    defaults: Mapping[str, Option],
    *,
    words: Mapping[str, Sequence[str]] | None = None,
    like: Mapping[str, Option] | None = None,
    least: int | None = 1,
) -> Spec:
    """Check options; sort them, and leave out those that say the default.

    Args:
        spec: the name with the options.
        kind: ``network`` or ``dataset``, for messages.
        defaults: the options that there are, with their defaults.
        words: the words that an option may be, for the options that are words.
        like: an example of an option, for the message, where its default is none.
        least: the smallest whole number that an option may be, if there is one.

    Raises:
        ElthError: unknown option, a value of another type than the default's, or a word that the
            option does not know.
    """
    words, like = words or {}, like or {}
    kept = []
    for key, value in spec.options:
        if key not in defaults:
            raise unknown(f"option of {kind} {spec.name}", key, defaults)
        if type(value) is int and type(defaults[key]) is float:
            value = float(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ElthError(f"option {key} of {kind} {spec.name} must be finite, is {value}")
        if type(value) is not type(defaults[key]):
            raise ElthError(
                f"option {key} of {kind} {spec.name} is {value!r}; expected a value like "
                f"{like.get(key, defaults[key])!r}"
            )
        if key in words and value not in words[key]:
            raise unknown(f"{key} of {kind} {spec.name}", str(value), words[key])
        if least is not None and type(value) is int and value < least and value != defaults[key]:
            raise ElthError(
                f"option {key} of {kind} {spec.name} must be at least {least}, is {value}"
            )
        if value != defaults[key]:
            kept.append((key, value))
    return Spec(spec.name, tuple(sorted(kept)))
