"""Names of networks with their options, and the shape of the data that they are built for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from elth.errors import ElthError

Option = int | bool | str

_SPEC = re.compile(r"\s*([A-Za-z][\w-]*)\s*(?:\((.*)\))?\s*", re.DOTALL)


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

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.size, self.size

    def __str__(self) -> str:
        """As people write it: ``3x32x32, 10 classes``."""
        return f"{self.channels}x{self.size}x{self.size}, {self.classes} classes"


@dataclass(frozen=True)
class NetworkSpec:
    """The name of a network and the options that differ from its defaults.

    Example:
        >>> NetworkSpec.parse("resnet20(width=32)")
        NetworkSpec(name='resnet20', options=(('width', 32),))
        >>> str(NetworkSpec("resnet20", (("width", 32),)))
        'resnet20(width=32)'
    """

    name: str
    options: tuple[tuple[str, Option], ...] = ()

    @staticmethod
    def parse(text: str | NetworkSpec) -> NetworkSpec:
        """Read ``name`` or ``name(option=value, ...)``: whole numbers, true or false, words.

        Raises:
            ElthError: the text has another form, or gives an option twice. Names and options are
                checked by ``build``.
        """
        if isinstance(text, NetworkSpec):
            return text
        match = _SPEC.fullmatch(text)
        if match is None:
            raise ElthError(
                f"cannot read the network '{text}': write a name, or a name with options "
                "as resnet20(width=32)"
            )
        name, inside = match.groups()
        options: dict[str, Option] = {}
        for part in filter(None, (p.strip() for p in (inside or "").split(","))):
            key, equals, value = (p.strip() for p in part.partition("="))
            if not (key and equals and value):
                raise ElthError(
                    f"cannot read the option '{part}' of network '{text}': write option=value"
                )
            if key in options:
                raise ElthError(f"the network '{text}' gives the option {key} twice")
            options[key] = _value(value)
        return NetworkSpec(name, tuple(sorted(options.items())))

    def __str__(self) -> str:
        """Write the notation that ``parse`` reads."""
        if not self.options:
            return self.name
        inside = ", ".join(f"{key}={spell(value)}" for key, value in self.options)
        return f"{self.name}({inside})"


def _value(text: str) -> Option:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return {"true": True, "false": False}.get(text.lower(), text)


def spell(value: Option) -> str:
    """An option as it is written: ``true`` for True."""
    return str(value).lower() if isinstance(value, bool) else str(value)
