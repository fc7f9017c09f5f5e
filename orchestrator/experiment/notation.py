"""YAML as a person reads it: what YAML 1.1 takes for something else is refused, with its line.

To YAML 1.1 ``010`` is 8, ``1_0.0`` is 10, ``1:30`` is 90, ``2026-01-05`` is a date and ``no`` is
false, and of a key that stands twice the last one counts. Here words are words (``yes`` and ``no``
too: what wants true or false understands them), numbers are decimal, and the rest is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from elth.errors import ElthError

Place = tuple[str | int, ...]
"""Where a value stands: keys, and places in lists."""

_TAG = "tag:yaml.org,2002:"
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.inf|\.nan", re.IGNORECASE)
_MOST_VALUES = 100_000


def number(text: str) -> float | None:
    """The number that a text is, as ``1e-3``, which YAML 1.1 takes for text; None if it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


@dataclass
class Text:
    """What a text in YAML says, and in which line each value of it stands."""

    value: Any
    lines: dict[Place, int] = field(default_factory=dict)
    """Counted from 1; 0 where a value comes from elsewhere."""

    def line(self, path: Place) -> int:
        """The line of a value, or of what it is in; 0 if it has none."""
        found = (self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines)
        return next(found, 0)

    def forget(self, path: Place) -> None:
        """Note that a value comes from elsewhere."""
        for known in [known for known in self.lines if known[: len(path)] == path]:
            del self.lines[known]
        self.lines[path] = 0

    def move(self, old: Place, new: Place) -> None:
        """Note that a value, with all that is in it, stands where another stood."""
        found = {path: n for path, n in self.lines.items() if path[: len(old)] == old}
        self.forget(new)
        self.lines |= {new + path[len(old) :]: n for path, n in found.items()}


def parse(text: str, where: str, *, lined: bool = True) -> Text:
    """Read a text.

    Args:
        text: YAML, of one document.
        where: what it is, for messages: a file or an override.
        lined: whether messages name lines.

    Raises:
        ElthError: it is no YAML, or says something that a person may read otherwise.
    """
    try:
        node = _compose(text)
        found = Text(None)
        if node is not None:
            reader = _Reader(where, lined, found.lines)
            found.value = reader.read(node, (), ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        if "mapping values are not allowed" in problem:
            problem += "; a text with a colon and a space in it wants quotes"
        raise ElthError(f"{where} is no valid YAML{place}: {problem}") from error
    except RecursionError as error:
        raise ElthError(f"{where} is nested too deep to be read") from error
    return found


def _compose(text: str) -> yaml.Node | None:
    loader = yaml.SafeLoader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


class _Reader:
    """From the nodes of a text to its values."""

    def __init__(self, where: str, lined: bool, lines: dict[Place, int]) -> None:
        self._where = where
        self._lined = lined
        self._lines = lines
        self._count = 0

    def read(self, node: yaml.Node, path: Place, around: tuple[yaml.Node, ...]) -> Any:
        """The value of a node. What an alias stands for is read anew: each is changed by itself."""
        self._count += 1
        if self._count > _MOST_VALUES:
            raise self._error(node, f"with its aliases there are over {_MOST_VALUES:,} values")
        if node in around:
            raise self._error(node, "an alias stands within what it stands for")
        self._lines.setdefault(path, node.start_mark.line + 1)
        inner = (*around, node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(
                node, bool(around) and bool(getattr(around[-1], "flow_style", False))
            )
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.read(one, (*path, i), inner) for i, one in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, path, inner)
        raise self._error(node, f"the tag {node.tag} has no meaning here: leave it out")

    def _mapping(self, node: yaml.MappingNode, path: Place, inner: tuple[yaml.Node, ...]) -> Any:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for key, value in node.value:
            name = self._key(key)
            line = key.start_mark.line + 1
            if name in seen:
                lines = f"lines {seen[name]} and {line}" if seen[name] != line else f"line {line}"
                stands = f", in {lines}" if self._lined else ""
                raise ElthError(
                    f"{self._where}: the key '{name}' stands twice{stands}; to YAML only the last "
                    "one counts: keep one of them"
                )
            seen[name] = line
            if key.tag == f"{_TAG}merge":
                for part in self._merged(value):  # the first of several counts
                    merged = {**self.read(part, path, inner), **merged}
                continue
            self._lines[(*path, name)] = line
            own[name] = self.read(value, (*path, name), inner)
        return {**merged, **own}

    def _key(self, key: yaml.Node) -> str:
        if not isinstance(key, yaml.ScalarNode):
            raise self._error(key, "a key must be a word: put a text with { or [ in it in quotes")
        if key.tag == f"{_TAG}merge":
            return str(key.value)
        found = self._scalar(key, in_flow=False)
        if not isinstance(found, str):
            raise self._error(
                key, f"keys should be strings, found {key.value or 'none'}: put it in quotes"
            )
        return found

    def _merged(self, node: yaml.Node) -> Iterator[yaml.Node]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                raise self._error(node, "<< takes the keys of a mapping, or of a list of them")
            yield part

    def _scalar(self, node: yaml.ScalarNode, in_flow: bool) -> Any:
        text = str(node.value)
        kind = node.tag.removeprefix(_TAG)
        if kind in ("str", "value"):
            if in_flow and node.style is None and text.count("(") != text.count(")"):
                raise self._error(
                    node,
                    f"a comma ends a text within [ ] and {{ }}, and '{text}' lacks a parenthesis: "
                    "put the whole in quotes",
                )
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return {"true": True, "false": False}.get(text.lower(), text)
        if kind == "int" and _WHOLE.fullmatch(text) and len(text) <= 4000:
            return int(text)
        if kind == "float" and _NUMBER.fullmatch(text):
            return float(text)
        if kind == "float" and _NOT_FINITE.fullmatch(text):
            return float(text.replace(".", ""))
        raise self._error(node, _misread(kind, text))

    def _error(self, node: yaml.Node, problem: str) -> ElthError:
        line = f", line {node.start_mark.line + 1}" if self._lined else ""
        return ElthError(f"{self._where}{line}: {problem}")


def _misread(kind: str, text: str) -> str:
    """What is wrong with a scalar that YAML 1.1 reads otherwise than a person."""
    quoted = f"as a text in quotes, as '{text}'"
    if kind == "timestamp":
        return f"{text} is a date to YAML: write it {quoted}"
    if kind not in ("int", "float"):
        return f"the tag !!{kind} has no meaning here: leave it out"
    try:
        value = yaml.safe_load(f"!!{kind} '{text}'")
    except ValueError:  # too many digits, or a tag on what is no number
        return f"{text[:40]} is no number that can be read: write it as a decimal number, as 10"
    digits = text.replace("_", "").lstrip("+")
    plain = digits.lstrip("0") or "0"
    decimal = plain if _NUMBER.fullmatch(plain) else str(value)
    return f"{text} is {value} to YAML: write it as a decimal number, as {decimal}, or {quoted}"
